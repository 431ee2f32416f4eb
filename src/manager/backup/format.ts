import { createCipheriv, createDecipheriv, createHash, hkdfSync, randomBytes } from 'node:crypto'
import type { RaftMember } from '#proto'
import { invalid, type ShoalError, unauthorized } from '../../common/index.js'

/**
 * The file of `shoal swarm backup` (docs/manager.md, "Backup and restore"):
 *
 *     shoal swarm backup 1\n
 *     <SHA-256 of the JSON, hex> <JSON header>\n
 *     chunk 0: manifest, JSON      chunks 1..n: the store's snapshot      last chunk: empty
 *
 * A chunk is its length (4 bytes, big-endian), AES-256-GCM ciphertext, and the tag (16 bytes). The nonce is a byte that is
 * 1 for the last chunk, three zero bytes and the chunk's number (8 bytes, big-endian); the header's hash is authenticated
 * with each. So no byte can change, no chunk can go, come or move, and a file that is cut short has no last chunk.
 */
const WORDS = 'shoal swarm backup'
const VERSION = 1
const TAG_BYTES = 16
const CHUNK_BYTES_MAX = 4 * 1024 * 1024
const HEADER_BYTES_MAX = 16 * 1024
/** The state is held in memory while it is read. */
const STATE_BYTES_MAX = 2 * 1024 * 1024 * 1024

interface Header {
  /** RFC 3339. */
  readonly createdAt: string
  readonly clusterId: string
  /** Hex: the key of the chunks, in clear, or wrapped by the unlock key where `wrap` says how. */
  readonly key: string
  /** Hex. */
  readonly wrap: { readonly salt: string; readonly nonce: string; readonly tag: string } | null
}

/** Where the log stood, and who was a member of Raft. */
export interface BackupManifest {
  readonly index: number
  readonly term: number
  readonly members: readonly (RaftMember & { readonly learner: boolean })[]
  readonly removed: readonly number[]
}

export interface Backup {
  readonly createdAt: string
  readonly clusterId: string
  readonly manifest: BackupManifest
  /** A whole StoreSnapshot. */
  readonly state: Uint8Array
}

const hex = (b: Uint8Array): string => Buffer.from(b).toString('hex')
const bytes = (text: string): Buffer => Buffer.from(text, 'hex')
const wrappingKey = (unlockKey: Uint8Array, salt: Uint8Array): Buffer =>
  Buffer.from(hkdfSync('sha256', unlockKey, salt, 'shoal swarm backup key', 32))

function nonceOf(number: number, isLast: boolean): Buffer {
  const nonce = Buffer.alloc(12)
  nonce[0] = isLast ? 1 : 0
  nonce.writeBigUInt64BE(BigInt(number), 4)
  return nonce
}

function wrap(key: Uint8Array, unlockKey: Uint8Array): Pick<Header, 'key' | 'wrap'> {
  const salt = randomBytes(16)
  const nonce = randomBytes(12)
  const cipher = createCipheriv('aes-256-gcm', wrappingKey(unlockKey, salt), nonce)
  const sealed = Buffer.concat([cipher.update(key), cipher.final()])
  return { key: hex(sealed), wrap: { salt: hex(salt), nonce: hex(nonce), tag: hex(cipher.getAuthTag()) } }
}

function keyOf(header: Header, unlockKey: Uint8Array | null): Buffer {
  if (header.wrap === null) return bytes(header.key)
  const wrong = (why: string): ShoalError =>
    unauthorized(
      'wrongUnlockKey',
      `the backup is locked and ${why}: give the unlock key that the swarm had on ${header.createdAt}`,
    )
  if (unlockKey === null) throw wrong('no unlock key was given')
  const { salt, nonce, tag } = header.wrap
  const decipher = createDecipheriv('aes-256-gcm', wrappingKey(unlockKey, bytes(salt)), bytes(nonce))
  decipher.setAuthTag(bytes(tag))
  try {
    return Buffer.concat([decipher.update(bytes(header.key)), decipher.final()])
  } catch {
    throw wrong('the unlock key does not fit')
  }
}

/** The file, piece by piece. `unlockKey` null: the managers are not locked, and the key lies in the file in clear. */
export function* writeBackup(
  about: Pick<Header, 'createdAt' | 'clusterId'> & { readonly unlockKey: Uint8Array | null },
  manifest: BackupManifest,
  state: Iterable<Uint8Array>,
): Generator<Uint8Array> {
  const { createdAt, clusterId, unlockKey } = about
  const key = randomBytes(32)
  const header: Header = {
    createdAt,
    clusterId,
    ...(unlockKey ? wrap(key, unlockKey) : { key: hex(key), wrap: null }),
  }
  const json = JSON.stringify(header)
  const hash = createHash('sha256').update(json).digest()
  yield Buffer.from(`${WORDS} ${VERSION}\n${hex(hash)} ${json}\n`)
  let number = 0
  const chunk = (plain: Uint8Array, isLast: boolean): Buffer => {
    const cipher = createCipheriv('aes-256-gcm', key, nonceOf(number++, isLast))
    cipher.setAAD(hash)
    const body = Buffer.concat([cipher.update(plain), cipher.final(), cipher.getAuthTag()])
    const length = Buffer.allocUnsafe(4)
    length.writeUInt32BE(body.length)
    return Buffer.concat([length, body])
  }
  yield chunk(Buffer.from(JSON.stringify(manifest)), false)
  for (const piece of state) yield chunk(piece, false)
  yield chunk(new Uint8Array(0), true)
}

const damaged = (what: string): ShoalError =>
  invalid('backupDamaged', `the backup is damaged: ${what}; nothing was changed, use another copy of the file`)

/** Takes exact numbers of bytes from a stream. */
class Reader {
  #rest: Buffer = Buffer.alloc(0)
  readonly #source: AsyncIterator<Uint8Array>

  constructor(source: AsyncIterable<Uint8Array>) {
    this.#source = source[Symbol.asyncIterator]()
  }

  /** Fewer only at the end. */
  async take(length: number): Promise<Buffer> {
    const parts: Buffer[] = []
    let have = 0
    while (have < length) {
      if (this.#rest.length === 0) {
        const next = await this.#source.next()
        if (next.done) break
        this.#rest = Buffer.from(next.value.buffer, next.value.byteOffset, next.value.length)
        continue
      }
      const part = this.#rest.subarray(0, length - have)
      this.#rest = this.#rest.subarray(part.length)
      parts.push(part)
      have += part.length
    }
    return parts.length === 1 ? parts[0]! : Buffer.concat(parts)
  }

  /** Without its end; null when none comes within `max` bytes. */
  async line(max: number): Promise<string | null> {
    const read: number[] = []
    while (read.length < max) {
      const [byte] = await this.take(1)
      if (byte === undefined) return null
      if (byte === 0x0a) return Buffer.from(read).toString('latin1')
      read.push(byte)
    }
    return null
  }
}

/** Reads and verifies a whole backup. Invalid `notABackup`, `backupVersion`, `backupDamaged`; unauthorized `wrongUnlockKey`. */
export async function readBackup(source: AsyncIterable<Uint8Array>, unlockKey: Uint8Array | null): Promise<Backup> {
  const reader = new Reader(source)
  const first = /^shoal swarm backup (\d{1,9})$/.exec((await reader.line(64)) ?? '')
  if (!first) throw invalid('notABackup', `the file is no backup of a swarm: it does not begin with "${WORDS}"`)
  if (first[1] !== String(VERSION))
    throw invalid(
      'backupVersion',
      `the backup has format ${first[1]}, this shoald reads format ${VERSION}: use the version of Shoal that made it, or a later one`,
    )
  const line = await reader.line(HEADER_BYTES_MAX)
  const json = line?.slice(65) ?? ''
  const hash = createHash('sha256').update(json, 'latin1').digest()
  if (line !== `${hex(hash)} ${json}`) throw damaged('its header does not match its checksum')
  const header = JSON.parse(json) as Header
  const key = keyOf(header, unlockKey)

  const pieces: Buffer[] = []
  let size = 0
  for (let number = 0; ; number++) {
    const length = await reader.take(4)
    if (length.length < 4) throw damaged(`it is cut short after chunk ${number}`)
    const want = length.readUInt32BE()
    if (want < TAG_BYTES || want > CHUNK_BYTES_MAX + TAG_BYTES)
      throw damaged(`chunk ${number} has the impossible length ${want}`)
    const body = await reader.take(want)
    if (body.length < want) throw damaged(`chunk ${number} is cut short`)
    // Only the last chunk is empty.
    const isLast = want === TAG_BYTES
    const plain = openChunk(key, hash, nonceOf(number, isLast), body)
    if (plain === null) throw damaged(`chunk ${number} does not match its authentication tag`)
    if (isLast) break
    size += plain.length
    if (size > STATE_BYTES_MAX) throw invalid('backupTooLarge', `the backup's state is above ${STATE_BYTES_MAX} bytes`)
    pieces.push(plain)
  }
  if ((await reader.take(1)).length > 0) throw damaged('it goes on after its last chunk')
  const [manifest, ...state] = pieces
  if (!manifest) throw damaged('it holds no manifest')
  return {
    createdAt: header.createdAt,
    clusterId: header.clusterId,
    manifest: JSON.parse(manifest.toString()) as BackupManifest,
    state: Buffer.concat(state),
  }
}

function openChunk(key: Buffer, hash: Buffer, nonce: Buffer, body: Buffer): Buffer | null {
  const decipher = createDecipheriv('aes-256-gcm', key, nonce)
  decipher.setAAD(hash)
  decipher.setAuthTag(body.subarray(body.length - TAG_BYTES))
  const plain = decipher.update(body.subarray(0, body.length - TAG_BYTES))
  try {
    decipher.final()
  } catch {
    // OpenSSL's only reason here is that the tag does not match.
    return null
  }
  return plain
}
