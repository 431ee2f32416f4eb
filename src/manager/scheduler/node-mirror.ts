import type { Node, Task } from '#proto'
import { NodeAvailability, NodeState, PublishMode } from '#proto'
import { holdsNode, isWanted, statusMs } from '../objects/index.js'
import {
  addResources,
  type Reservation,
  type ResourcePool,
  reservationsOf,
  subtractResources,
  totalsOf,
} from './resources.js'

/** A node on which a service's tasks failed so often, within the window, is taken last (Swarm's numbers). */
export const FAILURES_MAX = 5
export const FAILURE_WINDOW_MS = 5 * 60_000

interface Held {
  readonly serviceId: string
  readonly reservation: Reservation
  readonly hostPorts: readonly string[]
  /** Told to run: counts for spreading and for replicas per node. */
  readonly isCounted: boolean
}

/** How many tasks of each service the nodes have: by service, so that ranking nodes for a service reads one small map. */
export class ServiceCounts {
  readonly #byService = new Map<string, Map<NodeMirror, number>>()

  of(serviceId: string): ReadonlyMap<NodeMirror, number> {
    return this.#byService.get(serviceId) ?? NO_COUNTS
  }

  add(serviceId: string, node: NodeMirror, by: 1 | -1): void {
    let counts = this.#byService.get(serviceId)
    if (counts === undefined) {
      counts = new Map()
      this.#byService.set(serviceId, counts)
    }
    const count = (counts.get(node) ?? 0) + by
    if (count > 0) counts.set(node, count)
    else counts.delete(node)
    if (counts.size === 0) this.#byService.delete(serviceId)
  }

  forget(node: NodeMirror): void {
    for (const counts of this.#byService.values()) counts.delete(node)
  }
}

const NO_COUNTS: ReadonlyMap<NodeMirror, number> = new Map()

/** One node as the scheduler sees it: what is left of it and what sits on it, kept up to date by single steps. */
export class NodeMirror {
  readonly available: ResourcePool
  readonly #held = new Map<string, Held>()
  readonly #ports = new Map<string, number>()
  /** service/spec version → wall times (ms) of failures, oldest first. */
  readonly #failures = new Map<string, number[]>()
  #total = 0
  /** Up and open for new tasks. */
  isReady: boolean
  /** Place in the list that is being ranked; of no meaning afterwards. */
  position = 0

  constructor(
    public node: Node,
    private readonly services: ServiceCounts,
  ) {
    this.available = totalsOf(node)
    this.isReady = isOpen(node)
  }

  /** The node's object changed: totals are taken anew, what is held stays. */
  setNode(node: Node): void {
    this.node = node
    this.isReady = isOpen(node)
    const totals = totalsOf(node)
    this.available.nanoCpus = totals.nanoCpus
    this.available.memoryBytes = totals.memoryBytes
    this.available.generic.clear()
    for (const [kind, g] of totals.generic) this.available.generic.set(kind, g)
    for (const held of this.#held.values()) subtractResources(this.available, held.reservation)
  }

  get totalTasks(): number {
    return this.#total
  }

  tasksOfService(serviceId: string): number {
    return this.services.of(serviceId).get(this) ?? 0
  }

  usesPort(port: string): boolean {
    return this.#ports.has(port)
  }

  /** Idempotent: takes note of the task as it is now, also when it no longer holds anything. Returns whether it freed something. */
  note(task: Task): boolean {
    const before = this.#held.get(task.id)
    if (task.nodeId !== this.node.id || !holdsNode(task)) return this.forget(task.id)
    const isCounted = isWanted(task)
    if (before?.isCounted === isCounted) return false
    if (before !== undefined) this.#drop(task.id, before)
    const held: Held = {
      serviceId: task.serviceId,
      reservation: reservationsOf(task),
      hostPorts: hostPortsOf(task),
      isCounted,
    }
    this.#held.set(task.id, held)
    subtractResources(this.available, held.reservation)
    for (const p of held.hostPorts) this.#ports.set(p, (this.#ports.get(p) ?? 0) + 1)
    if (isCounted) {
      this.#total++
      this.services.add(held.serviceId, this, 1)
    }
    return before?.isCounted === true && !isCounted
  }

  forget(taskId: string): boolean {
    const held = this.#held.get(taskId)
    if (held === undefined) return false
    this.#drop(taskId, held)
    return true
  }

  noteFailure(task: Task): void {
    const key = failureKey(task)
    const list = this.#failures.get(key) ?? []
    list.push(statusMs(task))
    if (list.length > FAILURES_MAX) list.shift()
    this.#failures.set(key, list)
  }

  isFailing(task: Task, nowMs: number): boolean {
    if (this.#failures.size === 0) return false
    const key = failureKey(task)
    const list = this.#failures.get(key)
    if (list === undefined) return false
    while (list.length > 0 && list[0]! < nowMs - FAILURE_WINDOW_MS) list.shift()
    if (list.length === 0) this.#failures.delete(key)
    return list.length >= FAILURES_MAX
  }

  #drop(taskId: string, held: Held): void {
    this.#held.delete(taskId)
    addResources(this.available, held.reservation)
    for (const p of held.hostPorts) {
      const left = (this.#ports.get(p) ?? 1) - 1
      if (left > 0) this.#ports.set(p, left)
      else this.#ports.delete(p)
    }
    if (!held.isCounted) return
    this.#total--
    this.services.add(held.serviceId, this, -1)
  }
}

const isOpen = (node: Node): boolean =>
  node.status?.state === NodeState.NODE_READY && node.spec?.availability === NodeAvailability.ACTIVE

const failureKey = (task: Task): string => `${task.serviceId}/${task.specVersion?.index ?? ''}`

/** "protocol/port" of each fixed port that the task binds on its node. */
export const hostPortsOf = (task: Task): readonly string[] =>
  (task.endpoint?.spec?.ports ?? [])
    .filter((p) => p.publishMode === PublishMode.HOST && p.publishedPort !== 0)
    .map((p) => `${p.protocol}/${p.publishedPort}`)
