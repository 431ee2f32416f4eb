import { isIP } from 'node:net'

/** An address range by its first address and prefix length. Numbers are bigint so that both families are one case. */
export interface Cidr {
  readonly family: 4 | 6
  readonly first: bigint
  readonly bits: number
}

export const widthOf = (family: 4 | 6): number => (family === 4 ? 32 : 128)
export const sizeOf = (c: Cidr): bigint => 1n << BigInt(widthOf(c.family) - c.bits)

/** Null when it is no address of either family. */
export function parseAddress(text: string): { readonly family: 4 | 6; readonly value: bigint } | null {
  const kind = isIP(text)
  if (kind === 4) return { family: 4, value: text.split('.').reduce((sum, part) => sum * 256n + BigInt(part), 0n) }
  if (kind !== 6) return null
  let body = text
  const dotted = /^(.*:)(\d+\.\d+\.\d+\.\d+)$/.exec(text)
  if (dotted) {
    const low = parseAddress(dotted[2]!)!.value
    body = `${dotted[1]}${(low >> 16n).toString(16)}:${(low & 0xffffn).toString(16)}`
  }
  const [head = '', tail] = body.split('::')
  const left = head === '' ? [] : head.split(':')
  const right = tail === undefined || tail === '' ? [] : tail.split(':')
  const middle = tail === undefined ? [] : new Array<string>(8 - left.length - right.length).fill('0')
  const value = [...left, ...middle, ...right].reduce((sum, part) => (sum << 16n) | BigInt(`0x${part}`), 0n)
  return { family: 6, value }
}

export function formatAddress(family: 4 | 6, value: bigint): string {
  if (family === 4) return [24n, 16n, 8n, 0n].map((shift) => Number((value >> shift) & 255n)).join('.')
  const groups = Array.from({ length: 8 }, (_, i) => Number((value >> BigInt(112 - 16 * i)) & 0xffffn))
  // The longest run of zero groups is written "::" (RFC 5952 §4.2).
  let start = -1
  let length = 1
  for (let i = 0; i < 8; i++) {
    let end = i
    while (end < 8 && groups[end] === 0) end++
    if (end - i > length) {
      start = i
      length = end - i
    }
  }
  const hex = groups.map((g) => g.toString(16))
  return start < 0 ? hex.join(':') : `${hex.slice(0, start).join(':')}::${hex.slice(start + length).join(':')}`
}

/** "10.0.1.5/24" is the subnet 10.0.1.0/24; null when malformed. A bare address counts as one of full length. */
export function parseCidr(text: string): Cidr | null {
  const [address = '', prefix] = text.split('/')
  const parsed = parseAddress(address)
  if (parsed === null) return null
  const width = widthOf(parsed.family)
  const bits = prefix === undefined ? width : /^\d+$/.test(prefix) ? Number(prefix) : -1
  if (bits < 0 || bits > width) return null
  const host = BigInt(width - bits)
  return { family: parsed.family, first: (parsed.value >> host) << host, bits }
}

export const formatCidr = (c: Cidr): string => `${formatAddress(c.family, c.first)}/${c.bits}`

export const overlaps = (a: Cidr, b: Cidr): boolean =>
  a.family === b.family && a.first < b.first + sizeOf(b) && b.first < a.first + sizeOf(a)
