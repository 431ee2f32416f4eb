// npm run bench -- managers [memory|handover|snapshot|restart]... [--profile DIR]: real daemons on a lab, driven through the
// Engine API.
//   memory of an idle manager; a leader that is terminated: longest time between two acknowledged writes; a 100 MB snapshot to
//   a follower under load: the leader's latency and its event loop meanwhile; restart with that snapshot and 10,000 entries
//   behind it. --profile leaves CPU profiles (of the snapshot's transfer, of each start) and logs.
import { randomBytes } from 'node:crypto'
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { call, clock, header, median, SHOALD, swarm, until, withLab } from './lib.mjs'

const SECRETS = 205
const SECRET_BYTES = 500 * 1024 - 1
const ENTRIES = 10_000
const ROUNDS = 3
const CASES = ['memory', 'handover', 'snapshot', 'restart']

const { values: options, positionals } = parseArgs({
  args: process.argv.slice(2),
  allowPositionals: true,
  options: { profile: { type: 'string' } },
})
const unknown = positionals.find((p) => !CASES.includes(p))
if (unknown !== undefined) throw new Error(`no case "${unknown}": ${CASES.join(', ')}`)
const wanted = (name) => positionals.length === 0 || positionals.includes(name)

const probeDir = options.profile ?? mkdtempSync(join(tmpdir(), 'shoal-probe-'))
mkdirSync(probeDir, { recursive: true })
process.env.PROBE_DIR = probeDir
if (options.profile) process.env.PROBE_PROFILE = '1'
process.env.NODE_OPTIONS =
  `${process.env.NODE_OPTIONS ?? ''} --require ${join(dirname(fileURLToPath(import.meta.url)), 'daemon-probe.cjs')}`.trim()
/** Begins or ends a profile of the daemon. */
async function profile(pid) {
  if (!options.profile) return
  process.kill(pid, 'SIGUSR2')
  await clock.sleep(1000)
}

const keepLogs = (hosts) => {
  if (options.profile) for (const h of hosts) copyFileSync(h.log, join(probeDir, `${h.name}.log`))
}

/** The holds of a daemon's event loop between two moments (Unix ms), as text. */
function held(pid, from, to) {
  const file = join(probeDir, `${pid}.holds`)
  const all = existsSync(file)
    ? readFileSync(file, 'utf8')
        .split('\n')
        .filter(Boolean)
        .map((l) => l.split(' ').map(Number))
        .filter(([at]) => at >= from && at <= to)
    : []
  const most = (i) => Math.max(0, ...all.map((h) => h[i])).toFixed(0)
  return `${all.length} above 10 ms, the longest ${most(1)} ms; on a CPU ${most(2)} ms, ${all.filter((h) => h[2] > 10).length} above 10 ms`
}

const percentile = (values, share) => {
  const s = [...values].sort((a, b) => a - b)
  return s.length === 0 ? Number.NaN : s[Math.min(s.length - 1, Math.ceil(share * s.length) - 1)]
}
const say = (name, text) => console.log(`${name.padEnd(44)} ${text}`)
const rssMb = (pid) => Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))[1]) / 1024
const log = (host) => readFileSync(host.log, 'utf8')

let n = 0
const write = (host) =>
  call(host.socket, 'POST', '/configs/create', {
    body: { Name: `c${++n}`, Data: Buffer.from('x'.repeat(64)).toString('base64') },
    timeoutMs: 20_000,
  })

/** `count` writes, `width` at a time. */
async function writes(host, count, width) {
  let left = count
  await Promise.all(
    Array.from({ length: width }, async () => {
      while (left-- > 0) await write(host)
    }),
  )
}

const secret = (host, Name) =>
  call(host.socket, 'POST', '/secrets/create', { body: { Name, Data: randomBytes(SECRET_BYTES).toString('base64') } })

/** 100 MB of state, and a snapshot that holds all of it. A write without an answer is made again under another name. */
async function fill(host) {
  for (let i = 0, left = SECRETS; left > 0; i++)
    try {
      await secret(host, `s${i}`)
      left--
    } catch (e) {
      if (i > 2 * SECRETS) throw e
    }
  await nextSnapshot(host)
}

/** The log grows until a snapshot is due, the state does not. */
async function nextSnapshot(host) {
  const taken = () => log(host).split('raft snapshot taken').length
  for (const before = taken(); taken() === before; ) {
    const { ID } = await secret(host, `gone${++n}`)
    await call(host.socket, 'DELETE', `/secrets/${ID}`)
  }
}

/** One write after another until told to stop; each one's time and latency, ms. */
function steady(host) {
  const done = []
  let stop = false
  const running = (async () => {
    while (!stop) {
      const begun = performance.now()
      try {
        await write(host)
        done.push({ at: performance.now(), ms: performance.now() - begun })
      } catch {
        await clock.sleep(2)
      }
    }
  })()
  return {
    done,
    async end() {
      stop = true
      await running
    },
  }
}

const leaderOf = async (lab, host) => {
  const list = await call(host.socket, 'GET', '/nodes')
  const name = list.find((x) => x.ManagerStatus?.Leader).Description.Hostname
  return lab.plan.hosts.find((h) => h.name === name)
}
const allReachable = (host, count) =>
  until('all managers are reachable', 120, async () => {
    const list = await call(host.socket, 'GET', '/nodes')
    return list.filter((x) => x.ManagerStatus?.Leader || x.ManagerStatus?.Reachability === 'reachable').length === count
  })

header('managers: 3 daemons on one machine')
const LAB = { name: 'bmg', subnet: '10.89.3', workers: 0, engine: SHOALD }

async function memory(lab) {
  const { hosts } = lab.plan
  await clock.sleep(20_000)
  say('memory of an idle manager (RSS)', hosts.map((h) => `${rssMb(lab.daemonPid(h)).toFixed(0)} MB`).join(', '))
}

async function handover(lab) {
  const { hosts } = lab.plan
  const gaps = []
  for (let i = 0; i < 5; i++) {
    const leader = await leaderOf(lab, hosts[0])
    const other = hosts.find((h) => h !== leader)
    const client = steady(other)
    await clock.sleep(1000)
    const begun = performance.now()
    process.kill(lab.daemonPid(leader), 'SIGTERM')
    await until('the daemon ended', 30, async () => !lab.isUp(leader))
    await clock.sleep(1500)
    await client.end()
    const after = client.done.filter((d) => d.at > begun - 50)
    gaps.push(Math.max(...after.slice(1).map((d, k) => d.at - after[k].at)))
    await lab.startDaemon(leader)
    await allReachable(other, 3)
  }
  say(
    'leader terminated: longest gap between writes',
    `median ${percentile(gaps, 0.5).toFixed(0)} ms, max ${Math.max(...gaps).toFixed(0)} ms of ${gaps.length}`,
  )
}

async function snapshot(lab) {
  const { hosts } = lab.plan
  const leader = await leaderOf(lab, hosts[0])
  const follower = hosts.find((h) => h !== leader)
  const pid = lab.daemonPid(leader)
  /** Latencies of one client's writes from the start of the follower's daemon until a second after `done`. */
  const startFollower = async (done) => {
    const client = steady(leader)
    const from = Date.now()
    const begun = performance.now()
    await lab.startDaemon(follower)
    await done()
    const seconds = (performance.now() - begun) / 1000
    await clock.sleep(1000)
    await client.end()
    return { ms: client.done.map((d) => d.ms), seconds, from, to: Date.now() }
  }
  await fill(leader)
  // Managers run for months: the compiler's work on fresh code is not what is measured.
  await writes(leader, 2000, 1)
  const client = steady(leader)
  await clock.sleep(10_000)
  await client.end()
  const normal = client.done.map((d) => d.ms)
  const sent = () => log(leader).split('msg="raft snapshot sent"').length
  const rounds = []
  for (let round = 0; round < ROUNDS; round++) {
    // More than the log keeps: when it comes back it needs a snapshot.
    await lab.killDaemon(follower)
    await nextSnapshot(leader)
    // The other manager takes its own just now.
    await clock.sleep(3000)
    if (round === ROUNDS - 1) {
      await profile(pid)
      await profile(pid)
    }
    const before = sent()
    const during = await startFollower(() => until('the snapshot was sent', 120, async () => sent() > before))
    const followerPid = lab.daemonPid(follower)
    if (round === ROUNDS - 1) {
      await profile(pid)
      await profile(followerPid)
    }
    await lab.killDaemon(follower)
    const control = await startFollower(() => clock.sleep(during.seconds * 1000))
    rounds.push({ during, control, followerPid })
  }
  keepLogs(hosts)
  const line = (ms) =>
    `p50 ${percentile(ms, 0.5).toFixed(1)} ms, p99 ${percentile(ms, 0.99).toFixed(1)} ms of ${ms.length}`
  const all = (which) => {
    const ratios = rounds.map((r) => percentile(r[which].ms, 0.99) / percentile(normal, 0.99))
    return `${line(rounds.flatMap((r) => r[which].ms))}; p99 ${median(ratios).toFixed(2)} x normal (${ratios.map((r) => r.toFixed(2)).join(', ')})`
  }
  say('one client of the leader, as always', line(normal))
  say('  while a follower starts that has everything', all('control'))
  say('  while one starts that gets 100 MB of snapshot', all('during'))
  say('  from its start until it has it', `median ${median(rounds.map((r) => r.during.seconds)).toFixed(1)} s`)
  for (const { during, followerPid } of rounds) {
    say("  the leader's event loop held", held(pid, during.from, during.to))
    say("  the follower's, with its start", held(followerPid, during.from, during.to))
  }
}

async function restart(lab) {
  const [m1] = lab.plan.hosts
  const again = async () => {
    await lab.killDaemon(m1)
    const begun = performance.now()
    await lab.startDaemon(m1)
    await until('it answers', 60, () => call(m1.socket, 'GET', '/nodes', { timeoutMs: 60_000 }))
    const took = performance.now() - begun
    await profile(lab.daemonPid(m1))
    return took
  }
  const empty = await again()
  await fill(m1)
  // One after another: writes at the same time would share entries. The next snapshot is due with the 10,000th.
  await writes(m1, ENTRIES - 500, 1)
  const times = []
  for (let i = 0; i < 3; i++) times.push(await again())
  keepLogs([m1])
  say('restart, empty state: until the API answers', `${(empty / 1000).toFixed(2)} s`)
  say(
    'restart, 100 MB snapshot and ~10,000 entries',
    `median ${(percentile(times, 0.5) / 1000).toFixed(2)} s of ${times.length}`,
  )
}

try {
  if (wanted('memory') || wanted('handover') || wanted('snapshot'))
    await withLab({ ...LAB, managers: 3 }, async (lab) => {
      await swarm(lab)
      if (wanted('memory')) await memory(lab)
      if (wanted('handover')) await handover(lab)
      if (wanted('snapshot')) await snapshot(lab)
    })
  if (wanted('restart'))
    await withLab({ ...LAB, managers: 1 }, async (lab) => {
      await swarm(lab)
      await restart(lab)
    })
} finally {
  if (!options.profile) rmSync(probeDir, { recursive: true, force: true })
}
