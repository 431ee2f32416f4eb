import { type Cidr, contains, formatCidr, formatIp, lastOf, parseCidr, parseIp, sizeOf } from './ip.js'

export type Allocation =
  | { readonly ok: true; readonly address: string }
  | { readonly ok: false; readonly reason: 'exhausted' | 'outside' | 'inUse' }

/** The addresses of one subnet, each lent once. Pure: what is lent is rebuilt from the endpoints' records. */
export class AddressPool {
  readonly subnet: Cidr
  readonly #range: Cidr
  readonly #taken = new Set<bigint>()
  /** No free address in the range is below this one: keeps a full pool from being searched from its start each time. */
  #lowest: bigint

  /** `range`: part of the subnet that addresses are chosen from; wanted addresses may lie outside it. */
  constructor(subnet: Cidr, range: Cidr | null) {
    this.subnet = subnet
    this.#range = range ?? subnet
    this.#lowest = this.#range.base
    if (subnet.bits - subnet.prefix < 2) return
    // Of IPv6 the first is the routers' anycast address (RFC 4291, 2.6.1), and there is no broadcast.
    this.#taken.add(subnet.base)
    if (subnet.bits === 32) this.#taken.add(lastOf(subnet))
  }

  /** Lowest free address of the range, or the wanted one. */
  allocate(wanted?: string): Allocation {
    if (wanted !== undefined) {
      const ip = parseIp(wanted)
      if (ip === null || !contains(this.subnet, ip)) return { ok: false, reason: 'outside' }
      if (this.#taken.has(ip.value)) return { ok: false, reason: 'inUse' }
      this.#taken.add(ip.value)
      return { ok: true, address: formatIp(ip) }
    }
    const last = lastOf(this.#range)
    for (let n = this.#lowest; n <= last; n++) {
      if (this.#taken.has(n)) continue
      this.#taken.add(n)
      this.#lowest = n + 1n
      return { ok: true, address: formatIp({ bits: this.subnet.bits, value: n }) }
    }
    return { ok: false, reason: 'exhausted' }
  }

  release(address: string): void {
    const ip = parseIp(address)
    if (ip === null || !this.#taken.delete(ip.value)) return
    if (contains(this.#range, ip) && ip.value < this.#lowest) this.#lowest = ip.value
  }
}

/**
 * The first block of the pools that overlaps none of `used`. `pools` are blocks cut into pieces of `size` prefix
 * length, tried in order; null when all are used.
 */
export function chooseSubnet(
  pools: readonly { readonly base: string; readonly size: number }[],
  used: readonly Cidr[],
): string | null {
  for (const pool of pools) {
    const block = parseCidr(pool.base)
    if (!block) continue
    const step = sizeOf({ bits: block.bits, prefix: pool.size })
    let base = block.base
    while (base <= lastOf(block)) {
      const candidate: Cidr = { bits: block.bits, base, prefix: pool.size }
      const hit = used.find((u) => u.bits === block.bits && u.base <= lastOf(candidate) && lastOf(u) >= base)
      if (!hit) return formatCidr(candidate)
      // Skips over the whole block in the way: a pool of /8 cut into /30 is not walked piece by piece.
      base += step * ((lastOf(hit) + 1n - base + step - 1n) / step || 1n)
    }
  }
  return null
}
