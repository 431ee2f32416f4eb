import { StoreChain, StoreSnapshot } from '#proto'
import { invalid } from '../../common/index.js'
import type { Kind, Tables } from './contract.js'
import { State } from './state.js'
import { freeze, KINDS } from './tables.js'

/** Small objects share a piece up to this: some milliseconds to encode or to decode. */
const PIECE_BYTES = 64 * 1024
const PIECE_BYTES_MAX = 1024 * 1024

/**
 * A StoreSnapshot (proto/raft.proto) in pieces of at most 1 MiB: the objects of each kind in order of creation, which
 * `decodeState` keeps. Protobuf messages may be joined, so each object is encoded once and by itself; a large one is a
 * piece without being copied again.
 */
export function* encodeState(state: State): Generator<Uint8Array> {
  let small: Uint8Array[] = []
  let bytes = 0
  for (const message of messages(state)) {
    if (bytes + message.length > PIECE_BYTES && bytes > 0) {
      yield small.length === 1 ? small[0]! : Buffer.concat(small, bytes)
      small = []
      bytes = 0
    }
    if (message.length > PIECE_BYTES) {
      for (let i = 0; i < message.length; i += PIECE_BYTES_MAX) yield message.subarray(i, i + PIECE_BYTES_MAX)
      continue
    }
    small.push(message)
    bytes += message.length
  }
  if (bytes > 0) yield Buffer.concat(small, bytes)
}

function* messages(state: State): Generator<Uint8Array> {
  yield StoreSnapshot.encode(StoreSnapshot.create({ chain: StoreChain.create({ sequence: state.chain }) }))
  for (const kind of KINDS)
    for (const object of state.inOrder(kind))
      yield StoreSnapshot.encode(StoreSnapshot.create({ [`${kind}s`]: [object] }))
}

/** The state that was encoded, whatever its pieces were cut into. What an object holds as bytes it shares with its piece. */
export async function decodeState(index: number, pieces: AsyncIterable<Uint8Array>): Promise<State> {
  const edit = {}
  let state = State.empty()
  let chain = 0
  for await (const fields of wholeFields(pieces)) {
    const part = StoreSnapshot.decode(fields)
    chain = part.chain?.sequence ?? chain
    for (const kind of KINDS)
      for (const object of part[`${kind}s`] as Tables[Kind][]) state = state.put(kind, freeze(object), edit)
  }
  return state.at(index, chain)
}

/** Cuts anew between the message's fields, so that each part can be decoded by itself. */
async function* wholeFields(pieces: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  let waiting: Uint8Array[] = []
  let bytes = 0
  /** Bytes that the first field in `waiting` takes, 0 while that is not known. */
  let wanted = 0
  for await (const piece of pieces) {
    waiting.push(piece)
    bytes += piece.length
    if (bytes < wanted) continue
    const all = waiting.length === 1 ? piece : Buffer.concat(waiting, bytes)
    let end = 0
    for (;;) {
      const next = fieldEnd(all, end)
      wanted = next - end
      if (next > all.length || next === end) break
      end = next
    }
    if (end > 0) yield all.subarray(0, end)
    waiting = end < all.length ? [all.subarray(end)] : []
    bytes = all.length - end
  }
  if (bytes > 0) throw malformed('is cut short')
}

/** Where the field at `at` ends, perhaps beyond `bytes`; `at` itself when its tag and length are not all there. */
function fieldEnd(bytes: Uint8Array, at: number): number {
  let i = at
  const varint = (): number | null => {
    let value = 0
    for (let scale = 1; i < bytes.length; scale *= 128) {
      const b = bytes[i++]!
      value += (b & 127) * scale
      if (b < 128) return value
      if (scale > 2 ** 42) throw malformed('has an endless number in it')
    }
    return null
  }
  const tag = varint()
  if (tag === null) return at
  if ((tag & 7) !== 2) throw malformed(`has a field of wire type ${tag & 7}`)
  const length = varint()
  return length === null ? at : i + length
}

const malformed = (what: string) => invalid('snapshotMalformed', `the store's snapshot ${what}`)
