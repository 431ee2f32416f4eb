import test from 'ava'
import {
  Annotations,
  AttachNetworkRequest,
  CreateRequest,
  Driver,
  EndpointSpec,
  FileTarget,
  NetworkAttachmentConfig,
  NetworkSpec,
  type Node,
  NodeState,
  ObjectKind,
  PortConfig,
  RemoveRequest,
  SecretReference,
  SecretSpec,
  TaskState,
} from '#proto'
import {
  createService,
  EMPTY_SPEC,
  type FakeAgent,
  type LabManager,
  list,
  ManagerLab,
  serviceSpec,
  until,
} from '../lab.js'

const nodeOf = async (m: LabManager, agent: FakeAgent): Promise<Node> =>
  (await list(m, ObjectKind.KIND_NODE, { id: [agent.nodeId] }))[0]!.node!

const create = (m: LabManager, spec: Partial<CreateRequest['spec'] & object>) =>
  m.manager.control.create(CreateRequest.create({ spec: { ...EMPTY_SPEC, ...spec } }))

test.serial(
  'a node that falls silent is down after 8 s and its task is replaced; one that comes back is ready',
  async (t) => {
    t.timeout(90_000)
    const lab = await ManagerLab.create(1)
    try {
      const m = lab.managers[0]!
      const [a, b] = [await lab.worker(), await lab.worker()]
      await until('both are ready', async () =>
        (await Promise.all([nodeOf(m, a), nodeOf(m, b)])).every(
          (n) => n.status?.state === 2 && n.status.address === '127.0.0.1',
        ),
      )
      await createService(m, serviceSpec('web', 2))
      await until('each runs one', () => a.running().length === 1 && b.running().length === 1)
      const lost = a.running()[0]!
      a.close()
      const before = performance.now()
      await until('it is down', async () => (await nodeOf(m, a)).status?.state === 1)
      t.true(performance.now() - before > 5000)
      await until('the other runs both', () => b.running().length === 2)
      const back = lab.agent(a.identity, m)
      await until('it is ready again', async () => (await nodeOf(m, a)).status?.state === 2)
      await until(
        'its old task is told to stop',
        () => back.tasks.get(lost.id)?.desiredState === TaskState.TASK_SHUTDOWN,
      )
      t.is(b.running().length, 2)
    } finally {
      await lab.close()
    }
  },
)

test.serial('a node learns when the cluster has it as ready', async (t) => {
  const lab = await ManagerLab.create(1)
  try {
    const a = await lab.worker()
    await until('it is told', () => a.session?.node?.status?.state === NodeState.NODE_READY)
    t.is(a.session?.node?.description?.hostname, (await nodeOf(lab.managers[0]!, a)).description?.hostname)
  } finally {
    await lab.close()
  }
})

test.serial('a new leader finds the nodes by their reports: no node goes down, no task is made anew', async (t) => {
  t.timeout(90_000)
  const lab = await ManagerLab.create(3)
  try {
    const leader = lab.leader()!
    const [f1, f2] = lab.followers() as [LabManager, LabManager]
    const agents = [await lab.worker(f1), await lab.worker(f2)]
    await createService(f1, serviceSpec('web', 4))
    await until(
      'all run',
      async () =>
        (await list(f1, ObjectKind.KIND_TASK)).filter((o) => o.task!.status!.state === TaskState.TASK_RUNNING)
          .length === 4,
    )
    const seen: string[] = []
    const watching = new AbortController()
    const events = (async () => {
      for await (const e of f1.manager.control.watch(
        { kinds: [ObjectKind.KIND_TASK, ObjectKind.KIND_NODE] },
        watching.signal,
      )) {
        if (e.action === 'create') seen.push('create')
        const state = e.object?.node?.status?.state
        if (state !== undefined) seen.push(`${e.object!.node!.id} ${state}`)
      }
    })()
    await leader.manager.stop()
    await until('both were unknown and are ready again', () =>
      agents.every(
        (a) => seen.includes(`${a.nodeId} 0`) && seen.lastIndexOf(`${a.nodeId} 2`) > seen.lastIndexOf(`${a.nodeId} 0`),
      ),
    )
    watching.abort()
    await events
    t.false(seen.includes('create'))
    for (const a of agents) t.false(seen.includes(`${a.nodeId} 1`))
    // Statuses go to the new leader.
    const task = agents[0]!.running()[0]!
    const sequence = agents[0]!.report([{ taskId: task.id, state: TaskState.TASK_FAILED, message: 'broken' }])
    await until('the status is acknowledged', () => agents[0]!.acked >= sequence)
    const [stored] = await list(f2, ObjectKind.KIND_TASK, { id: [task.id] })
    t.is(stored?.task?.status?.state, TaskState.TASK_FAILED)
    t.is(stored?.task?.status?.message, 'broken')
  } finally {
    await lab.close()
  }
})

test.serial(
  'secrets reach only nodes that run a task which needs them, before the task, and are withdrawn after it',
  async (t) => {
    t.timeout(60_000)
    const lab = await ManagerLab.create(2)
    try {
      const m = lab.followers()[0]!
      const [a, b] = [await lab.worker(lab.managers[0]), await lab.worker(lab.managers[1])]
      const secret = (
        await create(m, {
          secret: SecretSpec.create({ annotations: Annotations.create({ name: 'key' }), data: Buffer.from('hush') }),
        })
      ).object!.secret!
      t.is(secret.spec!.data.length, 0)
      const reference = SecretReference.create({
        secretId: secret.id,
        secretName: 'key',
        target: FileTarget.create({ name: 'key', uid: '0', gid: '0', mode: 0o444 }),
      })
      const service = await createService(m, serviceSpec('web', 1, { secrets: [reference] }))
      const holder = await until('one runs it', () => [a, b].find((x) => x.running().length === 1))
      const other = holder === a ? b : a
      t.is(holder.secrets.get(secret.id), 'hush')
      t.is(other.secrets.size, 0)
      const first = holder.messages.flatMap((x) => x.assignments?.upserts ?? [])
      t.true(first.findIndex((x) => x.secret) < first.findIndex((x) => x.task))
      await t.throwsAsync(
        m.manager.control.remove(RemoveRequest.create({ kind: ObjectKind.KIND_SECRET, id: secret.id })),
        {
          message: "secret 'key' is in use by the following service: web",
        },
      )
      await m.manager.control.remove(RemoveRequest.create({ kind: ObjectKind.KIND_SERVICE, id: service.id }))
      await until('it is withdrawn', () => holder.secrets.size === 0)
      t.true(other.messages.every((x) => !x.assignments?.upserts.some((u) => u.secret)))
      await m.manager.control.remove(RemoveRequest.create({ kind: ObjectKind.KIND_SECRET, id: secret.id }))
    } finally {
      await lab.close()
    }
  },
)

test.serial(
  'nodes are told the endpoints of their networks, ready when running, and the mesh on every node',
  async (t) => {
    t.timeout(60_000)
    const lab = await ManagerLab.create(2)
    try {
      const m = lab.followers()[0]!
      const [a, b, c] = [
        await lab.worker(lab.managers[0]),
        await lab.worker(lab.managers[1]),
        await lab.worker(lab.managers[1]),
      ]
      const net = (
        await create(m, {
          network: NetworkSpec.create({
            annotations: Annotations.create({ name: 'back' }),
            driverConfig: Driver.create({ name: 'overlay' }),
          }),
        })
      ).object!.network!
      for (const x of [a, b, c])
        x.behave = (task) =>
          task.desiredState > TaskState.TASK_RUNNING ? TaskState.TASK_SHUTDOWN : TaskState.TASK_STARTING
      const spec = serviceSpec('web', 2)
      spec.task!.networks = [NetworkAttachmentConfig.create({ target: 'back', aliases: ['www'] })]
      spec.endpoint = EndpointSpec.create({ ports: [PortConfig.create({ targetPort: 80, publishedPort: 8080 })] })
      const service = await createService(m, spec)
      t.is(service.spec!.task!.networks[0]!.target, net.id)
      const on = [a, b, c]
      await until('two nodes have tasks', () => on.filter((x) => x.tasks.size === 1).length === 2)
      const holders = on.filter((x) => x.tasks.size === 1)
      const idle = on.find((x) => x.tasks.size === 0)!
      const ends = (x: FakeAgent, id: string) => [...(x.networks.get(id)?.endpoints.values() ?? [])]
      await until('both know both endpoints', () => holders.every((x) => ends(x, net.id).length === 2))
      t.true(holders.every((x) => ends(x, net.id).every((e) => !e.ready)))
      t.deepEqual(
        holders.flatMap((x) => ends(x, net.id).map((e) => e.aliases)),
        [['www'], ['www'], ['www'], ['www']],
      )
      t.is(idle.networks.has(net.id), false)
      for (const x of holders) x.report([{ taskId: [...x.tasks.keys()][0]!, state: TaskState.TASK_RUNNING }])
      await until('both are ready', () => holders.every((x) => ends(x, net.id).every((e) => e.ready)))
      const ingress = (await list(m, ObjectKind.KIND_NETWORK, { name: ['ingress'] }))[0]!.network!.id
      await until('every node has the mesh', () =>
        on.every((x) => ends(x, ingress).filter((e) => e.ready).length === 2),
      )
      const entry = idle.networks.get(ingress)!.services.get(service.id)!
      t.is(entry.name, 'web')
      t.regex(entry.virtualIp, /^10\.0\.0\.\d+$/)
      t.is(entry.ports[0]?.publishedPort, 8080)
      const inner = holders[0]!.networks.get(net.id)!.services.get(service.id)!
      t.regex(inner.virtualIp, /^10\.\d+\.\d+\.\d+$/)
      t.deepEqual(inner.ports, [])
      t.deepEqual(inner.aliases, ['www'])
      await t.throwsAsync(
        m.manager.control.remove(RemoveRequest.create({ kind: ObjectKind.KIND_NETWORK, id: net.id })),
        {
          message: `network ${net.id} is in use by service ${service.id}`,
        },
      )

      await m.manager.control.remove(RemoveRequest.create({ kind: ObjectKind.KIND_SERVICE, id: service.id }))
      await until('the network is withdrawn', () => on.every((x) => !x.networks.has(net.id)))
      await until('the mesh is empty', () =>
        on.every((x) => ends(x, ingress).length === 0 && x.networks.get(ingress)!.services.size === 0),
      )
      await until('all nodes know all members', () => on.every((x) => x.members?.members.length === 3))
      t.is(new Set(a.members!.members.map((x) => x.ingressIndex)).size, 3)
      t.is(a.members!.dataPathPort, 4789)
      t.true(on.every((x) => x.gaps === 0))
      await until('the network can go', () =>
        m.manager.control.remove(RemoveRequest.create({ kind: ObjectKind.KIND_NETWORK, id: net.id })).then(
          () => true,
          () => false,
        ),
      )
    } finally {
      await lab.close()
    }
  },
)

test.serial('an attached container is an endpoint of its network on its node, until it is detached', async (t) => {
  t.timeout(60_000)
  const lab = await ManagerLab.create(2)
  try {
    const m = lab.followers()[0]!
    const agent = await lab.worker(m)
    await until('the node is ready', async () => (await nodeOf(m, agent)).status?.state === 2)
    const net = (
      await create(m, {
        network: NetworkSpec.create({
          annotations: Annotations.create({ name: 'open' }),
          driverConfig: Driver.create({ name: 'overlay' }),
          attachable: true,
        }),
      })
    ).object!.network!
    const answer = await m.manager.control.attachNetwork(
      AttachNetworkRequest.create({ network: 'open', nodeId: agent.nodeId, containerId: 'c0ffee', aliases: ['db'] }),
    )
    t.regex(answer.attachment!.addresses[0]!, /^10\.\d+\.\d+\.\d+\/24$/)
    const endpoint = await until('its node knows it', () => agent.networks.get(net.id)?.endpoints.get('c0ffee'))
    t.true(endpoint.ready)
    t.deepEqual(endpoint.aliases, ['db'])
    t.is(agent.tasks.size, 0)
    await m.manager.control.remove(RemoveRequest.create({ kind: ObjectKind.KIND_TASK, id: answer.taskId }))
    await until('the network is withdrawn', () => !agent.networks.has(net.id))
  } finally {
    await lab.close()
  }
})

test.serial(
  'a second session of a node ends the first; what is not known of a task is acknowledged and dropped',
  async (t) => {
    t.timeout(60_000)
    const lab = await ManagerLab.create(1)
    try {
      const first = await lab.worker()
      await until('it has a session', () => first.session)
      const second = lab.agent(first.identity, lab.managers[0]!)
      await until('the first one ended', () => first.error)
      await until('the second one lives', () => second.session)
      const sequence = second.report([{ taskId: 'nobody', state: TaskState.TASK_RUNNING }])
      await until('it is acknowledged', () => second.acked === sequence)
      t.pass()
    } finally {
      await lab.close()
    }
  },
)
