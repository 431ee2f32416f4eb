/** An IPv4 block; `base` is its first address as an unsigned 32-bit number. */
export interface Cidr {
  readonly base: number
  readonly prefix: number
}

/** null for anything but four decimal parts of 0 to 255 without leading zeros. */
export function parseIpv4(text: string): number | null {
  const parts = text.split('.')
  if (parts.length !== 4) return null
  let n = 0
  for (const p of parts) {
    if (!/^(0|[1-9]\d{0,2})$/.test(p) || Number(p) > 255) return null
    n = n * 256 + Number(p)
  }
  return n
}

export const formatIpv4 = (n: number): string => [n >>> 24, (n >>> 16) & 255, (n >>> 8) & 255, n & 255].join('.')

export const maskOf = (prefix: number): number => (prefix === 0 ? 0 : (0xffffffff << (32 - prefix)) >>> 0)

/** Number of addresses in a block of that prefix length. */
export const sizeOf = (prefix: number): number => 2 ** (32 - prefix)

/** "10.0.0.5/24" gives the block 10.0.0.0/24 and the address in it; null when malformed. */
export function parseCidr(text: string): (Cidr & { readonly address: number }) | null {
  const [ip, bits, ...rest] = text.split('/')
  if (rest.length > 0 || !/^(\d|[12]\d|3[0-2])$/.test(bits ?? '')) return null
  const address = parseIpv4(ip ?? '')
  if (address === null) return null
  const prefix = Number(bits)
  return { base: (address & maskOf(prefix)) >>> 0, prefix, address }
}

export const formatCidr = (c: Cidr): string => `${formatIpv4(c.base)}/${c.prefix}`

export const contains = (c: Cidr, address: number): boolean => (address & maskOf(c.prefix)) >>> 0 === c.base

export const overlaps = (a: Cidr, b: Cidr): boolean =>
  a.prefix <= b.prefix ? contains(a, b.base) : contains(b, a.base)

export const lastOf = (c: Cidr): number => c.base + sizeOf(c.prefix) - 1

/**
 * The MAC address of an interface, derived from its IPv4 address: an endpoint that moves to another node keeps it, so
 * neighbour entries of others stay right.
 */
export function macOf(ipv4: string): string {
  const n = parseIpv4(ipv4) ?? 0
  const hex = (b: number): string => (b & 255).toString(16).padStart(2, '0')
  return `02:42:${hex(n >>> 24)}:${hex(n >>> 16)}:${hex(n >>> 8)}:${hex(n)}`
}
