import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { systemClock } from '../../src/common/index.js'
import { call, Lab, type LabHost, labDir, SHOALD, WEB_CHANGES, webRootfs } from '../../src/lab/index.js'

export { call, Lab, type LabHost, SHOALD }
export const clock = systemClock

/** The stock commands that are installed: 28 and 20.10 where both are. */
export const DOCKERS: readonly string[] = ['/usr/local/bin/docker', '/usr/bin/docker'].filter((p) => existsSync(p))
export const DOCKER = DOCKERS[0] ?? 'docker'

export interface Result {
  readonly status: number
  readonly stdout: string
  readonly stderr: string
}

/** Runs a docker command against a host; never throws for its exit status. */
export function docker(
  host: LabHost,
  args: readonly string[],
  options: { readonly docker?: string; readonly input?: string | Buffer; readonly timeoutMs?: number } = {},
): Promise<Result> {
  return new Promise((resolve, reject) => {
    const p = spawn(options.docker ?? DOCKER, args, {
      env: { ...process.env, DOCKER_HOST: `unix://${host.socket}`, DOCKER_CONFIG: '/nonexistent' },
      timeout: options.timeoutMs ?? 90_000,
    })
    let [stdout, stderr] = ['', '']
    p.stdout.on('data', (b) => {
      stdout += b
    })
    p.stderr.on('data', (b) => {
      stderr += b
    })
    p.on('error', reject)
    p.on('close', (code, signal) => resolve({ status: code ?? (signal ? 128 : 1), stdout, stderr }))
    p.stdin.on('error', () => {})
    p.stdin.end(options.input)
  })
}

/** Standard output, trimmed; throws with the command's own words when it fails. */
export async function ok(host: LabHost, ...args: string[]): Promise<string> {
  const r = await docker(host, args)
  if (r.status !== 0) throw new Error(`docker ${args.join(' ')}: ${r.status}: ${r.stderr.trim() || r.stdout.trim()}`)
  return r.stdout.trim()
}

/** A lab of this test's own. What a run that was cut short left under its name goes first. */
export async function lab(name: string, subnet: string, managers: number, workers: number): Promise<Lab> {
  if (existsSync(labDir(name))) await Lab.open(name, clock).down()
  return Lab.up({ name, subnet, managers, workers, engine: SHOALD, engineFlags: [] }, clock, () => {})
}

/** The lab's busybox image with a web page, on the host and in the registry. */
export async function webImage(l: Lab, host: LabHost): Promise<string> {
  const repo = `${l.plan.registry}/web`
  await call(
    host.socket,
    'POST',
    `/images/create?fromSrc=-&repo=${encodeURIComponent(repo)}&tag=1&${WEB_CHANGES.map((c) => `changes=${encodeURIComponent(c)}`).join('&')}`,
    { stream: webRootfs() },
  )
  await ok(host, 'push', `${repo}:1`)
  return `${repo}:1`
}

export async function until<T>(
  what: string,
  seconds: number,
  attempt: () => Promise<T | null | undefined | false>,
): Promise<T> {
  const deadline = clock.monotonic() + seconds * 1000
  let last = ''
  for (;;) {
    try {
      const v = await attempt()
      if (v) return v
    } catch (e) {
      last = `: ${(e as Error).message}`
    }
    if (clock.monotonic() > deadline) throw new Error(`${what}: not within ${seconds} s${last}`)
    await clock.sleep(50)
  }
}

export async function swarm(l: { readonly plan: { readonly hosts: readonly LabHost[] } }): Promise<void> {
  const [first, ...others] = l.plan.hosts as readonly [LabHost, ...LabHost[]]
  await ok(first, 'swarm', 'init', '--advertise-addr', first.address)
  for (const h of others) {
    const token = await ok(first, 'swarm', 'join-token', '-q', h.role)
    await ok(h, 'swarm', 'join', '--advertise-addr', h.address, '--token', token, `${first.address}:2377`)
  }
  await until(
    'all nodes are ready',
    30,
    async () => (await nodes(first)).filter((n) => n.Status.State === 'ready').length === l.plan.hosts.length,
  )
}

export interface NodeJson {
  ID: string
  Description: { Hostname: string }
  Status: { State: string; Addr: string }
  ManagerStatus?: { Leader?: boolean; Reachability: string }
}
export const nodes = (h: LabHost): Promise<NodeJson[]> =>
  call<NodeJson[]>(h.socket, 'GET', '/nodes', { timeoutMs: 5000 })

export interface TaskJson {
  ID: string
  NodeID: string
  Slot: number
  DesiredState: string
  Status: { State: string; Err?: string; ContainerStatus?: { ContainerID: string; PID: number } }
}
export const tasks = (h: LabHost, service: string): Promise<TaskJson[]> =>
  call<TaskJson[]>(
    h.socket,
    'GET',
    `/tasks?filters=${encodeURIComponent(JSON.stringify({ service: { [service]: true } }))}`,
    { timeoutMs: 5000 },
  )

export const running = (h: LabHost, service: string, n: number, seconds: number): Promise<TaskJson[]> =>
  until(`${n} tasks of ${service} run`, seconds, async () => {
    const wanted = (await tasks(h, service)).filter((t) => t.DesiredState === 'running')
    return wanted.length === n && wanted.every((t) => t.Status.State === 'running') ? wanted : null
  })
