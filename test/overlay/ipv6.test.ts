// IPv6 on networks of one host, in real namespaces.
import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import test from 'ava'
import { loadNetNative } from '../../src/overlay/native.js'
import { type Host, Lab, whyNoLab } from './support/lab.js'

const reason = await whyNoLab()
if (reason) console.log(`skipped: ${reason}`)
const run = reason ? test.serial.skip : test.serial

const native = loadNetNative()
const relay = fileURLToPath(new URL('../../native/shoal-relay', import.meta.url))
const HOST = '2001:db8:88::11'
const OUTSIDE = '2001:db8:88::100'

/** One host and a client outside, on an underlay that has IPv6 too. */
async function open(t: { teardown(f: () => Promise<void>): void }): Promise<[Lab, Host]> {
  const lab = await Lab.open(1)
  t.teardown(() => lab.close())
  const h = lab.hosts[0]!
  for (const [netns, address] of [
    [h.netns, HOST],
    [lab.outside, OUTSIDE],
  ] as const)
    await native.netLink(netns, [{ op: 'addrAdd', dev: 'eth0', address, prefix: 64 }])
  return [lab, h]
}

const sysctl = (netns: string, name: string): string =>
  execFileSync('nsenter', [`--net=${netns}`, 'cat', `/proc/sys/net/ipv6/conf/${name}`], { encoding: 'utf8' }).trim()

const dual = (n: number, more: object = {}) => ({
  ipv6: true,
  ipam: {
    driver: 'default',
    options: {},
    pools: [{ subnet: `10.66.${n}.0/24` }, { subnet: `fd66:${n}::/64`, ...more }],
  },
})

run('containers have addresses of both families, reach each other, find each other, and reach out', async (t) => {
  t.timeout(60_000)
  const [lab, h] = await open(t)
  await h.start()
  const n = await h.network('dual', dual(1, { range: 'fd66:1::1:0/112' }))
  t.deepEqual(
    n.ipam.pools.map((p) => [p.subnet, p.gateway]),
    [
      ['10.66.1.0/24', '10.66.1.1'],
      ['fd66:1::/64', 'fd66:1::1:1'],
    ],
  )
  const a = await h.container('a', n.id)
  const b = await h.container('b', n.id, {
    join: { ipv6Address: 'fd66:1::B', linkLocalAddresses: ['169.254.7.7', 'fe80::254:77'] },
  })
  t.like(a.endpoint, { ipv6Address: 'fd66:1::1:0', ipv6PrefixLength: 64, ipv6Gateway: 'fd66:1::1:1' })
  t.is(b.endpoint.ipv6Address, 'fd66:1::b')
  await lab.serve(b.netns, 'b', 80, '::')
  t.deepEqual((await lab.get(a.netns, 'fd66:1::b', 80)).answers, ['b fd66:1::1:0'])
  t.is((await lab.get(a.netns, 'fe80::254:77%eth0', 80)).error, null)
  t.deepEqual((await lab.dns(a.netns, 'b', 'AAAA')).answers, ['fd66:1::b'])
  t.deepEqual((await lab.dns(a.netns, 'b')).answers, [b.endpoint.ipv4Address])
  t.deepEqual((await lab.dns(a.netns, 'fd66:1::b', 'PTR')).answers, ['b.dual'])
  t.regex(readFileSync(join(b.files, 'hosts'), 'utf8'), /^fd66:1::b\tb$/m)
  t.is(sysctl(a.netns, 'eth0/accept_ra'), '0', 'a neighbour is not believed to be a router')

  await lab.serve(lab.outside, 'out', 99, '::')
  t.deepEqual((await lab.get(a.netns, OUTSIDE, 99)).answers, [`out ${HOST}`], 'as the host')
  const inner = await h.network('inner', { ...dual(2), internal: true })
  const c = await h.container('c', inner.id)
  t.is(c.endpoint.ipv6Gateway, '')
  t.is((await lab.get(c.netns, OUTSIDE, 99)).error, 'ENETUNREACH')
  t.is((await lab.get(c.netns, HOST, 99)).error, 'ENETUNREACH')

  const plain = await h.network('plain')
  const d = await h.container('d', plain.id)
  t.is(sysctl(d.netns, 'eth0/disable_ipv6'), '1')
  t.is(d.endpoint.ipv6Address, '')
  t.deepEqual(
    (await native.netAddresses(d.netns)).filter((x) => x.dev === 'eth0').map((x) => x.address),
    [d.endpoint.ipv4Address],
  )
  const other = await h.network('other', dual(3))
  const e = await h.container('e', other.id)
  t.is((await lab.get(e.netns, 'fd66:1::b', 80)).error, 'TIMEOUT', 'networks are isolated')
  await native.netLink(lab.outside, [{ op: 'routeReplace', to: 'fd66:1::/64', via: HOST }])
  t.is((await lab.get(lab.outside, 'fd66:1::b', 80)).error, 'TIMEOUT', 'so are unpublished ports')

  await h.kill()
  await h.start({}, [a.id, b.id])
  t.like(
    await t.throwsAsync(h.service.join(a.id, (await h.network('again', dual(4))).id, { ipv6Address: 'fd66:4::1' })),
    { code: 'addressInUse' },
  )
  await h.service.leave(a.id, n.id)
  t.like(await t.throwsAsync(h.service.join(a.id, n.id, { ipv6Address: 'fd66:1::b' })), { code: 'addressInUse' })
  t.is((await h.service.join(a.id, n.id, {})).ipv6Address, 'fd66:1::1:0', 'an address that was given back')
  t.deepEqual((await lab.get(a.netns, 'fd66:1::b', 80)).answers, ['b fd66:1::1:0'])
})

run('ports are published on both families, to containers with and without IPv6', async (t) => {
  t.timeout(60_000)
  const [lab, h] = await open(t)
  await h.start({ relay })
  const old = await h.container('old', (await h.service.findNetwork('bridge')).id)
  const both = await h.container('both', (await h.network('dual', dual(1))).id)
  await lab.serve(old.netns, 'old', 80)
  await lab.serve(both.netns, 'both', 80, '::')
  const port = (hostPort: number, protocol: 'tcp' | 'udp', hostIp = '') => ({
    containerPort: 80,
    protocol,
    hostIp,
    hostPort,
  })
  const shown = await h.service.publish(old.id, [port(8080, 'tcp'), port(8080, 'udp'), port(0, 'tcp')])
  t.deepEqual(
    shown.map((p) => [p.hostIp, p.protocol]),
    [
      ['0.0.0.0', 'tcp'],
      ['::', 'tcp'],
      ['0.0.0.0', 'udp'],
      ['::', 'udp'],
      ['0.0.0.0', 'tcp'],
      ['::', 'tcp'],
    ],
  )
  t.is(shown[4]!.hostPort, shown[5]!.hostPort)
  await h.service.publish(both.id, [
    port(9090, 'tcp'),
    port(9090, 'udp'),
    port(9091, 'tcp', HOST),
    port(9092, 'tcp', '::1'),
  ])

  const gateway = (await h.service.findNetwork('bridge')).ipam.pools[0]!.gateway
  t.deepEqual((await lab.get(lab.outside, HOST, 8080, 3)).answers, Array(3).fill(`old ${gateway}`), 'relayed')
  t.deepEqual((await lab.udp(lab.outside, HOST, 8080, 2)).answers, Array(2).fill(`old ${gateway}`))
  t.is((await lab.get(h.netns, '::1', 8080)).error, null)
  t.is((await lab.get(lab.outside, HOST, shown[5]!.hostPort)).error, null)
  t.deepEqual((await lab.get(lab.outside, h.address, 8080)).answers, ['old 10.88.0.100'])

  t.deepEqual((await lab.get(lab.outside, HOST, 9090, 3)).answers, Array(3).fill(`both ${OUTSIDE}`), 'by rules')
  t.deepEqual((await lab.udp(lab.outside, HOST, 9090)).answers, [`both ${OUTSIDE}`])
  t.deepEqual((await lab.get(lab.outside, HOST, 9091)).answers, [`both ${OUTSIDE}`])
  t.is((await lab.get(lab.outside, h.address, 9091)).error, 'ECONNREFUSED')
  t.is((await lab.get(h.netns, '::1', 9090)).error, null)
  t.is((await lab.get(h.netns, '::1', 9092)).error, null)
  t.is((await lab.get(lab.outside, HOST, 9092)).error, 'ECONNREFUSED')
  t.is((await lab.get(both.netns, HOST, 9090)).error, null, 'to itself')
  t.is((await lab.get(both.netns, HOST, 8080)).error, null, 'from another network')

  const taken = await t.throwsAsync(h.service.publish(both.id, [port(8080, 'tcp', '::')]))
  t.like(taken, { code: 'portInUse' })
  t.regex(taken!.message, /Bind for \[::\]:8080 failed: port is already allocated/)
  await lab.serve(h.netns, 'foreign', 7070, '::')
  t.like(await t.throwsAsync(h.service.publish(both.id, [port(7070, 'tcp')])), { code: 'portInUse' })
  t.is((await lab.get(lab.outside, HOST, 9090)).error, null, 'a refused change changes nothing')

  const relays = h.children()
  t.is(relays.length, 2)
  for (const pid of relays) process.kill(pid, 'SIGKILL')
  while (h.children().length < 2 || h.children().some((pid) => relays.includes(pid))) await setTimeout(50)
  t.is((await lab.get(lab.outside, HOST, 8080)).error, null, 'a relay that was killed is started again')
  await h.kill()
  await h.start({ relay }, [old.id, both.id])
  t.is((await lab.get(lab.outside, HOST, 8080)).error, null)
  t.is((await lab.get(h.netns, '::1', 9092)).error, null)
  await h.service.publish(old.id, [])
  t.is((await lab.get(lab.outside, HOST, 8080)).error, 'ECONNREFUSED')
  await h.service.deleteSandbox(both.id)
  t.is((await lab.get(lab.outside, HOST, 9090)).error, 'ECONNREFUSED')
  t.is((await lab.get(h.netns, '::1', 9090)).error, 'ECONNREFUSED')
})

run('what goes through the relay arrives as it was sent, whatever its size and pace', async (t) => {
  t.timeout(60_000)
  const [lab, h] = await open(t)
  await h.start({ relay })
  const a = await h.container('a', (await h.service.findNetwork('bridge')).id)
  await h.service.publish(a.id, [{ containerPort: 80, protocol: 'tcp', hostIp: '', hostPort: 8080 }])
  await lab.serve(a.netns, 'a', 80)
  t.deepEqual(await lab.flood(lab.outside, HOST, 8080, 12), { answers: Array(12).fill('same'), error: null })
})

run('without a relay, ports of IPv6 are those of containers that have it', async (t) => {
  t.timeout(60_000)
  const [lab, h] = await open(t)
  await h.start()
  const old = await h.container('old', (await h.service.findNetwork('bridge')).id)
  const both = await h.container('both', (await h.network('dual', dual(1))).id)
  await lab.serve(both.netns, 'both', 80, '::')
  const port = (hostPort: number) => [{ containerPort: 80, protocol: 'tcp' as const, hostIp: '', hostPort }]
  t.deepEqual(
    (await h.service.publish(old.id, port(8080))).map((p) => p.hostIp),
    ['0.0.0.0'],
  )
  t.deepEqual(
    (await h.service.publish(both.id, port(9090))).map((p) => p.hostIp),
    ['0.0.0.0', '::'],
  )
  t.deepEqual((await lab.get(lab.outside, HOST, 9090)).answers, [`both ${OUTSIDE}`])
  t.is((await lab.get(h.netns, '::1', 9090)).error, 'ECONNREFUSED')
})

run('a macvlan network has several subnets of each family', async (t) => {
  t.timeout(60_000)
  const [lab, h] = await open(t)
  await h.start()
  const pools = [
    { subnet: '10.88.0.0/24', gateway: '10.88.0.1', range: '10.88.0.128/25' },
    { subnet: '10.89.0.0/24', gateway: '10.89.0.254' },
    { subnet: '2001:db8:88::/64' },
    { subnet: 'fd89::/64', gateway: 'fd89::254' },
  ]
  const lan = await h.network('lan', {
    driver: 'macvlan',
    ipv6: true,
    options: { parent: 'eth0' },
    ipam: { driver: 'default', options: {}, pools },
  })
  const a = await h.container('a', lan.id, { join: { ipv4Address: '10.88.0.150', ipv6Address: '2001:db8:88::150' } })
  const b = await h.container('b', lan.id, { join: { ipv4Address: '10.89.0.20', ipv6Address: 'fd89::20' } })
  t.like(a.endpoint, { gateway: '10.88.0.1', ipv6Gateway: '2001:db8:88::1' })
  t.like(b.endpoint, { gateway: '10.89.0.254', ipv6Gateway: 'fd89::254' })
  await lab.serve(a.netns, 'a', 80, '::')
  t.deepEqual((await lab.get(lab.outside, '2001:db8:88::150', 80)).answers, [`a ${OUTSIDE}`])
  t.deepEqual((await lab.dns(b.netns, 'a', 'AAAA')).answers, ['2001:db8:88::150'])
})

run('the default network has IPv6 where it is set, and bad settings and wishes are refused', async (t) => {
  t.timeout(60_000)
  const [, h] = await open(t)
  await h.start({ ipv6: true, fixedCidr6: '2001:db8:1::/64', defaultGateway6: '2001:db8:1::100' })
  const bridge = await h.service.findNetwork('bridge')
  const a = await h.container('a', bridge.id, { join: { macAddress: 'AA:BB:CC:DD:EE:FF' } })
  t.like(a.endpoint, { ipv6Address: '2001:db8:1::aabb:ccdd:eeff', ipv6Gateway: '2001:db8:1::100' })
  t.is((await native.netRoutes(a.netns)).find((r) => r.to === '::/0')?.via, '2001:db8:1::100')
  const addresses = (await native.netAddresses(h.netns)).filter((x) => x.dev === 'docker0').map((x) => x.address)
  t.true(addresses.includes('2001:db8:1::1') && addresses.includes('fe80::1'))
  t.is(sysctl(h.netns, 'docker0/accept_ra'), '0')
  t.is(sysctl(h.netns, 'all/forwarding'), '1')
  t.is(sysctl(h.netns, 'eth0/accept_ra'), '2', "the host goes on hearing its own network's routers")

  const auto = await h.network('auto', { ipv6: true })
  t.regex(auto.ipam.pools[1]!.subnet, /^fd[0-9a-f]{2}:[0-9a-f:]+::\/64$/)
  const without = await h.network('without', { ...dual(7), ipv6: false })
  t.deepEqual(
    without.ipam.pools.map((p) => p.subnet),
    ['10.66.7.0/24'],
  )
  t.deepEqual(
    without.ipam.idlePools?.map((p) => p.subnet),
    ['fd66:7::/64'],
  )
  t.is((await h.service.join(a.id, without.id, { ipv6Address: 'fd66:7::9' })).ipv6Address, '')
  for (const [pools, code] of [
    [[{ subnet: 'fd66:1::/127' }], 'ipam'],
    [[{ subnet: 'fd66:1::/64', gateway: 'fd66:2::1' }], 'ipam'],
    [[{ subnet: 'fd66:1::/64', range: '10.0.0.0/8' }], 'ipam'],
    [[{ subnet: 'fd66:1::/64' }, { subnet: 'fd66:2::/64' }], 'severalSubnets'],
    [[{ subnet: auto.ipam.pools[1]!.subnet.replace('/64', '/72') }], 'subnetOverlap'],
  ] as const)
    t.like(await t.throwsAsync(h.network('bad', { ipv6: true, ipam: { driver: 'default', options: {}, pools } })), {
      code,
    })
  for (const [request, code] of [
    [{ ipv6Address: 'fd77::1' }, 'addressOutside'],
    [{ linkLocalAddresses: ['169.253.5.5'] }, 'linkLocalAddress'],
    [{ linkLocalAddresses: ['2001:db8::89'] }, 'linkLocalAddress'],
  ] as const)
    t.like(await t.throwsAsync(h.service.join(a.id, auto.id, request)), { code })
  await h.kill()
  t.like(await t.throwsAsync(h.start({ fixedCidr6: '10.0.0.0/8' })), { code: 'networkOption' })
})
