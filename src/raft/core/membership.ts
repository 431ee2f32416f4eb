import { fail } from './assert.js'
import {
  type ChangeContext,
  type ConfChangeRefusal,
  changeMembership,
  isRefusal,
  type Membership,
  restoreMembership,
} from './confchange.js'
import { describeConfig, describeConfState, hex } from './describe.js'
import { draft } from './message.js'
import type { Raft } from './raft.js'
import { releaseWaitingReads } from './reads.js'
import { broadcastAppend, maybeCommit, maybeSendAppend } from './replication.js'
import { isJoint } from './tracker.js'
import type { ConfChange, ConfState, Message, Snapshot } from './types.js'
import { NONE } from './types.js'

const changeContext = (r: Raft): ChangeContext => ({
  lastIndex: r.log.lastIndex(),
  newInflights: () => r.tracker.newInflights(),
})

function accepted(r: Raft, result: Membership | ConfChangeRefusal): Membership {
  if (isRefusal(result)) fail(`raft ${hex(r.id)}: ${result.error}, at config ${describeConfig(r.tracker.config)}`)
  return result
}

/** Carries out a committed change. A refused one that comes without changes outside a joint configuration is none. */
export function applyConfChange(r: Raft, change: ConfChange): ConfState {
  if (change.changes.length === 0 && change.transition === 'auto' && !isJoint(r.tracker.config)) return r.tracker.config
  const next = accepted(r, changeMembership(r.tracker, changeContext(r), change))
  switchTo(r, next)
  return r.tracker.config
}

/** At a start and after a snapshot. */
export function restoreConfig(r: Raft, state: ConfState): void {
  const next = accepted(r, restoreMembership(changeContext(r), state))
  switchTo(r, next)
  const restored = describeConfState(r.tracker.config)
  if (restored !== describeConfState(state))
    fail(`raft ${hex(r.id)}: the configuration ${describeConfState(state)} came out as ${restored}`)
}

function switchTo(r: Raft, next: Membership): void {
  r.tracker.replace(next.config, next.progress)
  r.logger.info(`${hex(r.id)} switched to configuration ${describeConfig(next.config)}`)
  const own = next.progress.get(r.id)
  r.isLearner = own?.isLearner ?? false
  if (r.role !== 'leader') return
  if (own === undefined || own.isLearner) {
    // A leader that is no voter any more may stay to commit what is left, or leave at once.
    if (r.config.stepDownOnRemoval) r.becomeFollower(r.term, NONE)
    return
  }
  if (next.config.voters.length === 0) return
  if (maybeCommit(r)) {
    // A smaller quorum may have committed more: tell everyone of the new configuration.
    releaseWaitingReads(r)
    broadcastAppend(r)
  } else {
    // Newcomers need not wait for a heartbeat to be probed.
    for (const id of r.tracker.ids) if (id !== r.id) maybeSendAppend(r, id, next.progress.get(id)!, false)
  }
  if (r.leadTransferee !== NONE && !r.tracker.isVoter(r.leadTransferee)) r.leadTransferee = NONE
}

export function handleSnapshot(r: Raft, m: Message): void {
  const reply = draft('MsgAppResp', m.from)
  const snapshot = m.snapshot
  const at = `[index: ${snapshot?.index ?? 0}, term: ${snapshot?.term ?? 0}]`
  if (snapshot !== null && restoreSnapshot(r, snapshot)) {
    r.logger.info(`${hex(r.id)} [commit: ${r.log.committed}] restored snapshot ${at}`)
    reply.index = r.log.lastIndex()
  } else {
    r.logger.info(`${hex(r.id)} [commit: ${r.log.committed}] ignored snapshot ${at}`)
    reply.index = r.log.committed
  }
  r.send(reply)
}

/** Log, commit index and configuration from the snapshot; false if it brings nothing or isn't for this member. */
function restoreSnapshot(r: Raft, snapshot: Snapshot): boolean {
  if (snapshot.index <= r.log.committed) return false
  if (r.role !== 'follower') {
    // Callers have made it a follower. If not, a new term is the safe way out.
    r.logger.warn(`${hex(r.id)} attempted to restore snapshot as leader; should never happen`)
    r.becomeFollower(r.term + 1, NONE)
    return false
  }
  const { voters, learners, votersOutgoing } = snapshot.confState
  if (!voters.includes(r.id) && !learners.includes(r.id) && !votersOutgoing.includes(r.id)) {
    r.logger.warn(
      `${hex(r.id)} attempted to restore snapshot but it is not in the ConfState ${describeConfState(snapshot.confState)}; should never happen`,
    )
    return false
  }
  const at = `[index: ${snapshot.index}, term: ${snapshot.term}]`
  if (r.log.matchTerm(snapshot.index, snapshot.term)) {
    // All of it is in the log already; only that it is committed is news.
    r.logger.info(`${describeEnd(r)} fast-forwarded commit to snapshot ${at}`)
    r.log.commitTo(snapshot.index)
    return false
  }
  r.log.restore(snapshot)
  restoreConfig(r, snapshot.confState)
  r.logger.info(`${describeEnd(r)} restored snapshot ${at}`)
  return true
}

const describeEnd = (r: Raft): string =>
  `${hex(r.id)} [commit: ${r.log.committed}, lastindex: ${r.log.lastIndex()}, lastterm: ${r.log.lastTerm()}]`
