import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type * as grpc from '@grpc/grpc-js'
import {
  AgentMessage,
  Annotations,
  type Assignments,
  Beat,
  type ClusterMembers,
  ClusterSpec,
  ContainerSpec,
  CreateRequest,
  Dispatcher,
  GetRequest,
  ListRequest,
  type ManagerMessage,
  type NetworkUpdate,
  NodeDescription,
  NodeState,
  ObjectKind,
  Platform,
  Register,
  ReplicatedMode,
  Resources,
  type Service,
  ServiceMode,
  ServiceSpec,
  type SessionInfo,
  type Task,
  TaskSpec,
  TaskState,
  TaskStatus,
  TaskStatusBatch,
  TaskStatusUpdate,
} from '#proto'
import { dialGrpc, openBidi } from '../../src/common/grpc/index.js'
import {
  createLogger,
  newObjectId,
  nullLogger,
  type ShoalError,
  systemClock,
  systemRng,
} from '../../src/common/index.js'
import {
  createCaClient,
  createManager,
  type Manager,
  type ManagerOptions,
  type NodeIdentity,
} from '../../src/manager/index.js'

const logger = process.env['MANAGER_TEST_LOG'] ? createLogger('debug') : nullLogger

/** Waits for an event whose coming is asked for often; a deadline makes a hang a failure that says what was missing. */
export async function until<T>(
  what: string,
  check: () => T | Promise<T>,
  deadlineMs = 20_000,
): Promise<NonNullable<T>> {
  const end = performance.now() + deadlineMs
  for (;;) {
    const value = await check()
    if (value) return value as NonNullable<T>
    if (performance.now() > end) throw new Error(`waited ${deadlineMs} ms in vain until ${what}`)
    await systemClock.sleep(10)
  }
}

export const freePort = (): Promise<number> =>
  new Promise((resolve, reject) => {
    const s = createServer()
    s.on('error', reject)
    s.listen(0, '127.0.0.1', () => {
      const a = s.address()
      s.close(() => resolve(typeof a === 'object' && a ? a.port : 0))
    })
  })

export interface LabManager {
  manager: Manager
  identity: NodeIdentity
  address: string
  readonly dir: string
}

/** Managers of one cluster in this process, each behind its own port on loopback. */
export class ManagerLab {
  readonly managers: LabManager[] = []
  readonly ca = createCaClient({ clock: systemClock })
  readonly agents: FakeAgent[] = []
  /** With what each node's key is to be sealed, by node id; null: not at all. */
  readonly seals = new Map<string, Uint8Array | null>()
  clusterId = newObjectId()

  private constructor(readonly dir: string) {}

  static async create(count = 1, spec: Partial<ClusterSpec> = {}): Promise<ManagerLab> {
    const lab = new ManagerLab(await mkdtemp(join(tmpdir(), 'manager-test-')))
    await lab.#first(spec)
    for (let i = 1; i < count; i++) await lab.join()
    return lab
  }

  async #first(spec: Partial<ClusterSpec>): Promise<void> {
    const root = await this.ca.createRoot()
    const identity = await this.ca.issueFirst(root, {
      clusterId: this.clusterId,
      nodeId: newObjectId(),
      expiryMs: 90 * 24 * 3_600_000,
    })
    const init = {
      defaultAddressPool: [],
      subnetSize: 0,
      dataPathPort: 0,
      spec: ClusterSpec.create({ taskHistoryRetentionLimit: 5, ...spec }),
      availability: 0 as const,
    }
    await this.#start(identity, { kind: 'create', init, root })
  }

  /** With the manager token, as `swarm join` does. */
  async join(): Promise<LabManager> {
    const at = this.managers[0]!
    const identity = await this.ca.join({
      remote: at.address,
      token: (await this.cluster()).rootCa!.managerToken,
      availability: 0,
    })
    return this.#start(identity, { kind: 'join', remote: at.address })
  }

  async start(identity: NodeIdentity, remote: string): Promise<LabManager> {
    return this.#start(identity, { kind: 'join', remote })
  }

  async #start(identity: NodeIdentity, bootstrap: ManagerOptions['bootstrap']): Promise<LabManager> {
    const address = `127.0.0.1:${await freePort()}`
    const dir = join(this.dir, identity.nodeId)
    const made: LabManager = { manager: this.#make({ identity, bootstrap, address, dir }), identity, address, dir }
    this.managers.push(made)
    await made.manager.start()
    return made
  }

  #make(options: {
    identity: NodeIdentity
    bootstrap: ManagerOptions['bootstrap']
    address: string
    dir: string
    unlockKey?: Uint8Array
  }): Manager {
    const { identity, bootstrap, address, dir } = options
    return createManager(
      {
        dir,
        identity,
        listenAddress: address,
        advertiseAddress: address,
        bootstrap,
        unlockKey: options.unlockKey ?? null,
        tickMs: 50,
      },
      {
        clock: systemClock,
        rng: systemRng,
        logger: logger.child({ node: identity.nodeId.slice(0, 4) }),
        sealNodeKey: async (secret) => void this.seals.set(identity.nodeId, secret),
      },
    )
  }

  /** The same manager again from its disk. */
  async restart(
    m: LabManager,
    options: { unlockKey?: Uint8Array; force?: boolean; address?: string } = {},
  ): Promise<void> {
    m.address = options.address ?? m.address
    m.manager = this.#make({
      identity: m.identity,
      address: m.address,
      dir: m.dir,
      bootstrap: options.force ? { kind: 'forceNewCluster' } : { kind: 'restart' },
      ...(options.unlockKey ? { unlockKey: options.unlockKey } : {}),
    })
    await m.manager.start()
  }

  leader(): LabManager | undefined {
    return this.managers.find((m) => {
      try {
        return m.manager.status().leading
      } catch {
        return false
      }
    })
  }

  followers(): LabManager[] {
    const leader = this.leader()
    return this.managers.filter((m) => m !== leader)
  }

  async cluster(m = this.managers[0]!) {
    const answer = await m.manager.control.get(GetRequest.create({ kind: ObjectKind.KIND_CLUSTER }))
    return answer.object!.cluster!
  }

  /** Is the key in this manager's state directory wrapped? */
  async isLocked(m: LabManager): Promise<boolean> {
    // Replaced by renaming: always there, and whole.
    return (await readFile(join(m.dir, 'raft', 'keys.json'), 'latin1')).includes('"nonce":"')
  }

  async worker(at = this.managers[0]!): Promise<FakeAgent> {
    const identity = await this.ca.join({
      remote: at.address,
      token: (await this.cluster(at)).rootCa!.workerToken,
      availability: 0,
    })
    const agent = this.agent(identity, at)
    await isReady(at, agent.nodeId)
    return agent
  }

  agent(identity: NodeIdentity, at: LabManager): FakeAgent {
    const agent = new FakeAgent(identity, at.address)
    this.agents.push(agent)
    return agent
  }

  async close(): Promise<void> {
    for (const a of this.agents) a.close()
    await Promise.all(this.managers.map((m) => m.manager.stop()))
    await rm(this.dir, { recursive: true, force: true })
  }
}

/** A service that is made before a node is ready is placed on the others, and rightly stays there. */
export const isReady = (at: LabManager, nodeId: string): Promise<boolean> =>
  until('the node is ready', async () =>
    (await list(at, ObjectKind.KIND_NODE)).some(
      ({ node: n }) => n!.id === nodeId && n!.status?.state === NodeState.NODE_READY,
    ),
  )

/** Speaks the real stream; tasks it is given are reported as running at once unless told otherwise. */
export class FakeAgent {
  readonly tasks = new Map<string, Task>()
  readonly secrets = new Map<string, string>()
  readonly networks = new Map<
    string,
    {
      endpoints: Map<string, NetworkUpdate['endpoints'][number]>
      services: Map<string, NetworkUpdate['services'][number]>
      version: number
    }
  >()
  readonly messages: ManagerMessage[] = []
  members: ClusterMembers | null = null
  session: SessionInfo | null = null
  sessions = 0
  acked = 0
  error: Error | null = null
  version = 0
  gaps = 0
  onLog: ((m: NonNullable<ManagerMessage['log']>) => void) | null = null
  behave: (task: Task) => TaskState | null = (task) =>
    task.desiredState > TaskState.TASK_RUNNING
      ? TaskState.TASK_SHUTDOWN
      : task.desiredState === TaskState.TASK_RUNNING
        ? TaskState.TASK_RUNNING
        : TaskState.TASK_READY
  #client: grpc.Client
  #call: grpc.ClientDuplexStream<AgentMessage, ManagerMessage>
  #beat = systemClock.every(500, () => this.send({ beat: Beat.create() }))
  #sequence = 0

  constructor(
    readonly identity: NodeIdentity,
    readonly address: string,
    description: Partial<NodeDescription> = {},
  ) {
    this.#client = dialGrpc({ address, identity })
    this.#call = openBidi(this.#client, Dispatcher.Session)
    this.#call.on('data', (m: ManagerMessage) => this.#got(m))
    this.#call.on('error', (e: Error) => {
      this.error = e
    })
    this.send({
      register: Register.create({
        description: NodeDescription.create({
          hostname: `host-${identity.nodeId.slice(0, 4)}`,
          platform: Platform.create({ architecture: 'x86_64', os: 'linux' }),
          resources: Resources.create({ nanoCpus: 4e9, memoryBytes: 8 * 2 ** 30 }),
          dataPathAddress: '127.0.0.1',
          ...description,
        }),
      }),
    })
  }

  get nodeId(): string {
    return this.identity.nodeId
  }

  send(fields: Partial<AgentMessage>): void {
    if (!this.error) this.#call.write(AgentMessage.create(fields))
  }

  report(updates: { taskId: string; state: TaskState; message?: string }[]): number {
    this.send({
      statuses: TaskStatusBatch.create({
        sequence: ++this.#sequence,
        updates: updates.map((u) =>
          TaskStatusUpdate.create({
            taskId: u.taskId,
            status: TaskStatus.create({ state: u.state, message: u.message ?? '' }),
          }),
        ),
      }),
    })
    return this.#sequence
  }

  running(): Task[] {
    return [...this.tasks.values()].filter((t) => t.desiredState === TaskState.TASK_RUNNING)
  }

  #got(m: ManagerMessage): void {
    this.messages.push(m)
    if (m.session) {
      this.session = m.session
      this.sessions++
    }
    if (m.members) this.members = m.members
    if (m.ack) this.acked = m.ack.sequence
    if (m.network) this.#network(m.network)
    if (m.assignments) this.#assign(m.assignments)
    if (m.log) this.onLog?.(m.log)
  }

  #network(u: NetworkUpdate): void {
    if (u.withdrawn) {
      this.networks.delete(u.networkId)
      return
    }
    let n = this.networks.get(u.networkId)
    if (u.full) {
      n = { endpoints: new Map(), services: new Map(), version: 0 }
      this.networks.set(u.networkId, n)
    } else if (!n || n.version !== u.fromVersion) this.gaps++
    if (!n) return
    for (const e of u.endpoints) n.endpoints.set(e.id, e)
    for (const e of u.removedEndpoints) n.endpoints.delete(e)
    for (const s of u.services) n.services.set(s.serviceId, s)
    for (const s of u.removedServices) n.services.delete(s)
    n.version = u.toVersion
  }

  #assign(a: Assignments): void {
    if (a.full) {
      this.tasks.clear()
      this.secrets.clear()
    } else if (a.appliesTo !== this.version) this.gaps++
    this.version = a.resultsIn
    const updates: { taskId: string; state: TaskState }[] = []
    for (const u of a.upserts) {
      if (u.secret) this.secrets.set(u.secret.id, Buffer.from(u.secret.spec!.data).toString())
      if (!u.task) continue
      this.tasks.set(u.task.id, u.task)
      const state = this.behave(u.task)
      if (state !== null) updates.push({ taskId: u.task.id, state })
    }
    for (const id of a.removedTasks) this.tasks.delete(id)
    for (const id of a.removedSecrets) this.secrets.delete(id)
    if (updates.length > 0) this.report(updates)
  }

  /** The connection breaks: nothing is said any more. */
  close(): void {
    this.#beat.cancel()
    this.error ??= new Error('closed')
    this.#call.cancel()
    this.#client.close()
  }
}

export const serviceSpec = (name: string, replicas: number, container: Partial<ContainerSpec> = {}): ServiceSpec =>
  ServiceSpec.create({
    annotations: Annotations.create({ name }),
    task: TaskSpec.create({ container: ContainerSpec.create({ image: 'nginx:latest', ...container }) }),
    mode: ServiceMode.create({ replicated: ReplicatedMode.create({ replicas }) }),
  })

export async function createService(m: LabManager, spec: ServiceSpec): Promise<Service> {
  const answer = await m.manager.control.create(CreateRequest.create({ spec: { ...EMPTY_SPEC, service: spec } }))
  return answer.object!.service!
}

export const EMPTY_SPEC = {
  cluster: null,
  node: null,
  service: null,
  network: null,
  secret: null,
  config: null,
  volume: null,
}

export async function list(m: LabManager, kind: ObjectKind, filters: Record<string, string[]> = {}) {
  const answer = await m.manager.control.list(
    ListRequest.create({ kind, filters: Object.entries(filters).map(([key, values]) => ({ key, values })) }),
  )
  return answer.objects
}

export const codeOf = async (promise: Promise<unknown>): Promise<string | null> =>
  promise.then(
    () => null,
    (e: ShoalError) => e.code,
  )
