import { spawn } from 'node:child_process'
import { closeSync, existsSync, openSync, readFileSync, rmdirSync } from 'node:fs'
import { mkdir, rename, rm, writeFile } from 'node:fs/promises'
import { request } from 'node:http'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { type Clock, conflict, invalid, notFound, ShoalError, unavailable } from '../common/index.js'
import {
  cgroupRoots,
  holdIn,
  ip,
  killAll,
  netnsExists,
  netnsPath,
  nft,
  removeCgroup,
  run,
  startTicks,
  unmountBelow,
} from './kernel.js'

/** The shoald that comes with this build. */
export const SHOALD = join(dirname(fileURLToPath(import.meta.url)), '../../../bin/shoald')

export interface LabHost {
  /** m1, m2, ... w1, ... */
  readonly name: string
  readonly role: 'manager' | 'worker'
  readonly address: string
  readonly netns: string
  readonly socket: string
  readonly dataRoot: string
  readonly execRoot: string
  readonly log: string
  readonly cgroup: string
}

export interface LabPlan {
  readonly name: string
  readonly dir: string
  /** First three bytes of the hosts' /24. */
  readonly subnet: string
  readonly switchNetns: string
  readonly registry: string
  readonly hosts: readonly LabHost[]
}

/** What differs from run to run, beside the plan: which process is which host's daemon. */
interface LabRecord {
  readonly plan: LabPlan
  readonly pids: Readonly<Record<string, { readonly pid: number; readonly startTicks: number }>>
}

export interface LabOptions {
  readonly name: string
  readonly managers: number
  readonly workers: number
  readonly subnet: string
  /** Any engine that takes dockerd's flags. */
  readonly engine: string
  readonly engineFlags: readonly string[]
}

export const labDir = (name: string): string => `/var/lib/shoal-lab/${name}`

/** Pure: every name and address of a lab. Interface names have at most 15 characters, hence the short lab name. */
export function planLab(o: LabOptions): LabPlan {
  if (!/^[a-z][a-z0-9]{0,7}$/.test(o.name))
    throw invalid('badLabName', `lab name "${o.name}": use up to 8 lower-case letters and digits, a letter first`)
  if (!(o.managers >= 1 && o.managers + o.workers <= 200))
    throw invalid(
      'badLabSize',
      `a lab has 1 to 200 hosts and at least one manager; asked for ${o.managers} managers and ${o.workers} workers`,
    )
  const bytes = /^(\d{1,3})\.(\d{1,3})\.(\d{1,3})(?:\.0\/24)?$/.exec(o.subnet)?.slice(1, 4)
  if (!bytes?.every((b) => Number(b) < 256))
    throw invalid('badLabSubnet', `lab subnet "${o.subnet}": give the first three bytes of a /24, such as 10.88.0`)
  const subnet = bytes.join('.')
  const dir = labDir(o.name)
  const host = (name: string, role: LabHost['role'], i: number): LabHost => ({
    name,
    role,
    address: `${subnet}.${10 + i}`,
    netns: `${o.name}-${name}`,
    socket: join(dir, name, 'shoal.sock'),
    dataRoot: join(dir, name, 'data'),
    execRoot: join(dir, name, 'run'),
    log: join(dir, name, 'shoald.log'),
    cgroup: `/shoal-lab/${o.name}/${name}`,
  })
  const hosts = [
    ...Array.from({ length: o.managers }, (_, i) => host(`m${i + 1}`, 'manager', i + 1)),
    ...Array.from({ length: o.workers }, (_, i) => host(`w${i + 1}`, 'worker', o.managers + i + 1)),
  ]
  return { name: o.name, dir, subnet, switchNetns: `${o.name}-sw`, registry: `${subnet}.254:5000`, hosts }
}

/** A running or halted lab. All its state is in its directory and in the kernel, so any process can go on with it. */
export class Lab {
  #pids: Record<string, { pid: number; startTicks: number }>
  #saving: Promise<void> = Promise.resolve()

  private constructor(
    readonly plan: LabPlan,
    pids: LabRecord['pids'],
    private readonly clock: Clock,
    private readonly engine: { readonly path: string; readonly flags: readonly string[] },
  ) {
    this.#pids = { ...pids }
  }

  static open(name: string, clock: Clock): Lab {
    const file = join(labDir(name), 'lab.json')
    if (!existsSync(file))
      throw notFound('noSuchLab', `no lab "${name}"; make one with: npm run lab -- up --name ${name}`)
    const record = JSON.parse(readFileSync(file, 'utf8')) as LabRecord & { engine: { path: string; flags: string[] } }
    return new Lab(record.plan, record.pids, clock, record.engine)
  }

  /** Network, registry and daemons. Whatever fails, everything is taken down again. */
  static async up(options: LabOptions, clock: Clock, progress: (line: string) => void): Promise<Lab> {
    const plan = planLab(options)
    if (existsSync(plan.dir))
      throw conflict(
        'labExists',
        `lab "${plan.name}" is up already; take it down with: npm run lab -- down --name ${plan.name}`,
      )
    if (process.getuid?.() !== 0)
      throw new ShoalError('forbidden', 'needRoot', 'a lab makes network namespaces and mounts: run it as root')
    const lab = new Lab(plan, {}, clock, { path: options.engine, flags: options.engineFlags })
    try {
      await mkdir(plan.dir, { recursive: true, mode: 0o700 })
      await lab.#save()
      await lab.#cable()
      progress(`switch ${plan.subnet}.0/24 and ${plan.hosts.length} hosts are cabled`)
      await lab.#startRegistry()
      progress(`registry answers at ${plan.registry}`)
      await Promise.all(plan.hosts.map((h) => lab.#boot(h)))
      progress(`${plan.hosts.length} daemons answer`)
      return lab
    } catch (e) {
      await lab.down().catch(() => {}) // the first error is the one to report
      throw e
    }
  }

  host(name: string): LabHost {
    const h = this.plan.hosts.find((x) => x.name === name)
    if (!h)
      throw notFound(
        'noSuchHost',
        `no host "${name}" in lab "${this.plan.name}"; its hosts are ${this.plan.hosts.map((x) => x.name).join(', ')}`,
      )
    return h
  }

  isUp(host: LabHost): boolean {
    const p = this.#pids[host.name]
    return p !== undefined && startTicks(p.pid) === p.startTicks
  }

  daemonPid(host: LabHost): number {
    return this.#pids[host.name]?.pid ?? 0
  }

  /** Power off: the cable goes dead, then every process of the host at once. */
  async kill(host: LabHost): Promise<void> {
    await ip('-n', this.plan.switchNetns, 'link', 'set', `v-${host.name}`, 'down')
    await killAll(host.cgroup, this.clock)
    delete this.#pids[host.name]
    await this.#save()
  }

  /** SIGKILL for the daemon alone; its containers go on. */
  async killDaemon(host: LabHost): Promise<void> {
    const p = this.#pids[host.name]
    if (!p || startTicks(p.pid) !== p.startTicks) throw conflict('hostDown', `host ${host.name} is down`)
    process.kill(p.pid, 'SIGKILL')
    while (startTicks(p.pid) === p.startTicks) await this.clock.sleep(2)
    delete this.#pids[host.name]
    await this.#save()
  }

  /** Power on after kill: /run is empty as after any boot, disks are as they were. */
  async start(host: LabHost): Promise<void> {
    if (this.isUp(host)) throw conflict('hostUp', `host ${host.name} is up already`)
    await unmountBelow(host.execRoot)
    await rm(host.execRoot, { recursive: true, force: true })
    await this.startDaemon(host)
  }

  /** Only the daemon, after killDaemon: containers and /run are as it left them. */
  async startDaemon(host: LabHost): Promise<void> {
    await ip('-n', this.plan.switchNetns, 'link', 'set', `v-${host.name}`, 'up')
    await this.#boot(host)
  }

  /** Nothing passes between the two any more, or from `a` to `b` only. */
  async partition(a: LabHost, b: LabHost, options: { readonly oneWay?: boolean } = {}): Promise<void> {
    await this.#cutRules(b)
    await nft(b.netns, `add element inet shoal_lab cut { ${a.address} }\n`)
    if (options.oneWay) return
    await this.#cutRules(a)
    await nft(a.netns, `add element inet shoal_lab cut { ${b.address} }\n`)
  }

  async heal(): Promise<void> {
    for (const h of this.plan.hosts) await nft(h.netns, 'add table inet shoal_lab\ndelete table inet shoal_lab\n')
  }

  /** Packets from cut addresses are dropped as they come in; that alone cuts both UDP and TCP. */
  async #cutRules(host: LabHost): Promise<void> {
    await nft(
      host.netns,
      `add table inet shoal_lab
add set inet shoal_lab cut { type ipv4_addr; }
add chain inet shoal_lab incoming { type filter hook prerouting priority -400; }
flush chain inet shoal_lab incoming
add rule inet shoal_lab incoming ip saddr @cut drop
`,
    )
  }

  /** Nothing is left: processes, mounts, namespaces, control groups, files. Works after any crash, and twice. */
  async down(): Promise<void> {
    await killAll(`/shoal-lab/${this.plan.name}`, this.clock)
    await unmountBelow(this.plan.dir)
    for (const ns of [...this.plan.hosts.map((h) => h.netns), this.plan.switchNetns])
      if (netnsExists(ns)) await ip('netns', 'delete', ns)
    await removeCgroup(`/shoal-lab/${this.plan.name}`, this.clock)
    await rm(this.plan.dir, { recursive: true, force: true })
    dropCommonCgroup()
  }

  async #cable(): Promise<void> {
    const { plan } = this
    for (const ns of [plan.switchNetns, ...plan.hosts.map((h) => h.netns)]) {
      if (netnsExists(ns))
        throw conflict('netnsExists', `network namespace ${ns} exists already; remove it with: ip netns delete ${ns}`)
      await ip('netns', 'add', ns)
      await ip('-n', ns, 'link', 'set', 'lo', 'up')
    }
    const sw = plan.switchNetns
    await ip('-n', sw, 'link', 'add', 'br0', 'type', 'bridge')
    await ip('-n', sw, 'link', 'set', 'br0', 'up')
    await ip('-n', sw, 'address', 'add', `${plan.subnet}.254/24`, 'dev', 'br0')
    for (const h of plan.hosts) {
      await ip('-n', sw, 'link', 'add', `v-${h.name}`, 'type', 'veth', 'peer', 'name', 'eth0', 'netns', h.netns)
      await ip('-n', sw, 'link', 'set', `v-${h.name}`, 'master', 'br0', 'up')
      await ip('-n', h.netns, 'address', 'add', `${h.address}/24`, 'dev', 'eth0')
      await ip('-n', h.netns, 'link', 'set', 'eth0', 'up')
      await ip('-n', h.netns, 'route', 'add', 'default', 'via', `${plan.subnet}.254`)
    }
  }

  async #startRegistry(): Promise<void> {
    const dir = join(this.plan.dir, 'registry')
    await mkdir(dir, { recursive: true })
    const config = join(this.plan.dir, 'registry.yml')
    await writeFile(
      config,
      `version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: ${dir}}, delete: {enabled: true}}\nhttp: {addr: "${this.plan.registry}"}\n`,
    )
    const pid = this.#spawn(this.plan.switchNetns, 'registry', join(this.plan.dir, 'registry.log'), [
      'docker-registry',
      'serve',
      config,
    ])
    await holdIn(`/shoal-lab/${this.plan.name}/registry`, pid)
    const [host, port] = this.plan.registry.split(':')
    await this.#until(`registry ${this.plan.registry}`, async () => {
      await this.inNetns(this.plan.switchNetns, [
        'curl',
        '-fsS',
        '-m',
        '2',
        '-o',
        '/dev/null',
        `http://${host}:${port}/v2/`,
      ])
    })
  }

  async #boot(host: LabHost): Promise<void> {
    const config = join(dirname(host.socket), 'daemon.json')
    await mkdir(dirname(host.socket), { recursive: true })
    if (!existsSync(config)) await writeFile(config, '{}\n')
    const pid = this.#spawn(host.netns, host.name, host.log, [
      this.engine.path,
      '--data-root',
      host.dataRoot,
      '--exec-root',
      host.execRoot,
      '--pidfile',
      join(dirname(host.socket), 'shoald.pid'),
      '--config-file',
      config,
      '--host',
      `unix://${host.socket}`,
      '--cgroup-parent',
      `${host.cgroup}/containers`,
      '--insecure-registry',
      this.plan.registry,
      ...this.engine.flags,
    ])
    await holdIn(`${host.cgroup}/daemon`, pid)
    this.#pids[host.name] = { pid, startTicks: startTicks(pid) ?? 0 }
    await this.#save()
    await this.#until(
      `daemon of ${host.name} (log: ${host.log})`,
      () => ping(host.socket),
      () => {
        if (startTicks(pid) === null)
          throw unavailable('daemonEnded', `the daemon of ${host.name} ended while starting: ${lastLines(host.log)}`)
      },
    )
  }

  /** In the host's network namespace, with a host name of its own; the process outlives this one. */
  #spawn(netns: string, hostname: string, log: string, command: readonly string[]): number {
    const out = openSync(log, 'a', 0o600)
    try {
      const p = spawn(
        'nsenter',
        [
          `--net=${netnsPath(netns)}`,
          'unshare',
          '--uts',
          'sh',
          '-c',
          'hostname "$1" && shift && exec "$@"',
          'sh',
          hostname,
          ...command,
        ],
        {
          detached: true,
          stdio: ['ignore', out, out],
        },
      )
      p.unref()
      if (!p.pid) throw new ShoalError('internal', 'spawnFailed', `cannot start ${command[0]}`)
      return p.pid
    } finally {
      closeSync(out)
    }
  }

  inNetns(netns: string, command: readonly string[]): Promise<string> {
    return run('nsenter', `--net=${netnsPath(netns)}`, ...command)
  }

  async #until(what: string, attempt: () => Promise<void>, check: () => void = () => {}): Promise<void> {
    const deadline = this.clock.monotonic() + 60_000
    for (;;) {
      try {
        return await attempt()
      } catch (e) {
        check()
        if (this.clock.monotonic() > deadline)
          throw unavailable('notAnswering', `${what} does not answer: ${(e as Error).message}`)
        await this.clock.sleep(50)
      }
    }
  }

  /** One write at a time, replaced whole: hosts boot side by side, and a torn record would leave a lab that `down` cannot read. */
  #save(): Promise<void> {
    const file = join(this.plan.dir, 'lab.json')
    this.#saving = this.#saving.then(async () => {
      await writeFile(
        `${file}.tmp`,
        JSON.stringify({ plan: this.plan, pids: this.#pids, engine: this.engine }, null, 1),
      )
      await rename(`${file}.tmp`, file)
    })
    return this.#saving
  }
}

function ping(socket: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const r = request({ socketPath: socket, path: '/_ping', timeout: 2000 }, (res) => {
      res.resume()
      res.on('end', () => (res.statusCode === 200 ? resolve() : reject(new Error(`status ${res.statusCode}`))))
    })
    r.on('timeout', () => r.destroy(new Error('time-out')))
    r.on('error', reject)
    r.end()
  })
}

const lastLines = (file: string): string => {
  try {
    return readFileSync(file, 'utf8').trim().split('\n').slice(-3).join(' | ').slice(-1500)
  } catch {
    return '(no log)'
  }
}

/** The group that all labs share goes with the last of them. */
function dropCommonCgroup(): void {
  for (const root of cgroupRoots()) {
    try {
      rmdirSync(join(root, 'shoal-lab'))
    } catch {
      // Another lab is in it, or it never was.
    }
  }
}
