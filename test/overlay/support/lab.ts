// Simulated hosts: namespaces on one bridge, each with a process that runs a NetworkService in it.
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { isMainThread } from 'node:worker_threads'
import type {
  EndpointRecord,
  JoinRequest,
  NetworkRecord,
  NetworkService,
  OverlayOptionsInput,
  SandboxSpec,
} from '../../../src/overlay/index.js'
import { loadNetNative } from '../../../src/overlay/native.js'

const here = fileURLToPath(new URL('.', import.meta.url))
const native = loadNetNative()

/** null when namespaces can be made here; else why not. */
export async function whyNoLab(): Promise<string | null> {
  if (!isMainThread) return 'needs processes'
  if (process.getuid?.() !== 0) return 'needs root'
  const dir = mkdtempSync(join(tmpdir(), 'overlay-probe-'))
  try {
    await native.netnsCreate(join(dir, 'ns'), {})
    await native.netnsDelete(join(dir, 'ns'))
    return null
  } catch (e) {
    return `network namespaces cannot be made here: ${(e as Error).message}`
  } finally {
    rmSync(dir, { recursive: true, force: true })
  }
}

export interface Replies {
  readonly answers: string[]
  readonly error: string | null
}

type Remote = {
  [K in keyof NetworkService]: NetworkService[K] extends (...a: infer A) => infer R
    ? (...a: A) => Promise<Awaited<R>>
    : never
}

/** One program inside a namespace. */
export class Program {
  #out = ''
  readonly child: ChildProcess

  constructor(netns: string, args: readonly string[]) {
    this.child = spawn('nsenter', [`--net=${netns}`, process.execPath, join(here, 'traffic.js'), ...args], {
      stdio: ['pipe', 'pipe', 'inherit'],
    })
    this.child.stdout!.on('data', (d) => {
      this.#out += d
    })
  }

  /** Resolves with everything printed once `found` is in it; fails after 15 s or when the program ends first. */
  async until(found: string): Promise<string> {
    const deadline = AbortSignal.timeout(15_000)
    while (!this.#out.includes(found)) {
      if (this.child.exitCode !== null) throw new Error(`program ended; it printed: ${this.#out}`)
      await Promise.race([
        once(this.child.stdout!, 'data', { signal: deadline }),
        once(this.child, 'exit', { signal: deadline }),
      ])
    }
    return this.#out
  }

  write(text: string): void {
    this.child.stdin!.write(text)
  }

  async stop(): Promise<void> {
    if (this.child.exitCode !== null || this.child.signalCode !== null) return
    const gone = once(this.child, 'exit')
    this.child.kill('SIGKILL')
    await gone
  }
}

export class Host {
  #child: ChildProcess | null = null
  #next = 1
  readonly #waiting = new Map<number, { resolve: (v: unknown) => void; reject: (e: unknown) => void }>()
  readonly service: Remote

  constructor(
    readonly lab: Lab,
    readonly name: string,
    readonly netns: string,
    readonly address: string,
  ) {
    this.service = new Proxy({} as Remote, {
      get:
        (_t, method) =>
        (...args: unknown[]) =>
          this.#call(String(method), args),
    })
  }

  get runDir(): string {
    return join(this.lab.dir, this.name, 'run')
  }

  /** Where plugins' sockets are found. */
  get pluginsDir(): string {
    return join(this.lab.dir, this.name, 'plugins')
  }

  /** Starts the process and its service. */
  async start(options: Partial<OverlayOptionsInput> = {}, keep: readonly string[] = []): Promise<void> {
    const child = spawn('nsenter', [`--net=${this.netns}`, process.execPath, join(here, 'host-process.js')], {
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
      serialization: 'advanced',
    })
    this.#child = child
    child.on('message', (m: { id: number; value?: unknown; error?: object }) => {
      const w = this.#waiting.get(m.id)
      this.#waiting.delete(m.id)
      if (m.error) w?.reject(Object.assign(new Error(), m.error))
      else w?.resolve(m.value)
    })
    child.on('exit', (code, signal) => {
      for (const w of this.#waiting.values()) w.reject(new Error(`host ${this.name} ended: ${code ?? signal}`))
      this.#waiting.clear()
    })
    await this.#call('open', [
      { root: join(this.lab.dir, this.name, 'root'), runDir: this.runDir, hostResolvConf: '/dev/null', ...options },
      keep,
    ])
  }

  /** SIGKILL, as a crash. */
  async kill(): Promise<void> {
    const child = this.#child
    if (!child || child.exitCode !== null || child.signalCode !== null) return
    const gone = once(child, 'exit')
    child.kill('SIGKILL')
    await gone
  }

  /** Processes that its process has started. */
  children(): number[] {
    const { pid } = this.#child!
    const ofThread = (tid: string): string => readFileSync(`/proc/${pid}/task/${tid}/children`, 'utf8')
    return readdirSync(`/proc/${pid}/task`).flatMap((tid) => ofThread(tid).split(' ').filter(Boolean).map(Number))
  }

  async network(name: string, extra: Partial<NetworkRecord> = {}): Promise<NetworkRecord> {
    return this.service.createNetwork({
      name,
      driver: 'bridge',
      internal: false,
      attachable: false,
      ipv6: false,
      ipam: { driver: 'default', options: {}, pools: [] },
      options: {},
      labels: {},
      configOnly: false,
      configFrom: null,
      ...extra,
    })
  }

  /** A sandbox with one endpoint; resolves with the namespace's path and the endpoint. */
  async container(
    name: string,
    networkId: string,
    more: { address?: string; aliases?: string[]; join?: JoinRequest; spec?: Partial<SandboxSpec> } = {},
  ): Promise<{ id: string; netns: string; endpoint: EndpointRecord; files: string }> {
    const files = join(this.lab.dir, this.name, 'files', name)
    const id = Buffer.from(name.padEnd(32, '.')).toString('hex')
    const s = await this.service.createSandbox({
      id,
      name,
      hostname: name,
      domainname: '',
      mode: 'private',
      dns: { servers: [], search: [], options: [] },
      extraHosts: [],
      sysctls: {},
      filesDir: files,
      ...more.spec,
    })
    const endpoint = await this.service.join(id, networkId, {
      ipv4Address: more.address,
      aliases: more.aliases,
      ...more.join,
    })
    return { id, netns: s.netnsPath!, endpoint, files }
  }

  #call(method: string, args: unknown[]): Promise<never> {
    return new Promise((resolve, reject) => {
      const id = this.#next++
      this.#waiting.set(id, { resolve: resolve as (v: unknown) => void, reject })
      this.#child!.send({ id, method, args })
    })
  }
}

export class Lab {
  readonly dir = mkdtempSync(join(tmpdir(), 'overlay-lab-'))
  readonly hosts: Host[] = []
  readonly #programs: Program[] = []
  /** A client outside all hosts, 10.88.0.100. */
  readonly outside = join(this.dir, 'ns', 'outside')

  static async open(hosts: number): Promise<Lab> {
    const lab = new Lab()
    mkdirSync(join(lab.dir, 'ns'))
    const underlay = join(lab.dir, 'ns', 'underlay')
    await native.netnsCreate(underlay, {})
    await native.netLink(underlay, [
      { op: 'linkAdd', name: 'br0', kind: 'bridge' },
      { op: 'linkSet', name: 'br0', up: true },
    ])
    const plug = async (path: string, port: string, address: string): Promise<void> => {
      await native.netnsCreate(path, {})
      await native.netLink(underlay, [
        { op: 'linkAdd', name: port, kind: 'veth', peerName: 'eth0', peerNetns: path },
        { op: 'linkSet', name: port, up: true, master: 'br0' },
      ])
      await native.netLink(path, [
        { op: 'addrAdd', dev: 'eth0', address, prefix: 24 },
        { op: 'linkSet', name: 'eth0', up: true },
      ])
    }
    await plug(lab.outside, 'outside', '10.88.0.100')
    for (let i = 1; i <= hosts; i++) {
      const netns = join(lab.dir, 'ns', `h${i}`)
      await plug(netns, `h${i}`, `10.88.0.${10 + i}`)
      lab.hosts.push(new Host(lab, `h${i}`, netns, `10.88.0.${10 + i}`))
    }
    return lab
  }

  program(netns: string, ...args: string[]): Program {
    const p = new Program(netns, args)
    this.#programs.push(p)
    return p
  }

  async serve(netns: string, name: string, port: number, address = '0.0.0.0'): Promise<Program> {
    const p = this.program(netns, 'serve', name, address, String(port))
    await p.until('ready')
    return p
  }

  async #replies(netns: string, args: string[]): Promise<Replies> {
    return JSON.parse(await this.program(netns, ...args).until('\n')) as Replies
  }
  get(netns: string, address: string, port: number, count = 1): Promise<Replies> {
    return this.#replies(netns, ['get', address, String(port), String(count)])
  }
  udp(netns: string, address: string, port: number, count = 1): Promise<Replies> {
    return this.#replies(netns, ['udp', address, String(port), String(count)])
  }
  flood(netns: string, address: string, port: number, count: number): Promise<Replies> {
    return this.#replies(netns, ['flood', address, String(port), String(count)])
  }
  dns(netns: string, name: string, type = 'A'): Promise<Replies> {
    return this.#replies(netns, ['dns', name, type])
  }

  /** What of the daemon's is in a host's namespace and folder. */
  async leftovers(host: Host): Promise<{ links: string[]; tables: string; namespaces: string[] }> {
    const dir = join(host.runDir, 'netns')
    return {
      links: (await native.netLinks(host.netns)).map((l) => l.name).filter((n) => n !== 'lo' && n !== 'eth0'),
      tables: await native.netNft(host.netns, 'list tables'),
      namespaces: existsSync(dir) ? readdirSync(dir) : [],
    }
  }

  async close(): Promise<void> {
    for (const p of this.#programs) await p.stop()
    for (const h of this.hosts) {
      await h.kill()
      const dir = join(h.runDir, 'netns')
      for (const file of existsSync(dir) ? readdirSync(dir) : []) await native.netnsDelete(join(dir, file))
    }
    for (const file of readdirSync(join(this.dir, 'ns'))) await native.netnsDelete(join(this.dir, 'ns', file))
    rmSync(this.dir, { recursive: true, force: true })
  }
}
