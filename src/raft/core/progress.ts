import { Inflights } from './inflights.js'
import type { ProgressState } from './types.js'

/**
 * What the leader knows of one member's log.
 *
 *            ack                    gap below the log's start
 *     probe ────▶ replicate   probe/replicate ────▶ snapshot
 *       ▲  ◀──── rejection,                             │
 *       └─────── unreachable   ◀── reported, or an ack ─┘
 *
 * match < next always; in replicate `next` runs ahead of the acknowledgements, within the inflight window.
 */
export class Progress {
  match = 0
  /** Highest commit index sent; bounded by what the member may hold. */
  sentCommit = 0
  state: ProgressState = 'probe'
  /** In state snapshot: its index. */
  pendingSnapshot = 0
  /** Heard of since the last quorum check. */
  recentActive = false
  /** No more entries until an acknowledgement or a heartbeat answer. */
  flowPaused = false

  constructor(
    public next: number,
    public inflights: Inflights,
    public isLearner: boolean,
  ) {}

  /** The window is shared with the original: a copy replaces it or is thrown away. */
  clone(): Progress {
    const copy = new Progress(this.next, this.inflights, this.isLearner)
    copy.match = this.match
    copy.sentCommit = this.sentCommit
    copy.state = this.state
    copy.pendingSnapshot = this.pendingSnapshot
    copy.recentActive = this.recentActive
    copy.flowPaused = this.flowPaused
    return copy
  }

  /** Back to knowing nothing, at the start of a term. */
  reset(next: number, match: number): void {
    this.match = match
    this.next = next
    this.sentCommit = 0
    this.recentActive = false
    this.inflights = new Inflights(this.inflights.maxCount, this.inflights.maxBytes)
    this.enter('probe')
  }

  private enter(state: ProgressState): void {
    this.flowPaused = false
    this.pendingSnapshot = 0
    this.state = state
    this.inflights.reset()
  }

  becomeProbe(): void {
    // After a snapshot that was reported as installed, probe from right behind it.
    const next = Math.max(this.match + 1, this.state === 'snapshot' ? this.pendingSnapshot + 1 : 0)
    this.enter('probe')
    this.next = next
    this.sentCommit = Math.min(this.sentCommit, next - 1)
  }

  becomeReplicate(): void {
    this.enter('replicate')
    this.next = this.match + 1
  }

  becomeSnapshot(index: number): void {
    this.enter('snapshot')
    this.pendingSnapshot = index
    this.next = index + 1
    this.sentCommit = index
  }

  /** After an append with `count` entries went out. */
  sentEntries(count: number, bytes: number): void {
    if (this.state === 'replicate') {
      if (count > 0) {
        this.next += count
        this.inflights.add(this.next - 1, bytes)
      }
      this.flowPaused = this.inflights.isFull()
    } else if (this.state === 'probe' && count > 0) {
      this.flowPaused = true
    }
  }

  /** Would a message with this commit index tell the member anything? */
  canBumpCommit(index: number): boolean {
    return index > this.sentCommit && this.sentCommit < this.next - 1
  }

  /** An acknowledgement up to `index`; false if it says nothing new. */
  maybeUpdate(index: number): boolean {
    if (index <= this.match) return false
    this.match = index
    if (this.next <= index) this.next = index + 1
    this.flowPaused = false
    return true
  }

  /**
   * A rejection of the append at `rejected`; `hint` is where the logs may agree. False if it is stale: then it says
   * nothing about what was sent since.
   */
  maybeDecrement(rejected: number, hint: number): boolean {
    if (this.state === 'replicate') {
      if (rejected <= this.match) return false
      this.next = this.match + 1
      this.sentCommit = Math.min(this.sentCommit, this.next - 1)
      return true
    }
    if (this.next - 1 !== rejected) return false
    this.next = Math.max(Math.min(rejected, hint + 1), this.match + 1)
    this.sentCommit = Math.min(this.sentCommit, this.next - 1)
    this.flowPaused = false
    return true
  }

  isPaused(): boolean {
    return this.state === 'snapshot' || this.flowPaused
  }
}
