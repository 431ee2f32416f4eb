import { hex } from './describe.js'
import { handleVoteRequest, ignoredByLease, rejectVote, startElection } from './election.js'
import { stepCandidate, stepFollower } from './follower.js'
import { stepLeader } from './leader.js'
import { draft } from './message.js'
import { appliedEntries, appliedSnapshot } from './proposals.js'
import type { Raft } from './raft.js'
import type { Message, StepError } from './types.js'
import { NONE } from './types.js'

/** One message: first its term is weighed, then what is the same in every role, then the role's own part. */
export function step(r: Raft, m: Message): StepError | null {
  // Term 0: local, or a forwarded proposal.
  if (m.term > r.term) {
    if (!enterTermOf(r, m)) return null
  } else if (m.term !== 0 && m.term < r.term) {
    answerOldTerm(r, m)
    return null
  }
  switch (m.type) {
    case 'MsgHup':
      startElection(r, r.config.preVote ? 'preElection' : 'election')
      return null
    case 'MsgStorageAppendResp':
      if (m.index !== 0) r.log.unstable.stableTo(m.index, m.logTerm)
      if (m.snapshot !== null) appliedSnapshot(r, m.snapshot)
      return null
    case 'MsgStorageApplyResp':
      appliedEntries(r, m.entries)
      return null
    case 'MsgVote':
    case 'MsgPreVote':
      handleVoteRequest(r, m)
      return null
    default:
      if (r.role === 'leader') return stepLeader(r, m)
      return r.role === 'follower' ? stepFollower(r, m) : stepCandidate(r, m)
  }
}

/** A higher term is adopted, except where that would let a partitioned member disturb a healthy cluster. */
function enterTermOf(r: Raft, m: Message): boolean {
  if ((m.type === 'MsgVote' || m.type === 'MsgPreVote') && ignoredByLease(r, m)) return false
  // A pre-vote, and its grant, only speak of a term that nobody has entered.
  if (m.type === 'MsgPreVote' || (m.type === 'MsgPreVoteResp' && !m.reject)) return true
  r.logger.info(
    `${hex(r.id)} [term: ${r.term}] received a ${m.type} message with higher term from ${hex(m.from)} [term: ${m.term}]`,
  )
  const fromLeader = m.type === 'MsgApp' || m.type === 'MsgHeartbeat' || m.type === 'MsgSnap'
  r.becomeFollower(m.term, fromLeader ? m.from : NONE)
  return true
}

function answerOldTerm(r: Raft, m: Message): void {
  if ((r.config.checkQuorum || r.config.preVote) && (m.type === 'MsgHeartbeat' || m.type === 'MsgApp')) {
    // A leader of the past that ignores our vote requests (lease) would never hear of our higher term otherwise; a
    // plain answer with it makes that leader step down, and an election gets the whole cluster to one term.
    r.send(draft('MsgAppResp', m.from))
  } else if (m.type === 'MsgPreVote') {
    // Without an answer a mixed cluster can deadlock: the asker must learn the term.
    rejectVote(r, m)
  } else if (m.type === 'MsgStorageAppendResp') {
    // These entries may have been replaced in the unstable log since; a snapshot's state never is.
    if (m.index !== 0)
      r.logger.info(
        `${hex(r.id)} [term: ${r.term}] ignored entry appends from a ${m.type} message with lower term [term: ${m.term}]`,
      )
    if (m.snapshot !== null) appliedSnapshot(r, m.snapshot)
  } else {
    r.logger.info(
      `${hex(r.id)} [term: ${r.term}] ignored a ${m.type} message with lower term from ${hex(m.from)} [term: ${m.term}]`,
    )
  }
}

/** Leaders count towards the heartbeat and the quorum check, everyone else towards an election. */
export function tick(r: Raft): void {
  if (r.role === 'leader') tickLeader(r)
  else tickElection(r)
}

function tickElection(r: Raft): void {
  r.electionElapsed++
  if (!r.isPromotable() || r.electionElapsed < r.randomizedElectionTimeout) return
  r.electionElapsed = 0
  step(r, local(r, 'MsgHup'))
}

function tickLeader(r: Raft): void {
  r.heartbeatElapsed++
  r.electionElapsed++
  if (r.electionElapsed >= r.config.electionTick) {
    r.electionElapsed = 0
    if (r.config.checkQuorum) step(r, local(r, 'MsgCheckQuorum'))
    // The target had its time; proposals are taken again.
    if (r.role === 'leader') r.leadTransferee = NONE
  }
  if (r.role !== 'leader' || r.heartbeatElapsed < r.config.heartbeatTick) return
  r.heartbeatElapsed = 0
  step(r, local(r, 'MsgBeat'))
}

function local(r: Raft, type: 'MsgHup' | 'MsgCheckQuorum' | 'MsgBeat'): Message {
  const m = draft(type, NONE)
  m.from = r.id
  return m
}
