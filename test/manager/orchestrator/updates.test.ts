import test from 'ava'
import type { ServiceSpec, UpdateConfig } from '#proto'
import {
  UpdateConfig as Config,
  NodeAvailability,
  RestartCondition,
  TaskState,
  UpdateFailureAction,
  UpdateOrder,
  UpdateState,
} from '#proto'
import { isWanted, millis, stateOf } from '../../../src/manager/objects/index.js'
import { MS, RUNS, TestCluster } from '../support/cluster.js'

async function cluster(nodes: number): Promise<TestCluster> {
  const c = new TestCluster()
  c.behaviours.set('v2', RUNS)
  c.behaviours.set('bad', { ...RUNS, failsIn: TaskState.TASK_STARTING })
  c.behaviours.set('shortlived', { ...RUNS, runMs: 2_000, end: TaskState.TASK_FAILED })
  await c.init(nodes)
  c.start()
  await c.clock.settle()
  return c
}

const withImage =
  (image: string, update: Partial<UpdateConfig> = {}) =>
  (spec: ServiceSpec): ServiceSpec => ({
    ...spec,
    update: Config.create(update),
    task: { ...spec.task!, container: { ...spec.task!.container!, image } },
  })

const images = (c: TestCluster, id: string): readonly string[] =>
  c
    .running(id)
    .map((x) => x.spec!.container!.image)
    .sort()

test('an update replaces one slot after another, old first stopped, and completes after the monitor time', async (t) => {
  const c = await cluster(3)
  const web = await c.createService('web', { replicas: 3 })
  await c.clock.advance(1_000)
  let most = 0
  let least = 3
  c.checks.push(() => {
    const all = c.tasks(web).filter((x) => stateOf(x) === TaskState.TASK_RUNNING)
    most = Math.max(most, all.length)
    least = Math.min(least, all.length)
  })
  await c.updateService(web, withImage('v2', { parallelism: 1 }))
  t.is(c.updateState(web), UpdateState.UPDATE_UPDATING)
  await c.clock.advance(2_000)
  t.deepEqual(images(c, web), ['v2', 'v2', 'v2'])
  t.is(c.updateState(web), UpdateState.UPDATE_UPDATING, 'still watching')
  await c.clock.advance(6_000)
  t.is(c.updateState(web), UpdateState.UPDATE_COMPLETED)
  t.is(most, 3)
  t.is(least, 2)
  t.is(c.service(web).updateStatus!.message, 'update completed')
  await c.stop()
})

test('with start-first no slot is ever without a running task', async (t) => {
  const c = await cluster(3)
  const web = await c.createService('web', { replicas: 3 })
  await c.clock.advance(1_000)
  let least = 3
  let most = 0
  c.checks.push(() => {
    least = Math.min(least, c.running(web).length)
    most = Math.max(most, c.tasks(web).filter((x) => stateOf(x) === TaskState.TASK_RUNNING).length)
  })
  await c.updateService(web, withImage('v2', { parallelism: 1, order: UpdateOrder.START_FIRST }))
  await c.clock.advance(10_000)
  t.deepEqual(images(c, web), ['v2', 'v2', 'v2'])
  t.is(least, 3)
  t.is(most, 4)
  t.is(c.updateState(web), UpdateState.UPDATE_COMPLETED)
  await c.stop()
})

test('parallelism bounds the slots under way, and the delay passes between them', async (t) => {
  const c = await cluster(3)
  const web = await c.createService('web', { replicas: 6 })
  await c.clock.advance(1_000)
  let most = 0
  c.checks.push(() => {
    const without = 6 - new Set(c.running(web).map((x) => x.slot)).size
    most = Math.max(most, without)
  })
  await c.updateService(web, withImage('v2', { parallelism: 2, delay: 10_000 * MS }))
  await c.clock.advance(5_000)
  t.is(images(c, web).filter((i) => i === 'v2').length, 2)
  await c.clock.advance(10_000)
  t.is(images(c, web).filter((i) => i === 'v2').length, 4)
  await c.clock.advance(10_000)
  t.is(images(c, web).filter((i) => i === 'v2').length, 6)
  t.is(most, 2)
  await c.clock.advance(12_000)
  t.is(c.updateState(web), UpdateState.UPDATE_COMPLETED)
  await c.stop()
})

test('a task that fails within the monitor time pauses the update, which names it', async (t) => {
  const c = await cluster(3)
  const web = await c.createService('web', { replicas: 3 })
  await c.clock.advance(1_000)
  await c.updateService(web, withImage('shortlived', { parallelism: 1, monitor: 5_000 * MS, delay: 3_000 * MS }))
  await c.clock.advance(30_000)
  const status = c.service(web).updateStatus!
  t.is(status.state, UpdateState.UPDATE_PAUSED)
  const id = /^update paused due to failure or early termination of task (\w+)$/.exec(status.message)?.[1]
  t.true(c.tasks(web).some((x) => x.id === id))
  t.is(images(c, web).filter((i) => i === 'nginx').length, 2, 'the other slots were left alone')
  await c.updateService(web, withImage('v2', { parallelism: 1 }))
  await c.clock.advance(20_000)
  t.deepEqual(images(c, web), ['v2', 'v2', 'v2'])
  await c.stop()
})

test('a failing update with action rollback ends on the spec before, and rollback_completed', async (t) => {
  const c = await cluster(3)
  const web = await c.createService('web', { replicas: 4 })
  await c.clock.advance(1_000)
  await c.updateService(web, withImage('bad', { parallelism: 2, failureAction: UpdateFailureAction.FAILURE_ROLLBACK }))
  await c.clock.advance(1_000)
  t.is(c.updateState(web), UpdateState.ROLLBACK_STARTED)
  t.is(c.service(web).previousSpec, null)
  await c.clock.advance(60_000)
  t.is(c.updateState(web), UpdateState.ROLLBACK_COMPLETED)
  t.deepEqual(images(c, web), ['nginx', 'nginx', 'nginx', 'nginx'])
  await c.stop()
})

test('a failing rollback only pauses', async (t) => {
  const c = await cluster(2)
  const web = await c.createService('web', { replicas: 2 })
  await c.clock.advance(1_000)
  await c.updateService(web, withImage('bad', { parallelism: 1, failureAction: UpdateFailureAction.FAILURE_ROLLBACK }))
  c.behaviours.set('nginx', { ...RUNS, failsIn: TaskState.TASK_STARTING })
  await c.clock.advance(60_000)
  t.is(c.updateState(web), UpdateState.ROLLBACK_PAUSED)
  await c.stop()
})

test('a rollback on request is not stopped by what failed before the update', async (t) => {
  const c = await cluster(2)
  c.behaviours.set('nginx', { ...RUNS, runMs: 1_000, end: TaskState.TASK_FAILED })
  const web = await c.createService('web', { replicas: 2 })
  await c.clock.advance(2_000)
  t.true(c.tasks(web).some((x) => stateOf(x) === TaskState.TASK_FAILED))
  c.behaviours.set('nginx', RUNS)
  await c.updateService(web, withImage('v2', { parallelism: 1 }))
  await c.clock.advance(20_000)
  await c.rollBack(web)
  await c.clock.advance(20_000)
  t.is(c.updateState(web), UpdateState.ROLLBACK_COMPLETED)
  t.deepEqual(images(c, web), ['nginx', 'nginx'])
  t.true(millis(c.service(web).updateStatus!.startedAt) > 20_000)
  await c.stop()
})

test('failures below the ratio, or with action continue, do not stop an update', async (t) => {
  const c = await cluster(2)
  const web = await c.createService('web', { replicas: 2 })
  await c.clock.advance(1_000)
  await c.updateService(web, withImage('bad', { parallelism: 1, failureAction: UpdateFailureAction.FAILURE_CONTINUE }))
  await c.clock.advance(3_000)
  t.deepEqual(images(c, web), [])
  t.true(
    c
      .tasks(web)
      .filter(isWanted)
      .every((x) => x.spec!.container!.image === 'bad'),
  )
  await c.updateService(web, withImage('shortlived', { parallelism: 1, maxFailureRatio: 0.6 }))
  await c.clock.advance(2_000)
  t.not(c.updateState(web), UpdateState.UPDATE_PAUSED)
  await c.stop()
})

test('another leader goes on with an update in the middle, updating no slot twice', async (t) => {
  const c = await cluster(3)
  const web = await c.createService('web', { replicas: 6 })
  await c.clock.advance(1_000)
  await c.updateService(web, withImage('v2', { parallelism: 1, delay: 2_000 * MS }))
  for (let i = 0; i < 14; i++) {
    await c.clock.advance(1_000)
    await c.changeLeader()
  }
  await c.clock.advance(10_000)
  t.deepEqual(images(c, web), new Array(6).fill('v2'))
  t.is(c.tasks(web).length, 12, 'one new task a slot')
  t.is(c.updateState(web), UpdateState.UPDATE_COMPLETED)
  await c.stop()
})

test('a newer update takes over from one under way', async (t) => {
  const c = await cluster(3)
  const web = await c.createService('web', { replicas: 6 })
  await c.clock.advance(1_000)
  await c.updateService(web, withImage('shortlived', { parallelism: 1, delay: 1_000 * MS }))
  await c.clock.advance(1_500)
  await c.updateService(web, withImage('v2', { parallelism: 0 }))
  await c.clock.advance(10_000)
  t.deepEqual(images(c, web), new Array(6).fill('v2'))
  await c.stop()
})

test('changes that no task depends on replace no task', async (t) => {
  const c = await cluster(3)
  const web = await c.createService('web', { replicas: 3 })
  await c.clock.advance(1_000)
  const ids = c.tasks(web).map((x) => x.id)
  await c.updateService(web, (s) => ({
    ...s,
    annotations: { ...s.annotations!, labels: { a: 'b' } },
    update: Config.create(),
  }))
  await c.updateService(web, (s) => ({
    ...s,
    task: {
      ...s.task!,
      placement: { constraints: ['node.role==worker'], preferences: [], maxReplicas: 0, platforms: [] },
    },
  }))
  await c.updateService(web, (s) => ({
    ...s,
    task: { ...s.task!, container: { ...s.task!.container!, pullOptions: { registryAuth: 'x' } } },
  }))
  await c.clock.advance(20_000)
  t.deepEqual(
    c.tasks(web).map((x) => x.id),
    ids,
  )
  await c.updateService(web, (s) => ({ ...s, task: { ...s.task!, forceUpdate: 1 }, update: Config.create() }))
  await c.clock.advance(20_000)
  t.is(c.running(web).length, 3)
  t.true(
    c.running(web).every((x) => !ids.includes(x.id)),
    'forced',
  )
  await c.stop()
})

test('a task that no longer meets the constraints of its service moves away', async (t) => {
  const c = await cluster(0)
  await c.addNode('a', {}, { zone: 'x' })
  await c.addNode('b', {}, { zone: 'x' })
  const web = await c.createService('web', {
    task: { placement: { constraints: ['node.labels.zone==x'], preferences: [], maxReplicas: 0, platforms: [] } },
  })
  await c.clock.advance(1_000)
  const first = c.running(web)[0]!
  await c.setNode(first.nodeId, { labels: {} })
  await c.clock.advance(10_000)
  t.is(stateOf(c.tasks(web).find((x) => x.id === first.id)!), TaskState.TASK_REJECTED)
  t.not(c.running(web)[0]!.nodeId, first.nodeId)
  await c.stop()
})

test('a global service has one task on each matching node and follows nodes', async (t) => {
  const c = await cluster(2)
  const agent = await c.createService('agent', { mode: { global: {} } })
  await c.clock.advance(1_000)
  t.deepEqual(c.spread(agent), { n1: 1, n2: 1 })
  await c.addNode('n3')
  await c.clock.advance(1_000)
  t.deepEqual(c.spread(agent), { n1: 1, n2: 1, n3: 1 })
  await c.setNode('n1', { availability: NodeAvailability.DRAIN })
  await c.lose('n2')
  await c.clock.advance(1_000)
  t.deepEqual(
    c.running(agent).map((x) => x.nodeId),
    ['n3'],
  )
  await c.setNode('n1', { availability: NodeAvailability.ACTIVE })
  await c.comeBack('n2')
  await c.clock.advance(1_000)
  t.deepEqual(c.spread(agent), { n1: 1, n2: 1, n3: 1 })
  await c.stop()
})

test('a global service is updated node by node; a node that is down is not waited for', async (t) => {
  const c = await cluster(3)
  const agent = await c.createService('agent', { mode: { global: {} } })
  await c.clock.advance(1_000)
  await c.lose('n2')
  await c.clock.advance(500)
  await c.updateService(agent, withImage('v2', { parallelism: 1 }))
  await c.clock.advance(10_000)
  t.is(c.updateState(agent), UpdateState.UPDATE_COMPLETED)
  t.deepEqual(images(c, agent), ['v2', 'v2'])
  await c.stop()
})

test('a replicated job completes as often as asked, never more at once than allowed', async (t) => {
  const c = await cluster(3)
  c.behaviours.set('true', { ...RUNS, runMs: 1_000, end: TaskState.TASK_COMPLETE })
  let most = 0
  const job = await c.createService('job', {
    image: 'true',
    mode: { replicatedJob: { maxConcurrent: 2, totalCompletions: 5 } },
  })
  c.checks.push(() => {
    most = Math.max(most, c.tasks(job).filter((x) => stateOf(x) <= TaskState.TASK_RUNNING && isWanted(x)).length)
  })
  await c.clock.advance(20_000)
  const complete = () => c.tasks(job).filter((x) => stateOf(x) === TaskState.TASK_COMPLETE).length
  t.is(complete(), 5)
  t.deepEqual(
    c
      .tasks(job)
      .map((x) => x.slot)
      .sort(),
    [0, 1, 2, 3, 4],
  )
  t.is(most, 2)
  await c.changeLeader()
  await c.clock.advance(20_000)
  t.is(c.tasks(job).length, 5, 'another leader runs nothing again')
  await c.updateService(job, (s) => ({ ...s, task: { ...s.task!, forceUpdate: 1 } }))
  await c.clock.advance(20_000)
  t.is(complete(), 5)
  t.true(
    c.tasks(job).every((x) => x.jobIteration?.index === 1),
    'the old iteration is gone',
  )
  await c.stop()
})

test('a failing job task is tried again as its policy says, and not for ever', async (t) => {
  const c = await cluster(1)
  c.behaviours.set('false', { ...RUNS, runMs: 100, end: TaskState.TASK_FAILED })
  const job = await c.createService('job', {
    image: 'false',
    mode: { replicatedJob: { maxConcurrent: 1, totalCompletions: 1 } },
    task: { restart: { condition: RestartCondition.RESTART_ANY, delay: 1_000 * MS, maxAttempts: 2, window: 0 } },
  })
  await c.clock.advance(60_000)
  t.is(c.tasks(job).length, 3)
  t.is(c.tasks(job).filter(isWanted).length, 0)
  await c.stop()
})

test('a global job runs once on each node of its time, not on nodes that come later', async (t) => {
  const c = await cluster(2)
  c.behaviours.set('true', { ...RUNS, runMs: 100, end: TaskState.TASK_COMPLETE })
  await c.clock.advance(1_000)
  const job = await c.createService('job', { image: 'true', mode: { globalJob: {} } })
  await c.clock.advance(1_000)
  await c.addNode('n3')
  await c.clock.advance(10_000)
  t.deepEqual(
    c
      .tasks(job)
      .map((x) => [x.nodeId, stateOf(x)])
      .sort(),
    [
      ['n1', TaskState.TASK_COMPLETE],
      ['n2', TaskState.TASK_COMPLETE],
    ],
  )
  await c.updateService(job, (s) => ({ ...s, task: { ...s.task!, forceUpdate: 1 } }))
  await c.clock.advance(10_000)
  t.is(c.tasks(job).length, 3, 'the next iteration has the new node')
  await c.stop()
})

test('a node that is down for a day loses its tasks to orphaned', async (t) => {
  const c = await cluster(2)
  const web = await c.createService('web', { replicas: 2 })
  await c.clock.advance(1_000)
  await c.lose('n1')
  await c.clock.advance(23 * 3600_000)
  t.is(c.tasks(web).filter((x) => stateOf(x) === TaskState.TASK_ORPHANED).length, 0)
  await c.clock.advance(2 * 3600_000)
  t.is(c.tasks(web).filter((x) => stateOf(x) === TaskState.TASK_ORPHANED).length, 1)
  t.true(millis(c.tasks(web)[0]!.meta!.createdAt) > 0)
  await c.stop()
})
