import { isKind, ShoalError } from '../../common/index.js'
import type { Logger } from '../../common/log.js'
import type { RaftNode } from '../../raft/index.js'
import type { Store } from '../store/index.js'
import { NODE_KEY } from './node-key.js'

/**
 * Keeps this manager's data key wrapped with the cluster's unlock key, and has the node's own key sealed while it is: each manager
 * follows the cluster object by itself, so that all share the unlock key. One change at a time; the newest wins.
 *
 * The seal comes from the data key, so that no crash parts the two: wrapping the data key with another unlock key leaves it as it is,
 * and before a data key is replaced by a new one the node's key is in clear.
 */
export class AutolockKeeper {
  #wrapped: string
  #wanted = ''
  /** Null: not known, the last start may have been broken off. */
  #isSealed: boolean | null = null
  #running: Promise<void> | null = null
  readonly #stop: () => void

  constructor(
    private readonly store: Store,
    private readonly raft: Pick<RaftNode, 'rotateKek' | 'derivedKey'>,
    private readonly sealNodeKey: (secret: Uint8Array | null) => Promise<void>,
    private readonly logger: Logger,
    /** The key that wraps the data key now, null: none. */
    present: Uint8Array | null,
  ) {
    this.#wrapped = hex(present)
    this.#stop = store.onCommit((commit) => {
      if (commit.reset || commit.events.some((e) => e.kind === 'cluster')) this.#follow()
    })
    this.#follow()
  }

  /** The one that wraps the data key on disk, and the one that is to: a change that was broken off may have come so far. */
  keys(): readonly Uint8Array[] {
    return [...new Set([this.#wrapped, this.#wanted])]
      .filter((k) => k !== '')
      .map((k) => new Uint8Array(Buffer.from(k, 'hex')))
  }

  async stop(): Promise<void> {
    this.#stop()
    await this.#running
  }

  #follow(): void {
    const cluster = this.store.view().cluster()
    if (!cluster) return
    this.#wanted = hex(cluster.unlockKey)
    this.#running ??= this.#rotate().finally(() => {
      this.#running = null
    })
  }

  async #rotate(): Promise<void> {
    try {
      while (this.#isSealed !== (this.#wrapped !== '') || this.#wrapped !== this.#wanted)
        if (this.#isSealed !== (this.#wrapped !== '')) await this.#seal()
        else await this.#wrap()
    } catch (e) {
      // The member stops; at its next start it follows again.
      if (isKind(e, 'cancelled')) return
      this.logger.error('data key not wrapped anew; tried again at the next change', {
        error: ShoalError.from(e).message,
      })
    }
  }

  async #wrap(): Promise<void> {
    const next = this.#wanted
    await this.raft.rotateKek(next === '' ? null : new Uint8Array(Buffer.from(next, 'hex')))
    this.#wrapped = next
    this.logger.info(next === '' ? 'managers are not locked any more' : 'data key is wrapped with the unlock key')
  }

  async #seal(): Promise<void> {
    const locked = this.#wrapped !== ''
    await this.sealNodeKey(locked ? this.raft.derivedKey(NODE_KEY) : null)
    this.#isSealed = locked
  }
}

const hex = (key: Uint8Array | null): string => (key ? Buffer.from(key).toString('hex') : '')
