import test from 'ava'
import {
  Annotations,
  ContainerSpec,
  Driver,
  Endpoint,
  EndpointMode,
  EndpointSpec,
  Network,
  NetworkAttachment,
  NetworkAttachmentConfig,
  NetworkAttachmentSpec,
  NetworkSpec,
  type NetworkUpdate,
  Secret,
  SecretReference,
  SecretSpec,
  Service,
  ServiceSpec,
  Task,
  TaskSpec,
  TaskState,
  TaskStatus,
  VirtualIP,
} from '#proto'
import { intBetween, newObjectId, type Rng, seededRng, systemClock } from '../../../src/common/index.js'
import { AssignmentSet } from '../../../src/manager/dispatcher/assignments.js'
import { NetworkState } from '../../../src/manager/dispatcher/network-state.js'
import { createStore, type ReplicatedStore, type StoreEvent } from '../../../src/manager/index.js'
import { MemoryLog } from '../memory-log.js'

function store(): ReplicatedStore {
  const s = createStore({ clock: systemClock })
  s.connect(new MemoryLog().proposer(s))
  s.setLeading(true)
  return s
}
const network = (id: string, ingress = false): Network =>
  Network.create({
    id,
    spec: NetworkSpec.create({ annotations: Annotations.create({ name: id }), ingress }),
    driverState: Driver.create({ name: 'overlay' }),
  })
const pick = <T>(rng: Rng, from: readonly T[]): T => from[intBetween(rng, 0, from.length - 1)]!

const STATES = [
  TaskState.TASK_PENDING,
  TaskState.TASK_ASSIGNED,
  TaskState.TASK_STARTING,
  TaskState.TASK_RUNNING,
  TaskState.TASK_SHUTDOWN,
]

test('property: a node that applies every change knows exactly its tasks and the secrets they need', async (t) => {
  for (let seed = 1; seed <= 6; seed++) {
    const rng = seededRng(seed)
    const s = store()
    const secrets = ['s1', 's2', 's3']
    await s.update((tx) => {
      for (const id of secrets)
        tx.create(
          'secret',
          Secret.create({ id, spec: SecretSpec.create({ annotations: Annotations.create({ name: id }) }) }),
        )
    })
    const set = new AssignmentSet('me')
    const tasks = new Set<string>()
    const has = new Set<string>()
    let version = 0
    const take = (): void => {
      const m = set.changes(s.view())
      if (!m) return
      t.is(m.appliesTo, version)
      version = m.resultsIn
      for (const u of m.upserts) {
        if (u.task) tasks.add(u.task.id)
        if (u.secret) has.add(u.secret.id)
      }
      for (const id of m.removedTasks) t.true(tasks.delete(id))
      for (const id of m.removedSecrets) t.true(has.delete(id))
    }
    version = set.full(s.view()).resultsIn
    s.onCommit((c) => {
      for (const e of c.events) if (e.kind === 'task') set.note(e.old, e.action === 'remove' ? null : e.object)
    })
    for (let i = 0; i < 150; i++) {
      await s.update((tx) => {
        const all = tx.list('task')
        if (all.length < 5 || rng.random() < 0.3)
          tx.create(
            'task',
            Task.create({
              id: newObjectId(),
              nodeId: pick(rng, ['me', 'me', 'other', '']),
              spec: TaskSpec.create({
                container: ContainerSpec.create({
                  secrets: secrets
                    .filter(() => rng.random() < 0.3)
                    .map((secretId) => SecretReference.create({ secretId })),
                }),
              }),
              status: TaskStatus.create({ state: pick(rng, STATES) }),
            }),
          )
        else if (intBetween(rng, 0, 9) < 3) tx.remove('task', pick(rng, all).id)
        else {
          const x = pick(rng, all)
          tx.update('task', {
            ...x,
            status: TaskStatus.create({ state: pick(rng, STATES) }),
            desiredState: pick(rng, STATES),
          })
        }
      })
      if (rng.random() < 0.4) take()
    }
    take()
    const mine = s
      .view()
      .tasksOfNode('me')
      .filter((x) => x.status!.state >= TaskState.TASK_ASSIGNED)
    t.deepEqual([...tasks].sort(), mine.map((x) => x.id).sort())
    const needed = mine
      .filter((x) => x.status!.state <= TaskState.TASK_RUNNING)
      .flatMap((x) => x.spec!.container!.secrets.map((r) => r.secretId))
    t.deepEqual([...has].sort(), [...new Set(needed)].sort())
    t.is(set.changes(s.view()), null)
  }
})

test("a task's own status is not sent back to its node", (t) => {
  const set = new AssignmentSet('me')
  const task = Task.create({ id: 'a', nodeId: 'me', status: TaskStatus.create({ state: TaskState.TASK_ASSIGNED }) })
  const view = store().view()
  set.note(null, task)
  t.is(set.changes(view)?.upserts.length, 1)
  // As a follower decodes it: equal, but not the same objects.
  const again = Task.decode(Task.encode({ ...task, status: TaskStatus.create({ state: TaskState.TASK_RUNNING }) }))
  set.note(task, again)
  t.is(set.changes(view), null)
  set.note(again, { ...again, desiredState: TaskState.TASK_SHUTDOWN })
  t.is(set.changes(view)?.upserts.length, 1)
})

test('property: deltas put on the first full state give the full state of now, for every network', async (t) => {
  for (let seed = 1; seed <= 6; seed++) {
    const rng = seededRng(seed)
    const s = store()
    const nets = [network('n1'), network('n2'), network('ingress', true)]
    await s.update((tx) => {
      for (const n of nets) tx.create('network', n)
    })
    const state = new NetworkState()
    state.reset(s.view(), s.version)
    t.deepEqual(state.meshes(), ['ingress'])
    const known = new Map<string, { e: Map<string, unknown>; s: Map<string, unknown>; v: number }>()
    const full = (u: NetworkUpdate) => ({
      e: new Map(u.endpoints.map((x) => [x.id, x])),
      s: new Map(u.services.map((x) => [x.serviceId, x])),
      v: u.toVersion,
    })
    for (const n of nets) known.set(n.id, full(state.full(n.id)!))
    const flush = (): void => {
      for (const [id, u] of state.flush(s.version)) {
        const k = known.get(id)!
        t.is(u.fromVersion, k.v)
        for (const x of u.endpoints) k.e.set(x.id, x)
        for (const x of u.removedEndpoints) k.e.delete(x)
        for (const x of u.services) k.s.set(x.serviceId, x)
        for (const x of u.removedServices) k.s.delete(x)
        k.v = u.toVersion
      }
    }
    s.onCommit((c) => {
      for (const e of c.events as readonly StoreEvent[]) state.note(e)
    })
    const attach = () =>
      nets
        .filter(() => rng.random() < 0.5)
        .map((n) => NetworkAttachment.create({ network: n, addresses: [`10.0.0.${intBetween(rng, 2, 250)}/24`] }))
    for (let i = 0; i < 150; i++) {
      await s.update((tx) => {
        const kind = rng.random() < 0.7 ? 'task' : 'service'
        const all = tx.list(kind)
        if (all.length > 4 && rng.random() < 0.3) tx.remove(kind, pick<{ id: string }>(rng, all).id)
        else if (kind === 'task') {
          const x = rng.random() < 0.5 ? undefined : (pick(rng, all) as Task | undefined)
          const fields = {
            nodeId: pick(rng, ['a', 'b', '']),
            networks: attach(),
            status: TaskStatus.create({ state: pick(rng, STATES) }),
            desiredState: pick(rng, [TaskState.TASK_RUNNING, TaskState.TASK_SHUTDOWN]),
          }
          if (x) tx.update('task', { ...x, ...fields })
          else tx.create('task', Task.create({ id: newObjectId(), ...fields }))
        } else {
          const x = rng.random() < 0.5 ? undefined : (pick(rng, all) as Service | undefined)
          const id = x?.id ?? newObjectId()
          const fields = {
            spec: ServiceSpec.create({
              annotations: Annotations.create({ name: id }),
              task: TaskSpec.create({
                networks: [NetworkAttachmentConfig.create({ target: pick(rng, ['n1', 'n2']) })],
              }),
              endpoint: EndpointSpec.create({ mode: pick(rng, [EndpointMode.VIP, EndpointMode.DNSRR]) }),
            }),
            endpoint: Endpoint.create({
              virtualIps: [VirtualIP.create({ networkId: pick(rng, ['n1', 'n2', 'ingress']), address: '10.0.0.9/24' })],
            }),
            pendingDelete: rng.random() < 0.1,
          }
          if (x) tx.update('service', { ...x, ...fields })
          else tx.create('service', Service.create({ id, ...fields }))
        }
      })
      if (rng.random() < 0.4) flush()
    }
    flush()
    const fresh = new NetworkState()
    fresh.reset(s.view(), s.version)
    const sorted = (m: Map<string, unknown>) => [...m].sort((a, b) => (a[0] < b[0] ? -1 : 1))
    for (const n of nets) {
      const want = full(fresh.full(n.id)!)
      t.deepEqual(sorted(known.get(n.id)!.e), sorted(want.e), `seed ${seed} ${n.id}`)
      t.deepEqual(sorted(known.get(n.id)!.s), sorted(want.s), `seed ${seed} ${n.id}`)
      const kept = full(state.full(n.id)!)
      t.deepEqual(sorted(kept.e), sorted(want.e))
    }
  }
})

test('an endpoint is ready only while its task runs and shall run; an attached container has its own id', async (t) => {
  const s = store()
  const n = network('n')
  const state = new NetworkState()
  const attachment = NetworkAttachment.create({ network: n, addresses: ['10.0.1.7/24'] })
  const put = async (fields: Partial<Task>): Promise<boolean | undefined> => {
    const view = store()
    await view.update((tx) => {
      tx.create('network', n)
      tx.create('task', Task.create({ id: 'x', nodeId: 'a', networks: [attachment], ...fields }))
    })
    state.reset(view.view(), 1)
    return state.full('n')!.endpoints[0]?.ready
  }
  const status = (st: TaskState) => TaskStatus.create({ state: st })
  const { TASK_RUNNING, TASK_STARTING, TASK_SHUTDOWN, TASK_ASSIGNED, TASK_FAILED } = TaskState
  t.is(await put({ status: status(TASK_STARTING), desiredState: TASK_RUNNING }), false)
  t.is(await put({ status: status(TASK_RUNNING), desiredState: TASK_RUNNING }), true)
  t.is(await put({ status: status(TASK_RUNNING), desiredState: TASK_SHUTDOWN }), false)
  t.is(await put({ status: status(TASK_FAILED), desiredState: TASK_SHUTDOWN }), undefined)
  t.is(
    await put({
      status: status(TASK_ASSIGNED),
      desiredState: TASK_RUNNING,
      spec: TaskSpec.create({ attachment: NetworkAttachmentSpec.create({ containerId: 'c1' }) }),
    }),
    true,
  )
  t.is(state.full('n')!.endpoints[0]?.id, 'c1')
  t.truthy(s)
})

test('a network is told from when it has its addresses; a new mesh beside the old one is one too', async (t) => {
  const s = store()
  const state = new NetworkState()
  s.onCommit((c) => c.events.forEach((e) => void state.note(e)))
  await s.update((tx) => tx.create('network', { ...network('old', true), pendingDelete: true }))
  await s.update((tx) => tx.create('network', { ...network('new', true), driverState: null }))
  state.flush(s.version)
  t.deepEqual(state.meshes(), ['old', 'new'])
  t.is(state.full('new'), null)
  await s.update((tx) => tx.update('network', { ...tx.get('network', 'new')!, driverState: Driver.create() }))
  t.true(state.flush(s.version).has('new'))
  t.is(state.full('new')?.network?.id, 'new')
})
