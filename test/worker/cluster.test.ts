import { join } from 'node:path'
import test from 'ava'
import {
  Annotations,
  CreateRequest,
  NetworkAttachmentConfig,
  NetworkSpec,
  ObjectKind,
  RemoveRequest,
  type Service,
  type ServiceSpec,
  type Task,
  TaskState,
  UpdateConfig,
  UpdateRequest,
  UpdateState,
} from '#proto'
import { nullLogger, systemClock, systemRng } from '../../src/common/index.js'
import { type Agent, createAgent } from '../../src/worker/index.js'
import { createService, EMPTY_SPEC, type LabManager, list, ManagerLab, serviceSpec, until } from '../manager/lab.js'
import { FakeExecutor, FakeHost } from './fake-executor.js'
import { temporaryDir } from './support.js'

interface Worker {
  agent: Agent
  executor: FakeExecutor
  readonly host: FakeHost
  readonly nodeId: string
  start(): Promise<void>
}

async function worker(lab: ManagerLab, dir: string, name: string): Promise<Worker> {
  const at = lab.managers[0]!
  const token = (await lab.cluster(at)).rootCa!.workerToken
  const identity = await lab.ca.join({ remote: at.address, token, availability: 0 })
  const host = new FakeHost()
  const made: Worker = {
    host,
    nodeId: identity.nodeId,
    executor: null as unknown as FakeExecutor,
    agent: null as unknown as Agent,
    async start() {
      made.executor = new FakeExecutor(host)
      made.executor.hostname = name
      made.agent = createAgent(
        { dir: join(dir, name), scratchDir: dir, nodeId: identity.nodeId },
        {
          clock: systemClock,
          rng: systemRng,
          logger: nullLogger,
          executor: made.executor,
          identity: () => identity,
          managers: () => [at.address],
          onSession: () => {},
          onRemoved: () => {},
        },
      )
      await made.agent.start()
    },
  }
  await made.start()
  return made
}

const tasksOf = async (m: LabManager, service: Service): Promise<Task[]> =>
  (await list(m, ObjectKind.KIND_TASK, { service: [service.id] })).map((o) => o.task!)
const runningOf = async (m: LabManager, service: Service): Promise<Task[]> =>
  (await tasksOf(m, service)).filter(
    (x) => x.status!.state === TaskState.TASK_RUNNING && x.desiredState === TaskState.TASK_RUNNING,
  )

async function update(m: LabManager, id: string, change: (spec: ServiceSpec) => ServiceSpec): Promise<void> {
  const service = (await list(m, ObjectKind.KIND_SERVICE, { id: [id] }))[0]!.service!
  await m.manager.control.update(
    UpdateRequest.create({
      kind: ObjectKind.KIND_SERVICE,
      id,
      version: service.meta!.version,
      spec: { ...EMPTY_SPEC, service: change(service.spec!) },
    }),
  )
}

test('a manager and two agents: a service on a network runs, scales, rolls, outlives a daemon, and is removed', async (t) => {
  t.timeout(120_000)
  const dir = await temporaryDir(t)
  const lab = await ManagerLab.create()
  const workers: Worker[] = []
  try {
    const m = lab.managers[0]!
    for (const name of ['one', 'two']) workers.push(await worker(lab, dir, name))
    const network = (
      await m.manager.control.create(
        CreateRequest.create({
          spec: { ...EMPTY_SPEC, network: NetworkSpec.create({ annotations: Annotations.create({ name: 'net' }) }) },
        }),
      )
    ).object!.network!
    const spec = serviceSpec('web', 4)
    const web = await createService(m, {
      ...spec,
      task: { ...spec.task!, networks: [NetworkAttachmentConfig.create({ target: network.id })] },
    })
    await until('four tasks run', async () => (await runningOf(m, web)).length === 4)
    const perNode = workers.map((w) => w.host.containers.size)
    t.is(perNode[0]! + perNode[1]!, 4)
    const addresses = (await runningOf(m, web)).map((x) => x.networks[0]!.addresses[0]!)
    t.is(new Set(addresses).size, 4)
    for (const w of workers)
      if (w.host.containers.size > 0) {
        const update = w.executor.calls.findIndex((c) => c.startsWith(`network ${network.id}`))
        const prepare = w.executor.calls.findIndex((c) => c.startsWith('prepare'))
        t.true(update >= 0 && update < prepare, 'the network is there before its first task')
      }

    // A daemon goes and comes back: its containers are adopted, nothing is replaced.
    const before = (await runningOf(m, web)).map((x) => x.id).sort()
    const first = workers.find((w) => w.host.containers.size > 0)!
    await first.agent.stop()
    await first.start()
    await until('connected again', () => first.agent.connected)
    t.deepEqual((await runningOf(m, web)).map((x) => x.id).sort(), before)
    t.true([...first.host.containers.values()].every((c) => c.starts === 1))

    await update(m, web.id, (s) => ({
      ...s,
      mode: { ...s.mode!, replicated: { replicas: 6 } },
      update: UpdateConfig.create({ parallelism: 2, monitor: 100e6 }),
      task: { ...s.task!, container: { ...s.task!.container!, image: 'nginx:2' } },
    }))
    await until('the update is complete', async () => {
      const now = (await list(m, ObjectKind.KIND_SERVICE, { id: [web.id] }))[0]!.service!
      return now.updateStatus?.state === UpdateState.UPDATE_COMPLETED && (await runningOf(m, web)).length === 6
    })
    t.true((await runningOf(m, web)).every((x) => x.spec!.container!.image === 'nginx:2'))

    await m.manager.control.remove(RemoveRequest.create({ kind: ObjectKind.KIND_SERVICE, id: web.id }))
    await until('all containers are gone', () => workers.every((w) => w.host.containers.size === 0))
    await until('and all tasks', async () => (await list(m, ObjectKind.KIND_TASK)).length === 0)
  } finally {
    for (const w of workers) await w.agent.stop()
    await lab.close()
  }
})
