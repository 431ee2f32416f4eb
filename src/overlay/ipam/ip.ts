/** An address of either family as a number of that many bits. */
export interface Ip {
  readonly bits: 32 | 128
  readonly value: bigint
}

/** A block of either family; `base` is its first address. */
export interface Cidr {
  readonly bits: 32 | 128
  readonly base: bigint
  readonly prefix: number
}

/** null for anything but four decimal parts of 0 to 255 without leading zeros. */
function parseIpv4(text: string): bigint | null {
  const parts = text.split('.')
  if (parts.length !== 4) return null
  let n = 0
  for (const p of parts) {
    if (!/^(0|[1-9]\d{0,2})$/.test(p) || Number(p) > 255) return null
    n = n * 256 + Number(p)
  }
  return BigInt(n)
}

/** RFC 4291, 2.2: eight groups, one run of zeros as "::", the last two groups perhaps as an IPv4 address. No zones. */
function parseIpv6(text: string): bigint | null {
  const tail = /^(.*:)(\d+\.[\d.]+)$/.exec(text)
  if (tail) {
    const v4 = parseIpv4(tail[2]!)
    return v4 === null ? null : parseIpv6(`${tail[1]}${(v4 >> 16n).toString(16)}:${(v4 & 0xffffn).toString(16)}`)
  }
  const halves = text.split('::')
  if (halves.length > 2) return null
  const groups = halves.map((h) => (h === '' ? [] : h.split(':')))
  if (!groups.flat().every((g) => /^[0-9a-fA-F]{1,4}$/.test(g))) return null
  const missing = 8 - groups.flat().length
  if (halves.length === 1 ? missing !== 0 : missing < 1) return null
  const all = [...groups[0]!, ...Array<string>(missing).fill('0'), ...(groups[1] ?? [])]
  return all.reduce((n, g) => (n << 16n) | BigInt(`0x${g}`), 0n)
}

/** null when malformed. */
export function parseIp(text: string): Ip | null {
  const bits = text.includes(':') ? 128 : 32
  const value = bits === 128 ? parseIpv6(text) : parseIpv4(text)
  return value === null ? null : { bits, value }
}

export const isIpv4 = (text: string): boolean => parseIp(text)?.bits === 32
export const isIpv6 = (text: string): boolean => parseIp(text)?.bits === 128

/** RFC 5952: the longest run of zero groups, the first of equals, is "::"; no group has leading zeros. */
export function formatIp({ bits, value }: Ip): string {
  if (bits === 32) return [24n, 16n, 8n, 0n].map((shift) => (value >> shift) & 255n).join('.')
  const groups = Array.from({ length: 8 }, (_, i) => ((value >> BigInt(112 - 16 * i)) & 0xffffn).toString(16))
  let best = { at: 0, length: 1 }
  for (let at = 0; at < 8; at++) {
    let length = 0
    while (groups[at + length] === '0') length++
    if (length > best.length) best = { at, length }
  }
  if (best.length === 1) return groups.join(':')
  return `${groups.slice(0, best.at).join(':')}::${groups.slice(best.at + best.length).join(':')}`
}

/** Number of addresses in a block. */
export const sizeOf = ({ bits, prefix }: Pick<Cidr, 'bits' | 'prefix'>): bigint => 1n << BigInt(bits - prefix)

const baseOf = ({ bits, value }: Ip, prefix: number): bigint =>
  (value / sizeOf({ bits, prefix })) * sizeOf({ bits, prefix })

/** "10.0.0.5/24" gives the block 10.0.0.0/24 and the address in it; null when malformed. */
export function parseCidr(text: string): (Cidr & { readonly address: Ip }) | null {
  const [ip, prefix, ...rest] = text.split('/')
  const address = parseIp(ip ?? '')
  if (address === null || rest.length > 0 || !/^(0|[1-9]\d{0,2})$/.test(prefix ?? '')) return null
  if (Number(prefix) > address.bits) return null
  return { bits: address.bits, base: baseOf(address, Number(prefix)), prefix: Number(prefix), address }
}

export const formatCidr = (c: Cidr): string => `${formatIp({ bits: c.bits, value: c.base })}/${c.prefix}`

/** The address so many places after the block's first. */
export const addressAt = (c: Pick<Cidr, 'bits' | 'base'>, offset: number): string =>
  formatIp({ bits: c.bits, value: c.base + BigInt(offset) })

export const contains = (c: Cidr, ip: Ip): boolean => c.bits === ip.bits && baseOf(ip, c.prefix) === c.base

export const overlaps = (a: Cidr, b: Cidr): boolean =>
  a.prefix <= b.prefix ? contains(a, { ...b, value: b.base }) : contains(b, { ...a, value: a.base })

export const lastOf = (c: Cidr): bigint => c.base + sizeOf(c) - 1n

/** Is the text a block or an address of IPv6? */
export const isV6 = (text: string): boolean => text.includes(':')

/**
 * The MAC address of an interface, derived from its IPv4 address: an endpoint that moves to another node keeps it, so
 * neighbour entries of others stay right. Of an endpoint that has only an IPv6 address: from its last four bytes.
 */
export function macOf(address: string): string {
  const n = (parseIp(address)?.value ?? 0n) & 0xffffffffn
  const hex = (shift: bigint): string => ((n >> shift) & 255n).toString(16).padStart(2, '0')
  return `02:42:${hex(24n)}:${hex(16n)}:${hex(8n)}:${hex(0n)}`
}

/** The address in a block of /80 or wider whose last 48 bits are the MAC address. */
export function addressOfMac(block: Cidr, mac: string): string {
  const low = BigInt(`0x${mac.replaceAll(':', '')}`)
  return formatIp({ bits: 128, value: block.base | low })
}
