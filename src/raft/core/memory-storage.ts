import { fail } from './assert.js'
import { limitSize } from './sizes.js'
import { EMPTY_CONFIG } from './tracker.js'
import type { ConfState, Entry, HardState, Snapshot, StorageFault, StorageReader } from './types.js'

/** A log in memory: for tests and simulations, and the mirror of a durable log that the core reads. */
export class MemoryStorage implements StorageReader {
  private hardState: HardState = { term: 0, vote: 0, commit: 0 }
  private snapshot_: Snapshot
  /** Index and term just before the first entry. */
  private anchorIndex = 0
  private anchorTerm = 0
  private log: Entry[] = []

  constructor(confState: ConfState = EMPTY_CONFIG) {
    this.snapshot_ = { index: 0, term: 0, confState, data: new Uint8Array(0) }
  }

  initialState(): { hardState: HardState; confState: ConfState } {
    return { hardState: this.hardState, confState: this.snapshot_.confState }
  }

  setHardState(state: HardState): void {
    this.hardState = state
  }

  firstIndex(): number {
    return this.anchorIndex + 1
  }

  lastIndex(): number {
    return this.anchorIndex + this.log.length
  }

  term(index: number): number | StorageFault {
    if (index < this.anchorIndex) return 'compacted'
    if (index === this.anchorIndex) return this.anchorTerm
    return this.log[index - this.anchorIndex - 1]?.term ?? 'unavailable'
  }

  entries(lo: number, hi: number, maxBytes: number): readonly Entry[] | StorageFault {
    if (lo <= this.anchorIndex) return 'compacted'
    if (hi > this.lastIndex() + 1) return 'unavailable'
    const from = lo - this.anchorIndex - 1
    return limitSize(this.log.slice(from, hi - this.anchorIndex - 1), maxBytes)
  }

  snapshot(): Snapshot | StorageFault {
    return this.snapshot_
  }

  /** What a received snapshot leaves: an empty log behind it. False if it is not newer than the present one. */
  applySnapshot(snapshot: Snapshot): boolean {
    if (this.snapshot_.index >= snapshot.index) return false
    this.snapshot_ = snapshot
    this.anchorIndex = snapshot.index
    this.anchorTerm = snapshot.term
    this.log = []
    return true
  }

  /** A snapshot of the own state machine; the log stays until `compact`. False if it is not newer. */
  createSnapshot(index: number, confState: ConfState, data: Uint8Array): boolean {
    if (index <= this.snapshot_.index) return false
    const term = this.term(index)
    if (typeof term !== 'number') fail(`memory storage: snapshot at ${index}, whose entry is ${term}`)
    this.snapshot_ = { index, term, confState, data }
    return true
  }

  /** Drops entries up to and including `index`. False if they are gone already. */
  compact(index: number): boolean {
    if (index <= this.anchorIndex) return false
    const term = this.term(index)
    if (typeof term !== 'number') fail(`memory storage: compact up to ${index}, last index is ${this.lastIndex()}`)
    this.log = this.log.slice(index - this.anchorIndex)
    this.anchorIndex = index
    this.anchorTerm = term
    return true
  }

  /** Replaces the tail from the first entry's index on. Entries that were compacted away are skipped. */
  append(entries: readonly Entry[]): void {
    if (entries.length === 0) return
    const first = entries[0]!.index
    const skip = Math.max(0, this.anchorIndex + 1 - first)
    if (skip >= entries.length) return
    const at = first + skip - this.anchorIndex - 1
    if (at > this.log.length) fail(`memory storage: gap: append at ${first}, last index is ${this.lastIndex()}`)
    if (at < this.log.length) this.log.length = at
    for (let i = skip; i < entries.length; i++) this.log.push(entries[i]!)
  }
}
