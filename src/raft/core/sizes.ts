import type { Entry } from './types.js'

function varintSize(n: number): number {
  if (n < 0x80) return 1
  if (n < 0x4000) return 2
  if (n < 0x20_0000) return 3
  if (n < 0x1000_0000) return 4
  let size = 5
  for (let rest = Math.floor(n / 0x8_0000_0000); rest > 0; rest = Math.floor(rest / 128)) size++
  return size
}

/**
 * Bytes that limits count for one entry: its size in the protobuf encoding that etcd's raft uses (type, term and index
 * each with a tag, data only if there is any). Kept the same so that equal settings cut at equal places.
 */
export function entrySize(entry: Entry): number {
  const length = entry.data.length
  const head = 1 + 1 + 1 + varintSize(entry.term) + 1 + varintSize(entry.index)
  return length === 0 ? head : head + 1 + varintSize(length) + length
}

export function entriesSize(entries: readonly Entry[]): number {
  let sum = 0
  for (let i = 0; i < entries.length; i++) sum += entrySize(entries[i]!)
  return sum
}

/** Bytes of what the user proposed, without any framing: what the uncommitted limit and the inflight limit count. */
export const payloadSize = (entry: Entry): number => entry.data.length

export function payloadsSize(entries: readonly Entry[]): number {
  let sum = 0
  for (let i = 0; i < entries.length; i++) sum += entries[i]!.data.length
  return sum
}

/** How many of the first entries fit in `maxBytes`: at least one if there is any, so that progress never stops. */
export function countWithin(entries: readonly Entry[], from: number, to: number, maxBytes: number): number {
  if (from >= to) return 0
  if (maxBytes >= Number.MAX_SAFE_INTEGER) return to - from
  let size = entrySize(entries[from]!)
  for (let i = from + 1; i < to; i++) {
    size += entrySize(entries[i]!)
    if (size > maxBytes) return i - from
  }
  return to - from
}

export function limitSize(entries: readonly Entry[], maxBytes: number): readonly Entry[] {
  const n = countWithin(entries, 0, entries.length, maxBytes)
  return n === entries.length ? entries : entries.slice(0, n)
}
