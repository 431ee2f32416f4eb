import { conflict, newHexId, notFound, ShoalError } from '../common/index.js'
import type { AttachedStreams, ExecHandle } from '../runtime/index.js'
import { makeAttachment } from './attachment.js'
import type { Container } from './container.js'
import { containerEvent } from './container-events.js'
import type { EngineContext } from './context.js'
import type { Attachment, ExecConfig, ExecView } from './contract.js'
import { parseDetachKeys } from './detach-keys.js'
import { execProcess } from './exec-process.js'
import { SIGKILL } from './signals.js'
import { execError } from './start-error.js'

/** Ended execs whose exit code can still be asked for, per engine; docker forgets them after some minutes. */
const KEPT_ENDED_EXECS = 512

/** One `docker exec`. */
export class ExecInstance {
  readonly id = newHexId()
  handle: ExecHandle | null = null
  hasBeenStarted = false
  isRunning = false
  exitCode: number | null = null
  neverRan = false
  isLost = false

  constructor(
    readonly container: Container,
    readonly config: ExecConfig,
  ) {}

  /** The container's first process is gone: an exec that was not started by then is no more. */
  containerEnded(): void {
    if (!this.hasBeenStarted) this.isLost = true
  }

  view(): ExecView {
    const { config } = this
    return {
      id: this.id,
      containerId: this.container.id,
      running: this.isRunning,
      exitCode: this.exitCode,
      neverRan: this.neverRan,
      pid: this.handle?.pid ?? 0,
      tty: config.tty,
      openStdin: config.attachStdin,
      openStdout: config.attachStdout,
      openStderr: config.attachStderr,
      privileged: config.privileged,
      user: config.user,
      entrypoint: config.cmd[0] ?? '',
      arguments: config.cmd.slice(1),
      detachKeys: config.detachKeys,
    }
  }
}

export class Execs {
  readonly #byId = new Map<string, ExecInstance>()
  readonly #ended: string[] = []
  /** Containers whose removal takes their execs along. */
  readonly #watched = new WeakSet<Container>()

  constructor(private readonly ctx: EngineContext) {}

  /** @throws notFound `noSuchExec`. */
  find(id: string): ExecInstance {
    const exec = this.#byId.get(id)
    if (!exec || exec.isLost) throw notFound('noSuchExec', `No such exec instance: ${id}`, { id })
    return exec
  }

  create(container: Container, config: ExecConfig): string {
    checkRunning(container)
    parseDetachKeys(config.detachKeys)
    const exec = new ExecInstance(container, config)
    this.#byId.set(exec.id, exec)
    container.execs.set(exec.id, exec)
    if (!this.#watched.has(container)) {
      this.#watched.add(container)
      container.removed.on(() => this.#forget(container))
    }
    containerEvent(this.ctx, container, `exec_create: ${config.cmd.join(' ')}`, { execID: exec.id })
    return exec.id
  }

  /** What start would refuse. @throws conflict `execEnded`, `execRunning`, and those of a container that does not run. */
  checkStart(exec: ExecInstance): void {
    if (exec.exitCode !== null)
      throw conflict('execEnded', `Error: Exec command ${exec.id} has already run`, { id: exec.id })
    if (exec.hasBeenStarted)
      throw conflict('execRunning', `Error: Exec command ${exec.id} is already running`, { id: exec.id })
    checkRunning(exec.container)
  }

  /** Runs it; attached before its process runs. */
  async start(
    exec: ExecInstance,
    attach: {
      readonly tty: boolean
      readonly detachKeys: string
      readonly consoleSize?: readonly [number, number]
    } | null,
  ): Promise<Attachment | null> {
    this.checkStart(exec)
    const { container, config } = exec
    exec.hasBeenStarted = true
    let streams: Promise<AttachedStreams> | null = null
    try {
      const handle = await this.#prepare(exec)
      exec.handle = handle
      streams = attach
        ? whileRunning(
            container,
            handle.attach({ stdin: config.attachStdin, stdout: config.attachStdout, stderr: config.attachStderr }),
          )
        : null
      const [height = 0, width = 0] = attach?.consoleSize ?? config.consoleSize ?? []
      if (config.tty && height > 0 && width > 0) await whileRunning(container, handle.resize(width, height))
      await streams
      await whileRunning(container, handle.start())
      exec.isRunning = true
      containerEvent(this.ctx, container, `exec_start: ${config.cmd.join(' ')}`, { execID: exec.id })
      const ended = handle.exited.then((exitCode) => this.#whenEnded(exec, exitCode))
      return (
        streams &&
        makeAttachment({
          tty: config.tty,
          wantsStdin: config.attachStdin,
          closesStdin: true,
          detachKeys: attach?.detachKeys || config.detachKeys,
          streams,
          onDetach: () => containerEvent(this.ctx, container, 'exec_detach', { execID: exec.id }),
          onClose: () => {},
          // Clients ask for the exit code when the stream ends: it must be known by then.
          ended,
        })
      )
    } catch (caught) {
      // Whatever was made so far must not stay behind, stopped before its first instruction.
      void streams?.then(
        (s) => s.close(),
        () => {},
      )
      exec.handle?.signal(SIGKILL).catch(() => {})
      const error = execError(caught, config.cmd[0] ?? '')
      exec.neverRan = true
      this.#end(exec, Number(error.fields.exitCode ?? 126))
      throw error
    }
  }

  async #prepare(exec: ExecInstance): Promise<ExecHandle> {
    const { container, config } = exec
    return whileRunning(
      container,
      container.live!.exec({
        id: exec.id,
        tty: config.tty,
        stdin: config.attachStdin,
        process: await execProcess(this.ctx, container, config),
      }),
    )
  }

  #whenEnded(exec: ExecInstance, exitCode: number): void {
    this.#end(exec, exitCode)
    containerEvent(this.ctx, exec.container, 'exec_die', { execID: exec.id, exitCode: String(exitCode) })
  }

  #end(exec: ExecInstance, exitCode: number): void {
    exec.isRunning = false
    exec.exitCode = exitCode
    exec.container.execs.delete(exec.id)
    this.#ended.push(exec.id)
    if (this.#ended.length > KEPT_ENDED_EXECS) this.#byId.delete(this.#ended.shift()!)
  }

  /** Execs of a container that goes. */
  #forget(container: Container): void {
    for (const [id, exec] of this.#byId) if (exec.container === container) this.#byId.delete(id)
    container.execs.clear()
  }
}

/** A call found no shim or no process any more: the container has just ended, and its end is on the way. */
export const hasEnded = (caught: unknown): boolean =>
  caught instanceof ShoalError && (caught.code === 'shimGone' || caught.fields.errno === 'ESRCH')

/** Rejects with conflict where the container has just ended. */
export function whileRunning<T>(container: Container, asked: Promise<T>): Promise<T> {
  return asked.catch((caught: unknown) => {
    if (!hasEnded(caught)) throw caught
    throw conflict('notRunning', `Container ${container.id} is not running`, { id: container.id }, { cause: caught })
  })
}

export function checkRunning(container: Container): void {
  const { status } = container.record
  if (status === 'paused')
    throw conflict('paused', `Container ${container.id} is paused, unpause the container before exec`, {
      id: container.id,
    })
  if (status === 'restarting')
    throw conflict('restarting', `Container ${container.id} is restarting, wait until the container is running`, {
      id: container.id,
    })
  if (status !== 'running' || !container.live)
    throw conflict('notRunning', `Container ${container.id} is not running`, { id: container.id })
}
