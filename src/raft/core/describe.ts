import { decodeConfChange } from './confchange-codec.js'
import type { Progress } from './progress.js'
import { quoteBytes } from './quote.js'
import type {
  ConfChange,
  ConfChangeSingle,
  ConfChangeTransition,
  ConfChangeType,
  ConfState,
  Entry,
  HardState,
  Message,
  ProgressState,
  RaftId,
  Ready,
  Role,
  Snapshot,
  SoftState,
} from './types.js'
import { APPEND_THREAD, APPLY_THREAD, NONE } from './types.js'

/** Texts of log lines and of the test data. Ids in lines and messages are hexadecimal, in lists decimal. */
const ROLES: Record<Role, string> = {
  follower: 'StateFollower',
  candidate: 'StateCandidate',
  leader: 'StateLeader',
  preCandidate: 'StatePreCandidate',
}
const PROGRESS_STATES: Record<ProgressState, string> = {
  probe: 'StateProbe',
  replicate: 'StateReplicate',
  snapshot: 'StateSnapshot',
}
const CHANGE_TYPES: Record<ConfChangeType, string> = {
  addNode: 'ConfChangeAddNode',
  removeNode: 'ConfChangeRemoveNode',
  updateNode: 'ConfChangeUpdateNode',
  addLearnerNode: 'ConfChangeAddLearnerNode',
}
const CHANGE_LETTERS: Record<ConfChangeType, string> = {
  addNode: 'v',
  removeNode: 'r',
  updateNode: 'u',
  addLearnerNode: 'l',
}
const TRANSITIONS: Record<ConfChangeTransition, string> = {
  auto: 'ConfChangeTransitionAuto',
  jointImplicit: 'ConfChangeTransitionJointImplicit',
  jointExplicit: 'ConfChangeTransitionJointExplicit',
}

export const hex = (id: RaftId): string => id.toString(16)
export const describeRole = (role: Role): string => ROLES[role]

export function describeTarget(id: RaftId): string {
  if (id === NONE) return 'None'
  if (id === APPEND_THREAD) return 'AppendThread'
  if (id === APPLY_THREAD) return 'ApplyThread'
  return hex(id)
}

export const describeHardState = (hs: HardState): string =>
  `Term:${hs.term}${hs.vote !== NONE ? ` Vote:${hs.vote}` : ''} Commit:${hs.commit}`

export const describeSoftState = (soft: SoftState): string => `Lead:${soft.lead} State:${ROLES[soft.role]}`

const list = (ids: readonly RaftId[]): string => `[${ids.join(' ')}]`

export const describeConfState = (cs: ConfState): string =>
  `Voters:${list(cs.voters)} VotersOutgoing:${list(cs.votersOutgoing)} Learners:${list(cs.learners)} ` +
  `LearnersNext:${list(cs.learnersNext)} AutoLeave:${cs.autoLeave}`

export const describeSnapshot = (snap: Snapshot): string =>
  `Index:${snap.index} Term:${snap.term} ConfState:${describeConfState(snap.confState)}`

/** As a set of members: `voters=(1 2)&&(1) learners=(3)`. */
export function describeConfig(config: ConfState): string {
  let text = `voters=(${config.voters.join(' ')})`
  if (config.votersOutgoing.length > 0) text += `&&(${config.votersOutgoing.join(' ')})`
  if (config.learners.length > 0) text += ` learners=(${config.learners.join(' ')})`
  if (config.learnersNext.length > 0) text += ` learners_next=(${config.learnersNext.join(' ')})`
  return config.autoLeave ? `${text} autoleave` : text
}

/** What a progress line shows; both the live object and the status give it. */
export interface ProgressView {
  readonly state: ProgressState
  readonly match: number
  readonly next: number
  readonly isLearner: boolean
  readonly paused: boolean
  readonly pendingSnapshot: number
  readonly recentActive: boolean
  readonly inflight: number
  readonly inflightFull: boolean
}

export const viewProgress = (pr: Progress): ProgressView => ({
  state: pr.state,
  match: pr.match,
  next: pr.next,
  isLearner: pr.isLearner,
  paused: pr.isPaused(),
  pendingSnapshot: pr.pendingSnapshot,
  recentActive: pr.recentActive,
  inflight: pr.inflights.count,
  inflightFull: pr.inflights.isFull(),
})

export function describeProgressView(pr: ProgressView): string {
  let text = `${PROGRESS_STATES[pr.state]} match=${pr.match} next=${pr.next}`
  if (pr.isLearner) text += ' learner'
  if (pr.paused) text += ' paused'
  if (pr.pendingSnapshot > 0) text += ` pendingSnap=${pr.pendingSnapshot}`
  if (!pr.recentActive) text += ' inactive'
  if (pr.inflight > 0) text += ` inflight=${pr.inflight}${pr.inflightFull ? '[full]' : ''}`
  return text
}

export const describeProgress = (pr: Progress): string => describeProgressView(viewProgress(pr))

/** A line a member, by ascending id; empty for none. */
export function describeProgressMap(progress: ReadonlyMap<RaftId, ProgressView>): string {
  const ids = [...progress.keys()].sort((a, b) => a - b)
  return ids.map((id) => `${id}: ${describeProgressView(progress.get(id)!)}\n`).join('')
}

/** `v1 l2 r3`. */
export const describeChanges = (changes: readonly ConfChangeSingle[]): string =>
  changes.map((c) => CHANGE_LETTERS[c.type] + c.nodeId).join(' ')

/** The long form, as in the line about a refused change. */
export function describeConfChange(cc: ConfChange): string {
  let text = `transition:${TRANSITIONS[cc.transition]}`
  for (const c of cc.changes) text += ` changes:{type:${CHANGE_TYPES[c.type]} node_id:${c.nodeId}}`
  return cc.context.length > 0 ? `${text} context:${quoteBytes(cc.context)}` : text
}

export function describeEntry(entry: Entry): string {
  const at = `${entry.term}/${entry.index}`
  if (entry.type === 'normal') return `${at} EntryNormal ${quoteBytes(entry.data)}`
  const name = entry.type === 'confChange' ? 'EntryConfChange' : 'EntryConfChangeV2'
  const changes = describeChanges(decodeConfChange(entry.data, entry.type).changes)
  return changes === '' ? `${at} ${name}` : `${at} ${name} ${changes}`
}

/** A line an entry. */
export const describeEntries = (entries: readonly Entry[]): string =>
  entries.map((e) => `${describeEntry(e)}\n`).join('')

/** Without a newline at the end. */
export function describeMessage(m: Message, indent = ''): string {
  let text = `${indent}${describeTarget(m.from)}->${describeTarget(m.to)} ${m.type} Term:${m.term} Log:${m.logTerm}/${m.index}`
  if (m.reject) text += ` Rejected (Hint: ${m.rejectHint})`
  if (m.commit !== 0) text += ` Commit:${m.commit}`
  if (m.vote !== NONE) text += ` Vote:${m.vote}`
  if (m.entries.length === 1) {
    text += ` Entries:[${describeEntry(m.entries[0]!)}]`
  } else if (m.entries.length > 1) {
    text += ' Entries:['
    for (const e of m.entries) text += `\n${indent}  ${describeEntry(e)}`
    text += `\n${indent}]`
  }
  if (m.snapshot !== null && m.snapshot.index !== 0) text += `\n${indent}  Snapshot: ${describeSnapshot(m.snapshot)}`
  if (m.responses.length > 0) {
    text += ' Responses:['
    for (const r of m.responses) text += `\n${describeMessage(r, `${indent}  `)}`
    text += `\n${indent}]`
  }
  return text
}

export function describeReady(rd: Ready): string {
  let text = ''
  if (rd.softState !== null) text += `${describeSoftState(rd.softState)}\n`
  if (rd.hardState !== null) text += `HardState ${describeHardState(rd.hardState)}\n`
  if (rd.readStates.length > 0)
    text += `ReadStates [${rd.readStates.map((r) => `{${r.index} [${r.context.join(' ')}]}`).join(' ')}]\n`
  if (rd.entries.length > 0) text += `Entries:\n${describeEntries(rd.entries)}`
  if (rd.snapshot !== null) text += `Snapshot ${describeSnapshot(rd.snapshot)}\n`
  if (rd.committedEntries.length > 0) text += `CommittedEntries:\n${describeEntries(rd.committedEntries)}`
  if (rd.messages.length > 0) text += `Messages:\n${rd.messages.map((m) => `${describeMessage(m)}\n`).join('')}`
  return text === '' ? '<empty Ready>' : `Ready MustSync=${rd.mustSync}:\n${text}`
}
