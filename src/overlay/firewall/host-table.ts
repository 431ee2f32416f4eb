import { isV6 } from '../ipam/ip.js'
import type { SetModel, TableModel } from './table.js'

/** What the host's table must know of one bridge. */
export interface BridgeState {
  readonly bridge: string
  readonly subnet: string
  /** "": it has no IPv6. */
  readonly subnet6: string
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
  /** "" for all addresses of the host that are of the target's family. */
  readonly hostIp: string
  readonly hostPort: number
  /** Of the family of `hostIp`. */
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

/** What there is of both families: `v` is "" or "6" in the names of sets. */
function familySets(
  v: '' | '6',
  bridges: readonly { readonly subnet: string; readonly isMasqueraded: boolean }[],
  forwards: readonly PortForward[],
): Record<string, SetModel> {
  const type = v === '' ? 'ipv4_addr' : 'ipv6_addr'
  const target = (f: PortForward): string => `${f.targetIp} . ${f.targetPort}`
  return {
    // By subnet, not by interface: where bridged frames pass by netfilter, postrouting does not know the incoming one.
    [`hairpin${v}`]: setOf(
      `type ${type} . ${type}; flags interval;`,
      bridges.map((b) => `${b.subnet} . ${b.subnet}`),
    ),
    [`nat-nets${v}`]: setOf(
      `type ${type}; flags interval;`,
      bridges.filter((b) => b.isMasqueraded).map((b) => b.subnet),
    ),
    [`pub-any${v}`]: mapOf(
      `type inet_proto . inet_service : ${type} . inet_service;`,
      forwards.filter((f) => f.hostIp === '').map((f) => [`${f.protocol} . ${f.hostPort}`, target(f)]),
    ),
    [`pub-addr${v}`]: mapOf(
      `type ${type} . inet_proto . inet_service : ${type} . inet_service;`,
      forwards.filter((f) => f.hostIp !== '').map((f) => [`${f.hostIp} . ${f.protocol} . ${f.hostPort}`, target(f)]),
    ),
  }
}

/**
 * The table of this host's own networks: published ports, egress NAT, isolation. Pure.
 *
 * Order in `forw` matters: answers first, then inside one bridge, links, then what a published port let in; only then is
 * everything else towards a bridge dropped, so that networks are isolated and unpublished ports closed also to a
 * neighbour that routes straight to a container. The guard keeps 127.0.0.0/8 closed to the outside although
 * route_localnet is on (published ports on 127.0.0.1 need it). IPv6 has no such switch: what goes to ::1 is left to the relay.
 * `withIpv6`: else IPv6 passes as if there were no table.
 */
export function hostTable(
  name: string,
  bridges: readonly BridgeState[],
  forwards: readonly PortForward[],
  ways: readonly OpenWay[],
  withIpv6: boolean,
): TableModel {
  const family = (v6: boolean) => ({
    bridges: bridges
      .map((b) => ({ subnet: v6 ? b.subnet6 : b.subnet, isMasqueraded: b.masquerade && !b.internal }))
      .filter((b) => b.subnet !== '' && (withIpv6 || !v6)),
    forwards: forwards.filter((f) => isV6(f.targetIp) === v6 && (withIpv6 || !v6)),
  })
  const v4 = family(false)
  const v6 = family(true)
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
      ...familySets('', v4.bridges, v4.forwards),
      ...familySets('6', v6.bridges, v6.forwards),
      'nat-sources': mapOf(
        'type ipv4_addr : ipv4_addr; flags interval;',
        bridges.filter((b) => b.masquerade && !b.internal && b.sourceAddress).map((b) => [b.subnet, b.sourceAddress]),
      ),
    },
    chains: {
      publish: [
        `${PORTS} dnat ip to ip daddr . meta l4proto . th dport map @pub-addr`,
        `${PORTS} dnat ip to meta l4proto . th dport map @pub-any`,
        'ip6 daddr ::1 return',
        `${PORTS} dnat ip6 to ip6 daddr . meta l4proto . th dport map @pub-addr6`,
        `${PORTS} dnat ip6 to meta l4proto . th dport map @pub-any6`,
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
        'ct status dnat ip6 saddr . ip6 daddr @hairpin6 masquerade',
        'ip6 saddr @nat-nets6 oifname != @bridges masquerade',
      ],
      forw: [
        'type filter hook forward priority filter; policy accept;',
        ...(withIpv6 ? [] : ['meta nfproto ipv6 accept']),
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
