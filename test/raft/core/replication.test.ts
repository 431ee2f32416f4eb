import test from 'ava'
import type { Entry } from '../../../src/raft/core/index.js'
import { CoreAssertionError } from '../../../src/raft/core/index.js'
import { ack, bytes, elect, entries, entry, leader, Member, msg, Network, text } from './harness.js'

// A4: log replication and commit

const app = (m: Member, from: number, prev: [number, number], added: Entry[], commit = 0, term = m.term): void => {
  m.core.step(msg('MsgApp', from, m.id, { term, logTerm: prev[0], index: prev[1], entries: added, commit }))
}

test('LeaderStartReplication: a proposal is appended and sent to all with the place before it (§5.3)', (t) => {
  const m = leader()
  ack(m, 2)
  ack(m, 3)
  m.work()
  m.core.propose(bytes('some data'))
  const out = m.work()
  t.is(m.storage.lastIndex(), 2)
  t.is(m.commit, 1)
  t.deepEqual(
    out.map((x) => [x.type, x.to, x.logTerm, x.index, x.commit, x.entries.map((e) => [e.term, e.index, text(e.data)])]),
    [2, 3].map((to) => ['MsgApp', to, 1, 1, 1, [[1, 2, 'some data']]]),
  )
})

test('LeaderCommitEntry: what a majority has is committed, applied, and told to the others with the next messages (§5.3)', (t) => {
  const m = leader()
  ack(m, 2)
  ack(m, 3)
  m.work()
  m.core.propose(bytes('x'))
  m.work()
  ack(m, 2)
  const out = m.work()
  t.is(m.commit, 2)
  t.is(text(m.applied.at(-1)!.data), 'x')
  t.deepEqual(
    out.map((x) => [x.to, x.commit]),
    [
      [2, 2],
      [3, 2],
    ],
  )
})

test('LeaderAcknowledgeCommit: committed iff a majority of the cluster has it (§5.3)', (t) => {
  for (const [size, acks, committed] of [
    [1, [], true],
    [3, [], false],
    [3, [2], true],
    [3, [2, 3], true],
    [5, [], false],
    [5, [2], false],
    [5, [2, 3], true],
    [5, [2, 3, 4, 5], true],
  ] as const) {
    const m = leader({ voters: Array.from({ length: size }, (_, i) => i + 1) })
    for (const id of acks) ack(m, id)
    m.work()
    t.is(m.commit, committed ? 1 : 0, `${size} ${acks}`)
  }
})

test('LeaderCommitPrecedingEntries: committing an entry commits and applies all before it, in order (§5.3)', (t) => {
  for (const terms of [[], [2], [1, 2], [1]]) {
    const m = leader({ log: entries(...terms), hardState: { term: 2 } })
    m.core.propose(bytes('new'))
    m.work()
    ack(m, 2)
    m.work()
    t.deepEqual(
      m.applied.map((e) => [e.term, e.index]),
      [...terms, 3, 3].map((term, i) => [term, i + 1]),
    )
  }
})

test('LeaderOnlyCommitsLogFromCurrentTerm: entries of older terms do not commit by counting (§5.4.2)', (t) => {
  for (const [index, commit] of [
    [1, 0],
    [2, 0],
    [3, 3],
  ] as const) {
    const m = leader({ log: entries(1, 2), hardState: { term: 2 } })
    ack(m, 2, index)
    ack(m, 3, index)
    m.work()
    t.is(m.commit, commit, `acknowledged up to ${index}`)
  }
})

test('CannotCommitWithoutNewTermEntry, CommitWithoutNewTermEntry: a new leader commits older entries only together with its own first', (t) => {
  const net = Network.of(5)
  net.campaign(1)
  net.cut(1, 3)
  net.cut(1, 4)
  net.cut(1, 5)
  net.propose(1, 'a')
  net.propose(1, 'b')
  t.is(net.at(1).commit, 1)
  net.heal()
  net.ignored.add('MsgApp')
  net.campaign(2)
  t.is(net.at(2).role, 'leader')
  t.is(net.at(2).commit, 1)
  net.heal()
  net.tick(2)
  net.propose(2, 'c')
  t.is(net.at(2).commit, 5)
  t.deepEqual(net.at(2).logTerms(), [1, 1, 1, 2, 2])
})

test('Commit: the commit index by acknowledgements, log and term, over cluster sizes', (t) => {
  const cases: [number[], number[], number, number][] = [
    // acknowledgements of the others, terms of the log, term before the election, commit after it
    [[], [1], 1, 2],
    [[2], [1], 1, 2],
    [[1], [1], 1, 0],
    [[3, 2], [1, 1], 1, 3],
    [[2, 2], [1, 1], 1, 0],
    [[2, 0], [1], 1, 2],
    [[0, 0, 0, 2], [1], 1, 0],
    [[0, 0, 2, 2], [1], 1, 2],
    [[1, 1, 2, 2], [2], 2, 2],
  ]
  for (const [acks, terms, term, commit] of cases) {
    const voters = Array.from({ length: acks.length + 1 }, (_, i) => i + 1)
    const m = leader({ voters, log: entries(...terms), hardState: { term } })
    for (const [i, index] of acks.entries()) ack(m, i + 2, index)
    m.work()
    t.is(m.commit, commit, `${acks} ${terms}`)
  }
})

test('FollowerCommitEntry: a follower applies what the leader says is committed, in order (§5.3)', (t) => {
  for (const [added, commit] of [
    [['a'], 1],
    [['a', 'b'], 2],
    [['b', 'a'], 2],
    [['a', 'b'], 1],
  ] as const) {
    const m = new Member(1, { hardState: { term: 1 } })
    app(
      m,
      2,
      [0, 0],
      added.map((d, i) => entry(1, i + 1, d)),
      commit,
    )
    m.work()
    t.deepEqual(
      m.applied.map((e) => text(e.data)),
      added.slice(0, commit),
    )
  }
})

test('HandleMsgApp: reject on mismatch, drop conflicts only, commit up to the last new entry and no further', (t) => {
  const cases: [[number, number], Entry[], number, number, number, boolean][] = [
    // previous, entries, leader's commit, last index after, commit after, refused
    [[3, 2], [], 3, 2, 0, true],
    [[3, 3], [], 3, 2, 0, true],
    [[1, 1], [], 1, 2, 1, false],
    [[0, 0], [entry(2, 1)], 1, 1, 1, false],
    [[2, 2], [entry(2, 3), entry(2, 4)], 3, 4, 3, false],
    [[2, 2], [entry(2, 3)], 4, 3, 3, false],
    [[1, 1], [entry(2, 2)], 4, 2, 2, false],
    // The follower's log may go on wrongly behind what this append vouches for.
    [[1, 1], [], 3, 2, 1, false],
    [[1, 1], [entry(2, 2)], 3, 2, 2, false],
    [[2, 2], [], 3, 2, 2, false],
    [[2, 2], [], 4, 2, 2, false],
  ]
  for (const [prev, added, leaderCommit, last, commit, refused] of cases) {
    const m = new Member(1, { log: entries(1, 2), hardState: { term: 2 } })
    app(m, 2, prev, added, leaderCommit)
    const [answer] = m.work()
    t.is(answer!.reject, refused)
    t.is(m.storage.lastIndex(), last, `${prev} ${added.length}`)
    t.is(m.commit, commit, `${prev} ${added.length} ${leaderCommit}`)
  }
})

test('HandleHeartbeat: commit follows the heartbeat and never goes back', (t) => {
  for (const [at, commit] of [
    [3, 3],
    [1, 2],
  ] as const) {
    const m = new Member(1, { log: entries(1, 2, 3), hardState: { term: 3, commit: 2 } })
    m.core.step(msg('MsgHeartbeat', 2, 1, { term: 3, commit: at, context: bytes('ctx') }))
    const [answer] = m.work()
    t.is(m.commit, commit)
    t.is(answer!.type, 'MsgHeartbeatResp')
    t.is(text(answer!.context), 'ctx')
  }
  const short = new Member(1, { log: entries(1), hardState: { term: 3 } })
  t.throws(() => short.core.step(msg('MsgHeartbeat', 2, 1, { term: 3, commit: 2 })), { instanceOf: CoreAssertionError })
})

test('FollowerCheckMsgApp: an append is accepted iff its previous entry matches; the refusal has a hint (§5.3)', (t) => {
  for (const [logTerm, index, reject, answerIndex, hint, hintTerm] of [
    // index 1 is committed: below it the answer is the commit index
    [0, 0, false, 1, 0, 0],
    [1, 1, false, 1, 0, 0],
    [2, 2, false, 2, 0, 0],
    [1, 2, true, 2, 1, 1],
    [4, 4, true, 4, 2, 2],
    [3, 3, true, 3, 2, 2],
  ] as const) {
    const m = new Member(1, { log: entries(1, 2), hardState: { term: 4, commit: 1 } })
    app(m, 2, [logTerm, index], [])
    const [a] = m.work()
    t.deepEqual([a!.reject, a!.index, a!.rejectHint, a!.logTerm], [reject, answerIndex, hint, hintTerm])
  }
})

test('FollowerAppendEntries: a conflicting tail is replaced, a matching one kept (§5.3)', (t) => {
  for (const [prev, added, terms, written] of [
    [[2, 2], [entry(3, 3)], [1, 2, 3], [3]],
    [
      [1, 1],
      [entry(3, 2), entry(4, 3)],
      [1, 3, 4],
      [2, 3],
    ],
    [[0, 0], [entry(1, 1)], [1, 2], []],
    [[0, 0], [entry(3, 1)], [3], [1]],
  ] as [[number, number], Entry[], number[], number[]][]) {
    const m = new Member(1, { log: entries(1, 2), hardState: { term: 4 } })
    app(m, 2, prev, added)
    m.work()
    t.deepEqual(m.logTerms(), terms)
    t.deepEqual(
      m.readys.flatMap((rd) => rd.entries.map((e) => e.index)),
      written,
    )
  }
})

test("LeaderSyncFollowerLog: all log shapes of figure 7 come to the leader's (§5.3)", (t) => {
  const lead = [1, 1, 1, 4, 4, 5, 5, 6, 6, 6]
  const shapes = [
    [1, 1, 1, 4, 4, 5, 5, 6, 6],
    [1, 1, 1, 4],
    [1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6],
    [1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7],
    [1, 1, 1, 4, 4, 4, 4],
    [1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3],
    [],
  ]
  for (const shape of shapes) {
    const one = new Member(1, { log: entries(...lead), hardState: { term: 8, commit: lead.length } })
    const two = new Member(2, { log: entries(...shape), hardState: { term: 7 } })
    // The third votes for the first, and is otherwise silent.
    const net = new Network([one, two])
    one.core.campaign()
    one.work()
    one.core.step(msg('MsgVoteResp', 3, 1, { term: 9 }))
    net.run()
    net.propose(1, 'x')
    t.deepEqual(two.log(), one.log(), `${shape}`)
    t.is(two.commit, one.commit)
  }
})

test('FastLogRejection: hints skip whole terms, so that a probe is spent on each at most', (t) => {
  const cases: [number[], number[], number][] = [
    // leader's log, follower's log, rejections
    [[1, 2, 2, 4, 4, 4, 4], [1, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3], 1],
    [[1, 2, 2, 3, 4, 4, 4, 5], [1, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3], 1],
    [[1, 1, 1, 1], [1, 1, 1, 4], 1],
    [[1, 1, 1, 1, 1, 1], [1, 1, 1, 4, 4], 2],
    [[1, 1, 1, 1, 1], [1, 1, 1, 4, 4, 4, 4], 1],
    [[1, 3, 3, 3, 3, 3, 7], [1, 2, 4, 4, 4, 4, 4, 8, 8, 8], 2],
    [[1, 1, 1, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5], [1, 1, 1], 1],
  ]
  for (const [mine, theirs, most] of cases) {
    const one = new Member(1, { log: entries(...mine), hardState: { term: 9 }, voters: [1, 2, 3] })
    const two = new Member(2, { log: entries(...theirs), hardState: { term: 9 } })
    one.core.campaign()
    one.work()
    const net = new Network([one, two])
    one.core.step(msg('MsgVoteResp', 3, 1, { term: 10 }))
    net.run()
    const rejections = net.delivered.filter((m) => m.type === 'MsgAppResp' && m.reject).length
    t.true(rejections <= most, `${mine} / ${theirs}: ${rejections} rejections`)
    t.deepEqual(two.logTerms(), one.logTerms())
  }
})

test('LogReplication: proposals after several elections reach all logs and are applied once each', (t) => {
  const net = Network.of(3)
  net.campaign(1)
  net.propose(1, 'a')
  net.campaign(2)
  net.propose(2, 'b')
  for (const m of net.members.values())
    t.deepEqual(
      m.applied.filter((e) => e.data.length > 0).map((e) => text(e.data)),
      ['a', 'b'],
    )
})

test('Proposal: it commits iff a majority is reachable, and is refused without a leader', (t) => {
  for (const [dead, ok] of [
    [0, true],
    [1, true],
    [2, false],
  ] as const) {
    const net = Network.of(3)
    net.campaign(1)
    for (let i = 0; i < dead; i++) net.isolate(3 - i)
    net.propose(1, 'x')
    t.is(net.at(1).commit, ok ? 2 : 1)
  }
  t.is(new Member(1).core.propose(bytes('x')), 'proposalDropped')
  const candidate = new Member(1)
  candidate.core.campaign()
  t.is(candidate.core.propose(bytes('x')), 'proposalDropped')
})

test('ProposalByProxy, DisableProposalForwarding: a follower forwards a proposal to its leader unless that is off', (t) => {
  for (const off of [false, true]) {
    const net = Network.of(3, { disableProposalForwarding: off })
    net.campaign(1)
    t.is(net.propose(2, 'x'), off ? 'proposalDropped' : null)
    t.is(net.at(1).commit, off ? 1 : 2)
  }
})

test('OldMessages: appends of an older leader are ignored', (t) => {
  const net = Network.of(3)
  net.campaign(1)
  net.campaign(2)
  net.campaign(1)
  net.run(msg('MsgApp', 2, 1, { term: 2, index: 2, logTerm: 2, entries: [entry(2, 3, 'old')] }))
  net.propose(1, 'x')
  t.deepEqual(net.at(1).logTerms(), [1, 2, 3, 3])
  for (const m of net.members.values()) t.deepEqual(m.log(), net.at(1).log())
})

test('LogReplicationWithReorderedMessage: reordered acknowledgements and rejections leave the progress correct', (t) => {
  const m = leader({ log: entries(1, 1), hardState: { term: 1 } })
  ack(m, 2, 3)
  for (let i = 0; i < 3; i++) m.core.propose(bytes('x'))
  m.work()
  ack(m, 2, 6)
  ack(m, 2, 4)
  t.is(m.progress(2).match, 6)
  t.is(m.progress(2).next, 7)
  // A rejection of an append that has been acknowledged since is stale.
  m.core.step(msg('MsgAppResp', 2, 1, { term: 2, index: 5, reject: true, rejectHint: 3 }))
  t.is(m.progress(2).next, 7)
  t.is(m.progress(2).state, 'replicate')
  m.core.step(msg('MsgAppResp', 2, 1, { term: 2, index: 8, reject: true, rejectHint: 6 }))
  t.is(m.progress(2).next, 7)
  t.is(m.progress(2).state, 'probe')
})

test('HandleHeartbeatResp: an answer restarts a lagging follower, and only that', (t) => {
  const m = leader({ log: entries(1, 1), hardState: { term: 1 } })
  m.work()
  const beat = () => {
    m.core.step(msg('MsgHeartbeatResp', 2, 1, { term: 2 }))
    return m.work().filter((x) => x.to === 2)
  }
  t.deepEqual(
    beat().map((x) => [x.type, x.index]),
    [['MsgApp', 2]],
  )
  t.is(beat().length, 1)
  ack(m, 2)
  m.work()
  t.deepEqual(beat(), [])
})

test('RaftFreesReadOnlyMem: reads that were answered leave nothing behind', (t) => {
  const m = leader()
  ack(m, 2)
  m.work()
  m.core.readIndex(bytes('ctx'))
  m.work()
  m.core.step(msg('MsgHeartbeatResp', 2, 1, { term: 1, context: bytes('ctx') }))
  m.work()
  t.is(m.reads.length, 1)
  // The next beat has no context any more: nobody waits.
  m.core.tick()
  t.true(
    m
      .work()
      .filter((x) => x.type === 'MsgHeartbeat')
      .every((x) => x.context.length === 0),
  )
})

test('MsgAppRespWaitReset: an acknowledgement resumes a paused probe', (t) => {
  const m = leader()
  ack(m, 2, 1)
  m.work()
  m.core.propose(bytes('x'))
  const first = m.work()
  t.deepEqual(
    first.map((x) => x.to),
    [2],
    'member 3 has not answered its probe',
  )
  ack(m, 3, 1)
  const out = m.work().filter((x) => x.entries.length > 0)
  t.deepEqual(
    out.map((x) => [x.to, x.index, x.entries.length]),
    [[3, 1, 1]],
  )
})

test('a committed entry is never replaced: an append below the commit index is answered by that index', (t) => {
  const m = new Member(1, { log: entries(1, 1), hardState: { term: 2, commit: 2 } })
  app(m, 2, [1, 1], [entry(2, 2)])
  // Below the commit index the answer is the commit index; nothing is compared, nothing replaced.
  t.deepEqual(
    m.work().map((x) => [x.reject, x.index]),
    [[false, 2]],
  )
  t.deepEqual(m.logTerms(), [1, 1])
})

test('a proposal of several entries is appended as a whole, and sent as one message', (t) => {
  const m = leader()
  ack(m, 2)
  ack(m, 3)
  m.work()
  t.is(m.core.proposeBatch([bytes('a'), bytes('b'), bytes('c')]), null)
  const out = m.work()
  t.deepEqual(
    out.map((x) => x.entries.map((e) => text(e.data)).join('')),
    ['abc', 'abc'],
  )
  t.is(m.core.proposeBatch([]), null)
  t.is(elect(new Member(9, { voters: [9] })).core.proposeBatch([bytes('z')]), null)
})
