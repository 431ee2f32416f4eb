import test from 'ava'
import { ClusterMember, EndpointMode, NetworkEndpoint } from '#proto'
import { seededRng } from '../../../src/common/index.js'
import { answerLocally, NameTableBuilder } from '../../../src/overlay/dns/names.js'
import { gateways, ingressPlan, meshPorts } from '../../../src/overlay/ingress/ingress-plan.js'
import { forwardingPlan, planChanges } from '../../../src/overlay/swarm/forwarding-plan.js'
import {
  addNames,
  applyUpdate,
  balancedServices,
  type NetworkState,
  recordOf,
  segmentsOf,
} from '../../../src/overlay/swarm/network-state.js'
import { change, fullUpdate, OVERLAY, overlayNetwork, port, service } from '../support/cluster.js'

const at = (id: string, nodeId: string, address: string, fields: Partial<NetworkEndpoint> = {}) =>
  NetworkEndpoint.create({ id, nodeId, address, name: id, ready: true, serviceId: 'web', ...fields })
const state = (old: NetworkState | null, u: Parameters<typeof applyUpdate>[1]): NetworkState => {
  const r = applyUpdate(old, u)
  if (!r.ok) throw new Error(r.reason)
  return r.state
}
const members = [1, 2, 3].map((i) =>
  ClusterMember.create({ nodeId: `n${i}`, dataPathAddress: `10.88.0.1${i}`, ingressIndex: i }),
)
const net = overlayNetwork()

test('updates build on their version; a full one replaces; gaps are refused', (t) => {
  const a = state(
    null,
    fullUpdate(net, 5, { endpoints: [at('a', 'n1', '10.0.1.2')], services: [service('web', '10.0.1.9')] }),
  )
  t.deepEqual(applyUpdate(null, change(OVERLAY, 0)), { ok: false, reason: 'networkMissing' })
  t.deepEqual(applyUpdate(a, change(OVERLAY, 4)), { ok: false, reason: 'versionGap' })
  const r = applyUpdate(a, change(OVERLAY, 5, { endpoints: [at('b', 'n2', '10.0.1.3')], removedEndpoints: ['a'] }))
  t.like(r, { ok: true, died: ['10.0.1.2'], revived: ['10.0.1.3'] })
  const moved = applyUpdate(a, change(OVERLAY, 5, { endpoints: [at('c', 'n2', '10.0.1.2')], removedEndpoints: ['a'] }))
  t.like(moved, { ok: true, died: [], revived: [] })
  t.deepEqual(Object.keys(state(a, fullUpdate(net, 9)).endpoints), [])
})

test('only ready endpoints take traffic and have names; all have entries', (t) => {
  const s = state(
    null,
    fullUpdate(net, 1, {
      endpoints: [at('a', 'n2', '10.0.1.3'), at('b', 'n2', '10.0.1.2'), at('c', 'n3', '10.0.1.4', { ready: false })],
      services: [service('web', '10.0.1.9', { aliases: ['www'] }), service('rr', '', { mode: EndpointMode.DNSRR })],
    }),
  )
  t.deepEqual(balancedServices(s), [{ virtualIp: '10.0.1.9', backends: ['10.0.1.2', '10.0.1.3'] }])
  const b = new NameTableBuilder('ov1')
  addNames(s, b)
  const ips = (name: string) =>
    answerLocally([b.build()], { name, type: 1, class: 1 }, 2, seededRng(1))
      ?.answers.map((x) => [...x.data].join('.'))
      .sort()
  t.deepEqual(ips('www'), ['10.0.1.9'])
  t.deepEqual(ips('tasks.web'), ['10.0.1.2', '10.0.1.3'])
  t.deepEqual(ips('rr'), [])
  t.deepEqual(ips('a'), ['10.0.1.3'])
  t.is(ips('c'), undefined)
  const plan = forwardingPlan(s, segmentsOf(net), members, 'n1', new Set())
  t.deepEqual([...plan.keys()].filter((k) => k.includes('neigh')).length, 3)
})

test('local addresses and own endpoints have no entry; a move is a replacement, never a gap', (t) => {
  const s = state(
    null,
    fullUpdate(net, 1, {
      endpoints: [at('a', 'n1', '10.0.1.2'), at('b', 'n2', '10.0.1.3'), at('x', 'gone', '10.0.1.5')],
    }),
  )
  const plan = forwardingPlan(s, segmentsOf(net), members, 'n1', new Set())
  t.deepEqual([...plan.keys()], ['vxlan0 fdb 02:42:0a:00:01:03', 'vxlan0 neigh 10.0.1.3'])
  t.is(forwardingPlan(s, segmentsOf(net), members, 'n1', new Set(['10.0.1.3'])).size, 0)
  const s2 = state(s, change(OVERLAY, 1, { endpoints: [at('b2', 'n3', '10.0.1.3')], removedEndpoints: ['b'] }))
  const moved = planChanges(plan, forwardingPlan(s2, segmentsOf(net), members, 'n1', new Set()))
  t.deepEqual(moved, {
    first: [{ op: 'fdbReplace', dev: 'vxlan0', mac: '02:42:0a:00:01:03', dst: '10.88.0.13' }],
    after: [],
  })
  const gone = planChanges(plan, new Map())
  t.deepEqual(gone.first, [])
  t.deepEqual(
    gone.after.map((o) => o.op),
    ['fdbDel', 'neighDel'],
  )
})

test('the mesh routes remote tasks by the gateway of their node', (t) => {
  const ingress = overlayNetwork({ ingress: true, subnet: '10.0.0.0/24' })
  const s = state(
    null,
    fullUpdate(ingress, 1, {
      endpoints: [at('a', 'n1', '10.0.0.2'), at('b', 'n2', '10.0.0.3')],
      services: [service('web', '10.0.0.9', { ports: [port(8080, 80), port(0, 81)] })],
    }),
  )
  const g = gateways('198.18.0.0/15')
  t.is(g.macOf(65000), '02:42:c6:12:fd:e8')
  const plan = ingressPlan(s, members, 'n1', new Set(), g)
  t.is(plan.get('br0 route 10.0.0.3')?.value, '198.18.0.2')
  t.is(plan.get('br0 route 10.0.0.2'), undefined)
  t.is(plan.get('vxlan0 fdb 02:42:c6:12:00:03')?.value, '10.88.0.13')
  t.is(plan.get('vxlan0 fdb 02:42:c6:12:00:01'), undefined, 'not ourselves')
  t.deepEqual(meshPorts(s), [
    { protocol: 'tcp', publishedPort: 8080, targetPort: 80, backends: ['10.0.0.2', '10.0.0.3'] },
  ])
  t.like(recordOf(s), { scope: 'swarm', ingress: true, driver: 'overlay', name: 'ov1' })
})
