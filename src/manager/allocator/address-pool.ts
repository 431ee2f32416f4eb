import type { IPAMConfig } from '#proto'
import { invalid } from '../../common/index.js'
import { type Cidr, formatAddress, parseAddress, parseCidr, sizeOf } from './cidr.js'

/** Addresses above this offset in a subnet are never lent: only IPv6 subnets are that large. */
const OFFSET_MAX = 0xffff_ffff

/**
 * The addresses of one subnet and who has each. The next free one after the last lent is taken, so that an address rests for
 * as long as possible before it is lent again: its old neighbours may still have it in their tables.
 */
export class AddressPool {
  readonly subnet: Cidr
  readonly gateway: string
  readonly #owners = new Map<number, string>()
  readonly #lowest: number
  readonly #highest: number
  readonly #excluded = new Set<number>()
  #next: number

  /** `config` as allocated, with subnet and gateway. Throws invalid `badSubnet`. */
  constructor(config: IPAMConfig) {
    const subnet = parseCidr(config.subnet)
    if (subnet === null) throw invalid('badSubnet', `"${config.subnet}" is no subnet: write it like 10.1.0.0/24`)
    this.subnet = subnet
    const size = Number(sizeOf(subnet) < BigInt(OFFSET_MAX) ? sizeOf(subnet) : BigInt(OFFSET_MAX))
    const range = config.range === '' ? null : parseCidr(config.range)
    const from = range === null ? 0 : Number(range.first - subnet.first)
    const to = range === null ? size - 1 : from + Math.min(Number(sizeOf(range)), size) - 1
    // The subnet's own address and, in IPv4, its broadcast address belong to nobody; /31 and /32 have neither.
    const hasEdges = size > 2
    this.#lowest = Math.max(from, hasEdges ? 1 : 0)
    this.#highest = Math.min(to, subnet.family === 4 && hasEdges ? size - 2 : size - 1)
    this.gateway = config.gateway === '' ? this.#format(hasEdges ? 1 : 0) : config.gateway
    for (const text of [this.gateway, ...Object.values(config.reserved)]) {
      const offset = this.#offsetOf(text)
      if (offset !== null) this.#excluded.add(offset)
    }
    this.#next = this.#lowest
  }

  /** Addresses that can be lent, and how many are. */
  get usage(): { readonly used: number; readonly total: number } {
    let excluded = 0
    for (const offset of this.#excluded) if (offset >= this.#lowest && offset <= this.#highest) excluded++
    return { used: this.#owners.size, total: Math.max(0, this.#highest - this.#lowest + 1 - excluded) }
  }

  /** The next free address as a CIDR; null when all are lent. */
  take(owner: string): string | null {
    const { used, total } = this.usage
    if (used >= total) return null
    const span = this.#highest - this.#lowest + 1
    for (let i = 0; i < span; i++) {
      const offset = this.#next
      this.#next = offset >= this.#highest ? this.#lowest : offset + 1
      if (this.#owners.has(offset) || this.#excluded.has(offset)) continue
      this.#owners.set(offset, owner)
      return this.#cidr(offset)
    }
    return null
  }

  /** Takes this very address (with or without a prefix length). False: another owner has it, or it is not of this subnet. */
  claim(address: string, owner: string): boolean {
    const offset = this.#offsetOf(address.split('/')[0]!)
    if (offset === null) return false
    const present = this.#owners.get(offset)
    if (present !== undefined && present !== owner) return false
    this.#owners.set(offset, owner)
    return true
  }

  /** Who has the address; null when it is free or not of this subnet. */
  ownerOf(address: string): string | null {
    const offset = this.#offsetOf(address.split('/')[0]!)
    return offset === null ? null : (this.#owners.get(offset) ?? null)
  }

  /** Idempotent; another owner's address stays. */
  release(address: string, owner: string): boolean {
    const offset = this.#offsetOf(address.split('/')[0]!)
    if (offset === null || this.#owners.get(offset) !== owner) return false
    this.#owners.delete(offset)
    return true
  }

  contains(address: string): boolean {
    return this.#offsetOf(address.split('/')[0]!) !== null
  }

  #offsetOf(address: string): number | null {
    const parsed = parseAddress(address)
    if (parsed === null || parsed.family !== this.subnet.family) return null
    const offset = parsed.value - this.subnet.first
    return offset < 0n || offset >= sizeOf(this.subnet) || offset > BigInt(OFFSET_MAX) ? null : Number(offset)
  }

  #format(offset: number): string {
    return formatAddress(this.subnet.family, this.subnet.first + BigInt(offset))
  }

  #cidr(offset: number): string {
    return `${this.#format(offset)}/${this.subnet.bits}`
  }
}
