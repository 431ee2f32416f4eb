import test from 'ava'
import { bytes, change, confState, elect, entries, leader, Member, msg, Network } from './harness.js'

// A3: check-quorum and leases

test('LeaderStepdownWhenQuorumActive: a leader that hears of a quorum within each election timeout stays', (t) => {
  const m = leader({ checkQuorum: true })
  for (let i = 0; i < 50; i++) {
    if (i % 5 === 0) m.core.step(msg('MsgHeartbeatResp', 2, 1, { term: 1 }))
    m.core.tick()
  }
  t.is(m.role, 'leader')
})

test('LeaderStepdownWhenQuorumLost: a leader that hears of no quorum for an election timeout steps down', (t) => {
  const m = leader({ checkQuorum: true, voters: [1, 2, 3, 4, 5] })
  m.core.step(msg('MsgHeartbeatResp', 2, 1, { term: 1 }))
  // Right after its election nobody has been heard of: the first full interval decides.
  m.ticks(9)
  t.is(m.role, 'leader')
  m.core.tick()
  t.is(m.role, 'follower')
  t.is(m.lead, 0)
  t.is(m.term, 1)
})

test('without check-quorum a leader without followers stays', (t) => {
  const m = leader()
  m.ticks(100)
  t.is(m.role, 'leader')
})

test('LeaderSupersedingWithCheckQuorum, LeaderElectionWithCheckQuorum: members that heard of a leader ignore vote requests until their timeout', (t) => {
  const net = Network.of(3, { checkQuorum: true })
  net.campaign(1)
  net.campaign(3)
  t.is(net.at(3).role, 'candidate')
  t.is(net.at(2).term, 1)
  t.true(net.at(2).lines.some((l) => l.includes('ignored MsgVote from 3') && l.includes('remaining ticks: 10')))
  // Member 2 reaches its timeout without having campaigned: from then on it votes.
  net.at(2).ticks(9)
  net.campaign(3)
  t.is(net.at(3).role, 'candidate', 'one tick too early')
  const late = Network.of(3, (id) => ({ checkQuorum: true, random: () => (id === 2 ? 0.9 : 0) }))
  late.campaign(1)
  late.at(2).ticks(10)
  late.campaign(3)
  t.is(late.at(3).role, 'leader')
})

test('FreeStuckCandidateWithCheckQuorum: a member stuck at a higher term gets back in, through a new election', (t) => {
  const net = Network.of(3, { checkQuorum: true })
  net.campaign(1)
  net.isolate(1)
  net.campaign(3)
  net.campaign(3)
  t.is(net.at(3).role, 'candidate')
  t.is(net.at(2).role, 'follower')
  net.heal()
  // The leader's heartbeat is answered with the higher term: the leader follows it there.
  net.tick(1)
  t.is(net.at(1).role, 'follower')
  t.is(net.at(1).term, net.at(3).term)
  net.campaign(3)
  t.is(net.at(1).vote, 3)
})

test('DisruptiveFollower: without pre-vote a follower that timed out can depose the leader by its term', (t) => {
  const net = Network.of(3, { checkQuorum: true })
  net.campaign(1)
  net.at(3).ticks(10)
  t.is(net.at(3).role, 'candidate')
  net.at(3).work()
  net.at(1).core.tick()
  net.run()
  t.is(net.at(1).role, 'follower')
  t.is(net.at(1).term, 2)
})

test('DisruptiveFollowerPreVote: with pre-vote the leader is not disturbed', (t) => {
  const net = Network.of(3, { checkQuorum: true, preVote: true })
  net.campaign(1)
  net.isolate(3)
  for (let i = 0; i < 3; i++) net.propose(1)
  net.at(3).ticks(25)
  t.is(net.at(3).role, 'preCandidate')
  net.heal()
  net.tick(1)
  t.is(net.roles(), '1:leader@1 2:follower@1 3:follower@1')
  t.deepEqual(net.at(3).log(), net.at(1).log())
})

test('PreVoteWithCheckQuorum: a pre-candidate behind a lease gets in once the leader is gone', (t) => {
  const net = Network.of(3, (id) => ({ checkQuorum: true, preVote: true, random: () => (id === 2 ? 0.9 : 0) }))
  net.campaign(1)
  net.isolate(1)
  net.campaign(3)
  t.is(net.at(3).role, 'preCandidate')
  t.is(net.at(3).term, 1)
  net.at(2).ticks(10)
  net.campaign(3)
  t.is(net.at(3).role, 'leader')
})

test('NonPromotableVoterWithCheckQuorum: a voter that is missing from its own configuration does not campaign', (t) => {
  const one = new Member(1, { voters: [1, 2], checkQuorum: true })
  const two = new Member(2, { voters: [1], checkQuorum: true })
  const net = new Network([one, two])
  two.ticks(40)
  t.is(two.role, 'follower')
  net.campaign(1)
  t.is(one.role, 'leader')
  t.is(two.lead, 1)
  t.deepEqual(
    two.lines.filter((l) => l.includes('starting')),
    [],
  )
})

test('AddNodeCheckQuorum: adding a member does not trip the check, its silence later does', (t) => {
  const m = new Member(1, { voters: [1], checkQuorum: true })
  elect(m)
  m.ticks(9)
  m.core.applyConfChange(change('v2'))
  m.core.tick()
  t.is(m.role, 'leader')
  m.ticks(10)
  t.is(m.role, 'follower')
})

test('a vote request by order of the leader is answered in spite of the lease', (t) => {
  const net = Network.of(3, { checkQuorum: true, preVote: true })
  net.campaign(1)
  net.at(1).core.transferLeader(3)
  net.run()
  t.is(net.roles(), '1:follower@2 2:follower@2 3:leader@2')
})

test('a leader of an older term is answered with the term only if check-quorum or pre-vote is on', (t) => {
  for (const [checkQuorum, preVote] of [
    [false, false],
    [true, false],
    [false, true],
  ] as const) {
    const m = new Member(1, { checkQuorum, preVote, hardState: { term: 4 }, log: entries(1), conf: confState([1, 2]) })
    m.core.step(msg('MsgHeartbeat', 2, 1, { term: 3, context: bytes('c') }))
    t.deepEqual(
      m.work().map((x) => [x.type, x.term, x.index]),
      checkQuorum || preVote ? [['MsgAppResp', 4, 0]] : [],
    )
  }
})
