import { mkdir } from 'node:fs/promises'
import { Level } from 'level'
import { Task } from '#proto'
import { unavailable } from '../../common/index.js'

type Operation = { type: 'put'; key: string; value: Uint8Array } | { type: 'del'; key: string }

/**
 * The node's tasks and how far each has come, on disk. A record is what the agent acts on and reports: it is on disk before
 * either. Writes that come while one is being synced share the next sync. No secret gets in: payloads are not part of a
 * task, and the registry's credentials are taken out.
 */
export class TaskRecords {
  #db: Level<string, Uint8Array> | null = null
  #pending = new Map<string, Operation>()
  #waiting: { resolve: () => void; reject: (e: Error) => void }[] = []
  #writing: Promise<void> | null = null

  constructor(private readonly dir: string) {}

  async open(): Promise<readonly Task[]> {
    await mkdir(this.dir, { recursive: true, mode: 0o700 })
    const db = new Level<string, Uint8Array>(this.dir, { keyEncoding: 'utf8', valueEncoding: 'view' })
    try {
      await db.open()
    } catch (cause) {
      throw unavailable(
        'taskRecords',
        `the task records in ${this.dir} cannot be opened: is another daemon using this data root?`,
        { dir: this.dir },
        { cause },
      )
    }
    this.#db = db
    const tasks: Task[] = []
    for await (const value of db.values()) tasks.push(Task.decode(value))
    return tasks
  }

  /** Resolves when the record is on disk. */
  put(task: Task): Promise<void> {
    return this.#write({ type: 'put', key: task.id, value: Task.encode(withoutCredentials(task)) })
  }

  delete(taskId: string): Promise<void> {
    return this.#write({ type: 'del', key: taskId })
  }

  /** Waits for what is being written. */
  async close(): Promise<void> {
    while (this.#writing !== null) await this.#writing
    await this.#db?.close()
    this.#db = null
  }

  #write(operation: Operation): Promise<void> {
    return new Promise((resolve, reject) => {
      // The last word on a key counts; the callers before wait for the same sync.
      this.#pending.set(operation.key, operation)
      this.#waiting.push({ resolve, reject })
      this.#writing ??= this.#flush()
    })
  }

  async #flush(): Promise<void> {
    await Promise.resolve()
    while (this.#pending.size > 0) {
      const operations = [...this.#pending.values()]
      const waiting = this.#waiting
      this.#pending = new Map()
      this.#waiting = []
      try {
        if (this.#db === null) throw unavailable('taskRecordsClosed', `the task records in ${this.dir} are closed`)
        await this.#db.batch(operations, { sync: true })
        for (const w of waiting) w.resolve()
      } catch (error) {
        for (const w of waiting) w.reject(error as Error)
      }
    }
    this.#writing = null
  }
}

/** That there were credentials stays to be seen: such a task's image waits for the manager to send them again. */
function withoutCredentials(task: Task): Task {
  const container = task.spec?.container
  if (!task.spec || !container?.pullOptions) return task
  return { ...task, spec: { ...task.spec, container: { ...container, pullOptions: { registryAuth: '' } } } }
}
