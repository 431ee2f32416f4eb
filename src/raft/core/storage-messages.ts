import { draft } from './message.js'
import type { Raft } from './raft.js'
import type { Entry, HardState, Message, Snapshot } from './types.js'
import { APPEND_THREAD, APPLY_THREAD } from './types.js'

/** What one Ready wants written. */
export interface Write {
  readonly entries: readonly Entry[]
  readonly hardState: HardState | null
  readonly snapshot: Snapshot | null
}

/** Whether the core has to hear that a write is done: entries are on their way, now or from before, or a snapshot. */
export const needsStableAnswer = (r: Raft, snapshot: Snapshot | null): boolean =>
  snapshot !== null || r.log.unstable.length > 0

/**
 * The order to the append worker. The promises come first and the stability answer last: a leader's own
 * acknowledgement then finds its entries still in memory.
 */
export function makeStorageAppend(r: Raft, write: Write, promises: readonly Message[]): Message {
  const m = draft('MsgStorageAppend', APPEND_THREAD)
  m.from = r.id
  m.entries = write.entries
  m.snapshot = write.snapshot
  if (write.hardState !== null) {
    m.term = write.hardState.term
    m.vote = write.hardState.vote
    m.commit = write.hardState.commit
  }
  m.responses = needsStableAnswer(r, write.snapshot)
    ? [...promises, makeStorageAppendResponse(r, write.snapshot)]
    : promises
  return m
}

/**
 * Says how far the log is stable once all writes up to this one are done: its end, by index and term. It carries the
 * present term: an answer of an older one is ignored, because a tail it speaks of may have been replaced, and replaced
 * again by the same (index, term), while the last write of it is still under way.
 */
export function makeStorageAppendResponse(r: Raft, snapshot: Snapshot | null): Message {
  const m = draft('MsgStorageAppendResp', r.id)
  m.from = APPEND_THREAD
  m.term = r.term
  if (r.log.unstable.length > 0) {
    m.index = r.log.lastIndex()
    m.logTerm = r.log.lastTerm()
  }
  m.snapshot = snapshot
  return m
}

export function makeStorageApply(r: Raft, entries: readonly Entry[]): Message {
  const m = draft('MsgStorageApply', APPLY_THREAD)
  m.from = r.id
  m.entries = entries
  m.responses = [makeStorageApplyResponse(r, entries)]
  return m
}

export function makeStorageApplyResponse(r: Raft, entries: readonly Entry[]): Message {
  const m = draft('MsgStorageApplyResp', r.id)
  m.from = APPLY_THREAD
  m.entries = entries
  return m
}
