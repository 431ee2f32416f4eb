import {
  Annotations,
  ClusterSpec,
  ContainerSpec,
  CreateRequest,
  GetRequest,
  ListRequest,
  Node,
  type NodeDescription,
  NodeSpec,
  NodeState,
  NodeStatus,
  type ObjectKind,
  RemoveRequest,
  ReplicatedMode,
  type Service,
  ServiceMode,
  ServiceSpec,
  type Task,
  TaskSpec,
  UpdateRequest,
} from '#proto'
import { newObjectId, systemClock } from '../../../src/common/index.js'
import { createRoot } from '../../../src/manager/ca/index.js'
import { LeaderControl, newCluster } from '../../../src/manager/control/index.js'
import { createStore, type ReplicatedStore } from '../../../src/manager/index.js'
import { MemoryLog } from '../memory-log.js'

export const NOTHING = {
  cluster: null,
  node: null,
  service: null,
  network: null,
  secret: null,
  config: null,
  volume: null,
}
type Specs = Partial<NonNullable<CreateRequest['spec']>>

/** One for all tests of a file: making keys is slow. */
let root: ReturnType<typeof createRoot> | null = null

/** The leader's API over a store of one member, without a network, orchestrators or nodes of its own. */
export class ControlLab {
  readonly control: LeaderControl
  canRemove = true

  private constructor(readonly store: ReplicatedStore) {
    this.control = new LeaderControl({
      store,
      clock: systemClock,
      raft: {
        readBarrier: async () => {},
        canRemove: () => this.canRemove,
        status: () => ({ raftId: 1, leader: 1, leading: true, term: 1, commit: 1, applied: 1, members: this.members }),
      },
      logs: async function* () {},
    })
  }

  members: { raftId: number; nodeId: string; address: string; reachable: boolean; learner: boolean }[] = []

  static async create(): Promise<ControlLab> {
    const store = createStore({ clock: systemClock })
    store.connect(new MemoryLog().proposer(store))
    store.setLeading(true)
    root ??= createRoot(Date.now())
    const init = {
      defaultAddressPool: [],
      subnetSize: 0,
      dataPathPort: 0,
      spec: ClusterSpec.create(),
      availability: 0 as const,
    }
    const made = await root
    await store.update((tx) => tx.create('cluster', newCluster('cluster1', init, made)))
    return new ControlLab(store)
  }

  create(spec: Specs) {
    return this.control.create(CreateRequest.create({ spec: { ...NOTHING, ...spec } }))
  }

  async service(spec: ServiceSpec): Promise<Service> {
    return (await this.create({ service: spec })).object!.service!
  }

  async get(kind: ObjectKind, reference: string) {
    return (await this.control.get(GetRequest.create({ kind, reference }))).object!
  }

  async list(kind: ObjectKind, filters: Record<string, string[]> = {}) {
    const all = Object.entries(filters).map(([key, values]) => ({ key, values }))
    return (await this.control.list(ListRequest.create({ kind, filters: all }))).objects
  }

  async update(kind: ObjectKind, id: string, spec: Specs, more: Partial<UpdateRequest> = {}) {
    const key = Object.keys(spec)[0] ?? 'service'
    const stored = (await this.get(kind, id)) as unknown as Record<string, { meta: { version: { index: number } } }>
    return this.control.update(
      UpdateRequest.create({ kind, id, version: stored[key]!.meta.version, spec: { ...NOTHING, ...spec }, ...more }),
    )
  }

  remove(kind: ObjectKind, id: string, force = false) {
    return this.control.remove(RemoveRequest.create({ kind, id, force }))
  }

  async node(fields: Partial<Node> = {}, description: Partial<NodeDescription> = {}): Promise<Node> {
    const { NodeDescription: D } = await import('#proto')
    const node = Node.create({
      id: newObjectId(),
      spec: NodeSpec.create({ annotations: Annotations.create() }),
      status: NodeStatus.create({ state: NodeState.NODE_READY }),
      description: D.create(description),
      ...fields,
    })
    await this.store.update((tx) => tx.create('node', node))
    return node
  }

  async task(task: Task): Promise<void> {
    await this.store.update((tx) => tx.create('task', task))
  }
}

export const spec = (fields: Partial<ServiceSpec> = {}, container: Partial<ContainerSpec> = {}): ServiceSpec =>
  ServiceSpec.create({
    annotations: Annotations.create({ name: 'web' }),
    task: TaskSpec.create({ container: ContainerSpec.create({ image: 'nginx', ...container }) }),
    mode: ServiceMode.create({ replicated: ReplicatedMode.create({ replicas: 1 }) }),
    ...fields,
  })

export const named = (name: string, labels: Record<string, string> = {}): Annotations =>
  Annotations.create({ name, labels })
