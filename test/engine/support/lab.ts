// A host of its own for an engine: a network namespace, a data directory, and a daemon process that may be killed.
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { nativeDirectory } from '../../../src/runtime/index.js'
import type { DaemonOptions } from './daemon.js'

const daemonScript = fileURLToPath(new URL('daemon.js', import.meta.url))

/** null when containers can be run here; else why not. */
export function whyNoEngine(): string | null {
  if (process.getuid?.() !== 0) return 'needs root'
  for (const file of ['shoal-shim', 'shoal-layer', 'shoal.node'])
    if (!existsSync(join(nativeDirectory, file))) return `${file} is not built`
  if (!existsSync('/bin/busybox')) return '/bin/busybox is not there'
  return null
}

/** Makes a root file system of busybox with every applet. */
export function busyboxTree(tree: string): void {
  for (const sub of ['bin', 'etc', 'tmp', 'root', 'proc', 'sys', 'dev', 'data'])
    mkdirSync(join(tree, sub), { recursive: true })
  execFileSync('cp', ['/bin/busybox', join(tree, 'bin/busybox')])
  execFileSync('chmod', ['1777', join(tree, 'tmp')])
  for (const applet of execFileSync('/bin/busybox', ['--list'], { encoding: 'utf8' }).split('\n').filter(Boolean))
    if (applet !== 'busybox') symlinkSync('busybox', join(tree, 'bin', applet))
  writeFileSync(join(tree, 'etc/passwd'), 'root:x:0:0:root:/root:/bin/sh\nbin:x:2:2:bin:/bin:/bin/false\n')
  writeFileSync(join(tree, 'etc/group'), 'root:x:0:\nbin:x:2:\nextra:x:77:bin\n')
  writeFileSync(join(tree, 'data/seed'), 'seed\n')
}

/** The same as a tar, to be imported. */
export function busyboxTar(dir: string): string {
  const tar = join(dir, 'busybox.tar')
  const tree = join(dir, 'busybox')
  busyboxTree(tree)
  execFileSync('tar', ['-C', tree, '-cf', tar, '.'])
  rmSync(tree, { recursive: true })
  return tar
}

export class DaemonError extends Error {
  constructor(
    readonly kind: string,
    readonly code: string,
    message: string,
    readonly fields: Record<string, unknown>,
    stack: string,
  ) {
    super(message)
    this.stack = stack
  }
}

export class EngineLab {
  readonly root = mkdtempSync(join(tmpdir(), 'engine-test-'))
  readonly cgroupParent = `/engine-test-${process.pid}-${this.root.slice(-6)}`
  readonly #holder: ChildProcess
  #daemon: ChildProcess | null = null
  #next = 1
  readonly #pending = new Map<number, { resolve(v: unknown): void; reject(e: Error): void }>()

  private constructor() {
    this.#holder = spawn('unshare', ['-n', 'sh', '-c', 'ip link set lo up; echo ready; exec sleep 1000000'], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
  }

  static async open(): Promise<EngineLab> {
    const lab = new EngineLab()
    await once(lab.#holder.stdout!, 'data')
    return lab
  }

  get daemonPid(): number {
    return this.#daemon!.pid!
  }

  async startDaemon(options: Partial<DaemonOptions> = {}): Promise<void> {
    const daemon = spawn('nsenter', [`--net=/proc/${this.#holder.pid}/ns/net`, process.execPath, daemonScript], {
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    })
    this.#daemon = daemon
    daemon.on('message', (m: { id: number; value?: unknown; error?: Record<string, never> }) => {
      const pending = this.#pending.get(m.id)
      this.#pending.delete(m.id)
      if (m.error)
        pending?.reject(
          new DaemonError(m.error.kind!, m.error.code!, m.error.message!, m.error.fields!, m.error.stack!),
        )
      else pending?.resolve(m.value)
    })
    daemon.on('exit', () => {
      for (const p of this.#pending.values()) p.reject(new Error('the daemon is gone'))
      this.#pending.clear()
    })
    await this.call('open', {
      root: this.root,
      cgroupParent: this.cgroupParent,
      ...(process.env.ENGINE_TEST_LOG === 'debug' ? { logLevel: 'debug' } : {}),
      ...options,
    })
  }

  // biome-ignore lint/suspicious/noExplicitAny: answers of many shapes, each checked by its test
  call(method: string, ...args: unknown[]): Promise<any> {
    const id = this.#next++
    return new Promise((resolve, reject) => {
      this.#pending.set(id, { resolve, reject })
      this.#daemon!.send({ id, method, args }, (error) => error && reject(error))
    })
  }

  async killDaemon(): Promise<void> {
    const exited = once(this.#daemon!, 'exit')
    this.#daemon!.kill('SIGKILL')
    await exited
    this.#daemon = null
  }

  async stopDaemon(): Promise<void> {
    await this.call('stopEngine')
    const exited = once(this.#daemon!, 'exit')
    this.#daemon!.disconnect()
    await exited
    this.#daemon = null
  }

  /** What of this lab is left in the kernel: shims, cgroups, mounts. Empty when all was cleaned. */
  leftovers(): string[] {
    const found: string[] = []
    for (const pid of readdirSync('/proc').filter((n) => /^\d+$/.test(n)))
      try {
        const cmdline = readFileSync(`/proc/${pid}/cmdline`, 'utf8')
        if (cmdline.includes('shoal-shim') && cmdline.includes(this.root)) found.push(`shim ${pid}`)
      } catch {
        // it ended meanwhile
      }
    for (const mount of readdirSync('/sys/fs/cgroup')) {
      const dir = join('/sys/fs/cgroup', mount, this.cgroupParent)
      if (existsSync(dir))
        for (const e of readdirSync(dir, { withFileTypes: true })) if (e.isDirectory()) found.push(join(dir, e.name))
    }
    for (const line of readFileSync('/proc/self/mountinfo', 'utf8').split('\n'))
      if (line.includes(this.root)) found.push(`mount ${line.split(' ')[4]}`)
    return found
  }

  /** Ends everything, also after a failed test. */
  async close(): Promise<void> {
    if (this.#daemon) {
      for (const c of await this.call('list').catch(() => []))
        await this.call('remove', c.id, { force: true, volumes: true, link: false }).catch(() => {})
      await this.call('stopEngine').catch(() => {})
      const exited = once(this.#daemon, 'exit')
      this.#daemon.kill('SIGKILL')
      await exited
    }
    for (const found of this.leftovers()) {
      if (found.startsWith('shim ')) process.kill(Number(found.slice(5)), 'SIGKILL')
      else if (found.startsWith('mount ')) execFileSync('umount', ['-l', found.slice(6)])
    }
    for (const mount of readdirSync('/sys/fs/cgroup')) {
      const dir = join('/sys/fs/cgroup', mount, this.cgroupParent)
      try {
        rmdirSync(dir)
      } catch {
        // never made in this hierarchy, or something in it still dies: the name is this run's own
      }
    }
    this.#holder.kill('SIGKILL')
    rmSync(this.root, { recursive: true, force: true })
  }
}
