import { fail } from './assert.js'
import { describeProgress, hex } from './describe.js'
import { draft, NO_BYTES } from './message.js'
import type { Progress } from './progress.js'
import type { Raft } from './raft.js'
import { payloadsSize } from './sizes.js'
import type { Message, RaftId } from './types.js'

/**
 * One append to a member, or a snapshot if its place in the log is gone. False if nothing was sent: paused, or nothing
 * new and `sendIfEmpty` is off. Empty appends carry the commit index.
 */
export function maybeSendAppend(r: Raft, to: RaftId, pr: Progress, sendIfEmpty: boolean): boolean {
  if (pr.isPaused()) return false
  const log = r.log
  const prev = pr.next - 1
  const prevTerm = log.term(prev)
  if (typeof prevTerm !== 'number') return maybeSendSnapshot(r, to, pr)
  const m = draft('MsgApp', to)
  // With a full window an empty append still goes out after a heartbeat answer: if all appends in flight were lost,
  // it is what brings the acknowledgement or rejection that empties the window.
  if (pr.state !== 'replicate' || !pr.inflights.isFull()) {
    const entries = log.entriesFrom(pr.next, r.config.maxSizePerMsg)
    if (typeof entries === 'string') return maybeSendSnapshot(r, to, pr)
    m.entries = entries
  }
  const count = m.entries.length
  if (count === 0 && !sendIfEmpty) return false
  m.index = prev
  m.logTerm = prevTerm
  m.commit = log.committed
  r.send(m)
  pr.sentEntries(count, payloadsSize(m.entries))
  pr.sentCommit = log.committed
  return true
}

function maybeSendSnapshot(r: Raft, to: RaftId, pr: Progress): boolean {
  if (!pr.recentActive) {
    r.logger.debug(`ignore sending snapshot to ${hex(to)} since it is not recently active`)
    return false
  }
  const snapshot = r.log.snapshot()
  if (snapshot === 'snapshotTemporarilyUnavailable') {
    r.logger.debug(`${hex(r.id)} failed to send snapshot to ${hex(to)} because snapshot is temporarily unavailable`)
    return false
  }
  if (typeof snapshot === 'string') fail(`raft ${hex(r.id)}: storage has no snapshot: ${snapshot}`)
  if (snapshot.index === 0)
    fail(`raft ${hex(r.id)}: need a non-empty snapshot for ${hex(to)}, the log starts at ${r.log.firstIndex()}`)
  r.logger.debug(
    `${hex(r.id)} [firstindex: ${r.log.firstIndex()}, commit: ${r.log.committed}] sent snapshot[index: ${snapshot.index}, ` +
      `term: ${snapshot.term}] to ${hex(to)} [${describeProgress(pr)}]`,
  )
  pr.becomeSnapshot(snapshot.index)
  r.logger.debug(`${hex(r.id)} paused sending replication messages to ${hex(to)} [${describeProgress(pr)}]`)
  const m = draft('MsgSnap', to)
  m.snapshot = snapshot
  r.send(m)
  return true
}

export function broadcastAppend(r: Raft): void {
  const { ids, ordered } = r.tracker
  for (let i = 0; i < ids.length; i++) if (ids[i] !== r.id) maybeSendAppend(r, ids[i]!, ordered[i]!, true)
}

export function broadcastHeartbeat(r: Raft, context: Uint8Array | null): void {
  for (const id of r.tracker.ids) if (id !== r.id) sendHeartbeat(r, id, context ?? NO_BYTES)
}

/** Never a commit index above what the member is known to have: it may lack what the leader committed. */
function sendHeartbeat(r: Raft, to: RaftId, context: Uint8Array): void {
  const pr = r.tracker.progress.get(to)!
  const m = draft('MsgHeartbeat', to)
  m.commit = Math.min(pr.match, r.log.committed)
  m.context = context
  r.send(m)
  pr.sentCommit = m.commit
}

export const maybeCommit = (r: Raft): boolean => r.log.maybeCommit(r.tracker.committed(), r.term)

/** Follower's side of an append (Raft §5.3). */
export function handleAppend(r: Raft, m: Message): void {
  const reply = draft('MsgAppResp', m.from)
  if (m.index < r.log.committed) {
    reply.index = r.log.committed
    r.send(reply)
    return
  }
  const last = r.log.maybeAppend(m.index, m.logTerm, m.entries, m.commit)
  if (last >= 0) {
    reply.index = last
    r.send(reply)
    return
  }
  r.logger.debug(
    `${hex(r.id)} [logterm: ${r.log.termOrZero(m.index)}, index: ${m.index}] rejected MsgApp [logterm: ${m.logTerm}, ` +
      `index: ${m.index}] from ${hex(m.from)}`,
  )
  // The hint skips everything of ours that is from a newer term than the leader's entry there: it can't match.
  const hint = r.log.findConflictByTerm(Math.min(m.index, r.log.lastIndex()), m.logTerm)
  reply.index = m.index
  reply.reject = true
  reply.rejectHint = hint.index
  reply.logTerm = hint.term
  r.send(reply)
}

export function handleHeartbeat(r: Raft, m: Message): void {
  r.log.commitTo(m.commit)
  const reply = draft('MsgHeartbeatResp', m.from)
  reply.context = m.context
  r.send(reply)
}
