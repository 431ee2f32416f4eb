import { type Clock, isOutOfSpace, type Rng, ShoalError } from '../common/index.js'
import type { Logger } from '../common/log.js'
import type { Manager, ManagerModules, ManagerOptions, NodeIdentity } from '../manager/index.js'
import { type ClusterEvent, followCluster } from './cluster-events.js'
import { hasLogSpace, waitsForSpace } from './disk-space.js'
import { removeTree } from './durable.js'

/** Between two looks at a disk that was full. */
const SPACE_LOOK_MS = 1000
/** A restarted member without its quorum may start for hours: after this it is left to it. */
const START_WAIT_MS = 3000

/** Who the manager is and where it listens, as of now. */
export interface ManagerPlace {
  readonly identity: NodeIdentity
  readonly listenAddress: string
  readonly advertiseAddress: string
}

export interface ManagerSeatOptions {
  /** <data-root>/swarm */
  readonly dir: string
  /** Raft tick, milliseconds. */
  readonly tickMs: number
}

export interface ManagerSeatModules {
  readonly clock: Clock
  readonly rng: Rng
  readonly logger: Logger
  readonly publish: (event: ClusterEvent) => void
  readonly createManager: (options: ManagerOptions, modules: ManagerModules) => Manager
  readonly sealNodeKey: ManagerModules['sealNodeKey']
  readonly place: () => ManagerPlace
  /** Runs when no other operation of this node does. */
  readonly exclusive: (fn: () => Promise<void>) => Promise<void>
  /** The others removed the manager that sits here. Runs exclusively. */
  readonly onRemoved: () => Promise<void>
}

/**
 * Where this node's manager sits.
 *
 *     empty ──start──> running ──the log cannot be written──> failed (until the daemon restarts)
 *       ^                 │  ^                      │ no space
 *       └──stop, remove───┘  └── space again ── waiting
 *
 * A failed write is final for a Raft member (docs/raft.md): only reading the disk again tells what it holds. So where the
 * disk was full the manager is stopped, and made anew from its disk once there is room. The agent and its containers run on.
 */
export class ManagerSeat {
  #manager: Manager | null = null
  /** While it is on its way into a cluster. */
  #starting: Manager | null = null
  /** Ends the telling of cluster events. */
  #events: AbortController | null = null
  /** Ends the wait for space; null: nothing is waited for. */
  #waiting: AbortController | null = null
  #trouble = ''

  constructor(
    private readonly options: ManagerSeatOptions,
    private readonly m: ManagerSeatModules,
  ) {}

  /** Null where this node is no manager, or where its manager cannot run now. */
  get manager(): Manager | null {
    return this.#manager
  }

  /** Why this node's manager does not run; empty while it does, or when there is none. */
  get trouble(): string {
    return this.#trouble
  }

  /** This node has a manager's state, whether it runs or not. */
  get taken(): boolean {
    return this.#manager !== null || this.#trouble !== ''
  }

  /** `unlockKeys`: those that may wrap the data key on disk; empty: none does. */
  async start(bootstrap: ManagerOptions['bootstrap'], unlockKeys: readonly Uint8Array[]): Promise<void> {
    this.#clear()
    const keys: readonly (Uint8Array | null)[] = unlockKeys.length > 0 ? unlockKeys : [null]
    for (const [i, key] of keys.entries()) {
      try {
        await this.#start(bootstrap, key)
        return
      } catch (e) {
        if ((e as ShoalError).code === 'wrongUnlockKey' && i < keys.length - 1) continue
        if (bootstrap.kind !== 'restart' || !isOutOfSpace(e)) throw e
        await this.#waitForSpace(unlockKeys, e)
        return
      }
    }
  }

  async #start(bootstrap: ManagerOptions['bootstrap'], unlockKey: Uint8Array | null): Promise<void> {
    const { identity, listenAddress, advertiseAddress } = this.m.place()
    const { clock, rng, logger, sealNodeKey } = this.m
    const manager = this.m.createManager(
      { ...this.options, identity, listenAddress, advertiseAddress, bootstrap, unlockKey },
      { clock, rng, logger: logger.child({ room: 'manager' }), sealNodeKey },
    )
    manager.onRemoved(() => {
      logger.warn('this manager was removed from the raft cluster')
      // One that was removed before it was a full member has failed to start, and sits here no more.
      this.#soon('stopping the removed manager', async () => {
        if (this.#manager === manager) await this.m.onRemoved()
      })
    })
    manager.onFailed((e) => this.#soon('stopping the failed manager', () => this.#failed(manager, e)))
    this.#manager = manager
    const starting = manager.start()
    this.#tellEvents(manager, starting)
    this.#starting = bootstrap.kind === 'restart' ? null : manager
    try {
      if (bootstrap.kind !== 'restart') await starting
      else
        await Promise.race([
          starting,
          // A quorum may be missing for hours: go on once the log was read, fail only if it could not be.
          clock.sleep(START_WAIT_MS),
        ])
    } catch (e) {
      if (this.#manager === manager) this.#manager = null
      throw ShoalError.from(e)
    } finally {
      this.#starting = null
    }
    starting.catch((e: unknown) => {
      if (this.#manager !== manager) return
      this.#trouble = (e as Error).message
      logger.error('manager failed to start', { error: String(e) })
    })
  }

  /** A start that waits for other managers fails at once: who wants to stop waits for nobody. */
  breakOff(): void {
    void this.#starting?.stop()
  }

  #soon(what: string, fn: () => Promise<void>): void {
    this.m.exclusive(fn).catch((e: unknown) => this.m.logger.error(what, { error: String(e) }))
  }

  /** From when the member has caught up until it stops: what it read of the log before happened long ago. */
  #tellEvents(manager: Manager, starting: Promise<void>): void {
    const ending = new AbortController()
    this.#events?.abort()
    this.#events = ending
    const { clock, logger, publish } = this.m
    const follow = (): Promise<void> =>
      followCluster(manager.control, { clock, logger, publish }, ending.signal).catch((e: unknown) => {
        if (!ending.signal.aborted) logger.error('cluster events are not told any more', { error: String(e) })
      })
    // That it did not start is told by who started it.
    void starting.then(follow, () => {})
  }

  async #failed(manager: Manager, error: ShoalError): Promise<void> {
    if (this.#manager !== manager) return
    const keys = manager.unlockKeys()
    await this.#stopManager()
    if (isOutOfSpace(error)) await this.#waitForSpace(keys, error)
    else {
      this.#trouble = `${error.message}; repair the disk and restart shoald`
      this.m.logger.error('this manager stopped until shoald is restarted', { error: error.message })
    }
  }

  async #waitForSpace(unlockKeys: readonly Uint8Array[], error: unknown): Promise<void> {
    const { dir } = this.options
    const waiting = new AbortController()
    this.#waiting = waiting
    this.#trouble = await waitsForSpace(dir)
    this.m.logger.error('the disk is full: this manager stopped and starts again once there is space', {
      dir,
      error: (error as Error).message,
    })
    void this.#restartWithSpace(unlockKeys, waiting).catch((e: unknown) => {
      if (waiting.signal.aborted) return
      this.#trouble = (e as Error).message
      this.m.logger.error('this manager could not start again', { error: String(e) })
    })
  }

  async #restartWithSpace(unlockKeys: readonly Uint8Array[], waiting: AbortController): Promise<void> {
    const { dir } = this.options
    do await this.m.clock.sleep(SPACE_LOOK_MS, waiting.signal)
    while (!(await hasLogSpace(dir)))
    await this.m.exclusive(async () => {
      if (waiting.signal.aborted) return
      this.m.logger.info('there is disk space again: this manager starts', { dir })
      await this.start({ kind: 'restart' }, unlockKeys)
    })
  }

  setIdentity(identity: NodeIdentity): void {
    this.#manager?.setIdentity(identity)
  }

  async stop(): Promise<void> {
    this.#clear()
    await this.#stopManager()
  }

  /** Stops it for good: its log and keys go too. */
  async remove(): Promise<void> {
    await this.stop()
    await removeTree(this.options.dir, 'raft')
  }

  #clear(): void {
    this.#waiting?.abort()
    this.#waiting = null
    this.#trouble = ''
  }

  async #stopManager(): Promise<void> {
    const manager = this.#manager
    this.#manager = null
    this.#events?.abort()
    await manager?.stop()
  }
}
