import test from 'ava'
import { NodeAvailability, type Task, TaskState, UpdateConfig, UpdateFailureAction, UpdateOrder } from '#proto'
import { isWanted, stateOf } from '../../../src/manager/objects/index.js'
import { RUNS, TestCluster } from '../support/cluster.js'

/**
 * A cluster lives through a random bad hour: updates, scaling, failures, lost and drained nodes, new leaders, no quorum. In every
 * commit the invariants hold; when things calm down every service has what its spec asks for.
 */
for (const seed of [11, 12, 13, 14])
  test(`through a bad hour states only rise, slots have one task, and all converges (seed ${seed})`, async (t) => {
    t.timeout(120_000)
    const c = new TestCluster(seed)
    const pick = <T>(items: readonly T[]): T => items[Math.floor(c.rng.random() * items.length)]!
    for (const image of ['v1', 'v2', 'v3']) c.behaviours.set(image, { ...RUNS, stopMs: 500, prepareMs: 200 })
    c.behaviours.set('flaky', { ...RUNS, runMs: 3_000, end: TaskState.TASK_FAILED })
    await c.init(5)
    const problems: string[] = []
    const check = (ok: boolean, text: string): void => {
      if (!ok) problems.push(text)
    }
    c.checks.push((commit) => {
      const touched = new Set<string>()
      for (const e of commit.events) {
        if (e.kind !== 'task') continue
        touched.add(e.object.serviceId)
        if (e.action === 'update') {
          check(e.object.desiredState >= e.old.desiredState, `desired of ${e.object.id} fell`)
          check(stateOf(e.object) >= stateOf(e.old), `observed of ${e.object.id} fell`)
          check(e.old.nodeId === '' || e.object.nodeId === e.old.nodeId, `${e.object.id} changed its node`)
          check(e.object.slot === e.old.slot, `${e.object.id} changed its slot`)
        }
        if (e.action === 'remove')
          check(
            stateOf(e.object) > TaskState.TASK_RUNNING || stateOf(e.object) < TaskState.TASK_ASSIGNED,
            `${e.object.id} was deleted while its node had it`,
          )
      }
      for (const id of touched) {
        const service = c.store.view().get('service', id)
        const startFirst =
          service?.spec?.update?.order === UpdateOrder.START_FIRST ||
          service?.spec?.rollback?.order === UpdateOrder.START_FIRST
        const bySlot = new Map<string, Task[]>()
        for (const task of c.tasks(id).filter(isWanted)) {
          const key = service?.spec?.mode?.global ? task.nodeId : String(task.slot)
          bySlot.set(key, [...(bySlot.get(key) ?? []), task])
        }
        for (const [key, tasks] of bySlot)
          check(tasks.length <= (startFirst ? 2 : 1), `slot ${key} of ${id} has ${tasks.length} wanted tasks`)
      }
    })
    c.start()
    const services = [
      await c.createService('web', { image: 'v1', replicas: 4 }),
      await c.createService('api', { image: 'v1', replicas: 7 }),
      await c.createService('agent', { image: 'v1', mode: { global: {} } }),
    ]
    const lost = new Set<string>()
    for (let i = 0; i < 150; i++) {
      await c.clock.advance(Math.floor(c.rng.random() ** 3 * 20_000))
      const id = pick(services)
      const dice = c.rng.random()
      if (dice < 0.25) {
        const image = pick(['v1', 'v2', 'v3', 'flaky'])
        const update = UpdateConfig.create({
          parallelism: pick([0, 1, 2]),
          order: pick([UpdateOrder.STOP_FIRST, UpdateOrder.START_FIRST]),
          failureAction: pick([
            UpdateFailureAction.FAILURE_PAUSE,
            UpdateFailureAction.FAILURE_CONTINUE,
            UpdateFailureAction.FAILURE_ROLLBACK,
          ]),
        })
        await c.updateService(id, (s) => ({
          ...s,
          update,
          task: { ...s.task!, container: { ...s.task!.container!, image } },
        }))
      } else if (dice < 0.4 && id !== services[2])
        await c.updateService(id, (s) => ({
          ...s,
          mode: { ...s.mode!, replicated: { replicas: Math.floor(c.rng.random() * 10) } },
        }))
      else if (dice < 0.6) {
        const task = c.running(id)[0]
        if (task) await c.report(task.id, pick([TaskState.TASK_FAILED, TaskState.TASK_COMPLETE]))
      } else if (dice < 0.75) {
        const node = pick(['n1', 'n2', 'n3', 'n4'])
        if (lost.delete(node)) await c.comeBack(node)
        else {
          lost.add(node)
          await c.lose(node)
        }
      } else if (dice < 0.85)
        await c.setNode(pick(['n3', 'n4', 'n5']), {
          availability: pick([NodeAvailability.ACTIVE, NodeAvailability.DRAIN]),
        })
      else if (dice < 0.95) await c.changeLeader()
      else if (dice < 0.97) {
        c.log.refuse = true
        await c.clock.advance(1_000)
        c.log.refuse = false
      } else {
        c.log.late = 1 + Math.floor(c.rng.random() * 3)
        await c.clock.advance(1_000)
        c.log.late = 0
      }
    }
    for (const id of lost) await c.comeBack(id)
    for (const id of ['n1', 'n2', 'n3', 'n4', 'n5']) await c.setNode(id, { availability: NodeAvailability.ACTIVE })
    for (const id of services)
      await c.updateService(id, (s) => ({
        ...s,
        update: UpdateConfig.create({ parallelism: 0 }),
        task: { ...s.task!, forceUpdate: 1, container: { ...s.task!.container!, image: 'v3' } },
      }))
    await c.clock.advance(120_000)
    t.deepEqual(problems.slice(0, 5), [])
    for (const id of services) {
      const wanted = c.service(id).spec!.mode!.replicated?.replicas ?? 5
      t.is(c.running(id).length, wanted, `${id} has as many as asked for`)
      t.true(c.running(id).every((x) => x.spec!.container!.image === 'v3'))
      const live = c.tasks(id).filter((x) => stateOf(x) === TaskState.TASK_RUNNING)
      t.is(live.length, wanted, 'and nothing else runs')
    }
    await c.stop()
  })
