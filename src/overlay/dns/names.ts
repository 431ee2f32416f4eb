import type { Rng } from '../../common/index.js'
import { formatIp, type Ip, isIpv4, parseIp } from '../ipam/ip.js'
import { type Answer, type Question, RCODE, TYPE } from './packet.js'

/** The names of one network. Keys are lower case. */
export interface NameTable {
  readonly network: string
  readonly addresses: ReadonlyMap<string, readonly string[]>
  /** Address to the name that PTR questions get. */
  readonly names: ReadonlyMap<string, string>
  /** What the asking sandbox alone calls some of them: its name to theirs. */
  readonly links?: Readonly<Record<string, string>>
}

/** Collects a NameTable. */
export class NameTableBuilder {
  readonly #addresses = new Map<string, string[]>()
  readonly #names = new Map<string, string>()

  constructor(private readonly network: string) {}

  /** Later addresses of a name join the earlier ones. */
  add(name: string, address: string): void {
    const key = name.toLowerCase()
    const list = this.#addresses.get(key)
    if (!list) this.#addresses.set(key, [address])
    else if (!list.includes(address)) list.push(address)
  }

  /** The name is ours although it has no address just now: nobody else is asked about it. */
  declare(name: string): void {
    const key = name.toLowerCase()
    if (!this.#addresses.has(key)) this.#addresses.set(key, [])
  }

  /** The names so far, in lower case. */
  defined(): ReadonlySet<string> {
    return new Set(this.#addresses.keys())
  }

  /** The first name given for an address counts. */
  reverse(address: string, name: string): void {
    if (!this.#names.has(address)) this.#names.set(address, name.toLowerCase())
  }

  build(): NameTable {
    return { network: this.network, addresses: this.#addresses, names: this.#names }
  }
}

export interface LocalAnswer {
  readonly rcode: number
  readonly answers: readonly Answer[]
}

const IN = 1
const ARPA4 = '.in-addr.arpa'
const ARPA6 = '.ip6.arpa'

/**
 * The answer out of the tables of the networks that the asking sandbox is on, in its order; the first table that
 * knows the name decides. null: not a name of ours, ask upstream. Several addresses come in a random order. Pure but
 * for the rng.
 */
export function answerLocally(tables: readonly NameTable[], q: Question, ttl: number, rng: Rng): LocalAnswer | null {
  if (q.class !== IN) return null
  if (q.type === TYPE.PTR) {
    const address = reversed(q.name)
    if (address === null) return null
    for (const t of tables) {
      const name = t.names.get(formatIp(address))
      if (name !== undefined)
        return { rcode: RCODE.ok, answers: [{ type: TYPE.PTR, ttl, data: nameData(`${name}.${t.network}`) }] }
    }
    return null
  }
  for (const t of tables) {
    const suffix = `.${t.network.toLowerCase()}`
    const of = (name: string) => t.addresses.get(t.links && Object.hasOwn(t.links, name) ? t.links[name]! : name)
    const list = of(q.name) ?? (q.name.endsWith(suffix) ? of(q.name.slice(0, -suffix.length)) : undefined)
    if (!list) continue
    // A name of ours has no other records: an empty answer keeps the client from asking the outside.
    const answers = shuffled(list, rng)
      .map((a) => ({ type: isIpv4(a) ? TYPE.A : TYPE.AAAA, ttl, data: addressData(a) }))
      .filter((a) => q.type === a.type || q.type === TYPE.ANY)
    return { rcode: RCODE.ok, answers }
  }
  return null
}

function nameData(name: string): Uint8Array {
  const out: number[] = []
  for (const label of name.split('.')) out.push(label.length & 63, ...[...label].map((c) => c.charCodeAt(0) & 255))
  return Uint8Array.from([...out, 0])
}

/** "7.0.0.10.in-addr.arpa", or 32 nibbles before "ip6.arpa" (RFC 3596). */
function reversed(name: string): Ip | null {
  const parts = (suffix: string): string[] => name.slice(0, -suffix.length).split('.').reverse()
  if (name.endsWith(ARPA4)) return parseIp(parts(ARPA4).join('.'))
  const nibbles = name.endsWith(ARPA6) ? parts(ARPA6) : []
  if (nibbles.length !== 32 || !nibbles.every((n) => /^[0-9a-f]$/.test(n))) return null
  return { bits: 128, value: BigInt(`0x${nibbles.join('')}`) }
}

function addressData(address: string): Uint8Array {
  const { bits, value } = parseIp(address) ?? { bits: 32, value: 0n }
  return Uint8Array.from({ length: bits / 8 }, (_, i) => Number((value >> BigInt(bits - 8 - 8 * i)) & 255n))
}

function shuffled<T>(list: readonly T[], rng: Rng): T[] {
  const out = [...list]
  for (let i = out.length - 1; i > 0; i--) {
    const k = Math.floor(rng.random() * (i + 1))
    const x = out[i]!
    out[i] = out[k]!
    out[k] = x
  }
  return out
}
