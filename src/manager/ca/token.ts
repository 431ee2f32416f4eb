import { createHash, randomBytes, timingSafeEqual } from 'node:crypto'
import { invalid } from '../../common/index.js'

/** Digits of a SHA-256 in base 36, and of 16 random bytes. */
const DIGEST_LENGTH = 50
const SECRET_LENGTH = 25

const toBase36 = (hex: string, length: number): string => BigInt(`0x${hex}`).toString(36).padStart(length, '0')

/** SHA-256 of the root certificate's PEM text, hexadecimal: what join tokens pin. */
export const rootDigest = (rootPem: string | Uint8Array): string => createHash('sha256').update(rootPem).digest('hex')

/** SWMTKN-1-<digest of the root>-<16 random bytes>, both in base 36. */
export const newJoinToken = (rootPem: string | Uint8Array): string =>
  `SWMTKN-1-${toBase36(rootDigest(rootPem), DIGEST_LENGTH)}-${toBase36(randomBytes(16).toString('hex'), SECRET_LENGTH)}`

export interface JoinToken {
  /** Hexadecimal. */
  readonly digest: string
  readonly secret: string
}

/** Throws invalid `invalidJoinToken` on anything that is not of the token's form. */
export function parseJoinToken(token: string): JoinToken {
  const parts = /^SWMTKN-1-([0-9a-z]{50})-([0-9a-z]{25})$/.exec(token)
  let digest = 0n
  for (const c of parts?.[1] ?? '') digest = digest * 36n + BigInt(Number.parseInt(c, 36))
  const hex = digest.toString(16).padStart(64, '0')
  if (!parts || hex.length !== 64) throw invalid('invalidJoinToken', 'invalid join token')
  return { digest: hex, secret: parts[2]! }
}

/** Takes the same time wherever they differ. */
export function sameToken(a: string, b: string): boolean {
  const x = Buffer.from(a)
  const y = Buffer.from(b)
  return x.length === y.length && timingSafeEqual(x, y)
}
