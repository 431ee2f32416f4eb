import { createCipheriv, createDecipheriv, createHmac, createSecretKey, hkdfSync, type KeyObject } from 'node:crypto'

export const TAG_BYTES = 16
const FORMAT = 1
const SALT_BYTES = 16
/** format 1, type 1, epoch 4, salt 16, counter 8, term 8, index 8, chain 16. */
const HEADER_BYTES = 62

export const RECORD_TYPES = [
  'meta',
  'hardState',
  'pointer',
  'normal',
  'confChange',
  'confChangeV2',
  'chunk',
  'chunkEnd',
] as const
export type RecordType = (typeof RECORD_TYPES)[number]

export interface RecordHead {
  readonly type: RecordType
  readonly term: number
  readonly index: number
  /** Tag of the record before this one; so each tag vouches for everything before it too. */
  readonly chain: Uint8Array
}

export interface OpenedRecord extends RecordHead {
  readonly plain: Uint8Array
  readonly tag: Uint8Array
}

export function putUint(b: Buffer, value: number, at: number): void {
  b.writeUInt32BE(Math.floor(value / 0x1_0000_0000), at)
  b.writeUInt32BE(value >>> 0, at + 4)
}
export const getUint = (b: Buffer, at: number): number => b.readUInt32BE(at) * 0x1_0000_0000 + b.readUInt32BE(at + 4)

/**
 * Seals records with AES-256-GCM. Random nonces under one key would not last a cluster's life, so each process start
 * derives a key of its own (HKDF of the data key and a random salt, stored with each record) and counts nonces.
 * The record's place (its key or file), its header and its owner are authenticated with it.
 */
export class Sealer {
  readonly #salt: Buffer
  readonly #keys = new Map<string, KeyObject>()
  readonly #owner: Buffer
  readonly #macKey: KeyObject
  #counter = 0

  constructor(
    private readonly dek: Uint8Array,
    readonly epoch: number,
    owner: string,
    randomBytes: (length: number) => Uint8Array,
  ) {
    this.#salt = Buffer.from(randomBytes(SALT_BYTES))
    this.#owner = Buffer.from(owner)
    this.#macKey = createSecretKey(Buffer.from(hkdfSync('sha256', dek, this.#owner, 'shoal raft witness', 32)))
  }

  #key(salt: Buffer): KeyObject {
    const name = salt.toString('latin1')
    let key = this.#keys.get(name)
    if (key === undefined) {
      key = createSecretKey(Buffer.from(hkdfSync('sha256', this.dek, salt, 'shoal raft record', 32)))
      this.#keys.set(name, key)
    }
    return key
  }

  /** `room`: bytes before the record, for the caller to fill. */
  seal(place: Uint8Array, head: RecordHead, plain: Uint8Array, room = 0): { value: Buffer; tag: Uint8Array } {
    const whole = Buffer.allocUnsafe(room + HEADER_BYTES + plain.length + TAG_BYTES)
    const value = whole.subarray(room)
    value[0] = FORMAT
    value[1] = RECORD_TYPES.indexOf(head.type)
    value.writeUInt32BE(this.epoch, 2)
    this.#salt.copy(value, 6)
    putUint(value, ++this.#counter, 22)
    putUint(value, head.term, 30)
    putUint(value, head.index, 38)
    value.set(head.chain, 46)
    const cipher = createCipheriv('aes-256-gcm', this.#key(this.#salt), nonceOf(value))
    cipher.setAAD(this.#associated(place, value))
    value.set(cipher.update(plain), HEADER_BYTES)
    cipher.final()
    const tag = cipher.getAuthTag()
    value.set(tag, HEADER_BYTES + plain.length)
    return { value: whole, tag }
  }

  /** Returns why not, instead of throwing: the caller knows which file and record to name. */
  open(place: Uint8Array, bytes: Uint8Array): OpenedRecord | string {
    const value = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length)
    if (value.length < HEADER_BYTES + TAG_BYTES) return `has only ${value.length} bytes`
    if (value[0] !== FORMAT) return `has the unknown format ${value[0]}`
    const type = RECORD_TYPES[value[1]!]
    if (type === undefined) return `has the unknown type ${value[1]}`
    if (value.readUInt32BE(2) !== this.epoch) return `is of key epoch ${value.readUInt32BE(2)}, not ${this.epoch}`
    const end = value.length - TAG_BYTES
    const tag = value.subarray(end)
    const decipher = createDecipheriv('aes-256-gcm', this.#key(value.subarray(6, 6 + SALT_BYTES)), nonceOf(value))
    decipher.setAAD(this.#associated(place, value))
    decipher.setAuthTag(tag)
    const plain = decipher.update(value.subarray(HEADER_BYTES, end))
    try {
      decipher.final()
    } catch {
      // OpenSSL's only reason here is that the tag does not match.
      return 'does not match its authentication tag'
    }
    return { type, term: getUint(value, 30), index: getUint(value, 38), chain: value.subarray(46, 62), plain, tag }
  }

  /** For the one record that is written in place and so has no chain. */
  mac(bytes: Uint8Array): Buffer {
    return createHmac('sha256', this.#macKey).update(bytes).digest().subarray(0, TAG_BYTES)
  }

  #associated(place: Uint8Array, value: Buffer): Buffer {
    return Buffer.concat([value.subarray(0, HEADER_BYTES), place, this.#owner])
  }
}

/** The 12-byte nonce: four zero bytes and the counter. */
function nonceOf(value: Buffer): Buffer {
  const nonce = Buffer.alloc(12)
  value.copy(nonce, 4, 22, 30)
  return nonce
}
