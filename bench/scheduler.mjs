// Places 100,000 tasks on 1,000 nodes in one process: the scheduler by itself, and then with its store (whose log commits at
// once). Creating the objects is part of the timed part, as in swarmkit's published figure (22.6 s, PR 193).
// Arguments: tasks, nodes, services.
import {
  Node,
  NodeAvailability,
  NodeDescription,
  NodeSpec,
  NodeState,
  NodeStatus,
  Resources,
  Service,
  Task,
  TaskSpec,
  TaskState,
  TaskStatus,
} from '../build/proto/shoal.js'
import { nullLogger, systemClock } from '../build/src/common/index.js'
import { NodeMirror, placeGroup, Scheduler, ServiceCounts } from '../build/src/manager/scheduler/index.js'
import { createStore } from '../build/src/manager/store/index.js'

const [taskCount, nodeCount, serviceCount] = [100_000, 1_000, 100].map((n, i) => Number(process.argv[i + 2] ?? n))

const makeNode = (i) =>
  Node.create({
    id: `node${i}`,
    spec: NodeSpec.create({ availability: NodeAvailability.ACTIVE }),
    status: NodeStatus.create({ state: NodeState.NODE_READY }),
    description: NodeDescription.create({
      hostname: `node${i}`,
      platform: { os: 'linux', architecture: 'x86_64' },
      resources: Resources.create({ nanoCpus: 64e9, memoryBytes: 2 ** 38 }),
    }),
  })
const makeTask = (i) =>
  Task.create({
    id: `task${i}`,
    serviceId: `service${i % serviceCount}`,
    specVersion: { index: 1 },
    desiredState: TaskState.TASK_RUNNING,
    spec: TaskSpec.create(),
    status: TaskStatus.create({ state: TaskState.TASK_PENDING }),
  })
let cpuBefore = process.cpuUsage()
const report = (what, ms, count = taskCount) => {
  const cpu = process.cpuUsage(cpuBefore)
  console.log(
    `${what}: ${(ms / 1000).toFixed(2)} s (${((cpu.user + cpu.system) / 1e6).toFixed(2)} s of processor time) for ${count} tasks of ${serviceCount} services on ${nodeCount} nodes (${Math.round(count / (ms / 1000))} a second)`,
  )
  cpuBefore = process.cpuUsage()
}

{
  const from = performance.now()
  const counts = new ServiceCounts()
  const nodes = Array.from({ length: nodeCount }, (_, i) => new NodeMirror(makeNode(i), counts))
  const groups = Map.groupBy
    ? Map.groupBy(
        Array.from({ length: taskCount }, (_, i) => makeTask(i)),
        (t) => t.serviceId,
      )
    : Array.from({ length: taskCount }, (_, i) => makeTask(i)).reduce((m, t) => {
        const list = m.get(t.serviceId)
        if (list) list.push(t)
        else m.set(t.serviceId, [t])
        return m
      }, new Map())
  for (const tasks of groups.values()) {
    const { unplaced } = placeGroup({
      tasks,
      nodes,
      counts,
      nowMs: 0,
      place: (task, node) => {
        node.note({ ...task, nodeId: node.node.id, status: { ...task.status, state: TaskState.TASK_ASSIGNED } })
      },
    })
    if (unplaced.length > 0) throw new Error(`${unplaced.length} tasks found no node`)
  }
  report('placement alone', performance.now() - from)
  const each = nodes.map((n) => n.totalTasks)
  console.log(`  tasks a node: ${Math.min(...each)} to ${Math.max(...each)}`)
}

{
  // Each write costs the store far more than its placement: a tenth of the tasks tells as much.
  const storeTaskCount = Math.ceil(taskCount / 10)
  const store = createStore({ clock: systemClock })
  let index = 0
  store.connect({
    async propose(actions) {
      await Promise.resolve()
      store.apply(++index, [{ ours: true, actions }])
      return { result: 'applied', index }
    },
  })
  store.setLeading(true)
  const from = performance.now()
  await store.batch(
    Array.from({ length: nodeCount }, (_, i) => (tx) => tx.create('node', makeNode(i))).concat(
      Array.from(
        { length: serviceCount },
        (_, i) => (tx) => tx.create('service', Service.create({ id: `service${i}` })),
      ),
    ),
  )
  let assigned = 0
  const done = new Promise((resolve) => {
    store.onCommit((commit) => {
      for (const e of commit.events)
        if (e.kind === 'task' && e.action === 'update' && e.object.status.state === TaskState.TASK_ASSIGNED) assigned++
      if (assigned === storeTaskCount) resolve()
    })
  })
  const scheduler = new Scheduler({ store, clock: systemClock, logger: nullLogger })
  scheduler.start()
  await store.batch(Array.from({ length: storeTaskCount }, (_, i) => (tx) => tx.create('task', makeTask(i))))
  await done
  report('with the store', performance.now() - from, storeTaskCount)
  console.log(`  log entries: ${index}`)
  await scheduler.stop()
}
