import { type Clock, Emitter, ShoalError } from '../../common/index.js'
import type { Logger } from '../../common/log.js'
import type { AttachedStreams, AttachRequest, ExecHandle, ExecSpec, ExitRecord, LiveContainer } from '../contract.js'
import { ShimConnection, type ShimEvent } from './connection.js'
import {
  type ProcessCalls,
  RECONNECT_ATTEMPTS,
  RECONNECT_DELAY_MS,
  REQUEST_TIMEOUT_MS,
  SLOW_REQUEST_TIMEOUT_MS,
} from './options.js'
import { isAlive, sendSignal, startTicksOf } from './processes.js'
import type { RunDir } from './run-dir.js'
import { attachStreams } from './streams.js'

export interface LiveModules {
  readonly clock: Clock
  readonly logger: Logger
  readonly native: ProcessCalls
}

interface Identity {
  readonly pid: number
  readonly shimPid: number
  readonly shimStartTicks: number
  readonly cgroup: string
  readonly startedAtMs: number
  readonly isPaused: boolean
}

/**
 * A container by way of its shim. One connection is kept for requests and events; each attached client has its own. The
 * end is learnt from the exit event, or, when the connection breaks, from exit.json once the shim's pid is gone: the shim
 * writes that file before it tells anyone, so no exit is ever lost.
 */
export class ShimContainer implements LiveContainer {
  readonly id: string
  readonly pid: number
  readonly cgroup: string
  readonly exited: Promise<ExitRecord>
  /** Resolves when the shim's process is gone, its cgroup with it. */
  readonly shimGone: Promise<void>
  #startedAtMs: number
  #isPaused: boolean
  #resolveExit!: (record: ExitRecord) => void
  #hasEnded = false
  /** Resolved but while the container is frozen; then execs wait for it. */
  #thawed: Promise<void> = Promise.resolve()
  #thaw: () => void = () => {}
  readonly #oom = new Emitter<void>()
  readonly #ended = new Emitter<void>()
  readonly #execExits = new Map<string, (exitCode: number) => void>()

  constructor(
    private readonly modules: LiveModules,
    private readonly dir: RunDir,
    private readonly identity: Identity,
    private connection: ShimConnection,
    /** That the events are subscribed to; start waits for it. */
    private readonly greeted: Promise<unknown> = Promise.resolve(),
  ) {
    greeted.catch(() => {}) // start, or the closing of the connection, tells
    this.id = dir.id
    this.pid = identity.pid
    this.cgroup = identity.cgroup
    this.#startedAtMs = identity.startedAtMs
    this.#isPaused = identity.isPaused
    if (this.#isPaused) this.#holdExecs()
    this.exited = new Promise((resolve) => {
      this.#resolveExit = resolve
    })
    this.shimGone = this.#waitForShim()
    this.#listen(connection)
  }

  get startedAtMs(): number {
    return this.#startedAtMs
  }

  get isPaused(): boolean {
    return this.#isPaused
  }

  get shimStartTicks(): number {
    return this.identity.shimStartTicks
  }

  get shimPid(): number {
    return this.identity.shimPid
  }

  async start(): Promise<void> {
    const [answer] = await Promise.all([this.connection.request('start', {}, SLOW_REQUEST_TIMEOUT_MS), this.greeted])
    // The shim's own time of it, which is also what an adopting daemon will read.
    this.#startedAtMs =
      Number(answer.startedAtMs ?? 0) || (await this.dir.state())?.startedAtMs || this.modules.clock.now()
  }

  async attach(request: AttachRequest): Promise<AttachedStreams> {
    return attachStreams(await this.#openConnection(), request, { onEnded: (listener) => this.#ended.on(listener) })
  }

  async exec(spec: ExecSpec): Promise<ExecHandle> {
    const exited = new Promise<number>((resolve) => this.#execExits.set(spec.id, resolve))
    // Opened while the shim makes the process: whoever runs one mostly wants its output.
    let spare: Promise<ShimConnection> | null = this.#openConnection()
    spare.catch(() => {}) // said by the attach that needs it
    const dropSpare = (): void => {
      void spare?.then(
        (connection) => connection.close(),
        () => {},
      )
      spare = null
    }
    let pid: number
    try {
      await this.#thawed
      const answer = await this.connection.request(
        'exec',
        { exec: spec.id, process: spec.process, tty: spec.tty, stdin: spec.stdin },
        SLOW_REQUEST_TIMEOUT_MS,
      )
      pid = Number(answer.pid)
    } catch (caught) {
      this.#execExits.delete(spec.id)
      dropSpare()
      throw caught
    }
    if (this.#hasEnded) this.#endExecs()
    return {
      pid,
      exited,
      attach: async (request) => {
        const opening = spare ?? this.#openConnection()
        spare = null
        return attachStreams(await opening, request, {
          exec: spec.id,
          onEnded: (listener) => {
            void exited.then(listener)
            return () => {}
          },
        })
      },
      start: async () => {
        dropSpare()
        try {
          await this.#thawed
          await this.connection.request('execStart', { exec: spec.id }, SLOW_REQUEST_TIMEOUT_MS)
        } catch (caught) {
          this.#execExits.delete(spec.id)
          throw caught
        }
      },
      resize: async (width, height) => {
        await this.connection.request('resize', { exec: spec.id, width, height })
      },
      signal: async (signal) => {
        await this.connection.request('signal', { exec: spec.id, signal })
      },
    }
  }

  async resize(width: number, height: number): Promise<void> {
    await this.connection.request('resize', { width, height })
  }

  async signal(signal: number, options: { readonly all?: boolean } = {}): Promise<void> {
    await this.connection.request('signal', { signal, all: options.all ?? false })
  }

  async pause(): Promise<void> {
    this.#holdExecs()
    try {
      await this.connection.request('pause')
    } catch (caught) {
      this.#thaw()
      throw caught
    }
    this.#isPaused = true
  }

  async resume(): Promise<void> {
    await this.connection.request('resume')
    this.#isPaused = false
    this.#thaw()
  }

  /** A process made in a frozen group stands still before it can answer the shim, which would wait for it for ever. */
  #holdExecs(): void {
    this.#thawed = new Promise((resolve) => {
      this.#thaw = resolve
    })
  }

  async update(resources: Record<string, unknown>): Promise<void> {
    await this.connection.request('update', { resources }, SLOW_REQUEST_TIMEOUT_MS)
  }

  onOom(listener: () => void): () => void {
    return this.#oom.on(listener)
  }

  /** Tells the shim to kill everything and go. Resolves when it took the order or is gone. */
  async requestDelete(): Promise<void> {
    try {
      await this.connection.request('delete', { force: true }, REQUEST_TIMEOUT_MS)
    } catch (caught) {
      if (!(caught instanceof ShoalError) || caught.kind !== 'unavailable') throw caught
    }
  }

  async #openConnection(): Promise<ShimConnection> {
    const connection = await ShimConnection.connect(this.dir.socket, this.modules.clock, this.id)
    // Not awaited: the answers come in order, and the request that follows need not wait for this one.
    connection.request('hello', { version: 1 }).catch(() => {})
    return connection
  }

  #listen(connection: ShimConnection): void {
    connection.events.on((event) => this.#onEvent(event))
    void connection.closed.then(() => this.#onDisconnect())
  }

  #onEvent(event: ShimEvent): void {
    if (event.event === 'exit')
      this.#end({
        exitCode: Number(event.exitCode),
        signal: Number(event.signal ?? 0),
        oomKilled: event.oomKilled === true,
        error: typeof event.error === 'string' ? event.error : '',
        finishedAtMs: Number(event.finishedAtMs ?? this.modules.clock.now()),
      })
    else if (event.event === 'execExit') {
      const exec = String(event.exec)
      this.#execExits.get(exec)?.(Number(event.exitCode))
      this.#execExits.delete(exec)
    } else if (event.event === 'oom') this.#oom.emit()
  }

  async #onDisconnect(): Promise<void> {
    if (this.#hasEnded) return
    const { clock, logger } = this.modules
    for (let attempt = 0; attempt < RECONNECT_ATTEMPTS; attempt++) {
      if (!(await isAlive(this.identity.shimPid, this.identity.shimStartTicks))) break
      const exit = await this.dir.exit()
      if (exit) return this.#end(exit)
      try {
        const connection = await this.#openConnection()
        await connection.request('subscribe')
        if (this.#hasEnded) return connection.close()
        this.connection = connection
        this.#listen(connection)
        return
      } catch (caught) {
        logger.debug('reconnecting to a shim failed', { containerId: this.id, error: String(caught) })
        await clock.sleep(RECONNECT_DELAY_MS)
      }
    }
    // Alive but not to be talked to: its end is still seen by its pid.
    await this.shimGone
    this.#end((await this.dir.exit()) ?? (await this.#orphanRecord()))
  }

  /** The shim was killed from outside: the container must not go on without its parent. */
  async #orphanRecord(): Promise<ExitRecord> {
    const state = await this.dir.state()
    if (state && state.pid > 0 && (await isAlive(state.pid, state.startTicks))) {
      sendSignal(state.pid, 9)
      await this.modules.native.pidfdWait(state.pid, state.startTicks)
    }
    return lostShimRecord(this.modules.clock.now())
  }

  async #waitForShim(): Promise<void> {
    const { shimPid, shimStartTicks } = this.identity
    const ticks = shimStartTicks || (await startTicksOf(shimPid))
    if (ticks === null) return
    try {
      await this.modules.native.pidfdWait(shimPid, ticks)
    } catch (caught) {
      if ((caught as NodeJS.ErrnoException).code !== 'ESRCH')
        this.modules.logger.warn('waiting for a shim failed', { containerId: this.id, error: String(caught) })
    }
  }

  #end(record: ExitRecord): void {
    if (this.#hasEnded) return
    this.#hasEnded = true
    this.#thaw()
    this.#endExecs()
    this.#ended.emit()
    this.#resolveExit(record)
    this.connection.close()
  }

  /** Exec processes die with the container's first process. */
  #endExecs(): void {
    for (const resolve of this.#execExits.values()) resolve(137)
    this.#execExits.clear()
  }
}

/** What is recorded when a shim died without a word (killed, or the machine went down): killed by 9 as far as anyone knows. */
export const lostShimRecord = (finishedAtMs: number): ExitRecord => ({
  exitCode: 137,
  signal: 9,
  oomKilled: false,
  error: 'the shim ended without leaving an exit record',
  finishedAtMs,
})
