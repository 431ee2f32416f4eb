import type { RaftMember } from '#proto'
import type { ConfState, Entry, EntryType, HardState, RaftId } from '../core/index.js'
import { damaged } from './damage.js'
import { getUint, putUint, type RecordHead, type Sealer, TAG_BYTES } from './seal.js'
import { Tail } from './tail.js'

/** Who is and who was in the cluster. A removed id stays for ever. */
export interface Membership {
  readonly members: readonly RaftMember[]
  readonly removed: readonly RaftId[]
}

/** Record `m`: whose log this is. */
export interface Meta {
  readonly nodeId: string
  readonly raftId: RaftId
  /** Starts of this log so far; makes proposal numbers unique over restarts. */
  readonly boots: number
  /** What a joining member was told, of use until its own addition is applied. */
  readonly joined: Membership
}

/** Record `s`: the current snapshot and where the log after it begins. */
export interface Pointer {
  readonly index: number
  readonly term: number
  readonly confState: ConfState
  readonly membership: Membership
  /** Of the plain content. */
  readonly size: number
  /** Hex, of the plain content. */
  readonly sha256: string
  readonly compactedIndex: number
  readonly compactedTerm: number
  /** Hex: chain value that the record at compactedIndex + 1 names. */
  readonly anchor: string
}

/** Record `h`, written in every batch: what the log's end must look like. */
export interface Head {
  readonly hardState: HardState
  readonly lastIndex: number
  readonly lastTag: Uint8Array
  /** Number of the batch. */
  readonly sequence: number
  readonly snapshotIndex: number
}

export interface LogContent {
  readonly meta: Meta
  readonly pointer: Pointer
  readonly head: Head
  readonly tail: Tail
}

export const META_KEY = Buffer.from('m')
export const HEAD_KEY = Buffer.from('h')
export const POINTER_KEY = Buffer.from('s')
const ENTRY_PREFIX = 0x65

export function entryKey(index: number): Buffer {
  const key = Buffer.allocUnsafe(9)
  key[0] = ENTRY_PREFIX
  putUint(key, index, 1)
  return key
}

export const ZERO_TAG = new Uint8Array(TAG_BYTES)
const META_HEAD: RecordHead = { type: 'meta', term: 0, index: 0, chain: ZERO_TAG }

export const sealMeta = (s: Sealer, meta: Meta): Buffer =>
  s.seal(META_KEY, META_HEAD, Buffer.from(JSON.stringify(meta))).value

export const sealPointer = (s: Sealer, pointer: Pointer): Buffer =>
  s.seal(
    POINTER_KEY,
    { type: 'pointer', term: pointer.term, index: pointer.index, chain: ZERO_TAG },
    Buffer.from(JSON.stringify(pointer)),
  ).value

export function sealHead(s: Sealer, head: Head): Buffer {
  const plain = Buffer.allocUnsafe(40)
  putUint(plain, head.hardState.term, 0)
  putUint(plain, head.hardState.vote, 8)
  putUint(plain, head.hardState.commit, 16)
  putUint(plain, head.sequence, 24)
  putUint(plain, head.snapshotIndex, 32)
  return s.seal(
    HEAD_KEY,
    { type: 'hardState', term: head.hardState.term, index: head.lastIndex, chain: head.lastTag },
    plain,
  ).value
}

export const sealEntry = (s: Sealer, e: Entry, chain: Uint8Array): { value: Buffer; tag: Uint8Array } =>
  s.seal(entryKey(e.index), { type: e.type, term: e.term, index: e.index, chain }, e.data)

const ENTRY_TYPES: readonly string[] = ['normal', 'confChange', 'confChangeV2'] satisfies EntryType[]

/**
 * Checks that the records are exactly what was written last. Null when nothing was ever written. Records up to the
 * compacted index are garbage of an interrupted compaction and are ignored.
 */
export function readContent(
  file: string,
  sealer: Sealer,
  records: readonly (readonly [Uint8Array, Uint8Array])[],
): LogContent | null {
  if (records.length === 0) return null
  const named = new Map<string, Uint8Array>()
  const entries: [number, Uint8Array, Uint8Array][] = []
  for (const [key, value] of records) {
    const k = Buffer.from(key)
    if (k.length === 9 && k[0] === ENTRY_PREFIX) entries.push([getUint(k, 1), key, value])
    else named.set(k.toString('latin1'), value)
  }
  const open = (key: Buffer, type: string) => {
    const name = key.toString('latin1')
    const value = named.get(name)
    if (value === undefined) throw damaged(file, `record ${name}`, 'is missing')
    named.delete(name)
    const opened = sealer.open(key, value)
    if (typeof opened === 'string') throw damaged(file, `record ${name}`, opened)
    if (opened.type !== type) throw damaged(file, `record ${name}`, `has the type ${opened.type}`)
    return opened
  }
  const meta = JSON.parse(Buffer.from(open(META_KEY, 'meta').plain).toString()) as Meta
  const pointer = JSON.parse(Buffer.from(open(POINTER_KEY, 'pointer').plain).toString()) as Pointer
  const h = open(HEAD_KEY, 'hardState')
  const hp = Buffer.from(h.plain)
  const head: Head = {
    hardState: { term: getUint(hp, 0), vote: getUint(hp, 8), commit: getUint(hp, 16) },
    lastIndex: h.index,
    lastTag: Buffer.from(h.chain),
    sequence: getUint(hp, 24),
    snapshotIndex: getUint(hp, 32),
  }
  for (const name of named.keys()) throw damaged(file, `record ${JSON.stringify(name)}`, 'is not one of ours')
  if (pointer.index !== head.snapshotIndex)
    throw damaged(file, 'record s', `names snapshot ${pointer.index}, record h ${head.snapshotIndex}`)

  const tail = new Tail(pointer.compactedIndex, pointer.compactedTerm, Buffer.from(pointer.anchor, 'hex'))
  for (const [index, key, value] of entries) {
    if (index <= pointer.compactedIndex) continue
    const record = `entry ${index}`
    const e = sealer.open(key, value)
    if (typeof e === 'string') throw damaged(file, record, e)
    if (!ENTRY_TYPES.includes(e.type) || e.index !== index) throw damaged(file, record, `is ${e.type} ${e.index}`)
    if (index !== tail.lastIndex + 1) throw damaged(file, `entry ${tail.lastIndex + 1}`, `is missing before ${index}`)
    if (!Buffer.from(e.chain).equals(tail.tag(tail.lastIndex)))
      throw damaged(file, record, 'does not follow from the record before it')
    if (e.term < Number(tail.term(tail.lastIndex))) throw damaged(file, record, `has the earlier term ${e.term}`)
    // Copies: what LevelDB hands out shares one large buffer per page of records.
    const data = Uint8Array.from(e.plain)
    tail.append([{ term: e.term, index, type: e.type as EntryType, data }], [Buffer.from(e.tag)])
  }
  if (tail.lastIndex !== head.lastIndex)
    throw damaged(file, `entry ${tail.lastIndex + 1}`, `is missing: the log must end at ${head.lastIndex}`)
  if (!Buffer.from(head.lastTag).equals(tail.tag(tail.lastIndex)))
    throw damaged(file, `entry ${tail.lastIndex}`, 'is not the one that was written last')
  if (head.hardState.commit > tail.lastIndex)
    throw damaged(file, 'record h', `has commit ${head.hardState.commit} beyond the last entry ${tail.lastIndex}`)
  if (pointer.index > 0 && pointer.index > head.hardState.commit)
    throw damaged(file, 'record s', `names snapshot ${pointer.index} beyond commit ${head.hardState.commit}`)
  return { meta, pointer, head, tail }
}

/** The witness: number and chain value of the last acknowledged batch, beside the database. */
export function encodeWitness(s: Sealer, head: Head): Buffer {
  const b = Buffer.alloc(8 + TAG_BYTES)
  putUint(b, head.sequence, 0)
  b.set(head.lastTag, 8)
  return Buffer.concat([b, s.mac(b)])
}

/** Null when it was never written or lost whole with the machine's power (empty or zeros). */
export function readWitness(
  file: string,
  s: Sealer,
  bytes: Uint8Array | null,
): { sequence: number; tag: Buffer } | null {
  if (bytes === null || bytes.every((x) => x === 0)) return null
  const b = Buffer.from(bytes)
  if (b.length !== 8 + 2 * TAG_BYTES || !s.mac(b.subarray(0, 8 + TAG_BYTES)).equals(b.subarray(8 + TAG_BYTES)))
    throw damaged(file, 'the witness', 'does not match its authentication tag')
  return { sequence: getUint(b, 0), tag: b.subarray(8, 8 + TAG_BYTES) }
}
