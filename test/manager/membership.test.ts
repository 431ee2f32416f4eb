import { createPrivateKey } from 'node:crypto'
import test from 'ava'
import { GetRequest, type Node, ObjectKind, RemoveRequest, UpdateRequest } from '#proto'
import { formatUnlockKey, NO_LEADER, openNodeKey, parseUnlockKey, sealNodeKey } from '../../src/manager/index.js'
import {
  codeOf,
  createService,
  EMPTY_SPEC,
  freePort,
  type LabManager,
  list,
  ManagerLab,
  serviceSpec,
  until,
} from './lab.js'

async function node(m: LabManager, id: string): Promise<Node> {
  return (await m.manager.control.get(GetRequest.create({ kind: ObjectKind.KIND_NODE, reference: id }))).object!.node!
}

/** Tries again when another write came between reading and writing. */
async function setRole(m: LabManager, id: string, desiredRole: 0 | 1): Promise<void> {
  for (;;) {
    const n = await node(m, id)
    const request = UpdateRequest.create({
      kind: ObjectKind.KIND_NODE,
      id,
      version: n.meta!.version,
      spec: { ...EMPTY_SPEC, node: { ...n.spec!, desiredRole } },
    })
    try {
      await m.manager.control.update(request)
      return
    } catch (e) {
      if ((e as { code?: string }).code !== 'outOfSequence') throw e
    }
  }
}

test.serial(
  'a worker is promoted, becomes a member, and is demoted again; a leader that is demoted hands over first',
  async (t) => {
    t.timeout(90_000)
    const lab = await ManagerLab.create(2)
    try {
      const [first, second] = lab.managers as [LabManager, LabManager]
      const worker = await lab.worker(second)
      await until('its session is open', () => worker.session)
      const epoch = worker.session!.certificateEpoch
      await setRole(second, worker.nodeId, 1)
      await until('it is told to renew', () => worker.session!.certificateEpoch > epoch)
      const identity = await lab.ca.renew({ remotes: [second.address], identity: worker.identity })
      t.is(identity.role, 'manager')
      worker.close()
      const third = await lab.start(identity, second.address)
      await until('three members are shown', async () => {
        const nodes = await list(third, ObjectKind.KIND_NODE)
        return nodes.filter((o) => o.node!.managerStatus?.reachability === 2).length === 3
      })

      const leader = lab.leader()!
      const other = lab.managers.find((m) => m !== leader)!
      let removed = false
      leader.manager.onRemoved(() => {
        removed = true
      })
      await setRole(other, leader.identity.nodeId, 0)
      await until('the leader was removed', () => removed)
      await until('its role follows', async () => (await node(other, leader.identity.nodeId)).role === 0)
      t.is((await node(other, leader.identity.nodeId)).managerStatus, null)
      t.is(other.manager.status().members.length, 2)
      // Its old certificate is still a manager's: that alone does not make it a member again.
      const back = await codeOf(lab.start(leader.identity, other.address))
      t.is(back, 'notManager')
      t.truthy(first)
    } finally {
      await lab.close()
    }
  },
)

test.serial('one that is demoted before it is a full member gives up at once, and may be promoted again', async (t) => {
  t.timeout(90_000)
  const lab = await ManagerLab.create(1)
  try {
    const first = lab.managers[0]!
    const worker = await lab.worker(first)
    const promoted = async () => {
      await setRole(first, worker.nodeId, 1)
      await until('its role follows', async () => (await node(first, worker.nodeId)).role === 1)
      return lab.ca.renew({ remotes: [first.address], identity: worker.identity })
    }
    const isMember = () => first.manager.status().members.some((m) => m.nodeId === worker.nodeId)
    const identity = await promoted()
    worker.close()
    const starting = codeOf(lab.start(identity, first.address))
    await until('it is a learner', isMember)
    await setRole(first, worker.nodeId, 0)
    // Left to itself it would wait for a leader for a minute, and then say notSettled.
    t.is(await starting, 'removed')
    await until('its role follows', async () => (await node(first, worker.nodeId)).role === 0)

    const again = await lab.start(await promoted(), first.address)
    t.is((await list(again, ObjectKind.KIND_NODE)).length, 2)
  } finally {
    await lab.close()
  }
})

test.serial('the last manager is not demoted, nor one that the quorum needs; a manager is not removed', async (t) => {
  t.timeout(90_000)
  const lab = await ManagerLab.create(1)
  try {
    const only = lab.managers[0]!
    await t.throwsAsync(setRole(only, only.identity.nodeId, 0), {
      message: 'attempting to demote the last manager of the swarm',
    })
    await t.throwsAsync(
      only.manager.control.remove(
        RemoveRequest.create({ kind: ObjectKind.KIND_NODE, id: only.identity.nodeId, force: true }),
      ),
      {
        message: `node ${only.identity.nodeId} is a cluster manager and is a member of the raft cluster. It must be demoted to worker before removal`,
      },
    )
    t.is(
      only.manager.self()?.managerStatus?.leader ??
        (await until('leader is shown', () => only.manager.self()?.managerStatus?.leader)),
      true,
    )
  } finally {
    await lab.close()
  }
})

test.serial('without a majority the API says so; force-new-cluster goes on with what the survivor has', async (t) => {
  t.timeout(90_000)
  const lab = await ManagerLab.create(3)
  try {
    const [a, b, c] = lab.managers as [LabManager, LabManager, LabManager]
    const service = await createService(b, serviceSpec('web', 1))
    await until('the survivor has it', () =>
      lab.managers.every((m) => m.manager.status().applied >= service.meta!.version!.index),
    )
    const token = (await lab.cluster()).rootCa!.workerToken
    await b.manager.stop()
    await c.manager.stop()
    const error = await t.throwsAsync(list(a, ObjectKind.KIND_SERVICE))
    t.is(error?.message, NO_LEADER)
    await a.manager.stop()
    await lab.restart(a, { force: true })
    const services = await until('the service is there', () => list(a, ObjectKind.KIND_SERVICE))
    t.deepEqual(
      services.map((o) => o.service!.spec!.annotations!.name),
      ['web'],
    )
    t.is((await lab.cluster(a)).rootCa!.workerToken, token)
    await until(
      'the others are no managers any more',
      async () => (await list(a, ObjectKind.KIND_NODE)).filter((o) => o.node!.managerStatus).length === 1,
    )
    t.is(a.manager.status().members.length, 1)
    await createService(a, serviceSpec('more', 1))
  } finally {
    await lab.close()
  }
})

test.serial('autolock: a restarted manager needs the unlock key, and starts with it', async (t) => {
  t.timeout(90_000)
  const lab = await ManagerLab.create(1)
  try {
    const m = lab.managers[0]!
    await createService(m, serviceSpec('web', 1))
    const cluster = await lab.cluster()
    await m.manager.control.update(
      UpdateRequest.create({
        kind: ObjectKind.KIND_CLUSTER,
        id: cluster.id,
        version: cluster.meta!.version,
        spec: { ...EMPTY_SPEC, cluster: { ...cluster.spec!, autoLockManagers: true } },
      }),
    )
    const key = await m.manager.unlockKey()
    t.regex(formatUnlockKey(key), /^SWMKEY-1-[A-Za-z0-9+/]{43}$/)
    t.deepEqual(parseUnlockKey(formatUnlockKey(key)), key)
    await until('the key on disk is wrapped', () => lab.isLocked(m))
    await m.manager.stop()
    t.not(await codeOf(lab.restart(m)), null)
    await lab.restart(m, { unlockKey: key })
    t.is((await list(m, ObjectKind.KIND_SERVICE)).length, 1)
    const second = await lab.join()
    await until('the key of the manager that joined is wrapped', () => lab.isLocked(second))
    t.pass()
  } finally {
    await lab.close()
  }
})

test.serial('the only manager certifies itself anew; one of several leaves that to the others', async (t) => {
  t.timeout(90_000)
  const lab = await ManagerLab.create(1)
  try {
    const m = lab.managers[0]!
    const own = await m.manager.renewAlone()
    t.like(own, { nodeId: m.identity.nodeId, clusterId: m.identity.clusterId, role: 'manager' })
    t.notDeepEqual(own.key, m.identity.key)
    m.manager.setIdentity(own)
    const next = await lab.ca.renew({ remotes: [m.address], identity: own })
    t.is(next.nodeId, own.nodeId, 'it is accepted as any other')
    await lab.join()
    t.is(await codeOf(m.manager.renewAlone()), 'notAlone')
  } finally {
    await lab.close()
  }
})

test.serial("while managers are locked a node's key is sealed, and opens with the unlock key alone", async (t) => {
  t.timeout(90_000)
  const lab = await ManagerLab.create(1)
  try {
    const m = lab.managers[0]!
    const { nodeId } = m.identity
    const autolock = async (autoLockManagers: boolean, rotateUnlockKey = false): Promise<Uint8Array> => {
      const { id, meta, spec } = await lab.cluster()
      const cluster = { ...spec!, autoLockManagers }
      const about = { kind: ObjectKind.KIND_CLUSTER, id, version: meta!.version, rotateUnlockKey }
      await m.manager.control.update(UpdateRequest.create({ ...about, spec: { ...EMPTY_SPEC, cluster } }))
      return m.manager.unlockKey()
    }
    await until('it is known to be in clear', () => lab.seals.get(nodeId) === null)
    const first = await autolock(true)
    const secret = await until('it is sealed', () => lab.seals.get(nodeId))
    const sealed = sealNodeKey(m.identity.key, secret)
    t.regex(sealed, /^-----BEGIN ENCRYPTED PRIVATE KEY-----/)

    const key = await autolock(true, true)
    await until('the new unlock key wraps the data key', () => m.manager.unlockKeys().length === 1)
    t.deepEqual(lab.seals.get(nodeId), secret, 'another unlock key changes no seal')
    const opened = (unlockKey: Uint8Array | null) => openNodeKey(sealed, `${m.dir}/raft`, unlockKey)
    t.is(await codeOf(opened(null)), 'wrongUnlockKey')
    t.is(await codeOf(opened(first)), 'wrongUnlockKey')
    t.true(createPrivateKey((await opened(key)).key).equals(createPrivateKey(m.identity.key)))

    await autolock(false)
    await until('it is in clear', () => lab.seals.get(nodeId) === null)
    t.deepEqual((await opened(null)).secret, secret, 'a crash before that was written leaves it readable')
    await autolock(true)
    t.notDeepEqual(await until('it is sealed again', () => lab.seals.get(nodeId)), secret)
    await m.manager.stop()
    await lab.restart(m, { unlockKey: m.manager.unlockKeys()[0]! })
    t.pass()
  } finally {
    await lab.close()
  }
})

test.serial('a manager that comes back with another address is found there, leader or not', async (t) => {
  t.timeout(90_000)
  const lab = await ManagerLab.create(3)
  try {
    // All have read of themselves: it is in the log before this.
    const early = await createService(lab.followers()[0]!, serviceSpec('early', 1))
    const index = early.meta!.version!.index + 3
    await until('all have applied it', () => lab.managers.every((m) => m.manager.status().applied >= index))
    for (const m of [lab.followers()[0]!, lab.leader()!]) {
      const other = lab.managers.find((x) => x !== m)!
      await m.manager.stop()
      await lab.restart(m, { address: `127.0.0.1:${await freePort()}` })
      await until('the other one knows the new address', async () => {
        const n = await node(other, m.identity.nodeId).catch(() => null)
        return n?.managerStatus?.address === m.address && n.managerStatus.reachability === 2
      })
    }
    await createService(lab.managers[1]!, serviceSpec('web', 1))
    t.is((await list(lab.managers[0]!, ObjectKind.KIND_SERVICE)).length, 2)
  } finally {
    await lab.close()
  }
})
