import { constants } from 'node:fs'
import { mkdir, open, readdir, readFile, rm, writeFile } from 'node:fs/promises'
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

  /** Makes the directory with its documents. Nothing here is synced: after a power failure no container lives anyway. */
  async write(launch: LaunchSpec): Promise<void> {
    try {
      await mkdir(this.path, { mode: 0o700 })
    } catch (caught) {
      if ((caught as NodeJS.ErrnoException).code === 'ENOENT') {
        await mkdir(this.root, { recursive: true, mode: 0o711 })
        await mkdir(this.path, { mode: 0o700 })
      } else if ((caught as NodeJS.ErrnoException).code === 'EEXIST') {
        throw conflict(
          'runDirExists',
          `create container ${this.id}: ${this.path} exists already; the container still has a shim or was not deleted`,
          { id: this.id, path: this.path },
          { cause: caught },
        )
      } else throw caught
    }
    const files = [
      writeFile(join(this.path, 'config.json'), JSON.stringify(launch.spec), { mode: 0o600 }),
      writeFile(join(this.path, 'shim.json'), JSON.stringify(shimDocument(launch)), { mode: 0o600 }),
    ]
    if (launch.seccomp) files.push(writeFile(join(this.path, 'seccomp.bpf'), launch.seccomp, { mode: 0o600 }))
    await Promise.all(files)
  }

  /** Where the shim's own complaints go. The caller closes it. */
  openLog() {
    return open(join(this.path, 'shim.log'), constants.O_WRONLY | constants.O_CREAT | constants.O_APPEND, 0o600)
  }

  readLog(): Promise<string> {
    return readFile(join(this.path, 'shim.log'), 'utf8').then(
      (text) => text.slice(-4096).trim(),
      () => '',
    )
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

  async remove(): Promise<void> {
    await rm(this.path, { recursive: true, force: true })
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
