import { createHash } from 'node:crypto'
import type { Rng } from '../../src/common/index.js'
import type { Message, RaftId } from '../../src/raft/core/index.js'
import type { OutgoingSnapshot, RaftInbox, RaftTransport, RaftTransportFactory } from '../../src/raft/index.js'
import { TRANSFER_STALL_MS } from '../../src/raft/options.js'
import type { Owner, VirtualTime } from './virtual-time.js'

export interface NetworkFaults {
  dropRate: number
  duplicateRate: number
  /** Share of messages that take up to `lateMs` more, and so overtake nothing and are overtaken. */
  lateRate: number
  lateMs: number
}

interface Station {
  readonly owner: Owner
  readonly life: number
  readonly inbox: RaftInbox
  removed: ReadonlySet<RaftId>
}

/** All links between members. A link is cut in one direction; messages in flight over a cut link are lost. */
export class SimulatedNetwork {
  readonly faults: NetworkFaults = { dropRate: 0, duplicateRate: 0, lateRate: 0, lateMs: 0 }
  readonly #stations = new Map<RaftId, Station>()
  readonly #cut = new Set<string>()
  /** Each message on its way out, for the checker. */
  onSend: (m: Message) => void = () => {}
  /** Planted bugs: what the sender's code would do wrong. */
  distort: (m: Message) => Message = (m) => m
  losePieces = false

  constructor(
    private readonly time: VirtualTime,
    private readonly rng: Rng,
  ) {}

  cut(from: RaftId, to: RaftId): this {
    this.#cut.add(`${from}>${to}`)
    return this
  }
  isCut(from: RaftId, to: RaftId): boolean {
    return this.#cut.has(`${from}>${to}`)
  }
  /** Both ways. */
  join(a: RaftId, b: RaftId): void {
    this.#cut.delete(`${a}>${b}`)
    this.#cut.delete(`${b}>${a}`)
  }
  heal(): void {
    this.#cut.clear()
  }
  get cuts(): number {
    return this.#cut.size
  }

  #alive(id: RaftId): Station | null {
    const s = this.#stations.get(id)
    return s !== undefined && s.owner.life === s.life ? s : null
  }

  #delay(): number {
    const { lateRate, lateMs } = this.faults
    return 0.2 + this.rng.random() * 2 + (this.rng.random() < lateRate ? this.rng.random() * lateMs : 0)
  }

  transport(owner: Owner): RaftTransportFactory {
    return (self, inbox): RaftTransport => {
      const station: Station = { owner, life: owner.life, inbox, removed: new Set() }
      this.#stations.set(self.raftId, station)
      return {
        send: (messages) => {
          for (const m of messages) {
            // As the real one, which vouches for the messages of its own member only.
            if (m.from !== self.raftId) throw new Error(`${self.nodeId} sends a message of ${m.from}`)
            this.#send(station, m)
          }
        },
        setMembers: (_members, removed) => {
          station.removed = new Set(removed)
        },
        sendSnapshot: (m, snapshot, signal) => this.#sendSnapshot(owner, m, snapshot, signal),
        reachable: (id) =>
          id === self.raftId ||
          (this.#alive(id) !== null && !(this.#cut.size > 0 && this.#cut.has(`${id}>${self.raftId}`))),
        close: async () => {
          if (this.#stations.get(self.raftId) === station) this.#stations.delete(self.raftId)
        },
      }
    }
  }

  #send(from: Station, m: Message): void {
    this.onSend(m)
    freeze(m)
    const sent = this.distort(m)
    if (from.removed.has(m.to)) return
    const { dropRate, duplicateRate } = this.faults
    if (this.rng.random() < dropRate) return
    const copies = this.rng.random() < duplicateRate ? 2 : 1
    for (let i = 0; i < copies; i++) this.#deliver(from, sent)
  }

  #deliver(from: Station, m: Message): void {
    const to = this.#alive(m.to)
    if (to === null || (this.#cut.size > 0 && this.#cut.has(`${m.from}>${m.to}`))) {
      if (this.rng.random() < 0.3) this.#tell(from, () => from.inbox.unreachable(m.to))
      return
    }
    this.time.schedule(to.owner, this.#delay(), () => {
      if ((this.#cut.size > 0 && this.#cut.has(`${m.from}>${m.to}`)) || this.#alive(m.to) !== to) return
      if (to.removed.has(m.from)) {
        this.#tell(from, () => from.inbox.removed())
        return
      }
      to.inbox.receive([m])
    })
  }

  /** A process that died meanwhile hears nothing, whoever runs in its place. */
  #tell(from: Station, what: () => void): void {
    if (from.owner.life === from.life) this.time.schedule(from.owner, 1, what)
  }

  /** Piece by piece with the network's delays; a cut in the middle fails the transfer. */
  async #sendSnapshot(owner: Owner, m: Message, snapshot: OutgoingSnapshot, signal: AbortSignal): Promise<void> {
    const station = this.#alive(m.to)
    if (station === null) throw new Error('no such station')
    const wait = (who: Owner): Promise<void> =>
      new Promise((resolve) => {
        this.time.schedule(who, this.#delay(), resolve)
      })
    const check = (): void => {
      signal.throwIfAborted()
      if ((this.#cut.size > 0 && this.#cut.has(`${m.from}>${m.to}`)) || this.#alive(m.to) !== station)
        throw new Error('link cut')
      if (this.rng.random() < this.faults.dropRate / 4) throw new Error('connection reset')
    }
    /** A receiver that dies never answers: as in the real transport, a transfer without progress is given up. */
    const answer = <T>(work: Promise<T>): Promise<T> =>
      new Promise((resolve, reject) => {
        const stalled = this.time.schedule(owner, TRANSFER_STALL_MS, () => reject(new Error('no progress')))
        work.then(resolve, reject).finally(() => {
          stalled.cancelled = true
        })
      })
    await wait(owner)
    check()
    const { pieces, isUrgent: _, ...described } = this.losePieces ? await withoutLast(snapshot) : snapshot
    const sink = await answer(station.inbox.receiveSnapshot(m, described))
    try {
      for await (const piece of pieces()) {
        await wait(owner)
        check()
        await answer(sink.write(piece))
      }
      check()
      await answer(sink.finish())
    } catch (e) {
      await sink.abort()
      throw e
    }
    await wait(owner)
  }
}

/** As a sender would do that forgot the last piece before it counted. */
async function withoutLast(snapshot: OutgoingSnapshot): Promise<OutgoingSnapshot> {
  const all: Uint8Array[] = []
  for await (const p of snapshot.pieces()) all.push(p)
  const rest = all.slice(0, -1)
  const whole = Buffer.concat(rest)
  return {
    ...snapshot,
    size: whole.length,
    sha256: createHash('sha256').update(whole).digest('hex'),
    pieces: async function* () {
      yield* rest
    },
  }
}

/** A message that is changed after it was sent would be a different one on a real wire. */
function freeze(m: Message): void {
  Object.freeze(m)
  Object.freeze(m.entries)
  for (const e of m.entries) Object.freeze(e)
}
