import type { Cluster, Node, Service, Task, TaskState, UpdateState } from '#proto'
import { TaskState as State, UpdateStatus } from '#proto'
import { byCreation, isGlobal, isTerminal, isWanted, stateOf, timestamp } from '../objects/index.js'
import type { ReadView, Transaction } from '../store/contract.js'
import { isDirty, newTask } from './new-task.js'

/** Writes that belong together: one transaction. */
export type Unit = (tx: Transaction) => void

/**
 * What one service should become: its tasks as the store has them, changed by the planning steps one after another.
 * Steps see what earlier ones decided. Nothing is written; `units` turns the differences into transactions.
 */
export class ServiceDraft {
  readonly #slots = new Map<string, Task[]>()
  readonly #stored = new Map<string, Task>()
  readonly #desired = new Map<string, TaskState>()
  readonly #created = new Set<string>()
  readonly #removed = new Set<string>()
  #serviceChange: ((service: Service) => Service) | null = null
  #removeService = false
  /** Earliest wall time (ms) at which planning again can change something; Infinity: only at the next change. */
  wakeAtMs = Number.POSITIVE_INFINITY

  constructor(
    readonly service: Service,
    readonly cluster: Cluster | null,
    readonly nowMs: number,
    private readonly view: Pick<ReadView, 'get' | 'tasksOfService'>,
    private readonly newId: () => string,
  ) {
    const global = isGlobal(service)
    for (const task of view.tasksOfService(service.id)) {
      this.#stored.set(task.id, task)
      this.#add(global ? task.nodeId : String(task.slot), task)
    }
    for (const slot of this.#slots.values()) if (slot.length > 1) slot.sort(byCreation)
  }

  node(id: string): Node | null {
    return id === '' ? null : this.view.get('node', id)
  }

  /** Tasks by slot number (as text) or, for global modes, by node id; oldest first. */
  get slots(): ReadonlyMap<string, readonly Task[]> {
    return this.#slots
  }

  slot(key: string): readonly Task[] {
    return this.#slots.get(key) ?? []
  }

  *tasks(): Iterable<Task> {
    for (const slot of this.#slots.values()) yield* slot
  }

  isDirty(task: Task): boolean {
    return isDirty(task, this.service, this.node(task.nodeId))
  }

  /** A new task in the slot, the latest of it. */
  create(options: { key: string; desiredState: TaskState; startAfterMs?: number }): Task {
    const global = isGlobal(this.service)
    const task = newTask({
      id: this.newId(),
      service: this.service,
      cluster: this.cluster,
      slot: global ? 0 : Number(options.key),
      nodeId: global ? options.key : '',
      desiredState: options.desiredState,
      nowMs: this.nowMs,
      ...(options.startAfterMs === undefined ? {} : { startAfterMs: options.startAfterMs }),
    })
    this.#created.add(task.id)
    this.#add(options.key, task)
    return task
  }

  /** Desired states only rise; a lower one is ignored. */
  setDesired(task: Task, desiredState: TaskState): void {
    const key = this.#keyOf(task)
    const slot = this.#slots.get(key)
    const index = slot?.findIndex((t) => t.id === task.id) ?? -1
    if (!slot || index < 0 || slot[index]!.desiredState >= desiredState) return
    slot[index] = { ...slot[index]!, desiredState }
    this.#desired.set(task.id, desiredState)
  }

  remove(task: Task): void {
    const key = this.#keyOf(task)
    const rest = this.slot(key).filter((t) => t.id !== task.id)
    if (rest.length === 0) this.#slots.delete(key)
    else this.#slots.set(key, rest)
    this.#removed.add(task.id)
  }

  setUpdateStatus(state: UpdateState, message: string, options: { started?: boolean; completed?: boolean } = {}): void {
    const now = timestamp(this.nowMs)
    this.changeService((service) => ({
      ...service,
      updateStatus: UpdateStatus.create({
        state,
        message,
        startedAt: options.started ? now : (service.updateStatus?.startedAt ?? null),
        completedAt: options.completed ? now : null,
      }),
    }))
  }

  changeService(change: (service: Service) => Service): void {
    this.#serviceChange = change
  }

  get serviceChanged(): boolean {
    return this.#serviceChange !== null
  }

  removeService(): void {
    this.#removeService = true
  }

  wakeAt(ms: number): void {
    if (ms > this.nowMs && ms < this.wakeAtMs) this.wakeAtMs = ms
  }

  /** One transaction a slot, so that a task told to stop and its replacement come together; then the service's own. */
  units(): Unit[] {
    const units: Unit[] = []
    const { service } = this
    const planned = service.specVersion?.index
    const now = timestamp(this.nowMs)
    const guard = (tx: Transaction): boolean => {
      const present = tx.get('service', service.id)
      return (
        present !== null && present.specVersion?.index === planned && present.pendingDelete === service.pendingDelete
      )
    }
    for (const slot of this.#slots.values()) {
      const created = slot.filter((t) => this.#created.has(t.id))
      const changed = slot.filter((t) => !this.#created.has(t.id) && this.#desired.has(t.id))
      if (created.length + changed.length === 0) continue
      const known = new Set(slot.map((t) => t.id))
      const number = slot[0]!.slot
      units.push((tx) => {
        if (!guard(tx)) return
        // A write whose outcome was unknown may have come through since the plan was made.
        const isOccupied = (t: Task): boolean => isWanted(t) && !known.has(t.id)
        if (created.length > 0 && !isGlobal(service) && tx.tasksOfSlot(service.id, number).some(isOccupied)) return
        for (const { id, desiredState } of changed) setDesired(tx, id, desiredState, now)
        for (const task of created) tx.create('task', task)
      })
    }
    for (const id of this.#removed) {
      if (this.#created.has(id)) continue
      units.push((tx) => {
        const task = tx.get('task', id)
        if (task === null) return
        // It may have been given to a node since: then it leaves as any other, when the node has stopped it.
        if (isDeletable(task)) tx.remove('task', id)
        else setDesired(tx, id, State.TASK_REMOVE, now)
      })
    }
    const change = this.#serviceChange
    if (change !== null)
      units.push((tx) => {
        const present = tx.get('service', service.id)
        if (present !== null && guard(tx)) {
          const next = change(present)
          tx.update('service', { ...next, meta: next.meta ? { ...next.meta, updatedAt: now } : null })
        }
      })
    if (this.#removeService)
      units.push((tx) => {
        if (tx.get('service', service.id)?.pendingDelete) tx.remove('service', service.id)
      })
    return units
  }

  #add(key: string, task: Task): void {
    const slot = this.#slots.get(key)
    if (slot) slot.push(task)
    else this.#slots.set(key, [task])
  }

  #keyOf(task: Task): string {
    return isGlobal(this.service) ? task.nodeId : String(task.slot)
  }
}

function setDesired(tx: Transaction, id: string, desiredState: TaskState, now: ReturnType<typeof timestamp>): void {
  const task = tx.get('task', id)
  if (task === null || task.desiredState >= desiredState) return
  tx.update('task', { ...task, desiredState, meta: task.meta ? { ...task.meta, updatedAt: now } : null })
}

/**
 * The tasks of a slot that stand for it: those told to run, or else the newest one when it ended for good by its own
 * restart policy (a slot that is used up, not free). Tasks on their way out of the cluster stand for nothing.
 */
export function standing(
  slot: readonly Task[],
  usedUp: (task: Task, slot: readonly Task[]) => boolean,
): readonly Task[] {
  const wanted = slot.filter(isWanted)
  if (wanted.length > 0) return wanted
  const newest = slot.findLast((t) => t.desiredState !== State.TASK_REMOVE)
  return newest !== undefined && slot.at(-1) === newest && usedUp(newest, slot) ? [newest] : []
}

/**
 * Stops all but one of several up-to-date tasks in a slot. None should be there; two can, when a write that was given up for lost
 * came through beside its repetition.
 */
export function planDuplicates(draft: ServiceDraft): void {
  for (const slot of [...draft.slots.values()]) {
    if (slot.length < 2) continue
    const rivals = slot.filter((t) => isWanted(t) && !isTerminal(t) && !draft.isDirty(t))
    if (rivals.length < 2) continue
    const best = rivals.reduce((a, b) => (stateOf(b) > stateOf(a) ? b : a))
    for (const task of rivals) if (task !== best) draft.setDesired(task, State.TASK_SHUTDOWN)
  }
}

/** Can be deleted without a word to any node: it ended, or was never given to one. */
export const isDeletable = (task: Task): boolean => isTerminal(task) || stateOf(task) < State.TASK_ASSIGNED
