import { type Cidr, contains, formatCidr, formatIpv4, lastOf, parseCidr, parseIpv4 } from './ipv4.js'

export type Allocation =
  | { readonly ok: true; readonly address: string }
  | { readonly ok: false; readonly reason: 'exhausted' | 'outside' | 'inUse' }

/** The addresses of one subnet, each lent once. Pure: what is lent is rebuilt from the endpoints' records. */
export class AddressPool {
  readonly subnet: Cidr
  readonly #range: Cidr
  readonly #taken = new Set<number>()
  /** No free address in the range is below this one: keeps a full pool from being searched from its start each time. */
  #lowest: number

  /** `range`: part of the subnet that addresses are chosen from; wanted addresses may lie outside it. */
  constructor(subnet: Cidr, range: Cidr | null) {
    this.subnet = subnet
    this.#range = range ?? subnet
    this.#lowest = this.#range.base
    if (subnet.prefix <= 30) {
      this.#taken.add(subnet.base)
      this.#taken.add(lastOf(subnet))
    }
  }

  /** Lowest free address of the range, or the wanted one. */
  allocate(wanted?: string): Allocation {
    if (wanted !== undefined) {
      const n = parseIpv4(wanted)
      if (n === null || !contains(this.subnet, n)) return { ok: false, reason: 'outside' }
      if (this.#taken.has(n)) return { ok: false, reason: 'inUse' }
      this.#taken.add(n)
      return { ok: true, address: wanted }
    }
    const last = lastOf(this.#range)
    for (let n = this.#lowest; n <= last; n++) {
      if (this.#taken.has(n)) continue
      this.#taken.add(n)
      this.#lowest = n + 1
      return { ok: true, address: formatIpv4(n) }
    }
    return { ok: false, reason: 'exhausted' }
  }

  release(address: string): void {
    const n = parseIpv4(address)
    if (n === null || !this.#taken.delete(n)) return
    if (contains(this.#range, n) && n < this.#lowest) this.#lowest = n
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
    const step = 2 ** (32 - pool.size)
    let base = block.base
    while (base <= lastOf(block)) {
      const candidate: Cidr = { base, prefix: pool.size }
      const hit = used.find((u) => u.base <= lastOf(candidate) && lastOf(u) >= candidate.base)
      if (!hit) return formatCidr(candidate)
      // Skips over the whole block in the way: a pool of /8 cut into /30 is not walked piece by piece.
      base += step * Math.max(1, Math.ceil((lastOf(hit) + 1 - base) / step))
    }
  }
  return null
}
