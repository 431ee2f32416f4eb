// What the tests of the native core stand on: a busybox image, bundles, and a client of the shim's protocol.
import { type ChildProcess, spawn } from 'node:child_process'
import {
  closeSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { rm } from 'node:fs/promises'
import { connect, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { native, nativeDirectory, type SpawnedShim } from '../../src/runtime/index.js'

/** SHOAL_TEST_SHIM=shoal-shim-san runs the suite on the build with sanitizers (make -C native sanitized). */
export const bin = (name: string): string =>
  join(nativeDirectory, name === 'shoal-shim' ? (process.env['SHOAL_TEST_SHIM'] ?? name) : name)
export const checkout = fileURLToPath(new URL('../../../', import.meta.url))
export const canRun = process.getuid?.() === 0 && existsSync('/bin/busybox')

const applets = ['sh', 'cat', 'echo', 'ls', 'ps', 'id', 'sleep', 'mount', 'hostname', 'true', 'false', 'env', 'stty', 'kill', 'test', 'grep', 'head',
  'tail', 'dd', 'yes', 'cut', 'tr', 'readlink', 'touch', 'mkdir', 'rm', 'ln', 'wc', 'stat', 'od', 'sort', 'umask', 'ip', 'tee', 'nc', 'date', 'dmesg', 'seq', 'usleep', 'mknod', 'chmod', 'umount', 'unshare', 'chroot', 'which', 'awk', 'sed', 'find'] // biome-ignore format: a list

/** A fresh folder; everything a test makes lies in it. */
export function makeDir(name: string): string {
  return mkdtempSync(join(tmpdir(), `native-${name}-`))
}

/** rm with --one-file-system semantics is not in Node: tests that mount do so in namespaces of the containers only. */
export async function removeDir(dir: string): Promise<void> {
  if (readFileSync('/proc/self/mountinfo', 'utf8').includes(` ${dir}/`))
    throw new Error(`something is still mounted below ${dir}`)
  await rm(dir, { recursive: true, force: true })
}

export function makeImage(dir: string): string {
  mkdirSync(join(dir, 'bin'), { recursive: true })
  copyFileSync('/bin/busybox', join(dir, 'bin/busybox'))
  for (const a of applets) symlinkSync('busybox', join(dir, 'bin', a))
  for (const d of ['proc', 'dev', 'sys', 'etc', 'tmp', 'root']) mkdirSync(join(dir, d))
  writeFileSync(join(dir, 'etc/passwd'), 'root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1000::/home/web:/bin/sh\n')
  return dir
}

// biome-ignore lint/suspicious/noExplicitAny: documents of the specification, written by hand
export type Json = Record<string, any>

export const defaultCaps = ['CHOWN', 'DAC_OVERRIDE', 'FSETID', 'FOWNER', 'MKNOD', 'NET_RAW', 'SETGID', 'SETUID', 'SETFCAP', 'SETPCAP',
  'NET_BIND_SERVICE', 'SYS_CHROOT', 'KILL', 'AUDIT_WRITE'].map((c) => `CAP_${c}`) // biome-ignore format: a list

/** A config.json as Docker makes them, small. */
export function makeConfig(args: string[], change: (c: Json) => void = () => {}): Json {
  const config: Json = {
    ociVersion: '1.0.2',
    hostname: 'box',
    process: {
      terminal: false,
      user: { uid: 0, gid: 0 },
      args,
      env: ['PATH=/bin', 'TERM=xterm'],
      cwd: '/',
      capabilities: { bounding: [...defaultCaps], effective: [...defaultCaps], permitted: [...defaultCaps] },
      oomScoreAdj: 0,
    },
    root: { path: 'rootfs' },
    mounts: [
      { destination: '/proc', type: 'proc', source: 'proc', options: ['nosuid', 'noexec', 'nodev'] },
      {
        destination: '/dev',
        type: 'tmpfs',
        source: 'tmpfs',
        options: ['nosuid', 'strictatime', 'mode=755', 'size=65536k'],
      },
      {
        destination: '/dev/pts',
        type: 'devpts',
        source: 'devpts',
        options: ['nosuid', 'noexec', 'newinstance', 'ptmxmode=0666', 'mode=0620', 'gid=5'],
      },
      { destination: '/sys', type: 'sysfs', source: 'sysfs', options: ['nosuid', 'noexec', 'nodev', 'ro'] },
      { destination: '/sys/fs/cgroup', type: 'cgroup', source: 'cgroup', options: ['ro', 'nosuid', 'noexec', 'nodev'] },
      { destination: '/dev/mqueue', type: 'mqueue', source: 'mqueue', options: ['nosuid', 'noexec', 'nodev'] },
      {
        destination: '/dev/shm',
        type: 'tmpfs',
        source: 'shm',
        options: ['nosuid', 'noexec', 'nodev', 'mode=1777', 'size=67108864'],
      },
    ],
    linux: {
      namespaces: ['mount', 'pid', 'network', 'ipc', 'uts', 'cgroup'].map((type) => ({ type })),
      resources: {
        memory: { limit: 64 << 20 },
        pids: { limit: 100 },
        devices: [{ allow: false, access: 'rwm' }],
      },
      maskedPaths: ['/proc/acpi', '/proc/kcore', '/proc/keys', '/proc/timer_list', '/sys/firmware'],
      readonlyPaths: ['/proc/bus', '/proc/fs', '/proc/irq', '/proc/sys', '/proc/sysrq-trigger'],
    },
  }
  change(config)
  return config
}

export interface Frame {
  type: string
  data: Buffer
}

/** Waits for what a test expects, with a deadline; the message says what did not come. */
export function deadline<T>(promise: Promise<T>, what: string, ms = 20_000): Promise<T> {
  let timer: NodeJS.Timeout
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what} did not come within ${ms} ms`)), ms)
  })
  return Promise.race([promise, late]).finally(() => clearTimeout(timer))
}

/** One connection to a shim. */
export class ShimConnection {
  readonly events: Json[] = []
  stdout = ''
  stderr = ''
  closed = false
  #socket: Socket
  #next = 1
  #buffer = Buffer.alloc(0)
  #answers = new Map<number, (answer: Json) => void>()
  #waiters: (() => void)[] = []

  private constructor(socket: Socket) {
    this.#socket = socket
    socket.on('data', (d) => {
      this.#buffer = Buffer.concat([this.#buffer, d])
      while (this.#buffer.length >= 5) {
        const length = this.#buffer.readUInt32BE(0)
        if (this.#buffer.length < 5 + length) break
        this.#frame({ type: String.fromCharCode(this.#buffer[4]!), data: this.#buffer.subarray(5, 5 + length) })
        this.#buffer = this.#buffer.subarray(5 + length)
      }
      this.#wake()
    })
    socket.on('error', () => {})
    socket.on('close', () => {
      this.closed = true
      this.#wake()
    })
  }

  static async open(runDir: string): Promise<ShimConnection> {
    const socket = connect(join(runDir, 'shim.sock'))
    await deadline(
      new Promise<void>((resolve, reject) => {
        socket.once('connect', resolve)
        socket.once('error', reject)
      }),
      'the connection to the shim',
    )
    const c = new ShimConnection(socket)
    const hello = await c.ask({ op: 'hello', version: 1 })
    if (!hello['ok']) throw new Error(`hello: ${JSON.stringify(hello)}`)
    return c
  }

  #frame(f: Frame): void {
    if (f.type === 'o') this.stdout += f.data.toString('latin1')
    else if (f.type === 'e') this.stderr += f.data.toString('latin1')
    else {
      const message = JSON.parse(f.data.toString()) as Json
      if (message['event']) this.events.push(message)
      else this.#answers.get(message['id'] as number)?.(message)
    }
  }

  #wake(): void {
    for (const w of this.#waiters.splice(0)) w()
  }

  /** Resolves when the condition holds; asked after each arrival. */
  async until(condition: () => boolean, what: string): Promise<void> {
    const wait = async (): Promise<void> => {
      while (!condition()) {
        if (this.closed) throw new Error(`the shim closed the connection before ${what}`)
        await new Promise<void>((resolve) => this.#waiters.push(resolve))
      }
    }
    await deadline(wait(), what)
  }

  send(type: string, payload: Buffer | string): void {
    const body = Buffer.from(payload)
    const head = Buffer.alloc(5)
    head.writeUInt32BE(body.length, 0)
    head.write(type, 4)
    this.#socket.write(Buffer.concat([head, body]))
  }

  ask(request: Json): Promise<Json> {
    const id = this.#next++
    const answer = new Promise<Json>((resolve) => this.#answers.set(id, resolve))
    this.send('J', JSON.stringify({ id, ...request }))
    return deadline(answer, `the answer to ${request['op']}`)
  }

  async event(name: string): Promise<Json> {
    await this.until(() => this.events.some((e) => e['event'] === name), `event ${name}`)
    return this.events.find((e) => e['event'] === name)!
  }

  /** Stops and goes on reading: a slow client. */
  pauseReading(): void {
    this.#socket.pause()
  }
  resumeReading(): void {
    this.#socket.resume()
  }

  close(): void {
    this.#socket.destroy()
  }
}

let counter = 0

/** A container's run directory with its documents, and the shim that is started on it. */
export class TestContainer {
  readonly dir: string
  readonly id: string
  shim: SpawnedShim | undefined
  /** A program and arguments that execute the shim, in place of the shim itself. */
  through: string[] = []
  gone: Promise<void> | undefined

  constructor(
    readonly base: string,
    readonly image: string,
    config: Json,
    shim: Json = {},
  ) {
    this.id = `c${process.pid}x${++counter}`
    this.dir = join(base, this.id)
    for (const d of ['rootfs', 'diff', 'work']) mkdirSync(join(this.dir, d), { recursive: true })
    writeFileSync(join(this.dir, 'config.json'), JSON.stringify(config))
    writeFileSync(
      join(this.dir, 'shim.json'),
      JSON.stringify({
        version: 1,
        id: this.id,
        rootfs: { lower: [image], upper: join(this.dir, 'diff'), work: join(this.dir, 'work'), options: [] },
        tty: false,
        ttyWidth: 0,
        ttyHeight: 0,
        stdin: false,
        stdinOnce: false,
        log: {
          driver: 'json-file',
          path: join(this.dir, 'c.log'),
          maxSizeBytes: 0,
          maxFiles: 1,
          mode: 'blocking',
          bufferBytes: 1 << 20,
          extra: null,
        },
        cgroup: this.cgroup,
        seccomp: null,
        initPath: null,
        runtime: null,
        ...shim,
      }),
    )
  }

  get cgroup(): string {
    return `/native-test-${process.pid}/${this.id}`
  }

  /** Starts the shim; resolves with the status lines when the shim closes the pipe. */
  async start(...args: string[]): Promise<Json[]> {
    const logFd = openSync(join(this.dir, 'shim.log'), 'a')
    const [path, ...before] = [...this.through, bin('shoal-shim')]
    this.shim = native().spawnShim({ path: path!, args: [...before, ...args, this.dir], cwd: this.dir, logFd })
    closeSync(logFd)
    this.gone = native().pidfdWait(this.shim.pid, 0)
    const status = new (await import('node:net')).Socket({ fd: this.shim.statusFd, readable: true, writable: false })
    let text = ''
    status.setEncoding('utf8')
    status.on('data', (d) => {
      text += d
    })
    await deadline(new Promise((resolve) => status.once('close', resolve)), 'the end of the status pipe')
    return text
      .split('\n')
      .filter(Boolean)
      .map((l) => JSON.parse(l) as Json)
  }

  connect(): Promise<ShimConnection> {
    return ShimConnection.open(this.dir)
  }

  ended(): Promise<void> {
    return deadline(this.gone!, 'the end of the shim')
  }

  json(name: string): Json {
    return JSON.parse(readFileSync(join(this.dir, name), 'utf8')) as Json
  }
  has(name: string): boolean {
    return existsSync(join(this.dir, name))
  }

  /** The log's lines as text of one stream, or of both. */
  log(stream?: 'stdout' | 'stderr'): string {
    return readFileSync(join(this.dir, 'c.log'), 'utf8')
      .split('\n')
      .filter(Boolean)
      .map((l) => JSON.parse(l) as Json)
      .filter((l) => !stream || l['stream'] === stream)
      .map((l) => l['log'] as string)
      .join('')
  }

  /** Runs to its end and gives the exit record. */
  async run(): Promise<Json> {
    const lines = await this.start()
    if (lines.at(-1)?.['error']) return lines.at(-1)!
    await this.ended()
    return this.json('exit.json')
  }
}

/** Where this host keeps a controller: the hierarchy's mount point. */
export function controllerMount(name: string): { path: string; v2: boolean } {
  let v2: string | undefined
  for (const line of readFileSync('/proc/self/mountinfo', 'utf8').split('\n')) {
    const [left, right] = line.split(' - ')
    if (!right) continue
    const path = left!.split(' ')[4]!
    const [type, , options] = right.split(' ')
    if (type === 'cgroup' && options!.split(',').includes(name)) return { path, v2: false }
    // The v2 tree has a freezer without listing it; a v1 one goes before.
    if (
      type === 'cgroup2' &&
      (name === 'freezer' || readFileSync(join(path, 'cgroup.controllers'), 'utf8').split(/\s/).includes(name))
    )
      v2 = path
  }
  if (v2) return { path: v2, v2: true }
  throw new Error(`no ${name} controller`)
}

/** All folders of a cgroup path, over all hierarchies. */
export function cgroupFolders(path: string): string[] {
  return readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .filter((l) => / - cgroup2? /.test(l))
    .map((l) => l.split(' ')[4]! + path)
    .filter((p) => existsSync(p))
}

/** Mounts, network namespaces and processes that could be left behind. */
export function traces(word: string): string[] {
  const found = readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .filter((l) => l.includes(word))
  for (const pid of readdirSync('/proc').filter((p) => /^\d+$/.test(p) && p !== String(process.pid))) {
    try {
      // Whose parent has not asked yet is dead all the same.
      if (/^State:\tZ/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'))) continue
      if (readFileSync(`/proc/${pid}/cgroup`, 'utf8').includes(word)) found.push(`process ${pid}`)
    } catch {}
  }
  return found
}

export interface Output {
  code: number
  stdout: string
  stderr: string
}

export function exec(
  file: string,
  args: string[],
  options: { input?: string | Buffer; cwd?: string; env?: NodeJS.ProcessEnv } = {},
): Promise<Output> {
  const child: ChildProcess = spawn(file, args, {
    cwd: options.cwd,
    env: options.env ?? process.env,
    stdio: ['pipe', 'pipe', 'pipe'],
  })
  let stdout = ''
  let stderr = ''
  child.stdout!.on('data', (d) => {
    stdout += d
  })
  child.stderr!.on('data', (d) => {
    stderr += d
  })
  child.stdin!.on('error', () => {})
  child.stdin!.end(options.input ?? '')
  return deadline(
    new Promise((resolve, reject) => {
      child.once('error', reject)
      child.once('close', (code, signal) => resolve({ code: code ?? (signal ? 128 : -1), stdout, stderr }))
    }),
    `${file} ${args.join(' ')}`,
    60_000,
  )
}

/**
 * As exec, for commands whose container goes on and keeps the standard streams: ends with the command itself. Errors go to a file.
 */
export function execDetached(file: string, args: string[], errors: string): Promise<Output> {
  const fd = openSync(errors, 'w')
  const child = spawn(file, args, { stdio: ['ignore', 'ignore', fd] })
  return deadline(
    new Promise((resolve, reject) => {
      child.once('error', reject)
      child.once('exit', (code) => resolve({ code: code ?? -1, stdout: '', stderr: readFileSync(errors, 'utf8') }))
    }),
    `${file} ${args.join(' ')}`,
  )
}

/** Asks again until it holds: for state of the kernel that nobody announces. */
export async function eventually(condition: () => boolean, what: string, ms = 10_000): Promise<void> {
  const end = Date.now() + ms
  while (!condition()) {
    if (Date.now() > end) throw new Error(`${what} did not happen within ${ms} ms`)
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
}

/** A seccomp agent, in Python as Node receives no descriptors: what it was told, once for each process. */
export async function seccompAgent(path: string): Promise<{ told: Json[]; stop: () => void }> {
  const script = `import socket, sys
s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(9); print('{}', flush=True)
kept = []
while True:
  text, fds, _, _ = socket.recv_fds(s.accept()[0], 4000, 4)
  kept += fds
  print(text.decode(), flush=True)`
  const child = spawn('python3', ['-c', script, path], { stdio: ['ignore', 'pipe', 'inherit'] })
  const told: Json[] = []
  let rest = ''
  child.stdout.on('data', (d: Buffer) => {
    const lines = (rest + d.toString()).split('\n')
    rest = lines.pop()!
    told.push(...lines.map((l) => JSON.parse(l) as Json))
  })
  await eventually(() => told.length === 1, 'the agent listens')
  told.pop()
  return { told, stop: () => child.kill() }
}
