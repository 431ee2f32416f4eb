import { Task } from '#proto'
import { RecordDatabase, unavailable } from '../../common/index.js'

export interface TaskRecordsOptions {
  /** Directory of the database. */
  readonly dir: string
  /** See RecordDatabase. */
  readonly scratchDir: string
}

/**
 * The node's tasks and how far each has come, on disk. A record is what the agent acts on and reports: it is on disk before
 * either. No secret gets in: payloads are not part of a task, and the registry's credentials are taken out.
 */
export class TaskRecords {
  readonly #db: RecordDatabase<Uint8Array>

  constructor(private readonly options: TaskRecordsOptions) {
    this.#db = new RecordDatabase({ path: options.dir, scratchDir: options.scratchDir, valueEncoding: 'view' })
  }

  async open(): Promise<readonly Task[]> {
    try {
      return (await this.#db.open()).map(([, value]) => Task.decode(value))
    } catch (cause) {
      const { dir } = this.options
      throw unavailable(
        'taskRecords',
        `the task records in ${dir} cannot be opened: is another daemon using this data root?`,
        { dir },
        { cause },
      )
    }
  }

  /** A task that is new here; rejects when the disk is full. */
  add(task: Task): Promise<void> {
    return this.#db.write([{ key: task.id, value: bytes(task) }], true)
  }

  /** What became of it, whether that finds room on the disk or not. */
  update(task: Task): Promise<void> {
    return this.#db.writeState(task.id, bytes(task), true)
  }

  delete(taskId: string): Promise<void> {
    return this.#db.write([{ key: taskId }], true)
  }

  /** Waits for what is being written. */
  close(): Promise<void> {
    return this.#db.close()
  }

  /** After `close`. */
  remove(): Promise<void> {
    return this.#db.remove()
  }
}

const bytes = (task: Task): Uint8Array => Task.encode(withoutCredentials(task))

/** That there were credentials stays to be seen: such a task's image waits for the manager to send them again. */
function withoutCredentials(task: Task): Task {
  const container = task.spec?.container
  if (!task.spec || !container?.pullOptions) return task
  return { ...task, spec: { ...task.spec, container: { ...container, pullOptions: { registryAuth: '' } } } }
}
