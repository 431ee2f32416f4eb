import type { SetModel, TableModel } from './table.js'

/** What the host's table must know of one bridge. */
export interface BridgeState {
  readonly bridge: string
  readonly subnet: string
  readonly masquerade: boolean
  /** What masquerading shows outside; "": the address of the interface that a packet leaves by. */
  readonly sourceAddress: string
  readonly internal: boolean
  /** Endpoints of the bridge may reach each other; else only through published ports. */
  readonly interConnected: boolean
}

/** One published port. */
export interface PortForward {
  readonly protocol: 'tcp' | 'udp' | 'sctp'
  /** "" for all addresses of the host. */
  readonly hostIp: string
  readonly hostPort: number
  readonly targetIp: string
  readonly targetPort: number
}

/** One port of an endpoint that another one of its bridge may use, though endpoints of that do not reach each other. */
export interface OpenWay {
  readonly protocol: 'tcp' | 'udp' | 'sctp'
  readonly fromIp: string
  readonly toIp: string
  readonly port: number
}

const setOf = (spec: string, keys: Iterable<string>): SetModel => ({
  kind: 'set',
  spec,
  elements: new Map([...keys].map((k) => [k, ''])),
})
const mapOf = (spec: string, pairs: Iterable<readonly [string, string]>): SetModel => ({
  kind: 'map',
  spec,
  elements: new Map(pairs),
})

const PORTS = 'meta l4proto { tcp, udp, sctp }'

/**
 * The table of this host's own networks: published ports, egress NAT, isolation. Pure.
 *
 * Order in `forw` matters: answers first, then inside one bridge, links, then what a published port let in; only then is
 * everything else towards a bridge dropped, so that networks are isolated and unpublished ports closed also to a
 * neighbour that routes straight to a container. The guard keeps 127.0.0.0/8 closed to the outside although
 * route_localnet is on (published ports on 127.0.0.1 need it).
 */
export function hostTable(
  name: string,
  bridges: readonly BridgeState[],
  forwards: readonly PortForward[],
  ways: readonly OpenWay[],
): TableModel {
  const quoted = (b: BridgeState): string => `"${b.bridge}"`
  return {
    family: 'inet',
    name,
    sets: {
      bridges: setOf('type ifname;', bridges.map(quoted)),
      internal: setOf('type ifname;', bridges.filter((b) => b.internal).map(quoted)),
      same: setOf(
        'type ifname . ifname;',
        bridges.filter((b) => b.interConnected).map((b) => `${quoted(b)} . ${quoted(b)}`),
      ),
      ways: setOf(
        'type ipv4_addr . ipv4_addr . inet_proto . inet_service;',
        ways.map((w) => `${w.fromIp} . ${w.toIp} . ${w.protocol} . ${w.port}`),
      ),
      // By subnet, not by interface: where bridged frames pass by netfilter, postrouting does not know the incoming one.
      hairpin: setOf(
        'type ipv4_addr . ipv4_addr; flags interval;',
        bridges.map((b) => `${b.subnet} . ${b.subnet}`),
      ),
      'nat-nets': setOf(
        'type ipv4_addr; flags interval;',
        bridges.filter((b) => b.masquerade && !b.internal).map((b) => b.subnet),
      ),
      'nat-sources': mapOf(
        'type ipv4_addr : ipv4_addr; flags interval;',
        bridges.filter((b) => b.masquerade && !b.internal && b.sourceAddress).map((b) => [b.subnet, b.sourceAddress]),
      ),
      'pub-any': mapOf(
        'type inet_proto . inet_service : ipv4_addr . inet_service;',
        forwards
          .filter((f) => f.hostIp === '')
          .map((f) => [`${f.protocol} . ${f.hostPort}`, `${f.targetIp} . ${f.targetPort}`]),
      ),
      'pub-addr': mapOf(
        'type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service;',
        forwards
          .filter((f) => f.hostIp !== '')
          .map((f) => [`${f.hostIp} . ${f.protocol} . ${f.hostPort}`, `${f.targetIp} . ${f.targetPort}`]),
      ),
    },
    chains: {
      publish: [
        `${PORTS} dnat ip to ip daddr . meta l4proto . th dport map @pub-addr`,
        `${PORTS} dnat ip to meta l4proto . th dport map @pub-any`,
      ],
      guard: ['type filter hook prerouting priority raw; policy accept;', 'iifname != "lo" ip daddr 127.0.0.0/8 drop'],
      'nat-pre': ['type nat hook prerouting priority dstnat; policy accept;', 'fib daddr type local jump publish'],
      'nat-out': ['type nat hook output priority -100; policy accept;', 'fib daddr type local jump publish'],
      'nat-post': [
        'type nat hook postrouting priority srcnat; policy accept;',
        'ct status dnat ip saddr . ip daddr @hairpin masquerade',
        'ct status dnat ip saddr 127.0.0.0/8 oifname @bridges masquerade',
        'oifname != @bridges snat ip to ip saddr map @nat-sources',
        'ip saddr @nat-nets oifname != @bridges masquerade',
      ],
      forw: [
        'type filter hook forward priority filter; policy accept;',
        'ct state established,related accept',
        'iifname . oifname @same accept',
        `${PORTS} ip saddr . ip daddr . meta l4proto . th dport @ways accept`,
        'ct status dnat iifname != @internal oifname != @internal accept',
        'oifname @bridges drop',
        'iifname @internal drop',
      ],
    },
  }
}
