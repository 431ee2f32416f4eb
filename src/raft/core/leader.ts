import { describeProgress, hex } from './describe.js'
import { draft } from './message.js'
import type { Progress } from './progress.js'
import { proposeAsLeader } from './proposals.js'
import type { Raft } from './raft.js'
import { handleReadAck, handleReadIndex, releaseWaitingReads } from './reads.js'
import { broadcastAppend, broadcastHeartbeat, maybeCommit, maybeSendAppend } from './replication.js'
import type { Message, RaftId, StepError } from './types.js'
import { NONE } from './types.js'

export function stepLeader(r: Raft, m: Message): StepError | null {
  switch (m.type) {
    case 'MsgBeat':
      // With the newest waiting read's context: it vouches for all older ones.
      broadcastHeartbeat(r, r.readOnly.lastContext())
      return null
    case 'MsgCheckQuorum':
      checkQuorum(r)
      return null
    case 'MsgProp':
      return proposeAsLeader(r, m.entries)
    case 'MsgReadIndex':
      handleReadIndex(r, m)
      return null
    case 'MsgForgetLeader':
      return null
    default:
      stepPeer(r, m)
      return null
  }
}

/** What is about one member's progress. */
function stepPeer(r: Raft, m: Message): void {
  const pr = r.tracker.progress.get(m.from)
  if (pr === undefined) {
    r.logger.debug(`${hex(r.id)} no progress available for ${hex(m.from)}`)
    return
  }
  switch (m.type) {
    case 'MsgAppResp':
      pr.recentActive = true
      if (m.reject) handleRejection(r, m, pr)
      else handleAck(r, m, pr)
      return
    case 'MsgHeartbeatResp':
      handleHeartbeatResponse(r, m, pr)
      return
    case 'MsgSnapStatus':
      handleSnapshotStatus(r, m, pr)
      return
    case 'MsgUnreachable':
      // What is in flight is probably lost: go on from what is acknowledged.
      if (pr.state === 'replicate') pr.becomeProbe()
      r.logger.debug(
        `${hex(r.id)} failed to send message to ${hex(m.from)} because it is unreachable [${describeProgress(pr)}]`,
      )
      return
    case 'MsgTransferLeader':
      handleTransfer(r, m.from, pr)
      return
    default:
      return
  }
}

function checkQuorum(r: Raft): void {
  if (!r.tracker.quorumActive()) {
    r.logger.warn(`${hex(r.id)} stepped down to follower since quorum is not active`)
    r.becomeFollower(r.term, NONE)
  }
  for (const [id, pr] of r.tracker.progress) if (id !== r.id) pr.recentActive = false
}

/**
 * The member's log ends before, or differs at, the append's place. Its hint names the last place where the terms allow
 * a match on its side; ours skips further down, so that a probe is spent on each term at most, not on each entry.
 */
function handleRejection(r: Raft, m: Message, pr: Progress): void {
  r.logger.debug(
    `${hex(r.id)} received MsgAppResp(rejected, hint: (index ${m.rejectHint}, term ${m.logTerm})) from ${hex(m.from)} for index ${m.index}`,
  )
  const hint = m.logTerm > 0 ? r.log.findConflictByTerm(m.rejectHint, m.logTerm).index : m.rejectHint
  if (!pr.maybeDecrement(m.index, hint)) return
  r.logger.debug(`${hex(r.id)} decreased progress of ${hex(m.from)} to [${describeProgress(pr)}]`)
  if (pr.state === 'replicate') pr.becomeProbe()
  maybeSendAppend(r, m.from, pr, true)
}

function handleAck(r: Raft, m: Message, pr: Progress): void {
  // An ack of what is known brings a probed member back into the stream, for instance after `unreachable`.
  if (!pr.maybeUpdate(m.index) && !(pr.match === m.index && pr.state === 'probe')) return
  if (pr.state === 'probe') {
    pr.becomeReplicate()
  } else if (pr.state === 'replicate') {
    pr.inflights.freeUpTo(m.index)
  } else if (pr.match + 1 >= r.log.firstIndex()) {
    // Whatever snapshot it got: from here the log can take over.
    r.logger.debug(
      `${hex(r.id)} recovered from needing snapshot, resumed sending replication messages to ${hex(m.from)} [${describeProgress(pr)}]`,
    )
    pr.becomeProbe()
    pr.becomeReplicate()
  }
  if (maybeCommit(r)) {
    releaseWaitingReads(r)
    broadcastAppend(r)
  } else if (m.from !== r.id && pr.canBumpCommit(r.log.committed)) {
    // It may have missed the commit index; heartbeats would bring it later.
    maybeSendAppend(r, m.from, pr, true)
  }
  if (m.from === r.id) return
  // The freed window may have room for several appends.
  while (maybeSendAppend(r, m.from, pr, false)) {}
  if (m.from === r.leadTransferee && pr.match === r.log.lastIndex()) {
    r.logger.info(`${hex(r.id)} sent MsgTimeoutNow to ${hex(m.from)} after received MsgAppResp`)
    sendTimeoutNow(r, m.from)
  }
}

function handleHeartbeatResponse(r: Raft, m: Message, pr: Progress): void {
  pr.recentActive = true
  pr.flowPaused = false
  // Behind: something was lost or refused. Probing: the (empty) append's answer brings it back to replicating.
  if (pr.match < r.log.lastIndex() || pr.state === 'probe') maybeSendAppend(r, m.from, pr, true)
  handleReadAck(r, m)
}

function handleSnapshotStatus(r: Raft, m: Message, pr: Progress): void {
  if (pr.state !== 'snapshot') return
  // Before the change of state: it decides whether probing starts behind the snapshot.
  if (m.reject) pr.pendingSnapshot = 0
  pr.becomeProbe()
  r.logger.debug(
    `${hex(r.id)} snapshot ${m.reject ? 'failed' : 'succeeded'}, resumed sending replication messages to ${hex(m.from)} [${describeProgress(pr)}]`,
  )
  // Done: its MsgAppResp comes next. Failed: not again before a heartbeat answer.
  pr.flowPaused = true
}

/** Raft thesis §3.10. */
function handleTransfer(r: Raft, to: RaftId, pr: Progress): void {
  if (pr.isLearner) {
    r.logger.debug(`${hex(r.id)} is learner. Ignored transferring leadership`)
    return
  }
  if (r.leadTransferee !== NONE) {
    if (r.leadTransferee === to) {
      r.logger.info(
        `${hex(r.id)} [term ${r.term}] transfer leadership to ${hex(to)} is in progress, ignores request to same node ${hex(to)}`,
      )
      return
    }
    const before = r.leadTransferee
    r.leadTransferee = NONE
    r.logger.info(`${hex(r.id)} [term ${r.term}] abort previous transferring leadership to ${hex(before)}`)
  }
  if (to === r.id) {
    r.logger.debug(`${hex(r.id)} is already leader. Ignored transferring leadership to self`)
    return
  }
  r.logger.info(`${hex(r.id)} [term ${r.term}] starts to transfer leadership to ${hex(to)}`)
  // It has one election timeout, counted from now.
  r.electionElapsed = 0
  r.leadTransferee = to
  if (pr.match === r.log.lastIndex()) {
    sendTimeoutNow(r, to)
    r.logger.info(`${hex(r.id)} sends MsgTimeoutNow to ${hex(to)} immediately as ${hex(to)} already has up-to-date log`)
  } else {
    maybeSendAppend(r, to, pr, true)
  }
}

const sendTimeoutNow = (r: Raft, to: RaftId): void => r.send(draft('MsgTimeoutNow', to))
