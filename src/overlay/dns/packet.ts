/** DNS messages (RFC 1035, 6891), as far as a resolver for containers needs them. Pure. */

export const TYPE = { A: 1, PTR: 12, AAAA: 28, OPT: 41, ANY: 255 } as const
export const RCODE = { ok: 0, formatError: 1, serverFailure: 2, nameError: 3, notImplemented: 4, refused: 5 } as const

export interface Question {
  /** Lower case, without the final dot. */
  readonly name: string
  readonly type: number
  readonly class: number
}

export interface Query {
  readonly id: number
  readonly recursionDesired: boolean
  readonly question: Question
  /** The question as it was sent, with its letter case: some clients compare. */
  readonly questionBytes: Uint8Array
  /** What the client takes by UDP: 512, or what its OPT record says. */
  readonly udpSize: number
  readonly hasEdns: boolean
}

export interface Answer {
  readonly type: number
  readonly ttl: number
  readonly data: Uint8Array
}

const HEADER = 12
const MAX_NAME = 255

/** Reads a name, following compression pointers backwards only. null when malformed. */
export function readName(b: Uint8Array, at: number): { readonly name: string; readonly end: number } | null {
  const labels: string[] = []
  let end = -1
  let length = 0
  let bound = b.length
  for (;;) {
    const n = b[at]
    if (n === undefined || at >= bound) return null
    if (n === 0) {
      if (end < 0) end = at + 1
      return { name: labels.join('.').toLowerCase(), end }
    }
    if ((n & 0xc0) === 0xc0) {
      const low = b[at + 1]
      if (low === undefined) return null
      const target = ((n & 0x3f) << 8) | low
      if (end < 0) end = at + 2
      if (target >= at) return null // forward or to itself: a loop
      bound = at
      at = target
      continue
    }
    if (n > 63) return null
    length += n + 1
    if (length > MAX_NAME || at + 1 + n > b.length) return null
    labels.push(String.fromCharCode(...b.subarray(at + 1, at + 1 + n)))
    at += n + 1
  }
}

export function writeName(name: string): Uint8Array {
  const out: number[] = []
  for (const label of name === '' ? [] : name.split('.')) {
    out.push(Math.min(label.length, 63))
    for (let i = 0; i < Math.min(label.length, 63); i++) out.push(label.charCodeAt(i) & 255)
  }
  out.push(0)
  return Uint8Array.from(out)
}

/** A standard query with one question; null for anything else (an answer, two questions, garbage). */
export function parseQuery(b: Uint8Array): Query | null {
  if (b.length < HEADER) return null
  const v = new DataView(b.buffer, b.byteOffset, b.byteLength)
  const flags = v.getUint16(2)
  if (flags & 0x8000 || (flags >> 11) & 0xf || v.getUint16(4) !== 1) return null
  const name = readName(b, HEADER)
  if (!name || name.end + 4 > b.length) return null
  const question = { name: name.name, type: v.getUint16(name.end), class: v.getUint16(name.end + 2) }
  let udpSize = 512
  let hasEdns = false
  let at = name.end + 4
  for (let left = v.getUint16(6) + v.getUint16(8) + v.getUint16(10); left > 0; left--) {
    const n = readName(b, at)
    if (!n || n.end + 10 > b.length) return null
    if (v.getUint16(n.end) === TYPE.OPT) {
      hasEdns = true
      udpSize = Math.min(4096, Math.max(512, v.getUint16(n.end + 2)))
    }
    at = n.end + 10 + v.getUint16(n.end + 8)
    if (at > b.length) return null
  }
  return {
    id: v.getUint16(0),
    recursionDesired: (flags & 0x100) !== 0,
    question,
    questionBytes: b.slice(HEADER, name.end + 4),
    udpSize,
    hasEdns,
  }
}

/** An answer of ours. `limit`: bytes that fit; answers beyond are left out and the truncated flag is set. */
export function encodeResponse(q: Query, rcode: number, answers: readonly Answer[], limit: number): Uint8Array {
  const tail = q.hasEdns ? [0, 0, TYPE.OPT, 0x10, 0, 0, 0, 0, 0, 0, 0] : []
  const records: number[] = []
  let count = 0
  let truncated = false
  for (const a of answers) {
    const size = 12 + a.data.length
    if (HEADER + q.questionBytes.length + records.length + size + tail.length > limit) {
      truncated = true
      break
    }
    records.push(0xc0, HEADER, a.type >> 8, a.type & 255, 0, 1)
    records.push((a.ttl >>> 24) & 255, (a.ttl >>> 16) & 255, (a.ttl >>> 8) & 255, a.ttl & 255)
    records.push(a.data.length >> 8, a.data.length & 255, ...a.data)
    count++
  }
  const flags = 0x8080 | (truncated ? 0x200 : 0) | (q.recursionDesired ? 0x100 : 0) | rcode
  const head = [q.id >> 8, q.id & 255, flags >> 8, flags & 255, 0, 1, 0, count, 0, 0, 0, tail.length > 0 ? 1 : 0]
  return Uint8Array.from([...head, ...q.questionBytes, ...records, ...tail])
}

/** Is `response` an answer to the query that `sent` was? Id and question must be the same. */
export function answersQuery(response: Uint8Array, sent: Uint8Array): boolean {
  if (response.length < HEADER || response[0] !== sent[0] || response[1] !== sent[1] || !(response[2]! & 0x80))
    return false
  const a = readName(response, HEADER)
  const b = readName(sent, HEADER)
  if (!b) return false
  // A refusal may come without the question.
  if (response[4] === 0 && response[5] === 0) return true
  if (!a || a.name !== b.name) return false
  return [0, 1, 2, 3].every((i) => response[a.end + i] === sent[b.end + i])
}

/** The same message under another id, so that two containers' queries upstream cannot meet. */
export function withId(message: Uint8Array, id: number): Uint8Array {
  const out = message.slice()
  out[0] = id >> 8
  out[1] = id & 255
  return out
}
