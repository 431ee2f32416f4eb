import { AgentMessage, type TaskStatus, TaskStatusBatch } from '#proto'
import type { Clock, Timer } from '../../common/index.js'
import { STATUS_DEBOUNCE_MS, STATUSES_MAX } from '../options.js'

/**
 * Statuses that no manager has acknowledged yet: only the last one of each task, so the queue is as long as the task list at
 * most. One batch is under way at a time; what is not acknowledged when a session ends goes into the next one's first batches.
 */
export class StatusReporter {
  readonly #unacknowledged = new Map<string, TaskStatus>()
  /** Task → the status as sent in the batch under way. */
  #underWay: Map<string, TaskStatus> | null = null
  #sequence = 0
  #send: ((message: AgentMessage) => void) | null = null
  #timer: Timer | null = null

  constructor(private readonly clock: Clock) {}

  note(taskId: string, status: TaskStatus): void {
    this.#unacknowledged.set(taskId, status)
    this.#soon()
  }

  /** A session is registered: sequences begin anew in it. */
  attach(send: (message: AgentMessage) => void): void {
    this.#send = send
    this.#underWay = null
    this.#sequence = 0
    this.#soon()
  }

  detach(): void {
    this.#send = null
    this.#underWay = null
    this.#timer?.cancel()
    this.#timer = null
  }

  /** The manager has stored the batch. */
  acknowledge(sequence: number): void {
    if (this.#underWay === null || sequence < this.#sequence) return
    for (const [taskId, status] of this.#underWay)
      if (this.#unacknowledged.get(taskId) === status) this.#unacknowledged.delete(taskId)
    this.#underWay = null
    this.#flush()
  }

  get pending(): number {
    return this.#unacknowledged.size
  }

  #soon(): void {
    if (this.#send === null || this.#underWay !== null || this.#timer !== null) return
    this.#timer = this.clock.after(STATUS_DEBOUNCE_MS, () => {
      this.#timer = null
      this.#flush()
    })
  }

  #flush(): void {
    if (this.#send === null || this.#underWay !== null || this.#unacknowledged.size === 0) return
    this.#underWay = new Map()
    for (const [taskId, status] of this.#unacknowledged) {
      if (this.#underWay.size >= STATUSES_MAX) break
      this.#underWay.set(taskId, status)
    }
    const updates = [...this.#underWay].map(([taskId, status]) => ({ taskId, status }))
    this.#send(AgentMessage.create({ statuses: TaskStatusBatch.create({ sequence: ++this.#sequence, updates }) }))
  }
}
