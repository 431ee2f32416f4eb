import test from 'ava'
import { type Network, PublishMode, TaskState } from '#proto'
import { isTerminal, stateOf } from '../../../src/manager/objects/index.js'
import { TestCluster } from '../support/cluster.js'

async function cluster(nodes: number, options: { ingress?: boolean; seed?: number } = {}): Promise<TestCluster> {
  const c = new TestCluster(options.seed)
  await c.init(nodes, options)
  c.start()
  await c.clock.settle()
  return c
}

const network = (c: TestCluster, id: string): Network => c.store.view().get('network', id)!
const subnetOf = (n: Network): string => n.ipam!.configs[0]!.subnet
const addresses = (c: TestCluster, service: string): string[] =>
  c
    .tasks(service)
    .filter((t) => !isTerminal(t))
    .flatMap((t) => t.networks.flatMap((n) => n.addresses))

const ipam = (subnet: string, range = '') => ({
  ipam: { driver: null, configs: [{ subnet, range, gateway: '', reserved: {} }] },
})

test('networks get a /24 each from the pool, a gateway and a VXLAN id from 4096', async (t) => {
  const c = await cluster(1, { ingress: true })
  const a = await c.addNetwork('a')
  const b = await c.addNetwork('b', ipam('10.0.2.0/24'))
  const d = await c.addNetwork('d')
  await c.clock.settle()
  t.deepEqual(
    [a, b, d].map((id) => subnetOf(network(c, id))),
    ['10.0.1.0/24', '10.0.2.0/24', '10.0.3.0/24'],
  )
  t.is(network(c, a).ipam!.configs[0]!.gateway, '10.0.1.1')
  t.deepEqual(
    [a, b, d].map((id) => network(c, id).vnis),
    [[4097], [4098], [4099]],
  )
  t.is(network(c, a).driverState!.options['com.docker.network.driver.overlay.vxlanid_list'], '4097')
  await c.stop()
})

test("a user's subnet is never cut again by the allocator, and an overlapping one is refused", async (t) => {
  const c = await cluster(1)
  const a = await c.addNetwork('a', ipam('10.0.0.0/22'))
  const b = await c.addNetwork('b')
  const d = await c.addNetwork('d', ipam('10.0.3.128/25'))
  await c.clock.settle()
  t.is(subnetOf(network(c, b)), '10.0.4.0/24')
  t.is(network(c, d).driverState, null)
  await c.store.update((tx) => tx.remove('network', a))
  await c.clock.settle()
  t.is(subnetOf(network(c, d)), '10.0.3.128/25', 'allocated when the other one is gone')
  await c.stop()
})

test('services get a virtual address a network, tasks an address each, and nodes none', async (t) => {
  const c = await cluster(3, { ingress: true })
  const net = await c.addNetwork('net')
  const web = await c.createService('web', {
    replicas: 3,
    networks: ['net'],
    endpoint: {
      ports: [{ name: '', protocol: 0, targetPort: 80, publishedPort: 8080, publishMode: PublishMode.INGRESS }],
    },
  })
  await c.clock.advance(1_000)
  const vips = c.service(web).endpoint!.virtualIps
  t.deepEqual(
    vips.map((v) => v.networkId === net),
    [true, false],
  )
  t.is(vips[0]!.address, '10.0.1.2/24')
  for (const task of c.tasks(web)) {
    t.is(stateOf(task), TaskState.TASK_RUNNING)
    t.deepEqual(
      task.networks.map((n) => n.network!.spec!.annotations!.name),
      ['net', 'ingress'],
    )
    t.truthy(task.networks[0]!.network!.driverState)
    t.deepEqual(
      task.endpoint!.ports.map((p) => p.publishedPort),
      [8080],
    )
  }
  t.is(new Set([...addresses(c, web), ...vips.map((v) => v.address)]).size, 8)
  t.deepEqual(
    c.store
      .view()
      .list('node')
      .map((n) => n.ingressIndex)
      .sort(),
    [1, 2, 3],
  )
  await c.stop()
})

test('a network with no free address is named on the task, which runs when one is given back', async (t) => {
  const c = await cluster(1)
  await c.addNetwork('tiny', ipam('10.9.0.0/29'))
  const web = await c.createService('web', { replicas: 6, networks: ['tiny'] })
  await c.clock.advance(1_000)
  t.is(c.running(web).length, 4, 'five free: one for the service, four for tasks')
  const waiting = c.tasks(web).filter((x) => stateOf(x) === TaskState.TASK_NEW)
  t.is(waiting.length, 2)
  t.is(waiting[0]!.status!.err, 'no free address in network tiny (5 of 5 in use)')
  await c.updateService(web, (s) => ({ ...s, mode: { ...s.mode!, replicated: { replicas: 4 } } }))
  await c.clock.advance(1_000)
  t.is(c.tasks(web).length, 4)
  const first = c.running(web)[0]!
  await c.report(first.id, TaskState.TASK_FAILED)
  await c.clock.advance(6_000)
  t.is(c.running(web).length, 4)
  await c.stop()
})

test('a service whose network does not exist says so on its tasks and runs when it does', async (t) => {
  const c = await cluster(1)
  const web = await c.createService('web', { networks: ['later'] })
  await c.clock.advance(1_000)
  t.is(c.tasks(web)[0]!.status!.err, 'network later not found')
  await c.addNetwork('later')
  await c.clock.advance(1_000)
  t.is(c.running(web).length, 1)
  t.is(c.tasks(web)[0]!.status!.err, '')
  await c.stop()
})

test('ports are chosen from 30000 on, kept over updates, and given back', async (t) => {
  const c = await cluster(1, { ingress: true })
  const port = (targetPort: number, publishedPort = 0) => ({
    name: '',
    protocol: 0 as const,
    targetPort,
    publishedPort,
    publishMode: PublishMode.INGRESS,
  })
  const a = await c.createService('a', { endpoint: { ports: [port(80), port(81, 30_001)] } })
  const b = await c.createService('b', { endpoint: { ports: [port(80)] } })
  await c.clock.settle()
  t.deepEqual(
    c.service(a).endpoint!.ports.map((p) => p.publishedPort),
    [30_000, 30_001],
  )
  t.deepEqual(
    c.service(b).endpoint!.ports.map((p) => p.publishedPort),
    [30_002],
  )
  await c.changeLeader()
  await c.updateService(a, (s) => ({ ...s, endpoint: { mode: 0, ports: [port(80), port(90)] } }))
  await c.clock.settle()
  t.deepEqual(
    c.service(a).endpoint!.ports.map((p) => p.publishedPort),
    [30_000, 30_003].map((p, i) => (i === 0 ? p : c.service(a).endpoint!.ports[1]!.publishedPort)),
  )
  t.is(new Set([...c.service(a).endpoint!.ports, ...c.service(b).endpoint!.ports].map((p) => p.publishedPort)).size, 3)
  const d = await c.createService('d', { endpoint: { ports: [port(80, 30_002)] } })
  await c.clock.advance(100)
  t.regex(c.tasks(d)[0]!.status!.err, /port 30002 is already in use by service/)
  await c.removeService(b)
  await c.clock.advance(1_000)
  t.is(c.running(d).length, 1)
  await c.stop()
})

test('networks that engines have by themselves are attached without an address', async (t) => {
  const c = await cluster(1)
  const web = await c.createService('web', { networks: ['host'] })
  const made = c.service(web)!.meta!.version!.index
  await c.clock.advance(1_000)
  t.is(c.running(web).length, 1)
  t.deepEqual(c.tasks(web)[0]!.networks[0]!.addresses, [])
  t.is(c.tasks(web)[0]!.networks[0]!.network!.driverState!.name, 'host')
  const { endpoint, meta } = c.service(web)!
  t.is(endpoint, null)
  t.is(meta!.version!.index, made, 'nothing was allocated for it, so nobody wrote it')
  await c.stop()
})

test('a network told to go goes when nothing uses it any more', async (t) => {
  const c = await cluster(1)
  const net = await c.addNetwork('net')
  const web = await c.createService('web', { networks: [net] })
  await c.clock.advance(1_000)
  await c.store.update((tx) => tx.update('network', { ...tx.get('network', net)!, pendingDelete: true }))
  await c.clock.advance(1_000)
  t.truthy(network(c, net))
  await c.removeService(web)
  await c.clock.advance(1_000)
  t.is(c.store.view().get('network', net), null)
  await c.stop()
})

for (const seed of [1, 2, 3])
  test(`no address is lent twice through scaling, failures, lost nodes and new leaders (seed ${seed})`, async (t) => {
    t.timeout(120_000)
    const c = await cluster(4, { seed })
    await c.addNetwork('net', ipam('10.7.0.0/27'))
    const problems: string[] = []
    c.checks.push(() => {
      const lent = new Map<string, string>()
      for (const s of c.store.view().list('service'))
        for (const v of s.endpoint?.virtualIps ?? []) {
          if (lent.has(v.address)) problems.push(`${v.address} lent to ${s.id} and ${lent.get(v.address)}`)
          lent.set(v.address, s.id)
        }
      for (const task of c.store.view().list('task')) {
        if (isTerminal(task)) continue
        for (const a of task.networks.flatMap((n) => n.addresses)) {
          if (lent.has(a)) problems.push(`${a} lent to ${task.id} and ${lent.get(a)}`)
          lent.set(a, task.id)
        }
      }
    })
    const services = [
      await c.createService('a', { replicas: 5, networks: ['net'] }),
      await c.createService('b', { replicas: 5, networks: ['net'] }),
    ]
    const lost = new Set<string>()
    for (let i = 0; i < 120; i++) {
      await c.clock.advance(Math.floor(c.rng.random() * 3_000))
      const service = services[Math.floor(c.rng.random() * 2)]!
      const dice = c.rng.random()
      if (dice < 0.35) {
        const replicas = Math.floor(c.rng.random() * 14)
        await c.updateService(service, (s) => ({ ...s, mode: { ...s.mode!, replicated: { replicas } } }))
      } else if (dice < 0.6) {
        const task = c.running(service)[0]
        if (task) await c.report(task.id, TaskState.TASK_FAILED)
      } else if (dice < 0.75) {
        const id = `n${1 + Math.floor(c.rng.random() * 4)}`
        if (lost.delete(id)) await c.comeBack(id)
        else if (lost.size < 3) {
          lost.add(id)
          await c.lose(id)
        }
      } else if (dice < 0.85) await c.changeLeader()
      else if (dice < 0.93) {
        c.log.late = 1 + Math.floor(c.rng.random() * 3)
        await c.clock.advance(1_000)
        c.log.late = 0
      } else {
        c.log.refuse = true
        await c.clock.advance(500)
        c.log.refuse = false
      }
    }
    for (const id of lost) await c.comeBack(id)
    for (const id of services)
      await c.updateService(id, (s) => ({ ...s, mode: { ...s.mode!, replicated: { replicas: 6 } } }))
    await c.clock.advance(60_000)
    t.deepEqual(problems.slice(0, 5), [])
    for (const id of services) t.is(c.running(id).length, 6)
    await c.stop()
  })

test('a service whose removal is under way while it is planned does not keep the leader busy for ever', async (t) => {
  const c = await cluster(1)
  const off = c.store.onCommit(({ events }) => {
    const made = events.find((e) => e.kind === 'service' && e.action === 'create')
    if (made?.kind !== 'service') return
    // In flight, and not applied before the log goes on: the allocator sees the service, its write does not.
    c.log.hold()
    void c.store.update((tx) => tx.update('service', { ...made.object, pendingDelete: true }))
  })
  const id = await c.createService('short')
  // Old passes followed each other without a turn of the event loop between them, and nothing came after this line.
  await c.clock.settle()
  await c.clock.advance(100)
  off()
  c.log.release()
  await c.clock.advance(2000)
  t.is(c.store.view().get('service', id), null)
})
