import test from 'ava'
import {
  CoreAssertionError,
  entriesSize,
  entrySize,
  MemoryStorage,
  NO_BYTES,
  quoteBytes,
  UNLIMITED,
} from '../../../src/raft/core/index.js'
import { RaftLog } from '../../../src/raft/core/log.js'
import { Unstable } from '../../../src/raft/core/unstable.js'
import { bytes, confState, elect, entries, entry, leader, Member, msg, snapshot, text } from './harness.js'

// A10: the Ready contract

test('RawNodeStart: what a cluster of one hands out, one Ready after the other', (t) => {
  const m = new Member(1, { voters: [1] })
  t.false(m.core.hasReady())
  m.core.campaign()
  const vote = m.take()
  t.deepEqual(
    [vote.softState, vote.hardState, vote.mustSync],
    [{ lead: 0, role: 'candidate' }, { term: 1, vote: 1, commit: 0 }, true],
  )
  m.write(vote.entries, vote.hardState, null)
  m.core.advance()
  const first = m.take()
  t.deepEqual(
    [first.softState, first.hardState, first.entries.length, first.mustSync],
    [{ lead: 1, role: 'leader' }, null, 1, true],
  )
  m.write(first.entries, first.hardState, null)
  m.core.advance()
  const second = m.take()
  t.deepEqual(
    [second.softState, second.hardState?.commit, second.committedEntries.length, second.mustSync],
    [null, 1, 1, false],
  )
  m.core.advance()
  t.false(m.core.hasReady())
})

test('RawNodeRestart: a restarted member hands out the committed entries that were not applied, and nothing else', (t) => {
  const m = new Member(1, { log: entries(1, 1), hardState: { term: 1, commit: 1 } })
  const rd = m.take()
  t.deepEqual(rd.committedEntries, entries(1))
  t.deepEqual([rd.hardState, rd.softState, rd.entries.length, rd.mustSync], [null, null, 0, false])
  m.core.advance()
  t.false(m.core.hasReady())
})

test('RawNodeRestartFromSnapshot: only what follows the snapshot is applied', (t) => {
  const m = new Member(1, {
    snapshot: snapshot(2, 1, confState([1, 2])),
    log: [entry(1, 3, 'foo')],
    hardState: { term: 1, commit: 3 },
  })
  m.work()
  t.deepEqual(
    m.applied.map((e) => e.index),
    [3],
  )
})

test('RawNodeCommitPaginationAfterRestart: pages after a restart have no holes', (t) => {
  const log = Array.from({ length: 10 }, (_, i) => ({ ...entry(1, i + 1), data: new Uint8Array(100) }))
  const m = new Member(1, {
    log,
    hardState: { term: 1, commit: 10 },
    maxSizePerMsg: entriesSize(log) - entrySize(log[9]!) - 1,
  })
  let highest = 0
  while (highest < 11 && m.core.hasReady()) {
    for (const e of m.take().committedEntries) t.is(e.index, ++highest)
    m.core.advance()
    // More gets committed between the pages.
    if (highest < 10)
      m.core.step(msg('MsgApp', 2, 1, { term: 1, index: 10, logTerm: 1, entries: [entry(1, 11, 'boom')], commit: 11 }))
  }
  t.is(highest, 11)
})

test('RawNodeConsumeReady: what was handed out is not handed out again, what came after is', (t) => {
  for (const asyncStorageWrites of [false, true]) {
    const m = new Member(1, { asyncStorageWrites })
    m.core.step(msg('MsgHeartbeat', 2, 1, { term: 1 }))
    const first = m.take()
    m.core.step(msg('MsgApp', 2, 1, { term: 1, entries: entries(1) }))
    if (!asyncStorageWrites) m.core.advance()
    t.deepEqual([first.messages.filter((x) => x.to === 2).map((x) => x.type)], [['MsgHeartbeatResp']])
    const second = m.take()
    t.is(second.entries.length, 1)
    t.deepEqual(
      second.messages.filter((x) => x.type === 'MsgHeartbeatResp'),
      [],
    )
  }
})

test('TestSoftStateEqual, hard state: both come only when changed', (t) => {
  const m = new Member(1)
  m.core.step(msg('MsgHeartbeat', 2, 1, { term: 1 }))
  const rd = m.take()
  t.deepEqual(
    [rd.softState, rd.hardState],
    [
      { lead: 2, role: 'follower' },
      { term: 1, vote: 0, commit: 0 },
    ],
  )
  m.core.advance()
  m.core.step(msg('MsgHeartbeat', 2, 1, { term: 1 }))
  const again = m.take()
  t.deepEqual([again.softState, again.hardState], [null, null])
})

test('MustSync is true iff entries, term or vote changed', (t) => {
  const m = new Member(1, { log: entries(1), hardState: { term: 1 } })
  const sync = () => {
    const rd = m.take()
    m.write(rd.entries, rd.hardState, rd.snapshot)
    m.core.advance()
    return rd.mustSync
  }
  m.core.step(msg('MsgHeartbeat', 2, 1, { term: 1, commit: 1 }))
  t.false(sync(), 'only commit')
  m.core.step(msg('MsgHeartbeat', 2, 1, { term: 2, commit: 1 }))
  t.true(sync(), 'term')
  m.core.step(msg('MsgApp', 2, 1, { term: 2, index: 1, logTerm: 1, entries: [entry(2, 2)] }))
  t.true(sync(), 'entries')
  m.core.step(msg('MsgVote', 3, 1, { term: 3, index: 9, logTerm: 9 }))
  t.true(sync(), 'vote')
})

test('a Ready is not accepted twice without advance', (t) => {
  const m = elect(new Member(1, { voters: [1] }))
  m.core.propose(bytes('x'))
  m.take()
  t.throws(() => m.take(), { instanceOf: CoreAssertionError, message: /before advance/ })
  const async = leader({ asyncStorageWrites: true })
  async.core.propose(bytes('x'))
  t.notThrows(() => [async.take(), async.take()])
  t.throws(() => async.core.advance(), { instanceOf: CoreAssertionError })
})

test('sync mode: promises are in the Ready that must be written first; the leader counts itself at advance', (t) => {
  const m = new Member(1)
  m.core.step(msg('MsgApp', 2, 1, { term: 1, entries: entries(1) }))
  const rd = m.take()
  t.deepEqual([rd.entries.length, rd.messages.map((x) => x.type)], [1, ['MsgAppResp']])
  const lead = leader({ voters: [1] })
  lead.core.propose(bytes('x'))
  lead.take()
  t.is(lead.commit, 1)
  lead.core.advance()
  t.is(lead.commit, 2)
})

test('async mode: promises hang on the write and wait for all earlier ones, rejections too', (t) => {
  const m = new Member(1, { asyncStorageWrites: true })
  m.core.step(msg('MsgApp', 2, 1, { term: 1, entries: entries(1) }))
  t.deepEqual(m.workOnce(), [])
  m.core.step(msg('MsgApp', 2, 1, { term: 1, index: 7, logTerm: 1 }))
  t.deepEqual(m.workOnce(), [])
  t.is(m.appendQueue.length, 2)
  const [first, second] = m.appendQueue
  t.deepEqual(
    first!.responses.map((x) => [x.type, x.to, x.index]),
    [
      ['MsgAppResp', 2, 1],
      ['MsgStorageAppendResp', 1, 1],
    ],
  )
  t.deepEqual(
    second!.responses.map((x) => [x.type, x.reject]),
    [
      ['MsgAppResp', true],
      ['MsgStorageAppendResp', false],
    ],
  )
  // Votes likewise.
  m.core.step(msg('MsgVote', 3, 1, { term: 2, index: 9, logTerm: 9 }))
  t.deepEqual(m.workOnce(), [])
  t.deepEqual(m.appendQueue[2]!.vote, 3)
  t.is(m.appendQueue[2]!.responses[0]!.type, 'MsgVoteResp')
})

test('async mode: entries are applied only once stable', (t) => {
  const m = new Member(1, { asyncStorageWrites: true })
  m.core.step(msg('MsgApp', 2, 1, { term: 1, entries: entries(1, 1), commit: 2 }))
  m.workOnce()
  t.deepEqual(m.applyQueue, [])
  m.appendOne()
  m.workOnce()
  t.deepEqual(
    m.applyQueue.flatMap((x) => x.entries.map((e) => e.index)),
    [1, 2],
  )
})

test('async mode: a write of a tail that was replaced meanwhile does not count as the write of the new one', (t) => {
  const m = new Member(1, { asyncStorageWrites: true })
  m.core.step(msg('MsgApp', 2, 1, { term: 1, entries: [entry(1, 1, 'a'), entry(1, 2, 'b')] }))
  m.workOnce()
  const held = m.appendQueue.splice(0)
  // Replaced by the leader of term 2, and again in term 3 by the first ones.
  m.core.step(msg('MsgApp', 3, 1, { term: 2, entries: [entry(2, 1, 'c')] }))
  m.core.step(msg('MsgApp', 2, 1, { term: 3, entries: [entry(1, 1, 'a'), entry(1, 2, 'b')] }))
  const before = m.lines.length
  for (const x of held[0]!.responses) if (x.to === 1) m.core.step(x)
  t.true(
    m.lines
      .slice(before)
      .some((l) => l.includes('ignored entry appends from a MsgStorageAppendResp message with lower term')),
  )
  // They are still to be written.
  t.deepEqual(
    m.take().entries.map((e) => text(e.data)),
    ['a', 'b'],
  )
})

test('nothing changes what a Ready holds', (t) => {
  // Every Ready of the harness is frozen throughout; an entry's data is compared here, which freezing can't protect.
  const m = leader()
  m.core.propose(bytes('one'))
  const rd = m.take()
  const copy = JSON.stringify(rd)
  m.core.propose(bytes('before it is written'))
  t.is(JSON.stringify(rd), copy)
  m.write(rd.entries, rd.hardState, rd.snapshot)
  m.core.advance()
  m.core.propose(bytes('two'))
  m.core.step(msg('MsgApp', 3, 1, { term: 5, entries: [entry(4, 1, 'other'), entry(5, 2)], commit: 0 }))
  m.work()
  t.is(JSON.stringify(rd), copy)
  t.true(Object.isFrozen(rd.entries))
})

test('messages that no peer may send, and answers of strangers, are refused', (t) => {
  const m = leader()
  for (const type of [
    'MsgHup',
    'MsgBeat',
    'MsgUnreachable',
    'MsgSnapStatus',
    'MsgCheckQuorum',
    'MsgStorageAppendResp',
  ] as const)
    t.is(m.core.step(msg(type, 2, 1)), 'localMessage')
  for (const type of ['MsgAppResp', 'MsgVoteResp', 'MsgHeartbeatResp', 'MsgReadIndexResp', 'MsgPreVoteResp'] as const)
    t.is(m.core.step(msg(type, 9, 1, { term: 1 })), 'peerNotFound')
  t.is(m.role, 'leader')
})

test('a start with a commit index beyond the log is an assertion', (t) => {
  t.throws(() => new Member(1, { log: entries(1), hardState: { term: 1, commit: 2 } }), {
    instanceOf: CoreAssertionError,
  })
})

// A4, the log's own functions

const quiet = { debug() {}, info() {}, warn() {}, error() {} }
const logOf = (stable: number[], unstable: number[] = [], maxBytes = UNLIMITED): RaftLog => {
  const storage = new MemoryStorage(confState([1]))
  storage.append(entries(...stable))
  const log = new RaftLog(storage, quiet, maxBytes)
  log.append(unstable.map((term, i) => entry(term, stable.length + 1 + i)))
  return log
}

test('IsUpToDate: the later term wins, then the longer log', (t) => {
  const log = logOf([1, 2], [3])
  for (const [index, term, ok] of [
    [2, 4, true],
    [3, 4, true],
    [4, 2, false],
    [2, 3, false],
    [3, 3, true],
    [4, 3, true],
  ] as const)
    t.is(log.isUpToDate(index, term), ok)
})

test('FindConflict, LogMaybeAppend: the place of the first conflict, and what stays', (t) => {
  for (const [prev, added, commit, last, committed, terms] of [
    [[1, 2], [4], 1, -1, 1, [1, 2, 3]],
    [[4, 3], [4], 1, -1, 1, [1, 2, 3]],
    [[3, 3], [], 3, 3, 3, [1, 2, 3]],
    [[3, 3], [], 4, 3, 3, [1, 2, 3]],
    [[3, 3], [], 2, 3, 2, [1, 2, 3]],
    [[0, 0], [], 3, 0, 1, [1, 2, 3]],
    [[3, 3], [4, 4], 5, 5, 5, [1, 2, 3, 4, 4]],
    [[2, 2], [4], 3, 3, 3, [1, 2, 4]],
    [[1, 1], [4, 4], 3, 3, 3, [1, 4, 4]],
    [[1, 1], [2], 3, 2, 2, [1, 2, 3]],
  ] as [[number, number], number[], number, number, number, number[]][]) {
    const log = logOf([1], [2, 3])
    log.commitTo(1)
    const entriesToAdd = added.map((term, i) => entry(term, prev[1] + 1 + i))
    t.is(log.maybeAppend(prev[1], prev[0], entriesToAdd, commit), last)
    t.is(log.committed, committed)
    const all = log.slice(1, log.lastIndex() + 1, UNLIMITED)
    t.deepEqual(typeof all === 'string' ? all : all.map((e) => e.term), terms)
  }
  const log = logOf([1], [2, 3])
  log.commitTo(3)
  t.throws(() => log.maybeAppend(1, 1, [entry(4, 2)], 3), {
    instanceOf: CoreAssertionError,
    message: /conflicts with the committed/,
  })
})

test('FindConflictByTerm: the last place at or below an index with at most that term', (t) => {
  const log = logOf([2, 2, 2, 5], [5, 5])
  for (const [index, term, at, found] of [
    [6, 6, 6, 5],
    [6, 5, 6, 5],
    [6, 4, 3, 2],
    [6, 2, 3, 2],
    [6, 1, 0, 0],
    [3, 5, 3, 2],
    [0, 3, 0, 0],
  ] as const)
    t.deepEqual(log.findConflictByTerm(index, term), { index: at, term: found })
  t.deepEqual(log.findConflictByTerm(9, 3), { index: 9, term: 0 }, 'beyond the log: unknown')
})

test('Append: entries are replaced from the first new one on, committed ones never', (t) => {
  for (const [added, last, terms, offset] of [
    [[], 2, [1, 2], 3],
    [[entry(2, 3)], 3, [1, 2, 2], 3],
    [[entry(2, 1)], 1, [2], 1],
    [[entry(3, 2), entry(3, 3)], 3, [1, 3, 3], 2],
  ] as const) {
    const log = logOf([1, 2])
    t.is(log.append(added), last)
    const all = log.slice(1, last + 1, UNLIMITED)
    t.deepEqual(typeof all === 'string' ? all : all.map((e) => e.term), [...terms])
    t.is(log.unstable.offset, offset)
  }
  const committed = logOf([1, 2])
  committed.commitTo(2)
  t.throws(() => committed.append([entry(3, 2)]), { instanceOf: CoreAssertionError })
})

test('Slice: over storage and unstable, with limits that hold over both', (t) => {
  const log = logOf([1, 1, 1], [1, 1, 1])
  const size = entrySize(entry(1, 1))
  const at = (lo: number, hi: number, max: number) => {
    const found = log.slice(lo, hi, max)
    return typeof found === 'string' ? found : found.map((e) => e.index)
  }
  t.deepEqual(at(1, 7, UNLIMITED), [1, 2, 3, 4, 5, 6])
  t.deepEqual(at(2, 4, UNLIMITED), [2, 3])
  t.deepEqual(at(4, 7, UNLIMITED), [4, 5, 6])
  t.deepEqual(at(3, 5, UNLIMITED), [3, 4])
  t.deepEqual(at(4, 4, UNLIMITED), [])
  t.deepEqual(at(1, 7, 0), [1])
  t.deepEqual(at(1, 7, 2 * size), [1, 2])
  t.deepEqual(at(2, 7, 3 * size), [2, 3, 4])
  t.deepEqual(at(2, 7, 3 * size - 1), [2, 3])
  t.deepEqual(at(3, 7, size + 1), [3])
  t.deepEqual(at(4, 7, 0), [4])
  t.deepEqual(at(5, 7, 2 * size), [5, 6])
  t.is(log.slice(0, 3, UNLIMITED), 'compacted')
  t.throws(() => log.slice(5, 8, UNLIMITED), { instanceOf: CoreAssertionError })
  t.throws(() => log.slice(4, 3, UNLIMITED), { instanceOf: CoreAssertionError })
})

test('Term, TermWithUnstableSnapshot, LogRestore: known from one before the first entry to the last', (t) => {
  const log = logOf([1, 2], [3])
  t.deepEqual(
    [0, 1, 2, 3, 4].map((i) => log.term(i)),
    [0, 1, 2, 3, 'unavailable'],
  )
  log.restore(snapshot(10, 5, confState([1])))
  t.deepEqual(
    [2, 9, 10, 11].map((i) => log.term(i)),
    ['compacted', 'compacted', 5, 'unavailable'],
  )
  t.deepEqual([log.firstIndex(), log.lastIndex(), log.committed], [11, 10, 10])
  t.false(log.hasNextCommitted(true))
  t.is(log.unstable.nextSnapshot()?.index, 10)
  log.unstable.acceptInProgress()
  t.is(log.unstable.nextSnapshot(), null)
})

test('CompactionSideEffects, Compaction: after a compaction the rest of the log reads as before', (t) => {
  const storage = new MemoryStorage(confState([1]))
  storage.append(entries(1, 1, 2, 2))
  const log = new RaftLog(storage, quiet, UNLIMITED)
  log.append([entry(3, 5), entry(3, 6)])
  storage.compact(3)
  t.is(log.firstIndex(), 4)
  t.deepEqual(
    [2, 3, 4, 5, 6].map((i) => log.term(i)),
    ['compacted', 2, 2, 3, 3],
  )
  t.is(log.slice(3, 6, UNLIMITED), 'compacted')
  t.is(log.lastIndex(), 6)
  t.false(storage.compact(3))
  t.throws(() => storage.compact(9), { instanceOf: CoreAssertionError })
})

test('HasNextCommittedEnts, NextCommittedEnts, AcceptApplying, AppliedTo: handed out once, up to the limit, and counted until confirmed', (t) => {
  const size = entrySize(entry(1, 1))
  const log = logOf([1, 1, 1], [1], 2 * size)
  log.commitTo(4)
  const page = log.nextCommitted(false)
  t.deepEqual(
    page.map((e) => e.index),
    [1, 2],
  )
  log.acceptApplying(page, false)
  t.false(log.hasNextCommitted(false), 'the limit is used up')
  log.appliedTo(1, size)
  t.true(log.hasNextCommitted(false))
  t.deepEqual(
    log.nextCommitted(false).map((e) => e.index),
    [3],
  )
  log.acceptApplying(log.nextCommitted(false), false)
  log.appliedTo(3, 2 * size)
  t.deepEqual(log.nextCommitted(false), [], 'entry 4 is not stable')
  t.deepEqual(
    log.nextCommitted(true).map((e) => e.index),
    [4],
  )
  // A page that was cut short is the last until it is confirmed, even if the limit is not reached.
  const roomy = logOf([1, 1, 1], [], 2.5 * size)
  roomy.commitTo(3)
  roomy.acceptApplying(roomy.nextCommitted(false), false)
  t.false(roomy.hasNextCommitted(false))
  roomy.appliedTo(2, 2 * size)
  t.deepEqual(
    roomy.nextCommitted(false).map((e) => e.index),
    [3],
  )
  t.throws(() => log.appliedTo(2, 0), { instanceOf: CoreAssertionError })
  t.throws(() => log.appliedTo(5, 0), { instanceOf: CoreAssertionError })
})

test('UnstableMaybeFirstIndex, MaybeLastIndex, UnstableMaybeTerm: with entries, a snapshot, both or neither', (t) => {
  const u = new Unstable(5, quiet)
  t.deepEqual([u.firstIndex(), u.lastIndex(), u.term(4), u.term(5)], [0, 4, -1, -1])
  u.truncateAndAppend([entry(1, 5)], 0)
  t.deepEqual([u.firstIndex(), u.lastIndex(), u.term(4), u.term(5), u.term(6)], [0, 5, -1, 1, -1])
  u.restore(snapshot(4, 1, confState([1])))
  t.deepEqual([u.firstIndex(), u.lastIndex(), u.term(4), u.term(5)], [5, 4, 1, -1])
  u.truncateAndAppend([entry(2, 5)], 0)
  t.deepEqual([u.firstIndex(), u.lastIndex(), u.term(4), u.term(5)], [5, 5, 1, 2])
})

test('UnstableNextEntries, UnstableAcceptInProgress: what is being written is not handed out again', (t) => {
  const u = new Unstable(5, quiet)
  u.truncateAndAppend([entry(1, 5), entry(1, 6)], 0)
  t.deepEqual(
    u.nextEntries().map((e) => e.index),
    [5, 6],
  )
  u.acceptInProgress()
  t.deepEqual(u.nextEntries(), [])
  u.truncateAndAppend([entry(1, 7)], 0)
  t.deepEqual(
    u.nextEntries().map((e) => e.index),
    [7],
  )
})

test('UnstableStableTo: entries leave by index and term, snapshots by index', (t) => {
  const make = () => {
    const u = new Unstable(5, quiet)
    u.truncateAndAppend([entry(1, 5), entry(2, 6)], 0)
    u.acceptInProgress()
    return u
  }
  for (const [index, term, offset, left] of [
    [5, 1, 6, 1],
    [6, 2, 7, 0],
    [6, 1, 5, 2],
    [4, 1, 5, 2],
    [7, 2, 5, 2],
  ] as const) {
    const u = make()
    u.stableTo(index, term)
    t.deepEqual([u.offset, u.length, u.offsetInProgress], [offset, left, 7], `${index}/${term}`)
  }
  const u = new Unstable(5, quiet)
  u.restore(snapshot(4, 1, confState([1])))
  u.truncateAndAppend([entry(1, 5)], 0)
  u.stableTo(4, 1)
  t.is(u.offset, 5)
  u.stableSnapTo(3)
  t.not(u.snapshot, null)
  u.stableSnapTo(4)
  t.is(u.snapshot, null)
})

test('UnstableTruncateAndAppend: truncation behind, at, and before what is being written', (t) => {
  const make = () => {
    const u = new Unstable(5, quiet)
    u.truncateAndAppend([entry(1, 5), entry(1, 6), entry(1, 7)], 0)
    u.acceptInProgress()
    u.truncateAndAppend([entry(1, 8)], 0)
    return u
  }
  for (const [first, offset, inProgress, terms] of [
    [9, 5, 8, [1, 1, 1, 1, 2]],
    [8, 5, 8, [1, 1, 1, 2]],
    [6, 5, 6, [1, 2]],
    [5, 5, 5, [2]],
    [3, 3, 3, [2]],
  ] as const) {
    const u = make()
    u.truncateAndAppend([entry(2, first)], 0)
    t.deepEqual([u.offset, u.offsetInProgress], [offset, inProgress], `at ${first}`)
    t.deepEqual(
      u.slice(offset, offset + terms.length).map((e) => e.term),
      [...terms],
    )
  }
  t.throws(() => make().truncateAndAppend([entry(2, 10)], 0), { instanceOf: CoreAssertionError })
})

test('entry sizes are those of the protobuf encoding', (t) => {
  t.is(entrySize({ term: 1, index: 1, type: 'normal', data: NO_BYTES }), 6)
  t.is(entrySize({ term: 127, index: 128, type: 'normal', data: NO_BYTES }), 7)
  t.is(entrySize({ term: 1, index: 2 ** 35, type: 'normal', data: new Uint8Array(128) }), 2 + 2 + 1 + 6 + 1 + 2 + 128)
})

test('bytes are quoted as Go does it', (t) => {
  t.is(quoteBytes(bytes('a"b\\c\n\t\u0001é日\u{1f600}\u200b')), '"a\\"b\\\\c\\n\\t\\x01é日😀\\u200b"')
  t.is(
    quoteBytes(Uint8Array.of(0xff, 0xc3, 0x28, 0xe0, 0x80, 0x80, 0xed, 0xa0, 0x80, 0x7f)),
    '"\\xff\\xc3(\\xe0\\x80\\x80\\xed\\xa0\\x80\\x7f"',
  )
})
