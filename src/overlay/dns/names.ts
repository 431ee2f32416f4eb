import type { Rng } from '../../common/index.js'
import { formatIpv4, parseIpv4 } from '../ipam/ipv4.js'
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
const ARPA = '.in-addr.arpa'

/**
 * The answer out of the tables of the networks that the asking sandbox is on, in its order; the first table that
 * knows the name decides. null: not a name of ours, ask upstream. Several addresses come in a random order. Pure but
 * for the rng.
 */
export function answerLocally(tables: readonly NameTable[], q: Question, ttl: number, rng: Rng): LocalAnswer | null {
  if (q.class !== IN) return null
  if (q.type === TYPE.PTR && q.name.endsWith(ARPA)) {
    const address = parseIpv4(q.name.slice(0, -ARPA.length).split('.').reverse().join('.'))
    if (address === null) return null
    for (const t of tables) {
      const name = t.names.get(formatIpv4(address))
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
    if (q.type !== TYPE.A && q.type !== TYPE.ANY) return { rcode: RCODE.ok, answers: [] }
    const answers = shuffled(list, rng).map((a) => ({ type: TYPE.A, ttl, data: addressData(a) }))
    return { rcode: RCODE.ok, answers }
  }
  return null
}

function nameData(name: string): Uint8Array {
  const out: number[] = []
  for (const label of name.split('.')) out.push(label.length & 63, ...[...label].map((c) => c.charCodeAt(0) & 255))
  return Uint8Array.from([...out, 0])
}

function addressData(address: string): Uint8Array {
  const n = parseIpv4(address) ?? 0
  return Uint8Array.from([n >>> 24, (n >>> 16) & 255, (n >>> 8) & 255, n & 255])
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
