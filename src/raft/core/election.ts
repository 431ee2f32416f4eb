import { fail } from './assert.js'
import { describeRole, hex } from './describe.js'
import { draft, isTransferContext, TRANSFER_CONTEXT } from './message.js'
import type { VoteResult } from './quorum.js'
import type { Raft } from './raft.js'
import { broadcastAppend } from './replication.js'
import { allVoters } from './tracker.js'
import type { Message, MessageType, RaftId } from './types.js'
import { NONE } from './types.js'

/** `transfer`: by order of the leader, past leases and without a pre-vote. */
export type CampaignKind = 'preElection' | 'election' | 'transfer'

/** The election timeout, an order, or the operator: try to become leader if that is possible at all. */
export function startElection(r: Raft, kind: CampaignKind): void {
  if (r.role === 'leader') {
    r.logger.debug(`${hex(r.id)} ignoring MsgHup because already leader`)
    return
  }
  if (!r.isPromotable()) {
    r.logger.warn(`${hex(r.id)} is unpromotable and can not campaign`)
    return
  }
  if (hasUnappliedConfChanges(r)) {
    r.logger.warn(
      `${hex(r.id)} cannot campaign at term ${r.term} since there are still pending configuration changes to apply`,
    )
    return
  }
  r.logger.info(`${hex(r.id)} is starting a new election at term ${r.term}`)
  campaign(r, kind)
}

/** A member that hasn't applied a committed change would count votes in a configuration of the past. */
function hasUnappliedConfChanges(r: Raft): boolean {
  const { log } = r
  // Page by page: after a restart that may be most of the log.
  for (let lo = log.applied + 1; lo <= log.committed; ) {
    const page = log.slice(lo, log.committed + 1, log.maxApplyingBytes)
    if (typeof page === 'string') fail(`raft ${hex(r.id)}: unapplied entries from ${lo} are ${page}`)
    for (const entry of page) if (entry.type !== 'normal') return true
    lo += page.length
  }
  return false
}

export function campaign(r: Raft, kind: CampaignKind): void {
  let type: MessageType = 'MsgVote'
  let term: number
  if (kind === 'preElection') {
    r.becomePreCandidate()
    type = 'MsgPreVote'
    // Asked for the next term, without entering it.
    term = r.term + 1
  } else {
    r.becomeCandidate()
    term = r.term
  }
  const index = r.log.lastIndex()
  const logTerm = r.log.lastTerm()
  for (const id of allVoters(r.tracker.config)) {
    if (id === r.id) {
      // The own vote counts once it is durable, like everyone's.
      const own = draft(type === 'MsgVote' ? 'MsgVoteResp' : 'MsgPreVoteResp', id)
      own.term = term
      r.send(own)
      continue
    }
    r.logger.info(
      `${hex(r.id)} [logterm: ${logTerm}, index: ${index}] sent ${type} request to ${hex(id)} at term ${r.term}`,
    )
    const m = draft(type, id)
    m.term = term
    m.index = index
    m.logTerm = logTerm
    if (kind === 'transfer') m.context = TRANSFER_CONTEXT
    r.send(m)
  }
}

/** A voter that has heard of a leader lately doesn't help to depose it (Raft thesis §4.2.3), except by order. */
export function ignoredByLease(r: Raft, m: Message): boolean {
  if (isTransferContext(m.context)) return false
  const { checkQuorum, electionTick } = r.config
  if (!checkQuorum || r.lead === NONE || r.electionElapsed >= electionTick) return false
  r.logger.info(
    `${describeVoter(r)} ignored ${describeRequest(m)} at term ${r.term}: lease is not expired (remaining ticks: ${electionTick - r.electionElapsed})`,
  )
  return true
}

/** Raft §5.2, §5.4.1; a learner answers too: it may have been promoted without knowing it yet. */
export function handleVoteRequest(r: Raft, m: Message): void {
  const free = r.vote === m.from || (r.vote === NONE && r.lead === NONE) || (m.type === 'MsgPreVote' && m.term > r.term)
  const reply = draft(m.type === 'MsgVote' ? 'MsgVoteResp' : 'MsgPreVoteResp', m.from)
  if (free && r.log.isUpToDate(m.index, m.logTerm)) {
    r.logger.info(`${describeVoter(r)} cast ${describeRequest(m, 'for')} at term ${r.term}`)
    // A granted pre-vote repeats the future term: the asker would ignore one of its present term as stale.
    reply.term = m.term
    r.send(reply)
    if (m.type === 'MsgVote') {
      r.electionElapsed = 0
      r.vote = m.from
    }
  } else {
    rejectVote(r, m)
  }
}

export function rejectVote(r: Raft, m: Message): void {
  r.logger.info(`${describeVoter(r)} rejected ${describeRequest(m)} at term ${r.term}`)
  const reply = draft(m.type === 'MsgVote' ? 'MsgVoteResp' : 'MsgPreVoteResp', m.from)
  reply.term = r.term
  reply.reject = true
  r.send(reply)
}

const describeVoter = (r: Raft): string =>
  `${hex(r.id)} [logterm: ${r.log.lastTerm()}, index: ${r.log.lastIndex()}, vote: ${hex(r.vote)}]`

const describeRequest = (m: Message, word = 'from'): string =>
  `${m.type} ${word} ${hex(m.from)} [logterm: ${m.logTerm}, index: ${m.index}]`

/** A candidate's or pre-candidate's count. */
export function handleVoteResponse(r: Raft, m: Message): void {
  const result = poll(r, m.from, m.type, !m.reject)
  if (result === 'won') {
    if (r.role === 'preCandidate') {
      campaign(r, 'election')
    } else {
      r.becomeLeader()
      broadcastAppend(r)
    }
  } else if (result === 'lost') {
    r.becomeFollower(r.term, NONE)
  }
}

function poll(r: Raft, from: RaftId, type: MessageType, granted: boolean): VoteResult {
  r.logger.info(`${hex(r.id)} received ${type}${granted ? '' : ' rejection'} from ${hex(from)} at term ${r.term}`)
  r.tracker.recordVote(from, granted)
  const tally = r.tracker.tally()
  r.logger.info(`${hex(r.id)} has received ${tally.granted} ${type} votes and ${tally.rejected} vote rejections`)
  return tally.result
}

export function handleTimeoutNow(r: Raft, m: Message): void {
  if (r.role === 'follower') {
    r.logger.info(
      `${hex(r.id)} [term ${r.term}] received MsgTimeoutNow from ${hex(m.from)} and starts an election to get leadership.`,
    )
    startElection(r, 'transfer')
  } else {
    r.logger.debug(
      `${hex(r.id)} [term ${r.term} state ${describeRole(r.role)}] ignored MsgTimeoutNow from ${hex(m.from)}`,
    )
  }
}
