import test from 'ava'
import { seededRng } from '../../../src/common/index.js'
import { enterJoint, isRefusal, leaveJoint, type Membership, simpleChange } from '../../../src/raft/core/confchange.js'
import type { ConfChange, ConfState } from '../../../src/raft/core/index.js'
import {
  CoreAssertionError,
  decodeConfChange,
  encodeConfChange,
  LEAVE_JOINT,
  NO_BYTES,
} from '../../../src/raft/core/index.js'
import { Inflights } from '../../../src/raft/core/inflights.js'
import { ack, bytes, change, confState, elect, entries, leader, Member, msg, Network, text } from './harness.js'

// A7: membership

const joint = (transition: ConfChange['transition'], ...changes: string[]): ConfChange => ({
  ...change(...changes),
  transition,
})
const last = (m: Member) => m.log().at(-1)!

test('StepConfig: a conf change is appended, and counts as pending', (t) => {
  const m = leader({ voters: [1, 2] })
  ack(m, 2)
  m.work()
  t.is(m.core.proposeConfChange(change('v3')), null)
  m.work()
  t.is(last(m).type, 'confChangeV2')
  t.is(m.storage.lastIndex(), 2)
})

test('StepIgnoreConfig: a second unapplied conf change becomes an empty entry', (t) => {
  const m = leader({ voters: [1, 2] })
  ack(m, 2)
  m.work()
  m.core.proposeConfChange(change('v3'))
  t.is(m.core.proposeConfChange(change('v4')), null)
  m.work()
  t.deepEqual(
    m.log().map((e) => [e.type, e.data.length > 0]),
    [
      ['normal', false],
      ['confChangeV2', true],
      ['normal', false],
    ],
  )
  ack(m, 2)
  m.work()
  m.core.proposeConfChange(change('v4'))
  m.work()
  t.is(last(m).type, 'confChangeV2', 'once it is applied the next may come')
})

test('NewLeaderPendingConfig: a new leader takes it that one is pending until it has applied its log', (t) => {
  const m = leader({ voters: [1, 2], log: entries(1), hardState: { term: 1 } })
  m.core.proposeConfChange(change('v3'))
  m.work()
  t.is(last(m).type, 'normal')
  t.true(m.lines.some((l) => l.includes('possible unapplied conf change at index 1 (applied to 0)')))
})

test('conf change entries of both types keep their change; malformed data is an assertion', (t) => {
  for (const cc of [change('v1'), change('r9007199254740991'), { ...change('l300'), context: bytes('address') }]) {
    for (const type of ['confChange', 'confChangeV2'] as const)
      t.deepEqual(decodeConfChange(encodeConfChange(cc, type), type), cc)
  }
  const many: ConfChange = { ...joint('jointExplicit', 'v1', 'l2', 'r3', 'u4'), context: new Uint8Array(300).fill(7) }
  t.deepEqual(decodeConfChange(encodeConfChange(many)), many)
  t.deepEqual(decodeConfChange(NO_BYTES), LEAVE_JOINT)
  t.deepEqual(decodeConfChange(encodeConfChange(LEAVE_JOINT)), LEAVE_JOINT)
  for (const bad of [[0x08], [0x08, 9], [0x12, 5, 1], [0x77, 1], [0x08, 0x80], [0x12, 4, 0x08, 0, 0x10, 0xff]])
    t.throws(() => decodeConfChange(Uint8Array.from(bad)), { instanceOf: CoreAssertionError })
  t.throws(() => encodeConfChange(many, 'confChange'), { instanceOf: CoreAssertionError })
})

test('AddNode, AddLearner, RaftNodes: new members are in the configuration, in order, and are sent to', (t) => {
  const m = elect(new Member(1, { voters: [1] }))
  t.deepEqual(m.core.applyConfChange(change('v3')).voters, [1, 3])
  t.deepEqual(m.core.applyConfChange(change('v2')).voters, [1, 2, 3])
  const state = m.core.applyConfChange(change('l4'))
  t.deepEqual([state.voters, state.learners], [[1, 2, 3], [4]])
  t.true(m.progress(4).isLearner)
  t.deepEqual([...new Set(m.work().map((x) => x.to))].sort(), [2, 3, 4])
})

test('RemoveNode, RemoveLearner: removed members are gone, and the last voter cannot be removed', (t) => {
  const m = leader({ voters: [1, 2] })
  t.deepEqual(m.core.applyConfChange(change('r2')).voters, [1])
  t.throws(() => m.core.applyConfChange(change('r1')), {
    instanceOf: CoreAssertionError,
    message: /removed all voters/,
  })
  const l = elect(new Member(1, { conf: confState([1], { learners: [2] }) }))
  t.deepEqual(l.core.applyConfChange(change('r2')).learners, [])
  t.deepEqual([...l.status.progress.keys()], [1])
})

test('Promotable: only a voter of its own configuration campaigns', (t) => {
  for (const [conf, can] of [
    [confState([1]), true],
    [confState([1, 2, 3]), true],
    [confState([]), false],
    [confState([2, 3]), false],
    [confState([2], { learners: [1] }), false],
  ] as const) {
    const m = new Member(1, { conf })
    m.core.campaign()
    t.is(m.role !== 'follower', can)
  }
})

test('LearnerElectionTimeout, LearnerCampaign: a learner never campaigns, also not by order', (t) => {
  const net = new Network([1, 2].map((id) => new Member(id, { conf: confState([1], { learners: [2] }) })))
  net.at(2).ticks(50)
  net.at(2).core.campaign()
  t.is(net.at(2).role, 'follower')
  net.campaign(1)
  t.is(net.at(1).role, 'leader')
  net.run(msg('MsgTimeoutNow', 1, 2, { term: 1 }))
  t.is(net.at(2).role, 'follower')
})

test('LearnerPromotion: a promoted learner can be elected', (t) => {
  const net = new Network([1, 2].map((id) => new Member(id, { conf: confState([1], { learners: [2] }) })))
  net.campaign(1)
  net.at(1).core.proposeConfChange(change('v2'))
  net.run()
  t.deepEqual(net.at(2).status.config.voters, [1, 2])
  t.false(net.at(1).progress(2).isLearner)
  net.campaign(2)
  t.is(net.roles(), '1:follower@2 2:leader@2')
})

test('LearnerCanVote: a learner that is asked votes', (t) => {
  const m = new Member(2, { conf: confState([1], { learners: [2] }) })
  m.core.step(msg('MsgVote', 1, 2, { term: 2, logTerm: 11, index: 11 }))
  t.deepEqual(
    m.work().map((x) => [x.type, x.reject]),
    [['MsgVoteResp', false]],
  )
})

test('LearnerLogReplication: learners get the log and commit, and do not count', (t) => {
  const net = new Network([1, 2, 3].map((id) => new Member(id, { conf: confState([1, 2], { learners: [3] }) })))
  net.campaign(1)
  net.propose(1)
  t.is(net.at(3).commit, 2)
  net.isolate(2)
  net.propose(1)
  t.is(net.at(3).storage.lastIndex(), 3)
  t.is(net.at(1).commit, 2, 'the learner makes no majority')
  // Nor does its answer keep a leader in office.
  const m = leader({ checkQuorum: true, conf: confState([1, 2, 4], { learners: [3] }) })
  m.ticks(10)
  t.is(m.role, 'follower')
  const busy = leader({ checkQuorum: true, conf: confState([1, 2, 4], { learners: [3] }) })
  busy.core.step(msg('MsgHeartbeatResp', 3, 1, { term: 1 }))
  busy.ticks(10)
  t.is(busy.role, 'follower')
})

test('CommitAfterRemoveNode: entries that wait for a quorum commit when it shrinks', (t) => {
  const m = leader({ voters: [1, 2] })
  ack(m, 2)
  m.work()
  m.core.proposeConfChange(change('r2'))
  m.core.propose(bytes('hello'))
  const rd = m.take()
  m.write(rd.entries, rd.hardState, rd.snapshot)
  m.core.advance()
  ack(m, 2, 2)
  t.is(m.commit, 2)
  m.work()
  t.is(m.commit, 3)
  t.is(text(m.applied.at(-1)!.data), 'hello')
})

test('a leader that is removed or demoted steps down if that is on, and else stays but takes no proposals', (t) => {
  for (const stepDownOnRemoval of [false, true]) {
    for (const cc of [change('r1'), change('l1')]) {
      const m = leader({ stepDownOnRemoval })
      m.core.applyConfChange(cc)
      t.is(m.role, stepDownOnRemoval ? 'follower' : 'leader')
      if (cc.changes[0]!.type === 'removeNode') t.is(m.core.propose(bytes('x')), 'proposalDropped')
    }
  }
})

test('RawNodeProposeAndConfChange: simple, joint explicit and joint implicit changes end in their configurations', (t) => {
  const cases: [ConfChange, Partial<ConfState>, Partial<ConfState> | null][] = [
    // proposed, configuration once applied, the one after an automatic leave
    [change('v2'), { voters: [1, 2] }, null],
    [change('l2'), { voters: [1], learners: [2] }, null],
    [joint('jointExplicit', 'v2'), { voters: [1, 2], votersOutgoing: [1] }, null],
    [joint('jointExplicit', 'l1', 'v2'), { voters: [2], votersOutgoing: [1], learnersNext: [1] }, null],
    [
      joint('jointImplicit', 'l2'),
      { voters: [1], votersOutgoing: [1], learners: [2], autoLeave: true },
      { voters: [1], learners: [2] },
    ],
    [
      joint('auto', 'l2', 'l3'),
      { voters: [1], votersOutgoing: [1], learners: [2, 3], autoLeave: true },
      { voters: [1], learners: [2, 3] },
    ],
  ]
  for (const [cc, state, after] of cases) {
    const m = elect(new Member(1, { voters: [1] }))
    m.work()
    m.core.proposeConfChange(cc)
    m.workOnce()
    m.workOnce()
    t.deepEqual(m.status.config, confState([], state))
    m.work()
    t.deepEqual(m.status.config, confState([], after ?? state))
    if (after) t.is(last(m).data.length, 0)
  }
})

test('RawNodeJointAutoLeave: the joint configuration is left automatically, by a later leader too', (t) => {
  const net = Network.of(3)
  net.campaign(1)
  net.at(1).core.proposeConfChange(joint('jointImplicit', 'l3'))
  // It is applied while leadership is being handed over: no leave is proposed then, but with the next applied entry.
  net.at(1).core.transferLeader(2)
  net.run()
  const current = [...net.members.values()].find((m) => m.role === 'leader')!
  net.tick(current.id, 11)
  net.propose(current.id)
  for (const m of net.members.values()) t.deepEqual(m.status.config, confState([1, 2], { learners: [3] }))

  // The leader is lost right after the change is in the logs: its successor leaves.
  const lost = Network.of(3)
  lost.campaign(1)
  lost.ignored.add('MsgAppResp')
  lost.at(1).core.proposeConfChange(joint('jointImplicit', 'l3'))
  lost.run()
  lost.heal()
  lost.isolate(1)
  lost.campaign(2)
  t.deepEqual(
    lost.at(2).status.config,
    confState([1, 2], { votersOutgoing: [1, 2, 3], learnersNext: [3], autoLeave: true }),
  )
  lost.heal()
  lost.tick(2, 2)
  for (const m of lost.members.values()) t.deepEqual(m.status.config, confState([1, 2], { learners: [3] }))

  // A leader that has already a transfer under way proposes no leave until it is over.
  const m = leader({ conf: confState([1, 2], { votersOutgoing: [1], autoLeave: true }) })
  ack(m, 2, 0)
  m.core.transferLeader(2)
  ack(m, 2)
  m.work()
  t.true(m.status.config.autoLeave)
  t.true(m.lines.some((l) => l.startsWith('DEBUG not initiating automatic transition')))
})

test('RawNodeProposeAddDuplicateNode: adding a member twice changes nothing', (t) => {
  const m = elect(new Member(1, { voters: [1] }))
  m.work()
  for (const cc of [change('v1'), change('v1'), change('v2')]) {
    m.core.proposeConfChange(cc, 'confChange')
    m.work()
  }
  t.deepEqual(m.status.config.voters, [1, 2])
  t.deepEqual(
    m.log().map((e) => e.type),
    ['normal', 'confChange', 'confChange', 'confChange'],
  )
})

test('a joint configuration needs both majorities for elections and for commits', (t) => {
  const conf = confState([1, 4, 5], { votersOutgoing: [1, 2, 3] })
  const m = new Member(1, { conf })
  m.core.campaign()
  m.work()
  m.core.step(msg('MsgVoteResp', 4, 1, { term: 1 }))
  t.is(m.role, 'candidate')
  m.core.step(msg('MsgVoteResp', 2, 1, { term: 1 }))
  t.is(m.role, 'leader')
  m.work()
  ack(m, 2)
  ack(m, 3)
  t.is(m.commit, 0)
  ack(m, 5)
  t.is(m.commit, 1)
  const other = leader({ conf })
  ack(other, 4)
  ack(other, 5)
  t.is(other.commit, 0)
  ack(other, 3)
  t.is(other.commit, 1)
  // And refuses others until it is left.
  m.work()
  m.core.proposeConfChange(change('v9'))
  m.work()
  t.is(last(m).type, 'normal')
  m.core.proposeConfChange({ ...LEAVE_JOINT })
  m.work()
  t.is(last(m).type, 'confChangeV2')
})

test('TestConfChangeQuick: joint then leave is the same as the steps one by one, for 1000 random lists', (t) => {
  const rng = seededRng(42)
  const pick = (n: number): number => Math.floor(rng.random() * n)
  const context = { lastIndex: 10, newInflights: () => new Inflights(10, 0) }
  const good = (r: ReturnType<typeof leaveJoint>): Membership => {
    if (isRefusal(r)) throw new Error(r.error)
    return r
  }
  const shape = (m: Membership) => [
    m.config,
    [...m.progress].sort(([a], [b]) => a - b).map(([id, pr]) => [id, pr.isLearner, pr.match, pr.next]),
  ]
  let compared = 0
  for (let round = 0; round < 1000; round++) {
    const list = (n: number): string[] => Array.from({ length: n }, () => 'vlru'[pick(4)]! + (1 + pick(9)))
    const empty: Membership = { config: confState([]), progress: new Map() }
    let start = good(simpleChange(empty, context, change('v1').changes))
    for (const c of list(pick(6))) {
      const next = simpleChange(start, context, change(c).changes)
      if (!isRefusal(next)) start = next
    }
    const changes = change(...list(1 + pick(9))).changes
    const joined = enterJoint(start, context, changes, false)
    let steps: ReturnType<typeof leaveJoint> = start
    for (const c of changes) {
      steps = simpleChange(good(steps), context, [c])
      if (isRefusal(steps)) break
    }
    // One way may pass through an empty set of voters where the other doesn't.
    if (isRefusal(joined) || isRefusal(steps)) continue
    t.deepEqual(shape(good(leaveJoint(joined))), shape(steps))
    compared++
    // No two steps of one voter, and no change of the original.
    t.deepEqual(start.config.votersOutgoing, [])
  }
  t.true(compared > 500, `${compared} compared`)
})

test('old and new configurations of any accepted change have intersecting majorities', (t) => {
  const rng = seededRng(7)
  const pick = (n: number): number => Math.floor(rng.random() * n)
  const context = { lastIndex: 10, newInflights: () => new Inflights(10, 0) }
  const majorities = (voters: readonly number[]): Set<number>[] => {
    const out: Set<number>[] = []
    for (let bits = 0; bits < 1 << voters.length; bits++) {
      const set = new Set(voters.filter((_, i) => bits & (1 << i)))
      if (set.size * 2 > voters.length) out.push(set)
    }
    return out
  }
  for (let round = 0; round < 200; round++) {
    let at: Membership = { config: confState([]), progress: new Map() }
    at = simpleChange(at, context, change('v1').changes) as Membership
    for (let i = 0; i < 6; i++) {
      const next = simpleChange(
        at,
        context,
        change(...Array.from({ length: 1 + pick(3) }, () => 'vlr'[pick(3)]! + (1 + pick(6)))).changes,
      )
      if (isRefusal(next)) continue
      for (const a of majorities(at.config.voters))
        for (const b of majorities(next.config.voters)) t.true([...a].some((id) => b.has(id)))
      at = next
    }
  }
})
