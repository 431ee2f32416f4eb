// Names on this host's own networks, isolation, and what a restart of the daemon keeps; in real namespaces.
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { loadNetNative } from '../../src/overlay/native.js'
import { type Host, Lab, whyNoLab } from './support/lab.js'

const reason = await whyNoLab()
if (reason) console.log(`skipped: ${reason}`)
const run = reason ? test.serial.skip : test.serial

run('on a user-defined network names, aliases and short ids resolve; other questions go upstream', async (t) => {
  t.timeout(60_000)
  const lab = await Lab.open(1)
  t.teardown(() => lab.close())
  const h = lab.hosts[0] as Host
  const upstream = lab.program(lab.outside, 'nameserver', '10.88.0.100', '192.0.2.7')
  await upstream.until('ready')
  const conf = join(lab.dir, 'resolv.conf')
  writeFileSync(conf, 'nameserver 10.88.0.100\nsearch example.test\n')
  await h.start({ hostResolvConf: conf })
  const net = await h.network('front')
  const a = await h.container('a', net.id, {
    aliases: ['db'],
    spec: { extraHosts: ['gate:host-gateway', 'x:1.2.3.4'] },
  })
  const b = await h.container('b', net.id)
  t.deepEqual(await lab.dns(b.netns, 'a'), { answers: [a.endpoint.ipv4Address], error: null })
  t.deepEqual((await lab.dns(b.netns, 'DB')).answers, [a.endpoint.ipv4Address])
  t.deepEqual((await lab.dns(b.netns, a.id.slice(0, 12))).answers, [a.endpoint.ipv4Address])
  t.deepEqual((await lab.dns(b.netns, 'a.front')).answers, [a.endpoint.ipv4Address])
  t.deepEqual((await lab.dns(b.netns, a.endpoint.ipv4Address, 'PTR')).answers, ['a.front'])
  t.is((await lab.dns(b.netns, 'a', 'AAAA')).error, 'ENODATA')
  t.deepEqual((await lab.dns(b.netns, 'somewhere.test')).answers, ['192.0.2.7'])
  t.is(
    readFileSync(join(b.files, 'resolv.conf'), 'utf8'),
    'search example.test\nnameserver 127.0.0.11\noptions ndots:0\n',
  )
  const bridge = await h.service.findNetwork('bridge')
  t.regex(readFileSync(join(a.files, 'hosts'), 'utf8'), new RegExp(`^${bridge.ipam.pools[0]!.gateway}\tgate$`, 'm'))
  t.is(readFileSync(join(a.files, 'hostname'), 'utf8'), 'a\n')

  const plain = await h.container('plain', bridge.id)
  t.is(readFileSync(join(plain.files, 'resolv.conf'), 'utf8'), 'search example.test\nnameserver 10.88.0.100\n')
  const loopback = { servers: ['127.0.0.1'], search: ['.'], options: [] }
  const asked = await h.container('asked', bridge.id, { spec: { dns: loopback } })
  t.is(readFileSync(join(asked.files, 'resolv.conf'), 'utf8'), 'nameserver 127.0.0.1\n')
  writeFileSync(conf, 'nameserver 10.88.0.101\n')
  const later = await h.container('later', bridge.id)
  t.is(readFileSync(join(later.files, 'resolv.conf'), 'utf8'), 'nameserver 10.88.0.101\n')
  await h.service.rename(a.id, 'a2')
  t.deepEqual((await lab.dns(b.netns, 'a2')).answers, [a.endpoint.ipv4Address])
  await h.service.leave(a.id, net.id)
  t.not((await lab.dns(b.netns, 'a2')).answers[0], a.endpoint.ipv4Address)
})

run('networks are isolated from each other, internal ones from the outside too', async (t) => {
  t.timeout(60_000)
  const lab = await Lab.open(1)
  t.teardown(() => lab.close())
  const h = lab.hosts[0] as Host
  await h.start()
  const front = await h.network('front')
  const back = await h.network('back', { internal: true })
  const quiet = await h.network('quiet', { options: { 'com.docker.network.bridge.enable_icc': 'false' } })
  const a = await h.container('a', front.id)
  const b = await h.container('b', back.id)
  const b2 = await h.container('b2', back.id)
  const q = await h.container('q', quiet.id)
  const q2 = await h.container('q2', quiet.id)
  for (const c of [a, b, q]) await lab.serve(c.netns, c.endpoint.name, 80)
  await lab.serve(lab.outside, 'out', 99)
  t.deepEqual((await lab.get(b2.netns, b.endpoint.ipv4Address, 80)).answers.length, 1)
  t.not((await lab.get(a.netns, b.endpoint.ipv4Address, 80)).error, null)
  t.not((await lab.get(q2.netns, q.endpoint.ipv4Address, 80)).error, null, 'icc=false')
  t.not((await lab.get(b.netns, '10.88.0.100', 99)).error, null, 'internal: no way out')
  t.is((await lab.get(q.netns, '10.88.0.100', 99)).error, null)
  await h.service.publish(a.id, [{ containerPort: 80, protocol: 'tcp', hostIp: '', hostPort: 8080 }])
  t.is((await lab.get(q.netns, h.address, 8080)).error, null, 'through the published port')
  t.not((await lab.get(b.netns, h.address, 8080)).error, null, 'internal: not even published ports')
  t.like(await t.throwsAsync(h.service.removeNetwork(front.id)), { kind: 'forbidden', code: 'networkInUse' })
  t.like(await t.throwsAsync(h.network('front')), { kind: 'conflict', code: 'networkNameInUse' })
  t.like(
    await t.throwsAsync(
      h.network('over', { ipam: { driver: 'default', options: {}, pools: [{ subnet: front.ipam.pools[0]!.subnet }] } }),
    ),
    { kind: 'forbidden', code: 'subnetOverlap' },
  )
  const small = await h.network('small', {
    ipam: { driver: 'default', options: {}, pools: [{ subnet: '10.99.0.0/30' }] },
  })
  const s = await h.container('s', small.id)
  t.is(s.endpoint.ipv4Address, '10.99.0.2')
  t.like(await t.throwsAsync(h.container('s2', small.id)), { kind: 'unavailable', code: 'noFreeAddress' })
})

run(
  'a link opens ports of one endpoint for another where endpoints do not reach each other, as long as it stands',
  async (t) => {
    t.timeout(60_000)
    const lab = await Lab.open(1)
    t.teardown(() => lab.close())
    const h = lab.hosts[0] as Host
    await h.start({ icc: false })
    const quiet = await h.service.findNetwork('bridge')
    const web = await h.container('web', quiet.id)
    const user = await h.container('user', quiet.id)
    const third = await h.container('third', quiet.id)
    for (const port of [80, 81]) await lab.serve(web.netns, 'web', port)
    await lab.serve(user.netns, 'user', 80)
    const reaches = async (from: { netns: string }, to: { endpoint: { ipv4Address: string } }, port: number) =>
      (await lab.get(from.netns, to.endpoint.ipv4Address, port)).error === null
    t.false(await reaches(user, web, 80))
    const link = { address: web.endpoint.ipv4Address, names: ['db'], ports: [{ protocol: 'tcp', port: 80 }] } as const
    await h.service.setLinks(user.id, [link])
    t.regex(readFileSync(join(user.files, 'hosts'), 'utf8'), new RegExp(`^${link.address}\tdb$`, 'm'))
    t.true(await reaches(user, web, 80))
    t.false(await reaches(user, web, 81))
    t.false(await reaches(web, user, 80))
    t.false(await reaches(third, web, 80))
    await h.kill()
    await h.start({ icc: false }, [web.id, user.id, third.id])
    t.true(await reaches(user, web, 80))
    await h.service.setLinks(user.id, [])
    t.notRegex(readFileSync(join(user.files, 'hosts'), 'utf8'), /\tdb$/m)
    t.false(await reaches(user, web, 80))
  },
)

run('a killed daemon finds its sandboxes again, removes the dead ones, and serves names and ports', async (t) => {
  t.timeout(60_000)
  const lab = await Lab.open(1)
  t.teardown(() => lab.close())
  const h = lab.hosts[0] as Host
  await h.start()
  const net = await h.network('front')
  const a = await h.container('a', net.id)
  const b = await h.container('b', net.id)
  const dead = await h.container('dead', net.id)
  await lab.serve(a.netns, 'a', 80)
  const ports = [{ containerPort: 80, protocol: 'tcp' as const, hostIp: '', hostPort: 8080 }]
  await h.service.publish(a.id, ports)
  await h.service.publish(dead.id, [{ ...ports[0]!, hostPort: 8090 }])
  await h.kill()
  t.is((await lab.get(lab.outside, h.address, 8080)).error, null, 'while the daemon is down')
  await h.start({}, [a.id, b.id])
  t.is((await h.service.networks()).find((n) => n.name === 'front')?.id, net.id)
  t.is(await h.service.sandbox(dead.id), null)
  t.false(existsSync(dead.netns))
  t.deepEqual((await h.service.sandbox(a.id))?.endpoints, [a.endpoint])
  t.deepEqual((await lab.dns(b.netns, 'a')).answers, [a.endpoint.ipv4Address])
  t.is((await lab.get(lab.outside, h.address, 8080)).error, null)
  t.is((await lab.get(lab.outside, h.address, 8090)).error, 'ECONNREFUSED')
  t.like(await t.throwsAsync(h.service.publish(b.id, ports)), { code: 'portInUse' })
  const c = await h.container('c', net.id)
  t.not(c.endpoint.ipv4Address, a.endpoint.ipv4Address)
  t.not(c.endpoint.ipv4Address, b.endpoint.ipv4Address)
  const stats = await h.service.stats(a.id)
  t.deepEqual(
    stats.map((s) => s.name),
    ['eth0'],
  )
  t.true(stats[0]!.rxPackets > 0)

  await h.kill()
  await h.start({}, [])
  t.deepEqual(await h.service.endpoints(net.id), [])
  await h.service.removeNetwork(net.id)
  const left = await lab.leftovers(h)
  t.deepEqual(left.links, ['docker0'])
  t.deepEqual(left.namespaces, [])
})

run('a network that can be found has its bridge', async (t) => {
  t.timeout(60_000)
  const lab = await Lab.open(1)
  t.teardown(() => lab.close())
  const h = lab.hosts[0] as Host
  await h.start()
  for (let i = 0; i < 10; i++) {
    const creating = h.network(`soon${i}`)
    let found: { id: string } | null = null
    while (!found) found = await h.service.findNetwork(`soon${i}`).catch(() => null)
    const bridge = `br-${found.id.slice(0, 12)}`
    t.true((await loadNetNative().netLinks(h.netns)).some((l) => l.name === bridge))
    await creating
  }
})

run('host, none, shared and macvlan modes', async (t) => {
  t.timeout(60_000)
  const lab = await Lab.open(1)
  t.teardown(() => lab.close())
  const h = lab.hosts[0] as Host
  await h.start()
  const host = await h.container('on-host', (await h.service.findNetwork('host')).id, { spec: { mode: 'host' } })
  t.is(host.netns, null as never)
  const none = await h.container('alone', (await h.service.findNetwork('none')).id, { spec: { mode: 'none' } })
  t.deepEqual(await h.service.stats(none.id), [])
  for (const [name, value, message] of [
    [
      'net.core.somaxconn',
      'many',
      /^cannot set sysctl net.core.somaxconn to "many": the kernel does not take this value/,
    ],
    ['net.core.nosuch', '1', /^cannot set sysctl net.core.nosuch to "1": this kernel has no such setting$/],
  ] as const) {
    const refused = h.container('odd', (await h.service.findNetwork('none')).id, {
      spec: { mode: 'none', sysctls: { [name]: value } },
    })
    t.like(await t.throwsAsync(refused, { message }), { kind: 'invalid' })
  }
  const a = await h.container('a', (await h.service.findNetwork('bridge')).id)
  const shared = await h.service.createSandbox({
    id: 'shared',
    name: 'shared',
    hostname: 'shared',
    domainname: '',
    mode: { shareWith: a.id },
    dns: { servers: [], search: [], options: [] },
    extraHosts: [],
    sysctls: {},
    filesDir: join(lab.dir, 'shared'),
  })
  t.is(shared.netnsPath, a.netns)
  await h.service.deleteSandbox('shared')
  t.true(existsSync(a.netns))
  const mac = await h.network('lan', {
    driver: 'macvlan',
    options: { parent: 'eth0' },
    ipam: {
      driver: 'default',
      options: {},
      pools: [{ subnet: '10.88.0.0/24', gateway: '10.88.0.1', range: '10.88.0.128/25' }],
    },
  })
  const m = await h.container('m', mac.id, { address: '10.88.0.150' })
  await lab.serve(m.netns, 'm', 80)
  t.deepEqual((await lab.get(lab.outside, '10.88.0.150', 80)).answers, ['m 10.88.0.100'])
  await h.service.deleteSandbox(m.id)
  await h.service.removeNetwork(mac.id)
  t.like(await t.throwsAsync(h.network('lan2', { driver: 'macvlan', options: { parent: 'nosuch0' } })), {
    code: 'noSuchParent',
  })
})

run('leftovers of a crash are removed at the next start; what belongs to others stays', async (t) => {
  t.timeout(60_000)
  const lab = await Lab.open(1)
  t.teardown(() => lab.close())
  const h = lab.hosts[0] as Host
  const native = loadNetNative()
  await h.start()
  const a = await h.container('a', (await h.service.findNetwork('bridge')).id)
  await h.kill()
  const [mark] = (await native.netLinks(h.netns)).map((l) => /^shoal:.*:ep:/.exec(l.alias)?.[0]).filter(Boolean)
  // A sandbox whose record was lost, an endpoint's link, a VXLAN device between making and moving.
  await native.netnsCreate(join(h.runDir, 'netns', 'lost'), {})
  await native.netLink(h.netns, [
    { op: 'linkAdd', name: 'vethlost', kind: 'veth', peerName: 'eth0', peerNetns: join(h.runDir, 'netns', 'lost') },
    { op: 'linkSet', name: 'vethlost', alias: `${mark}lost`, up: true },
    { op: 'linkAdd', name: 'shoalvx77', kind: 'vxlan', vni: 77, port: 4789 },
    { op: 'linkAdd', name: 'foreign0', kind: 'bridge' },
  ])
  await native.netNft(h.netns, 'table ip foreign { chain c { type filter hook input priority 0; counter; }; }')
  writeFileSync(join(h.runDir, 'sandboxes', 'torn.json'), '{"spec":')
  await h.start({}, [a.id])
  const left = await lab.leftovers(h)
  t.deepEqual(left.namespaces, [a.id])
  t.false(left.links.includes('vethlost'))
  t.false(left.links.includes('shoalvx77'))
  t.true(left.links.includes('foreign0'))
  t.true(left.tables.includes('table ip foreign'))
  t.deepEqual(
    (await h.service.endpoints(a.endpoint.networkId)).map((e) => e.sandboxId),
    [a.id],
  )

  // A bridge that somebody else made, used by name.
  const macOf = async () => (await native.netLinks(h.netns)).find((l) => l.name === 'foreign0')?.mac
  const before = await macOf()
  const named = await h.network('named', { options: { 'com.docker.network.bridge.name': 'foreign0' } })
  const n = await h.container('n', named.id)
  await lab.serve(lab.outside, 'out', 99)
  t.is((await lab.get(n.netns, '10.88.0.100', 99)).error, null)
  t.is(await macOf(), before, 'it does not follow its ports')
  await h.service.deleteSandbox(n.id)
  await h.service.removeNetwork(named.id)
  t.true((await lab.leftovers(h)).links.includes('foreign0'))
})

run('many containers start and stop at once, and nothing is left', async (t) => {
  t.timeout(60_000)
  const lab = await Lab.open(1)
  t.teardown(() => lab.close())
  const h = lab.hosts[0] as Host
  await h.start()
  const net = await h.network('front')
  const boxes = await Promise.all(Array.from({ length: 30 }, (_, i) => h.container(`c${i}`, net.id)))
  t.is(new Set(boxes.map((b) => b.endpoint.ipv4Address)).size, 30)
  const ports = await Promise.all(
    boxes.map((b) => h.service.publish(b.id, [{ containerPort: 80, protocol: 'tcp', hostIp: '', hostPort: 0 }])),
  )
  t.is(new Set(ports.map((p) => p[0]!.hostPort)).size, 30)
  await lab.serve(boxes[29]!.netns, 'last', 80)
  t.deepEqual((await lab.get(lab.outside, h.address, ports[29]![0]!.hostPort)).answers, ['last 10.88.0.100'])
  t.deepEqual((await lab.dns(boxes[0]!.netns, 'c29')).answers, [boxes[29]!.endpoint.ipv4Address])
  await Promise.all(boxes.map((b) => h.service.deleteSandbox(b.id)))
  await h.service.removeNetwork(net.id)
  const left = await lab.leftovers(h)
  t.deepEqual(left.links, ['docker0'])
  t.deepEqual(left.namespaces, [])
  const map = await loadNetNative().netNft(h.netns, 'list map inet shoal pub-any')
  t.false(map.includes('elements'))
})

run('a daemon with another data root takes up the default bridge, and leaves what is of the first one', async (t) => {
  t.timeout(60_000)
  const lab = await Lab.open(1)
  t.teardown(() => lab.close())
  const h = lab.hosts[0] as Host
  await h.start()
  await h.container('c', (await h.network('front')).id)
  const subnet = async () => (await h.service.findNetwork('bridge')).ipam.pools[0]!.subnet
  const first = await subnet()
  const { links } = await lab.leftovers(h)
  await h.kill()
  await h.start({ root: join(lab.dir, 'other', 'root'), runDir: join(lab.dir, 'other', 'run') })
  t.is(await subnet(), first)
  t.deepEqual((await lab.leftovers(h)).links, links)
})

run('a UDP sender follows the port to its next container', async (t) => {
  t.timeout(60_000)
  const lab = await Lab.open(1)
  t.teardown(() => lab.close())
  const h = lab.hosts[0] as Host
  await h.start()
  const bridge = await h.service.findNetwork('bridge')
  const port = [{ containerPort: 80, protocol: 'udp' as const, hostIp: '', hostPort: 9000 }]
  const a = await h.container('a', bridge.id)
  const b = await h.container('b', bridge.id)
  await lab.serve(a.netns, 'a', 80)
  await lab.serve(b.netns, 'b', 80)
  await h.service.publish(a.id, port)
  const sender = lab.program(lab.outside, 'chat', h.address, '9000')
  sender.write('1\n')
  await sender.until('a 10.88.0.100\n')
  await h.service.publish(a.id, [])
  await h.service.publish(b.id, port)
  sender.write('2\n')
  await sender.until('b 10.88.0.100\n')
  t.pass()
})

run('the default network follows its settings at each start', async (t) => {
  t.timeout(60_000)
  const lab = await Lab.open(1)
  t.teardown(() => lab.close())
  const h = lab.hosts[0] as Host
  const native = loadNetNative()
  const links = async (): Promise<string[]> => (await native.netLinks(h.netns)).map((l) => l.name)
  await h.start({ bip: '10.2.2.1/16', fixedCidr: '10.2.2.0/24', defaultGateway: '10.2.9.9' })
  const { id } = await h.service.findNetwork('bridge')
  const a = await h.container('a', id)
  const b = await h.container('b', id)
  t.deepEqual([a.endpoint.ipv4Address, b.endpoint.ipv4Address], ['10.2.2.0', '10.2.2.2'])
  t.is((await native.netRoutes(a.netns)).find((r) => r.to === 'default')?.via, '10.2.9.9')

  await h.kill()
  t.like(await t.throwsAsync(h.start({ bridge: 'own0' })), { kind: 'invalid', code: 'noSuchBridge' })
  await h.kill()
  await native.netLink(h.netns, [
    { op: 'linkAdd', name: 'own0', kind: 'bridge' },
    { op: 'addrAdd', dev: 'own0', address: '10.77.1.1', prefix: 24 },
  ])
  await h.start({ bridge: 'own0', masquerade: false })
  const own = await h.service.findNetwork('bridge')
  t.like(own, { id, ipam: { pools: [{ subnet: '10.77.1.0/24', gateway: '10.77.1.1' }] } })
  t.is(own.options['com.docker.network.bridge.enable_ip_masquerade'], 'false')
  t.false((await links()).includes('docker0'))

  await h.kill()
  await h.start({ bridge: 'none' })
  t.like(await t.throwsAsync(h.service.findNetwork('bridge')), { kind: 'notFound' })
  t.true((await links()).includes('own0'), 'the bridge of somebody else stays')

  await h.kill()
  const leaveBridge = (): Promise<unknown> =>
    native.netLink(h.netns, [
      { op: 'linkAdd', name: 'docker0', kind: 'bridge' },
      { op: 'linkSet', name: 'docker0', alias: 'shoal:another:br:0' },
      { op: 'addrAdd', dev: 'docker0', address: '10.78.1.1', prefix: 24 },
    ])
  await leaveBridge()
  await h.start({ bridge: 'none' })
  t.false((await links()).includes('docker0'), 'a bridge that was left goes where none is wanted')

  await h.kill()
  await leaveBridge()
  await h.start()
  const left = (await h.service.findNetwork('bridge')).ipam.pools[0]!
  t.like(left, { subnet: '10.78.1.0/24', gateway: '10.78.1.1' }, 'a bridge that was left keeps its address')

  await h.kill()
  await h.start({ bridge: 'none' })
  await native.netLink(h.netns, [{ op: 'linkAdd', name: 'docker0', kind: 'bridge' }])
  await h.kill()
  await h.start()
  const { options } = await h.service.findNetwork('bridge')
  t.is(options['com.docker.network.bridge.name'], 'shoal0', "another engine's bridge is left to it")
})

run('without packet rules the host has an empty table; host-gateway may be set', async (t) => {
  t.timeout(60_000)
  const lab = await Lab.open(1)
  t.teardown(() => lab.close())
  const h = lab.hosts[0] as Host
  const native = loadNetNative()
  const listing = (): Promise<string> => native.netNft(h.netns, 'list table inet shoal')
  await h.start()
  t.regex(await listing(), /masquerade/)
  await h.kill()
  await h.start({ packetRules: false, hostGateway: '192.0.2.9' })
  t.notRegex(await listing(), /masquerade|chain/)
  const a = await h.container('a', (await h.service.findNetwork('bridge')).id, {
    spec: { extraHosts: ['gate:host-gateway'] },
  })
  t.regex(readFileSync(join(a.files, 'hosts'), 'utf8'), /^192\.0\.2\.9\tgate$/m)
})
