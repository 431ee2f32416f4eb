import { existsSync, readdirSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { type Rng, seededRng } from '../../src/common/index.js'
import { mountsBelow, processesIn } from '../../src/lab/kernel.js'
import { call, clock, type Lab, type LabHost, until, webImage } from './support.js'
import { traces } from './traces.js'

interface Inspect {
  Id: string
  Name: string
  State: { Status: string; Running: boolean; Pid: number }
}
interface Summary {
  Id: string
  Names: string[]
  State: string
}

/** What was acknowledged, and what was asked for without an answer: of those the daemon may have done either. */
class Expected {
  /** Name → id. */
  readonly containers = new Map<string, string>()
  readonly networks = new Set<string>()
  readonly volumes = new Set<string>()
  /** Names whose last call got no answer. */
  readonly unsure = new Set<string>()
}

export interface KillTally {
  rounds: number
  acknowledged: number
  unanswered: number
}

const ask = (h: LabHost, method: string, path: string, body?: object): Promise<unknown> =>
  call(h.socket, method, path, { ...(body ? { body } : {}), timeoutMs: 20_000 })

/** The call was answered (done or refused), or the connection broke under it. */
async function did(action: () => Promise<unknown>): Promise<'done' | 'refused' | 'unanswered'> {
  try {
    await action()
    return 'done'
  } catch (e) {
    return (e as { code?: string }).code === 'engineAnswer' ? 'refused' : 'unanswered'
  }
}

/**
 * The daemon of one host is killed with SIGKILL at random instants of a random workload and started again, `rounds`
 * times; after each start its answers are compared with the kernel and the disk, and with what had been acknowledged.
 */
export async function killDaemonAtRandom(
  l: Lab,
  h: LabHost,
  options: { rounds: number; seed: number; log: (line: string) => void },
): Promise<KillTally> {
  const rng = seededRng(options.seed)
  const image = await webImage(l, h)
  const tally: KillTally = { rounds: 0, acknowledged: 0, unanswered: 0 }
  const expected = new Expected()
  await ask(h, 'POST', '/containers/create?name=guard', {
    Image: image,
    Cmd: ['sh', '-c', 'i=0; while :; do echo $i; i=$((i+1)); usleep 20000; done'],
  })
  await ask(h, 'POST', '/containers/guard/start')
  const guard = (await ask(h, 'GET', '/containers/guard/json')) as Inspect
  for (let round = 0; round < options.rounds; round++) {
    let stop = false
    const workers = Array.from({ length: 4 }, (_, i) =>
      work(h, image, expected, tally, rng, `${round}-${i}`, () => stop),
    )
    await clock.sleep(20 + rng.random() * 1200)
    await l.killDaemon(h)
    stop = true
    await Promise.all(workers)
    await l.startDaemon(h)
    await agree(h, expected, `seed ${options.seed}, round ${round}`)
    const now = (await ask(h, 'GET', '/containers/guard/json')) as Inspect
    if (now.State.Pid !== guard.State.Pid || !now.State.Running)
      throw new Error(`round ${round}: the guard had pid ${guard.State.Pid} and is now ${JSON.stringify(now.State)}`)
    tally.rounds++
    if ((round + 1) % 10 === 0)
      options.log(`${round + 1} kills, ${tally.acknowledged} calls acknowledged, ${tally.unanswered} unanswered`)
    await tidy(h, expected)
  }
  // No line of the guard was lost through all of it.
  const text = String(await ask(h, 'GET', '/containers/guard/logs?stdout=1'))
  // Each frame has a header of eight bytes before its line.
  const numbers = text
    .split('\n')
    .map((x) => Number(/(\d+)$/.exec(x)?.[1] ?? Number.NaN))
    .filter((x) => !Number.isNaN(x))
  const gap = numbers.findIndex((n, i) => n !== i)
  if (gap >= 0 || numbers.length === 0)
    throw new Error(`log line ${gap} of the guard is ${numbers[gap]}, of ${numbers.length}`)
  return tally
}

/** One client: makes things, uses them, removes some of them, until told to stop. */
async function work(
  h: LabHost,
  image: string,
  expected: Expected,
  tally: KillTally,
  rng: Rng,
  tag: string,
  stopped: () => boolean,
): Promise<void> {
  let isDead = false
  const run = async (name: string, action: () => Promise<unknown>): Promise<boolean> => {
    expected.unsure.add(name)
    const outcome = await did(action)
    if (outcome === 'unanswered') {
      tally.unanswered++
      isDead = true
      return false
    }
    tally.acknowledged++
    expected.unsure.delete(name)
    return outcome === 'done'
  }
  for (let i = 0; !stopped() && !isDead; i++) {
    const name = `k${tag}-${i}`
    const kind = rng.random()
    if (kind < 0.12) {
      if (await run(name, () => ask(h, 'POST', '/networks/create', { Name: name }))) {
        expected.networks.add(name)
        if (rng.random() < 0.5 && (await run(name, () => ask(h, 'DELETE', `/networks/${name}`))))
          expected.networks.delete(name)
      }
    } else if (kind < 0.24) {
      if (await run(name, () => ask(h, 'POST', '/volumes/create', { Name: name }))) {
        expected.volumes.add(name)
        if (rng.random() < 0.5 && (await run(name, () => ask(h, 'DELETE', `/volumes/${name}`))))
          expected.volumes.delete(name)
      }
    } else if (kind < 0.3) {
      await run(`pull${name}`, () => ask(h, 'POST', `/images/create?fromImage=${encodeURIComponent(image)}`))
    } else {
      const published = rng.random() < 0.3
      const body = {
        Image: image,
        Cmd: rng.random() < 0.3 ? ['true'] : ['sleep', '1000'],
        HostConfig: {
          ...(published ? { PortBindings: { '80/tcp': [{ HostPort: '' }] } } : {}),
          ...(rng.random() < 0.2 ? { Binds: [`v-${name}:/data`] } : {}),
        },
      }
      if (!(await run(name, () => ask(h, 'POST', `/containers/create?name=${name}`, body)))) continue
      expected.containers.set(name, '')
      if (!(await run(name, () => ask(h, 'POST', `/containers/${name}/start`)))) continue
      if (rng.random() < 0.4) await run(name, () => ask(h, 'POST', `/containers/${name}/stop?t=0`))
      if (rng.random() < 0.6 && (await run(name, () => ask(h, 'DELETE', `/containers/${name}?force=1&v=1`))))
        expected.containers.delete(name)
    }
  }
}

/** The API's view, what was acknowledged, the kernel and the disk say the same. */
async function agree(h: LabHost, expected: Expected, where: string): Promise<void> {
  let wrong: string[] = []
  await until('agreement', 20, async () => {
    wrong = await disagreements(h, expected)
    return wrong.length === 0
  }).catch(() => {
    throw new Error(`${where}: ${wrong.join('; ')}`)
  })
}

async function disagreements(h: LabHost, expected: Expected): Promise<string[]> {
  const wrong: string[] = []
  const all = (await ask(h, 'GET', '/containers/json?all=1')) as Summary[]
  const names = new Set(all.flatMap((c) => c.Names.map((n) => n.slice(1))))
  const networks = new Set(((await ask(h, 'GET', '/networks')) as { Name: string }[]).map((n) => n.Name))
  const volumes = new Set(
    ((await ask(h, 'GET', '/volumes')) as { Volumes: { Name: string }[] }).Volumes.map((v) => v.Name),
  )
  for (const n of expected.containers.keys())
    if (!names.has(n) && !expected.unsure.has(n)) wrong.push(`container ${n} was acknowledged and is missing`)
  for (const n of expected.networks)
    if (!networks.has(n) && !expected.unsure.has(n)) wrong.push(`network ${n} was acknowledged and is missing`)
  for (const n of expected.volumes)
    if (!volumes.has(n) && !expected.unsure.has(n)) wrong.push(`volume ${n} was acknowledged and is missing`)
  for (const n of names)
    if (n !== 'guard' && !expected.containers.has(n) && !expected.unsure.has(n))
      wrong.push(`container ${n} was removed and is back`)
  for (const n of networks)
    if (n.startsWith('k') && !expected.networks.has(n) && !expected.unsure.has(n))
      wrong.push(`network ${n} was removed and is back`)

  const running = all.filter((c) => c.State === 'running')
  const ids = new Set(all.map((c) => c.Id))
  const runningIds = new Set(running.map((c) => c.Id))
  const pids = new Set(processesIn(`${h.cgroup}/containers`))
  for (const c of running) {
    const i = (await ask(h, 'GET', `/containers/${c.Id}/json`)) as Inspect
    if (!pids.has(i.State.Pid) && i.State.Running)
      wrong.push(`container ${c.Names[0]} is said to run as ${i.State.Pid}, which is not in its control group`)
  }
  const idOf = (text: string): string | undefined => /[0-9a-f]{64}/.exec(text)?.[0]
  for (const line of traces(h)) {
    const id = idOf(line)
    if (!id) continue
    const lives = line.startsWith('cgroup') || line.startsWith('mount') || line.includes(`${h.execRoot}/`)
    if (!(lives ? runningIds : ids).has(id)) wrong.push(`left over: ${line}`)
  }
  const links = traces(h).filter((x) => /^link veth/.test(x)).length
  if (links !== running.length) wrong.push(`${links} veth links for ${running.length} running containers`)
  const namespaces = mountsBelow(join(dirname(h.socket))).filter((m) => m.includes('/netns/')).length
  if (namespaces !== running.length)
    wrong.push(`${namespaces} network namespaces for ${running.length} running containers`)
  const dir = join(h.dataRoot, 'containers')
  const onDisk = existsSync(dir) ? readdirSync(dir).filter((x) => /^[0-9a-f]{64}$/.test(x)).length : 0
  if (onDisk !== all.length) wrong.push(`${onDisk} folders of ${all.length} containers`)
  return wrong
}

/** All but the guard goes, so that a round costs the same in a long soak. */
async function tidy(h: LabHost, expected: Expected): Promise<void> {
  for (const c of (await ask(h, 'GET', '/containers/json?all=1')) as Summary[])
    if (!c.Names.includes('/guard')) await ask(h, 'DELETE', `/containers/${c.Id}?force=1&v=1`)
  for (const n of (await ask(h, 'GET', '/networks')) as { Name: string }[])
    if (n.Name.startsWith('k')) await ask(h, 'DELETE', `/networks/${n.Name}`)
  for (const v of ((await ask(h, 'GET', '/volumes')) as { Volumes: { Name: string }[] }).Volumes)
    await ask(h, 'DELETE', `/volumes/${v.Name}`)
  expected.containers.clear()
  expected.networks.clear()
  expected.volumes.clear()
  expected.unsure.clear()
  await agree(h, expected, 'after tidying up')
}
