// The cluster's networks across hosts, in real namespaces; the test is the manager.
import test from 'ava'
import { EndpointMode, Network, NetworkSpec } from '#proto'
import { loadNetNative } from '../../src/overlay/native.js'
import {
  change,
  endpoint,
  fullUpdate,
  INGRESS,
  joinAll,
  membersOf,
  OVERLAY,
  overlayNetwork,
  port,
  service,
} from './support/cluster.js'
import { type Host, Lab, whyNoLab } from './support/lab.js'

const reason = await whyNoLab()
if (reason) console.log(`skipped: ${reason}`)
const run = reason ? test.serial.skip : test.serial

const count = (answers: readonly string[]): Record<string, number> => {
  const out: Record<string, number> = {}
  for (const a of answers) out[a.split(' ')[0]!] = (out[a.split(' ')[0]!] ?? 0) + 1
  return out
}

run('on an overlay network containers of three hosts reach each other, their services, and the outside', async (t) => {
  t.timeout(60_000) // between two assertions
  const lab = await Lab.open(3)
  t.teardown(() => lab.close())
  const hosts = lab.hosts as [Host, Host, Host]
  await joinAll(hosts)
  const net = overlayNetwork()
  const web = hosts.map((h, i) => endpoint(`web.${i + 1}`, h, `10.0.1.1${i + 1}`, { serviceId: 'web', ready: false }))
  const boxes = []
  for (const [i, h] of hosts.entries()) {
    await h.service.ensureSwarmNetwork(net)
    boxes.push(await h.container(`web.${i + 1}`, OVERLAY, { address: `10.0.1.1${i + 1}` }))
  }
  const client = await hosts[0].container('client', OVERLAY, { address: '10.0.1.20' })
  for (const [i, b] of boxes.entries()) await lab.serve(b.netns, `web${i + 1}`, 80)
  const cl = endpoint('client', hosts[0], '10.0.1.20')
  const vip = service('web', '10.0.1.100', { aliases: ['www'] })
  const rr = service('rr', '', { mode: EndpointMode.DNSRR })
  for (const h of hosts)
    await h.service.applyNetworkUpdate(fullUpdate(net, 1, { endpoints: [...web, cl], services: [vip, rr] }))

  t.deepEqual(await lab.get(client.netns, '10.0.1.12', 80), { answers: ['web2 10.0.1.20'], error: null })
  t.deepEqual(await lab.get(client.netns, '10.0.1.13', 80), { answers: ['web3 10.0.1.20'], error: null })
  t.is((await lab.get(client.netns, '10.0.1.100', 80)).error, 'ECONNREFUSED', 'no task is ready')

  const ready = web.map((e) => ({ ...e, ready: true }))
  for (const h of hosts) await h.service.applyNetworkUpdate(change(OVERLAY, 1, { endpoints: ready }))
  const spread = count((await lab.get(client.netns, '10.0.1.100', 80, 90)).answers)
  t.deepEqual(Object.keys(spread).sort(), ['web1', 'web2', 'web3'])
  for (const n of Object.values(spread)) t.true(n >= 10, JSON.stringify(spread))
  t.is((await lab.get(boxes[0]!.netns, '10.0.1.100', 80, 20)).error, null, 'a task reaches its own service')

  t.deepEqual((await lab.dns(client.netns, 'web')).answers, ['10.0.1.100'])
  t.deepEqual((await lab.dns(client.netns, 'www')).answers, ['10.0.1.100'])
  t.deepEqual((await lab.dns(client.netns, 'tasks.web')).answers.sort(), ['10.0.1.11', '10.0.1.12', '10.0.1.13'])
  t.deepEqual((await lab.dns(client.netns, 'web.2')).answers, ['10.0.1.12'])
  t.deepEqual((await lab.dns(client.netns, '10.0.1.12', 'PTR')).answers, ['web.2.ov1'])
  t.is((await lab.dns(client.netns, 'rr')).error, 'ENODATA')

  // Draining: a task told to stop keeps its connections, and gets no new one.
  const held = lab.program(client.netns, 'hold', '10.0.1.100', '80')
  const at = Number(/web(\d)/.exec(await held.until('\n'))![1])
  for (const h of hosts)
    await h.service.applyNetworkUpdate(change(OVERLAY, 2, { endpoints: [{ ...ready[at - 1]!, ready: false }] }))
  t.false(`web${at}` in count((await lab.get(client.netns, '10.0.1.100', 80, 30)).answers))
  held.write('still there')
  await held.until('still there')
  // Gone: its connection is refused at once, not left hanging.
  for (const h of hosts) await h.service.applyNetworkUpdate(change(OVERLAY, 3, { removedEndpoints: [`web.${at}`] }))
  held.write('anyone?')
  await held.until('error ECONNRESET')
  // The same address lives again, elsewhere.
  const other = hosts[at % 3]!
  await hosts[at - 1]!.service.deleteSandbox(boxes[at - 1]!.id)
  const moved = await other.container('moved', OVERLAY, { address: `10.0.1.1${at}` })
  await lab.serve(moved.netns, 'moved', 80)
  for (const h of hosts)
    await h.service.applyNetworkUpdate(
      change(OVERLAY, 4, { endpoints: [endpoint('moved', other, `10.0.1.1${at}`, { serviceId: 'web' })] }),
    )
  t.deepEqual((await lab.get(client.netns, `10.0.1.1${at}`, 80)).answers, ['moved 10.0.1.20'])
  t.true('moved' in count((await lab.get(client.netns, '10.0.1.100', 80, 60)).answers))

  await lab.serve(lab.outside, 'out', 99)
  t.deepEqual(await lab.get(client.netns, '10.88.0.100', 99), { answers: ['out 10.88.0.11'], error: null })
  t.like(await t.throwsAsync(hosts[0].service.applyNetworkUpdate(change(OVERLAY, 3))), { code: 'versionGap' })

  for (const h of hosts) {
    await h.service.clusterLeft()
    const left = await lab.leftovers(h)
    t.deepEqual(left.links, ['docker0'])
    t.deepEqual(
      left.namespaces.filter((n) => n.startsWith('ov-')),
      [],
    )
    t.false(left.tables.includes('shoal-cluster'))
  }
})

run('a published port answers on every host, also without a task there, and the task sees the client', async (t) => {
  t.timeout(60_000) // between two assertions
  const lab = await Lab.open(3)
  t.teardown(() => lab.close())
  const hosts = lab.hosts as [Host, Host, Host]
  await joinAll(hosts)
  const net = overlayNetwork({ id: INGRESS, name: 'ingress', subnet: '10.0.0.0/24', vni: 4096, ingress: true })
  const web = service('web', '10.0.0.5', { ports: [port(8080, 80), port(9000, 80, 1)] })
  const first = endpoint('web.1', hosts[1], '10.0.0.22', { serviceId: 'web' })
  for (const h of hosts) await h.service.applyNetworkUpdate(fullUpdate(net, 1, { services: [web] }))
  t.is((await lab.get(lab.outside, hosts[0].address, 8080)).error, 'ECONNREFUSED', 'no task yet')
  const task = await hosts[1].container('web.1', INGRESS, { address: '10.0.0.22' })
  await lab.serve(task.netns, 'web1', 80)
  for (const h of hosts) await h.service.applyNetworkUpdate(change(INGRESS, 1, { endpoints: [first] }))
  for (const h of hosts) {
    t.deepEqual(
      await lab.get(lab.outside, h.address, 8080, 5),
      { answers: Array(5).fill('web1 10.88.0.100'), error: null },
      h.name,
    )
    t.deepEqual((await lab.udp(lab.outside, h.address, 9000)).answers, ['web1 10.88.0.100'], `${h.name} by UDP`)
    t.is((await lab.get(h.netns, '127.0.0.1', 8080, 3)).error, null, `${h.name} at 127.0.0.1`)
    t.is((await lab.get(h.netns, h.address, 8080, 3)).error, null, `${h.name} at its own address`)
  }
  t.is((await lab.get(hosts[0].netns, hosts[2].address, 8080)).error, null)

  const taken = await hosts[2].container('c', (await hosts[2].service.findNetwork('bridge')).id)
  t.like(
    await t.throwsAsync(
      hosts[2].service.publish(taken.id, [{ containerPort: 1, protocol: 'tcp', hostIp: '', hostPort: 8080 }]),
    ),
    { code: 'portInUse' },
  )

  const second = endpoint('web.2', hosts[2], '10.0.0.23', { serviceId: 'web' })
  const task2 = await hosts[2].container('web.2', INGRESS, { address: '10.0.0.23' })
  await lab.serve(task2.netns, 'web2', 80)
  for (const h of hosts) await h.service.applyNetworkUpdate(change(INGRESS, 2, { endpoints: [second] }))
  for (const h of hosts) {
    const spread = count((await lab.get(lab.outside, h.address, 8080, 40)).answers)
    t.deepEqual(Object.keys(spread).sort(), ['web1', 'web2'], h.name)
  }

  // The daemon of an entry node is killed: the port goes on; started again, it takes up what it left.
  await hosts[0].kill()
  t.is((await lab.get(lab.outside, hosts[0].address, 8080, 10)).error, null, 'while the daemon is down')
  await hosts[0].start()
  t.is((await lab.get(lab.outside, hosts[0].address, 8080, 10)).error, null, 'after it came back, no manager yet')
  await hosts[0].service.applyNetworkUpdate(change(INGRESS, 3, { removedServices: ['web'] }))
  t.is((await lab.get(lab.outside, hosts[0].address, 8080)).error, 'ECONNREFUSED')
})

run(
  'two overlay networks are isolated; host-mode ports, a restart, another data path port and withdrawal work',
  async (t) => {
    t.timeout(60_000)
    const lab = await Lab.open(2)
    t.teardown(() => lab.close())
    const hosts = lab.hosts as [Host, Host]
    await joinAll(hosts)
    const [one, two] = hosts
    const OTHER = 'ov2aaaaaaaaaaaaaaaaaaaaaa'
    const net = overlayNetwork()
    const other = overlayNetwork({ id: OTHER, name: 'ov2', vni: 4098 }) // the same subnet
    for (const h of hosts) for (const n of [net, other]) await h.service.ensureSwarmNetwork(n)
    const a = await one.container('a', OVERLAY, { address: '10.0.1.11' })
    const b = await two.container('b', OVERLAY, { address: '10.0.1.12' })
    const c = await one.container('c', OTHER, { address: '10.0.1.13' })
    const d = await two.container('d', OTHER, { address: '10.0.1.12' })
    await lab.serve(b.netns, 'b', 80)
    await lab.serve(d.netns, 'd', 80)
    const first = { endpoints: [endpoint('a', one, '10.0.1.11'), endpoint('b', two, '10.0.1.12')] }
    const second = { endpoints: [endpoint('c', one, '10.0.1.13'), endpoint('d', two, '10.0.1.12')] }
    for (const h of hosts) {
      await h.service.applyNetworkUpdate(fullUpdate(net, 1, first))
      await h.service.applyNetworkUpdate(fullUpdate(other, 1, second))
    }
    t.deepEqual((await lab.get(a.netns, '10.0.1.12', 80)).answers, ['b 10.0.1.11'])
    t.deepEqual((await lab.get(c.netns, '10.0.1.12', 80)).answers, ['d 10.0.1.13'])
    t.is((await lab.dns(a.netns, 'd')).error, 'ENOTFOUND')
    t.like(await t.throwsAsync(two.container('e', OVERLAY, { address: '10.9.9.9' })), { code: 'addressOutside' })

    await two.service.publish(b.id, [{ containerPort: 80, protocol: 'tcp', hostIp: '', hostPort: 8080 }])
    t.deepEqual((await lab.get(lab.outside, two.address, 8080)).answers, ['b 10.88.0.100'])

    // Killed; meanwhile an endpoint's container died. No manager answers yet.
    const gone = await two.container('gone', OVERLAY, { address: '10.0.1.30' })
    await two.kill()
    t.deepEqual((await lab.get(a.netns, '10.0.1.12', 80)).answers, ['b 10.0.1.11'], 'while the daemon is down')
    await two.start({}, [b.id, d.id])
    t.is(await two.service.sandbox(gone.id), null)
    t.deepEqual((await lab.get(a.netns, '10.0.1.12', 80)).answers, ['b 10.0.1.11'])
    t.deepEqual((await lab.dns(b.netns, 'a')).answers, ['10.0.1.11'])
    t.deepEqual((await lab.get(lab.outside, two.address, 8080)).answers, ['b 10.88.0.100'])
    t.deepEqual(
      (await two.service.networks())
        .filter((n) => n.scope === 'swarm')
        .map((n) => n.name)
        .sort(),
      ['ov1', 'ov2'],
    )
    await two.service.applyNetworkUpdate(change(OVERLAY, 1, { endpoints: [endpoint('x', one, '10.0.1.99')] }))

    for (const h of hosts) await h.service.applyMembers({ ...membersOf(hosts), dataPathPort: 4790 })
    t.deepEqual((await lab.get(a.netns, '10.0.1.12', 80)).answers, ['b 10.0.1.11'], 'after the port changed')

    await two.service.applyNetworkUpdate({ ...change(OTHER, 1), withdrawn: true })
    t.truthy(
      (await two.service.networks()).find((n) => n.id === OTHER),
      'its container still lives',
    )
    t.deepEqual((await lab.get(c.netns, '10.0.1.12', 80)).answers, ['d 10.0.1.13'])
    await two.service.deleteSandbox(d.id)
    t.falsy((await two.service.networks()).find((n) => n.id === OTHER))
    t.deepEqual(
      (await lab.leftovers(two)).namespaces.filter((n) => n.startsWith('ov-')),
      [`ov-${OVERLAY}`],
    )
  },
)

run('a network that each node has for itself is made with its first container and goes with its last', async (t) => {
  t.timeout(60_000)
  const lab = await Lab.open(1)
  t.teardown(() => lab.close())
  const h = lab.hosts[0] as Host
  await joinAll([h])
  const net = Network.create({
    id: 'localaaaaaaaaaaaaaaaaaaaa',
    spec: NetworkSpec.create({
      annotations: { name: 'mine', labels: {} },
      driverConfig: { name: 'bridge', options: {} },
    }),
  })
  const here = async () => (await h.service.networks()).filter((n) => n.name === 'mine')
  await h.service.applyNetworkUpdate(fullUpdate(net, 1))
  t.deepEqual(await here(), [])
  await h.service.ensureSwarmNetwork(net)
  t.like((await here())[0], { id: net.id, scope: 'swarm', driver: 'bridge' })
  const a = await h.container('a', net.id)
  await h.kill()
  await h.start({}, [a.id])
  const b = await h.container('b', net.id)
  await lab.serve(a.netns, 'a', 80)
  t.deepEqual((await lab.get(b.netns, a.endpoint.ipv4Address, 80)).answers, [`a ${b.endpoint.ipv4Address}`])
  await h.service.deleteSandbox(a.id)
  await h.service.applyNetworkUpdate({ ...change(net.id, 1), withdrawn: true })
  t.is((await here()).length, 1, 'a container is still on it')
  await h.service.deleteSandbox(b.id)
  t.deepEqual(await here(), [])
  t.deepEqual((await lab.leftovers(h)).links, ['docker0'])
})

run('a program keeps its port against the mesh, and a stranger cannot speak VXLAN', async (t) => {
  t.timeout(60_000)
  const lab = await Lab.open(2)
  t.teardown(() => lab.close())
  const hosts = lab.hosts as [Host, Host]
  const [one, two] = hosts
  await joinAll(hosts)
  const own = await lab.serve(two.netns, 'own', 8080)
  const ingress = overlayNetwork({ id: INGRESS, name: 'ingress', subnet: '10.0.0.0/24', vni: 4096, ingress: true })
  const web = service('web', '10.0.0.5', { ports: [port(8080, 80)] })
  for (const h of hosts) await h.service.applyNetworkUpdate(fullUpdate(ingress, 1, { services: [web] }))
  const task = await one.container('web.1', INGRESS, { address: '10.0.0.22' })
  await lab.serve(task.netns, 'web', 80)
  const ready = { endpoints: [endpoint('web.1', one, '10.0.0.22', { serviceId: 'web' })] }
  for (const h of hosts) await h.service.applyNetworkUpdate(change(INGRESS, 1, ready))
  t.deepEqual((await lab.get(lab.outside, one.address, 8080)).answers, ['web 10.88.0.100'])
  t.deepEqual((await lab.get(lab.outside, two.address, 8080)).answers, ['own 10.88.0.100'], 'left to the program')
  await own.stop()
  for (const h of hosts) await h.service.applyNetworkUpdate(change(INGRESS, 2))
  t.deepEqual((await lab.get(lab.outside, two.address, 8080)).answers, ['web 10.88.0.100'], 'now ours')

  const net = overlayNetwork()
  await one.service.ensureSwarmNetwork(net)
  const a = await one.container('a', OVERLAY, { address: '10.0.1.11' })
  await lab.serve(a.netns, 'a', 80)
  const stranger = endpoint('s', two, '10.0.1.200')
  await one.service.applyNetworkUpdate(fullUpdate(net, 1, { endpoints: [{ ...stranger, nodeId: 'stranger' }] }))
  const native = loadNetNative()
  await native.netLink(lab.outside, [
    { op: 'linkAdd', name: 'vx', kind: 'vxlan', vni: 4097, port: 4789, mac: '02:42:0a:00:01:c8' },
    { op: 'addrAdd', dev: 'vx', address: '10.0.1.200', prefix: 24 },
    { op: 'linkSet', name: 'vx', up: true, mtu: 1450 },
    { op: 'neighReplace', dev: 'vx', address: '10.0.1.11', mac: '02:42:0a:00:01:0b' },
    { op: 'fdbReplace', dev: 'vx', mac: '02:42:0a:00:01:0b', dst: one.address },
  ])
  const withStranger = membersOf(hosts)
  withStranger.members.push({ nodeId: 'stranger', hostname: 's', dataPathAddress: '10.88.0.100', ingressIndex: 9 })
  t.is((await lab.get(lab.outside, '10.0.1.11', 80)).error, 'TIMEOUT', 'no member')
  await one.service.applyMembers(withStranger)
  t.deepEqual((await lab.get(lab.outside, '10.0.1.11', 80)).answers, ['a 10.0.1.200'], 'a member')
})
