import { invariant } from '../../common/index.js'
import type { Entry, StorageFault } from '../core/index.js'
import { entrySize } from '../core/index.js'

/** What stays of the log behind a snapshot, for followers that are a little behind: as much as both allow. */
export interface LogKept {
  readonly entries: number
  readonly bytes: number
}

/** The log since the last compaction, in memory: the core reads it synchronously. Tags are the chain of the records. */
export class Tail {
  #entries: Entry[] = []
  #tags: Uint8Array[] = []
  #bytes = 0

  constructor(
    public compactedIndex: number,
    public compactedTerm: number,
    /** Chain value that the first record after `compactedIndex` names. */
    public anchor: Uint8Array,
  ) {}

  get firstIndex(): number {
    return this.compactedIndex + 1
  }

  get lastIndex(): number {
    return this.compactedIndex + this.#entries.length
  }

  get bytes(): number {
    return this.#bytes
  }

  /** Of the entries after `index`. */
  bytesAfter(index: number): number {
    let bytes = 0
    for (let i = Math.max(0, index - this.compactedIndex); i < this.#entries.length; i++)
      bytes += this.#entries[i]!.data.length
    return bytes
  }

  /** Where a compaction at `index` may cut, so that what stays up to `index` is no more than `keep`. */
  cutBehind(index: number, keep: LogKept): number {
    let cut = Math.min(index, this.lastIndex)
    for (let bytes = 0; cut > this.compactedIndex && index - cut < keep.entries; cut--) {
      bytes += this.entry(cut).data.length
      if (bytes > keep.bytes) break
    }
    return cut
  }

  entry(index: number): Entry {
    const e = this.#entries[index - this.firstIndex]
    invariant(e !== undefined, `raft log: entry ${index} is outside ${this.firstIndex}–${this.lastIndex}`)
    return e
  }

  /** Chain value of the record at `index`, the anchor for the one before the first. */
  tag(index: number): Uint8Array {
    if (index === this.compactedIndex) return this.anchor
    const tag = this.#tags[index - this.firstIndex]
    invariant(tag !== undefined, `raft log: no chain value at ${index} outside ${this.firstIndex}–${this.lastIndex}`)
    return tag
  }

  term(index: number): number | StorageFault {
    if (index < this.compactedIndex) return 'compacted'
    if (index === this.compactedIndex) return this.compactedTerm
    if (index > this.lastIndex) return 'unavailable'
    return this.entry(index).term
  }

  slice(lo: number, hi: number, maxBytes: number): readonly Entry[] | StorageFault {
    if (lo <= this.compactedIndex) return 'compacted'
    if (hi > this.lastIndex + 1) return 'unavailable'
    const from = lo - this.firstIndex
    const to = hi - this.firstIndex
    let end = from
    let bytes = 0
    while (end < to) {
      bytes += entrySize(this.#entries[end]!)
      if (end > from && bytes > maxBytes) break
      end++
    }
    return this.#entries.slice(from, end)
  }

  /** Drops what `entries` overwrites, then appends; they must join on without a gap. */
  append(entries: readonly Entry[], tags: readonly Uint8Array[]): void {
    if (entries.length === 0) return
    this.truncate(entries[0]!.index - 1)
    invariant(
      entries[0]!.index === this.lastIndex + 1,
      `raft log: append at ${entries[0]!.index} after ${this.lastIndex}`,
    )
    for (const e of entries) {
      this.#entries.push(e)
      this.#bytes += e.data.length
    }
    for (const t of tags) this.#tags.push(t)
  }

  truncate(last: number): void {
    invariant(last >= this.compactedIndex, `raft log: truncation to ${last} below the compacted ${this.compactedIndex}`)
    while (this.lastIndex > last) {
      this.#bytes -= this.#entries.pop()!.data.length
      this.#tags.pop()
    }
  }

  /** Everything is replaced by a snapshot at `index`. */
  reset(index: number, term: number, anchor: Uint8Array): void {
    this.#entries = []
    this.#tags = []
    this.#bytes = 0
    this.compactedIndex = index
    this.compactedTerm = term
    this.anchor = anchor
  }

  /** The same entries were sealed anew. */
  retag(tags: readonly Uint8Array[]): void {
    invariant(
      tags.length === this.#entries.length,
      `raft log: ${tags.length} chain values for ${this.#entries.length} entries`,
    )
    this.#tags = [...tags]
  }

  compact(index: number): void {
    if (index <= this.compactedIndex) return
    const term = this.entry(index).term
    const anchor = this.tag(index)
    const dropped = index - this.compactedIndex
    for (let i = 0; i < dropped; i++) this.#bytes -= this.#entries[i]!.data.length
    // New arrays: slices that were handed out are never changed.
    this.#entries = this.#entries.slice(dropped)
    this.#tags = this.#tags.slice(dropped)
    this.compactedIndex = index
    this.compactedTerm = term
    this.anchor = anchor
  }
}
