import { fail } from './assert.js'
import type { CoreLogger, Entry, Snapshot } from './types.js'

const NOTHING: readonly Entry[] = Object.freeze([])

/**
 * The end of the log that storage has not confirmed yet, and at most one snapshot on its way there.
 *
 *     storage … offset−1 | offset … offsetInProgress−1 | offsetInProgress … last
 *                          handed out in a Ready         not yet handed out
 *
 * Entries leave by `stableTo` only if index *and* term match: a write of a tail that was replaced meanwhile must not
 * count as the write of the new one.
 */
export class Unstable {
  /** Received from the leader and not yet in storage; everything before its index is then gone. */
  snapshot: Snapshot | null = null
  snapshotInProgress = false
  private entries: Entry[] = []

  constructor(
    /** Index of the first unstable entry, also when there is none. */
    public offset: number,
    private readonly logger: CoreLogger,
  ) {
    this.offsetInProgress = offset
  }
  /** Entries below it are being written. Between offset and last + 1. */
  offsetInProgress: number

  get length(): number {
    return this.entries.length
  }

  /** 0: not known here. */
  firstIndex(): number {
    return this.snapshot ? this.snapshot.index + 1 : 0
  }

  /** Of the whole log: everything below the offset is in storage or in the snapshot. */
  lastIndex(): number {
    return this.offset + this.entries.length - 1
  }

  /** −1: not known here. */
  term(index: number): number {
    if (index < this.offset) return this.snapshot !== null && this.snapshot.index === index ? this.snapshot.term : -1
    const at = index - this.offset
    return at < this.entries.length ? this.entries[at]!.term : -1
  }

  /** Not yet handed out. */
  nextEntries(): readonly Entry[] {
    const inProgress = this.offsetInProgress - this.offset
    return this.entries.length === inProgress ? NOTHING : this.entries.slice(inProgress)
  }

  hasNextEntries(): boolean {
    return this.entries.length > this.offsetInProgress - this.offset
  }

  nextSnapshot(): Snapshot | null {
    return this.snapshotInProgress ? null : this.snapshot
  }

  acceptInProgress(): void {
    this.offsetInProgress = this.offset + this.entries.length
    if (this.snapshot !== null) this.snapshotInProgress = true
  }

  stableTo(index: number, term: number): void {
    const ours = this.term(index)
    if (ours < 0) {
      this.logger.info(`entry at index ${index} missing from unstable log; ignoring`)
      return
    }
    if (index < this.offset) {
      this.logger.info(`entry at index ${index} matched unstable snapshot; ignoring`)
      return
    }
    if (ours !== term) {
      this.logger.info(
        `entry at (index,term)=(${index},${term}) mismatched with entry at (${index},${ours}) in unstable log; ignoring`,
      )
      return
    }
    const count = index + 1 - this.offset
    this.entries = count === this.entries.length ? [] : this.entries.slice(count)
    this.offset = index + 1
    if (this.offsetInProgress < this.offset) this.offsetInProgress = this.offset
  }

  stableSnapTo(index: number): void {
    if (this.snapshot !== null && this.snapshot.index === index) {
      this.snapshot = null
      this.snapshotInProgress = false
    }
  }

  restore(snapshot: Snapshot): void {
    this.offset = snapshot.index + 1
    this.offsetInProgress = this.offset
    this.entries = []
    this.snapshot = snapshot
    this.snapshotInProgress = false
  }

  /** `from` counts into `added`: entries before it are already in the log. */
  truncateAndAppend(added: readonly Entry[], from: number): void {
    const first = added[from]!.index
    if (first === this.offset + this.entries.length) {
      // The usual case.
    } else if (first <= this.offset) {
      this.logger.info(`replace the unstable entries from index ${first}`)
      this.entries = []
      this.offset = first
      this.offsetInProgress = first
    } else {
      if (first > this.offset + this.entries.length)
        fail(`unstable: gap before entry ${first}, log ends at ${this.lastIndex()}`)
      this.logger.info(`truncate the unstable entries before index ${first}`)
      this.entries.length = first - this.offset
      if (this.offsetInProgress > first) this.offsetInProgress = first
    }
    for (let i = from; i < added.length; i++) this.entries.push(added[i]!)
  }

  /** Entries in [lo, hi): a copy, safe to hand out. */
  slice(lo: number, hi: number): readonly Entry[] {
    if (lo > hi || lo < this.offset || hi > this.offset + this.entries.length)
      fail(`unstable: [${lo}, ${hi}) is out of [${this.offset}, ${this.offset + this.entries.length})`)
    if (hi - lo === 1) return [this.entries[lo - this.offset]!]
    return this.entries.slice(lo - this.offset, hi - this.offset)
  }

  /** For size limits without a copy: entry by index, which must be in range. */
  at(index: number): Entry {
    return this.entries[index - this.offset]!
  }
}
