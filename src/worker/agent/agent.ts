import type { SessionInfo } from '#proto'
import { ShoalError, unavailable } from '../../common/index.js'
import type { Agent, AgentModules, AgentOptions } from '../contract.js'
import { BACKOFF_MAX_MS, BACKOFF_MIN_MS, GOOD_SESSION_MS, MANAGERS_MAX } from '../options.js'
import { TaskSet } from '../tasks/index.js'
import { Session, type SessionMemory } from './session.js'
import { StatusReporter } from './status-reporter.js'
import { type Dial, dialDispatcher } from './stream.js'

/** How long a leaving node tries to stop and remove its tasks, in ms; then it leaves all the same. */
const LEAVE_MAX_MS = 60_000

/**
 * The worker's side of the cluster: keeps a session with some manager, lets the tasks assigned to this node run, and reports.
 * Tasks never depend on a session: they go on from disk before the first one and between any two.
 */
export function createAgent(options: AgentOptions, modules: AgentModules & { readonly dial?: Dial }): Agent {
  return new SessionAgent(options, modules)
}

class SessionAgent implements Agent {
  readonly #tasks: TaskSet
  readonly #reporter: StatusReporter
  readonly #memory: SessionMemory = { sessionId: '', node: null, resyncMs: Number.NEGATIVE_INFINITY }
  readonly #dial: Dial
  /** Addresses that sessions told, latest list only. */
  #told: readonly string[] = []
  /** Managers that a session failed with since the last good one. */
  readonly #failed = new Set<string>()
  /** The session is ended on purpose, to be opened anew with the same manager. */
  #isReconnecting = false
  #session: Session | null = null
  #loop: Promise<void> | null = null
  #wait: AbortController | null = null
  #isStopped = false
  /** The manager of the last session had taken us. */
  #wasRegistered = false

  constructor(
    options: AgentOptions,
    private readonly modules: AgentModules & { readonly dial?: Dial },
  ) {
    this.#reporter = new StatusReporter(modules.clock)
    this.#dial = modules.dial ?? dialDispatcher
    this.#tasks = new TaskSet(options, {
      clock: modules.clock,
      logger: modules.logger,
      executor: modules.executor,
      onStatus: (taskId, status) => this.#reporter.note(taskId, status),
    })
  }

  get connected(): boolean {
    return this.#session?.isRegistered ?? false
  }

  async start(): Promise<void> {
    await this.#tasks.start()
    this.#loop = this.#run()
  }

  async stop(): Promise<void> {
    await this.#disconnect()
    await this.#tasks.stop()
  }

  async leave(): Promise<void> {
    await this.#disconnect()
    const { clock, logger } = this.modules
    const giveUp = new AbortController()
    const late = clock.sleep(LEAVE_MAX_MS, giveUp.signal).then(
      () => logger.warn('not all tasks were removed before the node left', { waitedMs: LEAVE_MAX_MS }),
      () => {},
    )
    await Promise.race([this.#tasks.removeAll(), late])
    giveUp.abort(unavailable('left', 'the node has left'))
    await this.#tasks.stop()
    await this.#tasks.forget()
  }

  reconnect(): void {
    this.#isReconnecting = this.#session !== null
    this.#wait?.abort()
    this.#session?.close()
  }

  async #disconnect(): Promise<void> {
    this.#isStopped = true
    this.reconnect()
    await this.#loop
  }

  async #run(): Promise<void> {
    const { clock, logger } = this.modules
    let backoffMs = BACKOFF_MIN_MS
    while (!this.#isStopped) {
      const address = this.#nextManager()
      const startedMs = clock.monotonic()
      if (address !== null) {
        try {
          await this.#converse(address)
          logger.info('the session ended', { manager: address })
        } catch (caught) {
          const error = ShoalError.from(caught)
          if (error.code === 'nodeRemoved') {
            logger.warn('this node is no part of the cluster any more', { manager: address })
            this.modules.onRemoved()
            return
          }
          logger.warn('no session with this manager', { manager: address, code: error.code, error: error.message })
        }
      }
      if (this.#isStopped) return
      if (this.#wasRegistered && clock.monotonic() - startedMs >= GOOD_SESSION_MS) {
        backoffMs = BACKOFF_MIN_MS
        this.#failed.clear()
      }
      if (this.#isReconnecting) backoffMs = BACKOFF_MIN_MS
      else if (address !== null) this.#failed.add(address)
      this.#isReconnecting = false
      await this.#pause(backoffMs)
      backoffMs = Math.min(BACKOFF_MAX_MS, backoffMs * 2)
    }
  }

  /** Resolves when the session ended in order. */
  async #converse(address: string): Promise<void> {
    this.#wasRegistered = false
    const { modules } = this
    const session = new Session(this.#dial(address, modules.identity()), {
      clock: modules.clock,
      logger: modules.logger,
      executor: modules.executor,
      tasks: this.#tasks,
      reporter: this.#reporter,
      memory: this.#memory,
      onInfo: (info) => this.#onInfo(info),
    })
    this.#session = session
    try {
      if (this.#isStopped) session.close()
      await session.run()
    } finally {
      this.#wasRegistered = session.isRegistered
      this.#session = null
    }
  }

  #onInfo(info: SessionInfo): void {
    this.#told = info.managers.map((m) => m.address).slice(0, MANAGERS_MAX)
    this.modules.onSession(info)
  }

  /**
   * The owner's list first, in its order, then the others; those that failed only when all have. The manager that a
   * session was just lost with is thus not asked again first: it may be switched off, and would cost a whole time-out.
   */
  #nextManager(): string | null {
    const all = [...new Set([...this.modules.managers(), ...this.#told])].filter((a) => a !== '')
    if (all.every((a) => this.#failed.has(a))) this.#failed.clear()
    return all.find((a) => !this.#failed.has(a)) ?? null
  }

  /** Between half of `ms` and all of it, so that a thousand nodes that lost one manager do not come back in step. */
  async #pause(ms: number): Promise<void> {
    const { clock, rng } = this.modules
    this.#wait = new AbortController()
    // Aborted by `reconnect` or `stop`: then go on at once.
    await clock.sleep(ms * (0.5 + rng.random() / 2), this.#wait.signal).catch(() => {})
    this.#wait = null
  }
}
