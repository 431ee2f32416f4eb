import type { NodeDescription, Service, ServiceSpec, Task, TaskSpec } from '#proto'
import {
  Annotations,
  Cluster,
  ClusterSpec,
  ContainerSpec,
  EndpointSpec,
  Network,
  NetworkSpec,
  Node,
  NodeAvailability,
  NodeDescription as NodeDescriptionType,
  NodeSpec,
  NodeState,
  NodeStatus,
  ServiceMode,
  ServiceSpec as ServiceSpecType,
  Service as ServiceType,
  type StoreAction,
  TaskSpec as TaskSpecType,
  TaskState,
  UpdateRequest,
  UpdateState,
} from '#proto'
import { nullLogger, type Rng, seededRng } from '../../../src/common/index.js'
import { ServiceControl } from '../../../src/manager/control/services.js'
import { isTerminal, isWanted, stateOf, timestamp } from '../../../src/manager/objects/index.js'
import { startOrchestration } from '../../../src/manager/orchestrator/index.js'
import { type Commit, createStore } from '../../../src/manager/store/index.js'
import type { ReplicatedStore } from '../../../src/manager/store/store.js'
import { FakeClock } from './fake-clock.js'

export const MS = 1e6

export interface TestLog {
  /** Proposals fail as without a quorum. */
  refuse: boolean
  /** So many of the next proposals end as unknown, and are committed a little later all the same, before what comes after them. */
  late: number
  entries: number
  /** Nothing is committed any more, until `release`. */
  hold(): void
  release(): void
}

/** A store whose log commits in the next microtask. */
export function leadingStore(clock: FakeClock): { store: ReplicatedStore; log: TestLog } {
  const store = createStore({ clock })
  const queue: (() => void)[] = []
  let isStalled = false
  const log: TestLog = {
    ...{ refuse: false, late: 0, entries: 0 },
    hold: () => {
      isStalled = true
    },
    release: () => {
      isStalled = false
      drain()
    },
  }
  const drain = (): void => {
    if (!isStalled) for (const commit of queue.splice(0)) commit()
  }
  store.connect({
    async propose(actions: readonly StoreAction[]) {
      await Promise.resolve()
      if (log.refuse) return { result: 'refused', reason: 'notLeader' }
      if (log.late > 0) {
        log.late--
        isStalled = true
        queue.push(() => store.apply(++log.entries, [{ ours: false, actions }]))
        clock.after(200, () => {
          isStalled = false
          drain()
        })
        return { result: 'unknown', reason: 'deadline' }
      }
      return new Promise((resolve) => {
        queue.push(() => {
          store.apply(++log.entries, [{ ours: true, actions }])
          resolve({ result: 'applied', index: log.entries })
        })
        drain()
      })
    },
  })
  store.setLeading(true)
  return { store, log }
}

/** What a container does, by its image. Times in ms; a run time of null: until it is stopped. */
export interface Behaviour {
  readonly prepareMs: number
  readonly startMs: number
  readonly runMs: number | null
  readonly end: TaskState
  readonly stopMs: number
  readonly failsIn: TaskState | null
}

export const RUNS: Behaviour = {
  prepareMs: 10,
  startMs: 10,
  runMs: null,
  end: TaskState.TASK_COMPLETE,
  stopMs: 20,
  failsIn: null,
}

/**
 * A leader's store and orchestration with imitated nodes on a fake clock. Nodes act on the store directly, as the
 * dispatcher would for them: observed states after ASSIGNED are theirs.
 */
export class TestCluster {
  readonly clock = new FakeClock()
  readonly rng: Rng
  readonly store: ReplicatedStore
  readonly log: TestLog
  readonly behaviours = new Map<string, Behaviour>([['nginx', RUNS]])
  /** Called with each commit, after it is visible. */
  readonly checks: ((commit: Commit) => void)[] = []
  #orchestration: { stop(): Promise<void> } | null = null
  /** Nodes that do not answer: what they do is not seen, what is told them is not heard. */
  readonly #silent = new Set<string>()
  readonly #busy = new Map<string, string>()
  #ids = 0

  constructor(seed = 1) {
    this.rng = seededRng(seed)
    const { store, log } = leadingStore(this.clock)
    this.store = store
    this.log = log
    store.onCommit((commit) => {
      for (const check of this.checks) check(commit)
      for (const event of commit.events) if (event.kind === 'task' && event.action !== 'remove') this.#act(event.object)
    })
  }

  id(prefix: string): string {
    return `${prefix}${String(++this.#ids).padStart(25 - prefix.length, '0')}`
  }

  async init(nodes: number, options: { ingress?: boolean; history?: number } = {}): Promise<void> {
    await this.store.update((tx) => {
      tx.create(
        'cluster',
        Cluster.create({
          id: this.id('cluster'),
          spec: ClusterSpec.create({
            annotations: Annotations.create({ name: 'default' }),
            taskHistoryRetentionLimit: options.history ?? 5,
          }),
          defaultAddressPool: ['10.0.0.0/8'],
          subnetSize: 24,
        }),
      )
      if (options.ingress)
        tx.create(
          'network',
          Network.create({
            id: this.id('ingress'),
            spec: NetworkSpec.create({ annotations: Annotations.create({ name: 'ingress' }), ingress: true }),
          }),
        )
    })
    for (let i = 1; i <= nodes; i++) await this.addNode(`n${i}`)
  }

  start(): void {
    this.#orchestration = startOrchestration({
      store: this.store,
      clock: this.clock,
      rng: this.rng,
      logger: nullLogger,
    })
  }

  async stop(): Promise<void> {
    await this.#orchestration?.stop()
    this.#orchestration = null
  }

  /** Another leader takes over: all that was in memory is lost. */
  async changeLeader(): Promise<void> {
    await this.stop()
    this.start()
    await this.clock.settle()
  }

  async addNode(
    id: string,
    description: Partial<NodeDescription> = {},
    labels: Record<string, string> = {},
  ): Promise<void> {
    await this.store.update((tx) =>
      tx.create(
        'node',
        Node.create({
          id,
          spec: NodeSpec.create({ annotations: Annotations.create({ labels }), availability: NodeAvailability.ACTIVE }),
          description: NodeDescriptionType.create({
            hostname: id,
            platform: { os: 'linux', architecture: 'x86_64' },
            resources: { nanoCpus: 8e9, memoryBytes: 16 * 2 ** 30, generic: [], pids: 0 },
            ...description,
          }),
          status: NodeStatus.create({ state: NodeState.NODE_READY }),
        }),
      ),
    )
  }

  async addNetwork(name: string, spec: Partial<NetworkSpec> = {}): Promise<string> {
    const id = this.id('net')
    await this.store.update((tx) =>
      tx.create(
        'network',
        Network.create({ id, spec: NetworkSpec.create({ annotations: Annotations.create({ name }), ...spec }) }),
      ),
    )
    return id
  }

  async setNode(
    id: string,
    change: { state?: NodeState; availability?: NodeAvailability; labels?: Record<string, string> },
  ): Promise<void> {
    await this.store.update((tx) => {
      const node = tx.get('node', id)!
      tx.update('node', {
        ...node,
        status: { ...node.status!, state: change.state ?? node.status!.state },
        spec: {
          ...node.spec!,
          availability: change.availability ?? node.spec!.availability,
          annotations: { ...node.spec!.annotations!, labels: change.labels ?? node.spec!.annotations!.labels },
        },
      })
    })
  }

  /** The node stops answering and, as the dispatcher would write it, is down. */
  async lose(id: string): Promise<void> {
    this.#silent.add(id)
    await this.setNode(id, { state: NodeState.NODE_DOWN })
  }

  async comeBack(id: string): Promise<void> {
    this.#silent.delete(id)
    await this.setNode(id, { state: NodeState.NODE_READY })
    for (const task of this.store.view().tasksOfNode(id)) this.#act(task)
  }

  serviceSpec(name: string, options: ServiceOptions = {}): ServiceSpec {
    return ServiceSpecType.create({
      annotations: Annotations.create({ name }),
      mode: ServiceMode.create(options.mode ?? { replicated: { replicas: options.replicas ?? 1 } }),
      task: TaskSpecType.create({
        container: ContainerSpec.create({ image: options.image ?? 'nginx' }),
        networks: (options.networks ?? []).map((target) => ({ target, aliases: [], driverOpts: {}, addresses: [] })),
        ...options.task,
      }),
      endpoint: options.endpoint ? EndpointSpec.create(options.endpoint) : null,
      ...options.spec,
    })
  }

  async createService(name: string, options: ServiceOptions = {}): Promise<string> {
    const id = this.id('svc')
    const mode = options.mode
    await this.store.update((tx) =>
      tx.create(
        'service',
        ServiceType.create({
          id,
          spec: this.serviceSpec(name, options),
          specVersion: { index: this.log.entries + 1 },
          jobStatus:
            mode?.replicatedJob || mode?.globalJob
              ? { jobIteration: 0, lastExecution: timestamp(this.clock.now()) }
              : null,
        }),
      ),
    )
    await this.clock.settle()
    return id
  }

  /** As the control API does: previous spec kept, version raised when the task part changed, status cleared. */
  /** As `docker service rollback`. */
  async rollBack(id: string): Promise<void> {
    const version = this.service(id).meta?.version ?? null
    await new ServiceControl(this.store, this.clock).update(UpdateRequest.create({ id, version, rollback: true }))
    await this.clock.settle()
  }

  async updateService(id: string, change: (spec: ServiceSpec) => ServiceSpec): Promise<void> {
    await this.store.update((tx) => {
      const service = tx.get('service', id)!
      const spec = change(service.spec!)
      const jobStatus = service.jobStatus
      tx.update('service', {
        ...service,
        spec,
        previousSpec: service.spec,
        previousSpecVersion: service.specVersion,
        specVersion: { index: this.log.entries + 1 },
        updateStatus: null,
        jobStatus: jobStatus && {
          jobIteration: jobStatus.jobIteration + 1,
          lastExecution: timestamp(this.clock.now()),
        },
      })
    })
    await this.clock.settle()
  }

  async removeService(id: string): Promise<void> {
    await this.store.update((tx) => tx.update('service', { ...tx.get('service', id)!, pendingDelete: true }))
    await this.clock.settle()
  }

  service(id: string): Service {
    return this.store.view().get('service', id)!
  }

  tasks(serviceId: string): readonly Task[] {
    return this.store.view().tasksOfService(serviceId)
  }

  running(serviceId: string): readonly Task[] {
    return this.tasks(serviceId).filter((t) => stateOf(t) === TaskState.TASK_RUNNING && isWanted(t))
  }

  updateState(serviceId: string): UpdateState {
    return this.service(serviceId).updateStatus?.state ?? UpdateState.UPDATE_NONE
  }

  /** How many of the service's running tasks each node has, by node id. */
  spread(serviceId: string): Record<string, number> {
    const counts: Record<string, number> = {}
    for (const t of this.running(serviceId)) counts[t.nodeId] = (counts[t.nodeId] ?? 0) + 1
    return counts
  }

  behaviourOf(task: Task): Behaviour {
    return this.behaviours.get(task.spec?.container?.image ?? '') ?? RUNS
  }

  /** One step of the imitated worker; the next follows when its write is seen or its time is over. */
  #act(task: Task): void {
    if (task.nodeId === '' || stateOf(task) < TaskState.TASK_ASSIGNED || isTerminal(task)) return
    if (this.#silent.has(task.nodeId)) return
    const { prepareMs, startMs, runMs, end, stopMs, failsIn } = this.behaviourOf(task)
    const state = stateOf(task)
    if (!isWanted(task)) this.#later(task, 'stop', stopMs, TaskState.TASK_SHUTDOWN)
    else if (state < TaskState.TASK_READY)
      this.#later(
        task,
        'prepare',
        prepareMs,
        failsIn === TaskState.TASK_PREPARING ? TaskState.TASK_REJECTED : TaskState.TASK_READY,
      )
    else if (state === TaskState.TASK_READY && task.desiredState >= TaskState.TASK_RUNNING)
      this.#later(
        task,
        'start',
        startMs,
        failsIn === TaskState.TASK_STARTING ? TaskState.TASK_FAILED : TaskState.TASK_RUNNING,
      )
    else if (state === TaskState.TASK_RUNNING && runMs !== null) this.#later(task, 'run', runMs, end)
  }

  #later(task: Task, step: string, ms: number, state: TaskState): void {
    if (this.#busy.get(task.id) === step) return
    this.#busy.set(task.id, step)
    this.clock.after(ms, () => {
      if (this.#busy.get(task.id) !== step) return
      this.#busy.delete(task.id)
      if (this.#silent.has(task.nodeId)) return
      this.#reportUntilHeard(task.id, state)
    })
  }

  /** As an agent: a status that nobody took is sent again. */
  #reportUntilHeard(taskId: string, state: TaskState): void {
    this.report(taskId, state).catch(() => {
      this.clock.after(500, () => this.#reportUntilHeard(taskId, state))
    })
  }

  async report(taskId: string, state: TaskState): Promise<void> {
    await this.store.update((tx) => {
      const task = tx.get('task', taskId)
      if (task?.status == null || task.status.state >= state) return
      const now = timestamp(this.clock.now())
      tx.update('task', {
        ...task,
        status: { ...task.status, state, timestamp: now, appliedAt: now, message: 'reported', err: '' },
      })
    })
  }
}

export interface ServiceOptions {
  readonly image?: string
  readonly replicas?: number
  readonly networks?: readonly string[]
  readonly mode?: Partial<ServiceMode>
  readonly task?: Partial<TaskSpec>
  readonly endpoint?: Partial<EndpointSpec>
  readonly spec?: Partial<ServiceSpec>
}
