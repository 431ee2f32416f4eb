import { type ContainerStatus, Task, TaskState, type TaskStatus } from '#proto'
import type { Clock } from '../../common/index.js'
import { ShoalError } from '../../common/index.js'
import type { Logger } from '../../common/log.js'
import type { TaskController } from '../contract.js'
import { CLEANUP_MAX_MS, CLEANUP_MIN_MS, START_TOLD_MS } from '../options.js'
import { advanced, nextStep } from './step.js'

export interface RunnerModules {
  readonly clock: Clock
  readonly logger: Logger
  readonly controller: (task: Task) => TaskController
  readonly hasDependencies: (task: Task) => boolean
  /** Resolves when the record is on disk. */
  readonly save: (task: Task) => Promise<void>
  readonly forget: (taskId: string) => Promise<void>
  /** Called after the status is on disk. */
  readonly onStatus: (taskId: string, status: TaskStatus) => void
}

/** Why a step under way is interrupted; its controller's call is aborted with one of these as the reason. */
type Interrupt = 'stop' | 'update' | 'release'

/**
 * Drives one task's controller from step to step, one call at a time. A changed task interrupts `prepare`, `start` and `wait`
 * only where it has to. After a daemon's restart a task goes on where its record says: a prepared one is looked up by
 * `prepare` again, one that ran is then waited for and never started a second time.
 */
export class TaskRunner {
  #task: Task
  #controller: TaskController | null = null
  #isAdopted: boolean
  #isReleased = false
  #isRemoving = false
  #updatePending = false
  #abort: AbortController | null = null
  #running: Promise<void> | null = null
  #kicked = false

  constructor(
    task: Task,
    /** From the records of an earlier daemon. */
    isResumed: boolean,
    /** The host has its container: without, a task that had been started has ended. */
    private readonly hasContainer: boolean,
    private readonly modules: RunnerModules,
  ) {
    this.#task = task
    this.#isAdopted = !isResumed || this.observed < TaskState.TASK_READY
  }

  get task(): Task {
    return this.#task
  }

  get observed(): TaskState {
    return this.#task.status?.state ?? TaskState.TASK_ASSIGNED
  }

  /** For reading logs, which may go on beside the other calls. */
  get controller(): TaskController {
    this.#controller ??= this.modules.controller(this.#task)
    return this.#controller
  }

  /** The manager's newer word. Its status is ours already; the desired state only rises. */
  assign(task: Task): void {
    const before = this.#task
    const desiredState = Math.max(before.desiredState, task.desiredState) as TaskState
    this.#task = { ...task, desiredState, status: before.status }
    if (desiredState >= TaskState.TASK_SHUTDOWN && before.desiredState < TaskState.TASK_SHUTDOWN)
      this.#interrupt('stop')
    else if (this.#controller !== null && !sameForContainer(before, task)) {
      this.#updatePending = true
      if (this.observed === TaskState.TASK_RUNNING) this.#interrupt('update')
    }
    this.kick()
  }

  /** Goes on if there is something to do. */
  kick(): void {
    this.#kicked = true
    this.#running ??= this.#run().finally(() => {
      this.#running = null
      if (this.#kicked && !this.#isReleased) this.kick()
    })
  }

  /** Assigned to us no more: stops the container, removes it, and then the record. Tries until it worked or is released. */
  remove(): void {
    if (this.#isRemoving) return
    this.#isRemoving = true
    this.#interrupt('stop')
    this.kick()
  }

  /** The daemon stops: leaves the container as it is. Resolves when no call is under way. */
  async release(): Promise<void> {
    this.#isReleased = true
    this.#interrupt('release')
    await this.#running
  }

  /** Resolves when there is nothing to do any more for now. */
  async idle(): Promise<void> {
    while (this.#running !== null) await this.#running
  }

  #interrupt(why: Interrupt): void {
    this.#abort?.abort(why)
  }

  async #run(): Promise<void> {
    try {
      while (!this.#isReleased) {
        this.#kicked = false
        if (this.#isRemoving) {
          await this.#removeAll()
          return
        }
        const step = nextStep({
          desired: this.#task.desiredState,
          observed: this.observed,
          hasDependencies: this.modules.hasDependencies(this.#task),
          isAdopted: this.#isAdopted,
        })
        if (step === 'hold') return
        await this.#step(step)
      }
    } catch (error) {
      // Only the records can fail here (a full disk): what is not on disk must not be acted on or reported.
      if (this.#isReleased) return
      const { clock, logger } = this.modules
      logger.error('a task cannot go on', { taskId: this.#task.id, error: String(error) })
      this.#kicked = false
      clock.after(CLEANUP_MIN_MS, () => this.kick())
    }
  }

  async #step(step: 'accept' | 'prepare' | 'adopt' | 'start' | 'wait' | 'stop'): Promise<void> {
    switch (step) {
      case 'accept':
        return this.#reach(TaskState.TASK_ACCEPTED)
      case 'prepare':
        await this.#reach(TaskState.TASK_PREPARING)
        if (await this.#call((c, signal) => c.prepare(signal))) await this.#reach(TaskState.TASK_READY)
        return
      case 'adopt':
        if (this.observed >= TaskState.TASK_STARTING && !this.hasContainer)
          return this.#reach(TaskState.TASK_FAILED, {
            err: 'its container is gone: it was removed while the daemon was down',
          })
        if (await this.#call((c, signal) => c.prepare(signal))) this.#isAdopted = true
        return
      case 'start':
        return this.#start()
      case 'wait':
        if (this.#updatePending) {
          this.#updatePending = false
          if (!(await this.#call((c) => c.update(this.#task)))) return
        }
        await this.#call(async (c, signal) => this.#ended(await c.wait(signal)))
        return
      case 'stop':
        return this.#stop()
    }
  }

  /**
   * Who is told that a task is starting looks for its container: it is told once that runs and only its health is waited for, or when
   * the start takes long. Most starts are over by then.
   */
  async #start(): Promise<void> {
    const { clock, onStatus } = this.modules
    await this.#reach(TaskState.TASK_STARTING, {}, { isTold: false })
    const late = clock.after(START_TOLD_MS, () => onStatus(this.#task.id, this.#task.status!))
    const runs = async (): Promise<void> => this.#reach(TaskState.TASK_STARTING, await this.#look())
    try {
      if (!(await this.#call((c, signal) => c.start(signal, runs)))) return
    } finally {
      late.cancel()
    }
    await this.#reach(TaskState.TASK_RUNNING, await this.#look())
  }

  /** The container ended by itself. */
  async #ended({ exitCode, message }: { readonly exitCode: number; readonly message: string }): Promise<void> {
    const seen = await this.#look()
    const container = { ...(seen.container ?? { containerId: '', pid: 0 }), pid: 0, exitCode }
    if (exitCode === 0) return this.#reach(TaskState.TASK_COMPLETE, { ...seen, container })
    const base = `task: non-zero exit (${exitCode})`
    const err = message === '' ? base : message.startsWith(base) ? message : `${base}: ${message}`
    return this.#reach(TaskState.TASK_FAILED, { ...seen, container, err })
  }

  /** Runs an interruptible call. False: it was interrupted, or failed and the task has ended. */
  async #call(fn: (controller: TaskController, signal: AbortSignal) => Promise<void>): Promise<boolean> {
    const abort = new AbortController()
    this.#abort = abort
    // A stop that came between two calls finds no call to interrupt.
    if (this.#task.desiredState >= TaskState.TASK_SHUTDOWN || this.#isRemoving) abort.abort('stop')
    if (this.#isReleased) abort.abort('release')
    try {
      if (abort.signal.aborted) return false
      await fn(this.controller, abort.signal)
      return !this.#isReleased
    } catch (caught) {
      if (abort.signal.aborted) return false
      await this.#failed(ShoalError.from(caught))
      return false
    } finally {
      this.#abort = null
    }
  }

  async #failed(error: ShoalError): Promise<void> {
    const { logger } = this.modules
    // What was started half, or became unhealthy, must not go on beside its replacement.
    if (this.observed >= TaskState.TASK_STARTING)
      await this.controller.shutdown().catch((e: unknown) => {
        logger.warn('the container of a failed task did not stop', { taskId: this.#task.id, error: String(e) })
      })
    // As in Swarm: what never came to a start is rejected.
    const isRejected = this.observed < TaskState.TASK_STARTING || error.fields.rejected === true
    const state = isRejected ? TaskState.TASK_REJECTED : TaskState.TASK_FAILED
    await this.#reach(state, { ...(await this.#look()), err: error.message })
  }

  async #stop(): Promise<void> {
    // Before anything was prepared there is nothing to stop.
    if (this.observed >= TaskState.TASK_PREPARING) await this.#untilDone('stopping', () => this.controller.shutdown())
    if (this.#isReleased) return
    const seen = this.observed >= TaskState.TASK_PREPARING ? await this.#look() : {}
    await this.#reach(TaskState.TASK_SHUTDOWN, seen)
  }

  async #removeAll(): Promise<void> {
    if (this.observed <= TaskState.TASK_RUNNING) await this.#stop()
    if (this.#isReleased) return
    await this.#untilDone('removing', () => this.controller.remove())
    if (this.#isReleased) return
    await this.modules.forget(this.#task.id)
    this.#isReleased = true
  }

  /** Container and ports as they are; what cannot be found out is left out, the step itself succeeded. */
  async #look(): Promise<Partial<Pick<TaskStatus, 'container' | 'ports'>>> {
    try {
      const { container, ports } = await this.controller.status()
      const known: ContainerStatus | null = container ?? this.#task.status?.container ?? null
      return { container: known, ports: [...ports] }
    } catch (error) {
      this.modules.logger.debug('a task has no container status', { taskId: this.#task.id, error: String(error) })
      return {}
    }
  }

  async #untilDone(what: string, fn: () => Promise<void>): Promise<void> {
    const { clock, logger } = this.modules
    for (let waitMs = CLEANUP_MIN_MS; !this.#isReleased; waitMs = Math.min(CLEANUP_MAX_MS, waitMs * 2)) {
      try {
        return await fn()
      } catch (error) {
        logger.warn(`${what} a task's container failed and is tried again`, {
          taskId: this.#task.id,
          error: String(error),
          waitMs,
        })
        const abort = new AbortController()
        this.#abort = abort
        // A release ends the wait; so does a stop, which is what we are doing.
        await clock.sleep(waitMs, abort.signal).catch(() => {})
        this.#abort = null
      }
    }
  }

  async #reach(
    state: TaskState,
    change: Partial<Pick<TaskStatus, 'err' | 'container' | 'ports'>> = {},
    { isTold = true } = {},
  ): Promise<void> {
    const next = advanced(this.#task, state, change, this.modules.clock.now())
    if (next === null || (this.observed === state && this.#task.status !== null && Object.keys(change).length === 0))
      return
    const before = this.#task.status
    this.#task = next
    try {
      await this.modules.save(next)
    } catch (error) {
      this.#task = { ...this.#task, status: before }
      throw error
    }
    if (isTold) this.modules.onStatus(next.id, next.status!)
  }
}

/** What the container is made of is unchanged; desired state, status and version are not. */
function sameForContainer(a: Task, b: Task): boolean {
  const bare = (t: Task): Uint8Array =>
    Task.encode({
      ...t,
      meta: null,
      status: null,
      desiredState: 0,
      startAfter: null,
      spec: t.spec?.container ? { ...t.spec, container: { ...t.spec.container, pullOptions: null } } : t.spec,
    })
  return Buffer.compare(bare(a), bare(b)) === 0
}
