import type { Node, Task } from '#proto'
import { TaskState } from '#proto'
import type { Clock, Timer } from '../../common/index.js'
import type { Logger } from '../../common/log.js'
import { equal, isWanted, stateOf, throwUnavailable, timestamp, WorkLoop } from '../objects/index.js'
import type { Commit, ReadView, Store, StoreEvent, Transaction } from '../store/contract.js'
import { Explanation } from './filters.js'
import { NodeMirror, ServiceCounts } from './node-mirror.js'
import { placeGroup } from './placement.js'
import { claimGeneric, fits, reservationsOf } from './resources.js'

/** Tasks placed in one pass; more follow in the next, while the first are already on their way to their nodes. */
const TASKS_A_PASS = 20_000
/** A burst of new tasks is gathered until none came for the first time, at most for the second, in ms. One task goes at once. */
const BURST_QUIET_MS = 5
const BURST_MAX_MS = 50
/** Freed resources are gathered for so long before tasks that found no node are tried again, in ms. */
const RETRY_DEBOUNCE_MS = 50

export interface SchedulerModules {
  readonly store: Store
  readonly clock: Clock
  readonly logger: Logger
}

/**
 * Gives pending tasks a node. Tasks of one service and spec version are placed together; the first ones go at once, and what
 * comes while their write is on its way is the next batch. Groups that found no node wait until nodes or tasks change.
 */
export class Scheduler {
  readonly #modules: SchedulerModules
  readonly #loop: WorkLoop
  readonly #nodes = new Map<string, NodeMirror>()
  #counts = new ServiceCounts()
  /** Group → its tasks without a node. */
  readonly #groups = new Map<string, Map<string, Task>>()
  readonly #dirty = new Set<string>()
  /** Groups with tasks for which the last try found no node. */
  readonly #parked = new Set<string>()
  /** Tasks whose assignment is being written. */
  readonly #inFlight = new Set<string>()
  #retry: Timer | null = null
  #burst: Timer | null = null
  /** Monotonic ms at which the burst under way is placed at the latest. */
  #burstEndsMs = 0
  /** Tasks that became pending since the last pass. */
  #arrived = 0
  #unsubscribe: (() => void) | null = null

  constructor(modules: SchedulerModules) {
    this.#modules = modules
    this.#loop = new WorkLoop(
      () => this.#pass(),
      modules,
      () => this.#rebuild(this.#modules.store.view()),
    )
  }

  start(): void {
    const { view, stop } = this.#modules.store.viewAndWatch((commit) => this.#onCommit(commit))
    this.#unsubscribe = stop
    this.#rebuild(view)
  }

  async stop(): Promise<void> {
    this.#unsubscribe?.()
    this.#retry?.cancel()
    this.#retry = null
    this.#burst?.cancel()
    this.#burst = null
    await this.#loop.stop()
  }

  #rebuild(view: ReadView): void {
    this.#nodes.clear()
    this.#counts = new ServiceCounts()
    this.#groups.clear()
    this.#dirty.clear()
    this.#parked.clear()
    this.#inFlight.clear()
    for (const node of view.list('node')) this.#nodes.set(node.id, new NodeMirror(node, this.#counts))
    for (const task of view.list('task')) {
      this.#noteTask(task)
      if (endedBadly(task)) this.#nodes.get(task.nodeId)?.noteFailure(task)
    }
    if (this.#dirty.size > 0) this.#loop.kick()
  }

  #onCommit(commit: Commit): void {
    if (commit.reset) {
      this.#rebuild(this.#modules.store.view())
      return
    }
    for (const event of commit.events) this.#onEvent(event)
    if (this.#dirty.size > 0) this.#soon()
  }

  #soon(): void {
    if (this.#arrived <= 1) {
      this.#loop.kick()
      return
    }
    const { clock } = this.#modules
    const nowMs = clock.monotonic()
    if (this.#burst === null) this.#burstEndsMs = nowMs + BURST_MAX_MS
    this.#burst?.cancel()
    this.#burst = clock.after(Math.min(BURST_QUIET_MS, this.#burstEndsMs - nowMs), () => {
      this.#burst = null
      this.#loop.kick()
    })
  }

  #onEvent(event: StoreEvent): void {
    if (event.kind === 'task') {
      if (event.action === 'remove') {
        this.#forgetPending(event.object)
        if (this.#nodes.get(event.object.nodeId)?.forget(event.object.id)) this.#retryParked()
        return
      }
      this.#noteTask(event.object)
      if (event.action === 'update' && endedBadly(event.object) && !endedBadly(event.old))
        this.#nodes.get(event.object.nodeId)?.noteFailure(event.object)
    } else if (event.kind === 'node') this.#noteNode(event.action, event.object)
  }

  #noteNode(action: StoreEvent['action'], node: Node): void {
    const mirror = this.#nodes.get(node.id)
    if (action === 'remove') {
      this.#nodes.delete(node.id)
      if (mirror !== undefined) this.#counts.forget(mirror)
      return
    }
    if (mirror === undefined) {
      const fresh = new NodeMirror(node, this.#counts)
      this.#nodes.set(node.id, fresh)
      for (const task of this.#modules.store.view().tasksOfNode(node.id)) fresh.note(task)
    } else {
      const before = mirror.node
      mirror.setNode(node)
      if (
        before.status?.state === node.status?.state &&
        before.status?.address === node.status?.address &&
        before.role === node.role &&
        equal(before.spec, node.spec) &&
        equal(before.description, node.description)
      )
        return
    }
    this.#retryParked()
  }

  #noteTask(task: Task): void {
    if (task.nodeId !== '' && this.#nodes.get(task.nodeId)?.note(task)) this.#retryParked()
    if (this.#inFlight.has(task.id)) return
    // An attachment's container is on its node already: its address is all that it waits for.
    if (stateOf(task) !== TaskState.TASK_PENDING || !isWanted(task) || task.spec?.attachment != null) {
      this.#forgetPending(task)
      return
    }
    const key = groupOf(task)
    let group = this.#groups.get(key)
    if (group === undefined) {
      group = new Map()
      this.#groups.set(key, group)
    }
    const isNew = !group.has(task.id)
    group.set(task.id, task)
    if (!isNew) return
    this.#arrived++
    this.#dirty.add(key)
  }

  #forgetPending(task: Task): void {
    if (this.#groups.size === 0) return
    const key = groupOf(task)
    const group = this.#groups.get(key)
    if (!group?.delete(task.id) || group.size > 0) return
    this.#groups.delete(key)
    this.#dirty.delete(key)
    this.#parked.delete(key)
  }

  #retryParked(): void {
    if (this.#parked.size === 0 || this.#retry !== null) return
    this.#retry = this.#modules.clock.after(RETRY_DEBOUNCE_MS, () => {
      this.#retry = null
      for (const key of this.#parked) this.#dirty.add(key)
      this.#loop.kick()
    })
  }

  async #pass(): Promise<void> {
    const nowMs = Math.floor(this.#modules.clock.now())
    this.#arrived = 0
    const writes: {
      readonly task: Task
      readonly applied: { yes: boolean }
      readonly fn: (tx: Transaction) => void
    }[] = []
    let placedCount = 0
    const place = (task: Task, node: NodeMirror): void => {
      const assigned = assign(task, node, nowMs)
      node.note(assigned)
      this.#forgetPending(task)
      this.#inFlight.add(task.id)
      const applied = { yes: false }
      writes.push({ task, applied, fn: writeAssignment(assigned, applied) })
      placedCount++
    }
    for (const key of [...this.#dirty]) {
      if (placedCount >= TASKS_A_PASS) break
      this.#dirty.delete(key)
      this.#parked.delete(key)
      const group = this.#groups.get(key)
      if (group === undefined) continue
      const tasks = [...group.values()]
      const { unplaced, reason } =
        tasks[0]!.nodeId !== ''
          ? this.#placeBound(tasks, place)
          : placeGroup({ tasks, nodes: this.#nodes.values(), counts: this.#counts, nowMs, place })
      if (unplaced.length > 0) this.#parked.add(key)
      for (const task of unplaced)
        if (task.status?.err !== reason)
          writes.push({ task, applied: { yes: true }, fn: writeReason(task.id, reason, nowMs) })
    }
    if (this.#dirty.size > 0) this.#loop.kick()
    if (writes.length === 0) return
    const results = await this.#modules.store.batch(writes.map((w) => w.fn))
    throwUnavailable(results)
    const view = this.#modules.store.view()
    let isRefused = false
    results.forEach((error, i) => {
      const { task, applied } = writes[i]!
      this.#inFlight.delete(task.id)
      if (error === null && applied.yes) return
      isRefused = true
      // The task or its node changed under our hands: see it as it is now, and try again if it still needs a node.
      if (error !== null)
        this.#modules.logger.warn('an assignment did not apply and is tried again', {
          taskId: task.id,
          error: error.message,
        })
      for (const node of this.#nodes.values()) node.forget(task.id)
      const present = view.get('task', task.id)
      if (present !== null) this.#noteTask(present)
    })
    if (isRefused) this.#loop.again()
    else if (this.#dirty.size > 0) this.#loop.kick()
  }

  /** Tasks that were made for one node: a global service's. */
  #placeBound(
    tasks: readonly Task[],
    place: (task: Task, node: NodeMirror) => void,
  ): { readonly unplaced: readonly Task[]; readonly reason: string } {
    const unplaced: Task[] = []
    let reason = 'no suitable node'
    for (const task of tasks) {
      const node = this.#nodes.get(task.nodeId)
      const explanation = new Explanation()
      const isFit = node !== undefined && explanation.check(task, node) === null
      if (isFit) place(task, node)
      else {
        unplaced.push(task)
        reason = explanation.toString()
      }
    }
    return { unplaced, reason }
  }
}

const groupOf = (task: Task): string =>
  task.nodeId !== ''
    ? `${task.serviceId}@${task.nodeId}`
    : task.serviceId === ''
      ? task.id
      : `${task.serviceId}/${task.specVersion?.index ?? task.id}`

const endedBadly = (task: Task): boolean => {
  const state = stateOf(task)
  return task.nodeId !== '' && (state === TaskState.TASK_FAILED || state === TaskState.TASK_REJECTED)
}

function assign(task: Task, node: NodeMirror, nowMs: number): Task {
  const wants = reservationsOf(task)
  return {
    ...task,
    nodeId: node.node.id,
    assignedGenericResources:
      wants.generic.length > 0 && fits(wants, node.available) ? claimGeneric(wants, node.available) : [],
    status: {
      ...task.status!,
      timestamp: timestamp(nowMs),
      state: TaskState.TASK_ASSIGNED,
      message: 'scheduler assigned task to node',
      err: '',
    },
  }
}

const writeAssignment =
  (assigned: Task, applied: { yes: boolean }) =>
  (tx: Transaction): void => {
    const present = tx.get('task', assigned.id)
    if (present === null || stateOf(present) !== TaskState.TASK_PENDING || !isWanted(present)) return
    if (tx.get('node', assigned.nodeId) === null) return
    tx.update('task', {
      ...present,
      nodeId: assigned.nodeId,
      assignedGenericResources: assigned.assignedGenericResources,
      status: assigned.status,
    })
    applied.yes = true
  }

const writeReason =
  (taskId: string, reason: string, nowMs: number) =>
  (tx: Transaction): void => {
    const task = tx.get('task', taskId)
    if (task?.status == null || stateOf(task) !== TaskState.TASK_PENDING || task.status.err === reason) return
    tx.update('task', { ...task, status: { ...task.status, timestamp: timestamp(nowMs), err: reason } })
  }
