import test from 'ava'
import {
  Annotations,
  AnyObject,
  Node,
  NodeDescription,
  NodeState,
  NodeStatus,
  Secret,
  SecretSpec,
  Service,
  ServiceMode,
  ServiceSpec,
  Task,
  WatchEvent,
} from '#proto'
import { BoundedQueue, nullLogger, systemClock } from '../../src/common/index.js'
import { clusterEvent, followCluster } from '../../src/daemon/cluster-events.js'
import type { ControlApi } from '../../src/manager/index.js'

const service = (replicas: number, over: Partial<Service> = {}): AnyObject =>
  AnyObject.create({
    service: Service.create({
      id: 's1',
      spec: ServiceSpec.create({
        annotations: Annotations.create({ name: 'web' }),
        mode: ServiceMode.create({ replicated: { replicas } }),
      }),
      ...over,
    }),
  })
const change = (action: string, object: AnyObject, old: AnyObject | null = null) =>
  clusterEvent(WatchEvent.create({ action, object, old }))

test('a service tells its name and what changed; it is removed when its user removed it, and only once', (t) => {
  t.deepEqual(change('create', service(1)), {
    type: 'service',
    action: 'create',
    actorId: 's1',
    attributes: { name: 'web' },
    scope: 'swarm',
  })
  t.deepEqual(change('update', service(3), service(1))?.attributes, {
    name: 'web',
    'replicas.old': '1',
    'replicas.new': '3',
  })
  const going = service(3, { pendingDelete: true })
  t.like(change('update', going, service(3)), { action: 'remove', attributes: { name: 'web' } })
  t.is(change('update', going, going), null)
  t.is(change('remove', going), null)
})

test('a node is called by its host name and tells its state; secrets tell their names, tasks nothing', (t) => {
  const node = (state: NodeState): AnyObject =>
    AnyObject.create({
      node: Node.create({
        id: 'n1',
        description: NodeDescription.create({ hostname: 'host1' }),
        status: NodeStatus.create({ state }),
      }),
    })
  t.deepEqual(change('update', node(NodeState.NODE_DOWN), node(NodeState.NODE_READY))?.attributes, {
    name: 'host1',
    'state.old': 'ready',
    'state.new': 'down',
  })
  const spec = SecretSpec.create({ annotations: Annotations.create({ name: 'password' }), data: Buffer.from('x') })
  t.like(change('remove', AnyObject.create({ secret: Secret.create({ id: 'x1', spec }) })), {
    type: 'secret',
    action: 'remove',
    attributes: { name: 'password' },
  })
  t.is(change('create', AnyObject.create({ task: Task.create({ id: 't1' }) })), null)
})

test('events are told again after the reader fell behind', async (t) => {
  const ending = new AbortController()
  const created = WatchEvent.create({ action: 'create', object: service(1) })
  let opened = 0
  const watch: ControlApi['watch'] = async function* () {
    const queue = new BoundedQueue<WatchEvent>(1)
    queue.push(created)
    if (++opened === 1) queue.push(created)
    else queue.close()
    yield* queue
  }
  const told: string[] = []
  await followCluster(
    { watch } as ControlApi,
    {
      clock: { ...systemClock, sleep: async () => {} },
      logger: nullLogger,
      publish: (e) => {
        told.push(e.actorId)
        if (opened === 2) ending.abort()
      },
    },
    ending.signal,
  ).catch((e) => t.fail(String(e)))
  t.deepEqual(told, ['s1', 's1'])
})
