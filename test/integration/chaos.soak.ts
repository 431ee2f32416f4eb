// npm run soak -- chaos [MINUTES] [--seed N]
// Five real managers in a lab. Writers and readers go to all of them through the Engine API while daemons are killed, stopped,
// cut off (also one way), run out of disk, and have their wall clocks jump. Each fault is seen to have its effect before it
// ends. At the end the history is checked: no acknowledged write lost, no stale read.
import { execFileSync } from 'node:child_process'
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statfsSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { parseArgs } from 'node:util'
import { intBetween, seededRng } from '../../src/common/index.js'
import { checkHistory, type Operation } from './history.js'
import { call, clock, type Lab, type LabHost, lab, nodes, ok, swarm, until } from './support.js'

const { values, positionals } = parseArgs({ options: { seed: { type: 'string' } }, allowPositionals: true })
const minutes = Number(positionals[0] ?? 30)
if (!(minutes > 0)) throw new Error(`npm run soak -- chaos [MINUTES]: ${positionals[0]} is no number of minutes`)
const seed = values.seed === undefined ? Math.floor(clock.now()) % 2 ** 31 : Number(values.seed)
const rng = seededRng(seed)
const KEYS = 6
const CALL_MS = 6000
/** Room for the member's log, and what is left of it when the disk is full. */
const SMALL_DISK_MIB = 400

interface ServiceJson {
  readonly ID: string
  readonly Version: { readonly Index: number }
  readonly Spec: { readonly Labels: Record<string, string> }
}

const history: Operation[] = []
const faults = new Map<string, number>()
/** Faults that were seen to do what they are for. */
const effective = new Map<string, number>()
const count1 = (map: Map<string, number>, kind: string): void => void map.set(kind, (map.get(kind) ?? 0) + 1)
const sleep = (ms: number): Promise<void> => clock.sleep(ms)
const say = (line: string): void => console.log(`${new Date(clock.now()).toISOString().slice(11, 19)} ${line}`)
let stop = false
let acknowledgedAt = 0
let longestGapMs = 0

async function read(h: LabHost, key: string): Promise<ServiceJson> {
  const begun = clock.monotonic()
  const s = await call<ServiceJson>(h.socket, 'GET', `/services/${key}`, { timeoutMs: CALL_MS })
  history.push({
    ...{ kind: 'read', key, value: s.Spec.Labels['v'] ?? '', version: s.Version.Index, begun },
    ended: clock.monotonic(),
  })
  return s
}

let count = 0
async function write(h: LabHost, key: string): Promise<void> {
  const { ID, Version, Spec } = await read(h, key)
  const value = `v${++count}`
  const begun = clock.monotonic()
  const done = (outcome: 'acknowledged' | 'refused' | 'maybe'): void => {
    const ended = clock.monotonic()
    history.push({ kind: 'write', key, value, base: Version.Index, outcome, begun, ended })
    if (outcome !== 'acknowledged') return
    if (acknowledgedAt > 0) longestGapMs = Math.max(longestGapMs, ended - acknowledgedAt)
    acknowledgedAt = ended
  }
  try {
    await call(h.socket, 'POST', `/services/${ID}/update?version=${Version.Index}`, {
      body: { ...Spec, Labels: { ...Spec.Labels, v: value } },
      timeoutMs: CALL_MS,
    })
    done('acknowledged')
  } catch (e) {
    // Only this answer says for certain that nothing was changed.
    done(/update out of sequence/.test((e as Error).message) ? 'refused' : 'maybe')
  }
}

/** One client of one manager; errors are what the faults are for. */
async function client(h: LabHost, share: number): Promise<void> {
  while (!stop) {
    const key = `chaos-k${intBetween(rng, 0, KEYS - 1)}`
    try {
      await (rng.random() < share ? write(h, key) : read(h, key))
    } catch {
      // A read without an answer proves nothing.
      await sleep(100)
    }
    await sleep(rng.random() * 40)
  }
}

/** A data root on a small file system of its own, so that it can run full. `Lab.down` unmounts it. */
async function smallDisk(l: Lab, h: LabHost): Promise<void> {
  await l.killDaemon(h)
  const aside = `${h.dataRoot}.aside`
  cpSync(h.dataRoot, aside, { recursive: true, verbatimSymlinks: true })
  rmSync(h.dataRoot, { recursive: true, force: true })
  mkdirSync(h.dataRoot, { mode: 0o710 })
  execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${SMALL_DISK_MIB}m,mode=0710`, 'chaos', h.dataRoot])
  cpSync(aside, h.dataRoot, { recursive: true, verbatimSymlinks: true })
  rmSync(aside, { recursive: true, force: true })
  await l.startDaemon(h)
}

const linesAbout = (h: LabHost, words: RegExp): number => readFileSync(h.log, 'utf8').match(words)?.length ?? 0
const FULL = /the disk is full: this manager stopped|too little disk space left for the raft log/g

/** The manager refuses writes or stops, and comes back by itself. */
async function fillDisk(h: LabHost): Promise<boolean> {
  const file = join(h.dataRoot, 'chaos.fill')
  const before = linesAbout(h, FULL)
  try {
    const free = statfsSync(h.dataRoot)
    try {
      writeFileSync(file, Buffer.alloc(free.bavail * free.bsize))
    } catch {
      // The daemon wrote meanwhile: full all the same.
    }
    await sleep(3000 + rng.random() * 5000)
    return linesAbout(h, FULL) > before
  } finally {
    rmSync(file, { force: true })
  }
}

/** Wall clocks of daemons jump by what is written here (native/clock-jump.c). */
const clockFile = (h: LabHost): string => join(dirname(h.socket), 'clock')
function setClock(h: LabHost, offsetMs: number): void {
  const ns = Buffer.alloc(8)
  ns.writeBigInt64LE(BigInt(Math.round(offsetMs)) * 1_000_000n)
  // In place: daemons have it mapped, and would be ended by a page that is cut off.
  writeFileSync(clockFile(h), ns, { flag: existsSync(clockFile(h)) ? 'r+' : 'w' })
}

/** How far the daemon's wall clock is from ours. */
async function clockOffset(h: LabHost): Promise<number> {
  const { SystemTime } = await call<{ SystemTime: string }>(h.socket, 'GET', '/info', { timeoutMs: CALL_MS })
  return Date.parse(SystemTime) - clock.now()
}

/** Forward or back by up to an hour, for a while. */
async function jump(h: LabHost, pauseMs: number): Promise<boolean> {
  const offset = (rng.random() * 2 - 1) * 3_600_000
  setClock(h, offset)
  try {
    await sleep(pauseMs)
    return Math.abs((await clockOffset(h)) - offset) < CALL_MS
  } finally {
    setClock(h, 0)
  }
}

const answers = (h: LabHost): Promise<boolean> =>
  call(h.socket, 'GET', '/version', { timeoutMs: 500 }).then(
    () => true,
    () => false,
  )

/** Does a packet of `from` reach the managers' port of `to`, and an answer come back? A refusal of TLS is one. */
const connects = (l: Lab, from: LabHost, to: LabHost): Promise<boolean> =>
  l
    .inNetns(from.netns, [
      ...['sh', '-c', 'curl -sk -m 1 -o /dev/null "$0"; case $? in 7 | 28) exit 1 ;; esac'],
      `https://${to.address}:2377/`,
    ])
    .then(
      () => true,
      () => false,
    )

async function fault(l: Lab, managers: readonly LabHost[], full: LabHost): Promise<void> {
  const kinds = [
    'kill',
    'kill two',
    'kill leader',
    'isolate',
    'split',
    'one way',
    'stop',
    'stop leader',
    'full disk',
    'clock jump',
    'clock jump of the leader',
  ] as const
  const kind = kinds[intBetween(rng, 0, kinds.length - 1)]!
  const shuffled = [...managers].sort((a, b) => a.name.localeCompare(b.name)).sort(() => rng.random() - 0.5)
  const [a, b] = shuffled as [LabHost, LabHost]
  const leader = async (): Promise<LabHost> => {
    const list = await nodes(a).catch(() => [])
    const name = list.find((n) => n.ManagerStatus?.Leader)?.Description.Hostname
    return managers.find((h) => h.name === name) ?? a
  }
  count1(faults, kind)
  const seen = (ok: boolean): void => {
    if (ok) count1(effective, kind)
  }
  const pauseMs = 1000 + rng.random() * 7000
  const killed = async (hosts: readonly LabHost[]): Promise<void> => {
    for (const h of hosts) await l.killDaemon(h)
    seen(!(await Promise.all(hosts.map(answers))).includes(true))
    await sleep(pauseMs)
    await Promise.all(hosts.map((h) => l.startDaemon(h)))
  }
  const stopped = async (h: LabHost): Promise<void> => {
    const pid = l.daemonPid(h)
    process.kill(pid, 'SIGSTOP')
    try {
      seen(!(await answers(h)))
      await sleep(pauseMs)
    } finally {
      process.kill(pid, 'SIGCONT')
    }
  }
  switch (kind) {
    case 'kill':
      return killed([a])
    case 'kill two':
      return killed([a, b])
    case 'kill leader':
      return killed([await leader()])
    case 'stop':
      return stopped(a)
    case 'stop leader':
      return stopped(await leader())
    case 'full disk':
      return seen(await fillDisk(full))
    case 'clock jump':
      return seen(await jump(a, pauseMs))
    case 'clock jump of the leader':
      return seen(await jump(await leader(), pauseMs))
    case 'isolate':
    case 'split':
    case 'one way': {
      const side = kind === 'split' ? [a, b] : [rng.random() < 0.5 ? await leader() : a]
      for (const x of side)
        for (const y of managers)
          if (!side.includes(y)) await l.partition(x, y, { oneWay: kind === 'one way' && rng.random() < 0.7 })
      const other = managers.find((y) => !side.includes(y))!
      seen(!(await connects(l, side[0]!, other)))
      await sleep(pauseMs)
      return l.heal()
    }
  }
}

const preload = join(mkdtempSync(join(tmpdir(), 'chaos-')), 'clock-jump.so')
execFileSync('cc', ['-O2', '-shared', '-fPIC', '-o', preload, 'test/integration/native/clock-jump.c'])
const l = await lab('rchaos', '10.92.7', 5, 0)
let failed = true
try {
  const managers = l.plan.hosts
  const full = managers[4]!
  say(`five managers, ${minutes} minutes, seed ${seed}`)
  // From here on daemons start with a clock that can be moved; the first has to be started again for it.
  for (const h of managers) setClock(h, 0)
  process.env['LD_PRELOAD'] = preload
  for (const h of managers) {
    await l.killDaemon(h)
    await l.startDaemon(h)
  }
  await swarm(l)
  await smallDisk(l, full)
  const reachable = async (asked: LabHost): Promise<boolean> =>
    (await nodes(asked)).filter((n) => n.ManagerStatus?.Leader || n.ManagerStatus?.Reachability === 'reachable')
      .length === 5
  await until('all managers are reachable', 60, () => reachable(managers[0]!))
  for (let i = 0; i < KEYS; i++)
    await ok(
      managers[0]!,
      ...['service', 'create', '-d', '--no-resolve-image', '--replicas', '0', '--name', `chaos-k${i}`],
      ...['--label', 'v=begin', 'busybox'],
    )
  const end = clock.monotonic() + minutes * 60_000
  const clients = managers.flatMap((h) => [client(h, 0.7), client(h, 0)])
  let told = clock.monotonic()
  while (clock.monotonic() < end) {
    await fault(l, managers, full)
    await sleep(1500 + rng.random() * 4000)
    if (clock.monotonic() - told > 60_000) {
      told = clock.monotonic()
      say(`${history.length} operations, ${[...faults.values()].reduce((x, y) => x + y, 0)} faults`)
    }
  }
  await l.heal()
  await until('all managers are reachable again', 120, () => reachable(managers[1]!))
  stop = true
  await Promise.all(clients)
  const last = new Map<string, string>()
  for (const h of managers)
    for (let i = 0; i < KEYS; i++)
      last.set(
        `chaos-k${i}`,
        (await until(`${h.name} answers`, 60, () => read(h, `chaos-k${i}`))).Spec.Labels['v'] ?? '',
      )
  const { lost, stale, torn } = checkHistory(history, last)
  const writes = (outcome: string): number => history.filter((o) => o.kind === 'write' && o.outcome === outcome).length
  say(
    `history of ${history.length} operations: ${history.filter((o) => o.kind === 'read').length} reads, ${writes('acknowledged')} writes acknowledged, ` +
      `${writes('refused')} refused, ${writes('maybe')} without an answer; longest time without an acknowledged write ${(longestGapMs / 1000).toFixed(1)} s`,
  )
  say(
    `faults (seen to have their effect): ${[...faults].map(([kind, n]) => `${kind} ${n} (${effective.get(kind) ?? 0})`).join(', ')}`,
  )
  const idle = [...faults.keys()].filter((kind) => !effective.has(kind))
  if (idle.length > 0) say(`without any effect: ${idle.join(', ')}`)
  if (lost.length + stale.length + torn.length > 0) {
    const file = join(tmpdir(), `chaos-history-${seed}.json`)
    writeFileSync(file, history.map((o) => JSON.stringify(o)).join('\n'))
    say(`all operations are in ${file}`)
  }
  for (const line of [...lost, ...stale, ...torn].slice(0, 50)) console.log(line)
  say(`${lost.length} acknowledged writes lost, ${stale.length} stale reads, ${torn.length} torn versions`)
  failed = idle.length > 0 || lost.length + stale.length + torn.length > 0 || writes('acknowledged') === 0
} finally {
  await l.down()
  rmSync(dirname(preload), { recursive: true })
}
process.exit(failed ? 1 : 0)
