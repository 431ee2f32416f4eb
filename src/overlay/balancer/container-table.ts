import type { TableModel } from '../firewall/table.js'

/** A service as one container sees it on one of its networks. */
export interface BalancedService {
  readonly virtualIp: string
  /** Addresses of ready tasks, sorted. */
  readonly backends: readonly string[]
}

/** Up to this many backends a slot each; beyond, a number of slots of a power of two keeps the spread nearly even. */
const EXACT_SLOTS = 64

/** How many slots `n` backends are spread over. Beyond 64 the fullest backend has at most a quarter more than the least. */
export function slotsFor(n: number): number {
  if (n <= EXACT_SLOTS) return n
  let slots = 4 * EXACT_SLOTS
  while (slots < 4 * n) slots *= 2
  return slots
}

/**
 * The table inside a container's own namespace: its name server and the virtual addresses of services.
 *
 * A service's verdict depends only on how many slots it has, whose chain all services with as many share; backends are
 * plain data in one map. So adding or changing a service is a few elements, whatever the number of services. A virtual
 * address without backends is answered with a refusal at once, and so are connections to a task that is gone (`dead`,
 * elements that end by themselves).
 */
export function containerTable(
  name: string,
  dns: { readonly address: string; readonly port: number } | null,
  services: readonly BalancedService[],
): TableModel {
  const vips = new Map<string, string>()
  const be = new Map<string, string>()
  const empty = new Map<string, string>()
  const chains: Record<string, string[]> = {}
  for (const s of services) {
    const slots = slotsFor(s.backends.length)
    if (slots === 0) {
      empty.set(s.virtualIp, '')
      continue
    }
    vips.set(s.virtualIp, `goto lb${slots}`)
    for (let i = 0; i < slots; i++) be.set(`${i} . ${s.virtualIp}`, s.backends[i % s.backends.length]!)
    chains[`lb${slots}`] ??= [`meta mark set numgen random mod ${slots}`, 'dnat to meta mark . ip daddr map @be']
  }
  const to = dns ? `${dns.address}:${dns.port}` : ''
  const names = dns
    ? [`ip daddr ${dns.address} udp dport 53 dnat to ${to}`, `ip daddr ${dns.address} tcp dport 53 dnat to ${to}`]
    : []
  return {
    family: 'ip',
    name,
    sets: {
      vips: { kind: 'map', spec: 'type ipv4_addr : verdict;', elements: vips },
      be: { kind: 'map', spec: 'type mark . ipv4_addr : ipv4_addr;', elements: be },
      empty: { kind: 'set', spec: 'type ipv4_addr;', elements: empty },
      dead: { kind: 'set', spec: 'type ipv4_addr; flags timeout;', elements: new Map() },
    },
    chains: {
      ...chains,
      pick: ['type nat hook output priority -100; policy accept;', ...names, 'ip daddr vmap @vips'],
      outf: [
        'type filter hook output priority filter; policy accept;',
        'ip daddr @dead meta l4proto tcp reject with tcp reset',
        'ip daddr @empty meta l4proto tcp reject with tcp reset',
        'ip daddr @empty reject with icmp type port-unreachable',
      ],
    },
  }
}

/** How long connections to a task that is gone are refused, so that a new one with its address is not. */
export const DEAD_MINUTES = 5

/** Elements of `dead`; adding first makes the removal of one that ended by itself no error. */
export function deadCommands(
  table: Pick<TableModel, 'family' | 'name'>,
  died: readonly string[],
  revived: readonly string[],
): string[] {
  const at = `element ${table.family} ${table.name} dead`
  return [
    ...revived.flatMap((ip) => [`add ${at} { ${ip} }`, `delete ${at} { ${ip} }`]),
    ...died.flatMap((ip) => [`add ${at} { ${ip} timeout ${DEAD_MINUTES}m }`]),
  ]
}
