import { Command } from 'commander'
import { systemClock as clock, ShoalError } from '../common/index.js'
import { call } from './docker.js'
import { Lab, type LabHost, SHOALD } from './lab.js'
import { Prober } from './prober.js'
import { WEB_CHANGES, webRootfs } from './web-image.js'

/** The main job: five hosts, three of them managers, run a web service and lose a manager and a worker. */

const PORT = 8080
const options = new Command('npm start --')
  .description(
    'Brings up a lab of five hosts, makes a swarm, runs a web service on it, and kills a manager and a worker',
  )
  .option('--once', 'end after the steps; exit status 1 if one failed')
  .option('--name <lab>', 'name of the lab', 'start')
  .option('--subnet <a.b.c>', "first three bytes of the hosts' network", '10.88.0')
  .parse()
  .opts<{ once?: boolean; name: string; subnet: string }>()

interface NodeJson {
  ID: string
  Description: { Hostname: string }
  Status: { State: string }
  Spec: { Role: string; Availability: string; Labels: object }
  Version: { Index: number }
  ManagerStatus?: { Leader?: boolean; Reachability: string }
}
interface TaskJson {
  ID: string
  Slot: number
  NodeID: string
  DesiredState: string
  Status: { State: string; Err?: string; ContainerStatus?: { ContainerID: string } }
}

const say = (line: string): void => {
  process.stdout.write(`${line}\n`)
}

let number = 0
async function step<T>(title: string, fn: () => Promise<T>): Promise<T> {
  number++
  const begun = clock.monotonic()
  say(`\n[${number}] ${title}`)
  const value = await fn()
  say(`    done in ${((clock.monotonic() - begun) / 1000).toFixed(2)} s`)
  return value
}

async function until<T>(what: string, seconds: number, attempt: () => Promise<T | null>): Promise<T> {
  const deadline = clock.monotonic() + seconds * 1000
  let last = ''
  for (;;) {
    try {
      const v = await attempt()
      if (v !== null) return v
    } catch (e) {
      last = `: ${(e as Error).message}`
    }
    if (clock.monotonic() > deadline)
      throw new ShoalError('unavailable', 'tooLate', `${what}: not within ${seconds} s${last}`)
    await clock.sleep(50)
  }
}

const nodesOf = (h: LabHost) => call<NodeJson[]>(h.socket, 'GET', '/nodes', { timeoutMs: 5000 })
const tasksOf = (h: LabHost, service: string) =>
  call<TaskJson[]>(
    h.socket,
    'GET',
    `/tasks?filters=${encodeURIComponent(JSON.stringify({ service: { [service]: true } }))}`,
    { timeoutMs: 5000 },
  )

async function running(h: LabHost, service: string, n: number, seconds: number): Promise<TaskJson[]> {
  return until(`${n} tasks of ${service} run`, seconds, async () => {
    const wanted = (await tasksOf(h, service)).filter((t) => t.DesiredState === 'running')
    return wanted.length === n && wanted.every((t) => t.Status.State === 'running') ? wanted : null
  })
}

async function showNodes(h: LabHost): Promise<NodeJson[]> {
  const nodes = await nodesOf(h)
  for (const n of nodes.sort((a, b) => (a.Description.Hostname < b.Description.Hostname ? -1 : 1)))
    say(
      `    ${n.Description.Hostname.padEnd(4)} ${n.Status.State.padEnd(8)} ${n.Spec.Availability.padEnd(7)} ${n.ManagerStatus ? (n.ManagerStatus.Leader ? 'Leader' : n.ManagerStatus.Reachability) : ''}`.trimEnd(),
    )
  return nodes
}

async function showTasks(h: LabHost, tasks: readonly TaskJson[]): Promise<void> {
  const names = new Map((await nodesOf(h)).map((n) => [n.ID, n.Description.Hostname]))
  const byNode = new Map<string, string[]>()
  for (const t of tasks) {
    const node = names.get(t.NodeID) ?? t.NodeID
    byNode.set(node, [...(byNode.get(node) ?? []), `web.${t.Slot}`])
  }
  for (const [node, slots] of [...byNode].sort())
    say(`    ${node.padEnd(4)} ${slots.sort((a, b) => a.localeCompare(b, 'en', { numeric: true })).join(' ')}`)
}

async function main(): Promise<Lab> {
  const lab = await step('lab: five hosts on a switch, a registry beside them', () =>
    Lab.up(
      { name: options.name, managers: 3, workers: 2, subnet: options.subnet, engine: SHOALD, engineFlags: [] },
      clock,
      (l) => say(`    ${l}`),
    ),
  )
  current = lab
  const [m1, m2, m3, w1, w2] = lab.plan.hosts as [LabHost, LabHost, LabHost, LabHost, LabHost]
  const image = `${lab.plan.registry}/web:1`
  const fetchFrom = (h: LabHost, path = '/'): Promise<string> =>
    lab.inNetns(lab.plan.switchNetns, ['curl', '-fsS', '-m', '5', `http://${h.address}:${PORT}${path}`])

  await step(`image: busybox with a web page, imported on m1 and pushed as ${image}`, async () => {
    const changes = WEB_CHANGES.map((c) => `changes=${encodeURIComponent(c)}`).join('&')
    await call(
      m1.socket,
      'POST',
      `/images/create?fromSrc=-&repo=${encodeURIComponent(`${lab.plan.registry}/web`)}&tag=1&${changes}`,
      { stream: webRootfs() },
    )
    await call(m1.socket, 'POST', `/images/${lab.plan.registry}/web/push?tag=1`, {
      headers: { 'X-Registry-Auth': 'e30=' },
    })
    const pushed = await call<{ Descriptor: { digest: string } }>(w1.socket, 'GET', `/distribution/${image}/json`)
    say(`    the registry has ${pushed.Descriptor.digest}`)
  })

  await step('swarm: m1 makes it, m2 m3 join as managers, w1 w2 as workers', async () => {
    await call(m1.socket, 'POST', '/swarm/init', { body: { ListenAddr: '0.0.0.0:2377', AdvertiseAddr: m1.address } })
    const { JoinTokens } = await call<{ JoinTokens: { Manager: string; Worker: string } }>(m1.socket, 'GET', '/swarm')
    for (const h of [m2, m3, w1, w2]) {
      await call(h.socket, 'POST', '/swarm/join', {
        body: {
          ListenAddr: '0.0.0.0:2377',
          AdvertiseAddr: h.address,
          RemoteAddrs: [`${m1.address}:2377`],
          JoinToken: h.role === 'manager' ? JoinTokens.Manager : JoinTokens.Worker,
        },
      })
      say(`    ${h.name} joined`)
    }
    await until('five nodes are ready', 20, async () =>
      (await nodesOf(m1)).filter((n) => n.Status.State === 'ready').length === 5 ? true : null,
    )
    // As operators do it: managers manage, workers work.
    for (const n of (await nodesOf(m1)).filter((x) => x.Spec.Role === 'manager'))
      await call(m1.socket, 'POST', `/nodes/${n.ID}/update?version=${n.Version.Index}`, {
        body: { ...n.Spec, Availability: 'drain' },
      })
    await showNodes(m1)
  })

  const before = await step(
    `service: web, 4 tasks on the overlay network "front", published on port ${PORT}`,
    async () => {
      await call(m1.socket, 'POST', '/networks/create', { body: { Name: 'front', Driver: 'overlay' } })
      await call(m1.socket, 'POST', '/services/create', {
        body: {
          Name: 'web',
          TaskTemplate: {
            ContainerSpec: { Image: image, StopGracePeriod: 1e9 },
            Networks: [{ Target: 'front' }],
            RestartPolicy: { Condition: 'any', Delay: 1e9 },
          },
          Mode: { Replicated: { Replicas: 4 } },
          EndpointSpec: { Ports: [{ Protocol: 'tcp', TargetPort: 80, PublishedPort: PORT }] },
        },
      })
      const tasks = await running(m1, 'web', 4, 60)
      await showTasks(m1, tasks)
      return tasks
    },
  )

  await step('page: fetched from all five hosts', async () => {
    for (const h of lab.plan.hosts) {
      const page = await until(`${h.name} serves the page`, 10, async () =>
        (await fetchFrom(h)).includes('It swims') ? true : null,
      )
      say(`    http://${h.address}:${PORT}/ on ${h.name}: ${page ? 'It swims' : ''}`)
    }
    const who = new Set<string>()
    for (let i = 0; i < 40; i++) who.add((await fetchFrom(lab.plan.hosts[i % 5]!, '/cgi-bin/who')).trim())
    say(`    40 requests were answered by ${who.size} tasks`)
    if (who.size < 2) throw new ShoalError('internal', 'noSpread', 'all requests went to one task')
  })

  const scaled = await step('scale: web to 10', async () => {
    const service = await call<{ ID: string; Version: { Index: number }; Spec: { Mode: object } }>(
      m2.socket,
      'GET',
      '/services/web',
    )
    await call(m2.socket, 'POST', `/services/${service.ID}/update?version=${service.Version.Index}`, {
      body: { ...service.Spec, Mode: { Replicated: { Replicas: 10 } } },
    })
    const tasks = await running(m2, 'web', 10, 60)
    await showTasks(m2, tasks)
    if (!before.every((t) => tasks.some((x) => x.ID === t.ID)))
      throw new ShoalError('internal', 'restarted', 'scaling up replaced tasks that ran')
    return tasks
  })

  const leaderName = (await nodesOf(m1)).find((n) => n.ManagerStatus?.Leader)?.Description.Hostname ?? ''
  const leader = lab.host(leaderName)
  const alive = lab.plan.hosts.filter((h) => h !== leader)
  const asked = alive.find((h) => h.role === 'manager')!
  const prober = new Prober(
    lab.plan.switchNetns,
    alive.map((h) => `http://${h.address}:${PORT}/`),
    { pauseMs: 20, timeoutMs: 2000 },
  )
  try {
    await step(`leader: ${leader.name} is switched off while a client keeps fetching the page`, async () => {
      await until('the client is served', 10, async () => (prober.take().requests > 0 ? true : null))
      prober.take()
      const off = clock.monotonic()
      await lab.kill(leader)
      const next = await until(
        'another manager leads',
        15,
        async () =>
          (await nodesOf(asked)).find((n) => n.ManagerStatus?.Leader && n.Description.Hostname !== leader.name) ?? null,
      )
      const led = clock.monotonic()
      await until('a write is accepted', 15, async () => {
        const s = await call<{ ID: string; Version: { Index: number }; Spec: { Labels?: object } }>(
          asked.socket,
          'GET',
          '/services/web',
          { timeoutMs: 3000 },
        )
        await call(asked.socket, 'POST', `/services/${s.ID}/update?version=${s.Version.Index}`, {
          body: { ...s.Spec, Labels: { ...s.Spec.Labels, after: 'leader loss' } },
          timeoutMs: 3000,
        })
        return true
      })
      say(
        `    ${next.Description.Hostname} leads after ${((led - off) / 1000).toFixed(2)} s; a write was accepted after ${((clock.monotonic() - off) / 1000).toFixed(2)} s`,
      )
      await clock.sleep(2000)
      const count = prober.take()
      say(`    the client: ${count.requests} requests, ${count.failures} failed, longest gap ${count.longestGapMs} ms`)
      const tasks = await running(asked, 'web', 10, 30)
      if (!scaled.every((t) => tasks.some((x) => x.ID === t.ID)))
        throw new ShoalError('internal', 'restarted', 'tasks were restarted because of a leader change')
      say('    the same 10 tasks run on')
      if (count.failures > 0)
        throw new ShoalError('internal', 'interrupted', `the page was interrupted: ${count.lastFailure}`)
    })
    await step(`worker: ${w2.name} is switched off`, async () => {
      const off = clock.monotonic()
      await lab.kill(w2)
      const node = await until(
        `${w2.name} is down`,
        20,
        async () =>
          (await nodesOf(asked)).find((n) => n.Description.Hostname === w2.name && n.Status.State === 'down') ?? null,
      )
      say(`    ${w2.name} is down after ${((clock.monotonic() - off) / 1000).toFixed(2)} s`)
      const tasks = await until('all 10 tasks run elsewhere', 30, async () => {
        const all = await running(asked, 'web', 10, 30)
        return all.every((t) => t.NodeID !== node.ID) ? all : null
      })
      say(`    all 10 run again after ${((clock.monotonic() - off) / 1000).toFixed(2)} s`)
      await showTasks(asked, tasks)
      await until('the page is served again', 15, async () =>
        (await fetchFrom(asked)).includes('It swims') ? true : null,
      )
    })
  } finally {
    await prober.stop()
  }
  await step('the cluster now', async () => {
    await showNodes(asked)
  })
  say(`
The cluster stays up. Go on by hand:
    bin/shoal -H unix://${asked.socket} node ls
    bin/shoal -H unix://${asked.socket} service ps web
    docker -H unix://${asked.socket} service scale web=20
    npm run lab -- ls --name ${lab.plan.name}
    npm run lab -- start ${leader.name} --name ${lab.plan.name}`)
  return lab
}

let current: Lab | null = null
const takeDown = async (): Promise<void> => {
  const lab = current
  current = null
  await lab?.down()
}
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.once(signal, () => {
    say('\ntaking the lab down')
    takeDown().then(
      () => process.exit(signal === 'SIGINT' && finished ? 0 : 1),
      (e: unknown) => {
        process.stderr.write(`start: ${(e as Error).message}\n`)
        process.exit(1)
      },
    )
  })
}

let finished = false
const begun = clock.monotonic()
try {
  await main()
  finished = true
  say(`\nAll ${number} steps succeeded in ${((clock.monotonic() - begun) / 1000).toFixed(1)} s.`)
  if (options.once) await takeDown()
  else {
    say('Ctrl-C takes the lab down.')
    setInterval(() => {}, 2 ** 30)
  }
} catch (e) {
  say(`\nstep ${number} failed: ${ShoalError.from(e).message}`)
  process.exitCode = 1
  if (!process.env.SHOAL_KEEP_LAB)
    await takeDown().catch((x: unknown) => process.stderr.write(`start: ${(x as Error).message}\n`))
}
