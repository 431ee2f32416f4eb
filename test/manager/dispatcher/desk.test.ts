import test from 'ava'
import {
  Cluster,
  ClusterSpec,
  Node,
  NodeDescription,
  NodeReport,
  NodeState,
  NodeStatus,
  ReportBatch,
  Task,
  TaskState,
  TaskStatus,
  TaskStatusUpdate,
} from '#proto'
import { nullLogger } from '../../../src/common/index.js'
import { PresenceDesk } from '../../../src/manager/dispatcher/index.js'
import { createStore, type ReplicatedStore } from '../../../src/manager/index.js'
import { MemoryLog } from '../memory-log.js'
import { FakeClock } from '../support/fake-clock.js'

const { NODE_UNKNOWN, NODE_DOWN, NODE_READY } = NodeState
const node = (id: string, state: NodeState): Node => Node.create({ id, status: NodeStatus.create({ state }) })
const settled = (): Promise<void> => new Promise((r) => setImmediate(() => setImmediate(r)))

interface Desk {
  readonly desk: PresenceDesk
  readonly clock: FakeClock
  readonly store: ReplicatedStore
  state(id: string): NodeState | undefined
  tell(report: Partial<NodeReport>): Promise<void>
}

async function desk(nodes: readonly Node[], periodNanos = 5e9): Promise<Desk> {
  const clock = new FakeClock()
  const store = createStore({ clock })
  store.connect(new MemoryLog().proposer(store))
  store.setLeading(true)
  await store.update((tx) => {
    tx.create(
      'cluster',
      Cluster.create({ id: 'c', spec: ClusterSpec.create({ dispatcherHeartbeatPeriod: periodNanos }) }),
    )
    for (const n of nodes) tx.create('node', n)
  })
  const made = new PresenceDesk(store, 'leader', clock, nullLogger)
  await settled()
  let sequence = 0
  return {
    desk: made,
    clock,
    store,
    state: (id) => store.view().get('node', id)?.status?.state,
    tell: (report) =>
      made.accept('m1', ReportBatch.create({ sequence: ++sequence, reports: [NodeReport.create(report)] })),
  }
}
const description = NodeDescription.create({ hostname: 'h' })

test('a new leader takes ready nodes as unknown, and those that stay silent for one period as down', async (t) => {
  const d = await desk([node('a', NODE_READY), node('b', NODE_READY), node('c', NODE_DOWN)])
  t.deepEqual(['a', 'b', 'c'].map(d.state), [NODE_UNKNOWN, NODE_UNKNOWN, NODE_DOWN])
  await d.clock.advance(5000)
  await d.tell({ nodeId: 'a', sessionId: 's', description, address: '10.1.1.1' })
  t.is(d.state('a'), NODE_READY)
  t.is(d.store.view().get('node', 'a')?.status?.address, '10.1.1.1')
  t.is(d.desk.managerOf('a'), 'm1')
  await d.clock.advance(4000)
  await settled()
  t.deepEqual(['a', 'b', 'c'].map(d.state), [NODE_READY, NODE_DOWN, NODE_DOWN])
  d.desk.stop()
})

test('a node is down 8 s after it was last heard, and up again when its session goes on', async (t) => {
  const d = await desk([node('a', NODE_UNKNOWN)])
  await d.tell({ nodeId: 'a', sessionId: 's', description })
  for (let i = 0; i < 20; i++) {
    await d.clock.advance(1000)
    await d.tell({ nodeId: 'a', sessionId: 's' })
  }
  t.is(d.state('a'), NODE_READY)
  // An older session of the node does not keep it alive.
  for (let i = 0; i < 7; i++) {
    await d.clock.advance(1000)
    await d.tell({ nodeId: 'a', sessionId: 'older' })
  }
  await settled()
  t.is(d.state('a'), NODE_READY)
  await d.clock.advance(2000)
  await settled()
  t.is(d.state('a'), NODE_DOWN)
  t.is(d.desk.managerOf('a'), null)
  await d.tell({ nodeId: 'a', sessionId: 's' })
  t.is(d.state('a'), NODE_READY)
  d.desk.stop()
})

test('a longer heartbeat period gives nodes more time', async (t) => {
  const d = await desk([node('a', NODE_UNKNOWN)], 20e9)
  await d.tell({ nodeId: 'a', sessionId: 's', description })
  await d.clock.advance(30_000)
  await settled()
  t.is(d.state('a'), NODE_READY)
  await d.clock.advance(3000)
  await settled()
  t.is(d.state('a'), NODE_DOWN)
  d.desk.stop()
})

test('statuses move tasks forward only, of their own node only, and may be repeated', async (t) => {
  const d = await desk([node('a', NODE_UNKNOWN)])
  const task = Task.create({ id: 't', nodeId: 'a', status: TaskStatus.create({ state: TaskState.TASK_ASSIGNED }) })
  await d.store.update((tx) => tx.create('task', task))
  const report = (nodeId: string, state: TaskState, message = ''): Promise<void> =>
    d.tell({
      nodeId,
      sessionId: 's',
      statuses: [TaskStatusUpdate.create({ taskId: 't', status: TaskStatus.create({ state, message }) })],
    })
  const stored = (): Task => d.store.view().get('task', 't')!
  await report('a', TaskState.TASK_RUNNING, 'started')
  t.is(stored().status?.state, TaskState.TASK_RUNNING)
  t.is(stored().status?.appliedBy, 'leader')
  const version = stored().meta?.version?.index
  await report('a', TaskState.TASK_RUNNING, 'started')
  await report('a', TaskState.TASK_PREPARING, 'late')
  await report('b', TaskState.TASK_FAILED, 'not mine')
  await report('a', TaskState.TASK_NEW)
  t.is(stored().meta?.version?.index, version)
  await report('a', TaskState.TASK_FAILED, 'broken')
  t.is(stored().status?.message, 'broken')
  d.desk.stop()
})

test('tasks of a node that is down for a day are orphaned, others are not', async (t) => {
  const d = await desk([node('a', NODE_UNKNOWN), node('b', NODE_UNKNOWN)])
  const task = (id: string, nodeId: string, state: TaskState): Task =>
    Task.create({ id, nodeId, status: TaskStatus.create({ state }) })
  await d.store.update((tx) => {
    tx.create('task', task('running', 'a', TaskState.TASK_RUNNING))
    tx.create('task', task('failed', 'a', TaskState.TASK_FAILED))
    tx.create('task', task('other', 'b', TaskState.TASK_RUNNING))
  })
  await d.tell({ nodeId: 'b', sessionId: 's', description })
  await d.clock.advance(9000)
  await settled()
  t.is(d.state('a'), NODE_DOWN)
  const state = (id: string): TaskState | undefined => d.store.view().get('task', id)?.status?.state
  for (let h = 0; h < 24 * 60 + 2; h++) {
    t.is(d.state('a'), NODE_DOWN)
    if (h < 24 * 60 - 2) t.is(state('running'), TaskState.TASK_RUNNING, `minute ${h}`)
    await d.clock.advance(60_000)
    // Down as well by then, but never for long.
    await d.tell({ nodeId: 'b', sessionId: 's' })
  }
  await settled()
  t.is(state('running'), TaskState.TASK_ORPHANED)
  t.is(state('failed'), TaskState.TASK_FAILED)
  t.is(state('other'), TaskState.TASK_RUNNING)
  d.desk.stop()
})

test('a node that joins and never comes is down too; a stopped desk takes nothing', async (t) => {
  const d = await desk([])
  const n = node('late', NODE_UNKNOWN)
  await d.store.update((tx) => tx.create('node', n))
  d.desk.noteNode(n, false)
  await d.clock.advance(9000)
  await settled()
  t.is(d.state('late'), NODE_DOWN)
  d.desk.stop()
  await t.throwsAsync(d.tell({ nodeId: 'late', sessionId: 's', description }), { code: 'notLeader' })
})
