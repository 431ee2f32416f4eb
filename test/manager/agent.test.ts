import { join } from 'node:path'
import test from 'ava'
import {
  Annotations,
  CreateRequest,
  FileTarget,
  GetRequest,
  LogRequest,
  NodeState,
  ObjectKind,
  RemoveRequest,
  SecretReference,
  SecretSpec,
  type Service,
  ServiceLogsRequest,
  type ServiceSpec,
  UpdateRequest,
} from '#proto'
import { nullLogger, systemClock, systemRng } from '../../src/common/index.js'
import type { NodeIdentity } from '../../src/manager/index.js'
import { type Agent, createAgent } from '../../src/worker/index.js'
import { FakeExecutor } from '../worker/fake-executor.js'
import { createService, EMPTY_SPEC, isReady, type LabManager, list, ManagerLab, serviceSpec, until } from './lab.js'

interface RealNode {
  readonly agent: Agent
  readonly executor: FakeExecutor
  readonly identity: NodeIdentity
  removed: boolean
}

/** The agent as the daemon runs it, on containers that are only pretended. */
async function worker(lab: ManagerLab, at: LabManager): Promise<RealNode> {
  const token = (await lab.cluster(at)).rootCa!.workerToken
  const identity = await lab.ca.join({ remote: at.address, token, availability: 0 })
  const executor = new FakeExecutor()
  executor.hostname = `real-${identity.nodeId.slice(0, 4)}`
  const node: RealNode = {
    executor,
    identity,
    removed: false,
    agent: createAgent(
      { dir: join(lab.dir, `worker-${identity.nodeId}`), scratchDir: lab.dir, nodeId: identity.nodeId },
      {
        clock: systemClock,
        rng: systemRng,
        logger: nullLogger,
        executor,
        identity: () => identity,
        managers: () => [at.address, ...lab.managers.map((m) => m.address)],
        onSession: () => {},
        onRemoved: () => {
          node.removed = true
        },
      },
    ),
  }
  await node.agent.start()
  await isReady(at, identity.nodeId)
  return node
}

const running = (n: RealNode): string[] =>
  [...n.executor.host.containers].filter(([, c]) => c.state === 'running').map(([id]) => id)

async function update(m: LabManager, change: (spec: ServiceSpec) => ServiceSpec): Promise<Service> {
  for (;;) {
    const now = (await m.manager.control.get(GetRequest.create({ kind: ObjectKind.KIND_SERVICE, reference: 'web' })))
      .object!.service!
    const spec = { ...EMPTY_SPEC, service: change(now.spec!) }
    try {
      const request = UpdateRequest.create({
        kind: ObjectKind.KIND_SERVICE,
        id: now.id,
        version: now.meta!.version,
        spec,
      })
      return (await m.manager.control.update(request)).object!.service!
    } catch (e) {
      if ((e as { code?: string }).code !== 'outOfSequence') throw e
    }
  }
}

test.serial(
  'real agents run a service through scaling, an image update, the loss of the leader and removal',
  async (t) => {
    t.timeout(150_000)
    const lab = await ManagerLab.create(3)
    const nodes: RealNode[] = []
    try {
      const [f1, f2] = lab.followers() as [LabManager, LabManager]
      nodes.push(await worker(lab, f1), await worker(lab, f2))
      const secret = (
        await f1.manager.control.create(
          CreateRequest.create({
            spec: {
              ...EMPTY_SPEC,
              secret: SecretSpec.create({ annotations: Annotations.create({ name: 'k' }), data: Buffer.from('hush') }),
            },
          }),
        )
      ).object!.secret!
      const target = FileTarget.create({ name: 'k' })
      const secrets = [SecretReference.create({ secretId: secret.id, secretName: 'k', target })]
      const service = await createService(f1, serviceSpec('web', 2, { secrets }))
      await until('one container runs on each', () => nodes.every((n) => running(n).length === 1))
      t.true(nodes.every((n) => [...n.executor.seenSecrets.values()].includes('hush')))

      await update(f1, (s) => ({ ...s, mode: { ...s.mode!, replicated: { replicas: 4 } } }))
      await until('two run on each', () => nodes.every((n) => running(n).length === 2))
      const before = nodes.flatMap(running)

      const leader = lab.leader()!
      await leader.manager.stop()
      lab.managers.splice(lab.managers.indexOf(leader), 1)
      await until('the new leader sees all running', async () => {
        const { statuses } = await f1.manager.control.serviceStatuses({ serviceIds: [service.id] })
        return statuses[0]!.runningTasks === 4
      })
      t.deepEqual(nodes.flatMap(running).sort(), before.sort())

      await update(f2, (s) => ({
        ...s,
        update: null,
        task: { ...s.task!, container: { ...s.task!.container!, image: 'nginx:2' } },
      }))
      await until(
        'all containers are new ones',
        () => {
          const now = nodes.flatMap(running)
          return now.length === 4 && now.every((id) => !before.includes(id))
        },
        60_000,
      )

      const lines: string[] = []
      const options = LogRequest.create({ stdout: true, tail: -1 })
      const logs = f2.manager.control.logs(
        ServiceLogsRequest.create({ serviceIds: [service.id], options }),
        new AbortController().signal,
      )
      for await (const part of logs) {
        t.is(part.warning, '')
        lines.push(...part.lines.map((l) => Buffer.from(l.data).toString()))
      }
      t.true(lines.length >= 4)

      await f1.manager.control.remove(RemoveRequest.create({ kind: ObjectKind.KIND_SERVICE, id: service.id }))
      await until('no container is left', () => nodes.every((n) => n.executor.host.containers.size === 0))
      await until('no task is left', async () => (await list(f1, ObjectKind.KIND_TASK)).length === 0)
      await f1.manager.control.remove(
        RemoveRequest.create({ kind: ObjectKind.KIND_NODE, id: nodes[0]!.identity.nodeId, force: true }),
      )
      await until('the removed node knows it', () => nodes[0]!.removed)
    } finally {
      for (const n of nodes) await n.agent.stop()
      await lab.close()
    }
  },
)

test.serial(
  'managers restarted one after another from their disks lose nothing, and no container is touched',
  async (t) => {
    t.timeout(200_000)
    const lab = await ManagerLab.create(3)
    const nodes: RealNode[] = []
    try {
      for (const m of lab.managers) nodes.push(await worker(lab, m))
      const service = await createService(lab.managers[1]!, serviceSpec('web', 3))
      await until('one runs on each', () => nodes.every((n) => running(n).length === 1))
      const first = nodes.flatMap(running).sort()
      let replicas = 3
      for (const m of [...lab.managers]) {
        const other = lab.managers.find((x) => x !== m)!
        await m.manager.stop()
        replicas++
        await update(other, (s) => ({ ...s, mode: { ...s.mode!, replicated: { replicas } } }))
        await lab.restart(m)
        await until('it has caught up', async () => {
          const { statuses } = await m.manager.control.serviceStatuses({ serviceIds: [service.id] })
          return statuses[0]!.desiredTasks === replicas && statuses[0]!.runningTasks === replicas
        })
      }
      t.is(nodes.flatMap(running).length, 6)
      for (const id of first) t.true(nodes.flatMap(running).includes(id))
      const nodeStates = await until('all nodes are ready', async () => {
        const all = (await list(lab.managers[0]!, ObjectKind.KIND_NODE)).map((o) => o.node!)
        return all.filter((n) => n.status?.state === NodeState.NODE_READY).length === 3 ? all : null
      })
      t.is(nodeStates.filter((n) => n.managerStatus?.leader).length, 1)
      const seen = await Promise.all(lab.managers.map((m) => list(m, ObjectKind.KIND_TASK)))
      t.deepEqual(seen[1], seen[0])
      t.deepEqual(seen[2], seen[0])
    } finally {
      for (const n of nodes) await n.agent.stop()
      await lab.close()
    }
  },
)
