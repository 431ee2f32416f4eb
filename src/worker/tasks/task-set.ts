import type { Assignments, Task, TaskStatus } from '#proto'
import { TaskState } from '#proto'
import type { Clock } from '../../common/index.js'
import type { Logger } from '../../common/log.js'
import type { Executor, TaskController } from '../contract.js'
import { DependencyStore } from '../dependencies/index.js'
import { TaskRecords, type TaskRecordsOptions } from './task-records.js'
import { TaskRunner } from './task-runner.js'

/**
 * All tasks of the node. Assignments bring and take them; between times they live by their records alone, so that neither a
 * lost manager nor a new daemon matters to them.
 */
export class TaskSet {
  readonly #runners = new Map<string, TaskRunner>()
  /** Removed ones whose containers are not gone yet. */
  readonly #leaving = new Map<string, TaskRunner>()
  readonly #records: TaskRecords
  readonly dependencies = new DependencyStore()

  constructor(
    records: TaskRecordsOptions,
    private readonly modules: {
      readonly clock: Clock
      readonly logger: Logger
      readonly executor: Executor
      readonly onStatus: (taskId: string, status: TaskStatus) => void
    },
  ) {
    this.#records = new TaskRecords(records)
  }

  /** Takes up the tasks of an earlier daemon, and removes containers of tasks that nobody remembers. */
  async start(): Promise<void> {
    const { executor, logger } = this.modules
    const tasks = await this.#records.open()
    const known = new Set(await executor.knownTasks())
    for (const task of tasks) {
      this.#runners.set(task.id, this.#runner(task, true, known.has(task.id)))
      // What an earlier daemon wrote down may not have reached a manager.
      if (task.status !== null && task.status.state > TaskState.TASK_ASSIGNED)
        this.modules.onStatus(task.id, task.status)
    }
    for (const id of known) {
      if (this.#runners.has(id)) continue
      executor.removeTask(id).catch((error: unknown) => {
        logger.error('the container of an unknown task was not removed', { taskId: id, error: String(error) })
      })
    }
    for (const runner of this.#runners.values()) runner.kick()
  }

  /** Every task's container is left as it is. */
  async stop(): Promise<void> {
    await Promise.all([...this.#runners.values(), ...this.#leaving.values()].map((r) => r.release()))
    await this.#records.close()
  }

  /** After `stop`: nothing of the tasks is remembered. */
  forget(): Promise<void> {
    return this.#records.remove()
  }

  /** The node leaves the cluster: everything is stopped and removed. */
  async removeAll(): Promise<void> {
    for (const id of [...this.#runners.keys()]) this.#remove(id)
    await Promise.all([...this.#leaving.values()].map((r) => r.idle()))
  }

  /** Dependencies first: a task that needs one must find it. The order within a message is the manager's. */
  async apply(assignments: Assignments): Promise<void> {
    const tasks: Task[] = []
    const secretIds = new Set<string>()
    const configIds = new Set<string>()
    for (const { task, secret, config } of assignments.upserts) {
      if (secret) {
        this.dependencies.putSecret(secret)
        secretIds.add(secret.id)
      } else if (config) {
        this.dependencies.putConfig(config)
        configIds.add(config.id)
      } else if (task) tasks.push(task)
    }
    if (assignments.full) {
      this.dependencies.retain(secretIds, configIds)
      const present = new Set(tasks.map((t) => t.id))
      for (const id of [...this.#runners.keys()]) if (!present.has(id)) this.#remove(id)
    }
    for (const id of assignments.removedTasks) this.#remove(id)
    // A dependency goes with the last task that needs it; that one is being stopped by now.
    for (const id of assignments.removedSecrets) this.dependencies.removeSecret(id)
    for (const id of assignments.removedConfigs) this.dependencies.removeConfig(id)
    await Promise.all(tasks.map((t) => this.#assign(t)))
    for (const runner of this.#runners.values()) runner.kick()
  }

  /** Null: no such task here. */
  controller(taskId: string): TaskController | null {
    return (this.#runners.get(taskId) ?? this.#leaving.get(taskId))?.controller ?? null
  }

  async #assign(task: Task): Promise<void> {
    const present = this.#runners.get(task.id)
    if (present !== undefined) {
      present.assign(task)
      await this.#records.update(present.task)
      return
    }
    // Known further than assigned only when the records were lost: then what the host has decides.
    const isResumed = (task.status?.state ?? 0) > TaskState.TASK_ASSIGNED
    const hasContainer = isResumed && (await this.modules.executor.knownTasks()).includes(task.id)
    await this.#records.add(task)
    const runner = this.#runner(task, isResumed, hasContainer)
    this.#runners.set(task.id, runner)
    runner.kick()
  }

  #remove(id: string): void {
    const runner = this.#runners.get(id)
    if (runner === undefined) return
    this.#runners.delete(id)
    this.#leaving.set(id, runner)
    runner.remove()
  }

  #runner(task: Task, isResumed: boolean, hasContainer: boolean): TaskRunner {
    const { clock, logger, executor, onStatus } = this.modules
    return new TaskRunner(task, isResumed, hasContainer, {
      clock,
      logger,
      controller: (t) => executor.controller(t, this.dependencies),
      hasDependencies: (t) => this.dependencies.isReadyFor(t),
      save: (t) => this.#records.update(t),
      forget: async (id) => {
        await this.#records.delete(id)
        this.#leaving.delete(id)
      },
      onStatus,
    })
  }
}
