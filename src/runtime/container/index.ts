import { closeSync } from 'node:fs'
import { Socket } from 'node:net'
import { join } from 'node:path'
import { internal, ShoalError, unavailable } from '../../common/index.js'
import type { ContainerRuntime, ExitRecord, LaunchSpec, LiveContainer } from '../contract.js'
import { destroyCgroup } from './cgroup.js'
import { type NativeFailure, nativeError, ShimConnection } from './connection.js'
import { lostShimRecord, ShimContainer } from './live.js'
import {
  type ContainerRuntimeModules,
  type ContainerRuntimeOptions,
  CREATE_TIMEOUT_MS,
  DELETE_TIMEOUT_MS,
  MAX_STATUS_LINE_BYTES,
} from './options.js'
import { findByLastArgument, isAlive, sendSignal, startTicksOf } from './processes.js'
import { listRunDirs, RunDir } from './run-dir.js'

export { type CgroupMount, cgroupMounts } from './cgroup.js'
export type { ContainerRuntimeModules, ContainerRuntimeOptions, ProcessCalls } from './options.js'

/** Containers of this daemon's exec root, each behind a shim that outlives the daemon. */
export function createContainerRuntime(
  options: ContainerRuntimeOptions,
  modules: ContainerRuntimeModules,
): ContainerRuntime {
  return new ShimRuntime(options, modules)
}

class ShimRuntime implements ContainerRuntime {
  readonly #root: string
  readonly #live = new Map<string, ShimContainer>()

  constructor(
    private readonly options: ContainerRuntimeOptions,
    private readonly modules: ContainerRuntimeModules,
  ) {
    this.#root = join(options.execRoot, 'containers')
  }

  async create(launch: LaunchSpec): Promise<LiveContainer> {
    const dir = new RunDir(this.#root, launch.id)
    dir.write(launch)
    let shim: { readonly pid: number; readonly ticks: number | null } | null = null
    try {
      const logFd = dir.openLog()
      let status: StatusPipe
      try {
        const spawned = this.modules.native.spawnShim({
          path: this.options.shimPath,
          args: ['--wait-start', dir.path],
          cwd: dir.path,
          logFd,
        })
        status = new StatusPipe(spawned.statusFd)
        shim = { pid: spawned.pid, ticks: await startTicksOf(spawned.pid) }
      } finally {
        closeSync(logFd)
      }
      const pid = await this.#untilCreated(launch.id, status, dir)
      const connection = await ShimConnection.connect(dir.socket, this.modules.clock, launch.id)
      // Answered in order, before the answer to start: nothing is gained by waiting here.
      const greeted = Promise.all([connection.request('hello', { version: 1 }), connection.request('subscribe')])
      const live = new ShimContainer(
        this.modules,
        dir,
        {
          pid,
          shimPid: shim.pid,
          shimStartTicks: shim.ticks ?? 0,
          cgroup: launch.cgroup,
          startedAtMs: 0,
          isPaused: false,
        },
        connection,
        greeted,
      )
      this.#remember(live)
      return live
    } catch (caught) {
      if (shim?.ticks != null) await this.#endShim(shim.pid, shim.ticks)
      else if (shim) await this.modules.native.pidfdWait(shim.pid, 0).catch(() => {}) // ended at once; this reaps it
      await destroyCgroup(this.modules.clock, launch.cgroup, DELETE_TIMEOUT_MS)
      await dir.remove()
      throw caught
    }
  }

  async adopt(id: string): Promise<LiveContainer | ExitRecord | null> {
    const known = this.#live.get(id)
    if (known) return known
    const dir = new RunDir(this.#root, id)
    const exit = await dir.exit()
    if (exit) return exit
    const state = await dir.state()
    if (!state) return null
    if (await isAlive(state.shimPid, state.shimStartTicks)) {
      try {
        const connection = await ShimConnection.connect(dir.socket, this.modules.clock, id)
        const [greeting] = await Promise.all([
          connection.request('hello', { version: 1 }),
          connection.request('subscribe'),
        ])
        const live = new ShimContainer(
          this.modules,
          dir,
          // Somebody may have frozen or thawed it meanwhile: what the kernel says, not what was last done.
          { ...state, cgroup: state.cgroupPath, isPaused: greeting['status'] === 'paused' },
          connection,
        )
        this.#remember(live)
        return live
      } catch (caught) {
        // It was just ending; if it lives on and yet refuses us, it is of no use.
        if (!(caught instanceof ShoalError)) throw caught
        this.modules.logger.warn('a shim does not answer and is ended', { containerId: id, error: caught.message })
        await this.#endShim(state.shimPid, state.shimStartTicks)
      }
    }
    const late = await dir.exit()
    if (late) return late
    return state.status === 'created' ? null : lostShimRecord(this.modules.clock.now())
  }

  async delete(id: string): Promise<void> {
    const dir = new RunDir(this.#root, id)
    const live = this.#live.get(id)
    const [state, shimJson] = live ? [null, null] : await Promise.all([dir.state(), dir.shimJson()])
    if (!live && !state && !shimJson && !(await dir.exists())) return
    if (live) {
      // After its exit the shim goes by itself; this only hurries one that still has a process.
      const gone = live.shimGone
      await Promise.race([live.exited, live.requestDelete()])
      if (!(await this.#within(gone, DELETE_TIMEOUT_MS))) await this.#endShim(live.shimPid, live.shimStartTicks)
      // It reads exit.json, so it must be done before the directory goes.
      await live.exited
      this.#live.delete(id)
    } else if (state) {
      if (await isAlive(state.shimPid, state.shimStartTicks))
        await this.#deleteByOrder(dir, state.shimPid, state.shimStartTicks)
      if (await isAlive(state.pid, state.startTicks)) sendSignal(state.pid, 9)
    } else if (shimJson) {
      for (const pid of await findByLastArgument(dir.path)) {
        const ticks = await startTicksOf(pid)
        if (ticks !== null) await this.#endShim(pid, ticks)
      }
    }
    const cgroup = live?.cgroup ?? state?.cgroupPath ?? shimJson?.cgroup
    if (cgroup) await destroyCgroup(this.modules.clock, cgroup, DELETE_TIMEOUT_MS)
    await dir.remove()
  }

  list(): Promise<readonly string[]> {
    return listRunDirs(this.#root)
  }

  #remember(live: ShimContainer): void {
    this.#live.set(live.id, live)
  }

  async #deleteByOrder(dir: RunDir, shimPid: number, ticks: number): Promise<void> {
    try {
      const connection = await ShimConnection.connect(dir.socket, this.modules.clock, dir.id)
      try {
        await Promise.all([connection.request('hello', { version: 1 }), connection.request('delete', { force: true })])
      } finally {
        connection.close()
      }
    } catch (caught) {
      this.modules.logger.debug('a shim did not take the order to delete', {
        containerId: dir.id,
        error: String(caught),
      })
    }
    if (!(await this.#within(this.modules.native.pidfdWait(shimPid, ticks), DELETE_TIMEOUT_MS)))
      await this.#endShim(shimPid, ticks)
  }

  async #endShim(pid: number, ticks: number): Promise<void> {
    if (await isAlive(pid, ticks)) sendSignal(pid, 9)
    await this.modules.native.pidfdWait(pid, ticks).catch((caught: NodeJS.ErrnoException) => {
      if (caught.code !== 'ESRCH') throw caught // ESRCH: gone already
    })
  }

  /** False when `promise` took longer; it is then left alone. */
  #within(promise: Promise<unknown>, ms: number): Promise<boolean> {
    return new Promise((resolve, reject) => {
      const timer = this.modules.clock.after(ms, () => resolve(false))
      promise.then(
        () => {
          timer.cancel()
          resolve(true)
        },
        (caught) => {
          timer.cancel()
          if ((caught as NodeJS.ErrnoException).code === 'ESRCH') resolve(true)
          else reject(caught)
        },
      )
    })
  }

  async #untilCreated(id: string, status: StatusPipe, dir: RunDir): Promise<number> {
    const timer = this.modules.clock.after(CREATE_TIMEOUT_MS, () =>
      status.fail(
        unavailable('shimTimeout', `create container ${id}: no answer of its shim in ${CREATE_TIMEOUT_MS} ms`),
      ),
    )
    try {
      for await (const line of status) {
        if (line.error) throw nativeError(`create container ${id}`, line.error)
        if (line.stage === 'created') return Number(line.pid)
      }
    } finally {
      timer.cancel()
      status.close()
    }
    const said = await dir.readLog()
    throw internal('shimDied', `create container ${id}: its shim ended without an answer${said ? `: ${said}` : ''}`, {
      id,
    })
  }
}

interface StatusLine {
  readonly stage?: string
  readonly pid?: number
  readonly error?: NativeFailure
}

/** The shim's status pipe: one JSON object a line. */
class StatusPipe implements AsyncIterable<StatusLine> {
  readonly #socket: Socket

  constructor(fd: number) {
    this.#socket = new Socket({ fd, readable: true, writable: false })
  }

  fail(error: Error): void {
    this.#socket.destroy(error)
  }

  close(): void {
    this.#socket.destroy()
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<StatusLine> {
    let text = ''
    for await (const chunk of this.#socket) {
      text += (chunk as Buffer).toString('utf8')
      if (text.length > MAX_STATUS_LINE_BYTES) throw internal('shimStatus', 'a shim wrote a status line without end')
      for (let end = text.indexOf('\n'); end >= 0; end = text.indexOf('\n')) {
        yield JSON.parse(text.slice(0, end)) as StatusLine
        text = text.slice(end + 1)
      }
    }
  }
}

export { removeEmptyCgroup } from './cgroup.js'
