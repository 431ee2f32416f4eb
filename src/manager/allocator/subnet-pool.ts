import { type Cidr, formatCidr, overlaps, parseCidr, sizeOf } from './cidr.js'

/** Cuts subnets of one size out of the cluster's default address pools. */
export class SubnetPool {
  #pools: readonly Cidr[] = []
  #bits = 24
  readonly #used = new Map<string, Cidr>()
  /** First addresses of the cuts that small used subnets lie in, with their number; so a cut is checked in one step. */
  readonly #cuts = new Map<bigint, number>()

  configure(pools: readonly string[], subnetBits: number): void {
    this.#pools = pools.map(parseCidr).filter((c): c is Cidr => c !== null)
    this.#bits = subnetBits
    this.#cuts.clear()
    for (const cidr of this.#used.values()) this.#mark(cidr, 1)
  }

  /** The lowest cut that overlaps nothing in use; null when all pools are used up. It is marked as used. */
  take(): string | null {
    const large = [...this.#used.values()].filter((c) => c.bits < this.#bits)
    for (const pool of this.#pools) {
      if (pool.bits > this.#bits) continue
      const step = 1n << BigInt((pool.family === 4 ? 32 : 128) - this.#bits)
      const end = pool.first + sizeOf(pool)
      for (let first = pool.first; first < end; first += step) {
        if (this.#cuts.has(first)) continue
        const cut: Cidr = { family: pool.family, first, bits: this.#bits }
        const blocking = large.find((c) => overlaps(c, cut))
        if (blocking !== undefined) {
          const after = blocking.first + sizeOf(blocking)
          first = after - step > first ? after - step : first
          continue
        }
        this.use(formatCidr(cut))
        return formatCidr(cut)
      }
    }
    return null
  }

  /** The user's own subnet, or one found in the store. Idempotent. */
  use(subnet: string): void {
    const cidr = parseCidr(subnet)
    if (cidr === null || this.#used.has(formatCidr(cidr))) return
    this.#used.set(formatCidr(cidr), cidr)
    this.#mark(cidr, 1)
  }

  release(subnet: string): void {
    const cidr = parseCidr(subnet)
    if (cidr !== null && this.#used.delete(formatCidr(cidr))) this.#mark(cidr, -1)
  }

  isFree(subnet: string): boolean {
    const cidr = parseCidr(subnet)
    return cidr !== null && ![...this.#used.values()].some((used) => overlaps(used, cidr))
  }

  #mark(cidr: Cidr, by: 1 | -1): void {
    if (cidr.bits < this.#bits) return
    const host = BigInt((cidr.family === 4 ? 32 : 128) - this.#bits)
    const first = (cidr.first >> host) << host
    const count = (this.#cuts.get(first) ?? 0) + by
    if (count > 0) this.#cuts.set(first, count)
    else this.#cuts.delete(first)
  }
}
