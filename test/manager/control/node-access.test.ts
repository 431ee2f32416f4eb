import test from 'ava'
import {
  AnyObject,
  AttachNetworkRequest,
  AttachNetworkResponse,
  GetResponse,
  NetworkAttachmentSpec,
  ObjectKind,
  type RemoveRequest,
  Task,
  TaskSpec,
} from '#proto'
import type { Peer } from '../../../src/common/grpc/index.js'
import type { ControlApi } from '../../../src/manager/contract.js'
import { NodeAccess } from '../../../src/manager/control/node-access.js'

const peer: Peer = { nodeId: 'n1', role: 'worker', clusterId: 'c', address: '10.0.0.1' }

function access(tasks: readonly Task[] = []) {
  const removed: string[] = []
  const control = {
    get: async ({ reference }: { reference: string }) =>
      GetResponse.create({ object: AnyObject.create({ task: tasks.find((t) => t.id.startsWith(reference)) ?? null }) }),
    attachNetwork: async () => AttachNetworkResponse.create({ taskId: 't1' }),
    remove: async (r: RemoveRequest) => {
      removed.push(r.id)
    },
  } as unknown as ControlApi
  return { removed, node: new NodeAccess(control) }
}

test('a worker may look up networks and nothing else', async (t) => {
  const { node } = access()
  await t.notThrowsAsync(node.get({ kind: ObjectKind.KIND_NETWORK, reference: 'x' }, peer))
  for (const kind of [ObjectKind.KIND_SECRET, ObjectKind.KIND_CLUSTER, ObjectKind.KIND_TASK, ObjectKind.KIND_SERVICE])
    t.like(await t.throwsAsync(node.get({ kind, reference: 'x' }, peer)), { kind: 'forbidden', code: 'notManager' })
})

test('a worker attaches its own containers only', async (t) => {
  const { node } = access()
  const request = (nodeId: string) => AttachNetworkRequest.create({ network: 'x', containerId: 'c1', nodeId })
  t.is((await node.attachNetwork(request('n1'), peer)).taskId, 't1')
  t.like(await t.throwsAsync(node.attachNetwork(request('n2'), peer)), { kind: 'forbidden' })
})

test('a worker ends its own attachments, never a task of a service, of another node, or one named by a part of its id', async (t) => {
  const attachment = TaskSpec.create({ attachment: NetworkAttachmentSpec.create({ containerId: 'c1' }) })
  const { node, removed } = access([
    Task.create({ id: 'mine', nodeId: 'n1', spec: attachment }),
    Task.create({ id: 'theirs', nodeId: 'n2', spec: attachment }),
    Task.create({ id: 'service', nodeId: 'n1', spec: TaskSpec.create({}) }),
  ])
  const remove = (id: string, kind: ObjectKind = ObjectKind.KIND_TASK) => node.remove({ kind, id, force: false }, peer)
  await remove('mine')
  t.deepEqual(removed, ['mine'])
  for (const id of ['theirs', 'service', 'min', 'none']) t.like(await t.throwsAsync(remove(id)), { kind: 'forbidden' })
  t.like(await t.throwsAsync(remove('mine', ObjectKind.KIND_NODE)), { kind: 'forbidden' })
  t.deepEqual(removed, ['mine'])
})
