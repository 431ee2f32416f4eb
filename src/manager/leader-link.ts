import type * as grpc from '@grpc/grpc-js'
import { connected, dialGrpc, type TlsIdentity } from '../common/grpc/index.js'
import { type Clock, Emitter, isKind, type ShoalError, unavailable } from '../common/index.js'
import type { RaftNode } from '../raft/index.js'
import { noLeader } from './control/errors.js'

/** How long a call waits for a leader before it fails with Docker's sentence; at once when there was none for so long. */
export const NO_LEADER_MS = 10_000
/** Between two looks at who leads, besides the looks that Raft's own events cause. */
const LOOK_MS = 100
/** Longest wait for a connection before the next look. */
const CONNECT_MS = 2000

/**
 * The way to the leader from this manager: itself, or a connection. Calls that certainly had no effect (the other side
 * said `notLeader`, or no connection came about) are tried again until `NO_LEADER_MS` have passed; others never are.
 */
export class LeaderLink {
  #client: { readonly address: string; readonly client: grpc.Client } | null = null
  readonly #changed = new Emitter<void>()
  readonly #stops: (() => void)[]
  #leading = false
  /** A leader is known now; if not, when one was last. */
  #known = false
  #leaderSeenAt: number
  #closed = false

  constructor(
    private readonly raft: Pick<RaftNode, 'leaderAddress' | 'onStatus' | 'status'>,
    private readonly identity: () => TlsIdentity,
    private readonly clock: Clock,
  ) {
    this.#leaderSeenAt = clock.monotonic()
    this.#stops = [
      raft.onStatus((status) => {
        if (this.#known || status.leader !== 0) this.#leaderSeenAt = clock.monotonic()
        this.#known = status.leader !== 0
        this.#changed.emit()
      }),
    ]
  }

  /** The leader's parts run here and may be called. */
  setLeading(leading: boolean): void {
    this.#leading = leading
    this.#changed.emit()
  }

  get leading(): boolean {
    return this.#leading
  }

  onChange(listener: () => void): () => void {
    return this.#changed.on(listener)
  }

  /** New connections use the renewed certificate. */
  identityChanged(): void {
    this.#drop()
  }

  /** A connection to the leader; null when this manager leads or none is known. */
  connection(): grpc.Client | null {
    if (this.#closed || this.#leading || this.raft.status().leading) return null
    const address = this.raft.leaderAddress()
    if (address === null) return null
    if (this.#client?.address !== address) {
      this.#drop()
      this.#client = { address, client: dialGrpc({ address, identity: this.identity() }) }
    }
    return this.#client.client
  }

  /**
   * For calls that change nothing: when leadership moves while one is on its way, it is given up (its signal fires) and asked of the
   * next leader. A host that was switched off would hold it for as long as the connection takes to notice.
   */
  read<T>(local: () => Promise<T>, remote: (client: grpc.Client, signal: AbortSignal) => Promise<T>): Promise<T> {
    return this.call(local, async (client) => {
      const gone = new AbortController()
      const off = this.#changed.on(() => {
        if (this.#movedFrom(client)) gone.abort()
      })
      try {
        return await remote(client, gone.signal)
      } catch (e) {
        if (gone.signal.aborted && !this.#closed) throw unavailable('notLeader', 'another manager leads now')
        throw e
      } finally {
        off()
      }
    })
  }

  async call<T>(local: () => Promise<T>, remote: (client: grpc.Client) => Promise<T>): Promise<T> {
    const giveUp = this.clock.monotonic() + NO_LEADER_MS
    for (;;) {
      const now = this.clock.monotonic()
      const left = (this.#known ? giveUp : Math.min(giveUp, this.#leaderSeenAt + NO_LEADER_MS)) - now
      if (left <= 0 || this.#closed) throw noLeader()
      try {
        if (this.#leading) return await local()
        const client = this.connection()
        if (client && (await this.#reaches(client, Math.min(left, CONNECT_MS)))) return await remote(client)
      } catch (e) {
        // Its connection goes with this link.
        if (this.#closed && isKind(e, 'cancelled')) throw unavailable('stopping', 'this manager stops')
        if (!isKind(e, 'unavailable') || (e as ShoalError).code !== 'notLeader') throw e
      }
      await this.#nextChange(LOOK_MS)
    }
  }

  /** False when no connection came about, or when the way to the leader is another one by then: a dead leader holds nobody up. */
  async #reaches(client: grpc.Client, ms: number): Promise<boolean> {
    let off = (): void => {}
    const moved = new Promise<boolean>((resolve) => {
      off = this.#changed.on(() => {
        if (this.#movedFrom(client)) resolve(false)
      })
    })
    try {
      return await Promise.race([connected(client, ms), moved])
    } finally {
      off()
    }
  }

  #movedFrom(client: grpc.Client): boolean {
    return this.#closed || this.connection() !== client
  }

  #nextChange(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const done = (): void => {
        timer.cancel()
        off()
        resolve()
      }
      const timer = this.clock.after(ms, done)
      const off = this.#changed.on(done)
    })
  }

  #drop(): void {
    const old = this.#client
    this.#client = null
    // Calls under way may still be answered.
    old?.client.close()
  }

  close(): void {
    this.#closed = true
    for (const stop of this.#stops) stop()
    this.#drop()
    this.#changed.emit()
  }
}
