import { Endpoint, type Network, type Node, type Service, type Task, TaskState } from '#proto'
import type { Clock } from '../../common/index.js'
import type { Logger } from '../../common/log.js'
import {
  equal,
  isTerminal,
  isWanted,
  mayStillRun,
  networksOf,
  stateOf,
  throwUnavailable,
  timestamp,
  WorkLoop,
} from '../objects/index.js'
import type { Commit, ReadView, Store, StoreEvent, Transaction } from '../store/contract.js'
import { AllocationBook, addressesOf } from './book.js'
import { isOverlay, planAttachments, planEndpoint } from './plan.js'

/** Tasks given addresses in one pass. */
const TASKS_A_PASS = 10_000

export interface AllocatorModules {
  readonly store: Store
  readonly clock: Clock
  readonly logger: Logger
}

interface Write {
  readonly fn: (tx: Transaction) => void
  /** The write did not happen: makes the book agree with the store again. */
  readonly undo: (view: ReadView) => void
  readonly applied: { yes: boolean }
}

/**
 * Lends networks, services, tasks and nodes what they need. The book is filled from the store when it starts; from then on it
 * is ahead of the store by the writes on their way, and is corrected where one of them did not happen.
 */
export class Allocator {
  readonly #modules: AllocatorModules
  readonly #loop: WorkLoop
  #book = new AllocationBook()
  readonly #nodes = new Set<string>()
  readonly #networks = new Set<string>()
  readonly #services = new Set<string>()
  readonly #tasks = new Set<string>()
  /** Tasks and services that wait for something to be given back or to appear, with the reason. */
  readonly #waitingTasks = new Set<string>()
  readonly #waitingServices = new Map<string, string>()
  readonly #waitingNetworks = new Map<string, string>()
  readonly #leavingNetworks = new Set<string>()
  readonly #inFlight = new Set<string>()
  /** Of those in flight: what they were to get has gone to another. */
  readonly #revoked = new Set<string>()
  #unsubscribe: (() => void) | null = null

  constructor(modules: AllocatorModules) {
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
    await this.#loop.stop()
  }

  /** Everything lent, read from the store before anything new is lent. */
  #rebuild(view: ReadView): void {
    const book = new AllocationBook()
    this.#book = book
    for (const set of [this.#nodes, this.#networks, this.#services, this.#tasks, this.#waitingTasks, this.#inFlight])
      set.clear()
    this.#revoked.clear()
    this.#waitingServices.clear()
    this.#waitingNetworks.clear()
    this.#leavingNetworks.clear()
    const cluster = view.cluster()
    if (cluster) book.noteCluster(cluster)
    for (const node of view.list('node')) this.#noteNode(node)
    for (const network of view.list('network')) this.#noteNetwork(network)
    for (const service of view.list('service')) this.#noteService(service)
    for (const task of view.list('task')) this.#noteTask(task)
    this.#kick()
  }

  #kick(): void {
    if (this.#nodes.size + this.#networks.size + this.#services.size + this.#tasks.size > 0) this.#loop.kick()
  }

  #onCommit(commit: Commit): void {
    if (commit.reset) {
      this.#rebuild(this.#modules.store.view())
      return
    }
    for (const event of commit.events) this.#onEvent(event)
    if (this.#leavingNetworks.size > 0) this.#loop.kick()
    this.#kick()
  }

  #onEvent(event: StoreEvent): void {
    switch (event.kind) {
      case 'cluster':
        this.#book.noteCluster(event.object)
        break
      case 'node':
        if (event.action === 'remove') this.#book.forgetNode(event.object.id)
        else this.#noteNode(event.object)
        break
      case 'network':
        if (event.action === 'remove') {
          this.#book.forgetNetwork(event.object.id)
          this.#leavingNetworks.delete(event.object.id)
          this.#waitingNetworks.delete(event.object.id)
        } else this.#noteNetwork(event.object)
        this.#retryWaiting()
        break
      case 'service':
        if (event.action === 'remove') {
          this.#book.releaseAddresses(event.object.id)
          this.#book.releasePorts(event.object.id)
          this.#waitingServices.delete(event.object.id)
          this.#services.delete(event.object.id)
          this.#retryWaiting()
        } else this.#noteService(event.object)
        break
      case 'task':
        if (event.action === 'remove') this.#release(event.object.id)
        else this.#noteTask(event.object)
        break
    }
  }

  #noteNode(node: Node): void {
    if (node.ingressIndex === 0) this.#nodes.add(node.id)
    else this.#book.noteNode(node)
  }

  #noteNetwork(network: Network): void {
    if (network.pendingDelete) this.#leavingNetworks.add(network.id)
    if (network.driverState === null) this.#networks.add(network.id)
    else this.#book.noteNetwork(network)
  }

  #noteService(service: Service): void {
    if (!this.#inFlight.has(service.id)) {
      const vips = (service.endpoint?.virtualIps ?? []).map((v) => [v.networkId, v.address] as const)
      this.#revoke(service.id, this.#book.setAddresses(service.id, vips))
      this.#book.setPorts(service.id, service.endpoint?.ports ?? [])
    }
    if (!service.pendingDelete) this.#services.add(service.id)
  }

  #noteTask(task: Task): void {
    if (isTerminal(task) && !mayStillRun(task)) {
      this.#release(task.id)
      return
    }
    if (task.networks.length > 0 && !this.#inFlight.has(task.id))
      this.#revoke(task.id, this.#book.setAddresses(task.id, addressesOf(task)))
    if (stateOf(task) === TaskState.TASK_NEW && isWanted(task)) {
      if (!this.#waitingTasks.has(task.id) && !this.#inFlight.has(task.id)) this.#tasks.add(task.id)
    } else {
      this.#tasks.delete(task.id)
      this.#waitingTasks.delete(task.id)
    }
  }

  /**
   * A write of whose outcome nothing was known came through after all, with an address that was lent again meanwhile. The later
   * borrower's write is called off; if that is in the store already, the two are there to stay and must be seen.
   */
  #revoke(owner: string, losers: readonly string[]): void {
    for (const loser of losers) {
      if (this.#inFlight.has(loser)) this.#revoked.add(loser)
      else this.#modules.logger.error('the store holds one address twice', { owner, loser })
    }
  }

  #release(taskId: string): void {
    this.#tasks.delete(taskId)
    this.#waitingTasks.delete(taskId)
    if (this.#book.releaseAddresses(taskId)) this.#retryWaiting()
  }

  #retryWaiting(): void {
    for (const id of this.#waitingTasks) this.#tasks.add(id)
    for (const id of this.#waitingServices.keys()) this.#services.add(id)
    for (const id of this.#waitingNetworks.keys()) this.#networks.add(id)
    this.#waitingTasks.clear()
  }

  async #pass(): Promise<void> {
    const { store, logger } = this.#modules
    const view = store.view()
    const nowMs = Math.floor(this.#modules.clock.now())
    const writes: Write[] = []
    this.#planNodes(view, writes)
    const networks = this.#planNetworks(view, writes)
    // Services and tasks of this pass must see the networks that it has just filled in.
    let list: readonly Network[] | null = null
    const reads = {
      get: ((kind: 'network', id: string) => networks.get(id) ?? view.get(kind, id)) as ReadView['get'],
      byName: ((kind: 'network', name: string) => {
        const found = view.byName(kind, name)
        return found ? (networks.get(found.id) ?? found) : null
      }) as ReadView['byName'],
      list: ((kind: 'network') => {
        list ??= view.list(kind).map((n) => networks.get(n.id) ?? n)
        return list
      }) as ReadView['list'],
    }
    const endpoints = this.#planServices(view, reads, writes)
    this.#planTasks(view, reads, endpoints, writes, nowMs)
    for (const id of this.#leavingNetworks) {
      if (!isUnused(id, view)) continue
      writes.push({
        fn: (tx) => {
          if (tx.get('network', id)?.pendingDelete && isUnused(id, tx)) tx.remove('network', id)
        },
        undo: () => {},
        applied: { yes: true },
      })
    }
    this.#kick()
    if (writes.length === 0) return
    const results = await store.batch(writes.map((w) => w.fn))
    throwUnavailable(results)
    this.#inFlight.clear()
    this.#revoked.clear()
    const after = store.view()
    let isRefused = false
    results.forEach((error, i) => {
      const { applied, undo } = writes[i]!
      if (error === null && applied.yes) return
      isRefused = true
      if (error !== null) logger.warn('an allocation did not apply and is planned anew', { error: error.message })
      undo(after)
    })
    if (isRefused) this.#loop.again()
    else this.#kick()
  }

  #planNodes(view: ReadView, writes: Write[]): void {
    for (const id of this.#nodes) {
      const node = view.get('node', id)
      if (node === null || node.ingressIndex !== 0) continue
      const index = this.#book.takeIndex(id)
      if (index === null) {
        this.#modules.logger.error('no ingress index is left for a node', { nodeId: id })
        continue
      }
      const applied = { yes: false }
      writes.push({
        applied,
        undo: (after) => {
          this.#book.forgetNode(id)
          const present = after.get('node', id)
          if (present) this.#noteNode(present)
        },
        fn: (tx) => {
          const present = tx.get('node', id)
          if (present === null || present.ingressIndex !== 0) return
          tx.update('node', { ...present, ingressIndex: index })
          applied.yes = true
        },
      })
    }
    this.#nodes.clear()
  }

  #planNetworks(view: ReadView, writes: Write[]): Map<string, Network> {
    const planned = new Map<string, Network>()
    for (const id of this.#networks) {
      const network = view.get('network', id)
      if (network === null || network.driverState !== null) continue
      const result = this.#book.takeNetwork(network, isOverlay(network))
      if (!result.ok) {
        if (this.#waitingNetworks.get(id) !== result.reason)
          this.#modules.logger.warn('a network cannot be allocated', { networkId: id, reason: result.reason })
        this.#waitingNetworks.set(id, result.reason)
        continue
      }
      this.#waitingNetworks.delete(id)
      this.#book.noteNetwork(result.value)
      planned.set(id, result.value)
      const { driverState, ipam, vnis } = result.value
      const applied = { yes: false }
      writes.push({
        applied,
        undo: (after) => {
          this.#book.forgetNetwork(id)
          this.#book.returnNetwork(result.value)
          const present = after.get('network', id)
          if (present) this.#noteNetwork(present)
        },
        fn: (tx) => {
          const present = tx.get('network', id)
          if (present === null || present.driverState !== null) return
          tx.update('network', { ...present, driverState, ipam, vnis })
          applied.yes = true
        },
      })
    }
    this.#networks.clear()
    return planned
  }

  #planServices(
    view: ReadView,
    reads: Pick<ReadView, 'get' | 'byName' | 'list'>,
    writes: Write[],
  ): Map<string, Endpoint> {
    const planned = new Map<string, Endpoint>()
    for (const id of this.#services) {
      const service = view.get('service', id)
      if (service === null || service.pendingDelete) continue
      const result = planEndpoint(service, reads, this.#book)
      const wasWaiting = this.#waitingServices.has(id)
      if (!result.ok) {
        this.#waitingServices.set(id, result.reason)
        // Its tasks show the reason.
        for (const task of view.tasksOfService(id)) if (stateOf(task) === TaskState.TASK_NEW) this.#tasks.add(task.id)
        continue
      }
      this.#waitingServices.delete(id)
      if (wasWaiting) for (const task of view.tasksOfService(id)) this.#noteTask(task)
      // A service that nothing is allocated for stays as its client read it.
      if (equal(service.endpoint ?? Endpoint.create(), result.value)) continue
      planned.set(id, result.value)
      this.#inFlight.add(id)
      const applied = { yes: false }
      writes.push({
        applied,
        undo: (after) => {
          this.#book.releaseAddresses(id)
          this.#book.releasePorts(id)
          const present = after.get('service', id)
          if (present) this.#noteService(present)
        },
        fn: (tx) => {
          const present = tx.get('service', id)
          if (present === null || present.pendingDelete || this.#revoked.has(id)) return
          if (!equal(present.spec?.endpoint, service.spec?.endpoint)) return
          if (!equal(networksOf(present.spec), networksOf(service.spec))) return
          tx.update('service', { ...present, endpoint: result.value })
          applied.yes = true
        },
      })
    }
    this.#services.clear()
    return planned
  }

  #planTasks(
    view: ReadView,
    reads: Pick<ReadView, 'get' | 'byName' | 'list'>,
    endpoints: ReadonlyMap<string, Endpoint>,
    writes: Write[],
    nowMs: number,
  ): void {
    let count = 0
    for (const id of this.#tasks) {
      if (count++ >= TASKS_A_PASS) break
      this.#tasks.delete(id)
      const task = view.get('task', id)
      if (task === null || stateOf(task) !== TaskState.TASK_NEW || !isWanted(task)) continue
      const service = task.serviceId === '' ? null : view.get('service', task.serviceId)
      if (service === null && task.serviceId !== '') continue
      const blocked = service === null ? undefined : this.#waitingServices.get(service.id)
      const result = blocked
        ? ({ ok: false, reason: blocked } as const)
        : planAttachments(task, service, reads, this.#book)
      if (!result.ok) {
        this.#waitingTasks.add(id)
        if (task.status?.err !== result.reason)
          writes.push({ fn: writeReason(id, result.reason, nowMs), undo: () => {}, applied: { yes: true } })
        continue
      }
      const endpoint = service === null ? null : (endpoints.get(service.id) ?? service.endpoint)
      this.#inFlight.add(id)
      const applied = { yes: false }
      writes.push({
        applied,
        undo: (after) => {
          this.#book.releaseAddresses(id)
          const present = after.get('task', id)
          if (present) this.#noteTask(present)
        },
        fn: (tx) => {
          const present = tx.get('task', id)
          if (present?.status == null || stateOf(present) !== TaskState.TASK_NEW || !isWanted(present)) return
          if (this.#revoked.has(id)) return
          tx.update('task', {
            ...present,
            networks: result.value,
            // The ports and addresses of the service, under the endpoint spec that the task was made from.
            endpoint: endpoint === null ? present.endpoint : { ...endpoint, spec: present.endpoint?.spec ?? null },
            status: {
              ...present.status,
              timestamp: timestamp(nowMs),
              state: TaskState.TASK_PENDING,
              message: 'pending task scheduling',
              err: '',
            },
          })
          applied.yes = true
        },
      })
    }
  }
}

const writeReason =
  (taskId: string, reason: string, nowMs: number) =>
  (tx: Transaction): void => {
    const task = tx.get('task', taskId)
    if (task?.status == null || stateOf(task) !== TaskState.TASK_NEW || task.status.err === reason) return
    tx.update('task', { ...task, status: { ...task.status, timestamp: timestamp(nowMs), err: reason } })
  }

const isUnused = (networkId: string, view: Pick<ReadView, 'servicesUsingNetwork' | 'tasksUsingNetwork'>): boolean =>
  view.servicesUsingNetwork(networkId).length === 0 &&
  view.tasksUsingNetwork(networkId).every((t) => isTerminal(t) && !mayStillRun(t))
