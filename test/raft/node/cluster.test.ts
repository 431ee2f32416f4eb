import { readdirSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { Raft } from '#proto'
import { callUnary, dialGrpc } from '../../../src/common/grpc/index.js'
import type { ShoalError } from '../../../src/common/index.js'
import { forgetRaftState, type LeadershipEvent } from '../../../src/raft/index.js'
import { has, Lab, leading, type TestManager, until, voters, write, writeAll } from './lab.js'
import { put } from './register.js'

async function inLab(t: ExecutionContext, run: (lab: Lab) => Promise<void>): Promise<void> {
  t.timeout(90_000)
  const lab = await Lab.create()
  try {
    await run(lab)
  } finally {
    await lab.close()
  }
}

const names = (prefix: string, count: number): string[] => Array.from({ length: count }, (_, i) => `${prefix}${i}`)

/** Keeps writing to whoever leads; knows what was acknowledged and what may have happened. */
class Writer {
  readonly applied: string[] = []
  readonly unknown: string[] = []
  #running = true
  #done: Promise<unknown>
  #n = 0

  constructor(
    private readonly managers: readonly TestManager[],
    lanes = 8,
  ) {
    this.#done = Promise.all(Array.from({ length: lanes }, () => this.#lane()))
  }

  async #lane(): Promise<void> {
    while (this.#running) {
      const leader = this.managers.find((m) => m.node.status().leading)
      if (leader === undefined) {
        await new Promise((r) => setTimeout(r, 5))
        continue
      }
      const name = `w${this.#n++}`
      const outcome = await leader.node.propose([put(name)], { deadlineMs: 3000 })
      if (outcome.result === 'applied') this.applied.push(name)
      else if (outcome.result === 'unknown') this.unknown.push(name)
    }
  }

  async stop(): Promise<void> {
    this.#running = false
    await this.#done
  }
}

test.serial('three managers elect a leader, replicate, and hold the same log', (t) =>
  inLab(t, async (lab) => {
    const all = await lab.cluster(3)
    const leader = await lab.leader()
    const wanted = names('n', 300)
    const outcomes = await Promise.all(wanted.map((n) => write(leader, n)))
    t.true(outcomes.every((o) => o.result === 'applied'))
    await until('all have applied them', () => all.every((m) => has(m, wanted)))
    for (const m of all) t.deepEqual(m.machine.names, leader.machine.names)
    t.deepEqual(leader.machine.names, wanted, 'in the order of the calls')
    const follower = all.find((m) => m !== leader)!
    t.deepEqual(await follower.node.propose([put('no')]), { result: 'refused', reason: 'notLeader' })
    t.is(follower.node.leaderAddress(), leader.address)
    t.deepEqual(await leader.node.propose([put('big', 1_600_000)]), { result: 'refused', reason: 'tooLarge' })
  }),
)

test.serial('a read barrier on any manager sees every write acknowledged before it', (t) =>
  inLab(t, async (lab) => {
    const all = await lab.cluster(3)
    const leader = await lab.leader()
    for (let i = 0; i < 20; i++) {
      await write(leader, `r${i}`)
      const reader = all[i % 3]!
      await Promise.all([reader.node.readBarrier(), reader.node.readBarrier()])
      t.true(has(reader, [`r${i}`]), `r${i} on ${reader.nodeId}`)
    }
    const aborted = leader.node.readBarrier(AbortSignal.abort(new Error('enough')))
    await t.throwsAsync(aborted)
  }),
)

test.serial('when the leader is cut off another takes over, and no acknowledged proposal is lost', (t) =>
  inLab(t, async (lab) => {
    const all = await lab.cluster(3)
    const old = await lab.leader()
    const events: LeadershipEvent[] = []
    old.node.onLeadership((e) => events.push(e))
    const rest = all.filter((m) => m !== old)
    const writer = new Writer(all)
    await until('some writes are done', () => writer.applied.length > 50)
    old.cut = true
    const next = await lab.leader(rest)
    t.not(next, old)
    const before = writer.applied.length
    await until('writes go on', () => writer.applied.length > before + 50)
    await until('the old leader gave up', () => !old.node.status().leading)
    old.cut = false
    await writer.stop()
    await until('all agree', () =>
      all.every((m) => m.node.status().applied === next.node.status().applied && has(m, writer.applied)),
    )
    for (const m of all) t.deepEqual(m.machine.names, next.machine.names)
    t.deepEqual(
      events.slice(0, 2).map((e) => e.leading),
      [true, false],
    )
    for (const name of next.machine.names) t.true(writer.applied.includes(name) || writer.unknown.includes(name))
  }),
)

test.serial('a cluster that is stopped and started again continues from disk', (t) =>
  inLab(t, async (lab) => {
    const all = await lab.cluster(3, { snapshotInterval: 40, entriesForSlowFollowers: 5 })
    const wanted = names('a', 130)
    const leader = await lab.leader()
    for (const n of wanted) t.is((await write(leader, n)).result, 'applied')
    const ids = all.map((m) => m.node.raftId)
    await Promise.all(all.map((m) => m.stop()))
    await Promise.all(all.map((m) => m.start(null)))
    t.deepEqual(
      all.map((m) => m.node.raftId),
      ids,
    )
    const next = await lab.leader()
    t.is((await write(next, 'after')).result, 'applied')
    await until('all have everything', () => all.every((m) => has(m, [...wanted, 'after'])))
    for (const m of all) t.true(m.machine.restored > 0, 'the state came from a snapshot')
  }),
)

test.serial('leadership is handed over on request and at a stop, without waiting for an election', (t) =>
  inLab(t, async (lab) => {
    const all = await lab.cluster(3, { tickMs: 200 })
    const first = await lab.leader()
    const target = all.find((m) => m !== first)!
    // Far below the election timeout of 2 to 4 s: the new leader did not wait for one.
    const begun = performance.now()
    await first.node.transferLeadership(target.node.raftId)
    await leading(target)
    await target.stop()
    const next = await lab.leader(all.filter((m) => m !== target))
    t.is((await write(next, 'x')).result, 'applied')
    t.true(performance.now() - begun < 10_000)
    await t.throwsAsync(target.node.transferLeadership(), { code: 'notLeader' })
  }),
)

test.serial('a follower behind the compacted log catches up by a snapshot, and a new manager starts with one', (t) =>
  inLab(t, async (lab) => {
    const settings = { snapshotInterval: 50, entriesForSlowFollowers: 5 }
    const all = await lab.cluster(3, settings)
    const leader = await lab.leader()
    const slow = all.find((m) => m !== leader)!
    slow.cut = true
    const wanted = names('s', 200)
    // Large values, so that the snapshot is several chunks.
    for (let i = 0; i < wanted.length; i += 10)
      t.is(
        (
          await writeAll(
            leader,
            wanted.slice(i, i + 10).map((n) => put(n, 1000)),
          )
        ).result,
        'applied',
      )
    for (const n of names('more', 120)) t.is((await write(leader, n)).result, 'applied')
    slow.cut = false
    await until('the slow one is up to date', () => has(slow, [...wanted, ...names('more', 120)]))
    t.true(slow.machine.restored > 0)
    t.deepEqual(slow.machine.names, leader.machine.names)
    const fresh = await lab.manager()
    await fresh.joinAt(leader.address, settings)
    await until('the new one is a voter', () => voters(leader).includes(fresh.nodeId))
    t.true(fresh.machine.restored > 0)
    t.deepEqual(fresh.machine.names, leader.machine.names)
    await fresh.stop()
    await fresh.start(null, settings)
    t.is((await write(await lab.leader(), 'end')).result, 'applied')
    await until('it follows after a restart from the received snapshot', () => has(fresh, ['end']))
  }),
)

test.serial('a removed manager learns of it, others refuse it, and it comes back only under a new id', (t) =>
  inLab(t, async (lab) => {
    const all = await lab.cluster(3)
    const leader = await lab.leader()
    const gone = all.find((m) => m !== leader)!
    const oldId = gone.node.raftId
    let told = 0
    gone.node.onRemoved(() => told++)
    await leader.node.removeMember(oldId)
    await leader.node.removeMember(oldId)
    await until('it is told', () => told === 1)
    t.deepEqual(leader.node.membership().removed, [oldId])
    await gone.stop()
    // A member that was away when it was removed hears it from whom it dials.
    await gone.start(null)
    gone.node.onRemoved(() => told++)
    await until('it is told again', () => told === 2)
    await gone.stop()
    await forgetRaftState(gone.dir)
    await gone.joinAt(leader.address)
    t.not(gone.node.raftId, oldId)
    await until('it is a voter again', () => voters(leader).length === 3)
    t.is((await write(leader, 'again')).result, 'applied')
    await until('it follows', () => has(gone, ['again']))
  }),
)

test.serial('removals that would cost the quorum are refused; the leader hands over before its own', (t) =>
  inLab(t, async (lab) => {
    const all = await lab.cluster(3)
    const leader = await lab.leader()
    const [a, b] = all.filter((m) => m !== leader)
    await until(
      'both are reachable',
      () => leader.node.canRemove(a!.node.raftId) && leader.node.canRemove(b!.node.raftId),
    )
    await t.throwsAsync(a!.node.removeMember(b!.node.raftId), { code: 'notLeader' })
    await t.throwsAsync(leader.node.removeMember(5), { code: 'notMember' })
    await t.throwsAsync(leader.node.removeMember(leader.node.raftId), { code: 'leadershipMoved' })
    const next = await lab.leader([a!, b!])
    const third = next === a ? b! : a!
    third.cut = true
    await third.stop()
    await until(
      'one is unreachable',
      () => !next.node.status().members.find((m) => m.raftId === third.node.raftId)!.reachable,
    )
    t.false(next.node.canRemove(leader.node.raftId))
    const refused = await t.throwsAsync(next.node.removeMember(leader.node.raftId), { code: 'quorumLoss' })
    t.is(refused!.message, "can't remove member from the raft: this would result in a loss of quorum")
    await next.node.removeMember(third.node.raftId)
    await next.node.removeMember(leader.node.raftId)
    t.deepEqual(voters(next), [next.nodeId])
    const last = await t.throwsAsync(next.node.removeMember(next.node.raftId), { code: 'lastManager' })
    t.is(last!.message, 'attempting to demote the last manager of the swarm')
    t.is((await write(next, 'alone')).result, 'applied')
  }),
)

test.serial('a manager that joins again keeps its raft id, and its new address reaches all', (t) =>
  inLab(t, async (lab) => {
    const all = await lab.cluster(3)
    const leader = await lab.leader()
    const moved = all.find((m) => m !== leader)!
    const again = await leader.node.addMember(moved.nodeId, moved.address)
    t.is(again.raftId, moved.node.raftId)
    await leader.node.addMember(moved.nodeId, '127.0.0.1:1')
    // It can't be told itself: nobody reaches it there.
    await until('the others know the address', () =>
      all
        .filter((m) => m !== moved)
        .every((m) => m.node.membership().members.find((x) => x.nodeId === moved.nodeId)!.address === '127.0.0.1:1'),
    )
    const client = dialGrpc({ address: leader.address, identity: moved.identity })
    const answer = await callUnary(
      client,
      Raft.Join,
      { nodeId: moved.nodeId, address: moved.address.replace('127.0.0.1', '0.0.0.0'), incarnation: '' },
      { deadlineMs: 5000 },
    )
    client.close()
    t.is(answer.raftId, moved.node.raftId)
    t.is(answer.membership!.members.find((x) => x.nodeId === moved.nodeId)!.address, moved.address)
    t.is((await write(leader, 'x')).result, 'applied')
    await until('it is reached there', () => has(moved, ['x']))
  }),
)

test.serial('a manager whose disk was wiped comes back under a new raft id; asking twice gives the same one', (t) =>
  inLab(t, async (lab) => {
    const all = await lab.cluster(3)
    const leader = await lab.leader()
    const wiped = all.find((m) => m !== leader)!
    const old = wiped.node.raftId
    await wiped.stop()
    await forgetRaftState(wiped.dir)
    const first = await wiped.askToJoin(leader.address, 'disk two')
    t.not(first.raftId, old, 'the old id has acknowledged entries and votes that this disk does not have')
    t.true(first.membership!.removed.includes(old))
    const second = await wiped.askToJoin(leader.address, 'disk two')
    t.is(second.raftId, first.raftId)
    const { raftId, membership } = second
    await wiped.start({ kind: 'join', raftId, members: membership!.members, removed: membership!.removed })
    await until('it is a voter', () => voters(leader).includes(wiped.nodeId))
    t.is(voters(leader).length, 3)
    t.is((await write(leader, 'x')).result, 'applied')
    await until('it has what was written', () => has(wiped, ['x']))
  }),
)

test.serial('a wiped disk that costs the quorum is not taken in', (t) =>
  inLab(t, async (lab) => {
    const all = await lab.cluster(3)
    const leader = await lab.leader()
    const [wiped, other] = all.filter((m) => m !== leader) as [TestManager, TestManager]
    await wiped.stop()
    await forgetRaftState(wiped.dir)
    await other.stop()
    await until(
      'the other is found unreachable, or the leader gave up',
      () => !leader.node.canRemove(wiped.node.raftId),
    )
    const refused = await t.throwsAsync(leader.node.addMember(wiped.nodeId, wiped.address, 'disk two'))
    t.true(
      ['quorumLoss', 'notLeader', 'leadershipLost', 'changeDeadline'].includes((refused as ShoalError).code),
      String(refused),
    )
    t.is(voters(leader).length, 3)
  }),
)

test.serial('two managers of which one has another address after a restart find each other', (t) =>
  inLab(t, async (lab) => {
    const [stays, moves] = (await lab.cluster(2)) as [TestManager, TestManager]
    const old = moves.address
    await Promise.all([stays.stop(), moves.stop()])
    await moves.move()
    t.not(moves.address, old)
    await Promise.all([stays.start(null), moves.start(null)])
    const leader = await lab.leader()
    t.is((await write(leader, 'x')).result, 'applied')
    await until('both have it', () => has(stays, ['x']) && has(moves, ['x']))
    await (await lab.leader()).node.addMember(moves.nodeId, moves.address)
    await until('the log has the new address', () =>
      [stays, moves].every(
        (m) => m.node.membership().members.find((x) => x.nodeId === moves.nodeId)!.address === moves.address,
      ),
    )
    t.is((await write(leader, 'y')).result, 'applied')
    await until('both have it', () => has(stays, ['y']) && has(moves, ['y']))
  }),
)

test.serial('one survivor of three makes a new cluster; the others are refused for ever', (t) =>
  inLab(t, async (lab) => {
    const all = await lab.cluster(3)
    const leader = await lab.leader()
    for (const n of names('f', 20)) await write(leader, n)
    await until('all have them', () => all.every((m) => has(m, names('f', 20))))
    const [survivor, ...others] = all as [TestManager, TestManager, TestManager]
    await Promise.all(all.map((m) => m.stop()))
    await survivor.start({ kind: 'forceNewCluster' })
    await leading(survivor)
    t.true(has(survivor, names('f', 20)))
    t.deepEqual(voters(survivor), [survivor.nodeId])
    t.is((await write(survivor, 'new')).result, 'applied')
    await survivor.stop()
    await survivor.start({ kind: 'forceNewCluster' })
    await leading(survivor)
    t.true(has(survivor, ['new']), 'running it twice is harmless')
    let told = false
    await others[0].start(null)
    others[0].node.onRemoved(() => {
      told = true
    })
    await until('an old member is told', () => told)
    await others[0].stop()
    await forgetRaftState(others[0].dir)
    await others[0].joinAt(survivor.address)
    await until('it is a voter of the new cluster', () => voters(survivor).length === 2)
  }),
)

test.serial('autolock is turned on under load and no plaintext stays on disk', (t) =>
  inLab(t, async (lab) => {
    const all = await lab.cluster(3, { snapshotInterval: 30, entriesForSlowFollowers: 5 })
    const leader = await lab.leader()
    const secret = 'thewellknownsecret'
    await write(leader, secret)
    const writer = new Writer(all, 4)
    await until('some writes are done', () => writer.applied.length > 100)
    const kek = Buffer.alloc(32, 9)
    await Promise.all(all.map((m) => m.node.rotateKek(kek)))
    await until('more are done', () => writer.applied.length > 200)
    await writer.stop()
    const target = all[1]!
    await until('it has all', () => has(target, writer.applied))
    await target.stop()
    const files = (dir: string): string[] =>
      readdirSync(dir).flatMap((n) => (statSync(join(dir, n)).isDirectory() ? files(join(dir, n)) : [join(dir, n)]))
    for (const f of files(target.dir)) t.false(readFileSync(f).includes(secret), f)
    await t.throwsAsync(target.start(null), { code: 'wrongUnlockKey' })
    await target.start(null, { kek })
    await until('it is back with everything', () => has(target, [secret, ...writer.applied]))
  }),
)

test.serial('every promise ends when a member without a quorum stops', (t) =>
  inLab(t, async (lab) => {
    const all = await lab.cluster(3)
    const leader = await lab.leader()
    for (const m of all) if (m !== leader) m.cut = true
    const late = leader.node.propose([put('late')], { deadlineMs: 50 })
    const open = names('o', 10).map((n) => leader.node.propose([put(n)]))
    const reads = [leader.node.readBarrier(), leader.node.readBarrier()]
    for (const r of reads) r.catch(() => {})
    t.deepEqual(await late, { result: 'unknown', reason: 'deadline' })
    await leader.stop()
    for (const o of await Promise.all(open)) t.not(o.result, 'applied')
    for (const r of reads) await t.throwsAsync(r)
    t.deepEqual(await write(leader, 'x'), { result: 'refused', reason: 'stopped' })
    await t.throwsAsync(leader.node.readBarrier(), { code: 'raftStopped' })
  }),
)
