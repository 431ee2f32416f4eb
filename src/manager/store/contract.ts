import type { Cluster, Config, Network, Node, PortProtocol, Secret, Service, StoreAction, Task, Volume } from '#proto'

/** The tables. Each object is a plain, frozen proto object; change one by replacing it whole. */
export interface Tables {
  readonly cluster: Cluster
  readonly node: Node
  readonly service: Service
  readonly task: Task
  readonly network: Network
  readonly secret: Secret
  readonly config: Config
  readonly volume: Volume
}
export type Kind = keyof Tables

/** Reads of one moment. Lists are in order of creation (version index, then id) unless said otherwise. */
export interface ReadView {
  get<K extends Kind>(kind: K, id: string): Tables[K] | null
  list<K extends Kind>(kind: K): readonly Tables[K][]
  /** Without regard to case. Tasks have no names; a node's is its host name, of several the oldest is given. Services told to go have none. */
  byName<K extends Exclude<Kind, 'task'>>(kind: K, name: string): Tables[K] | null
  /** Ids that begin with the prefix, at most `limit`. */
  byIdPrefix<K extends Kind>(kind: K, prefix: string, limit: number): readonly Tables[K][]
  tasksOfService(serviceId: string): readonly Task[]
  tasksOfNode(nodeId: string): readonly Task[]
  tasksOfSlot(serviceId: string, slot: number): readonly Task[]
  /** Services or tasks that refer to it. */
  servicesUsingNetwork(networkId: string): readonly Service[]
  servicesUsingSecret(secretId: string): readonly Service[]
  servicesUsingConfig(configId: string): readonly Service[]
  tasksUsingNetwork(networkId: string): readonly Task[]
  /** Services that publish this port in either mode, as wanted in the spec or as allocated. */
  servicesPublishing(protocol: PortProtocol, publishedPort: number): readonly Service[]
  /** The one cluster object; null before the first manager wrote it. */
  cluster(): Cluster | null
}

/** Reads see the transaction's own writes. Throwing inside abandons it whole. */
export interface Transaction extends ReadView {
  /** Throws conflict `nameInUse` | `exists`. The version is filled in when applied. */
  create<K extends Kind>(kind: K, object: Tables[K]): void
  /** Throws conflict `outOfSequence` ("update out of sequence") unless meta.version is the stored one; notFound when gone. */
  update<K extends Kind>(kind: K, object: Tables[K]): void
  remove(kind: Kind, id: string): void
}

export type StoreEvent = {
  readonly [K in Kind]:
    | { readonly action: 'create'; readonly kind: K; readonly object: Tables[K]; readonly old: null }
    | { readonly action: 'update'; readonly kind: K; readonly object: Tables[K]; readonly old: Tables[K] }
    | { readonly action: 'remove'; readonly kind: K; readonly object: Tables[K]; readonly old: Tables[K] }
}[Kind]

/** The changes of one commit, in order, with the version they made. A restore from a snapshot rings with `reset`. */
export interface Commit {
  readonly version: number
  readonly events: readonly StoreEvent[]
  readonly reset: boolean
}

export interface Store {
  /** Raft index last applied. */
  readonly version: number
  /** The applied state. Cheap; stays as it was while later commits come. */
  view(): ReadView
  /**
   * Runs `fn` at once against applied state plus the transactions in flight, proposes its writes, resolves with fn's value when
   * they are applied here. On a member that does not lead: unavailable `notLeader`. Outcome unknown: unavailable `outcomeUnknown`.
   * `fn` is synchronous and may be run only once.
   */
  update<T>(fn: (tx: Transaction) => T): Promise<T>
  /** Many small writes: each `fn` is a transaction of its own, packed into few entries; one that throws conflicts alone. */
  batch(fns: readonly ((tx: Transaction) => void)[]): Promise<readonly (Error | null)[]>
  /** Rings inside apply, after the commit is visible in view(). */
  onCommit(listener: (commit: Commit) => void): () => void
  /** Snapshot of now and every commit after it, with nothing between lost. */
  viewAndWatch(listener: (commit: Commit) => void): { readonly view: ReadView; readonly stop: () => void }
}

/** What the store needs of Raft; raft's RaftNode satisfies it. */
export interface Proposer {
  propose(actions: readonly StoreAction[]): Promise<import('../../raft/index.js').ProposalOutcome>
}
