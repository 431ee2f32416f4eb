import test from 'ava'
import { NodeAvailability, type Placement, PublishMode, TaskState } from '#proto'
import { stateOf } from '../../../src/manager/objects/index.js'
import { TestCluster } from '../support/cluster.js'

async function cluster(nodes: number): Promise<TestCluster> {
  const c = new TestCluster()
  await c.init(nodes)
  c.start()
  await c.clock.settle()
  return c
}

const placement = (p: Partial<Placement>): { placement: Placement } => ({
  placement: { constraints: [], preferences: [], maxReplicas: 0, platforms: [], ...p },
})
const reserve = (nanoCpus: number, memoryBytes = 0) => ({
  resources: {
    limits: null,
    reservations: { nanoCpus, memoryBytes, generic: [], pids: 0 },
    swapBytes: null,
    memorySwappiness: null,
  },
})
const pending = (c: TestCluster, id: string) => c.tasks(id).filter((t) => stateOf(t) === TaskState.TASK_PENDING)
const reasons = (c: TestCluster, id: string) => [...new Set(pending(c, id).map((t) => t.status!.err))]

test("a task that fits nowhere says why in docker's words, with a count for each reason", async (t) => {
  const c = await cluster(2)
  await c.addNode('arm', { platform: { os: 'linux', architecture: 'aarch64' } })
  await c.addNode('off')
  await c.setNode('off', { availability: NodeAvailability.PAUSE })
  const big = await c.createService('big', {
    task: { ...reserve(0, 2 ** 40) },
  })
  const amd = await c.createService('amd', {
    task: {
      ...placement({ constraints: ['node.hostname==arm'], platforms: [{ os: 'linux', architecture: 'amd64' }] }),
    },
  })
  await c.clock.advance(500)
  t.deepEqual(reasons(c, big), [
    'no suitable node (insufficient resources on 3 nodes; 1 node not available for new tasks)',
  ])
  t.deepEqual(reasons(c, amd), [
    'no suitable node (scheduling constraints not satisfied on 2 nodes; 1 node not available for new tasks; unsupported platform on 1 node)',
  ])
  await c.stop()
})

test('without nodes a task waits, and starts when one comes', async (t) => {
  const c = await cluster(0)
  const web = await c.createService('web', { replicas: 2 })
  await c.clock.advance(500)
  t.deepEqual(reasons(c, web), ['no suitable node'])
  await c.addNode('n1')
  await c.clock.advance(500)
  t.is(c.running(web).length, 2)
  t.true(c.running(web).every((x) => x.status!.err === ''))
  await c.stop()
})

test('reserved resources are taken from a node, and a waiting task gets what another gives back', async (t) => {
  const c = await cluster(1)
  const a = await c.createService('a', { task: reserve(5e9) })
  const b = await c.createService('b', { task: reserve(5e9) })
  await c.clock.advance(500)
  t.is(c.running(a).length + c.running(b).length, 1)
  t.deepEqual(reasons(c, b), ['no suitable node (insufficient resources on 1 node)'])
  await c.changeLeader()
  await c.clock.advance(500)
  t.is(c.running(b).length, 0, 'another leader counts the same')
  await c.removeService(a)
  await c.clock.advance(1_000)
  t.is(c.running(b).length, 1)
  await c.stop()
})

test('named generic resources are given by name, each to one task only', async (t) => {
  const c = await cluster(0)
  const named = (value: string) => ({ kind: 'gpu', value, count: 0 })
  await c.addNode('n1', {
    resources: {
      nanoCpus: 4e9,
      memoryBytes: 2 ** 33,
      generic: [named('g1'), named('g2'), { kind: 'ssd', value: '', count: 3 }],
      pids: 0,
    },
  })
  const web = await c.createService('web', {
    replicas: 3,
    task: {
      resources: {
        limits: null,
        reservations: {
          nanoCpus: 0,
          memoryBytes: 0,
          generic: [
            { kind: 'gpu', value: '', count: 1 },
            { kind: 'ssd', value: '', count: 1 },
          ],
          pids: 0,
        },
        swapBytes: null,
        memorySwappiness: null,
      },
    },
  })
  await c.clock.advance(500)
  t.deepEqual(
    c
      .running(web)
      .map((x) => x.assignedGenericResources.map((r) => r.value || `${r.kind}=${r.count}`))
      .sort(),
    [
      ['g1', 'ssd=1'],
      ['g2', 'ssd=1'],
    ],
  )
  t.is(pending(c, web).length, 1)
  const first = c.running(web).find((x) => x.assignedGenericResources.some((r) => r.value === 'g1'))!
  await c.report(first.id, TaskState.TASK_FAILED)
  await c.clock.advance(500)
  t.is(c.running(web).length, 2)
  t.true(c.running(web).some((x) => x.assignedGenericResources.some((r) => r.value === 'g1')))
  await c.stop()
})

test('a fixed host port is bound once a node', async (t) => {
  const c = await cluster(2)
  const web = await c.createService('web', {
    replicas: 3,
    endpoint: { ports: [{ name: '', protocol: 0, targetPort: 80, publishedPort: 80, publishMode: PublishMode.HOST }] },
  })
  await c.clock.advance(500)
  t.deepEqual(c.spread(web), { n1: 1, n2: 1 })
  t.deepEqual(reasons(c, web), ['no suitable node (host-mode port already in use on 2 nodes)'])
  await c.stop()
})

test('no node gets more replicas than allowed, whatever spreading would prefer', async (t) => {
  const c = await cluster(3)
  const web = await c.createService('web', { replicas: 5, task: placement({ maxReplicas: 1 }) })
  await c.clock.advance(500)
  t.deepEqual(c.spread(web), { n1: 1, n2: 1, n3: 1 })
  t.deepEqual(reasons(c, web), ['no suitable node (max replicas per node limit exceed)'])
  await c.stop()
})

test('a spread preference divides tasks over its values before nodes', async (t) => {
  const c = await cluster(0)
  await c.addNode('a1', {}, { rack: 'a' })
  for (const id of ['b1', 'b2', 'b3']) await c.addNode(id, {}, { rack: 'b' })
  const web = await c.createService('web', {
    replicas: 12,
    task: placement({ preferences: [{ spreadOver: 'node.labels.rack' }] }),
  })
  await c.clock.advance(500)
  t.deepEqual(c.spread(web), { a1: 6, b1: 2, b2: 2, b3: 2 })
  await c.stop()
})

test('of nodes equal for the service the one with fewer tasks in all is taken', async (t) => {
  const c = await cluster(2)
  const a = await c.createService('a', { replicas: 4, task: placement({ constraints: ['node.id==n1'] }) })
  const b = await c.createService('b', { replicas: 1 })
  await c.clock.advance(500)
  t.deepEqual(c.spread(a), { n1: 4 })
  t.deepEqual(c.spread(b), { n2: 1 })
  await c.stop()
})

test('a node where a service failed five times in five minutes comes last', async (t) => {
  const c = await cluster(2)
  const web = await c.createService('web', { replicas: 1 })
  await c.clock.advance(500)
  const nodes: string[] = []
  // n2 always has more tasks, so that n1 would be taken each time.
  const other = await c.createService('other', { replicas: 3, task: placement({ constraints: ['node.id==n2'] }) })
  await c.clock.advance(500)
  t.is(c.running(other).length, 3)
  for (let i = 0; i < 8; i++) {
    const task = c.running(web)[0]!
    nodes.push(task.nodeId)
    await c.report(task.id, TaskState.TASK_FAILED)
    await c.clock.advance(6_000)
  }
  t.deepEqual(nodes.slice(1, 5), ['n1', 'n1', 'n1', 'n1'])
  t.is(nodes.at(-1), 'n2')
  await c.stop()
})

test('a global task whose node has too little says so on the task', async (t) => {
  const c = await cluster(1)
  await c.addNode('small', { resources: { nanoCpus: 1e9, memoryBytes: 2 ** 30, generic: [], pids: 0 } })
  const agent = await c.createService('agent', { mode: { global: {} }, task: reserve(2e9) })
  await c.clock.advance(500)
  t.deepEqual(c.spread(agent), { n1: 1 })
  t.deepEqual(reasons(c, agent), ['no suitable node (insufficient resources on 1 node)'])
  await c.stop()
})
