import { randomBytes } from 'node:crypto'
import { invalid } from '../../common/index.js'

const PREFIX = 'SWMKEY-1-'
const KEY_BYTES = 32

/** Wraps the managers' data keys at rest while the cluster locks its managers. */
export const newUnlockKey = (): Uint8Array => new Uint8Array(randomBytes(KEY_BYTES))

/** SWMKEY-1-<base 64 without padding>, as the operator writes it down. */
export const formatUnlockKey = (key: Uint8Array): string =>
  key.length === 0 ? '' : PREFIX + Buffer.from(key).toString('base64').replace(/=+$/, '')

/** Throws invalid `badUnlockKey` on anything that is not of the key's form. */
export function parseUnlockKey(text: string): Uint8Array {
  const body = text.trim()
  const key = body.startsWith(PREFIX) ? Buffer.from(body.slice(PREFIX.length), 'base64') : Buffer.alloc(0)
  if (key.length !== KEY_BYTES || formatUnlockKey(key) !== body)
    throw invalid('badUnlockKey', 'invalid key: an unlock key has the form SWMKEY-1-... and is shown by unlock-key')
  return new Uint8Array(key)
}
