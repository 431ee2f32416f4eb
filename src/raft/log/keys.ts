import { createCipheriv, createDecipheriv, createHash, hkdfSync } from 'node:crypto'
import { unauthorized } from '../../common/index.js'
import { damaged } from './damage.js'
import type { Disk } from './disk.js'

export interface DataKey {
  /** Rises by one with each new key; names the directory whose files it seals. */
  readonly epoch: number
  readonly dek: Uint8Array
}

interface KeysFile {
  readonly format: 1
  readonly epoch: number
  /** Hex. In clear when `nonce` is null, otherwise sealed by the key-encryption key. */
  readonly dek: string
  readonly salt: string | null
  readonly nonce: string | null
  readonly tag: string | null
}

type Random = (length: number) => Uint8Array
const hex = (b: Uint8Array): string => Buffer.from(b).toString('hex')
const checksum = (body: string): string => createHash('sha256').update(body).digest('hex')
const wrappingKey = (kek: Uint8Array, salt: Uint8Array): Buffer =>
  Buffer.from(hkdfSync('sha256', kek, salt, 'shoal raft data key', 32))

/**
 * A key for a file that lies beside this member's: as safe as the data key, and the same until autolock is turned on anew, which makes
 * another data key.
 */
export const derivedKey = (dek: Uint8Array, purpose: string): Uint8Array =>
  new Uint8Array(hkdfSync('sha256', dek, '', purpose, 32))

/** Writes the current data key, wrapped by `kek` (null: in clear, autolock off). This is also the switch to its directory. */
export async function saveDataKey(
  disk: Disk,
  path: string,
  key: DataKey,
  kek: Uint8Array | null,
  random: Random,
): Promise<void> {
  let file: KeysFile = { format: 1, epoch: key.epoch, dek: hex(key.dek), salt: null, nonce: null, tag: null }
  if (kek !== null) {
    const salt = random(16)
    const nonce = random(12)
    const cipher = createCipheriv('aes-256-gcm', wrappingKey(kek, salt), nonce)
    cipher.setAAD(Buffer.from(`epoch ${key.epoch}`))
    const dek = Buffer.concat([cipher.update(key.dek), cipher.final()])
    file = { ...file, dek: hex(dek), salt: hex(salt), nonce: hex(nonce), tag: hex(cipher.getAuthTag()) }
  }
  const body = JSON.stringify(file)
  await disk.replaceFile(path, Buffer.from(`${checksum(body)} ${body}\n`))
}

/** Null when there is no file. A damaged file and a wrong key are told apart by the checksum. */
export async function loadDataKey(disk: Disk, path: string, kek: Uint8Array | null): Promise<DataKey | null> {
  const bytes = await disk.readFile(path)
  if (bytes === null) return null
  const text = Buffer.from(bytes).toString('latin1')
  const body = text.slice(65, -1)
  if (text !== `${checksum(body)} ${body}\n`) throw damaged(path, 'the data key', 'does not match its checksum')
  const file = JSON.parse(body) as KeysFile
  const dek = Buffer.from(file.dek, 'hex')
  if (file.nonce === null || file.tag === null || file.salt === null) return { epoch: file.epoch, dek }
  const wrong = (why: string) =>
    unauthorized('wrongUnlockKey', `raft state ${path} cannot be opened: ${why}; unlock with the current unlock key`)
  if (kek === null) throw wrong('it is locked and no unlock key was given')
  const decipher = createDecipheriv(
    'aes-256-gcm',
    wrappingKey(kek, Buffer.from(file.salt, 'hex')),
    Buffer.from(file.nonce, 'hex'),
  )
  decipher.setAAD(Buffer.from(`epoch ${file.epoch}`))
  decipher.setAuthTag(Buffer.from(file.tag, 'hex'))
  const plain = decipher.update(dek)
  try {
    decipher.final()
  } catch {
    throw wrong('the unlock key does not fit')
  }
  return { epoch: file.epoch, dek: plain }
}
