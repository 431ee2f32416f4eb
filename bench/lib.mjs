// What the benchmarks share: engines on labs of their own, driven by the stock docker command, so that both are measured
// through one client.
import { spawnSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { cpus, loadavg, release } from 'node:os'
import { systemClock } from '../build/src/common/index.js'
import { call, Lab, SHOALD, WEB_CHANGES, webRootfs } from '../build/src/lab/index.js'
import { processesIn } from '../build/src/lab/kernel.js'

export const DOCKER = process.env.DOCKER ?? 'docker'
export const DOCKERD = ['/usr/sbin/dockerd', '/usr/bin/dockerd'].find((p) => existsSync(p)) ?? null
export const clock = systemClock
export { call, SHOALD }

export const median = (values) => {
  const s = [...values].sort((a, b) => a - b)
  return s.length === 0
    ? Number.NaN
    : s.length % 2
      ? s[(s.length - 1) / 2]
      : (s[s.length / 2 - 1] + s[s.length / 2]) / 2
}

export function header(what) {
  console.log(
    `${what}; ${cpus().length} cores, load ${loadavg()[0].toFixed(1)}, Linux ${release()}, Node ${process.versions.node}`,
  )
  if (!DOCKERD) console.log('dockerd is not installed (Debian package docker.io): no figures of a peer in this run')
}

/** Runs the stock command against a host of a lab; returns its standard output. */
export function docker(host, ...args) {
  const r = spawnSync(DOCKER, args, {
    encoding: 'utf8',
    env: { ...process.env, DOCKER_HOST: `unix://${host.socket}` },
    timeout: 300_000,
    maxBuffer: 64 * 1024 * 1024,
  })
  if (r.status !== 0)
    throw new Error(`docker ${args.join(' ')}: ${(r.stderr || r.error?.message || '').trim().slice(0, 500)}`)
  return r.stdout.trim()
}

/** Milliseconds that one docker command takes, seen from outside. */
export function timed(host, ...args) {
  const begun = performance.now()
  docker(host, ...args)
  return performance.now() - begun
}

/** Seconds of processor time that an engine's processes have used, those that ended included; not its containers. */
export function cpuSeconds(host) {
  const containers = new Set(processesIn(`${host.cgroup}/containers`))
  let ticks = 0
  for (const pid of processesIn(host.cgroup)) {
    if (containers.has(pid)) continue
    try {
      const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
      // proc(5): utime, stime, cutime, cstime.
      const times = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
      ticks += times.slice(11, 15).reduce((sum, t) => sum + Number(t), 0)
    } catch {
      // Ended meanwhile; its parent has its times.
    }
  }
  return ticks / 100
}

export async function withLab(options, fn) {
  const lab = await Lab.up({ managers: 1, workers: 0, engineFlags: [], ...options }, systemClock, () => {})
  try {
    return await fn(lab)
  } finally {
    await lab.down()
  }
}

/** Both engines at once, or ours alone where there is no dockerd. fn gets [{name, lab}...]. */
export async function withEngines(size, fn) {
  const engines = [{ name: 'shoal', engine: SHOALD, lab: 'bs', subnet: '10.89.1' }]
  if (DOCKERD) engines.push({ name: 'dockerd', engine: DOCKERD, lab: 'bd', subnet: '10.89.2' })
  const up = []
  try {
    for (const e of engines)
      up.push({
        name: e.name,
        lab: await Lab.up(
          { name: e.lab, subnet: e.subnet, engine: e.engine, engineFlags: [], ...size },
          systemClock,
          () => {},
        ),
      })
    return await fn(up)
  } finally {
    for (const e of up) await e.lab.down()
  }
}

/** The web image under a name of the lab's registry, on the host and pushed. */
export async function image(lab, host) {
  const repo = `${lab.plan.registry}/web`
  await call(
    host.socket,
    'POST',
    `/images/create?fromSrc=-&repo=${encodeURIComponent(repo)}&tag=1&${WEB_CHANGES.map((c) => `changes=${encodeURIComponent(c)}`).join('&')}`,
    { stream: webRootfs() },
  )
  docker(host, 'push', '-q', `${repo}:1`)
  return `${repo}:1`
}

export async function until(what, seconds, attempt) {
  const deadline = performance.now() + seconds * 1000
  let last
  for (;;) {
    try {
      const v = await attempt()
      if (v) return v
    } catch (e) {
      last = e
    }
    if (performance.now() > deadline)
      throw new Error(`${what}: not within ${seconds} s${last ? `: ${last.message}` : ''}`)
    await systemClock.sleep(20)
  }
}

/** Tasks that are wanted and run. */
export async function running(host, service, n, seconds) {
  return until(`${n} tasks of ${service} run`, seconds, async () => {
    const tasks = await call(
      host.socket,
      'GET',
      `/tasks?filters=${encodeURIComponent(JSON.stringify({ service: { [service]: true }, 'desired-state': { running: true } }))}`,
    )
    return tasks.length === n && tasks.every((t) => t.Status.State === 'running') ? tasks : null
  })
}

/** A swarm over all hosts of a lab; dockerd's fail-over clock starts only when all are ready. */
export async function swarm(lab) {
  const [first, ...others] = lab.plan.hosts
  docker(first, 'swarm', 'init', '--advertise-addr', first.address)
  for (const h of others) {
    const token = docker(first, 'swarm', 'join-token', '-q', h.role)
    docker(h, 'swarm', 'join', '--advertise-addr', h.address, '--token', token, `${first.address}:2377`)
  }
  await until(
    'all nodes are ready',
    60,
    async () =>
      (await call(first.socket, 'GET', '/nodes')).filter((n) => n.Status.State === 'ready').length ===
      lab.plan.hosts.length,
  )
}

/** A row of medians and, where there are two, the ratio of the pairs' medians. */
export function row(name, results, unit = 'ms') {
  const parts = Object.entries(results).map(([k, v]) => `${k} ${median(v).toFixed(unit === 's' ? 2 : 1)} ${unit}`)
  const [a, b] = Object.values(results)
  const ratio = b ? `  ratio ${median(a.map((x, i) => x / b[i])).toFixed(3)}` : ''
  console.log(`${name.padEnd(28)} ${parts.join('   ')}${ratio}`)
}
