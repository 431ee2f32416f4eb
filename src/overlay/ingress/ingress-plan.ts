import type { ClusterMember } from '#proto'
import { PortProtocol, PublishMode } from '#proto'
import { slotsFor } from '../balancer/container-table.js'
import type { TableModel } from '../firewall/table.js'
import { addressAt, macOf, parseCidr } from '../ipam/ip.js'
import { type ForwardingPlan, type PlanEntry, planOf } from '../swarm/forwarding-plan.js'
import { type NetworkState, readyAddresses } from '../swarm/network-state.js'

/**
 * The routing mesh that keeps the client's address. Path of a connection:
 *
 *   client -> any node: DNAT to a task's address, no SNAT -> ingress sandbox of that node
 *          -> routed hop to the gateway of the task's node -> task
 *   task -> its node's gateway, which remembers by conntrack which gateway the flow came from -> that gateway -> client
 *
 * Each node's gateway is known by a MAC address made of its ingress_index. Its IP address is only a name for the
 * neighbour entry and never seen on the wire.
 */
export const MARK = 0x10000
/** Routing table of flows that go back to another node. */
export const RETURN_TABLE = 100
export const RETURN_PRIORITY = 100
/** Stands for "the node that the flow came from"; its MAC is rewritten for each flow on the way out. */
const RETURN_MAC = '02:42:ff:ff:ff:fe'
/** Keeps the marks that choose a backend apart from small marks that others may route by. */
const PICK_BASE = 0x5e000000

export interface Gateways {
  addressOf(index: number): string
  macOf(index: number): string
  readonly returnAddress: string
  readonly returnMac: string
}

/** `block`: a /15 or wider; index counts from its start. */
export function gateways(block: string): Gateways {
  const gateways = parseCidr(block)!
  const addressOf = (index: number): string => addressAt(gateways, index)
  return {
    addressOf,
    macOf: (index) => macOf(addressOf(index)),
    returnAddress: addressAt(gateways, 0x1fffe),
    returnMac: RETURN_MAC,
  }
}

const others = (members: readonly ClusterMember[], selfNodeId: string): ClusterMember[] =>
  members.filter((m) => m.nodeId !== selfNodeId && m.ingressIndex > 0 && m.dataPathAddress !== '')

/** Entries of the ingress sandbox: every other node's gateway, and each remote task behind its node's. Pure. */
export function ingressPlan(
  state: NetworkState,
  members: readonly ClusterMember[],
  selfNodeId: string,
  localAddresses: ReadonlySet<string>,
  g: Gateways,
): ForwardingPlan {
  const entries: PlanEntry[] = []
  const indexes = new Map<string, number>()
  for (const m of others(members, selfNodeId)) {
    indexes.set(m.nodeId, m.ingressIndex)
    const mac = g.macOf(m.ingressIndex)
    entries.push({ kind: 'fdb', dev: 'vxlan0', key: mac, value: m.dataPathAddress })
    entries.push({ kind: 'neigh', dev: 'br0', key: g.addressOf(m.ingressIndex), value: mac })
  }
  entries.push({ kind: 'neigh', dev: 'br0', key: g.returnAddress, value: g.returnMac })
  for (const e of Object.values(state.endpoints)) {
    const index = indexes.get(e.nodeId)
    if (index === undefined || localAddresses.has(e.address)) continue
    entries.push({ kind: 'route', dev: 'br0', key: e.address, value: g.addressOf(index) })
  }
  return planOf(entries)
}

/** Tables of the ingress sandbox: which node a flow came from, and back to it. Constant but for one element a node. */
export function sandboxTables(
  name: string,
  members: readonly ClusterMember[],
  selfNodeId: string,
  g: Gateways,
): { readonly ip: TableModel; readonly bridge: TableModel } {
  const nodes = others(members, selfNodeId).map((m) => ({ mac: g.macOf(m.ingressIndex), index: m.ingressIndex }))
  const mark = `0x${MARK.toString(16)}`
  return {
    ip: {
      family: 'ip',
      name,
      sets: {
        'node-id': {
          kind: 'map',
          spec: 'type ether_addr : mark;',
          elements: new Map(nodes.map((n) => [n.mac, String(MARK + n.index)])),
        },
        // Zones of the original direction: the same client address and port through two nodes are two flows.
        'node-zone': {
          kind: 'map',
          spec: 'typeof ether saddr : ct zone;',
          elements: new Map(nodes.map((n) => [n.mac, String(n.index)])),
        },
      },
      chains: {
        early: [
          'type filter hook prerouting priority raw; policy accept;',
          'iifname "br0" ct original zone set ether saddr map @node-zone',
        ],
        'mark-in': [
          'type filter hook prerouting priority mangle; policy accept;',
          'iifname "br0" ct direction original ct mark set ether saddr map @node-id',
          'iifname "br0" ct direction reply ct mark != 0 meta mark set ct mark',
        ],
        // Empty but needed: with it conntrack resolves clashes of two flows by another source port.
        post: ['type nat hook postrouting priority srcnat; policy accept;'],
      },
    },
    bridge: {
      family: 'bridge',
      name,
      sets: {
        'node-mac': {
          kind: 'map',
          spec: 'type mark : ether_addr;',
          elements: new Map(nodes.map((n) => [String(MARK + n.index), n.mac])),
        },
      },
      chains: {
        out: [
          'type filter hook output priority 0; policy accept;',
          `meta mark & ${mark} == ${mark} ether daddr ${g.returnMac} ether daddr set meta mark map @node-mac`,
        ],
      },
    },
  }
}

/** A port that every node publishes. */
export interface MeshPort {
  readonly protocol: 'tcp' | 'udp' | 'sctp'
  readonly publishedPort: number
  readonly targetPort: number
  /** Ready tasks' addresses on the ingress network, sorted. */
  readonly backends: readonly string[]
}

const PROTOCOLS = { [PortProtocol.TCP]: 'tcp', [PortProtocol.UDP]: 'udp', [PortProtocol.SCTP]: 'sctp' } as const

export function meshPorts(s: NetworkState): MeshPort[] {
  return Object.values(s.services).flatMap((v) =>
    v.ports
      .filter((p) => p.publishMode === PublishMode.INGRESS && p.publishedPort > 0)
      .map((p) => ({
        protocol: PROTOCOLS[p.protocol],
        publishedPort: p.publishedPort,
        targetPort: p.targetPort,
        backends: readyAddresses(s, v.serviceId),
      })),
  )
}

/**
 * The host's table of the cluster: VXLAN only from members, published ports of services. A port's verdict depends only
 * on its number of backends, as with virtual addresses (balancer/). A port without backends stays with the bound socket
 * that reserves it, which refuses. Pure.
 */
export function clusterTable(
  name: string,
  link: string,
  members: readonly string[],
  dataPathPort: number,
  ports: readonly MeshPort[],
): TableModel {
  const verdicts = new Map<string, string>()
  const be = new Map<string, string>()
  const chains: Record<string, string[]> = {}
  for (const p of ports) {
    const slots = slotsFor(p.backends.length)
    if (slots === 0) continue
    verdicts.set(`${p.protocol} . ${p.publishedPort}`, `goto lb${slots}`)
    for (let i = 0; i < slots; i++)
      be.set(
        `${PICK_BASE + i} . ${p.protocol} . ${p.publishedPort}`,
        `${p.backends[i % p.backends.length]} . ${p.targetPort}`,
      )
    chains[`lb${slots}`] ??= [
      `meta mark set numgen random mod ${slots} offset ${PICK_BASE}`,
      'meta l4proto { tcp, udp, sctp } dnat ip to meta mark . meta l4proto . th dport map @be',
    ]
  }
  const pick = 'fib daddr type local meta l4proto . th dport vmap @ports'
  const dead = 'ip daddr @dead meta l4proto tcp reject with tcp reset'
  return {
    family: 'inet',
    name,
    sets: {
      nodes: { kind: 'set', spec: 'type ipv4_addr;', elements: new Map(members.map((m) => [m, ''])) },
      ports: { kind: 'map', spec: 'type inet_proto . inet_service : verdict;', elements: verdicts },
      be: {
        kind: 'map',
        spec: 'type mark . inet_proto . inet_service : ipv4_addr . inet_service;',
        elements: be,
      },
      dead: { kind: 'set', spec: 'type ipv4_addr; flags timeout;', elements: new Map() },
    },
    chains: {
      ...chains,
      guard: ['type filter hook prerouting priority raw; policy accept;', 'iifname != "lo" ip daddr 127.0.0.0/8 drop'],
      'vx-in': [
        'type filter hook input priority filter; policy accept;',
        `udp dport ${dataPathPort} ip saddr != @nodes drop`,
      ],
      'nat-pre': ['type nat hook prerouting priority dstnat; policy accept;', pick],
      'nat-out': ['type nat hook output priority -100; policy accept;', pick],
      'nat-post': [
        'type nat hook postrouting priority srcnat; policy accept;',
        `ip saddr 127.0.0.0/8 oifname "${link}" masquerade`,
      ],
      forw: ['type filter hook forward priority filter; policy accept;', dead],
      outf: ['type filter hook output priority filter; policy accept;', dead],
    },
  }
}
