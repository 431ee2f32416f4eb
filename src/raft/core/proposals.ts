import { fail } from './assert.js'
import { decodeConfChange, encodeConfChange } from './confchange-codec.js'
import { describeConfChange, describeConfig, hex } from './describe.js'
import { NO_BYTES } from './message.js'
import type { Raft } from './raft.js'
import { broadcastAppend } from './replication.js'
import { entriesSize, payloadsSize } from './sizes.js'
import { isJoint } from './tracker.js'
import type { ConfChange, Entry, Snapshot, StepError } from './types.js'
import { NONE } from './types.js'

/** A leader's proposals: appended and sent on at once, or refused as a whole. */
export function proposeAsLeader(r: Raft, entries: readonly Entry[]): StepError | null {
  if (entries.length === 0) fail(`raft ${hex(r.id)}: a proposal without entries`)
  // Removed while leading: others will elect a leader that can commit it.
  if (!r.tracker.progress.has(r.id)) return 'proposalDropped'
  if (r.leadTransferee !== NONE) {
    r.logger.debug(
      `${hex(r.id)} [term ${r.term}] transfer leadership to ${hex(r.leadTransferee)} is in progress; dropping proposal`,
    )
    return 'proposalDropped'
  }
  const checked = checkConfChanges(r, entries)
  if (!r.appendEntries(checked)) return 'proposalDropped'
  broadcastAppend(r)
  return null
}

/** Refused conf changes are appended as empty entries: their proposer gets an answer in its place in the log. */
function checkConfChanges(r: Raft, entries: readonly Entry[]): readonly Entry[] {
  let out: Entry[] | null = null
  for (let i = 0; i < entries.length; i++) {
    const entry = entries[i]!
    if (entry.type === 'normal') continue
    const change = decodeConfChange(entry.data, entry.type)
    const refusal = r.config.disableConfChangeValidation ? null : refusalOf(r, change)
    if (refusal === null) {
      r.pendingConfIndex = r.log.lastIndex() + i + 1
      continue
    }
    r.logger.info(
      `${hex(r.id)} ignoring conf change ${describeConfChange(change)} at config ${describeConfig(r.tracker.config)}: ${refusal}`,
    )
    out ??= entries.slice()
    out[i] = { term: 0, index: 0, type: 'normal', data: NO_BYTES }
  }
  return out ?? entries
}

/** One unapplied change at a time: quorums of configurations two steps apart need not overlap. */
function refusalOf(r: Raft, change: ConfChange): string | null {
  if (r.pendingConfIndex > r.log.applied)
    return `possible unapplied conf change at index ${r.pendingConfIndex} (applied to ${r.log.applied})`
  const leaves = change.changes.length === 0
  if (isJoint(r.tracker.config) && !leaves) return 'must transition out of joint config first'
  if (!isJoint(r.tracker.config) && leaves) return 'not in joint state; refusing empty conf change'
  return null
}

/** Entries up to `index` are in the state machine. A leader whose joint configuration is applied proposes to leave it. */
export function appliedTo(r: Raft, index: number, bytes: number): void {
  const applied = Math.max(index, r.log.applied)
  r.log.appliedTo(applied, bytes)
  const config = r.tracker.config
  if (!config.autoLeave || applied < r.pendingConfIndex || r.role !== 'leader') return
  const leave: Entry = { term: 0, index: 0, type: 'confChangeV2', data: NO_BYTES }
  // Refused while leadership is being handed over; the next leader will see to it.
  const error = proposeAsLeader(r, [leave])
  if (error !== null)
    r.logger.debug(
      `not initiating automatic transition out of joint configuration ${describeConfig(config)}: raft proposal dropped`,
    )
  else r.logger.info(`initiating automatic transition out of joint configuration ${describeConfig(config)}`)
}

export function appliedEntries(r: Raft, entries: readonly Entry[]): void {
  if (entries.length === 0) return
  appliedTo(r, entries[entries.length - 1]!.index, entriesSize(entries))
  r.releaseUncommitted(payloadsSize(entries))
}

export function appliedSnapshot(r: Raft, snapshot: Snapshot): void {
  r.log.unstable.stableSnapTo(snapshot.index)
  appliedTo(r, snapshot.index, 0)
}

/** The entry that proposes a change; `v1` for the old entry type. */
export function confChangeEntry(change: ConfChange, type: 'confChange' | 'confChangeV2'): Entry {
  return { term: 0, index: 0, type, data: encodeConfChange(change, type) }
}
