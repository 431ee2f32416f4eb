import test from 'ava'
import { NodeAvailability, NodeState, RestartCondition, TaskState } from '#proto'
import { isWanted, stateOf } from '../../../src/manager/objects/index.js'
import { MS, RUNS, TestCluster } from '../support/cluster.js'

async function cluster(nodes: number, options: { ingress?: boolean; history?: number } = {}): Promise<TestCluster> {
  const c = new TestCluster()
  await c.init(nodes, options)
  c.start()
  await c.clock.settle()
  return c
}

test('a service of six on three nodes runs two on each', async (t) => {
  const c = await cluster(3)
  const web = await c.createService('web', { replicas: 6 })
  await c.clock.advance(1_000)
  t.deepEqual(c.spread(web), { n1: 2, n2: 2, n3: 2 })
  t.deepEqual(
    c
      .tasks(web)
      .map((x) => x.slot)
      .sort(),
    [1, 2, 3, 4, 5, 6],
  )
  await c.stop()
})

test('a service scaled from six to three keeps one on each node', async (t) => {
  const c = await cluster(3)
  const web = await c.createService('web', { replicas: 6 })
  await c.clock.advance(1_000)
  await c.updateService(web, (s) => ({ ...s, mode: { ...s.mode!, replicated: { replicas: 3 } } }))
  await c.clock.advance(1_000)
  t.deepEqual(c.spread(web), { n1: 1, n2: 1, n3: 1 })
  t.is(c.tasks(web).length, 3, 'tasks told to go are gone when their node reported them stopped')
  await c.stop()
})

test('a task that ends is replaced in its slot after the restart delay', async (t) => {
  const c = await cluster(1)
  const web = await c.createService('web', {})
  await c.clock.advance(1_000)
  const first = c.running(web)[0]!
  await c.report(first.id, TaskState.TASK_FAILED)
  await c.clock.advance(100)
  const second = c.tasks(web).find((x) => x.id !== first.id)!
  t.is(second.slot, first.slot)
  t.is(second.desiredState, TaskState.TASK_READY)
  t.is(stateOf(second), TaskState.TASK_READY, 'its image is there before the delay is over')
  await c.clock.advance(4_800)
  t.is(c.running(web).length, 0)
  await c.clock.advance(300)
  t.is(c.running(web)[0]!.id, second.id)
  await c.stop()
})

test('a bad image is tried once per restart delay', async (t) => {
  const c = await cluster(1, { history: -1 })
  c.behaviours.set('bad', { ...RUNS, failsIn: TaskState.TASK_PREPARING })
  const web = await c.createService('web', { image: 'bad' })
  await c.clock.advance(60_000)
  t.true(c.tasks(web).length >= 11 && c.tasks(web).length <= 14, `${c.tasks(web).length} tasks in a minute`)
  await c.stop()
})

test('two restart attempts make three tasks, on any leader', async (t) => {
  const c = await cluster(1)
  c.behaviours.set('false', { ...RUNS, runMs: 10, end: TaskState.TASK_FAILED })
  const task = { restart: { condition: RestartCondition.RESTART_ANY, delay: 1_000 * MS, maxAttempts: 2, window: 0 } }
  const web = await c.createService('web', { image: 'false', task })
  await c.clock.advance(1_500)
  await c.changeLeader()
  await c.clock.advance(60_000)
  t.is(c.tasks(web).length, 3)
  t.is(c.tasks(web).filter(isWanted).length, 0)
  await c.stop()
})

test('with a history limit of five a slot keeps four ended tasks beside the running one', async (t) => {
  const c = await cluster(1)
  const web = await c.createService('web', {})
  for (let i = 0; i < 8; i++) {
    await c.clock.advance(10_000)
    await c.report(c.running(web)[0]!.id, TaskState.TASK_FAILED)
  }
  await c.clock.advance(10_000)
  t.is(c.tasks(web).length, 5)
  t.is(c.running(web).length, 1)
  await c.stop()
})

test('tasks of a lost node run elsewhere at once, and are stopped where they were when it comes back', async (t) => {
  const c = await cluster(3)
  const web = await c.createService('web', { replicas: 6 })
  await c.clock.advance(1_000)
  await c.lose('n1')
  await c.clock.advance(500)
  t.deepEqual(c.spread(web), { n2: 3, n3: 3 })
  await c.comeBack('n1')
  await c.clock.advance(1_000)
  t.deepEqual(c.spread(web), { n2: 3, n3: 3 })
  t.is(c.tasks(web).filter((x) => stateOf(x) === TaskState.TASK_RUNNING).length, 6)
  await c.stop()
})

test('a drained node is emptied without a delay, and a paused one keeps its tasks', async (t) => {
  const c = await cluster(3)
  const web = await c.createService('web', { replicas: 6 })
  await c.clock.advance(1_000)
  await c.setNode('n2', { availability: NodeAvailability.PAUSE })
  await c.setNode('n1', { availability: NodeAvailability.DRAIN })
  await c.clock.advance(500)
  t.deepEqual(c.spread(web), { n2: 2, n3: 4 })
  await c.stop()
})

test('another leader starts nothing anew and takes nothing away', async (t) => {
  const c = await cluster(3)
  const web = await c.createService('web', { replicas: 6 })
  await c.clock.advance(1_000)
  const before = c.tasks(web).map((x) => x.id)
  for (const id of ['n1', 'n2', 'n3']) await c.setNode(id, { state: NodeState.NODE_UNKNOWN })
  await c.changeLeader()
  await c.clock.advance(2_000)
  for (const id of ['n1', 'n2', 'n3']) await c.setNode(id, { state: NodeState.NODE_READY })
  await c.clock.advance(10_000)
  t.deepEqual(
    c.tasks(web).map((x) => x.id),
    before,
  )
  await c.stop()
})

test('a removed service goes when its tasks have stopped', async (t) => {
  const c = await cluster(2)
  const web = await c.createService('web', { replicas: 4 })
  await c.clock.advance(1_000)
  await c.removeService(web)
  t.is(c.tasks(web).length, 4)
  t.truthy(c.service(web))
  await c.clock.advance(1_000)
  t.is(c.tasks(web).length, 0)
  t.is(c.store.view().get('service', web), null)
  await c.stop()
})

test('a leader without a quorum goes on when it has one again', async (t) => {
  const c = await cluster(2)
  const web = await c.createService('web', { replicas: 2 })
  await c.clock.advance(1_000)
  c.log.refuse = true
  const first = c.running(web)[0]!
  await t.throwsAsync(() => c.setNode(first.nodeId, { availability: NodeAvailability.DRAIN }))
  c.log.refuse = false
  await c.setNode(first.nodeId, { availability: NodeAvailability.DRAIN })
  c.log.refuse = true
  await c.clock.advance(5_000)
  c.log.refuse = false
  await c.clock.advance(5_000)
  t.is(c.running(web).length, 2)
  t.is(Object.keys(c.spread(web)).length, 1)
  await c.stop()
})

test('a service goes although one of its tasks sits on a lost node; that task goes when the node is back', async (t) => {
  const c = await cluster(2)
  const web = await c.createService('web', { replicas: 2 })
  await c.clock.advance(1_000)
  await c.lose('n1')
  await c.removeService(web)
  await c.clock.advance(1_000)
  t.is(c.store.view().get('service', web), null)
  t.deepEqual(
    c.tasks(web).map((x) => x.nodeId),
    ['n1'],
  )
  await c.comeBack('n1')
  await c.clock.advance(1_000)
  t.is(c.tasks(web).length, 0)
  await c.stop()
})

test('tasks of a node that is deleted are orphaned and replaced', async (t) => {
  const c = await cluster(2)
  const web = await c.createService('web', { replicas: 2 })
  await c.clock.advance(1_000)
  await c.lose('n1')
  await c.store.update((tx) => tx.remove('node', 'n1'))
  await c.clock.advance(1_000)
  t.deepEqual(c.spread(web), { n2: 2 })
  t.true(
    c
      .tasks(web)
      .filter((x) => x.nodeId === 'n1')
      .every((x) => stateOf(x) === TaskState.TASK_ORPHANED),
  )
  await c.stop()
})

test('a thousand replicas appear in a few entries of the log and run', async (t) => {
  t.timeout(60_000)
  const c = await cluster(20)
  const before = c.log.entries
  const web = await c.createService('web', { replicas: 1_000 })
  await c.clock.settle(20)
  t.is(c.tasks(web).length, 1_000)
  t.true(c.log.entries - before < 60, `${c.log.entries - before} entries`)
  await c.clock.advance(2_000)
  t.is(c.running(web).length, 1_000)
  t.true(Object.values(c.spread(web)).every((n) => n === 50))
  await c.stop()
})
