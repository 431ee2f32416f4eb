import test from 'ava'
import {
  Annotations,
  AttachNetworkRequest,
  CAConfig,
  IPAMConfig,
  IPAMOptions,
  NetworkAttachment,
  NetworkSpec,
  NodeRole,
  NodeSpec,
  NodeState,
  NodeStatus,
  ObjectKind,
  ReplicatedJobMode,
  ServiceMode,
  ServiceStatusRequest,
  Task,
  TaskSpec,
  TaskState,
  TaskStatus,
  Version,
  WatchRequest,
} from '#proto'
import type { ShoalError } from '../../../src/common/index.js'
import { ControlLab, named, spec } from './lab.js'

const { KIND_CLUSTER, KIND_NETWORK, KIND_NODE, KIND_SERVICE, KIND_TASK } = ObjectKind

test('lookup takes the full id, then the name, then a unique prefix; several hits are ambiguous', async (t) => {
  const lab = await ControlLab.create()
  const put = (id: string, name: string) =>
    lab.store.update((tx) => {
      const { meta: _, ...rest } = { meta: null, ...spec({ annotations: named(name) }) }
      tx.create('service', {
        id,
        meta: null,
        spec: { ...rest },
        previousSpec: null,
        specVersion: Version.create(),
        previousSpecVersion: null,
        endpoint: null,
        updateStatus: null,
        jobStatus: null,
        pendingDelete: false,
      })
    })
  await put('abc111', 'one')
  await put('abc222', 'two')
  await put('xyz', 'abc1')
  const id = async (r: string): Promise<string> => (await lab.get(KIND_SERVICE, r)).service!.id
  t.is(await id('abc222'), 'abc222')
  t.is(await id('ONE'), 'abc111')
  t.is(await id('abc1'), 'xyz')
  t.is(await id('abc2'), 'abc222')
  await t.throwsAsync(id('abc'), { message: 'service abc is ambiguous (2 matches found)' })
  await t.throwsAsync(id('nope'), { message: 'service nope not found' })
  await t.throwsAsync(id(''), { message: /not found/ })
})

test('nodes are found by host name unless two have it', async (t) => {
  const lab = await ControlLab.create()
  const a = await lab.node({}, { hostname: 'alpha' })
  t.is((await lab.get(KIND_NODE, 'ALPHA')).node?.id, a.id)
  await lab.node({}, { hostname: 'alpha' })
  await t.throwsAsync(lab.get(KIND_NODE, 'alpha'), { message: 'node alpha is ambiguous (2 matches found)' })
})

test('node filters: id, name, role, engine and node labels, membership; an unknown one is refused', async (t) => {
  const lab = await ControlLab.create()
  const a = await lab.node({ role: NodeRole.MANAGER }, { hostname: 'alpha', engineLabels: { disk: 'ssd' } })
  const b = await lab.node(
    { spec: NodeSpec.create({ annotations: Annotations.create({ labels: { zone: 'a', rack: '' } }) }) },
    { hostname: 'beta' },
  )
  const ids = async (filters: Record<string, string[]>): Promise<string[]> =>
    (await lab.list(KIND_NODE, filters)).map((o) => o.node!.id)
  t.deepEqual(await ids({ role: ['manager'] }), [a.id])
  t.deepEqual(await ids({ role: ['manager', 'worker'] }), [a.id, b.id])
  t.deepEqual(await ids({ name: ['bet'] }), [b.id])
  t.deepEqual(await ids({ label: ['disk=ssd'] }), [a.id])
  t.deepEqual(await ids({ 'node.label': ['zone=a', 'rack'] }), [b.id])
  t.deepEqual(await ids({ 'node.label': ['zone=b'] }), [])
  t.deepEqual(await ids({ membership: ['accepted'] }), [a.id, b.id])
  t.deepEqual(await ids({ membership: ['pending'] }), [])
  t.deepEqual(await ids({ id: [a.id.slice(0, 6)] }), [a.id])
  await t.throwsAsync(ids({ colour: ['red'] }), { message: "Invalid filter 'colour'" })
  await t.throwsAsync(ids({ role: ['boss'] }), { message: "Invalid filter 'role=boss'" })
})

test('task filters: service, node, desired state, name, up to date, runtime; service filters: mode', async (t) => {
  const lab = await ControlLab.create()
  const web = await lab.service(spec())
  const job = await lab.service(
    spec({ annotations: named('job'), mode: ServiceMode.create({ replicatedJob: ReplicatedJobMode.create() }) }),
  )
  const node = await lab.node({}, { hostname: 'alpha' })
  const task = (id: string, fields: Partial<Task>): Promise<void> =>
    lab.task(Task.create({ id, serviceAnnotations: named('web'), spec: TaskSpec.create(), ...fields }))
  const v = web.specVersion
  await task('t1', {
    serviceId: web.id,
    slot: 1,
    nodeId: node.id,
    specVersion: v,
    desiredState: TaskState.TASK_RUNNING,
  })
  await task('t2', {
    serviceId: web.id,
    slot: 2,
    specVersion: Version.create({ index: 99 }),
    desiredState: TaskState.TASK_SHUTDOWN,
  })
  // Made before the service was scaled: an older spec version with the same content.
  await task('t4', {
    serviceId: web.id,
    slot: 3,
    specVersion: Version.create({ index: 98 }),
    spec: web.spec!.task,
    desiredState: TaskState.TASK_REMOVE,
  })
  await task('t3', { serviceId: job.id, slot: 1, specVersion: job.specVersion, serviceAnnotations: named('job') })
  const ids = async (filters: Record<string, string[]>): Promise<string[]> =>
    (await lab.list(KIND_TASK, filters)).map((o) => o.task!.id)
  t.deepEqual(await ids({ service: ['web'] }), ['t1', 't2', 't4'])
  t.deepEqual(await ids({ service: [web.id, 'job'] }), ['t1', 't2', 't4', 't3'])
  t.deepEqual(await ids({ service: ['nope'] }), [])
  t.deepEqual(await ids({ node: ['alpha'] }), ['t1'])
  t.deepEqual(await ids({ 'desired-state': ['running'] }), ['t1'])
  t.deepEqual(await ids({ 'desired-state': ['shutdown', 'running'] }), ['t1', 't2'])
  t.deepEqual(await ids({ '_up-to-date': ['true'], service: ['web'] }), ['t1', 't4'])
  t.deepEqual(await ids({ '_up-to-date': ['false'] }), ['t2'])
  t.deepEqual(await ids({ name: ['web.2'] }), ['t2'])
  t.deepEqual(await ids({ runtime: ['container'] }), ['t1', 't2', 't4', 't3'])
  t.is((await lab.get(KIND_TASK, 'web.1')).task?.id, 't1')
  const services = async (mode: string): Promise<(string | undefined)[]> =>
    (await lab.list(KIND_SERVICE, { mode: [mode] })).map((o) => o.service?.id)
  t.deepEqual(await services('replicated'), [web.id])
  t.deepEqual(await services('replicated-job'), [job.id])
})

test('service statuses count running, wanted and completed', async (t) => {
  const lab = await ControlLab.create()
  const web = await lab.service(spec())
  const mode = ServiceMode.create({
    replicatedJob: ReplicatedJobMode.create({ totalCompletions: 5, maxConcurrent: 2 }),
  })
  const job = await lab.service(spec({ annotations: named('job'), mode }))
  const task = (id: string, serviceId: string, state: TaskState, desiredState: TaskState): Promise<void> =>
    lab.task(Task.create({ id, serviceId, desiredState, status: TaskStatus.create({ state }) }))
  await task('a', web.id, TaskState.TASK_RUNNING, TaskState.TASK_RUNNING)
  await task('b', web.id, TaskState.TASK_RUNNING, TaskState.TASK_SHUTDOWN)
  await task('c', web.id, TaskState.TASK_FAILED, TaskState.TASK_SHUTDOWN)
  await task('d', job.id, TaskState.TASK_COMPLETE, TaskState.TASK_COMPLETE)
  await task('e', job.id, TaskState.TASK_RUNNING, TaskState.TASK_COMPLETE)
  const { statuses } = await lab.control.serviceStatuses(ServiceStatusRequest.create({ serviceIds: [web.id, job.id] }))
  t.deepEqual(
    statuses.map((s) => [s.runningTasks, s.desiredTasks, s.completedTasks]),
    [
      [1, 1, 0],
      [1, 2, 1],
    ],
  )
})

test('a network goes with the last task of a service that was removed, and its name is free at once', async (t) => {
  const lab = await ControlLab.create()
  const make = () => lab.create({ network: NetworkSpec.create({ annotations: named('n') }) })
  const n = (await make()).object!.network!
  const { service } = (await lab.create({ service: spec({ annotations: named('web') }) })).object!
  await lab.task(
    Task.create({
      id: 'ends',
      serviceId: service!.id,
      desiredState: TaskState.TASK_RUNNING,
      status: TaskStatus.create({ state: TaskState.TASK_RUNNING }),
      networks: [NetworkAttachment.create({ network: n })],
    }),
  )
  await t.throwsAsync(lab.remove(KIND_NETWORK, n.id), { message: `network ${n.id} is in use by task ends` })
  await lab.remove(KIND_SERVICE, service!.id)
  await lab.remove(KIND_NETWORK, n.id)
  t.true(lab.store.view().get('network', n.id)?.pendingDelete, 'the task still needs it')
  await t.throwsAsync(lab.remove(KIND_NETWORK, n.id), { message: /not found/ })
  t.not((await make()).object!.network!.id, n.id)
})

test('networks: one mesh, known options, in use, predefined', async (t) => {
  const lab = await ControlLab.create()
  const make = (fields: Partial<NetworkSpec>) =>
    lab.create({ network: NetworkSpec.create({ annotations: named('n'), ...fields }) })
  await t.throwsAsync(make({ ingress: true, attachable: true }), { message: 'ingress network cannot be attachable' })
  const ingress = (await make({ annotations: named('ingress'), ingress: true })).object!.network!
  await t.throwsAsync(make({ ingress: true }), { message: `ingress network (${ingress.id}) is already present` })
  await t.throwsAsync(make({ annotations: named('Ingress') }), { message: 'network with name Ingress already exists' })
  const bad = IPAMOptions.create({ configs: [IPAMConfig.create({ subnet: 'ten' })] })
  await t.throwsAsync(make({ ipam: bad }), { message: /invalid subnet ten/ })
  const label = await t.throwsAsync<ShoalError>(
    make({ annotations: named('n', { 'com.docker.swarm.predefined': 'true' }) }),
  )
  t.is(label?.kind, 'forbidden')
  const n = (await make({})).object!.network!
  await lab.task(
    Task.create({
      id: 'holder',
      desiredState: TaskState.TASK_RUNNING,
      status: TaskStatus.create({ state: TaskState.TASK_RUNNING }),
      networks: [NetworkAttachment.create({ network: n })],
    }),
  )
  await t.throwsAsync(lab.remove(KIND_NETWORK, n.id), { message: `network ${n.id} is in use by task holder` })
  await lab.store.update((tx) => tx.remove('task', 'holder'))
  await lab.remove(KIND_NETWORK, n.id)
})

test('nodes: availability and labels change; removal asks for a node that is down, and is remembered', async (t) => {
  const lab = await ControlLab.create()
  const n = await lab.node({}, { hostname: 'alpha' })
  const drained = NodeSpec.create({ annotations: Annotations.create({ labels: { a: 'b' } }), availability: 2 })
  const updated = (await lab.update(KIND_NODE, n.id, { node: drained })).object!.node!
  t.is(updated.spec?.availability, 2)
  t.is(updated.description?.hostname, 'alpha')
  await t.throwsAsync(lab.remove(KIND_NODE, n.id), { message: `node ${n.id} is not down and can't be removed` })
  await lab.store.update((tx) =>
    tx.update('node', { ...tx.get('node', n.id)!, status: NodeStatus.create({ state: NodeState.NODE_DOWN }) }),
  )
  await lab.remove(KIND_NODE, n.id)
  const [removed] = (await lab.get(KIND_CLUSTER, 'default')).cluster!.removedNodes
  t.is(removed?.nodeId, n.id)
  const week = 7 * 24 * 3600
  t.true(removed!.forgetAfter!.seconds - Date.now() / 1000 > 90 * 24 * 3600 + week - 60)
})

test('a demotion that would lose the quorum is refused when asked for', async (t) => {
  const lab = await ControlLab.create()
  const manager = {
    role: NodeRole.MANAGER,
    spec: NodeSpec.create({ annotations: Annotations.create(), desiredRole: NodeRole.MANAGER }),
  }
  const [a] = [await lab.node(manager), await lab.node(manager)]
  lab.members = [{ raftId: 2, nodeId: a!.id, address: 'x:1', reachable: true, learner: false }]
  lab.canRemove = false
  const demoted = NodeSpec.create({ annotations: Annotations.create() })
  await t.throwsAsync(lab.update(KIND_NODE, a!.id, { node: demoted }), {
    message: "can't remove member from the raft: this would result in a loss of quorum",
  })
  lab.canRemove = true
  await lab.update(KIND_NODE, a!.id, { node: demoted })
})

test('the cluster object hides keys, fills defaults, and refuses what Swarm refuses', async (t) => {
  const lab = await ControlLab.create()
  const cluster = (await lab.get(KIND_CLUSTER, '')).cluster!
  t.is(cluster.rootCa?.key.length, 0)
  t.is(cluster.unlockKey.length, 0)
  t.is(cluster.spec?.annotations?.name, 'default')
  t.is(cluster.spec?.dispatcherHeartbeatPeriod, 5e9)
  t.is(cluster.spec?.raft?.electionTick, 10)
  t.deepEqual(cluster.defaultAddressPool, ['10.0.0.0/8'])
  const update = (fields: Partial<NonNullable<typeof cluster.spec>>) =>
    lab.update(KIND_CLUSTER, cluster.id, { cluster: { ...cluster.spec!, ...fields } })
  await t.throwsAsync(update({ ca: CAConfig.create({ nodeCertExpiry: 1e9 }) }), {
    message: 'minimum certificate expiry time is: 1h0m0s',
  })
  await t.throwsAsync(update({ annotations: named('other') }), {
    message: 'modification of cluster name is not allowed',
  })
  await t.throwsAsync(update({ dispatcherHeartbeatPeriod: -1 }), { message: /cannot be a negative duration/ })
  await t.throwsAsync(update({ ca: CAConfig.create({ signingCaKey: Buffer.from('k') }) }), {
    message: /needs the CA certificate/,
  })
  await update({ autoLockManagers: true, taskHistoryRetentionLimit: 2 })
  t.is(lab.store.view().cluster()?.unlockKey.length, 32)
  const key = lab.store.view().cluster()!.unlockKey
  await lab.update(
    KIND_CLUSTER,
    cluster.id,
    { cluster: { ...cluster.spec!, autoLockManagers: true } },
    { rotateUnlockKey: true },
  )
  t.notDeepEqual(lab.store.view().cluster()?.unlockKey, key)
  await update({ autoLockManagers: false })
  t.is(lab.store.view().cluster()?.unlockKey.length, 0)
})

test('a container is attached to an attachable network only, and gets what the allocator gives', async (t) => {
  const lab = await ControlLab.create()
  const node = await lab.node()
  await lab.create({ network: NetworkSpec.create({ annotations: named('closed') }) })
  const open = (await lab.create({ network: NetworkSpec.create({ annotations: named('open'), attachable: true }) }))
    .object!.network!
  const ask = (network: string) =>
    lab.control.attachNetwork(
      AttachNetworkRequest.create({ network, nodeId: node.id, containerId: 'c1', aliases: ['x'] }),
    )
  const error = await t.throwsAsync<ShoalError>(ask('closed'), { message: 'network closed not manually attachable' })
  t.is(error?.kind, 'forbidden')
  const stop = lab.store.onCommit((c) => {
    const made = c.events.find((e) => e.kind === 'task' && e.action === 'create')
    if (made?.kind !== 'task') return
    void lab.store.update((tx) =>
      tx.update('task', {
        ...tx.get('task', made.object.id)!,
        networks: [NetworkAttachment.create({ network: open, addresses: ['10.0.1.2/24'], aliases: ['x'] })],
        status: TaskStatus.create({ state: TaskState.TASK_PENDING }),
      }),
    )
  })
  const answer = await ask('open')
  stop()
  t.deepEqual(answer.attachment?.addresses, ['10.0.1.2/24'])
  t.is(lab.store.view().get('task', answer.taskId)?.nodeId, node.id)
  await lab.remove(KIND_TASK, answer.taskId)
  t.is(lab.store.view().get('task', answer.taskId), null)
})

test('a watch brings what changes, in order, without secrets, until it is ended', async (t) => {
  const lab = await ControlLab.create()
  const end = new AbortController()
  const seen: string[] = []
  const reading = (async () => {
    for await (const e of lab.control.watch(WatchRequest.create({ kinds: [KIND_SERVICE] }), end.signal)) {
      seen.push(`${e.action} ${e.object?.service?.spec?.annotations?.name} ${e.old !== null}`)
      if (seen.length === 3) end.abort()
    }
  })()
  await new Promise((r) => setImmediate(r))
  const s = await lab.service(spec())
  await lab.node()
  await lab.update(KIND_SERVICE, s.id, { service: s.spec! })
  await lab.remove(KIND_SERVICE, s.id)
  await reading
  t.deepEqual(seen, ['create web false', 'update web true', 'update web true'])
})
