import { draft } from './message.js'
import type { Raft } from './raft.js'
import { broadcastHeartbeat } from './replication.js'
import type { Message } from './types.js'
import { NONE } from './types.js'

/**
 * A leader's read request (Raft thesis §6.4). Also the only voter waits for its term's first commit: what was committed
 * while there were others, or just before it stopped, may be beyond the commit index that it started with.
 */
export function handleReadIndex(r: Raft, m: Message): void {
  if (r.committedInCurrentTerm()) startRead(r, m)
  else r.waitingReads.push(m)
}

function startRead(r: Raft, m: Message): void {
  if (r.tracker.isSingleton() || r.readOnly.option === 'leaseBased') {
    answerRead(r, m, r.log.committed)
    return
  }
  r.readOnly.add(r.log.committed, m)
  r.readOnly.receiveAck(r.id, m.context)
  broadcastHeartbeat(r, m.context)
}

/** After the term's first commit. */
export function releaseWaitingReads(r: Raft): void {
  if (r.waitingReads.length === 0 || !r.committedInCurrentTerm()) return
  const waiting = r.waitingReads
  r.waitingReads = []
  for (const m of waiting) startRead(r, m)
}

/** A heartbeat answer with a read's context; a quorum of them shows that this leader still leads. */
export function handleReadAck(r: Raft, m: Message): void {
  if (r.readOnly.option !== 'safe' || m.context.length === 0) return
  const acks = r.readOnly.receiveAck(m.from, m.context)
  if (acks === null || r.tracker.voteResult(acks) !== 'won') return
  for (const read of r.readOnly.advance(m.context)) answerRead(r, read.request, read.index)
}

/** To the own state machine, or to the follower that forwarded it. */
function answerRead(r: Raft, request: Message, index: number): void {
  if (request.from === NONE || request.from === r.id) {
    r.readStates.push({ index, context: request.context })
    return
  }
  const m = draft('MsgReadIndexResp', request.from)
  m.index = index
  m.context = request.context
  r.send(m)
}
