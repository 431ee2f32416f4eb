import { ShoalError, unavailable } from '../common/index.js'
import type { RaftId, ReadState } from './core/index.js'

interface Reader {
  readonly resolve: () => void
  readonly reject: (error: unknown) => void
  open: boolean
}

interface Round {
  readonly context: Uint8Array
  readonly readers: Reader[]
  ticks: number
}

/** Docker's words for a swarm without a leader (raft.md §10); clients show them as they are. */
export const NO_LEADER_TEXT =
  "The swarm does not have a leader. It's possible that too few managers are online. Make sure more than half of the managers are online."

/**
 * Linearizable reads (raft.md §8): one read-index round at a time for everyone who asked before its start. A round
 * without an answer is asked again: its message may be lost, or its leader.
 */
export class Reads {
  #next: Reader[] = []
  #round: Round | null = null
  /** Confirmed; they wait until that much is applied. */
  #confirmed: { readonly index: number; readonly readers: Reader[] }[] = []
  #counter: number

  constructor(
    private readonly raftId: RaftId,
    boots: number,
    private readonly retryTicks: number,
  ) {
    this.#counter = boots * 2 ** 32
  }

  get open(): number {
    const lists = [this.#next, this.#round?.readers ?? [], ...this.#confirmed.map((c) => c.readers)]
    return lists.reduce((sum, l) => sum + l.filter((r) => r.open).length, 0)
  }

  barrier(signal?: AbortSignal): Promise<void> {
    if (signal?.aborted) return Promise.reject(signal.reason)
    return new Promise<void>((resolve, reject) => {
      const aborted = (): void => {
        reader.open = false
        reject(ShoalError.from(signal?.reason))
      }
      const reader: Reader = {
        open: true,
        resolve: () => {
          signal?.removeEventListener('abort', aborted)
          resolve()
        },
        reject: (e) => {
          signal?.removeEventListener('abort', aborted)
          reject(e)
        },
      }
      signal?.addEventListener('abort', aborted, { once: true })
      this.#next.push(reader)
    })
  }

  /** Starts a round if one is wanted, none runs, and there is someone to ask. */
  ask(leader: RaftId, readIndex: (context: Uint8Array) => void): void {
    if (this.#round !== null || leader === 0) return
    const readers = this.#next.filter((r) => r.open)
    this.#next = []
    if (readers.length === 0) return
    const context = new Uint8Array(16)
    const view = new DataView(context.buffer)
    view.setBigUint64(0, BigInt(this.raftId))
    view.setBigUint64(8, BigInt(++this.#counter))
    this.#round = { context, readers, ticks: 0 }
    readIndex(context)
  }

  answer(states: readonly ReadState[]): void {
    for (const s of states) {
      const round = this.#round
      if (round === null || Buffer.compare(s.context, round.context) !== 0) continue
      this.#round = null
      this.#confirmed.push({ index: s.index, readers: round.readers })
    }
  }

  applied(index: number): void {
    if (this.#confirmed.length === 0) return
    const done = this.#confirmed.filter((c) => c.index <= index)
    this.#confirmed = this.#confirmed.filter((c) => c.index > index)
    for (const c of done) for (const r of c.readers) settle(r, null)
  }

  tick(ticks: number): void {
    const round = this.#round
    if (round === null) return
    round.ticks += ticks
    if (round.ticks >= this.retryTicks) this.again()
  }

  /** The leader changed or does not answer: the running round starts anew. */
  again(): void {
    if (this.#round === null) return
    this.#next = [...this.#round.readers, ...this.#next]
    this.#round = null
  }

  noLeader(): void {
    this.fail(unavailable('noLeader', NO_LEADER_TEXT))
  }

  fail(error: unknown): void {
    const all = [...this.#next, ...(this.#round?.readers ?? []), ...this.#confirmed.flatMap((c) => c.readers)]
    this.#next = []
    this.#round = null
    this.#confirmed = []
    for (const r of all) settle(r, error)
  }
}

function settle(r: Reader, error: unknown): void {
  if (!r.open) return
  r.open = false
  if (error === null) r.resolve()
  else r.reject(error)
}
