import { fail } from './assert.js'
import { NO_BYTES } from './message.js'
import type { ConfChange, ConfChangeSingle, ConfChangeTransition, ConfChangeType, EntryType } from './types.js'

/**
 * Conf changes as entry data: tag-length-value with the field numbers and wire types of raftpb's ConfChange (v1: one
 * change) and ConfChangeV2, so that entry sizes, and with them all limits, come out the same.
 */
const TYPES: readonly ConfChangeType[] = ['addNode', 'removeNode', 'updateNode', 'addLearnerNode']
const TRANSITIONS: readonly ConfChangeTransition[] = ['auto', 'jointImplicit', 'jointExplicit']

/** What the core itself proposes to leave a joint configuration has no data at all: it can't exceed any limit. */
export const LEAVE_JOINT: ConfChange = Object.freeze({
  transition: 'auto',
  changes: Object.freeze([]),
  context: NO_BYTES,
})

export type ConfChangeEntryType = Exclude<EntryType, 'normal'>

/** The old entry type holds exactly one change and has no transition. */
export const fitsV1 = (change: ConfChange): boolean => change.changes.length === 1 && change.transition === 'auto'

export function encodeConfChange(change: ConfChange, type: ConfChangeEntryType = 'confChangeV2'): Uint8Array {
  const out: number[] = []
  if (type === 'confChange') {
    if (!fitsV1(change))
      fail(`encodeConfChange: a confChange entry holds one change with transition auto, got ${change.changes.length}`)
    const only = change.changes[0]!
    out.push(0x08, 0)
    out.push(0x10, TYPES.indexOf(only.type))
    out.push(0x18)
    putVarint(out, only.nodeId)
    putBytes(out, 0x22, change.context)
    return Uint8Array.from(out)
  }
  out.push(0x08, TRANSITIONS.indexOf(change.transition))
  for (const { type: kind, nodeId } of change.changes) {
    const inner = [0x08, TYPES.indexOf(kind), 0x10]
    putVarint(inner, nodeId)
    out.push(0x12, inner.length, ...inner)
  }
  putBytes(out, 0x1a, change.context)
  return Uint8Array.from(out)
}

/** Asserts on malformed data: the entry is in the committed log, nobody can skip it. */
export function decodeConfChange(data: Uint8Array, type: ConfChangeEntryType = 'confChangeV2'): ConfChange {
  if (data.length === 0 && type === 'confChangeV2') return LEAVE_JOINT
  const reader = new Reader(data)
  return type === 'confChange' ? readV1(reader) : readV2(reader)
}

function readV1(reader: Reader): ConfChange {
  let type: ConfChangeType = 'addNode'
  let nodeId = 0
  let context: Uint8Array = NO_BYTES
  while (!reader.done) {
    const tag = reader.varint()
    if (tag === 0x08) reader.varint()
    else if (tag === 0x10) type = named(TYPES, reader.varint(), 'type')
    else if (tag === 0x18) nodeId = reader.varint()
    else if (tag === 0x22) context = reader.bytes()
    else fail(`decodeConfChange: unknown tag ${tag}`)
  }
  return { transition: 'auto', changes: [{ type, nodeId }], context }
}

function readV2(reader: Reader): ConfChange {
  let transition: ConfChangeTransition = 'auto'
  const changes: ConfChangeSingle[] = []
  let context: Uint8Array = NO_BYTES
  while (!reader.done) {
    const tag = reader.varint()
    if (tag === 0x08) transition = named(TRANSITIONS, reader.varint(), 'transition')
    else if (tag === 0x12) changes.push(readSingle(new Reader(reader.bytes())))
    else if (tag === 0x1a) context = reader.bytes()
    else fail(`decodeConfChange: unknown tag ${tag}`)
  }
  return { transition, changes, context }
}

function readSingle(reader: Reader): ConfChangeSingle {
  let type: ConfChangeType = 'addNode'
  let nodeId = 0
  while (!reader.done) {
    const tag = reader.varint()
    if (tag === 0x08) type = named(TYPES, reader.varint(), 'type')
    else if (tag === 0x10) nodeId = reader.varint()
    else fail(`decodeConfChange: unknown tag ${tag} in a change`)
  }
  return { type, nodeId }
}

function named<T>(names: readonly T[], at: number, what: string): T {
  return names[at] ?? fail(`decodeConfChange: unknown ${what} ${at}`)
}

/** Ids go to 2^53, past the 32 bits of JavaScript's bit operations. */
function putVarint(out: number[], value: number): void {
  while (value >= 128) {
    out.push((value % 128) + 128)
    value = Math.floor(value / 128)
  }
  out.push(value)
}

function putBytes(out: number[], tag: number, bytes: Uint8Array): void {
  if (bytes.length === 0) return
  out.push(tag)
  putVarint(out, bytes.length)
  for (const byte of bytes) out.push(byte)
}

class Reader {
  private at = 0
  constructor(private readonly data: Uint8Array) {}

  get done(): boolean {
    return this.at >= this.data.length
  }

  varint(): number {
    let value = 0
    let unit = 1
    for (;;) {
      if (this.at >= this.data.length) fail('decodeConfChange: the data ends inside a number')
      const byte = this.data[this.at++]!
      value += (byte & 127) * unit
      if (value > Number.MAX_SAFE_INTEGER) fail('decodeConfChange: a number is above 2^53')
      if (byte < 128) return value
      unit *= 128
    }
  }

  bytes(): Uint8Array {
    const length = this.varint()
    if (this.at + length > this.data.length) fail('decodeConfChange: the data ends inside a field')
    this.at += length
    return this.data.slice(this.at - length, this.at)
  }
}
