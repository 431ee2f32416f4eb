import { fail } from './assert.js'
import { checkConfig } from './config.js'
import { hex, viewProgress } from './describe.js'
import { applyConfChange, restoreConfig } from './membership.js'
import { draft, isLocalType, isResponseType, isStorageThread, NO_MESSAGES } from './message.js'
import { appliedTo, confChangeEntry } from './proposals.js'
import { Raft } from './raft.js'
import { step, tick } from './step.js'
import {
  makeStorageAppend,
  makeStorageAppendResponse,
  makeStorageApply,
  makeStorageApplyResponse,
  needsStableAnswer,
} from './storage-messages.js'
import { allVoters } from './tracker.js'
import type {
  ConfChange,
  ConfState,
  CoreConfig,
  CoreStatus,
  CreateCore,
  Entry,
  HardState,
  Message,
  ProgressStatus,
  RaftCore,
  RaftId,
  ReadState,
  Ready,
  Role,
  StepError,
} from './types.js'
import { NONE } from './types.js'

const NO_READS: readonly ReadState[] = Object.freeze([])

/** The member as its owner holds it: what goes in, and by `ready` what has to be done about it (raft.md §2). */
export class RawNode implements RaftCore {
  readonly raft: Raft
  private readonly async: boolean
  private previousLead: RaftId
  private previousRole: Role
  private previousHard: HardState
  /** Sync mode: what the storage's answers would be, stepped at `advance`. Not empty: a Ready is out. */
  private onAdvance: Message[] = []

  constructor(config: CoreConfig) {
    checkConfig(config)
    this.async = config.asyncStorageWrites
    const r = new Raft(config)
    this.raft = r
    const { hardState, confState } = config.storage.initialState()
    restoreConfig(r, confState)
    if (hardState.term !== 0 || hardState.vote !== NONE || hardState.commit !== 0) r.loadState(hardState)
    if (config.applied > 0) appliedTo(r, config.applied, 0)
    r.becomeFollower(r.term, NONE)
    r.logger.info(
      `newRaft ${hex(r.id)} [peers: [${allVoters(r.tracker.config).map(hex).join(',')}], term: ${r.term}, commit: ${r.log.committed}, ` +
        `applied: ${r.log.applied}, lastindex: ${r.log.lastIndex()}, lastterm: ${r.log.lastTerm()}]`,
    )
    this.previousLead = r.lead
    this.previousRole = r.role
    this.previousHard = r.hardState()
  }

  get pendingConfIndex(): number {
    return this.raft.pendingConfIndex
  }

  get id(): RaftId {
    return this.raft.id
  }

  tick(): void {
    tick(this.raft)
  }

  step(m: Message): StepError | null {
    const fromThread = isStorageThread(m.from)
    if (!fromThread && isLocalType(m.type)) return 'localMessage'
    if (!fromThread && isResponseType(m.type) && !this.raft.tracker.progress.has(m.from)) return 'peerNotFound'
    return step(this.raft, m)
  }

  propose(data: Uint8Array): StepError | null {
    return this.proposeEntries([{ term: 0, index: 0, type: 'normal', data }])
  }

  proposeBatch(datas: readonly Uint8Array[]): StepError | null {
    if (datas.length === 0) return null
    return this.proposeEntries(datas.map((data): Entry => ({ term: 0, index: 0, type: 'normal', data })))
  }

  proposeConfChange(cc: ConfChange, type: 'confChange' | 'confChangeV2' = 'confChangeV2'): StepError | null {
    return this.proposeEntries([confChangeEntry(cc, type)])
  }

  private proposeEntries(entries: readonly Entry[]): StepError | null {
    const m = draft('MsgProp', NONE)
    m.from = this.raft.id
    m.entries = entries
    return step(this.raft, m)
  }

  applyConfChange(cc: ConfChange): ConfState {
    return applyConfChange(this.raft, cc)
  }

  hasReady(): boolean {
    const r = this.raft
    const { log } = r
    const hard = this.previousHard
    return (
      r.messages.length > 0 ||
      r.messagesAfterAppend.length > 0 ||
      log.unstable.hasNextEntries() ||
      log.committed !== hard.commit ||
      r.role !== this.previousRole ||
      r.lead !== this.previousLead ||
      r.term !== hard.term ||
      r.vote !== hard.vote ||
      log.unstable.nextSnapshot() !== null ||
      log.hasNextCommitted(!this.async) ||
      r.readStates.length > 0
    )
  }

  /** Hands everything new out, and counts it as accepted. */
  ready(): Ready {
    const r = this.raft
    const { log } = r
    if (this.onAdvance.length > 0) fail(`raft ${hex(r.id)}: ready() before advance() of the last one`)
    const previous = this.previousHard
    const termOrVoteChanged = r.term !== previous.term || r.vote !== previous.vote
    const hardState = termOrVoteChanged || log.committed !== previous.commit ? r.hardState() : null
    const softChanged = r.role !== this.previousRole || r.lead !== this.previousLead
    const entries = log.unstable.nextEntries()
    const snapshot = log.unstable.nextSnapshot()
    const committedEntries = log.nextCommitted(!this.async)
    const afterAppend = r.messagesAfterAppend.length > 0 ? r.messagesAfterAppend : NO_MESSAGES
    const messages = r.messages
    const readStates = r.readStates.length > 0 ? r.readStates : NO_READS

    if (this.async) {
      // Also without anything to write: promises of before wait behind the writes of before.
      if (entries.length > 0 || hardState !== null || snapshot !== null || afterAppend.length > 0)
        messages.push(makeStorageAppend(r, { entries, hardState, snapshot }, afterAppend))
      if (committedEntries.length > 0) messages.push(makeStorageApply(r, committedEntries))
    } else {
      for (let i = 0; i < afterAppend.length; i++) {
        const m = afterAppend[i]!
        if (m.to === r.id) this.onAdvance.push(m)
        else messages.push(m)
      }
      if (needsStableAnswer(r, snapshot)) this.onAdvance.push(makeStorageAppendResponse(r, snapshot))
      if (committedEntries.length > 0) this.onAdvance.push(makeStorageApplyResponse(r, committedEntries))
    }

    r.messages = []
    if (afterAppend !== NO_MESSAGES) r.messagesAfterAppend = []
    if (readStates !== NO_READS) r.readStates = []
    if (hardState !== null) this.previousHard = hardState
    const softState = softChanged ? r.softState() : null
    this.previousLead = r.lead
    this.previousRole = r.role
    log.unstable.acceptInProgress()
    log.acceptApplying(committedEntries, !this.async)
    return {
      softState,
      hardState,
      readStates,
      entries,
      snapshot,
      committedEntries,
      messages,
      mustSync: entries.length > 0 || termOrVoteChanged,
    }
  }

  advance(): void {
    if (this.async) fail(`raft ${hex(this.raft.id)}: advance() with async storage writes; step the storage's answers`)
    const steps = this.onAdvance
    this.onAdvance = []
    for (const m of steps) step(this.raft, m)
  }

  readIndex(context: Uint8Array): void {
    const m = draft('MsgReadIndex', NONE)
    m.context = context
    step(this.raft, m)
  }

  transferLeader(to: RaftId): void {
    this.local('MsgTransferLeader', to)
  }

  forgetLeader(): StepError | null {
    return this.local('MsgForgetLeader', NONE)
  }

  campaign(): StepError | null {
    return this.local('MsgHup', NONE)
  }

  reportUnreachable(id: RaftId): void {
    this.local('MsgUnreachable', id)
  }

  reportSnapshot(id: RaftId, ok: boolean): void {
    this.local('MsgSnapStatus', id, !ok)
  }

  private local(
    type: 'MsgTransferLeader' | 'MsgForgetLeader' | 'MsgHup' | 'MsgUnreachable' | 'MsgSnapStatus',
    from: RaftId,
    reject = false,
  ) {
    const m = draft(type, NONE)
    m.from = from
    m.reject = reject
    return step(this.raft, m)
  }

  status(): CoreStatus {
    const r = this.raft
    const progress = new Map<RaftId, ProgressStatus>()
    if (r.role === 'leader') for (const id of r.tracker.ids) progress.set(id, viewProgress(r.tracker.progress.get(id)!))
    return {
      id: r.id,
      hardState: r.hardState(),
      softState: r.softState(),
      applied: r.log.applied,
      config: r.tracker.config,
      progress,
      leadTransferee: r.leadTransferee,
    }
  }
}

export const createCore: CreateCore = (config) => new RawNode(config)
