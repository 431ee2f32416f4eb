import test from 'ava'
import { CoreConfigError, createCore } from '../../../src/raft/core/index.js'
import {
  ack,
  bytes,
  change,
  confState,
  elect,
  entries,
  leader,
  Member,
  type MemberOptions,
  msg,
  Network,
  snapshot,
  text,
} from './harness.js'

// A8: leadership transfer

const transferred = (net: Network, id: number): boolean =>
  net.at(id).role === 'leader' && [...net.members.values()].every((m) => m.id === id || m.role === 'follower')

test('LeaderTransferToUpToDateNode: the target campaigns at once and wins', (t) => {
  const net = Network.of(3)
  net.campaign(1)
  net.propose(1)
  net.at(1).core.transferLeader(2)
  net.run()
  t.true(transferred(net, 2))
  net.at(2).core.transferLeader(1)
  net.run()
  t.true(transferred(net, 1))
})

test('LeaderTransferToUpToDateNodeFromFollower: the order may be given to any member', (t) => {
  const net = Network.of(3)
  net.campaign(1)
  net.at(2).core.transferLeader(2)
  net.run()
  t.true(transferred(net, 2))
  net.at(1).core.transferLeader(3)
  net.run()
  t.true(transferred(net, 3))
  const alone = new Member(1)
  alone.core.transferLeader(2)
  t.deepEqual(alone.work(), [])
})

test('LeaderTransferWithCheckQuorum: leases and pre-votes do not hold it up', (t) => {
  const net = Network.of(3, { checkQuorum: true, preVote: true })
  net.campaign(1)
  net.at(1).core.transferLeader(2)
  net.run()
  t.true(transferred(net, 2))
})

test('LeaderTransferToSlowFollower: the target catches up first', (t) => {
  const net = Network.of(3)
  net.campaign(1)
  net.isolate(3)
  net.propose(1)
  net.heal()
  net.at(1).core.transferLeader(3)
  net.run()
  t.true(transferred(net, 3))
  t.deepEqual(net.at(3).log(), net.at(1).log())
})

test('LeaderTransferAfterSnapshot: also by way of a snapshot', (t) => {
  const net = Network.of(3)
  net.campaign(1)
  net.isolate(3)
  net.propose(1)
  net.at(1).compact()
  net.heal()
  net.at(1).core.transferLeader(3)
  net.run()
  // The snapshot is sent once the member has been heard of.
  net.tick(1, 2)
  t.true(transferred(net, 3))
})

test('LeaderTransferToSelf, LeaderTransferToNonExistingNode, LeaderTransferToLearner: nothing happens', (t) => {
  for (const to of [1, 9, 4]) {
    const m = leader({ conf: confState([1, 2, 3], { learners: [4] }) })
    m.core.transferLeader(to)
    t.is(m.status.leadTransferee, 0)
    t.is(m.core.propose(bytes('x')), null)
  }
})

test('LeaderTransferTimeout: it ends after one election timeout', (t) => {
  const m = leader()
  m.core.transferLeader(3)
  t.is(m.status.leadTransferee, 3)
  m.ticks(9)
  t.is(m.status.leadTransferee, 3)
  m.core.tick()
  t.is(m.status.leadTransferee, 0)
  t.is(m.role, 'leader')
})

test('LeaderTransferIgnoreProposal: no proposals meanwhile', (t) => {
  const m = leader()
  m.work()
  m.core.transferLeader(3)
  t.is(m.core.propose(bytes('x')), 'proposalDropped')
  m.work()
  t.is(m.storage.lastIndex(), 1)
})

test('LeaderTransferReceiveHigherTermVote: a higher term ends it', (t) => {
  const m = leader()
  m.core.transferLeader(3)
  m.core.step(msg('MsgVote', 2, 1, { term: 2, index: 9, logTerm: 1 }))
  t.is(m.status.leadTransferee, 0)
  t.is(m.role, 'follower')
})

test('LeaderTransferRemoveNode, LeaderTransferDemoteNode: removal or demotion of the target ends it', (t) => {
  for (const cc of [change('r3'), change('l3')]) {
    const m = leader()
    m.core.transferLeader(3)
    m.core.applyConfChange(cc)
    t.is(m.status.leadTransferee, 0)
  }
})

test('LeaderTransferBack: transferring back to the leader ends it', (t) => {
  const m = leader()
  m.core.transferLeader(3)
  m.core.transferLeader(1)
  t.is(m.status.leadTransferee, 0)
  t.is(m.core.propose(bytes('x')), null)
})

test('LeaderTransferSecondTransferToAnotherNode: the second target replaces the first', (t) => {
  const net = Network.of(3)
  net.campaign(1)
  net.isolate(3)
  net.propose(1)
  net.at(1).core.transferLeader(3)
  net.at(1).core.transferLeader(2)
  net.run()
  t.is(net.at(2).role, 'leader')
})

test('LeaderTransferSecondTransferToSameNode: the second order does not extend the time', (t) => {
  const m = leader()
  m.core.transferLeader(3)
  m.ticks(5)
  m.core.transferLeader(3)
  m.ticks(5)
  t.is(m.status.leadTransferee, 0)
})

test('TransferNonMember: a removed member that gets the order does nothing', (t) => {
  const m = new Member(1, { voters: [2, 3, 4] })
  m.core.step(msg('MsgTimeoutNow', 2, 1, { term: 1 }))
  m.core.step(msg('MsgVoteResp', 2, 1, { term: 1 }))
  m.core.step(msg('MsgVoteResp', 3, 1, { term: 1 }))
  t.is(m.role, 'follower')
})

test('candidates do not take the order', (t) => {
  const m = new Member(1)
  m.core.campaign()
  m.core.step(msg('MsgTimeoutNow', 2, 1, { term: 1 }))
  t.is(m.term, 1)
  t.true(m.lines.includes('DEBUG 1 [term 1 state StateCandidate] ignored MsgTimeoutNow from 2'))
})

// A9: reads

const heartbeatAnswers = (m: Member, context: string, ...from: number[]): void => {
  for (const id of from) m.core.step(msg('MsgHeartbeatResp', id, m.id, { term: m.term, context: bytes(context) }))
}
const readsOf = (m: Member) => m.reads.map((r) => [text(r.context), r.index])

/** A leader that has committed in its term. */
const settled = (options: MemberOptions = {}): Member => {
  const m = leader(options)
  ack(m, 2)
  m.work()
  return m
}

test('ReadOnlyOptionSafe: any member gets the commit index of the request once a quorum has answered a heartbeat sent after it', (t) => {
  const net = Network.of(3)
  net.campaign(1)
  let expected = net.at(1).commit
  for (const [id, proposals] of [
    [1, 10],
    [2, 10],
    [3, 5],
    [1, 0],
  ] as const) {
    for (let i = 0; i < proposals; i++) net.propose(1)
    expected += proposals
    net.at(id).core.readIndex(bytes(`ctx${id}${proposals}`))
    net.run()
    t.deepEqual(readsOf(net.at(id)).at(-1), [`ctx${id}${proposals}`, expected])
  }
})

test('ReadOnlyOptionSafe: without a quorum of answers there is no answer', (t) => {
  const m = settled({ voters: [1, 2, 3, 4, 5] })
  ack(m, 3)
  m.work()
  m.core.readIndex(bytes('a'))
  const beats = m.work().filter((x) => x.type === 'MsgHeartbeat')
  t.deepEqual(
    beats.map((x) => text(x.context)),
    ['a', 'a', 'a', 'a'],
  )
  m.work()
  t.deepEqual(readsOf(m), [])
  heartbeatAnswers(m, 'a', 2)
  m.work()
  t.deepEqual(readsOf(m), [], 'two of five')
  // An answer to a heartbeat from before the request proves nothing.
  heartbeatAnswers(m, '', 3, 4)
  heartbeatAnswers(m, 'a', 2)
  m.work()
  t.deepEqual(readsOf(m), [])
  heartbeatAnswers(m, 'a', 3)
  m.work()
  t.deepEqual(readsOf(m), [['a', 1]])
})

test("a later request's quorum answers all before it, with their own indexes", (t) => {
  const m = settled()
  m.core.readIndex(bytes('a'))
  m.core.propose(bytes('x'))
  m.work()
  ack(m, 2)
  m.work()
  m.core.readIndex(bytes('b'))
  m.core.readIndex(bytes('c'))
  m.work()
  heartbeatAnswers(m, 'b', 2)
  m.work()
  t.deepEqual(readsOf(m), [
    ['a', 1],
    ['b', 2],
  ])
  // The regular beat carries the newest that waits.
  m.core.tick()
  t.true(m.work().every((x) => text(x.context) === 'c'))
})

test('ReadOnlyWithLearner: a learner may ask, its answer does not count', (t) => {
  const conf = confState([1, 2, 4], { learners: [3] })
  const m = settled({ conf })
  m.core.step(msg('MsgReadIndex', 3, 1, { context: bytes('l') }))
  m.work()
  heartbeatAnswers(m, 'l', 3)
  t.deepEqual(
    m.work().filter((x) => x.type === 'MsgReadIndexResp'),
    [],
  )
  heartbeatAnswers(m, 'l', 2)
  t.deepEqual(
    m.work().map((x) => [x.type, x.to, x.index, text(x.context)]),
    [['MsgReadIndexResp', 3, 1, 'l']],
  )
})

test('ReadOnlyOptionLease: within the lease the answer comes at once; the option needs check-quorum', (t) => {
  const m = settled({ readOnlyOption: 'leaseBased', checkQuorum: true })
  m.core.readIndex(bytes('a'))
  t.deepEqual(m.work(), [])
  t.deepEqual(readsOf(m), [['a', 1]])
  m.core.step(msg('MsgReadIndex', 2, 1, { context: bytes('b') }))
  t.deepEqual(
    m.work().map((x) => [x.type, x.to]),
    [['MsgReadIndexResp', 2]],
  )
  const error = t.throws(() => new Member(1, { readOnlyOption: 'leaseBased' }), { instanceOf: CoreConfigError })
  t.is((error as CoreConfigError).field, 'readOnlyOption')
})

test("ReadOnlyForNewLeader: requests before the term's first commit wait for it", (t) => {
  for (const readOnlyOption of ['safe', 'leaseBased'] as const) {
    const m = leader({ log: entries(1, 1), hardState: { term: 1, commit: 1 }, readOnlyOption, checkQuorum: true })
    m.core.readIndex(bytes('early'))
    t.true(m.work().every((x) => x.type !== 'MsgHeartbeat'))
    heartbeatAnswers(m, 'early', 2, 3)
    m.work()
    t.deepEqual(readsOf(m), [])
    ack(m, 2)
    m.work()
    heartbeatAnswers(m, 'early', 2)
    m.work()
    t.deepEqual(readsOf(m), [['early', 3]])
  }
})

test("ReadOnlyForNewLeader: the only voter waits for its term's first commit too", (t) => {
  // Entries 2 and 3 were committed while it was one of three; it did not hear of that before it was left alone.
  const m = new Member(1, { voters: [1], log: entries(1, 1, 1), hardState: { term: 1, commit: 1 } })
  m.core.campaign()
  m.take()
  m.core.advance()
  t.is(m.core.status().softState.role, 'leader')
  m.core.readIndex(bytes('early'))
  m.work()
  t.deepEqual(readsOf(m), [['early', 4]])
})

test('reads that wait for the first commit are answered when a smaller quorum makes it', (t) => {
  const m = leader({ voters: [1, 2], log: entries(1, 1), hardState: { term: 1, commit: 1 } })
  m.core.readIndex(bytes('early'))
  m.work()
  t.deepEqual(readsOf(m), [])
  m.core.applyConfChange(change('r2'))
  m.work()
  t.deepEqual(readsOf(m), [['early', 3]])
})

test('ReadOnlyDuplicateRequest: the same context again does not start over', (t) => {
  const m = settled()
  m.core.readIndex(bytes('a'))
  m.core.propose(bytes('x'))
  m.work()
  ack(m, 2)
  m.core.readIndex(bytes('a'))
  m.work()
  heartbeatAnswers(m, 'a', 2)
  heartbeatAnswers(m, 'a', 3)
  m.work()
  t.deepEqual(readsOf(m), [['a', 1]])
})

test('RawNodeReadIndex: read states come with a Ready, once', (t) => {
  const m = elect(new Member(1, { voters: [1] }))
  m.core.readIndex(bytes('only'))
  t.true(m.core.hasReady())
  t.deepEqual(
    m.take().readStates.map((r) => [text(r.context), r.index]),
    [['only', 1]],
  )
  m.core.advance()
  t.false(m.core.hasReady())
})

test('forwarded requests come back to the asker; without a leader they are dropped', (t) => {
  const m = new Member(2, { hardState: { term: 1 } })
  m.core.readIndex(bytes('lost'))
  t.deepEqual(m.work(), [])
  m.core.step(msg('MsgHeartbeat', 1, 2, { term: 1 }))
  m.work()
  m.core.readIndex(bytes('q'))
  t.deepEqual(
    m.work().map((x) => [x.type, x.to, x.from, text(x.context)]),
    [['MsgReadIndex', 1, 2, 'q']],
  )
  m.core.step(msg('MsgReadIndexResp', 1, 2, { term: 1, index: 5, context: bytes('q') }))
  m.work()
  t.deepEqual(readsOf(m), [['q', 5]])
})

test('nothing answers after the leader stepped down', (t) => {
  const m = settled()
  m.core.readIndex(bytes('a'))
  m.work()
  m.core.step(msg('MsgHeartbeat', 3, 1, { term: 2 }))
  m.core.step(msg('MsgHeartbeatResp', 2, 1, { term: 1, context: bytes('a') }))
  m.core.step(msg('MsgHeartbeatResp', 2, 1, { term: 2, context: bytes('a') }))
  m.work()
  t.deepEqual(readsOf(m), [])
  elect(m)
  ack(m, 2)
  heartbeatAnswers(m, 'a', 2)
  m.work()
  t.deepEqual(readsOf(m), [])
})

test('settings that make no sense are refused by name', (t) => {
  const good = new Member(1, { snapshot: snapshot(2, 1, confState([1])) })
  const config = {
    id: 1,
    electionTick: 10,
    heartbeatTick: 1,
    storage: good.storage,
    applied: 2,
    asyncStorageWrites: false,
    maxSizePerMsg: 100,
    maxCommittedSizePerReady: 0,
    maxUncommittedEntriesSize: 0,
    maxInflightMsgs: 1,
    maxInflightBytes: 0,
    checkQuorum: false,
    preVote: false,
    readOnlyOption: 'safe',
    disableProposalForwarding: false,
    disableConfChangeValidation: false,
    stepDownOnRemoval: false,
    random: () => 0,
    logger: { debug() {}, info() {}, warn() {}, error() {} },
  } as const
  t.notThrows(() => createCore(config))
  for (const [field, value] of [
    ['id', 0],
    ['id', 2 ** 53],
    ['heartbeatTick', 0],
    ['electionTick', 1],
    ['maxInflightMsgs', 0],
    ['maxInflightBytes', 99],
    ['maxSizePerMsg', -1],
    ['maxUncommittedEntriesSize', 0.5],
    ['applied', Number.NaN],
  ] as const) {
    const error = t.throws(() => createCore({ ...config, [field]: value }), { instanceOf: CoreConfigError })
    t.is((error as CoreConfigError).field, field)
    t.true(error!.message.includes(String(value)))
  }
})
