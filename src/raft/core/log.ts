import { fail } from './assert.js'
import { entriesSize, entrySize } from './sizes.js'
import type { CoreLogger, Entry, Snapshot, StorageFault, StorageReader } from './types.js'
import { Unstable } from './unstable.js'

const NOTHING: readonly Entry[] = Object.freeze([])

/**
 * The whole log as the state machine sees it: storage below, the unstable end above.
 *
 *     applied ≤ applying ≤ committed ≤ last
 *
 * `applying` is what was handed out for application, `applied` what was confirmed.
 */
export class RaftLog {
  readonly unstable: Unstable
  committed: number
  applying: number
  applied: number
  /** Encoded bytes handed out for application and not confirmed. */
  private applyingBytes = 0
  /** The limit was reached, or more was cut off than confirmed: wait for confirmations. */
  private applyingPaused = false

  constructor(
    private readonly storage: StorageReader,
    private readonly logger: CoreLogger,
    /** Bound of `applyingBytes`; one entry above it is let through. */
    readonly maxApplyingBytes: number,
  ) {
    const first = storage.firstIndex()
    this.unstable = new Unstable(storage.lastIndex() + 1, logger)
    this.committed = first - 1
    this.applying = first - 1
    this.applied = first - 1
  }

  firstIndex(): number {
    return this.unstable.firstIndex() || this.storage.firstIndex()
  }

  /** Storage never holds more than what lies below the unstable entries and those that are on their way to it. */
  lastIndex(): number {
    return this.unstable.lastIndex()
  }

  lastTerm(): number {
    const term = this.term(this.lastIndex())
    if (typeof term !== 'number') fail(`log: no term for the last index ${this.lastIndex()}: ${term}`)
    return term
  }

  /** Known from one before the first index: that place is the anchor of the first append. */
  term(index: number): number | StorageFault {
    const { unstable } = this
    if (index >= unstable.offset) {
      const term = unstable.term(index)
      return term >= 0 ? term : 'unavailable'
    }
    if (unstable.snapshot === null) return this.storage.term(index)
    return index === unstable.snapshot.index ? unstable.snapshot.term : 'compacted'
  }

  /** 0 where the log does not reach. */
  termOrZero(index: number): number {
    const term = this.term(index)
    return typeof term === 'number' ? term : 0
  }

  matchTerm(index: number, term: number): boolean {
    return this.term(index) === term
  }

  isUpToDate(index: number, term: number): boolean {
    const lastTerm = this.lastTerm()
    return term > lastTerm || (term === lastTerm && index >= this.lastIndex())
  }

  append(entries: readonly Entry[], from = 0): number {
    if (from < entries.length) {
      const before = entries[from]!.index - 1
      if (before < this.committed)
        fail(`log: entry ${before + 1} would replace committed entries up to ${this.committed}`)
      this.unstable.truncateAndAppend(entries, from)
    }
    return this.lastIndex()
  }

  /**
   * A follower's append (Raft §5.3): refused (−1) unless (prevIndex, prevTerm) is in the log; else the index of the last
   * new entry. Only a conflicting tail is dropped, and commit never passes what this append vouches for.
   */
  maybeAppend(prevIndex: number, prevTerm: number, entries: readonly Entry[], leaderCommit: number): number {
    if (!this.matchTerm(prevIndex, prevTerm)) return -1
    const lastNew = prevIndex + entries.length
    const conflict = this.findConflict(entries)
    if (conflict !== 0) {
      if (conflict <= this.committed)
        fail(`log: entry ${conflict} conflicts with the committed entry; committed is ${this.committed}`)
      this.append(entries, conflict - (prevIndex + 1))
    }
    this.commitTo(Math.min(leaderCommit, lastNew))
    return lastNew
  }

  /** Index of the first entry that is not in the log with that term; 0 if all are. */
  private findConflict(entries: readonly Entry[]): number {
    const last = this.lastIndex()
    for (let i = 0; i < entries.length; i++) {
      const entry = entries[i]!
      if (entry.index > last) return entry.index
      if (!this.matchTerm(entry.index, entry.term)) {
        this.logger.info(
          `found conflict at index ${entry.index} [existing term: ${this.termOrZero(entry.index)}, conflicting term: ${entry.term}]`,
        )
        return entry.index
      }
    }
    return 0
  }

  /** The last position at or below `index` whose term is at most `term`; term 0 where the log was cut. */
  findConflictByTerm(index: number, term: number): { index: number; term: number } {
    for (; index > 0; index--) {
      const ours = this.term(index)
      if (typeof ours !== 'number') return { index, term: 0 }
      if (ours <= term) return { index, term: ours }
    }
    return { index: 0, term: 0 }
  }

  commitTo(index: number): void {
    if (index <= this.committed) return
    if (index > this.lastIndex())
      fail(`log: commit ${index} is beyond the last index ${this.lastIndex()}: was the log damaged, cut or lost?`)
    this.committed = index
  }

  /** Raft §5.4.2: only an entry of the current term commits by counting copies. */
  maybeCommit(index: number, term: number): boolean {
    if (term === 0 || index <= this.committed || !this.matchTerm(index, term)) return false
    this.commitTo(index)
    return true
  }

  appliedTo(index: number, bytes: number): void {
    if (index > this.committed || index < this.applied)
      fail(`log: applied ${index} is out of [applied ${this.applied}, committed ${this.committed}]`)
    this.applied = index
    if (this.applying < index) this.applying = index
    this.applyingBytes = Math.max(0, this.applyingBytes - bytes)
    this.applyingPaused = this.applyingBytes >= this.maxApplyingBytes
  }

  /** These were handed out for application. */
  acceptApplying(entries: readonly Entry[], allowUnstable: boolean): void {
    if (entries.length === 0) return
    const index = entries[entries.length - 1]!.index
    if (index > this.committed) fail(`log: applying ${index} is beyond committed ${this.committed}`)
    this.applying = index
    this.applyingBytes += entriesSize(entries)
    // Cut short by the limit: a later, smaller entry must not slip into the remaining room while these wait.
    this.applyingPaused = this.applyingBytes >= this.maxApplyingBytes || index < this.maxAppliable(allowUnstable)
  }

  /** Async storage writes apply only what is stable; in sync mode the caller writes a Ready before applying it. */
  private maxAppliable(allowUnstable: boolean): number {
    return allowUnstable ? this.committed : Math.min(this.committed, this.unstable.offset - 1)
  }

  hasNextCommitted(allowUnstable: boolean): boolean {
    if (this.applyingPaused || this.unstable.snapshot !== null) return false
    return this.applying < this.maxAppliable(allowUnstable)
  }

  nextCommitted(allowUnstable: boolean): readonly Entry[] {
    if (!this.hasNextCommitted(allowUnstable)) return NOTHING
    const room = this.maxApplyingBytes - this.applyingBytes
    if (room <= 0) fail(`log: applying ${this.applyingBytes} bytes, limit ${this.maxApplyingBytes}, but not paused`)
    const entries = this.slice(this.applying + 1, this.maxAppliable(allowUnstable) + 1, room)
    if (typeof entries === 'string') fail(`log: committed entries from ${this.applying + 1} are ${entries}`)
    return entries
  }

  snapshot(): Snapshot | StorageFault {
    return this.unstable.snapshot ?? this.storage.snapshot()
  }

  restore(snapshot: Snapshot): void {
    this.logger.info(
      `log [committed=${this.committed}, applied=${this.applied}, applying=${this.applying}, unstable.offset=${this.unstable.offset}, ` +
        `unstable.offsetInProgress=${this.unstable.offsetInProgress}, len(unstable.Entries)=${this.unstable.length}] ` +
        `starts to restore snapshot [index: ${snapshot.index}, term: ${snapshot.term}]`,
    )
    this.committed = snapshot.index
    this.unstable.restore(snapshot)
  }

  /** From `lo` to the end, as many as fit; none if `lo` is past the end. */
  entriesFrom(lo: number, maxBytes: number): readonly Entry[] | StorageFault {
    const last = this.lastIndex()
    return lo > last ? NOTHING : this.slice(lo, last + 1, maxBytes)
  }

  /** Entries in [lo, hi): at least one, then as many as fit in `maxBytes`. */
  slice(lo: number, hi: number, maxBytes: number): readonly Entry[] | StorageFault {
    if (lo > hi) fail(`log: slice [${lo}, ${hi})`)
    if (lo < this.firstIndex()) return 'compacted'
    if (hi > this.lastIndex() + 1) fail(`log: slice [${lo}, ${hi}) is beyond the last index ${this.lastIndex()}`)
    if (lo === hi) return NOTHING
    const offset = this.unstable.offset
    if (lo >= offset) return this.unstable.slice(lo, this.cutUnstable(lo, hi, maxBytes, 0))
    const cut = Math.min(hi, offset)
    const stable = this.storage.entries(lo, cut, maxBytes)
    if (stable === 'compacted') return stable
    if (typeof stable === 'string') fail(`log: storage has no entries [${lo}, ${cut}): ${stable}`)
    if (hi <= offset || stable.length < cut - lo) return stable
    const used = maxBytes >= Number.MAX_SAFE_INTEGER ? 0 : entriesSize(stable)
    if (used >= maxBytes) return stable
    const end = this.cutUnstable(offset, hi, maxBytes, used)
    return end === offset ? stable : stable.concat(this.unstable.slice(offset, end))
  }

  /** Where [lo, hi) of the unstable entries has to end so that `maxBytes` holds; the first goes in if `used` is 0. */
  private cutUnstable(lo: number, hi: number, maxBytes: number, used: number): number {
    if (maxBytes >= Number.MAX_SAFE_INTEGER) return hi
    let size = used
    for (let i = lo; i < hi; i++) {
      size += entrySize(this.unstable.at(i))
      if (size > maxBytes && !(used === 0 && i === lo)) return i
    }
    return hi
  }
}
