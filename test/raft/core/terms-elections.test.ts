import test from 'ava'
import type { Message, MessageType, Role } from '../../../src/raft/core/index.js'
import { CoreAssertionError } from '../../../src/raft/core/index.js'
import { Raft } from '../../../src/raft/core/raft.js'
import { change, elect, entries, entry, leader, Member, type MemberOptions, msg, Network } from './harness.js'

const inRole = (role: Role, options: MemberOptions = {}): Member => {
  if (role === 'leader') return leader(options)
  const m = new Member(1, { ...options, preVote: role === 'preCandidate' })
  if (role !== 'follower') m.core.campaign()
  m.work()
  return m
}
const ROLES: Role[] = ['follower', 'preCandidate', 'candidate', 'leader']
const ofType = (messages: readonly Message[], type: MessageType): Message[] => messages.filter((m) => m.type === type)

// A1: terms and roles

test('FollowerUpdateTermFromMessage, CandidateUpdateTermFromMessage, LeaderUpdateTermFromMessage: any role adopts a higher term as a follower (§5.1)', (t) => {
  for (const role of ROLES) {
    const m = inRole(role)
    m.core.step(msg('MsgApp', 2, 1, { term: 7 }))
    t.is(m.role, 'follower', role)
    t.is(m.term, 7)
    t.is(m.lead, 2)
  }
})

test('RejectStaleTermMessage, StepIgnoreOldTermMsg: a message of an older term does not reach the role (§5.1)', (t) => {
  const m = new Member(1, { hardState: { term: 5 } })
  m.core.step(msg('MsgApp', 2, 1, { term: 4, entries: entries(4) }))
  t.is(m.lead, 0)
  t.deepEqual(m.work(), [])
  t.is(m.storage.lastIndex(), 0)
  t.true(m.lines.includes('INFO 1 [term: 5] ignored a MsgApp message with lower term from 2 [term: 4]'))
})

test('StartAsFollower: a fresh core is a follower without a leader (§5.2)', (t) => {
  const m = new Member(1)
  t.is(m.role, 'follower')
  t.is(m.lead, 0)
  t.is(m.term, 0)
})

test('AllServerStepdown: every role steps down on a higher term, with a leader only from an append (§5.2)', (t) => {
  for (const role of ROLES) {
    for (const type of ['MsgVote', 'MsgApp'] as const) {
      const m = inRole(role)
      m.core.step(msg(type, 2, 1, { term: 3, index: 99, logTerm: 3 }))
      t.is(m.role, 'follower', `${role} ${type}`)
      t.is(m.term, 3)
      t.is(m.lead, type === 'MsgApp' ? 2 : 0)
      t.is(m.vote, type === 'MsgVote' ? 2 : 0)
    }
  }
})

test('CandidateResetTermMsgHeartbeat, CandidateResetTermMsgApp: a candidate at a higher term brings the leader to it', (t) => {
  for (const type of ['MsgHeartbeat', 'MsgApp'] as const) {
    const net = Network.of(3)
    net.campaign(1)
    net.isolate(3)
    for (let i = 0; i < 3; i++) net.campaign(3)
    t.is(net.at(3).role, 'candidate')
    net.heal()
    // A leader of the old term is not answered by a candidate at a later one; its own later term is then adopted.
    const before = net.at(3).term
    net.at(3).core.step(msg(type, 1, 3, { term: before, entries: [] }))
    t.is(net.at(3).role, 'follower')
    t.is(net.at(3).lead, 1)
  }
})

test('StateTransition: impossible transitions throw', (t) => {
  const make = (role: Role): Raft => {
    const m = new Member(1)
    const raft = (m.core as unknown as { raft: Raft }).raft
    t.true(raft instanceof Raft)
    raft.role = role
    return raft
  }
  t.throws(() => make('follower').becomeLeader(), { instanceOf: CoreAssertionError })
  t.throws(() => make('leader').becomeCandidate(), { instanceOf: CoreAssertionError })
  t.throws(() => make('leader').becomePreCandidate(), { instanceOf: CoreAssertionError })
  for (const role of ROLES) t.notThrows(() => make(role).becomeFollower(1, 0))
})

test('LeaderBcastBeat, BcastBeat: a heartbeat tick sends one empty heartbeat to each other member, with no more commit than it has (§5.2)', (t) => {
  const m = leader({ heartbeatTick: 1, log: entries(1, 1), hardState: { term: 1, commit: 0 } })
  m.core.step(msg('MsgAppResp', 2, 1, { term: 2, index: 3 }))
  m.work()
  t.is(m.commit, 3)
  m.core.tick()
  const beats = m.work()
  t.deepEqual(
    beats.map((b) => [b.type, b.to, b.commit, b.entries.length]),
    [
      ['MsgHeartbeat', 2, 3, 0],
      ['MsgHeartbeat', 3, 0, 0],
    ],
  )
})

test('RecvMsgBeat: only a leader has a beat', (t) => {
  for (const role of ROLES) {
    const m = inRole(role)
    m.core.tick()
    const beats = ofType(m.work(), 'MsgHeartbeat')
    t.is(beats.length, role === 'leader' ? 2 : 0, role)
    t.is(m.core.step(msg('MsgBeat', 2, 1)), 'localMessage')
  }
})

test('SingleNodeCandidate, SingleNodePreCandidate, SingleNodeCommit: a cluster of one elects itself and commits without messages', (t) => {
  for (const preVote of [false, true]) {
    const m = new Member(1, { voters: [1], preVote })
    m.ticks(10)
    t.deepEqual(m.work(), [])
    t.is(m.role, 'leader')
    m.core.propose(Uint8Array.of(1))
    t.deepEqual(m.work(), [])
    t.is(m.commit, 2)
    t.is(m.applied.length, 2)
  }
})

// A2: elections

test('FollowerStartElection, CandidateStartNewElection: after the timeout term + 1, a vote for oneself, a question to all (§5.2)', (t) => {
  for (const role of ['follower', 'candidate'] as const) {
    const m = inRole(role)
    const term = m.term
    m.ticks(9)
    t.is(m.term, term)
    m.core.tick()
    const out = m.work()
    t.is(m.term, term + 1)
    t.is(m.role, 'candidate')
    t.is(m.vote, 1)
    t.deepEqual(
      out.map((x) => [x.type, x.to, x.term]),
      [
        ['MsgVote', 2, term + 1],
        ['MsgVote', 3, term + 1],
      ],
    )
  }
})

test('LeaderElectionInOneRoundRPC: won, lost and undecided counts for 1 to 5 members (§5.2)', (t) => {
  const cases: [number, boolean[], Role][] = [
    [1, [], 'leader'],
    [3, [true, true], 'leader'],
    [3, [true], 'leader'],
    [3, [], 'candidate'],
    [3, [false], 'candidate'],
    [3, [false, false], 'follower'],
    [5, [true, true, true, true], 'leader'],
    [5, [true, true], 'leader'],
    [5, [true], 'candidate'],
    [5, [true, false, false], 'candidate'],
    [5, [false, false, false], 'follower'],
    [5, [true, false, false, false], 'follower'],
  ]
  for (const [size, votes, role] of cases) {
    const m = new Member(1, { voters: Array.from({ length: size }, (_, i) => i + 1) })
    m.core.campaign()
    m.work()
    for (const [i, v] of votes.entries()) m.core.step(msg('MsgVoteResp', i + 2, 1, { term: 1, reject: !v }))
    t.is(m.role, role, `${size} ${votes}`)
    t.is(m.term, 1)
  }
})

test('LeaderElection, LeaderElectionPreVote: a majority of reachable members is needed', (t) => {
  for (const preVote of [false, true]) {
    for (const dead of [0, 1, 2]) {
      const net = Network.of(3, { preVote })
      if (dead > 0) net.isolate(3)
      if (dead > 1) net.cut(1, 2)
      net.campaign(1)
      t.is(net.at(1).role, dead < 2 ? 'leader' : preVote ? 'preCandidate' : 'candidate')
      t.is(net.at(1).term, dead < 2 || !preVote ? 1 : 0)
    }
    const better = Network.of(3, (id) => ({
      preVote,
      ...(id === 1 ? {} : { log: entries(1), hardState: { term: 1 } }),
    }))
    better.campaign(1)
    t.is(better.at(1).role, 'follower', 'a majority has a better log')
  }
})

test('LeaderCycle, LeaderCyclePreVote: any member can become leader, also after others', (t) => {
  for (const preVote of [false, true]) {
    const net = Network.of(3, { preVote })
    for (const id of [1, 2, 3, 1, 2]) {
      net.campaign(id)
      for (const [other, m] of net.members) t.is(m.role, other === id ? 'leader' : 'follower')
    }
  }
})

test('FollowerVote: one vote a term, first come, and the same candidate may ask again (§5.2)', (t) => {
  for (const [vote, asks, granted] of [
    [0, 2, true],
    [0, 3, true],
    [2, 2, true],
    [3, 3, true],
    [2, 3, false],
    [3, 2, false],
  ] as const) {
    const m = new Member(1, { hardState: { term: 1, vote } })
    m.core.step(msg('MsgVote', asks, 1, { term: 1 }))
    const [answer] = m.work()
    t.is(answer!.type, 'MsgVoteResp')
    t.is(answer!.reject, !granted)
    t.is(m.storage.initialState().hardState.vote, granted ? asks : vote)
  }
})

test('CandidateFallback, CandidateConcede: a candidate yields to a leader of its term, and takes over its log (§5.2)', (t) => {
  const m = inRole('candidate')
  m.core.step(msg('MsgApp', 2, 1, { term: 1 }))
  t.is(m.role, 'follower')
  t.is(m.lead, 2)
  const net = Network.of(3)
  net.isolate(1)
  net.campaign(1)
  net.campaign(3)
  net.heal()
  net.propose(3, 'abc')
  net.tick(3)
  t.is(net.at(1).role, 'follower')
  t.is(net.at(1).term, 1)
  t.deepEqual(net.at(1).log(), net.at(3).log())
})

test('FollowerElectionTimeoutRandomized, CandidateElectionTimeoutRandomized: timeouts cover [T, 2T) and are drawn at each change of state (§5.2)', (t) => {
  for (const role of ['follower', 'candidate'] as const) {
    const seen = new Set<number>()
    let draw = 0
    const m = new Member(1, { random: () => (draw++ % 10) / 10 })
    for (let round = 0; round < 60; round++) {
      if (role === 'follower') m.core.step(msg('MsgHeartbeat', 2, 1, { term: m.term + 1 }))
      else m.core.campaign()
      m.work()
      const term = m.term
      let n = 0
      while (m.term === term) {
        m.core.tick()
        n++
      }
      m.work()
      seen.add(n)
    }
    t.deepEqual(
      [...seen].sort((a, b) => a - b).filter((n) => n < 10 || n > 19),
      [],
    )
    t.true(seen.size >= 5, `only ${[...seen]}`)
  }
})

test('FollowersElectionTimeoutNonconflict, CandidatesElectionTimeoutNonconflict, PastElectionTimeout: simultaneous timeouts stay rare (§5.2)', (t) => {
  let state = 12345
  const random = (): number => {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0
    return (state >>> 8) / 2 ** 24
  }
  let conflicts = 0
  const rounds = 1000
  for (let round = 0; round < rounds; round++) {
    const group = [1, 2, 3, 4, 5].map((id) => new Member(id, { voters: [1, 2, 3, 4, 5], random }))
    let timedOut = 0
    while (timedOut === 0)
      for (const m of group) {
        m.core.tick()
        if (m.role === 'candidate') timedOut++
      }
    if (timedOut > 1) conflicts++
  }
  t.true(conflicts / rounds < 0.3, `${conflicts} of ${rounds}`)
})

test('VoteRequest: it carries the last term and index of the log (§5.4.1)', (t) => {
  const m = new Member(1, { log: [entry(1, 1), entry(2, 2)], hardState: { term: 2 } })
  m.ticks(10)
  for (const v of m.work()) t.deepEqual([v.type, v.term, v.logTerm, v.index], ['MsgVote', 3, 2, 2])
})

test('Voter: no vote for a log that is less up to date (§5.4.1)', (t) => {
  const cases: [number[], number, number, boolean][] = [
    [[1], 1, 1, true],
    [[1], 1, 2, true],
    [[1, 1], 1, 1, false],
    [[1], 2, 1, true],
    [[1], 2, 2, true],
    [[1, 1], 2, 1, true],
    [[2], 1, 1, false],
    [[2], 1, 2, false],
    [[1, 2], 1, 5, false],
  ]
  for (const [terms, logTerm, index, granted] of cases) {
    const m = new Member(1, { log: entries(...terms) })
    m.core.step(msg('MsgVote', 2, 1, { term: 3, logTerm, index }))
    t.is(m.work()[0]!.reject, !granted, `${terms} ${logTerm}/${index}`)
  }
})

test('VoteFromAnyState, PreVoteFromAnyState: a vote of a higher term is granted in any role, a pre-vote changes neither term nor vote', (t) => {
  for (const role of ROLES) {
    for (const type of ['MsgVote', 'MsgPreVote'] as const) {
      const m = inRole(role)
      const { term, vote } = m
      m.core.step(msg(type, 2, 1, { term: term + 1, logTerm: term + 1, index: 42 }))
      const answer = m.work().find((x) => x.type === `${type}Resp`)!
      t.is(answer.term, term + 1)
      t.false(answer.reject)
      t.deepEqual([m.role, m.term, m.vote], type === 'MsgVote' ? ['follower', term + 1, 2] : [role, term, vote])
    }
  }
})

test('RecvMsgVote, RecvMsgPreVote: the decision by own vote and log at an equal term', (t) => {
  for (const type of ['MsgVote', 'MsgPreVote'] as const) {
    for (const [vote, lead, granted] of [
      [0, false, true],
      [2, false, true],
      [3, false, false],
      [0, true, false],
    ] as const) {
      const m = new Member(1, { log: entries(1), hardState: { term: 2, vote } })
      if (lead) m.core.step(msg('MsgHeartbeat', 3, 1, { term: 2 }))
      m.work()
      m.core.step(msg(type, 2, 1, { term: 2, logTerm: 1, index: 1 }))
      t.is(m.work()[0]!.reject, !granted, `${type} ${vote} ${lead}`)
    }
  }
})

test('LeaderElectionOverwriteNewerLogs, LeaderElectionOverwriteNewerLogsPreVote: an older log may win by quorum and replaces newer uncommitted entries', (t) => {
  for (const preVote of [false, true]) {
    // Member 3 led term 2 alone; 1 and 2 know of that term.
    const net = Network.of(3, (id) => ({
      preVote,
      log: entries(id === 3 ? 2 : 1),
      hardState: { term: 2, vote: id === 3 ? 3 : 0 },
    }))
    net.cut(1, 3)
    net.cut(2, 3)
    net.campaign(1)
    t.is(net.at(1).role, 'leader')
    net.heal()
    net.tick(1)
    t.deepEqual(net.at(3).logTerms(), [1, 3])
    for (const m of net.members.values()) t.deepEqual(m.log(), net.at(1).log())
  }
})

test('DuelingCandidates: split votes resolve, and a rejoining loser with a short log does not win', (t) => {
  const net = Network.of(3)
  net.cut(1, 3)
  net.campaign(1)
  net.campaign(3)
  t.is(net.at(1).role, 'leader')
  t.is(net.at(3).role, 'candidate')
  net.heal()
  net.campaign(3)
  t.is(net.at(3).role, 'follower')
  t.is(net.at(3).term, 2)
  t.is(net.at(1).role, 'follower', 'the higher term ends the leadership')
  t.is(net.at(3).storage.lastIndex(), 0)
})

test('DuelingPreCandidates, PreVoteWithSplitVote: with pre-vote the loser raises no term, and a split vote resolves', (t) => {
  const net = Network.of(3, { preVote: true })
  net.cut(1, 3)
  net.campaign(1)
  net.campaign(3)
  net.heal()
  net.campaign(3)
  t.is(net.roles(), '1:leader@1 2:follower@1 3:follower@1')

  const split = Network.of(3, { preVote: true })
  split.campaign(1)
  split.isolate(1)
  split.at(2).core.campaign()
  split.at(3).core.campaign()
  split.run()
  t.deepEqual(
    [2, 3].map((id) => split.at(id).role),
    ['candidate', 'candidate'],
  )
  split.campaign(2)
  t.is(split.at(2).role, 'leader')
  t.is(split.at(3).role, 'follower')
})

test('CandidateSelfVoteAfterLostElection, CandidateSelfVoteAfterLostElectionPreVote: the own vote counts once durable, and not after the role changed', (t) => {
  for (const preVote of [false, true]) {
    const m = new Member(1, { preVote, asyncStorageWrites: true })
    m.core.campaign()
    m.workOnce()
    t.is(m.appendQueue.length, 1)
    t.false(
      m.lines.some((l) => l.includes('votes and')),
      'not counted before the write',
    )
    // A leader of this term turns up before the own vote is durable.
    m.core.step(msg('MsgHeartbeat', 2, 1, { term: 1 }))
    m.appendOne()
    m.work()
    t.is(m.role, 'follower')
    t.is(m.lead, 2)
    t.false(m.lines.some((l) => l.includes('votes and')))
  }
})

test("CandidateDeliversPreCandidateSelfVoteAfterBecomingCandidate: a late pre-vote of one's own is not a vote", (t) => {
  const m = new Member(1, { preVote: true, asyncStorageWrites: true })
  m.core.campaign()
  m.workOnce()
  m.core.step(msg('MsgPreVoteResp', 2, 1, { term: 1 }))
  m.core.step(msg('MsgPreVoteResp', 3, 1, { term: 1 }))
  t.is(m.role, 'candidate')
  m.workOnce()
  m.appendOne()
  t.is(m.role, 'candidate')
  t.false(m.lines.some((l) => l.includes('MsgVoteResp votes')))
  m.work()
  t.true(m.lines.includes('INFO 1 has received 1 MsgVoteResp votes and 0 vote rejections'))
  m.core.step(msg('MsgVoteResp', 2, 1, { term: 1 }))
  t.is(m.role, 'leader')
})

test('late pre-votes of others do not elect a candidate either', (t) => {
  const m = new Member(1, { preVote: true, voters: [1, 2, 3, 4, 5] })
  m.core.campaign()
  m.work()
  for (const id of [2, 3, 4, 5]) m.core.step(msg('MsgPreVoteResp', id, 1, { term: 1 }))
  m.work()
  for (const id of [2, 3, 4, 5]) m.core.step(msg('MsgPreVoteResp', id, 1, { term: 1 }))
  t.is(m.role, 'candidate')
  t.is(m.term, 1)
})

test('LeaderMsgAppSelfAckAfterTermChange: the own acknowledgement does not count after the term changed', (t) => {
  const m = leader({ asyncStorageWrites: true, voters: [1, 2, 3] })
  m.core.propose(Uint8Array.of(1))
  m.workOnce()
  m.core.step(msg('MsgHeartbeat', 2, 1, { term: 2 }))
  m.appendOne()
  m.work()
  t.is(m.role, 'follower')
  t.is(m.commit, 0)
})

test('CampaignWhileLeader, PreCampaignWhileLeader: campaigning does nothing to a leader', (t) => {
  for (const preVote of [false, true]) {
    const m = elect(new Member(1, { preVote }))
    m.core.campaign()
    t.deepEqual(m.work(), [])
    t.is(m.role, 'leader')
    t.is(m.term, 1)
  }
})

test('ConfChangeCheckBeforeCampaign, ConfChangeV2CheckBeforeCampaign: no campaign while a committed conf change is not applied', (t) => {
  for (const type of ['confChange', 'confChangeV2'] as const) {
    const net = Network.of(3)
    net.campaign(1)
    net.at(1).core.proposeConfChange(change('r3'), type)
    net.run()
    const committed = net.at(1).commit
    const fresh = new Member(2, { log: net.at(1).log(), hardState: { term: 1, commit: committed } })
    fresh.core.campaign()
    t.is(fresh.role, 'follower')
    fresh.ticks(30)
    t.is(fresh.role, 'follower')
    t.true(fresh.lines.some((l) => l.startsWith('WARN 2 cannot campaign at term 1 since there are still pending')))
    fresh.work()
    fresh.core.campaign()
    t.is(fresh.role, 'candidate')
  }
})

test('NodeWithSmallerTermCanCompleteElection, PreVoteMigrationCanCompleteElection, PreVoteMigrationWithFreeStuckPreCandidate: pre-vote does not deadlock', (t) => {
  // 3 lags behind in term; once 2 is gone, 1 and 3 still find a leader.
  const net = Network.of(3, { preVote: true })
  net.isolate(3)
  net.campaign(1)
  net.campaign(2)
  net.heal()
  net.cut(1, 2)
  net.cut(2, 3)
  t.deepEqual([net.at(3).term, net.at(1).term], [0, 2])
  for (let i = 0; i < 4 && ![1, 3].some((id) => net.at(id).role === 'leader'); i++) {
    net.campaign(3)
    net.campaign(1)
  }
  t.true([1, 3].some((id) => net.at(id).role === 'leader'))

  // Members 1 and 2 run with pre-vote, 3 still without and at a higher term.
  const mixed = Network.of(3, (id) => ({ preVote: id !== 3, log: entries(1), hardState: { term: 1 } }))
  mixed.campaign(1)
  mixed.isolate(3)
  mixed.campaign(3)
  mixed.campaign(3)
  mixed.propose(1)
  mixed.heal()
  mixed.campaign(3)
  mixed.campaign(2)
  mixed.campaign(2)
  t.is(mixed.at(2).role, 'leader')
  t.is(mixed.at(3).term, mixed.at(2).term)
})

test('PreVoteRejectedTerm: a rejected pre-vote tells the asker the higher term', (t) => {
  const m = new Member(1, { preVote: true, hardState: { term: 3 } })
  m.core.step(msg('MsgPreVote', 2, 1, { term: 2, logTerm: 9, index: 9 }))
  t.deepEqual(
    m.work().map((x) => [x.type, x.term, x.reject]),
    [['MsgPreVoteResp', 3, true]],
  )
})
