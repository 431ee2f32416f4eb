import { fail } from './assert.js'
import { hex } from './describe.js'
import { RaftLog } from './log.js'
import { type Draft, draft, NO_BYTES } from './message.js'
import { ReadOnly } from './read-only.js'
import { payloadsSize } from './sizes.js'
import { Tracker } from './tracker.js'
import type { CoreConfig, Entry, HardState, Message, RaftId, ReadState, Role, SoftState } from './types.js'
import { NONE, UNLIMITED } from './types.js'

/**
 * The state of one member and the moves that only touch it: changing role, appending to the own log, putting messages
 * out. What a move leads to is decided in the files beside this one, which take it as their first argument.
 *
 *                 timeout / order                    quorum of votes
 *     follower ───────────────▶ preCandidate ─▶ candidate ─────────▶ leader
 *        ▲                          │               │                  │
 *        └──────────────────────────┴───────────────┴──────────────────┘
 *                  higher term, a leader of this term, lost vote, no quorum
 */
export class Raft {
  readonly id: RaftId
  readonly log: RaftLog
  readonly tracker: Tracker

  term = 0
  vote: RaftId = NONE
  role: Role = 'follower'
  lead: RaftId = NONE
  /** A learner replicates, but neither campaigns nor counts. */
  isLearner = false

  /** Messages that may go out at once. */
  messages: Message[] = []
  /** Promises about this member's storage: only after everything up to now is durable. */
  messagesAfterAppend: Message[] = []
  readStates: ReadState[] = []
  readOnly: ReadOnly
  /** Read requests that came before this leader's first commit. */
  waitingReads: Message[] = []

  /** The target while leadership is being handed over. */
  leadTransferee: RaftId = NONE
  /** No further conf change before this index is applied. An estimate from above for a new leader. */
  pendingConfIndex = 0
  /** Payload bytes in the log's uncommitted end; an estimate from below after an election. */
  uncommittedBytes = 0

  /** Ticks since a leader was heard of, or (leader) since the last quorum check. */
  electionElapsed = 0
  heartbeatElapsed = 0
  /** In [electionTick, 2·electionTick), drawn at every change of role or term. */
  randomizedElectionTimeout = 0

  constructor(readonly config: CoreConfig) {
    this.id = config.id
    this.log = new RaftLog(config.storage, config.logger, config.maxCommittedSizePerReady || config.maxSizePerMsg || 1)
    this.tracker = new Tracker(config.maxInflightMsgs, config.maxInflightBytes)
    this.readOnly = new ReadOnly(config.readOnlyOption)
  }

  get logger() {
    return this.config.logger
  }

  softState(): SoftState {
    return { lead: this.lead, role: this.role }
  }

  hardState(): HardState {
    return { term: this.term, vote: this.vote, commit: this.log.committed }
  }

  loadState(state: HardState): void {
    if (state.commit < this.log.committed || state.commit > this.log.lastIndex())
      fail(
        `raft ${hex(this.id)}: stored commit ${state.commit} is out of [${this.log.committed}, ${this.log.lastIndex()}]: the log lost entries`,
      )
    this.log.committed = state.commit
    this.term = state.term
    this.vote = state.vote
  }

  /** In its own configuration with a vote, and not about to be replaced by a snapshot. */
  isPromotable(): boolean {
    const pr = this.tracker.progress.get(this.id)
    return pr !== undefined && !pr.isLearner && this.log.unstable.snapshot === null
  }

  /** Fills in sender and term and puts the message into the right outbox. */
  send(m: Draft): void {
    if (m.from === NONE) m.from = this.id
    const type = m.type
    if (type === 'MsgVote' || type === 'MsgVoteResp' || type === 'MsgPreVote' || type === 'MsgPreVoteResp') {
      // Campaigns choose their term: a pre-vote is about the next one, an answer repeats the question's.
      if (m.term === 0) fail(`raft ${hex(this.id)}: ${type} without a term`)
    } else if (type !== 'MsgProp' && type !== 'MsgReadIndex') {
      // Proposals and reads are forwarded as local messages: any leader may take them.
      m.term = this.term
    }
    if (type === 'MsgAppResp' || type === 'MsgVoteResp' || type === 'MsgPreVoteResp') {
      this.messagesAfterAppend.push(m)
    } else {
      if (m.to === this.id) fail(`raft ${hex(this.id)}: ${type} to itself`)
      this.messages.push(m)
    }
  }

  /** Hands a proposal, read or order on to the leader, under the sender's name. */
  forwardToLeader(m: Message): void {
    const copy = { ...m, to: this.lead, term: 0 }
    this.send(copy)
  }

  becomeFollower(term: number, lead: RaftId): void {
    this.reset(term)
    this.lead = lead
    this.role = 'follower'
    this.logger.info(`${hex(this.id)} became follower at term ${this.term}`)
  }

  becomeCandidate(): void {
    if (this.role === 'leader') fail(`raft ${hex(this.id)}: invalid transition from leader to candidate`)
    this.reset(this.term + 1)
    this.vote = this.id
    this.role = 'candidate'
    this.logger.info(`${hex(this.id)} became candidate at term ${this.term}`)
  }

  /** Changes neither term nor vote nor timeout: a pre-vote must leave no trace. */
  becomePreCandidate(): void {
    if (this.role === 'leader') fail(`raft ${hex(this.id)}: invalid transition from leader to pre-candidate`)
    this.tracker.resetVotes()
    this.lead = NONE
    this.role = 'preCandidate'
    this.logger.info(`${hex(this.id)} became pre-candidate at term ${this.term}`)
  }

  becomeLeader(): void {
    if (this.role === 'follower') fail(`raft ${hex(this.id)}: invalid transition from follower to leader`)
    this.reset(this.term)
    this.lead = this.id
    this.role = 'leader'
    const own = this.tracker.progress.get(this.id)!
    own.becomeReplicate()
    own.recentActive = true
    // There may be an unapplied conf change anywhere in the log; scanning for it costs more than waiting.
    this.pendingConfIndex = this.log.lastIndex()
    // Raft §8: an entry of the own term, without which nothing older may commit.
    if (!this.appendEntries([{ term: 0, index: 0, type: 'normal', data: NO_BYTES }]))
      fail(`raft ${hex(this.id)}: the new leader's empty entry was refused`)
    this.logger.info(`${hex(this.id)} became leader at term ${this.term}`)
  }

  private reset(term: number): void {
    if (this.term !== term) {
      this.term = term
      this.vote = NONE
    }
    this.lead = NONE
    this.electionElapsed = 0
    this.heartbeatElapsed = 0
    this.drawElectionTimeout()
    this.leadTransferee = NONE
    this.tracker.resetVotes()
    const last = this.log.lastIndex()
    for (const [id, pr] of this.tracker.progress) pr.reset(last + 1, id === this.id ? last : 0)
    this.pendingConfIndex = 0
    this.uncommittedBytes = 0
    this.readOnly = new ReadOnly(this.config.readOnlyOption)
    this.waitingReads = []
  }

  private drawElectionTimeout(): void {
    const { electionTick, random } = this.config
    this.randomizedElectionTimeout = electionTick + Math.floor(random() * electionTick)
  }

  /**
   * Gives the entries their places at the end of the own log; false if the uncommitted limit forbids it. The leader's
   * own acknowledgement is a message like any other's, and goes the same way: after the write.
   */
  appendEntries(entries: readonly Entry[]): boolean {
    const payload = payloadsSize(entries)
    if (!this.reserveUncommitted(payload)) {
      this.logger.warn(
        `${hex(this.id)} appending new entries to log would exceed uncommitted entry size limit; dropping proposal`,
      )
      return false
    }
    const last = this.log.lastIndex()
    const placed: Entry[] = []
    for (let i = 0; i < entries.length; i++) {
      const { type, data } = entries[i]!
      placed.push({ term: this.term, index: last + 1 + i, type, data })
    }
    const ack = draft('MsgAppResp', this.id)
    ack.index = this.log.append(placed)
    this.send(ack)
    return true
  }

  /** Empty entries always pass: a new leader's, and the one that leaves a joint configuration. One large one, too. */
  private reserveUncommitted(bytes: number): boolean {
    const limit = this.config.maxUncommittedEntriesSize || UNLIMITED
    if (this.uncommittedBytes > 0 && bytes > 0 && this.uncommittedBytes + bytes > limit) return false
    this.uncommittedBytes += bytes
    return true
  }

  releaseUncommitted(bytes: number): void {
    this.uncommittedBytes = Math.max(0, this.uncommittedBytes - bytes)
  }

  /** Has this term's leader committed anything? Before that it doesn't know how far its predecessors had come. */
  committedInCurrentTerm(): boolean {
    return this.log.termOrZero(this.log.committed) === this.term
  }
}
