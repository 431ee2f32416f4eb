import { mkdirSync, openSync, writeFileSync } from 'node:fs'
import { readdir, readFile, rm, rmdir, stat, unlink } from 'node:fs/promises'
import { join } from 'node:path'
import { conflict } from '../../common/index.js'
import type { ExitRecord, LaunchSpec } from '../contract.js'

/** state.json as the shim writes it. */
export interface ShimState {
  readonly shimVersion: number
  readonly shimPid: number
  readonly shimStartTicks: number
  readonly pid: number
  readonly startTicks: number
  readonly status: 'created' | 'running' | 'paused' | 'stopped'
  readonly cgroupPath: string
  readonly startedAtMs: number
}

/** The files of one container's run directory; no one else in TypeScript knows their names. */
export class RunDir {
  readonly path: string
  readonly socket: string

  constructor(
    readonly root: string,
    readonly id: string,
  ) {
    this.path = join(root, id)
    this.socket = join(this.path, 'shim.sock')
  }

  /**
   * Makes the directory with its documents. Nothing here is synced: after a power failure no container lives anyway. And
   * nothing is awaited: four small files, mostly on a tmpfs, take less than one turn through the thread pool.
   */
  write(launch: LaunchSpec): void {
    try {
      mkdirSync(this.path, { mode: 0o700 })
    } catch (caught) {
      if ((caught as NodeJS.ErrnoException).code === 'ENOENT') {
        mkdirSync(this.root, { recursive: true, mode: 0o711 })
        mkdirSync(this.path, { mode: 0o700 })
      } else if ((caught as NodeJS.ErrnoException).code === 'EEXIST') {
        throw conflict(
          'runDirExists',
          `create container ${this.id}: ${this.path} exists already; the container still has a shim or was not deleted`,
          { id: this.id, path: this.path },
          { cause: caught },
        )
      } else throw caught
    }
    this.#put('config.json', JSON.stringify(launch.spec))
    this.#put('shim.json', JSON.stringify(shimDocument(launch)))
    if (launch.seccomp) this.#put('seccomp.bpf', launch.seccomp)
  }

  #put(name: string, content: string | Uint8Array): void {
    writeFileSync(join(this.path, name), content, { mode: 0o600 })
  }

  /** Where the shim's own complaints go. The caller closes the descriptor. */
  openLog(): number {
    return openSync(join(this.path, 'shim.log'), 'a', 0o600)
  }

  readLog(): Promise<string> {
    return readFile(join(this.path, 'shim.log'), 'utf8').then(
      (text) => text.slice(-4096).trim(),
      () => '',
    )
  }

  async exists(): Promise<boolean> {
    try {
      return (await stat(this.path)).isDirectory()
    } catch (caught) {
      if (isGone(caught)) return false
      throw caught
    }
  }

  state(): Promise<ShimState | null> {
    return this.#json<ShimState>('state.json')
  }

  exit(): Promise<ExitRecord | null> {
    return this.#json<ExitRecord>('exit.json')
  }

  shimJson(): Promise<{ readonly cgroup: string } | null> {
    return this.#json<{ readonly cgroup: string }>('shim.json')
  }

  /** By name, since a directory walk costs more; and by walk if something else lies there. */
  async remove(): Promise<void> {
    await Promise.all(FILES.map((name) => unlink(join(this.path, name)).catch(ignoreGone)))
    try {
      await rmdir(this.path)
    } catch (caught) {
      if (!isGone(caught)) await rm(this.path, { recursive: true, force: true })
    }
  }

  async #json<T>(name: string): Promise<T | null> {
    let text: string
    try {
      text = await readFile(join(this.path, name), 'utf8')
    } catch (caught) {
      if (isGone(caught)) return null
      throw caught
    }
    try {
      return JSON.parse(text) as T
    } catch {
      // Our own documents are not renamed into place: a daemon killed in the middle leaves half of one.
      return null
    }
  }
}

const FILES = ['config.json', 'shim.json', 'seccomp.bpf', 'shim.log', 'state.json', 'exit.json', 'shim.sock']

const ignoreGone = (caught: unknown): void => {
  if (!isGone(caught)) throw caught
}

const isGone = (caught: unknown): boolean =>
  ['ENOENT', 'ENOTDIR'].includes((caught as NodeJS.ErrnoException).code ?? '')

export async function listRunDirs(root: string): Promise<readonly string[]> {
  try {
    return (await readdir(root, { withFileTypes: true })).filter((e) => e.isDirectory()).map((e) => e.name)
  } catch (caught) {
    if (isGone(caught)) return []
    throw caught
  }
}

/** shim.json: what the OCI document has no place for. */
export const shimDocument = (launch: LaunchSpec): object => ({
  version: 1,
  id: launch.id,
  rootfs: launch.rootfs && {
    lower: launch.rootfs.lower,
    upper: launch.rootfs.upper,
    work: launch.rootfs.work,
    options: [],
  },
  tty: launch.tty,
  ttyWidth: 0,
  ttyHeight: 0,
  stdin: launch.stdin,
  stdinOnce: launch.stdinOnce,
  log: launch.log,
  cgroup: launch.cgroup,
  seccomp: launch.seccomp ? 'seccomp.bpf' : null,
  initPath: launch.initPath,
  runtime: launch.runtime,
})
