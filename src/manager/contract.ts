import type {
  AttachNetworkRequest,
  AttachNetworkResponse,
  CreateRequest,
  CreateResponse,
  GetRequest,
  GetResponse,
  ListRequest,
  ListResponse,
  Network,
  Node,
  RemoveRequest,
  ServiceLogsRequest,
  ServiceLogsResponse,
  ServiceStatusRequest,
  ServiceStatusResponse,
  UpdateRequest,
  UpdateResponse,
  WatchEvent,
  WatchRequest,
} from '#proto'
import type { TlsIdentity } from '../common/grpc/index.js'
import type { Clock, Rng, ShoalError } from '../common/index.js'
import type { Logger } from '../common/log.js'
import type { RaftNodeStatus } from '../raft/index.js'

/**
 * The cluster's API as the Engine API's routes use it; the same calls as proto/control.proto. On a manager that does not
 * lead each call is passed to the leader. No leader for 10 s: unavailable `noLeader` with Docker's sentence.
 */
export interface ControlApi {
  list(request: ListRequest): Promise<ListResponse>
  get(request: GetRequest): Promise<GetResponse>
  create(request: CreateRequest): Promise<CreateResponse>
  update(request: UpdateRequest): Promise<UpdateResponse>
  remove(request: RemoveRequest): Promise<void>
  serviceStatuses(request: ServiceStatusRequest): Promise<ServiceStatusResponse>
  attachNetwork(request: AttachNetworkRequest): Promise<AttachNetworkResponse>
  watch(request: WatchRequest, signal: AbortSignal): AsyncIterable<WatchEvent>
  logs(request: ServiceLogsRequest, signal: AbortSignal): AsyncIterable<ServiceLogsResponse>
}

/** What any node asks of the managers for its single containers on attachable networks. */
export interface AttachmentClient {
  /** By id or name; null: the cluster has none such. */
  network(reference: string): Promise<Network | null>
  /** Resolves with an address given. forbidden `notAttachable` for networks of services only. */
  attach(request: AttachNetworkRequest): Promise<AttachNetworkResponse>
  /** Gives the address back. Idempotent. */
  detach(taskId: string): Promise<void>
}

/** Key and certificates of a node, PEM, and what the certificate says. */
export interface NodeIdentity extends TlsIdentity {
  readonly nodeId: string
  readonly clusterId: string
  readonly role: 'manager' | 'worker'
  readonly expiresAtMs: number
}

export interface ClusterInit {
  /** IPv4 CIDRs, default 10.0.0.0/8. */
  readonly defaultAddressPool: readonly string[]
  readonly subnetSize: number
  readonly dataPathPort: number
  readonly spec: import('#proto').ClusterSpec
  readonly availability: import('#proto').NodeAvailability
}

export interface ManagerOptions {
  /** <data-root>/swarm: raft/ below it. */
  readonly dir: string
  readonly identity: NodeIdentity
  readonly listenAddress: string
  readonly advertiseAddress: string
  readonly bootstrap:
    | { readonly kind: 'restart' }
    /** `root` from ca's createRoot; identity was issued by it. */
    | {
        readonly kind: 'create'
        readonly init: ClusterInit
        readonly root: { readonly cert: string; readonly key: string }
      }
    | { readonly kind: 'join'; readonly remote: string }
    | { readonly kind: 'forceNewCluster' }
  readonly unlockKey: Uint8Array | null
  readonly tickMs: number
}

export interface ManagerModules {
  readonly clock: Clock
  readonly rng: Rng
  readonly logger: Logger
  /** Has the node's private key on disk sealed with this from now on; null: in clear. Resolves when it is so. */
  readonly sealNodeKey: (secret: Uint8Array | null) => Promise<void>
}

export interface Manager {
  readonly control: ControlApi
  /** Listens, starts Raft, joins or creates; resolves when this member is a voter and a leader is known. */
  start(): Promise<void>
  /** Hands leadership over first when it leads. */
  stop(): Promise<void>
  /** The log is read: from here on `status` and `control` can be asked. */
  readonly isStarted: boolean
  status(): RaftNodeStatus
  /** New connections use the renewed certificate. */
  setIdentity(identity: NodeIdentity): void
  /** Removed from the cluster by others: the owner stops it and wipes its directory. */
  onRemoved(listener: () => void): () => void
  /** Its log cannot be written: it takes part no more. The owner stops it; another one may be started from its disk. */
  onFailed(listener: (error: ShoalError) => void): () => void
  /**
   * A new key and certificate for this node, which is the only manager: when its certificate has run out there is nobody else to ask.
   * Throws unavailable `notAlone` where there are others.
   */
  renewAlone(): Promise<NodeIdentity>
  /** Those that may wrap the data key on this disk now, the likeliest first; empty when it lies there in clear. */
  unlockKeys(): readonly Uint8Array[]
  /** This node's object as the local replica has it. */
  self(): Node | null
  /** The leader's host:port, or null. */
  leaderAddress(): string | null
  /**
   * The file of `shoal swarm backup`, piece by piece: the state as it is when everything that was acknowledged before the
   * call is applied here. Holds all secrets of the cluster; sealed with the unlock key where managers are locked.
   */
  backup(): Promise<Iterable<Uint8Array>>
  /** The cluster's unlock key as all managers share it; empty when managers are not locked. */
  unlockKey(): Promise<Uint8Array>
}

/** What a joining or renewing node needs of the CA (proto/ca.proto), used by the daemon. */
export interface CaClient {
  /** Creates root, first manager's key and certificate. */
  createRoot(): Promise<{ readonly cert: string; readonly key: string }>
  issueFirst(
    root: { readonly cert: string; readonly key: string },
    options: { readonly clusterId: string; readonly nodeId: string; readonly expiryMs: number },
  ): Promise<NodeIdentity>
  /** Checks the token's form first; fetches the root, compares its digest with the token's, asks for a certificate. */
  join(options: {
    readonly remote: string
    readonly token: string
    readonly availability: import('#proto').NodeAvailability
    /** Be admitted again under this id: the certificate ran out while the node was off. */
    readonly nodeId?: string
  }): Promise<NodeIdentity>
  /** With the certificate it has; the answer's role is what the cluster wants now. */
  renew(options: { readonly remotes: readonly string[]; readonly identity: NodeIdentity }): Promise<NodeIdentity>
}
