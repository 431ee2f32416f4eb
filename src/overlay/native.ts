import { createRequire } from 'node:module'

/** One change by rtnetlink. `tolerate`: errno names that count as success, e.g. EEXIST, ENODEV. */
export type LinkOperation = { readonly tolerate?: readonly string[] } & (
  | {
      readonly op: 'linkAdd'
      readonly name: string
      readonly kind: 'bridge' | 'veth' | 'vxlan' | 'macvlan' | 'vlan'
      readonly mtu?: number
      readonly mac?: string
      readonly up?: boolean
      readonly master?: string
      /** Made directly in the namespace bound at this path. */
      readonly netns?: string
      readonly parent?: string
      readonly mode?: string
      readonly vlanId?: number
      readonly vni?: number
      readonly port?: number
      readonly local?: string
      readonly learning?: boolean
      readonly proxy?: boolean
      readonly udpChecksum?: boolean
      readonly peerName?: string
      readonly peerMac?: string
      readonly peerMtu?: number
      readonly peerNetns?: string
    }
  | {
      readonly op: 'linkSet'
      readonly name: string
      readonly up?: boolean
      readonly mtu?: number
      readonly mac?: string
      /** "": no master. */
      readonly master?: string
      readonly rename?: string
      readonly netns?: string
      readonly alias?: string
    }
  | { readonly op: 'linkDel'; readonly name: string }
  | {
      readonly op: 'bridgePort'
      readonly name: string
      readonly learning?: boolean
      readonly flood?: boolean
      readonly hairpin?: boolean
      readonly isolated?: boolean
    }
  | {
      readonly op: 'addrAdd' | 'addrDel'
      readonly dev: string
      readonly address: string
      readonly prefix: number
      readonly broadcast?: string
    }
  | {
      readonly op: 'routeReplace' | 'routeDel'
      /** "default" or CIDR. */
      readonly to: string
      readonly via?: string
      readonly dev?: string
      readonly onlink?: boolean
      readonly table?: number
      readonly metric?: number
      readonly source?: string
    }
  | {
      readonly op: 'ruleAdd' | 'ruleDel'
      readonly priority: number
      readonly table: number
      readonly from?: string
      readonly mark?: number
      readonly mask?: number
    }
  | { readonly op: 'neighReplace'; readonly dev: string; readonly address: string; readonly mac: string }
  | { readonly op: 'neighDel'; readonly dev: string; readonly address: string }
  /** With `dst`: entry of a VXLAN device's own table; without: of the bridge whose port `dev` is. */
  | { readonly op: 'fdbReplace' | 'fdbDel'; readonly dev: string; readonly mac: string; readonly dst?: string }
)

export interface LinkState {
  readonly name: string
  readonly index: number
  readonly kind: string
  readonly mac: string
  readonly mtu: number
  readonly up: boolean
  readonly master: string
  readonly alias: string
  readonly rxBytes: number
  readonly rxPackets: number
  readonly rxErrors: number
  readonly rxDropped: number
  readonly txBytes: number
  readonly txPackets: number
  readonly txErrors: number
  readonly txDropped: number
}

export interface AddressState {
  readonly address: string
  readonly prefix: number
  readonly dev: string
}

export interface RouteState {
  /** CIDR; "default" of IPv4, "::/0" of IPv6. */
  readonly to: string
  readonly via: string
  readonly dev: string
  readonly table: number
}

export interface NeighbourState {
  readonly dev: string
  readonly address: string
  readonly mac: string
}

export interface ConntrackFilter {
  readonly protocol?: 'tcp' | 'udp'
  readonly originalDestination?: string
  readonly originalDestinationPort?: number
  readonly replySources?: readonly string[]
}

/**
 * The addon's network calls (native/addon/net*.cc). `netns` is the path that a namespace is bound to, null the daemon's
 * own. Each call works on a thread of the addon's own. Errors are NativeError.
 */
export interface NetNative {
  netnsCreate(path: string, sysctls: Readonly<Record<string, string>>): Promise<void>
  netnsDelete(path: string): Promise<void>
  netSysctl(netns: string | null, values: Readonly<Record<string, string>>): Promise<void>
  /** An open descriptor that the caller owns. */
  netSocket(
    netns: string | null,
    socket: {
      readonly protocol: 'tcp' | 'udp' | 'sctp'
      readonly address: string
      readonly port: number
      readonly listen?: boolean
      readonly reuseAddress?: boolean
    },
  ): Promise<number>
  netLink(netns: string | null, operations: readonly LinkOperation[]): Promise<void>
  netLinks(netns: string | null): Promise<LinkState[]>
  netAddresses(netns: string | null): Promise<AddressState[]>
  netRoutes(netns: string | null): Promise<RouteState[]>
  netNeighbours(netns: string | null, family: 'ip' | 'bridge'): Promise<NeighbourState[]>
  netNft(netns: string | null, text: string): Promise<string>
  netConntrackDelete(netns: string | null, filter: ConntrackFilter): Promise<number>
  /**
   * Starts a program in this process's namespace with these descriptors as its 3, 4, ... The caller owns `leash`, the other end
   * of the program's stdin.
   */
  netRelay(
    program: string,
    args: readonly string[],
    descriptors: readonly number[],
  ): Promise<{ readonly pid: number; readonly leash: number }>
  /** Resolves when the child has ended; 0: whenever it was started. */
  pidfdWait(pid: number, startTicks: 0): Promise<void>
}

/** What the addon, or Node's own file calls, reject with. */
export interface NativeError extends Error {
  /** errno's name, e.g. EADDRINUSE. */
  readonly code: string
  readonly errno: number
  readonly syscall: string
  readonly path: string
  /** The addon's alone. */
  readonly stage?: string
}

export const isNativeError = (caught: unknown): caught is NativeError => caught instanceof Error && 'syscall' in caught

export const hasErrno = (caught: unknown, ...codes: string[]): boolean =>
  caught instanceof Error && codes.includes((caught as Partial<NativeError>).code ?? '')

let loaded: NetNative | null = null

/** The one place of this room that opens the addon. Throws when it was not built. */
export function loadNetNative(): NetNative {
  loaded ??= createRequire(import.meta.url)('../../native/shoal.node') as NetNative
  return loaded
}
