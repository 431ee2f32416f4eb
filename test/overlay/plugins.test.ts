// Networks and addresses of plugins, in real namespaces; the plugin is a process that keeps count (../support/network-plugin.ts).
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import test, { type ExecutionContext } from 'ava'
import { loadNetNative } from '../../src/overlay/native.js'
import { type Host, Lab, whyNoLab } from './support/lab.js'

const reason = await whyNoLab()
if (reason) console.log(`skipped: ${reason}`)
const run = reason ? test.serial.skip : test.serial

const native = loadNetNative()
const SCRIPT = fileURLToPath(new URL('../support/network-plugin.js', import.meta.url))
const NOTHING = { networks: {}, endpoints: {}, pools: {} }
const IPAM = { ipam: { driver: 'plug', options: { a: 'b' }, pools: [] } }

class Plugin {
  readonly dir: string
  #child: ChildProcess | null = null

  constructor(private readonly h: Host) {
    this.dir = join(h.pluginsDir, 'plug')
  }

  async start(): Promise<void> {
    const args = [`--net=${this.h.netns}`, process.execPath, SCRIPT, join(this.h.pluginsDir, 'plug.sock'), this.dir]
    this.#child = spawn('nsenter', args, { stdio: ['ignore', 'pipe', 'inherit'] })
    await once(this.#child.stdout!, 'data')
  }

  async kill(): Promise<void> {
    if (!this.#child || this.#child.exitCode !== null || this.#child.signalCode !== null) return
    const gone = once(this.#child, 'exit')
    this.#child.kill('SIGKILL')
    await gone
  }

  wish(wishes: object | null): void {
    if (wishes) writeFileSync(join(this.dir, 'wishes'), JSON.stringify(wishes))
    else rmSync(join(this.dir, 'wishes'), { force: true })
  }

  /** What it has lent and not got back. */
  get state(): Record<keyof typeof NOTHING, Record<string, { readonly lent?: string[] }>> {
    return JSON.parse(this.#read('state.json') || JSON.stringify(NOTHING))
  }

  get lent(): string[] {
    return Object.values(this.state.pools).flatMap((p) => p.lent ?? [])
  }

  #read(file: string): string {
    const path = join(this.dir, file)
    return existsSync(path) ? readFileSync(path, 'utf8').trim() : ''
  }

  calls(method: string): Record<string, unknown>[] {
    const lines = this.#read('calls').split('\n').filter(Boolean)
    return lines.map((l) => JSON.parse(l) as Record<string, unknown>).filter((c) => String(c.method).endsWith(method))
  }

  async until(holds: () => boolean): Promise<void> {
    for (let i = 0; i < 600 && !holds(); i++) await setTimeout(50)
    if (!holds()) throw new Error(`never so: ${holds}: ${JSON.stringify(this.state)}`)
  }
}

async function open(t: ExecutionContext): Promise<[Lab, Host, Plugin]> {
  t.timeout(120_000)
  const lab = await Lab.open(1)
  const h = lab.hosts[0]!
  const plugin = new Plugin(h)
  t.teardown(async () => {
    await plugin.kill()
    await lab.close()
  })
  await plugin.start()
  await h.start()
  return [lab, h, plugin]
}

const owed = (h: Host): string[] => {
  const dir = join(h.runDir, '..', 'root', 'plugins')
  return existsSync(dir) ? readdirSync(dir) : []
}

run("a plugin's network carries traffic, and everything that it lent comes back", async (t) => {
  const [lab, h, plugin] = await open(t)
  const n = await h.network('far', { driver: 'plug', ipv6: true, options: { colour: 'blue' }, ...IPAM })
  t.deepEqual(
    n.ipam.pools.map((p) => [p.subnet, p.gateway]),
    [
      ['10.99.0.0/24', '10.99.0.1'],
      ['fd99:1::/64', 'fd99:1::1'],
    ],
  )
  t.like(plugin.calls('CreateNetwork')[0], {
    NetworkID: n.id,
    Options: { 'com.docker.network.enable_ipv6': true, 'com.docker.network.generic': { colour: 'blue' } },
    IPv4Data: [{ AddressSpace: 'plug', Pool: '10.99.0.0/24', Gateway: '10.99.0.1/24', AuxAddresses: {} }],
    IPv6Data: [{ Pool: 'fd99:1::/64', Gateway: 'fd99:1::1/64' }],
  })
  t.like(plugin.calls('RequestPool')[0], {
    AddressSpace: 'here',
    Pool: '',
    SubPool: '',
    Options: { a: 'b' },
    V6: false,
  })
  const a = await h.container('a', n.id)
  const b = await h.container('b', n.id, { address: '10.99.0.77' })
  t.like(a.endpoint, {
    ipv4Address: '10.99.0.2',
    ipv4PrefixLength: 24,
    ipv6Address: 'fd99:1::2',
    interfaceName: 'plug0',
  })
  t.is(b.endpoint.ipv4Address, '10.99.0.77')
  t.like(plugin.calls('CreateEndpoint')[0], {
    EndpointID: a.endpoint.endpointId,
    Interface: { Address: '10.99.0.2/24', AddressIPv6: 'fd99:1::2/64', MacAddress: '' },
  })
  const link = (await native.netLinks(a.netns)).find((l) => l.name === 'plug0')
  t.is(link?.mac, a.endpoint.macAddress)
  t.regex(a.endpoint.macAddress, /^0a:00:/, "the plugin's choice")
  await lab.serve(b.netns, 'b', 80, '::')
  t.is((await lab.get(a.netns, '10.99.0.77', 80)).error, null)
  t.deepEqual((await lab.dns(a.netns, 'b')).answers, ['10.99.0.77'])

  // No gateway of the plugin's: the way out is the hidden bridge, and ports lead there.
  await lab.serve(lab.outside, 'out', 99)
  t.deepEqual((await lab.get(a.netns, '10.88.0.100', 99)).answers, [`out ${h.address}`])
  await h.service.publish(b.id, [{ containerPort: 80, protocol: 'tcp', hostIp: '', hostPort: 8080 }])
  t.is((await lab.get(lab.outside, h.address, 8080)).error, null)

  await h.service.leave(a.id, n.id)
  t.false((await native.netLinks(a.netns)).some((l) => l.name.startsWith('plug')))
  t.deepEqual(Object.keys(plugin.state.endpoints), [b.endpoint.endpointId])
  await h.kill()
  await h.start({}, [a.id, b.id])
  await plugin.until(() => plugin.calls('RequestPool').length === 4) // told again what it lent
  t.is((await h.service.join(a.id, n.id, {})).interfaceName, 'plug0')
  t.is((await lab.get(a.netns, '10.99.0.77', 80)).error, null)
  t.like(await t.throwsAsync(h.service.removeNetwork(n.id)), { code: 'networkInUse' })
  await h.service.deleteSandbox(a.id)
  await h.service.deleteSandbox(b.id)
  await h.service.removeNetwork(n.id)
  t.deepEqual(plugin.state, NOTHING)
  t.deepEqual(owed(h), [])
  t.deepEqual(
    (await lab.leftovers(h)).links.sort(),
    ['docker0', 'docker_gwbridge'],
    'no link of the plugin is left in the host or moved back and forgotten',
  )
})

run('the plugin says where the way out is, and publishes what leads there', async (t) => {
  const [, h, plugin] = await open(t)
  const n = await h.network('far', { driver: 'plug', ...IPAM })
  plugin.wish({
    join: {
      Gateway: '10.99.0.1',
      StaticRoutes: [
        { Destination: '10.123.0.0/16', RouteType: 0, NextHop: '10.99.0.9' },
        { Destination: '10.124.0.0/16', RouteType: 1 },
      ],
    },
  })
  const a = await h.container('a', n.id)
  t.is(a.endpoint.gateway, '10.99.0.1')
  const routes = async (netns: string) =>
    Object.fromEntries((await native.netRoutes(netns)).map((r) => [r.to, r.via || r.dev]))
  t.like(await routes(a.netns), { default: '10.99.0.1', '10.123.0.0/16': '10.99.0.9', '10.124.0.0/16': 'plug0' })
  const port = { containerPort: 80, protocol: 'tcp' as const, hostIp: '', hostPort: 8080 }
  await h.service.publish(a.id, [port])
  const programmed = plugin.calls('ProgramExternalConnectivity').at(-1)!.Options as Record<string, object[]>
  t.like(programmed['com.docker.network.portmap']![0], { Proto: 6, Port: 80, HostPort: 8080 })
  const bridge = await h.container('b', (await h.service.findNetwork('bridge')).id)
  t.is((await h.service.publish(bridge.id, [port])).length, 1, 'the port is free on the host')
  await h.service.deleteSandbox(a.id)
  t.deepEqual(plugin.state.endpoints, {})

  plugin.wish({ join: { DisableGatewayService: true } })
  const c = await h.container('c', n.id)
  t.false('default' in (await routes(c.netns)))
  for (const [join, code] of [
    [{ Gateway: 'nowhere' }, 'pluginBroken'],
    [{ StaticRoutes: [{ Destination: '1.2.3.4', RouteType: 1 }] }, 'pluginBroken'],
    [{ InterfaceName: { SrcName: 'nosuch0', DstPrefix: 'x' } }, 'endpointSetup'],
  ] as const) {
    plugin.wish({ join })
    t.like(await t.throwsAsync(h.container(`bad ${Object.keys(join)}`, n.id)), { code })
    t.deepEqual(Object.keys(plugin.state.endpoints), [c.endpoint.endpointId], 'taken back')
  }
})

run('a refusal is told in the words of the plugin, and leaves nothing', async (t) => {
  const [, h, plugin] = await open(t)
  for (const method of ['IpamDriver.RequestPool', 'IpamDriver.RequestAddress', 'NetworkDriver.CreateNetwork']) {
    plugin.wish({ fail: method })
    const e = await t.throwsAsync(h.network('far', { driver: 'plug', ...IPAM }))
    t.like(e, { code: 'pluginFailed' })
    t.regex(e!.message, new RegExp(`asked to fail ${method}`))
    t.deepEqual(plugin.state, NOTHING)
    t.deepEqual(owed(h), [])
  }
  plugin.wish(null)
  const n = await h.network('far', { driver: 'plug', ...IPAM })
  for (const method of ['IpamDriver.RequestAddress', 'NetworkDriver.CreateEndpoint', 'NetworkDriver.Join']) {
    plugin.wish({ fail: method })
    t.like(await t.throwsAsync(h.container(`c ${method}`.replace(/\W/g, ''), n.id)), { code: 'pluginFailed' })
    t.deepEqual(plugin.state.endpoints, {})
    t.deepEqual(owed(h), [`${n.id}.json`])
  }
  plugin.wish({ fail: 'NetworkDriver.DeleteNetwork' })
  t.regex((await t.throwsAsync(h.service.removeNetwork(n.id)))!.message, /asked to fail NetworkDriver.DeleteNetwork/)
  t.is((await h.service.findNetwork('far')).id, n.id, 'what a plugin does not let go stays')
  plugin.wish(null)
  await h.service.removeNetwork(n.id)
  t.deepEqual(plugin.state, NOTHING)
  const unknown = await t.throwsAsync(h.network('far', { driver: 'nosuch' }))
  t.like(unknown, { kind: 'notFound' })
  t.regex(unknown!.message, /plugin "nosuch" not found/)
  t.like(await t.throwsAsync(h.network('far', { ipam: { ...IPAM.ipam, driver: 'nosuch' } })), { kind: 'notFound' })
  const none = await h.network('none0', { driver: 'plug', ipam: { driver: 'null', options: {}, pools: [] } })
  t.deepEqual(
    none.ipam.pools.map((p) => [p.subnet, p.gateway]),
    [['0.0.0.0/0', undefined]],
  )
  t.is((await h.container('bare', none.id)).endpoint.ipv4Address, '')
})

run('a plugin that connects beyond the host is told of the nodes', async (t) => {
  const [, h, plugin] = await open(t)
  const member = (n: number) => ({
    nodeId: `n${n}`,
    hostname: `n${n}`,
    dataPathAddress: `10.88.0.1${n}`,
    ingressIndex: n,
  })
  const told = (method: string): unknown[] => plugin.calls(method).map((c) => c.DiscoveryData)
  await h.service.clusterJoined({ nodeId: 'n1', dataPathAddress: h.address })
  await h.service.applyMembers({ members: [member(1), member(2)], dataPathPort: 4789 })
  await h.network('far', { driver: 'plug', ...IPAM })
  await plugin.until(() => told('DiscoverNew').length === 2)
  t.deepEqual(told('DiscoverNew'), [
    { Address: '10.88.0.11', BindAddress: '10.88.0.11', Self: true },
    { Address: '10.88.0.12', BindAddress: '', Self: false },
  ])
  await h.service.applyMembers({ members: [member(1), member(3)], dataPathPort: 4789 })
  await plugin.until(() => told('DiscoverDelete').length === 1)
  t.deepEqual(told('DiscoverDelete'), [{ Address: '10.88.0.12', BindAddress: '', Self: false }])
  t.is(told('DiscoverNew').length, 3)
  await h.service.clusterLeft()
  await plugin.until(() => told('DiscoverDelete').length === 3)
})

run('a daemon killed while the plugin works loses nothing that it lent', async (t) => {
  const [, h, plugin] = await open(t)
  plugin.wish({ hang: 'NetworkDriver.CreateNetwork' })
  h.network('far', { driver: 'plug', ...IPAM }).catch(() => {})
  await plugin.until(() => Object.keys(plugin.state.networks).length > 0)
  await h.kill()
  plugin.wish(null)
  await h.start()
  await plugin.until(() => owed(h).length === 0)
  t.deepEqual(plugin.state, NOTHING)
  t.deepEqual(await h.service.networks().then((all) => all.filter((n) => n.name === 'far')), [])
  t.deepEqual(owed(h), [])
  const n = await h.network('far', { driver: 'plug', ...IPAM })
  for (const method of ['IpamDriver.RequestAddress', 'NetworkDriver.CreateEndpoint', 'NetworkDriver.Join']) {
    plugin.wish({ hang: method })
    const before = plugin.calls(method).length
    h.container(`c${method}`.replace('.', ''), n.id, { address: '10.99.0.50' }).catch(() => {})
    await plugin.until(() => plugin.calls(method).length > before && plugin.lent.includes('10.99.0.50'))
    await h.kill()
    plugin.wish(null)
    await h.start()
    await plugin.until(() => owed(h).length === 1)
    t.deepEqual(plugin.state.endpoints, {})
    t.is(plugin.lent.length, 1, "the gateway's address")
    t.deepEqual(owed(h), [`${n.id}.json`])
  }
  await h.service.removeNetwork(n.id)
  t.deepEqual(plugin.state, NOTHING)
})

run('a plugin that is dead or hangs is in nobody else’s way, and gets back later what it lent', async (t) => {
  const [, h, plugin] = await open(t)
  const n = await h.network('far', { driver: 'plug', ...IPAM })
  const a = await h.container('a', n.id)
  plugin.wish({ hang: 'NetworkDriver.CreateNetwork' })
  const hanging = h.network('slow', { driver: 'plug' })
  hanging.catch(() => {})
  await plugin.until(() => plugin.calls('CreateNetwork').length === 2)
  const other = await h.network('other')
  t.like(await t.throwsAsync(h.network('slow')), { code: 'networkNameInUse' })
  await h.service.removeNetwork(other.id)
  await plugin.kill()
  t.like(await t.throwsAsync(hanging), { kind: 'unavailable' })
  await plugin.start()
  const stopped = h.network('slow2', { driver: 'plug' })
  stopped.catch(() => {})
  await plugin.until(() => plugin.calls('CreateNetwork').length > 2)
  await h.service.stop()
  t.regex((await t.throwsAsync(stopped))!.message, /this daemon is stopping/, 'not waited for')
  await h.kill()
  await h.start({}, [a.id])
  await plugin.kill()

  await h.service.deleteSandbox(a.id)
  t.deepEqual((await h.lab.leftovers(h)).namespaces, [])
  t.is(Object.keys(plugin.state.endpoints).length, 1, 'the plugin could not be told')
  await h.kill()
  await h.start()
  t.regex((await t.throwsAsync(h.service.removeNetwork(n.id)))!.message, /plugin "plug" does not answer/)
  plugin.wish(null)
  await plugin.start()
  await plugin.until(() => owed(h).length === 1)
  t.deepEqual(plugin.state.endpoints, {})
  t.deepEqual(Object.keys(plugin.state.networks), [n.id], 'nor is the network that was never made')
  await h.service.removeNetwork(n.id)
  t.deepEqual(plugin.state, NOTHING)
})
