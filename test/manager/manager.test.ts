import test from 'ava'
import { GetRequest, ObjectKind, TaskState, UpdateRequest } from '#proto'
import { createService, EMPTY_SPEC, list, ManagerLab, serviceSpec, until } from './lab.js'

test('three managers: a service created at a follower runs, scales, and survives the loss of the leader', async (t) => {
  t.timeout(90_000)
  const lab = await ManagerLab.create(3)
  try {
    const follower = lab.followers()[0]!
    const agents = [await lab.worker(lab.managers[0]), await lab.worker(lab.managers[1]), await lab.worker(follower)]
    const service = await createService(follower, serviceSpec('web', 3))
    t.regex(service.id, /^[a-z0-9]{25}$/)
    await until('three tasks run', async () => {
      const tasks = await list(follower, ObjectKind.KIND_TASK, { service: ['web'] })
      return tasks.filter((o) => o.task!.status!.state === TaskState.TASK_RUNNING).length === 3
    })
    t.deepEqual(
      agents.map((a) => a.running().length),
      [1, 1, 1],
    )

    const leader = lab.leader()!
    await leader.manager.stop()
    lab.managers.splice(lab.managers.indexOf(leader), 1)
    const left = lab.managers[0]!
    const now = (await left.manager.control.get(GetRequest.create({ kind: ObjectKind.KIND_SERVICE, reference: 'web' })))
      .object!.service!
    const spec = { ...now.spec!, mode: { ...now.spec!.mode!, replicated: { replicas: 5 } } }
    await left.manager.control.update(
      UpdateRequest.create({
        kind: ObjectKind.KIND_SERVICE,
        id: now.id,
        version: now.meta!.version,
        spec: { ...EMPTY_SPEC, service: spec },
      }),
    )
    await until('the new leader has made two more', async () => {
      const tasks = await list(left, ObjectKind.KIND_TASK, { service: ['web'], 'desired-state': ['running'] })
      return tasks.length === 5
    })
    t.true(agents.every((a) => a.gaps === 0))
  } finally {
    await lab.close()
  }
})
