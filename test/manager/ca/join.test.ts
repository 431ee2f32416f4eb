import { X509Certificate } from 'node:crypto'
import test from 'ava'
import {
  CA,
  Control,
  Dispatcher,
  Empty,
  ListRequest,
  NodeRole,
  ObjectKind,
  Raft,
  RaftJoinRequest,
  RemoveRequest,
  UpdateRequest,
} from '#proto'
import { callUnary, dialGrpc } from '../../../src/common/grpc/index.js'
import { newObjectId } from '../../../src/common/index.js'
import { createRoot } from '../../../src/manager/ca/index.js'
import { codeOf, EMPTY_SPEC, list, ManagerLab, until } from '../lab.js'

let lab: ManagerLab
test.before(async () => {
  lab = await ManagerLab.create(2)
})
test.after.always(() => lab?.close())

test.serial('a node joins with the worker token, through any manager, and is listed with its role', async (t) => {
  for (const at of lab.managers) {
    const token = (await lab.cluster()).rootCa!.workerToken
    const id = await lab.ca.join({ remote: at.address, token, availability: 2 })
    t.is(id.role, 'worker')
    t.is(id.clusterId, lab.clusterId)
    t.is(new X509Certificate(id.cert).subject, `O=${lab.clusterId}\nOU=swarm-worker\nCN=${id.nodeId}`)
    const [node] = await list(at, ObjectKind.KIND_NODE, { id: [id.nodeId] })
    t.is(node?.node?.role, NodeRole.WORKER)
    t.is(node?.node?.spec?.availability, 2)
  }
})

test.serial(
  'a token whose digest was changed is refused by the joiner, one with a wrong secret by the cluster',
  async (t) => {
    const remote = lab.managers[0]!.address
    const token = (await lab.cluster()).rootCa!.workerToken
    const swap = (at: number): string => token.slice(0, at) + (token[at] === '0' ? '1' : '0') + token.slice(at + 1)
    await t.throwsAsync(lab.ca.join({ remote, token: swap(40), availability: 0 }), {
      message: /^remote CA does not match fingerprint\. Expected: [0-9a-f]{64} Got: [0-9a-f]{64}$/,
    })
    await t.throwsAsync(lab.ca.join({ remote, token: swap(token.length - 1), availability: 0 }), {
      message: 'A valid join token is necessary to join this cluster',
    })
    await t.throwsAsync(lab.ca.join({ remote, token: 'SWMTKN-1-nonsense', availability: 0 }), {
      message: 'invalid join token',
    })
  },
)

test.serial('a rotated token admits nobody; nodes that are in stay', async (t) => {
  const remote = lab.managers[1]!.address
  const worker = await lab.worker()
  const before = await lab.cluster()
  await lab.managers[1]!.manager.control.update(
    UpdateRequest.create({
      kind: ObjectKind.KIND_CLUSTER,
      id: before.id,
      version: before.meta!.version,
      spec: { ...EMPTY_SPEC, cluster: before.spec },
      rotateWorkerToken: true,
    }),
  )
  const after = await lab.cluster()
  t.not(after.rootCa!.workerToken, before.rootCa!.workerToken)
  t.is(after.rootCa!.managerToken, before.rootCa!.managerToken)
  t.is(after.rootCa!.key.length, 0)
  await t.throwsAsync(lab.ca.join({ remote, token: before.rootCa!.workerToken, availability: 0 }), {
    message: 'A valid join token is necessary to join this cluster',
  })
  const renewed = await lab.ca.renew({ remotes: [remote], identity: worker.identity })
  t.is(renewed.nodeId, worker.nodeId)
  t.not(renewed.cert, worker.identity.cert)
})

test.serial(
  'rights go by role: a worker may not call control, raft or report; nobody may without a certificate',
  async (t) => {
    const address = lab.managers[0]!.address
    const worker = await lab.worker()
    const asWorker = dialGrpc({ address, identity: worker.identity })
    const asNobody = dialGrpc({ address, identity: null, ca: worker.identity.ca })
    const call = <Q, S>(client: typeof asWorker, m: import('#proto').Method<Q, S>, q: Q): Promise<string | null> =>
      codeOf(callUnary(client, m, q, { deadlineMs: 5000 }))
    try {
      t.is(await call(asWorker, Control.List, ListRequest.create({ kind: 2 })), 'notManager')
      t.is(await call(asNobody, Control.List, ListRequest.create({ kind: 2 })), 'noCertificate')
      t.is(await call(asWorker, CA.GetUnlockKey, Empty.create()), 'notManager')
      t.is(
        await call(asWorker, Raft.Join, RaftJoinRequest.create({ nodeId: worker.nodeId, address: 'x:1' })),
        'notManager',
      )
      t.is(await call(asNobody, CA.GetRootCertificate, Empty.create()), null)
      t.truthy(Dispatcher.Report)
    } finally {
      asWorker.close()
      asNobody.close()
    }
  },
)

test.serial('a certificate of a foreign root gets no answer at all', async (t) => {
  const root = await createRoot(Date.now())
  const foreign = await lab.ca.issueFirst(root, {
    clusterId: lab.clusterId,
    nodeId: newObjectId(),
    expiryMs: 3_600_000,
  })
  const trusting = { ...foreign, ca: lab.managers[0]!.identity.ca }
  const client = dialGrpc({ address: lab.managers[0]!.address, identity: trusting })
  try {
    await t.throwsAsync(callUnary(client, Control.List, ListRequest.create({ kind: 2 }), { deadlineMs: 2000 }))
  } finally {
    client.close()
  }
})

test.serial('a removed node cannot renew, nor open a session, nor come back with its old id', async (t) => {
  const worker = await lab.worker()
  const token = (await lab.cluster()).rootCa!.workerToken
  const control = lab.managers[0]!.manager.control
  await until('the worker is ready', async () => {
    const [n] = await list(lab.managers[0]!, ObjectKind.KIND_NODE, { id: [worker.nodeId] })
    return n?.node?.status?.state === 2
  })
  const remove = (force: boolean): Promise<void> =>
    control.remove(RemoveRequest.create({ kind: ObjectKind.KIND_NODE, id: worker.nodeId, force }))
  await t.throwsAsync(remove(false), { message: `node ${worker.nodeId} is not down and can't be removed` })
  await remove(true)
  await until('its session ends', () => worker.error)
  const remotes = lab.managers.map((m) => m.address)
  t.is(await codeOf(lab.ca.renew({ remotes, identity: worker.identity })), 'nodeRemoved')
  const again = lab.agent(worker.identity, lab.managers[0]!)
  const error = (await until('a new session is refused', () => again.error)) as Error & { code?: number }
  t.is(error.code, 7)
  const back = lab.ca.join({ remote: remotes[0]!, token, availability: 0, nodeId: worker.nodeId })
  t.is(await codeOf(back), 'nodeRemoved')
})

test.serial('a node that is off may be admitted again under its old id, with the token of its role', async (t) => {
  const at = lab.managers[0]!
  const { workerToken, managerToken } = (await lab.cluster()).rootCa!
  const first = await lab.ca.join({ remote: at.address, token: workerToken, availability: 0 })
  const again = { remote: at.address, availability: 0 as const, nodeId: first.nodeId }
  t.is(await codeOf(lab.ca.join({ ...again, token: managerToken })), 'wrongRole')
  const second = await lab.ca.join({ ...again, token: workerToken })
  t.is(second.nodeId, first.nodeId)
})
