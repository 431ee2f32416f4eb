import test from 'ava'
import { entriesSize, entrySize, UNLIMITED } from '../../../src/raft/core/index.js'
import { Inflights } from '../../../src/raft/core/inflights.js'
import { Progress } from '../../../src/raft/core/progress.js'
import { ack, bytes, entries, entry, leader, type Member, type MemberOptions, msg, Network } from './harness.js'

// A5: flow control and progress

const proposed = (m: Member, n: number, size = 4): void => {
  for (let i = 0; i < n; i++) m.core.propose(new Uint8Array(size))
}
const to2 = (m: Member) => m.work().filter((x) => x.to === 2 && x.type === 'MsgApp')

/** A leader whose member 2 replicates. */
const replicating = (options: MemberOptions = {}): Member => {
  const m = leader(options)
  ack(m, 2)
  m.work()
  return m
}

test('MsgAppFlowControlFull: with a full window no more entries go out', (t) => {
  const m = replicating({ maxInflightMsgs: 4 })
  proposed(m, 4)
  t.is(to2(m).length, 4)
  t.true(m.progress(2).paused)
  t.true(m.progress(2).inflightFull)
  proposed(m, 10)
  t.deepEqual(to2(m), [])
})

test('MsgAppFlowControlMoveForward: an acknowledgement frees exactly what it covers', (t) => {
  const m = replicating({ maxInflightMsgs: 4 })
  proposed(m, 4)
  to2(m)
  proposed(m, 10)
  for (const index of [2, 3]) {
    ack(m, 2, index)
    const out = to2(m).filter((x) => x.entries.length > 0)
    t.is(out.length, 1, 'one place, one append')
    t.true(m.progress(2).inflightFull)
    proposed(m, 3)
    t.deepEqual(to2(m), [])
    // An older one frees nothing.
    ack(m, 2, index - 1)
    t.deepEqual(
      to2(m).filter((x) => x.entries.length > 0),
      [],
    )
  }
})

test('MsgAppFlowControlRecvHeartbeat: with a full window each heartbeat answer allows one empty append', (t) => {
  const m = replicating({ maxInflightMsgs: 4 })
  proposed(m, 6)
  to2(m)
  for (let i = 0; i < 3; i++) {
    m.core.step(msg('MsgHeartbeatResp', 2, 1, { term: 1 }))
    t.deepEqual(
      to2(m).map((x) => x.entries.length),
      [0],
    )
    proposed(m, 1)
    t.deepEqual(to2(m), [])
  }
})

test('ProgressLeader: the leader counts itself only after its own write', (t) => {
  const m = replicating()
  m.core.propose(bytes('x'))
  t.is(m.progress(1).match, 1)
  m.work()
  t.is(m.progress(1).match, 2)
  t.is(m.progress(1).next, 3)
})

test('ProgressResumeByHeartbeatResp: a heartbeat answer resumes a paused probe', (t) => {
  const m = leader()
  m.work()
  t.true(m.progress(2).paused)
  m.core.step(msg('MsgHeartbeatResp', 2, 1, { term: 1 }))
  // It has sent the next probe, and waits again.
  t.is(to2(m).length, 1)
  t.true(m.progress(2).paused)
})

test('ProgressPaused: a probe stays at one append however many proposals come', (t) => {
  const m = leader()
  m.work()
  proposed(m, 3)
  t.deepEqual(to2(m), [])
})

test('ProgressFlowControl, MaxInflightBytes: the window is limited in messages and in bytes', (t) => {
  const size = 1000
  const one = entrySize({ ...entry(1, 2), data: new Uint8Array(size) })
  const m = replicating({ maxInflightMsgs: 8, maxSizePerMsg: 2 * one, maxInflightBytes: 3 * one })
  proposed(m, 10, size)
  // Each proposal is sent by itself; three payloads fill 3 * one bytes but for the framing, the fourth does.
  t.is(to2(m).length, 4)
  t.true(m.progress(2).inflightFull)
  ack(m, 2, 5)
  const out = to2(m).filter((x) => x.entries.length > 0)
  t.deepEqual(
    out.map((x) => x.entries.length),
    [2, 2],
  )
  for (const x of out) t.true(entriesSize(x.entries) <= 2 * one)
})

test('LeaderIncreaseNext, SendAppendForProgressReplicate: next runs ahead while replicating, not while probing', (t) => {
  const m = replicating()
  proposed(m, 5)
  t.is(to2(m).length, 5)
  t.is(m.progress(2).next, 7)
  t.is(m.progress(2).match, 1)
  const probing = leader()
  proposed(probing, 5)
  probing.work()
  t.is(probing.progress(2).next, 1)
})

test('SendAppendForProgressProbe: one append a heartbeat while probing', (t) => {
  const m = leader()
  m.work()
  for (let round = 0; round < 3; round++) {
    proposed(m, 3)
    t.deepEqual(to2(m), [])
    m.core.tick()
    t.deepEqual(to2(m), [], 'the heartbeat itself brings none')
    m.core.step(msg('MsgHeartbeatResp', 2, 1, { term: 1 }))
    t.is(to2(m).length, 1)
  }
})

test('SendAppendForProgressSnapshot: no appends while a snapshot is pending', (t) => {
  const m = leader({
    snapshot: {
      index: 10,
      term: 1,
      confState: { voters: [1, 2, 3], votersOutgoing: [], learners: [], learnersNext: [], autoLeave: false },
      data: bytes('s'),
    },
  })
  m.core.step(msg('MsgAppResp', 2, 1, { term: m.term, index: 10, reject: true, rejectHint: 1 }))
  t.deepEqual(
    m.work().map((x) => x.type),
    ['MsgSnap'],
  )
  t.is(m.progress(2).state, 'snapshot')
  proposed(m, 5)
  m.core.step(msg('MsgHeartbeatResp', 2, 1, { term: m.term }))
  t.deepEqual(to2(m), [])
})

test('RecvMsgUnreachable: an unreachable member is probed from what it has acknowledged', (t) => {
  const m = replicating()
  proposed(m, 5)
  m.work()
  m.core.reportUnreachable(2)
  t.is(m.progress(2).state, 'probe')
  t.is(m.progress(2).next, m.progress(2).match + 1)
  m.core.reportUnreachable(99)
  t.true(m.lines.includes('DEBUG 1 no progress available for 63'))
})

test('LeaderAppResp: acknowledgements and rejections move match and next', (t) => {
  const cases: [Partial<Parameters<typeof msg>[3]> & object, number, number, number][] = [
    // answer, match, next, appends that follow
    [{ index: 4, reject: true, rejectHint: 4 }, 0, 3, 0], // stale: nothing was sent at 4
    [{ index: 2, reject: true, rejectHint: 1 }, 0, 2, 1],
    [{ index: 2 }, 2, 4, 2], // commits in this term: entry and commit index
    [{ index: 0 }, 0, 4, 1], // known already: back to the stream
  ]
  for (const [fields, match, next, count] of cases) {
    const m = leader({ log: entries(0, 1), hardState: { term: 1 } })
    m.work()
    m.core.step(msg('MsgAppResp', 2, 1, { term: m.term, ...fields }))
    const out = to2(m)
    t.is(m.progress(2).match, match)
    if (count === 0) t.deepEqual(out, [])
    if (fields && 'reject' in fields) t.is(m.progress(2).next, next)
    else t.true(m.progress(2).next >= match + 1)
  }
})

test('UncommittedEntryLimit: proposals above the limit of uncommitted bytes are dropped, empty ones never', (t) => {
  const data = new Uint8Array(20)
  const m = replicating({ maxUncommittedEntriesSize: 3 * 20, voters: [1, 2, 3] })
  for (let i = 0; i < 3; i++) t.is(m.core.propose(data), null)
  t.is(m.core.propose(data), 'proposalDropped')
  t.is(m.core.propose(new Uint8Array(0)), null)
  m.work()
  t.is(m.core.propose(data), 'proposalDropped')
  ack(m, 2)
  m.work()
  // What was committed and applied makes room; one large proposal always fits into an empty queue.
  t.is(m.core.propose(new Uint8Array(1000)), null)
  t.is(m.core.propose(data), 'proposalDropped')
  m.work()
  ack(m, 2)
  m.work()
  t.is(m.core.propose(data), null)
})

test('RawNodeBoundedLogGrowthWithPartition: a leader without followers stops taking proposals', (t) => {
  const m = replicating({ maxUncommittedEntriesSize: 16 * 10 })
  for (let i = 0; i < 1024; i++) m.core.propose(new Uint8Array(10))
  m.work()
  t.is(m.storage.lastIndex(), 17)
  ack(m, 2)
  m.work()
  t.is(m.core.propose(new Uint8Array(10)), null)
})

test('CommitPagination: committed entries come in pages of limited size, none lost or repeated', (t) => {
  const limit = 2048
  const m = replicating({ maxCommittedSizePerReady: limit })
  for (let i = 0; i < 10; i++) m.core.propose(new Uint8Array(1000).fill(i))
  m.work()
  ack(m, 2)
  m.readys.length = 0
  m.work()
  const pages = m.readys.map((rd) => rd.committedEntries).filter((p) => p.length > 0)
  t.true(pages.length >= 5)
  for (const p of pages) t.true(p.length === 1 || entriesSize(p) <= limit)
  t.deepEqual(
    m.applied.map((e) => e.index),
    Array.from({ length: 11 }, (_, i) => i + 1),
  )
})

test('CommitPaginationWithAsyncStorageWrites: at most the limit is handed out and unconfirmed', (t) => {
  const limit = 2048
  const m = leader({ asyncStorageWrites: true, maxCommittedSizePerReady: limit })
  ack(m, 2, 1)
  m.work()
  for (let i = 0; i < 10; i++) m.core.propose(new Uint8Array(1000).fill(i))
  m.workOnce()
  m.appendOne()
  ack(m, 2, 11)
  const seen: number[] = []
  for (let round = 0; round < 50 && m.status.applied < 11; round++) {
    while (m.core.hasReady()) m.workOnce()
    while (m.appendQueue.length > 0) m.appendOne()
    const out = m.applyQueue.flatMap((x) => x.entries)
    t.true(out.length <= 1 || entriesSize(out) <= limit + 1010, `${entriesSize(out)} bytes are out`)
    seen.push(...(m.applyQueue[0]?.entries ?? []).map((e) => e.index))
    if (m.applyQueue.length > 0) m.applyOne()
  }
  t.deepEqual(
    seen,
    Array.from({ length: 10 }, (_, i) => i + 2),
  )
})

test('AppendPagination: a lagging follower gets the log in messages of limited size', (t) => {
  const limit = 2048
  const net = Network.of(3, { maxSizePerMsg: limit })
  net.campaign(1)
  net.isolate(3)
  for (let i = 0; i < 20; i++) {
    net.at(1).core.propose(new Uint8Array(500).fill(i))
    net.run()
  }
  net.heal()
  net.delivered.length = 0
  net.tick(1)
  net.tick(1)
  const appends = net.delivered.filter((x) => x.type === 'MsgApp' && x.entries.length > 0)
  t.true(appends.some((x) => x.entries.length > 1))
  for (const x of appends) t.true(entriesSize(x.entries) <= limit)
  t.deepEqual(net.at(3).log(), net.at(1).log())
})

test('a maximum message size of 0 means one entry at a time', (t) => {
  const net = Network.of(2, { maxSizePerMsg: 0 })
  net.campaign(1)
  net.isolate(2)
  for (let i = 0; i < 3; i++) net.propose(1)
  net.heal()
  net.delivered.length = 0
  net.tick(1)
  t.deepEqual(
    [...new Set(net.delivered.filter((x) => x.type === 'MsgApp').map((x) => x.entries.length))].sort(),
    [0, 1],
  )
  t.is(net.at(2).commit, 4)
})

test('InflightsAdd, InflightFreeTo, InflightsFull, InflightsReset: the ring wraps around and keeps its limits', (t) => {
  const window = new Inflights(10, 0)
  let low = 1
  let high = 0
  for (let round = 0; round < 25; round++) {
    while (!window.isFull()) window.add(++high, 100)
    t.is(window.count, 10)
    t.throws(() => window.add(high + 1, 1))
    const free = 1 + (round % 10)
    low += free
    window.freeUpTo(low - 1)
    t.is(window.count, 10 - free)
    window.freeUpTo(low - 1)
    t.is(window.count, 10 - free)
  }
  window.reset()
  t.is(window.count, 0)
  const byBytes = new Inflights(100, 250)
  byBytes.add(1, 100)
  byBytes.add(2, 100)
  t.false(byBytes.isFull())
  byBytes.add(3, 100)
  t.true(byBytes.isFull(), 'one may pass the limit')
  byBytes.freeUpTo(1)
  t.false(byBytes.isFull())
})

test('ProgressString, ProgressIsPaused, ProgressResume, ProgressUpdate: the states pause and resume as they should', (t) => {
  const make = () => new Progress(5, new Inflights(2, 0), false)
  const pr = make()
  t.false(pr.isPaused())
  pr.sentEntries(1, 1)
  t.true(pr.isPaused())
  t.true(pr.maybeUpdate(5))
  t.false(pr.isPaused())
  t.false(pr.maybeUpdate(5))
  t.is(pr.match, 5)
  t.is(pr.next, 6)
  pr.becomeReplicate()
  pr.sentEntries(1, 1)
  t.false(pr.isPaused())
  pr.sentEntries(1, 1)
  t.true(pr.isPaused())
  t.is(pr.next, 8)
  pr.becomeSnapshot(10)
  t.true(pr.isPaused())
  t.is(pr.next, 11)
  pr.becomeProbe()
  t.is(pr.next, 11, 'from behind the snapshot')
  pr.becomeSnapshot(20)
  pr.pendingSnapshot = 0
  pr.becomeProbe()
  t.is(pr.next, 6, 'after a failure: from the match')
})

test('ProgressMaybeDecr: a rejection never takes next to or below the match, and a stale one changes nothing', (t) => {
  for (const [state, match, next, rejected, hint, changed, after] of [
    ['replicate', 5, 10, 5, 5, false, 10],
    ['replicate', 5, 10, 4, 4, false, 10],
    ['replicate', 5, 10, 9, 9, true, 6],
    ['probe', 0, 0, 0, 0, false, 0],
    ['probe', 0, 10, 5, 5, false, 10],
    ['probe', 0, 10, 9, 9, true, 9],
    ['probe', 0, 2, 1, 1, true, 1],
    ['probe', 0, 1, 0, 0, true, 1],
    ['probe', 0, 10, 9, 2, true, 3],
    ['probe', 4, 10, 9, 2, true, 5],
  ] as const) {
    const pr = new Progress(next, new Inflights(256, 0), false)
    pr.state = state
    pr.match = match
    t.is(pr.maybeDecrement(rejected, hint), changed, `${state} ${rejected} ${hint}`)
    t.is(pr.next, after)
    t.true(!changed || pr.next > pr.match)
  }
})

test('limits of no limit are really none', (t) => {
  const m = replicating({ maxSizePerMsg: UNLIMITED, maxInflightMsgs: 10_000 })
  for (let i = 0; i < 5000; i++) m.core.propose(bytes('x'))
  t.is(to2(m).length, 5000)
  ack(m, 2)
  m.work()
  t.is(m.commit, 5001)
  t.is(m.progress(2).inflight, 0)
})
