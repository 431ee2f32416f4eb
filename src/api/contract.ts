import type { Builder } from '../build/index.js'
import type { Clock, Rng } from '../common/index.js'
import type { Logger } from '../common/log.js'
import type { Engine, PluginService } from '../engine/index.js'
import type { AttachmentClient, ControlApi } from '../manager/index.js'
import type { Authorizer } from './authorization.js'

export type LocalNodeState = 'inactive' | 'pending' | 'active' | 'error' | 'locked'

/** This node's place in a swarm, as `docker info` shows it. */
export interface ClusterState {
  readonly localNodeState: LocalNodeState
  readonly nodeId: string
  readonly nodeAddress: string
  readonly controlAvailable: boolean
  readonly error: string
  readonly remoteManagers: readonly { readonly nodeId: string; readonly address: string }[]
}

export interface SwarmInitRequest {
  readonly listenAddress: string
  readonly advertiseAddress: string
  readonly dataPathAddress: string
  readonly dataPathPort: number
  readonly defaultAddressPool: readonly string[]
  readonly subnetSize: number
  readonly forceNewCluster: boolean
  readonly availability: import('#proto').NodeAvailability
  readonly spec: import('#proto').ClusterSpec
}

export interface SwarmJoinRequest {
  readonly listenAddress: string
  readonly advertiseAddress: string
  readonly dataPathAddress: string
  readonly remoteAddresses: readonly string[]
  readonly token: string
  readonly availability: import('#proto').NodeAvailability
}

export interface SwarmRestoreRequest {
  readonly listenAddress: string
  readonly advertiseAddress: string
  readonly dataPathAddress: string
  /** Leaves the swarm that this node is in first. */
  readonly force: boolean
  /** As `swarm unlock-key` shows it, for a backup of locked managers; empty: none. */
  readonly unlockKey: string
  readonly file: AsyncIterable<Uint8Array>
}

/** What the swarm routes need of the daemon. */
export interface ClusterBackend {
  state(): ClusterState
  /** Resolves with the node id. */
  init(request: SwarmInitRequest): Promise<string>
  join(request: SwarmJoinRequest): Promise<void>
  /** The file of `shoal swarm backup`; holds all secrets of the cluster. */
  backup(): Promise<Iterable<Uint8Array>>
  /** A cluster of this node alone from such a file; resolves with the node id. A bad file changes nothing. */
  restore(request: SwarmRestoreRequest): Promise<string>
  leave(force: boolean): Promise<void>
  unlock(key: string): Promise<void>
  /** The cluster's API; throws unavailable with docker's sentence where this node is no manager. */
  control(): ControlApi
  /** For single containers on networks of the cluster, on any node of it; null while in no swarm. */
  attachments(): { readonly client: AttachmentClient; readonly nodeId: string } | null
  /** As docker swarm unlock-key shows it; empty without autolock. */
  unlockKey(): Promise<string>
}

/** What the daemon knows and /info, /version show. */
export interface SystemFacts {
  readonly id: string
  readonly name: string
  readonly version: string
  readonly gitCommit: string
  readonly buildTime: string
  readonly dataRoot: string
  readonly labels: readonly string[]
  readonly debug: boolean
  readonly experimental: boolean
  readonly liveRestore: boolean
  readonly storageDriver: string
  readonly loggingDriver: string
  readonly cgroupVersion: '1' | '2'
  readonly runtimes: Readonly<Record<string, { readonly path: string; readonly runtimeArgs?: readonly string[] }>>
  readonly defaultRuntime: string
  readonly insecureRegistries: readonly string[]
  readonly registryMirrors: readonly string[]
  readonly defaultAddressPools: readonly { readonly base: string; readonly size: number }[]
  readonly initBinary: string
  readonly startedMs: number
  /** builtin, unconfined, or the file. */
  readonly seccompProfile: string
  readonly noNewPrivileges: boolean
  /** Origin that browsers may call from; "": none. */
  readonly corsHeader: string
  /** Missing kernel features and insecure settings. */
  readonly warnings: readonly string[]
}

export interface ApiModules {
  /** Those that every request must be allowed by, in this order. */
  readonly authorizers: () => readonly Authorizer[]
  readonly engine: Engine
  readonly builder: Builder
  readonly plugins: PluginService
  readonly cluster: ClusterBackend
  readonly facts: SystemFacts
  readonly clock: Clock
  readonly rng: Rng
  readonly logger: Logger
  /** Bytes written to a unix socket that its reader has not taken (SIOCOUTQ of unix(7), with the kernel's own overhead). */
  readonly unreadBytes: (fd: number) => number
}

export const API_VERSION = '1.50'
export const MIN_API_VERSION = '1.12'
