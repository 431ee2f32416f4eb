import { fail } from './assert.js'
import type { Inflights } from './inflights.js'
import { Progress } from './progress.js'
import { isJoint } from './tracker.js'
import type { ConfChange, ConfChangeSingle, ConfState, RaftId } from './types.js'

/** A configuration and its members' progress: what a change starts from and what it results in. */
export interface Membership {
  readonly config: ConfState
  readonly progress: ReadonlyMap<RaftId, Progress>
}

/** An impossible change: the text says why. Nothing was changed. */
export interface ConfChangeRefusal {
  readonly error: string
}

export interface ChangeContext {
  /** Where a new member's probing starts: the end of the log, since it may well have been fed from outside. */
  readonly lastIndex: number
  readonly newInflights: () => Inflights
}

/** Working copy; sets become sorted arrays at the end. */
interface Draft {
  incoming: Set<RaftId>
  outgoing: Set<RaftId>
  learners: Set<RaftId>
  learnersNext: Set<RaftId>
  autoLeave: boolean
  progress: Map<RaftId, Progress>
}

export const isRefusal = (result: Membership | ConfChangeRefusal): result is ConfChangeRefusal => 'error' in result

const sorted = (ids: Set<RaftId>): readonly RaftId[] => [...ids].sort((a, b) => a - b)

function copy(from: Membership): Draft {
  const progress = new Map<RaftId, Progress>()
  for (const [id, pr] of from.progress) progress.set(id, pr.clone())
  return {
    incoming: new Set(from.config.voters),
    outgoing: new Set(from.config.votersOutgoing),
    learners: new Set(from.config.learners),
    learnersNext: new Set(from.config.learnersNext),
    autoLeave: from.config.autoLeave,
    progress,
  }
}

/** Raft thesis §4.3: into a joint configuration; the present voters become its outgoing half. */
export function enterJoint(
  from: Membership,
  context: ChangeContext,
  changes: readonly ConfChangeSingle[],
  autoLeave: boolean,
): Membership | ConfChangeRefusal {
  if (isJoint(from.config)) return { error: 'config is already joint' }
  if (from.config.voters.length === 0) return { error: "can't make a zero-voter config joint" }
  const next = copy(from)
  next.outgoing = new Set(next.incoming)
  const error = applyAll(next, context, changes)
  if (error !== null) return { error }
  next.autoLeave = autoLeave
  return finish(next)
}

/** Out of the joint configuration: the outgoing half ends, demoted voters become learners now. */
export function leaveJoint(from: Membership): Membership | ConfChangeRefusal {
  if (!isJoint(from.config)) return { error: "can't leave a non-joint config" }
  const next = copy(from)
  for (const id of next.learnersNext) {
    next.learners.add(id)
    next.progress.get(id)!.isLearner = true
  }
  next.learnersNext.clear()
  for (const id of next.outgoing) if (!next.incoming.has(id) && !next.learners.has(id)) next.progress.delete(id)
  next.outgoing.clear()
  next.autoLeave = false
  return finish(next)
}

/** Changes of which at most one touches a voter: old and new majorities always overlap (Raft thesis §4.1). */
export function simpleChange(
  from: Membership,
  context: ChangeContext,
  changes: readonly ConfChangeSingle[],
): Membership | ConfChangeRefusal {
  if (isJoint(from.config)) return { error: "can't apply simple config change in joint config" }
  const next = copy(from)
  const error = applyAll(next, context, changes)
  if (error !== null) return { error }
  let touched = 0
  for (const id of from.config.voters) if (!next.incoming.has(id)) touched++
  for (const id of next.incoming) if (!from.config.voters.includes(id)) touched++
  if (touched > 1) return { error: 'more than one voter changed without entering joint config' }
  return finish(next)
}

/** What an entry's change means: leave, enter, or a simple step. */
export function changeMembership(
  from: Membership,
  context: ChangeContext,
  change: ConfChange,
): Membership | ConfChangeRefusal {
  if (change.transition === 'auto' && change.changes.length === 0) return leaveJoint(from)
  if (change.transition !== 'auto' || change.changes.length > 1)
    return enterJoint(from, context, change.changes, change.transition !== 'jointExplicit')
  return simpleChange(from, context, change.changes)
}

/** From nothing to the configuration of a snapshot or of the storage, by the same steps that members take. */
export function restoreMembership(context: ChangeContext, state: ConfState): Membership | ConfChangeRefusal {
  const add = (nodeId: RaftId): ConfChangeSingle => ({ type: 'addNode', nodeId })
  const learner = (nodeId: RaftId): ConfChangeSingle => ({ type: 'addLearnerNode', nodeId })
  const incoming: ConfChangeSingle[] = [
    ...state.votersOutgoing.map((nodeId): ConfChangeSingle => ({ type: 'removeNode', nodeId })),
    ...state.voters.map(add),
    ...state.learners.map(learner),
    // Voters of the outgoing half, so that this only marks them for later.
    ...state.learnersNext.map(learner),
  ]
  let at: Membership | ConfChangeRefusal = {
    config: { voters: [], votersOutgoing: [], learners: [], learnersNext: [], autoLeave: false },
    progress: new Map(),
  }
  const first = state.votersOutgoing.length === 0 ? incoming : state.votersOutgoing.map(add)
  for (const change of first) {
    at = simpleChange(at, context, [change])
    if (isRefusal(at)) return at
  }
  return state.votersOutgoing.length === 0 ? at : enterJoint(at, context, incoming, state.autoLeave)
}

function applyAll(next: Draft, context: ChangeContext, changes: readonly ConfChangeSingle[]): string | null {
  for (const { type, nodeId } of changes) {
    // A caller that decides not to carry out a committed change zeroes its node.
    if (nodeId === 0) continue
    if (type === 'addNode') makeVoter(next, context, nodeId)
    else if (type === 'addLearnerNode') makeLearner(next, context, nodeId)
    else if (type === 'removeNode') remove(next, nodeId)
  }
  return next.incoming.size === 0 ? 'removed all voters' : null
}

function makeVoter(next: Draft, context: ChangeContext, id: RaftId): void {
  const pr = next.progress.get(id)
  if (pr === undefined) {
    addMember(next, context, id, false)
    return
  }
  pr.isLearner = false
  next.learners.delete(id)
  next.learnersNext.delete(id)
  next.incoming.add(id)
}

/** A voter of the outgoing half keeps its vote until the joint configuration ends: then only it becomes a learner. */
function makeLearner(next: Draft, context: ChangeContext, id: RaftId): void {
  const pr = next.progress.get(id)
  if (pr === undefined) {
    addMember(next, context, id, true)
    return
  }
  if (pr.isLearner) return
  remove(next, id)
  next.progress.set(id, pr)
  if (next.outgoing.has(id)) {
    next.learnersNext.add(id)
  } else {
    pr.isLearner = true
    next.learners.add(id)
  }
}

function remove(next: Draft, id: RaftId): void {
  if (!next.progress.has(id)) return
  next.incoming.delete(id)
  next.learners.delete(id)
  next.learnersNext.delete(id)
  // Still a voter of the other half: replication to it goes on.
  if (!next.outgoing.has(id)) next.progress.delete(id)
}

function addMember(next: Draft, context: ChangeContext, id: RaftId, isLearner: boolean): void {
  if (isLearner) next.learners.add(id)
  else next.incoming.add(id)
  const pr = new Progress(Math.max(context.lastIndex, 1), context.newInflights(), isLearner)
  // Or the first quorum check would count the newcomer as dead before it could answer.
  pr.recentActive = true
  next.progress.set(id, pr)
}

function finish(next: Draft): Membership {
  const { incoming, outgoing, learners, learnersNext, progress } = next
  for (const id of [...incoming, ...outgoing, ...learners, ...learnersNext])
    if (!progress.has(id)) fail(`confchange: member ${id} has no progress`)
  for (const id of learnersNext) {
    if (!outgoing.has(id)) fail(`confchange: ${id} is to become a learner but is no outgoing voter`)
    if (progress.get(id)!.isLearner) fail(`confchange: ${id} is to become a learner but is one already`)
  }
  for (const id of learners) {
    if (outgoing.has(id) || incoming.has(id)) fail(`confchange: ${id} is a learner and a voter`)
    if (!progress.get(id)!.isLearner) fail(`confchange: the progress of learner ${id} does not say so`)
  }
  if (outgoing.size === 0 && (learnersNext.size > 0 || next.autoLeave))
    fail('confchange: a configuration that is not joint keeps joint leftovers')
  return {
    config: {
      voters: sorted(incoming),
      votersOutgoing: sorted(outgoing),
      learners: sorted(learners),
      learnersNext: sorted(learnersNext),
      autoLeave: next.autoLeave,
    },
    progress,
  }
}
