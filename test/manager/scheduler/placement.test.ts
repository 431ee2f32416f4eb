import test from 'ava'
import {
  Annotations,
  Node,
  NodeAvailability,
  NodeDescription,
  NodeRole,
  NodeSpec,
  NodeState,
  NodeStatus,
  Placement,
  PlacementPreference,
  ResourceRequirements,
  Resources,
  type Task,
  TaskSpec,
  TaskState,
  TaskStatus,
  Task as TaskType,
} from '#proto'
import { seededRng } from '../../../src/common/index.js'
import {
  matchesConstraints,
  NodeMirror,
  parseConstraint,
  placeGroup,
  ServiceCounts,
} from '../../../src/manager/scheduler/index.js'

const node = (id: string, labels: Record<string, string> = {}, nanoCpus = 8e9): Node =>
  Node.create({
    id,
    role: NodeRole.MANAGER,
    spec: NodeSpec.create({ annotations: Annotations.create({ labels }), availability: NodeAvailability.ACTIVE }),
    status: NodeStatus.create({ state: NodeState.NODE_READY, address: '10.1.2.3' }),
    description: NodeDescription.create({
      hostname: 'Host-One',
      platform: { os: 'linux', architecture: 'x86_64' },
      engineLabels: { disk: 'ssd' },
      resources: Resources.create({ nanoCpus, memoryBytes: 2 ** 34 }),
    }),
  })

test('constraints compare values without regard to case, and a missing label equals ""', (t) => {
  const n = node('abc', { Zone: 'a' })
  const holds: readonly string[] = [
    'node.id==abc',
    'node.hostname == host-one',
    'node.role==Manager',
    'node.role!=worker',
    'node.ip==10.1.2.3',
    'node.ip==10.1.0.0/16',
    'node.ip!=10.2.0.0/16',
    'node.platform.os==linux',
    'node.platform.arch==amd64',
    'node.platform.arch==x86_64',
    'node.labels.Zone==A',
    'node.labels.zone!=a',
    'node.labels.other!=x',
    'engine.labels.disk==SSD',
  ]
  for (const c of holds) t.true(matchesConstraints([c], n), c)
  for (const c of ['node.id!=abc', 'node.labels.zone==a', 'node.ip==10.2.0.0/16', 'node.colour==red', 'nonsense'])
    t.false(matchesConstraints([c], n), c)
  t.false(matchesConstraints(['node.id==abc', 'node.role==worker'], n), 'all must hold')
  t.is(parseConstraint('a=b'), null)
})

const task = (
  id: string,
  service: string,
  options: { nanoCpus?: number; spread?: readonly string[]; max?: number } = {},
): Task =>
  TaskType.create({
    id,
    serviceId: service,
    specVersion: { index: 1 },
    desiredState: TaskState.TASK_RUNNING,
    status: TaskStatus.create({ state: TaskState.TASK_PENDING }),
    spec: TaskSpec.create({
      resources: ResourceRequirements.create({ reservations: Resources.create({ nanoCpus: options.nanoCpus ?? 0 }) }),
      placement: Placement.create({
        maxReplicas: options.max ?? 0,
        preferences: (options.spread ?? []).map((spreadOver) => PlacementPreference.create({ spreadOver })),
      }),
    }),
  })

function place(
  tasks: readonly Task[],
  nodes: readonly NodeMirror[],
  counts: ServiceCounts,
): ReturnType<typeof placeGroup> {
  return placeGroup({
    tasks,
    nodes,
    counts,
    nowMs: 0,
    place: (x, n) => void n.note({ ...x, nodeId: n.node.id, status: { ...x.status!, state: TaskState.TASK_ASSIGNED } }),
  })
}

test('on equal nodes any mix of services spreads evenly, each by itself and all together (seeds 1-20)', (t) => {
  for (let seed = 1; seed <= 20; seed++) {
    const rng = seededRng(seed)
    const counts = new ServiceCounts()
    const nodes = Array.from(
      { length: 3 + Math.floor(rng.random() * 6) },
      (_, i) => new NodeMirror(node(`n${i}`), counts),
    )
    let id = 0
    for (let s = 0; s < 10; s++) {
      const count = 1 + Math.floor(rng.random() * 30)
      const tasks = Array.from({ length: count }, () => task(`t${id++}`, `s${s}`))
      t.deepEqual(place(tasks, nodes, counts).unplaced, [])
      const per = nodes.map((n) => n.tasksOfService(`s${s}`))
      t.true(Math.max(...per) - Math.min(...per) <= 1, `seed ${seed} service ${s}: ${per}`)
      const all = nodes.map((n) => n.totalTasks)
      t.true(Math.max(...all) - Math.min(...all) <= 1, `seed ${seed} in all: ${all}`)
    }
  }
})

test('no node is ever given more than it has, and nothing that fits is left over (seeds 1-20)', (t) => {
  for (let seed = 1; seed <= 20; seed++) {
    const rng = seededRng(seed)
    const counts = new ServiceCounts()
    const nodes = Array.from(
      { length: 5 },
      (_, i) => new NodeMirror(node(`n${i}`, {}, 1e9 * (1 + Math.floor(rng.random() * 8))), counts),
    )
    const nanoCpus = 3e8
    const room = nodes.reduce((sum, n) => sum + Math.floor(n.available.nanoCpus / nanoCpus), 0)
    const tasks = Array.from({ length: 100 }, (_, i) => task(`t${i}`, 's', { nanoCpus }))
    const { unplaced, reason } = place(tasks, nodes, counts)
    t.is(unplaced.length, Math.max(0, 100 - room))
    for (const n of nodes) t.true(n.available.nanoCpus >= 0)
    if (unplaced.length > 0) t.is(reason, 'no suitable node (insufficient resources on 5 nodes)')
  }
})

test('two levels of preferences divide in their order; nodes without a label are one more branch', (t) => {
  const counts = new ServiceCounts()
  const nodes = [
    new NodeMirror(node('a1', { dc: 'a', rack: '1' }), counts),
    new NodeMirror(node('a2', { dc: 'a', rack: '2' }), counts),
    new NodeMirror(node('b1', { dc: 'b', rack: '1' }), counts),
    new NodeMirror(node('x'), counts),
  ]
  place(
    Array.from({ length: 12 }, (_, i) => task(`t${i}`, 's', { spread: ['node.labels.dc', 'node.labels.rack'] })),
    nodes,
    counts,
  )
  t.deepEqual(
    nodes.map((n) => n.tasksOfService('s')),
    [2, 2, 4, 4],
  )
})

test('a mirror is as before when all that it noted is gone', (t) => {
  const counts = new ServiceCounts()
  const mirror = new NodeMirror(node('n'), counts)
  const x = {
    ...task('t', 's', { nanoCpus: 1e9 }),
    nodeId: 'n',
    status: TaskStatus.create({ state: TaskState.TASK_RUNNING }),
  }
  mirror.note(x)
  mirror.note(x)
  t.is(mirror.available.nanoCpus, 7e9)
  mirror.setNode(node('n', {}, 4e9))
  t.is(mirror.available.nanoCpus, 3e9)
  t.is(mirror.note({ ...x, desiredState: TaskState.TASK_SHUTDOWN }), true)
  t.is(mirror.totalTasks, 0)
  t.is(mirror.available.nanoCpus, 3e9, 'it holds its resources until it has stopped')
  t.true(mirror.forget('t'))
  t.is(mirror.available.nanoCpus, 4e9)
})
