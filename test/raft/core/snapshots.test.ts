import test from 'ava'
import {
  ack,
  bytes,
  confState,
  entries,
  entry,
  leader,
  Member,
  type MemberOptions,
  msg,
  Network,
  snapshot,
} from './harness.js'

// A6: snapshots

const install = (m: Member, state = confState([1, 2, 3]), index = 11, term = 11): void => {
  m.core.step(
    msg('MsgSnap', 2, m.id, { term: Math.max(term, m.term), snapshot: snapshot(index, term, state, bytes('data')) }),
  )
}

test('Restore: log, commit and configuration come from the snapshot', (t) => {
  const m = new Member(1, { log: entries(1, 1), hardState: { term: 1 } })
  install(m, confState([1, 2, 3, 4]))
  const out = m.work()
  t.is(m.commit, 11)
  t.is(m.storage.lastIndex(), 11)
  t.is(m.storage.term(11), 11)
  t.deepEqual(m.status.config.voters, [1, 2, 3, 4])
  t.deepEqual(
    out.map((x) => [x.type, x.to, x.index, x.reject]),
    [['MsgAppResp', 2, 11, false]],
  )
  // While it is being installed, the member doesn't campaign.
  const busy = new Member(1)
  install(busy)
  for (let i = 0; i < 40; i++) busy.core.tick()
  t.is(busy.role, 'follower')
})

test('RestoreWithLearner, LearnerReceiveSnapshot: learners come from the snapshot too, the member itself included', (t) => {
  const m = new Member(3, { conf: confState([1, 2], { learners: [3] }) })
  install(m, confState([1, 2], { learners: [3, 4] }))
  m.work()
  t.deepEqual(m.status.config.learners, [3, 4])
  for (let i = 0; i < 40; i++) m.core.tick()
  t.is(m.role, 'follower', 'a learner does not campaign')
})

test('RestoreWithVotersOutgoing: a joint configuration comes back as such', (t) => {
  const m = new Member(1)
  const joint = confState([2, 3, 4], { votersOutgoing: [1, 2, 3], learnersNext: [1], autoLeave: true })
  install(m, joint)
  m.work()
  t.deepEqual(m.status.config, joint)
})

test("RestoreVoterToLearner, RestoreLearnerPromotion: the member's role is that of the snapshot", (t) => {
  const voter = new Member(3, { voters: [1, 2, 3] })
  install(voter, confState([1, 2], { learners: [3] }))
  voter.work()
  voter.core.campaign()
  t.is(voter.role, 'follower')
  const learner = new Member(3, { conf: confState([1, 2], { learners: [3] }) })
  install(learner, confState([1, 2, 3]))
  learner.work()
  learner.core.campaign()
  t.is(learner.role, 'candidate')
})

test('RestoreIgnoreSnapshot: an older snapshot is ignored, one inside the log only moves commit', (t) => {
  const m = new Member(1, { log: entries(1, 1, 1), hardState: { term: 1, commit: 1 } })
  install(m, confState([1, 2]), 1, 1)
  t.deepEqual(
    m.work().map((x) => x.index),
    [1],
  )
  t.deepEqual(m.status.config.voters, [1, 2, 3])
  install(m, confState([1, 2]), 2, 1)
  t.deepEqual(
    m.work().map((x) => x.index),
    [2],
  )
  t.is(m.commit, 2)
  t.is(m.storage.lastIndex(), 3, 'the log is kept')
  t.deepEqual(m.status.config.voters, [1, 2, 3])
})

test('an older snapshot is ignored also where the log cannot tell any more', (t) => {
  const m = new Member(1, { snapshot: snapshot(10, 2, confState([1, 2, 3])), hardState: { term: 2, commit: 10 } })
  install(m, confState([1, 2]), 5, 1)
  t.deepEqual(
    m.work().map((x) => x.index),
    [10],
  )
  t.is(m.commit, 10)
  t.deepEqual(m.status.config.voters, [1, 2, 3])
})

test('a snapshot for a configuration without this member is not installed', (t) => {
  const m = new Member(1)
  install(m, confState([2, 3]))
  m.work()
  t.is(m.commit, 0)
  t.true(m.lines.some((l) => l.startsWith('WARN 1 attempted to restore snapshot but it is not in the ConfState')))
})

test('RestoreFromSnapMsg: the sender is the leader', (t) => {
  const m = new Member(1)
  install(m)
  t.is(m.lead, 2)
  t.is(m.term, 11)
})

/** A leader whose log starts behind index 11. */
const cutLeader = (options: MemberOptions = {}): Member =>
  leader({ snapshot: snapshot(11, 11, confState([1, 2]), bytes('s')), hardState: { term: 11, commit: 11 }, ...options })
const refuse = (m: Member, index: number, hint = 0): void =>
  void m.core.step(msg('MsgAppResp', 2, 1, { term: m.term, index, reject: true, rejectHint: hint }))

test('ProvideSnap, SendingSnapshotSetPendingSnapshot: a follower behind the compacted log gets a snapshot', (t) => {
  const m = cutLeader()
  refuse(m, 11)
  const out = m.work()
  t.deepEqual(
    out.map((x) => [x.type, x.to, x.snapshot?.index]),
    [['MsgSnap', 2, 11]],
  )
  t.is(m.progress(2).pendingSnapshot, 11)
  t.is(m.progress(2).state, 'snapshot')
})

test('IgnoreProvidingSnap: an inactive follower gets none', (t) => {
  // Nobody has heard of member 2; where its log would start, the leader's has been cut.
  const far = leader({
    snapshot: snapshot(11, 11, confState([1, 2, 3]), bytes('s')),
    hardState: { term: 11, commit: 11 },
  })
  ack(far, 3)
  far.work()
  far.compact(12)
  far.core.propose(bytes('x'))
  t.deepEqual(
    far.work().filter((x) => x.to === 2),
    [],
  )
})

test('SnapshotTemporarilyUnavailable: without a snapshot at hand nothing is sent and nothing changes', (t) => {
  const m = cutLeader()
  const storage = m.storage as unknown as { snapshot: () => string }
  storage.snapshot = () => 'snapshotTemporarilyUnavailable'
  refuse(m, 11)
  t.deepEqual(m.work(), [])
  t.is(m.progress(2).state, 'probe')
})

test('PendingSnapshotPauseReplication: appends wait while a snapshot is pending', (t) => {
  const m = cutLeader()
  refuse(m, 11)
  m.work()
  m.core.propose(bytes('x'))
  t.deepEqual(m.work(), [])
})

test('SnapshotFailure: after a failure probing starts from the match, at the next heartbeat answer', (t) => {
  const m = cutLeader()
  refuse(m, 11)
  m.work()
  m.core.reportSnapshot(2, false)
  const pr = m.progress(2)
  t.deepEqual([pr.state, pr.pendingSnapshot, pr.next, pr.paused], ['probe', 0, 1, true])
})

test('SnapshotSucceed: after success probing starts behind the snapshot', (t) => {
  const m = cutLeader()
  refuse(m, 11)
  m.work()
  m.core.reportSnapshot(2, true)
  const pr = m.progress(2)
  t.deepEqual([pr.state, pr.pendingSnapshot, pr.next, pr.paused], ['probe', 0, 12, true])
})

test('SnapshotAbort: an acknowledgement that the log can continue ends the pending snapshot', (t) => {
  const m = cutLeader()
  refuse(m, 11)
  m.work()
  ack(m, 2, 11)
  const pr = m.progress(2)
  t.deepEqual([pr.state, pr.pendingSnapshot], ['replicate', 0])
  t.is(pr.next, 13)
})

test('SlowNodeRestore: a follower that fell behind comes back by a snapshot and goes on from the log', (t) => {
  for (const asyncStorageWrites of [false, true]) {
    const net = Network.of(3, { asyncStorageWrites })
    net.campaign(1)
    net.isolate(3)
    for (let i = 0; i < 20; i++) net.propose(1)
    net.at(1).compact()
    net.heal()
    for (let i = 0; i < 4; i++) net.tick(1)
    t.true(net.delivered.some((x) => x.type === 'MsgSnap' && x.to === 3))
    net.propose(1, 'last')
    t.is(net.at(3).commit, net.at(1).commit)
    t.is(net.at(3).storage.lastIndex(), 22)
    t.is(net.at(1).progress(3).state, 'replicate')
  }
})

test('entries behind a snapshot that is still being installed are kept apart from it', (t) => {
  const m = new Member(1, { asyncStorageWrites: true })
  install(m, confState([1, 2, 3]), 11, 1)
  m.core.step(msg('MsgApp', 2, 1, { term: m.term, index: 11, logTerm: 1, entries: [entry(1, 12, 'x')], commit: 12 }))
  m.workOnce()
  t.is(m.applyQueue.length, 0, 'nothing is applied before the snapshot is')
  const out = m.work()
  t.deepEqual(
    out.map((x) => x.index),
    [11, 12],
  )
  t.deepEqual(
    m.applied.map((e) => e.index),
    [12],
  )
})
