import { hex } from './describe.js'
import { handleTimeoutNow, handleVoteResponse } from './election.js'
import { handleSnapshot } from './membership.js'
import type { Raft } from './raft.js'
import { handleAppend, handleHeartbeat } from './replication.js'
import type { Message, StepError } from './types.js'
import { NONE } from './types.js'

export function stepFollower(r: Raft, m: Message): StepError | null {
  switch (m.type) {
    case 'MsgProp':
      return forwardProposal(r, m)
    case 'MsgApp':
    case 'MsgHeartbeat':
    case 'MsgSnap':
      r.electionElapsed = 0
      r.lead = m.from
      handleFromLeader(r, m)
      return null
    case 'MsgTransferLeader':
      if (r.lead === NONE) r.logger.info(`${hex(r.id)} no leader at term ${r.term}; dropping leader transfer msg`)
      else r.forwardToLeader(m)
      return null
    case 'MsgForgetLeader':
      forgetLeader(r)
      return null
    case 'MsgTimeoutNow':
      handleTimeoutNow(r, m)
      return null
    case 'MsgReadIndex':
      if (r.lead === NONE) r.logger.info(`${hex(r.id)} no leader at term ${r.term}; dropping index reading msg`)
      else r.forwardToLeader(m)
      return null
    case 'MsgReadIndexResp':
      r.readStates.push({ index: m.index, context: m.context })
      return null
    default:
      return null
  }
}

/** Candidates and pre-candidates: votes count, and a leader of this term ends the campaign. */
export function stepCandidate(r: Raft, m: Message): StepError | null {
  switch (m.type) {
    case 'MsgProp':
      r.logger.info(`${hex(r.id)} no leader at term ${r.term}; dropping proposal`)
      return 'proposalDropped'
    case 'MsgApp':
    case 'MsgHeartbeat':
    case 'MsgSnap':
      r.becomeFollower(m.term, m.from)
      handleFromLeader(r, m)
      return null
    case 'MsgVoteResp':
      // Answers to the other kind of question are left over from an earlier stage.
      if (r.role === 'candidate') handleVoteResponse(r, m)
      return null
    case 'MsgPreVoteResp':
      if (r.role === 'preCandidate') handleVoteResponse(r, m)
      return null
    case 'MsgTimeoutNow':
      handleTimeoutNow(r, m)
      return null
    default:
      return null
  }
}

function handleFromLeader(r: Raft, m: Message): void {
  if (m.type === 'MsgApp') handleAppend(r, m)
  else if (m.type === 'MsgHeartbeat') handleHeartbeat(r, m)
  else handleSnapshot(r, m)
}

function forwardProposal(r: Raft, m: Message): StepError | null {
  if (r.lead === NONE) {
    r.logger.info(`${hex(r.id)} no leader at term ${r.term}; dropping proposal`)
    return 'proposalDropped'
  }
  if (r.config.disableProposalForwarding) {
    r.logger.info(`${hex(r.id)} not forwarding to leader ${hex(r.lead)} at term ${r.term}; dropping proposal`)
    return 'proposalDropped'
  }
  r.forwardToLeader(m)
  return null
}

/** Lets a follower vote at once when the application knows that the leader is dead. */
function forgetLeader(r: Raft): void {
  if (r.readOnly.option === 'leaseBased') {
    // Lease reads rest on followers keeping still for a whole timeout.
    r.logger.error('ignoring MsgForgetLeader due to ReadOnlyLeaseBased')
    return
  }
  if (r.lead === NONE) return
  r.logger.info(`${hex(r.id)} forgetting leader ${hex(r.lead)} at term ${r.term}`)
  r.lead = NONE
}
