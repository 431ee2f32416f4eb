import test from 'ava'
import { seededRng } from '../../../src/common/index.js'
import {
  type ConfChange,
  type Entry,
  MemoryStorage,
  type Message,
  NO_BYTES,
  type RaftId,
} from '../../../src/raft/core/index.js'
import { bytes, Member, type MemberOptions } from './harness.js'

/**
 * Random runs of a cluster over lossy links, with slow disks, crashes and changes of membership, checked after every
 * step. The full simulation with real storage is elsewhere; this one finds what a change of the core breaks, in seconds.
 */
class RandomCluster {
  readonly members = new Map<RaftId, Member>()
  private network: Message[] = []
  private readonly leaders = new Map<number, RaftId>()
  /** What was applied at each index, by the first member to do so. */
  readonly history = new Map<number, string>()
  private readonly checked = new Map<RaftId, number>()
  private proposals = 0
  private readonly rng: { random(): number }
  private readonly options: MemberOptions
  trace = 0

  constructor(seed: number, count: number) {
    this.rng = seededRng(seed)
    this.options = {
      voters: Array.from({ length: count }, (_, i) => i + 1),
      asyncStorageWrites: this.chance(0.7),
      preVote: this.chance(0.5),
      checkQuorum: this.chance(0.5),
      stepDownOnRemoval: this.chance(0.5),
      maxInflightMsgs: 1 + this.pick(8),
      maxSizePerMsg: this.chance(0.5) ? 40 : 10_000,
      maxCommittedSizePerReady: this.chance(0.5) ? 30 : 0,
      random: () => this.rng.random(),
      electionTick: 5,
    }
    for (let id = 1; id <= count; id++) this.members.set(id, new Member(id, this.options))
  }

  pick(n: number): number {
    return Math.floor(this.rng.random() * n)
  }

  chance(p: number): boolean {
    return this.rng.random() < p
  }

  private some(): Member {
    return [...this.members.values()][this.pick(this.members.size)]!
  }

  step(faults: boolean): void {
    const m = this.some()
    const what = this.pick(100)
    if (what < 25) m.core.tick()
    else if (what < 35) m.core.propose(bytes(`p${this.proposals++}`))
    else if (what < 60) this.deliver(faults)
    else if (what < 90) this.work(m)
    else if (what < 92 && faults) this.crash(m)
    else if (what < 93 && faults) this.compact(m)
    else if (what < 95) m.core.proposeConfChange(this.randomChange())
    else if (what < 96) m.core.transferLeader(1 + this.pick(this.members.size))
    else if (what < 97) m.core.reportUnreachable(1 + this.pick(this.members.size))
    else this.deliver(faults)
    this.check(this.members.get(m.id)!)
  }

  private send(messages: readonly Message[]): void {
    for (const m of messages) {
      this.trace = (Math.imul(this.trace, 31) + m.type.length * 7 + m.index + m.term * 13 + m.to) | 0
      this.network.push(m)
    }
  }

  /** One Ready or one write: a member's disk may be many Readys behind. */
  private work(m: Member): void {
    if (m.appendQueue.length > 0 && this.chance(0.4)) this.send(m.appendOne())
    else if (m.applyQueue.length > 0 && this.chance(0.4)) this.send(m.applyOne())
    else if (m.core.hasReady()) this.send(m.workOnce())
    else if (m.appendQueue.length > 0) this.send(m.appendOne())
    else if (m.applyQueue.length > 0) this.send(m.applyOne())
  }

  /** Any message in flight: so they are reordered; some are lost, some come twice. */
  private deliver(faults: boolean): void {
    if (this.network.length === 0) return
    const at = faults ? this.pick(Math.min(this.network.length, 12)) : 0
    const [m] = this.network.splice(at, 1)
    if (faults && this.chance(0.1)) {
      // The transport always says how a snapshot's transfer ended.
      if (m!.type === 'MsgSnap') this.members.get(m!.from)!.core.reportSnapshot(m!.to, false)
      return
    }
    if (faults && this.chance(0.05)) this.network.push(m!)
    this.members.get(m!.to)?.core.step(m!)
    if (m!.type === 'MsgSnap') this.members.get(m!.from)!.core.reportSnapshot(m!.to, this.chance(0.9))
    const to = this.members.get(m!.to)
    if (to) this.check(to)
  }

  /** What was not written is lost, with everything that waited for it. The state machine starts from the snapshot. */
  private crash(m: Member): void {
    const { storage } = m
    const taken = storage.snapshot()
    const at = typeof taken === 'string' ? 0 : taken.index
    const again = new Member(m.id, { ...this.options, storage: restarted(storage) })
    this.members.set(m.id, again)
    this.checked.set(m.id, 0)
    again.appliedBefore = at
  }

  private compact(m: Member): void {
    const upTo = m.status.applied
    const hard = m.storage.initialState().hardState
    if (upTo <= m.storage.firstIndex() || hard.commit < upTo || m.storage.lastIndex() < upTo) return
    m.compact(upTo)
  }

  private randomChange(): ConfChange {
    const one = () => {
      const type = (['addNode', 'removeNode', 'addLearnerNode'] as const)[this.pick(3)]!
      return { type, nodeId: 1 + this.pick(this.members.size) }
    }
    const changes = Array.from({ length: 1 + this.pick(2) }, one)
    // Never empty the cluster of voters for good: member 1 stays one.
    const safe = changes.filter((c) => c.nodeId !== 1)
    if (safe.length === 0 || this.chance(0.2)) return { transition: 'auto', changes: [], context: NO_BYTES }
    return { transition: this.chance(0.5) ? 'auto' : 'jointImplicit', changes: safe, context: NO_BYTES }
  }

  private check(m: Member): void {
    const { hardState, softState, applied } = m.status
    if (softState.role === 'leader') {
      const other = this.leaders.get(hardState.term)
      if (other !== undefined && other !== m.id)
        throw new Error(`term ${hardState.term} has two leaders: ${other}, ${m.id}`)
      this.leaders.set(hardState.term, m.id)
    }
    if (applied > hardState.commit) throw new Error(`member ${m.id} applied ${applied}, committed ${hardState.commit}`)
    const from = this.checked.get(m.id) ?? 0
    let last = from > 0 ? m.applied[from - 1]!.index : m.appliedBefore
    for (const e of m.applied.slice(from)) {
      // A received snapshot may jump ahead; within the log there are no holes.
      if (e.index <= last) throw new Error(`member ${m.id} applied ${e.index} after ${last}`)
      last = e.index
      const seen = describe(e)
      const known = this.history.get(e.index)
      if (known !== undefined && known !== seen)
        throw new Error(`index ${e.index}: member ${m.id} applied ${seen}, another ${known}`)
      this.history.set(e.index, seen)
    }
    this.checked.set(m.id, m.applied.length)
  }

  /** Without faults the cluster finds a leader, and every member of its configuration its whole log. */
  heal(): void {
    for (let round = 0; round < 20_000; round++) {
      for (const m of this.members.values()) for (let i = 0; i < 4; i++) this.work(m)
      for (let i = this.network.length; i > 0; i--) this.deliver(false)
      if (round % 5 === 0) for (const m of this.members.values()) m.core.tick()
      // A member refuses a snapshot from before it was added: owners have to take a new one for it.
      if (round % 50 === 49) for (const m of this.members.values()) if (m.role === 'leader') this.compact(m)
      if (round % 100 === 99 && this.isSettled()) return
    }
    throw new Error(
      `no agreement: ${[...this.members.values()].map((m) => JSON.stringify(m.status.softState) + m.commit).join(' ')}`,
    )
  }

  private isSettled(): boolean {
    const lead = [...this.members.values()].filter((m) => m.role === 'leader').sort((a, b) => b.term - a.term)[0]
    if (!lead || lead.commit !== lead.storage.lastIndex()) return false
    const { voters, learners } = lead.status.config
    return [...voters, ...learners].every((id) => {
      const m = this.members.get(id)!
      return m.commit === lead.commit && m.status.applied === lead.commit
    })
  }
}

const describe = (e: Entry): string => `${e.term} ${e.type} ${e.data.join(',')}`

/** What a disk holds after a crash: a storage of its own, so that late writes of the old process miss it. */
function restarted(storage: MemoryStorage): MemoryStorage {
  const { hardState, confState: state } = storage.initialState()
  const copy = new MemoryStorage(state)
  const snap = storage.snapshot()
  if (typeof snap !== 'string' && snap.index > 0) copy.applySnapshot(snap)
  const first = Math.max(storage.firstIndex(), copy.firstIndex())
  if (storage.lastIndex() >= first) {
    const log = storage.entries(first, storage.lastIndex() + 1, Number.MAX_SAFE_INTEGER)
    if (typeof log === 'string') throw new Error(log)
    copy.append(log)
  }
  copy.setHardState(hardState)
  return copy
}

function run(seed: number, steps: number): RandomCluster {
  const cluster = new RandomCluster(seed, seed % 2 === 0 ? 3 : 5)
  try {
    for (let i = 0; i < steps; i++) cluster.step(true)
    cluster.heal()
  } catch (caught) {
    throw new Error(`seed ${seed}: ${caught instanceof Error ? caught.stack : caught}`)
  }
  return cluster
}

test('random runs: one leader a term, the same entry at each index everywhere, and agreement once the faults end', (t) => {
  const base = Number(process.env.RAFT_RANDOM_SEED ?? 1000)
  const count = Number(process.env.RAFT_RANDOM_COUNT ?? 30)
  let applied = 0
  for (let i = 0; i < count; i++) applied += run(base + i, 3000).history.size
  t.true(applied > count * 10, `only ${applied} entries in ${count} runs`)
})

test('the same seed gives the same run', (t) => {
  const [a, b] = [run(5, 2000), run(5, 2000)]
  t.is(a.trace, b.trace)
  t.deepEqual([...a.history], [...b.history])
})
