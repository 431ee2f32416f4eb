import type { Node, Task } from '#proto'
import { NodeState, TaskState } from '#proto'
import type { Clock, Rng, Timer } from '../../common/index.js'
import { isKind } from '../../common/index.js'
import type { Logger } from '../../common/log.js'
import { equal, holdsNode, isGlobal, isLostNode, stateOf, throwUnavailable, WorkLoop } from '../objects/index.js'
import type { Commit, ReadView, Store, StoreEvent } from '../store/contract.js'
import { orphan, reject, unfitTasks } from './constraint-enforcer.js'
import { isDeletable, type Unit } from './draft.js'
import { objectIdFrom } from './new-task.js'
import { planService } from './plan.js'
import { newUpdateMemory, type UpdateMemory } from './updater.js'

/** Down for so long that the addresses of its tasks are taken back: 24 h, as Swarm. */
export const ORPHAN_AFTER_MS = 24 * 3600 * 1000
/** Longest pause between two passes, in ms. */
const REST_MAX_MS = 50
/** Services planned in one pass, so that one commit's worth of writes stays small beside a raft entry's limits. */
const SERVICES_A_PASS = 256

export interface OrchestratorModules {
  readonly store: Store
  readonly clock: Clock
  readonly rng: Rng
  readonly logger: Logger
}

/**
 * The shell around the plans: notes which services a commit concerns, plans them from one view, writes what differs, and
 * sets an alarm for what waits on time. Everything it knows beside update memories can be read from the store again.
 */
export class Orchestrator {
  readonly #modules: OrchestratorModules
  readonly #loop: WorkLoop
  readonly #dirtyServices = new Set<string>()
  readonly #dirtyNodes = new Set<string>()
  /** Tasks of no service (attachments of single containers) that changed. */
  readonly #dirtyLoose = new Set<string>()
  readonly #memories = new Map<string, UpdateMemory>()
  readonly #alarms = new Map<string, Timer>()
  readonly #downAlarms = new Map<string, Timer>()
  #rest: Timer | null = null
  /** Monotonic ms. */
  #restUntilMs = 0
  #unsubscribe: (() => void) | null = null

  constructor(modules: OrchestratorModules) {
    this.#modules = modules
    this.#loop = new WorkLoop(() => this.#pass(), modules)
  }

  start(): void {
    const { view, stop } = this.#modules.store.viewAndWatch((commit) => this.#onCommit(commit))
    this.#unsubscribe = stop
    this.#everything(view)
    this.#loop.kick()
  }

  async stop(): Promise<void> {
    this.#unsubscribe?.()
    for (const timer of [...this.#alarms.values(), ...this.#downAlarms.values()]) timer.cancel()
    this.#alarms.clear()
    this.#downAlarms.clear()
    this.#rest?.cancel()
    this.#rest = null
    await this.#loop.stop()
  }

  #everything(view: ReadView): void {
    for (const service of view.list('service')) this.#dirtyServices.add(service.id)
    for (const node of view.list('node')) this.#noteNode(node)
    for (const task of view.list('task')) {
      if (task.serviceId === '') this.#dirtyLoose.add(task.id)
      else if (view.get('service', task.serviceId) === null) this.#dirtyServices.add(task.serviceId)
      if (task.nodeId !== '' && view.get('node', task.nodeId) === null) this.#dirtyNodes.add(task.nodeId)
    }
  }

  #onCommit(commit: Commit): void {
    if (commit.reset) this.#everything(this.#modules.store.view())
    for (const event of commit.events) this.#onEvent(event)
    if (this.#dirtyServices.size + this.#dirtyNodes.size + this.#dirtyLoose.size > 0) this.#soon()
  }

  /** At once, unless planning takes long (services of many thousand tasks): then no more than half of the time goes into it. */
  #soon(): void {
    const { clock } = this.#modules
    const waitMs = this.#restUntilMs - clock.monotonic()
    if (waitMs <= 0) this.#loop.kick()
    else
      this.#rest ??= clock.after(waitMs, () => {
        this.#rest = null
        this.#loop.kick()
      })
  }

  #onEvent(event: StoreEvent): void {
    switch (event.kind) {
      case 'service':
        this.#dirtyServices.add(event.object.id)
        if (event.action === 'remove') {
          this.#memories.delete(event.object.id)
          this.#alarms.get(event.object.id)?.cancel()
          this.#alarms.delete(event.object.id)
        }
        break
      case 'task':
        if (event.action === 'update' && !concernsPlans(event.old, event.object)) break
        if (event.object.serviceId === '') this.#dirtyLoose.add(event.object.id)
        else this.#dirtyServices.add(event.object.serviceId)
        break
      case 'node':
        if (event.action === 'update' && !concernsPlacement(event.old, event.object)) break
        this.#dirtyNodes.add(event.object.id)
        if (event.action === 'remove') this.#cancelDown(event.object.id)
        else this.#noteNode(event.object)
        break
      case 'cluster':
        if (event.old?.spec?.taskHistoryRetentionLimit !== event.object.spec?.taskHistoryRetentionLimit)
          for (const service of this.#modules.store.view().list('service')) this.#dirtyServices.add(service.id)
        break
    }
  }

  #noteNode(node: Node): void {
    this.#dirtyNodes.add(node.id)
    if (node.status?.state !== NodeState.NODE_DOWN) this.#cancelDown(node.id)
    else if (!this.#downAlarms.has(node.id))
      this.#downAlarms.set(
        node.id,
        this.#modules.clock.after(ORPHAN_AFTER_MS, () => {
          this.#downAlarms.delete(node.id)
          void this.#orphanTasksOf(node.id)
        }),
      )
  }

  #cancelDown(nodeId: string): void {
    this.#downAlarms.get(nodeId)?.cancel()
    this.#downAlarms.delete(nodeId)
  }

  async #orphanTasksOf(nodeId: string): Promise<void> {
    const { store, clock, logger } = this.#modules
    const now = Math.floor(clock.now())
    try {
      await store.batch(
        store
          .view()
          .tasksOfNode(nodeId)
          .filter(holdsNode)
          .map((t) => orphan(t.id, now)),
      )
    } catch (error) {
      // Only a lost leadership gets here; the next leader counts its own day.
      logger.warn('tasks of a node that is down for long were not orphaned', { nodeId, error: String(error) })
    }
  }

  async #pass(): Promise<void> {
    const { store, clock, rng, logger } = this.#modules
    const view = store.view()
    const nowMs = Math.floor(clock.now())
    const begunMs = clock.monotonic()
    const units: { readonly unit: Unit; readonly again: () => void }[] = []

    const nodes = [...this.#dirtyNodes]
    this.#dirtyNodes.clear()
    if (nodes.length > 0)
      for (const service of view.list('service')) if (isGlobal(service)) this.#dirtyServices.add(service.id)
    for (const id of nodes) {
      const again = (): void => void this.#dirtyNodes.add(id)
      for (const unit of this.#planNode(view, id, nowMs)) units.push({ unit, again })
    }

    const loose = [...this.#dirtyLoose]
    this.#dirtyLoose.clear()
    for (const id of loose) {
      const unit = planLoose(view.get('task', id))
      if (unit !== null) units.push({ unit, again: () => void this.#dirtyLoose.add(id) })
    }

    const services = [...this.#dirtyServices].slice(0, SERVICES_A_PASS)
    for (const id of services) {
      this.#dirtyServices.delete(id)
      this.#alarms.get(id)?.cancel()
      this.#alarms.delete(id)
      const again = (): void => void this.#dirtyServices.add(id)
      const service = view.get('service', id)
      if (service === null) {
        for (const unit of planWithoutService(view.tasksOfService(id))) units.push({ unit, again })
        continue
      }
      const draft = planService({
        service,
        cluster: view.cluster(),
        view,
        nowMs,
        newId: () => objectIdFrom(rng),
        memory: this.#memory(id),
      })
      for (const unit of draft.units()) units.push({ unit, again })
      if (draft.wakeAtMs !== Number.POSITIVE_INFINITY) this.#setAlarm(id, draft.wakeAtMs - nowMs)
    }
    const plannedMs = clock.monotonic()
    this.#restUntilMs = plannedMs + Math.min(REST_MAX_MS, plannedMs - begunMs)
    if (this.#dirtyServices.size > 0) this.#loop.kick()
    if (units.length === 0) return
    const results = await store.batch(units.map((u) => u.unit))
    let isRefused = false
    results.forEach((error, i) => {
      if (error === null) return
      units[i]!.again()
      isRefused = true
      if (!isKind(error, 'unavailable'))
        logger.warn('a planned change did not apply and is planned anew', { error: error.message })
    })
    throwUnavailable(results)
    if (isRefused) this.#loop.again()
  }

  *#planNode(view: ReadView, id: string, nowMs: number): Iterable<Unit> {
    const node = view.get('node', id)
    const tasks = view.tasksOfNode(id)
    for (const task of tasks) {
      if (task.serviceId === '') this.#dirtyLoose.add(task.id)
      else this.#dirtyServices.add(task.serviceId)
    }
    if (node === null) {
      for (const task of tasks) {
        if (task.spec?.attachment != null) yield (tx) => tx.get('task', task.id) && tx.remove('task', task.id)
        else if (holdsNode(task)) yield orphan(task.id, nowMs)
      }
    } else if (!isLostNode(node)) for (const task of unfitTasks(node, view)) yield reject(task.id, nowMs)
  }

  #memory(serviceId: string): UpdateMemory {
    let memory = this.#memories.get(serviceId)
    if (memory === undefined) {
      memory = newUpdateMemory()
      this.#memories.set(serviceId, memory)
    }
    return memory
  }

  #setAlarm(serviceId: string, delayMs: number): void {
    this.#alarms.set(
      serviceId,
      this.#modules.clock.after(Math.max(1, delayMs), () => {
        this.#alarms.delete(serviceId)
        this.#dirtyServices.add(serviceId)
        this.#loop.kick()
      }),
    )
  }
}

/** Steps between "assigned" and "running" change no plan: one in ten of a task's updates is enough. */
function concernsPlans(old: Task, task: Task): boolean {
  if (old.desiredState !== task.desiredState || old.nodeId !== task.nodeId) return true
  return stateOf(old) !== stateOf(task) && stateOf(task) >= TaskState.TASK_RUNNING
}

function concernsPlacement(old: Node, node: Node): boolean {
  return (
    old.status?.state !== node.status?.state ||
    old.status?.address !== node.status?.address ||
    old.role !== node.role ||
    !equal(old.spec, node.spec) ||
    !equal(old.description, node.description)
  )
}

/** The service was deleted while some of its tasks sat on lost nodes: they go when those come back and report. */
function* planWithoutService(tasks: readonly Task[]): Iterable<Unit> {
  for (const { id } of tasks)
    yield (tx) => {
      const task = tx.get('task', id)
      if (task === null || tx.get('service', task.serviceId) !== null) return
      if (isDeletable(task)) tx.remove('task', id)
      else if (task.desiredState < TaskState.TASK_REMOVE)
        tx.update('task', { ...task, desiredState: TaskState.TASK_REMOVE })
    }
}

/** An attachment of a single container is nobody's to restart: it goes when it ended or was told to. */
function planLoose(task: Task | null): Unit | null {
  if (task === null || task.desiredState < TaskState.TASK_SHUTDOWN || !isDeletable(task)) return null
  return (tx) => {
    const present = tx.get('task', task.id)
    if (present !== null && isDeletable(present)) tx.remove('task', task.id)
  }
}
