import { isKind, ShoalError } from '../../common/index.js'
import type { Logger } from '../../common/log.js'
import type { RaftNode } from '../../raft/index.js'
import type { Store } from '../store/index.js'

/**
 * Keeps this manager's data key wrapped with the cluster's unlock key: each manager follows the cluster object by itself,
 * so that all share the key. One change at a time; the newest wins.
 */
export class AutolockKeeper {
  #wrapped: string
  #wanted = ''
  #running: Promise<void> | null = null
  readonly #stop: () => void

  constructor(
    private readonly store: Store,
    private readonly raft: Pick<RaftNode, 'rotateKek'>,
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
    while (this.#wrapped !== this.#wanted) {
      const next = this.#wanted
      try {
        await this.raft.rotateKek(next === '' ? null : new Uint8Array(Buffer.from(next, 'hex')))
      } catch (e) {
        // The member stops; at its next start it follows again.
        if (isKind(e, 'cancelled')) return
        this.logger.error('data key not wrapped anew; tried again at the next change', {
          error: ShoalError.from(e).message,
        })
        return
      }
      this.#wrapped = next
      this.logger.info(next === '' ? 'managers are not locked any more' : 'data key is wrapped with the unlock key')
    }
  }
}

const hex = (key: Uint8Array | null): string => (key ? Buffer.from(key).toString('hex') : '')
