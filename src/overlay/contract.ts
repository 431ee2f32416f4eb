import type { ClusterMembers, Network, NetworkUpdate } from '#proto'

/** A block of IPv4 or IPv6 addresses of a network; of each family there may be several, those of IPv4 come first. */
export interface IpamPool {
  readonly subnet: string
  /** The subnet was chosen here: nobody may rely on its addresses. */
  readonly isAutomatic?: boolean
  readonly range?: string
  readonly gateway?: string
  readonly reserved?: Readonly<Record<string, string>>
  /** What the IPAM plugin calls it, where one keeps the network's addresses. */
  readonly poolId?: string
}

/** A network of this host only (bridge, host, none, macvlan, a plugin's), as the Engine API's create body gives it. */
export interface LocalNetworkSpec {
  readonly name: string
  /** bridge, macvlan, or the name of a plugin that is a NetworkDriver; host and none exist from the start. */
  readonly driver: string
  readonly internal: boolean
  readonly attachable: boolean
  /** Endpoints get an IPv6 address too; pools of IPv6 are left out of networks without. */
  readonly ipv6: boolean
  readonly ipam: {
    /** "default", "null" (no addresses), or the name of a plugin that is an IpamDriver. */
    readonly driver: string
    readonly options: Readonly<Record<string, string>>
    readonly pools: readonly IpamPool[]
    /** Of IPv6, as given to a network without it: shown; an address may be wished for and is not given, as with dockerd. */
    readonly idlePools?: readonly IpamPool[]
  }
  readonly options: Readonly<Record<string, string>>
  readonly labels: Readonly<Record<string, string>>
  readonly configOnly: boolean
  readonly configFrom: string | null
}

export interface NetworkRecord extends LocalNetworkSpec {
  /** 64 hexadecimal digits (local) or 25 characters of base 36 (swarm). */
  readonly id: string
  readonly scope: 'local' | 'swarm'
  readonly createdMs: number
  readonly ingress: boolean
  /** VNIs etc. of swarm networks. */
  readonly driverState: Readonly<Record<string, string>>
}

export interface EndpointRecord {
  readonly networkId: string
  readonly endpointId: string
  readonly sandboxId: string
  readonly name: string
  readonly macAddress: string
  /** Plain addresses and prefix lengths; empty and 0 where there is none. */
  readonly ipv4Address: string
  readonly ipv4PrefixLength: number
  readonly gateway: string
  readonly ipv6Address: string
  readonly ipv6PrefixLength: number
  readonly ipv6Gateway: string
  readonly aliases: readonly string[]
  /** All names that resolve to it on this network. */
  readonly dnsNames: readonly string[]
  readonly interfaceName: string
}

export interface JoinRequest {
  /** Wanted address; the manager's choice for tasks (no prefix length). Absent: the pool's next. */
  readonly ipv4Address?: string
  readonly ipv6Address?: string
  /** Besides: of 169.254.0.0/16 or fe80::/10. */
  readonly linkLocalAddresses?: readonly string[]
  readonly macAddress?: string
  readonly aliases?: readonly string[]
  /** Names that only this sandbox has for others of the network, who need not be there: alias to name. */
  readonly links?: Readonly<Record<string, string>>
  readonly driverOptions?: Readonly<Record<string, string>>
  /** Decides the default route: higher wins; equal: bridge-like external networks by name. */
  readonly gatewayPriority?: number
}

export interface PortPublication {
  readonly containerPort: number
  readonly protocol: 'tcp' | 'udp' | 'sctp'
  /** Empty: all addresses of the host, of both families, on one port number: two publications as bound. */
  readonly hostIp: string
  /** 0: chosen from 32768-60999. */
  readonly hostPort: number
  /** For a range, last port of it. */
  readonly hostPortEnd?: number
}

/** A legacy link: names for another sandbox, and its ports, which are open also where endpoints do not reach each other. */
export interface SandboxLink {
  readonly address: string
  readonly names: readonly string[]
  readonly ports: readonly { readonly protocol: 'tcp' | 'udp' | 'sctp'; readonly port: number }[]
}

export interface SandboxSpec {
  /** Container id. */
  readonly id: string
  /** Container name: resolves on every user-defined network it joins. */
  readonly name: string
  readonly hostname: string
  readonly domainname: string
  /** "private": a namespace of its own; "host"; "none": its own with only lo; "container:<sandbox id>" shares. */
  readonly mode: 'private' | 'host' | 'none' | { readonly shareWith: string }
  readonly dns: {
    readonly servers: readonly string[]
    readonly search: readonly string[]
    readonly options: readonly string[]
  }
  readonly extraHosts: readonly string[]
  readonly links?: readonly SandboxLink[]
  readonly sysctls: Readonly<Record<string, string>>
  /** Where the engine wants /etc/hosts, /etc/resolv.conf and /etc/hostname of this container written. */
  readonly filesDir: string
}

export interface Sandbox {
  readonly id: string
  /** To be given to the runtime as the network namespace's path; null for host mode. */
  readonly netnsPath: string | null
  readonly endpoints: readonly EndpointRecord[]
  /** As bound. */
  readonly ports: readonly PortPublication[]
}

export interface InterfaceStats {
  readonly name: string
  readonly rxBytes: number
  readonly rxPackets: number
  readonly rxErrors: number
  readonly rxDropped: number
  readonly txBytes: number
  readonly txPackets: number
  readonly txErrors: number
  readonly txDropped: number
}

/**
 * All networking of one host. Local networks and sandboxes are durable: after a daemon restart the same sandboxes are
 * found again (live ones untouched, dead ones of `keep` forgotten). What plugins were asked for is recorded, so that it is
 * given back whatever happens (plugins/debts.ts). Errors: conflict `networkNameInUse`, forbidden
 * `networkInUse` | `predefinedNetwork`, conflict `portInUse` naming address, port and protocol, invalid `subnetOverlap`,
 * unavailable `noFreeAddress` naming the network, notFound `noSuchPlugin`, and what plugins say (`pluginFailed`,
 * `pluginUnreachable`, `pluginTimeout`).
 */
export interface NetworkService {
  /** `keep`: ids of the sandboxes whose containers still live; everything else of ours in the kernel is removed. */
  start(keep: ReadonlySet<string>): Promise<void>
  /** Leaves live sandboxes as they are. */
  stop(): Promise<void>

  /** `sameName`: other networks may have its name too; they are told apart by id. */
  createNetwork(spec: LocalNetworkSpec, sameName?: boolean): Promise<NetworkRecord>
  removeNetwork(id: string): Promise<void>
  /** Local networks, and the swarm's that this node takes part in. */
  networks(): readonly NetworkRecord[]
  /** By full id, name, or id prefix; notFound `noSuchNetwork`, invalid `ambiguousNetwork`. */
  findNetwork(reference: string): NetworkRecord
  endpoints(networkId: string): readonly EndpointRecord[]

  createSandbox(spec: SandboxSpec): Promise<Sandbox>
  sandbox(id: string): Sandbox | null
  join(sandboxId: string, networkId: string, request: JoinRequest): Promise<EndpointRecord>
  leave(sandboxId: string, networkId: string): Promise<void>
  /** Replaces the sandbox's published ports; all or none. Resolves with the ports as bound. */
  publish(sandboxId: string, ports: readonly PortPublication[]): Promise<readonly PortPublication[]>
  /** Replaces its legacy links. */
  setLinks(sandboxId: string, links: readonly SandboxLink[]): Promise<void>
  /** Idempotent. Frees addresses, ports, interfaces, namespace. */
  deleteSandbox(id: string): Promise<void>
  stats(sandboxId: string): Promise<readonly InterfaceStats[]>
  rename(sandboxId: string, name: string): Promise<void>

  // -------- the cluster's side; state comes from managers and is kept on disk, so that it is served while none answers
  /** This node joined (or is again in) a cluster. `dataPathAddress` is the source of its VXLAN packets. */
  clusterJoined(self: { readonly nodeId: string; readonly dataPathAddress: string }): Promise<void>
  /** Left: all swarm networks and their state are removed. */
  clusterLeft(): Promise<void>
  applyMembers(members: ClusterMembers): Promise<void>
  /** Full or incremental; resolves when the kernel has it. */
  applyNetworkUpdate(update: NetworkUpdate): Promise<void>
  /** Makes a swarm network usable here before the first update came (a task brings its own copy of the network). */
  ensureSwarmNetwork(network: Network): Promise<NetworkRecord>
}
