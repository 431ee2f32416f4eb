import { join } from 'node:path'
import type { RaftMember, RaftMembership, StoreAction } from '#proto'
import { conflict, Emitter, invariant, ShoalError, type Timer, unavailable } from '../common/index.js'
import type { Logger } from '../common/log.js'
import type {
  LeadershipEvent,
  ProposalOutcome,
  RaftInbox,
  RaftNode,
  RaftNodeModules,
  RaftNodeOptions,
  RaftNodeStatus,
  RaftTransport,
} from './contract.js'
import {
  APPEND_THREAD,
  APPLY_THREAD,
  createCore,
  decodeConfChange,
  type Entry,
  type Message,
  NONE,
  type RaftCore,
  type RaftId,
  type Ready,
} from './core/index.js'
import { type Disk, DurableLog } from './log/index.js'
import { forceNewCluster, initialLog } from './node-bootstrap.js'
import { Campaigns, type Standing } from './node-campaigns.js'
import { Changes } from './node-changes.js'
import { Handover } from './node-handover.js'
import { Members } from './node-membership.js'
import { Proposals } from './node-proposals.js'
import { Reads } from './node-reads.js'
import { readPieces, Snapshots } from './node-snapshots.js'
import { AppendWorker } from './node-storage.js'
import {
  APPEND_MESSAGE_BYTES,
  APPLY_BYTES,
  CHANGE_DEADLINE_ELECTIONS,
  ENTRY_BYTES_WANTED,
  FREE_BYTES_FLOOR,
  FREE_CHECK_MS,
  INBOX_BYTES_MAX,
  INFLIGHT_BYTES,
  INFLIGHT_MESSAGES,
  KEPT_LOG_BYTES,
  KEPT_LOG_BYTES_WHILE_SENT,
  NO_LEADER_GRACE_MS,
  READ_RETRY_FACTOR,
  SNAPSHOT_LOG_BYTES,
  TURN_MS,
  UNCOMMITTED_BYTES_MAX,
} from './options.js'
import { messageBytes } from './transport/wire.js'

/** What differs between a real process and a simulation. */
export interface RaftPlatform {
  readonly disk: Disk
  /** Runs `fn` soon, after what is already waiting (network, disk) was heard; calls must keep their order. */
  readonly defer: (fn: () => void) => void
  readonly randomBytes?: (length: number) => Uint8Array
}

/**
 * One member of the cluster: the loop that joins core, log and transport (raft.md §6). Everything that happens is put
 * somewhere and the loop is woken; one turn of it steps the inbox, then ticks, proposes, asks reads, and does what the
 * core's Readies want. It never awaits: disk and network run beside it and wake it again.
 */
export class Member implements RaftNode {
  readonly #logger: Logger
  #state: 'new' | 'running' | 'stopped' = 'new'
  #log!: DurableLog
  #core!: RaftCore
  #transport!: RaftTransport
  #members!: Members
  #proposals!: Proposals
  #reads!: Reads
  #appends!: AppendWorker
  #snapshots!: Snapshots
  #changes!: Changes
  #campaigns!: Campaigns
  #handover!: Handover

  #inbox: Message[] = []
  #inboxBytes = 0
  #unreachable = new Set<RaftId>()
  #ticks = 0
  #wakePending = false
  #timers: Timer[] = []
  #lastTickAt = 0

  #applied = 0
  #lead: RaftId = NONE
  #role: 'follower' | 'preCandidate' | 'candidate' | 'leader' = 'follower'
  #term = 0
  #commit = 0
  /** Term in which this member leads, 0 when it does not; announced once all before its election is applied. */
  #leadTerm = 0
  #announced = false
  #leaderSeenAt = 0
  #diskFull = false
  #removedTold = false

  readonly #leadership = new Emitter<LeadershipEvent>()
  readonly #removed = new Emitter<void>()
  readonly #failed = new Emitter<ShoalError>()
  readonly #statusBell = new Emitter<RaftNodeStatus>()
  #lastStatus = ''

  constructor(
    private readonly options: RaftNodeOptions,
    private readonly modules: RaftNodeModules,
    private readonly platform: RaftPlatform,
  ) {
    this.#logger = modules.logger.child({ room: 'raft' })
  }

  get raftId(): RaftId {
    return this.#state === 'new' ? NONE : this.#log.raftId
  }

  // ------------------------------------------------------------ start and stop

  async start(): Promise<void> {
    const { options, modules, platform } = this
    if (this.#state !== 'new') throw conflict('raftStarted', 'this raft member was already started; make a new one')
    const log = await DurableLog.open({
      dir: join(options.dir),
      nodeId: options.nodeId,
      kek: options.kek,
      disk: platform.disk,
      logger: this.#logger,
      init: initialLog(options, modules.rng),
      // Also of a key's change or a snapshot: a member that lives on without a log answers heartbeats and does nothing else.
      failed: (e) => this.#fail(e),
      ...(platform.randomBytes ? { randomBytes: platform.randomBytes } : {}),
    })
    try {
      const self: RaftMember = { raftId: log.raftId, nodeId: options.nodeId, address: options.advertiseAddress }
      if (options.bootstrap?.kind === 'forceNewCluster') await forceNewCluster(log, self, this.#logger)
      this.#log = log
      await this.#assemble(self)
    } catch (e) {
      await log.close()
      throw e
    }
  }

  async #assemble(self: RaftMember): Promise<void> {
    const { options, modules } = this
    const { clock, stateMachine } = modules
    const log = this.#log
    const { confState, hardState } = log.initialState()
    this.#members = new Members(log.membership, confState)
    if (log.snapshotIndex > 0) await stateMachine.restore(log.snapshotIndex, readPieces(log))
    this.#applied = log.snapshotIndex
    this.#term = hardState.term
    this.#commit = hardState.commit
    this.#core = createCore({
      id: log.raftId,
      electionTick: options.electionTick,
      heartbeatTick: options.heartbeatTick,
      storage: log,
      applied: log.snapshotIndex,
      asyncStorageWrites: true,
      maxSizePerMsg: APPEND_MESSAGE_BYTES,
      maxCommittedSizePerReady: APPLY_BYTES,
      maxUncommittedEntriesSize: UNCOMMITTED_BYTES_MAX,
      maxInflightMsgs: INFLIGHT_MESSAGES,
      maxInflightBytes: INFLIGHT_BYTES,
      checkQuorum: true,
      preVote: true,
      readOnlyOption: 'safe',
      disableProposalForwarding: true,
      disableConfChangeValidation: false,
      stepDownOnRemoval: true,
      random: () => modules.rng.random(),
      logger: this.#logger,
    })
    this.#proposals = new Proposals(log.raftId, log.boots, clock)
    this.#reads = new Reads(log.raftId, log.boots, options.electionTick * READ_RETRY_FACTOR)
    this.#changes = new Changes({
      own: log.raftId,
      core: this.#core,
      members: this.#members,
      clock,
      rng: modules.rng,
      logger: this.#logger,
      deadlineMs: options.tickMs * options.electionTick * CHANGE_DEADLINE_ELECTIONS,
      reachable: (id) => this.#transport.reachable(id),
      leading: () => this.#announced,
      leaderAddress: () => this.leaderAddress(),
      transferLeadership: () => this.transferLeadership(),
      proposed: () => this.#wake(),
    })
    this.#campaigns = new Campaigns({
      clock,
      rng: modules.rng,
      tickMs: options.tickMs,
      maxMs: options.tickMs * options.electionTick,
      due: () => this.#wake(),
    })
    this.#handover = new Handover({
      own: log.raftId,
      core: this.#core,
      members: this.#members,
      clock,
      electionMs: options.tickMs * options.electionTick,
      heartbeatTick: options.heartbeatTick,
      reachable: (id) => this.#transport.reachable(id),
      standing: () => this.#standing(),
      ordered: () => this.#wake(),
    })
    this.#snapshots = new Snapshots({
      log,
      members: this.#members,
      stateMachine,
      logger: this.#logger,
      transport: () => this.#transport,
      interval: options.snapshotInterval,
      logBytes: SNAPSHOT_LOG_BYTES,
      keep: {
        entries: options.entriesForSlowFollowers,
        bytes: KEPT_LOG_BYTES,
        bytesWhileSent: KEPT_LOG_BYTES_WHILE_SENT,
      },
      applied: () => this.#applied,
      isNeeded: (id) => this.#isNeeded(id),
      received: (m) => this.#receive([m]),
      sent: (to, ok) => {
        if (this.#state !== 'running') return
        this.#core.reportSnapshot(to, ok)
        this.#wake()
      },
      installed: (index) => {
        this.#applied = index
        this.#membersChanged()
      },
    })
    this.#appends = new AppendWorker({
      log,
      install: (m) => this.#snapshots.install(m),
      written: (responses) => {
        if (this.#state !== 'running') return
        this.#dispatch(responses)
        this.#wake()
      },
      failed: (e) => this.#fail(e),
      defer: this.platform.defer,
    })
    const inbox: RaftInbox = {
      receive: (messages) => this.#receive(messages),
      receiveSnapshot: (m, described) => this.#snapshots.receive(m, described),
      unreachable: (id) => {
        this.#unreachable.add(id)
        this.#wake()
      },
      removed: () => this.#tellRemoved(),
    }
    this.#transport = modules.transport(self, inbox)
    this.#state = 'running'
    this.#lastTickAt = clock.monotonic()
    this.#leaderSeenAt = this.#lastTickAt
    this.#timers.push(clock.every(options.tickMs, () => this.#onTimer()))
    this.#timers.push(clock.every(FREE_CHECK_MS, () => this.#checkSpace()))
    this.#checkSpace()
    this.#membersChanged()
    this.#campaignAlone()
    this.#wake()
  }

  async stop(): Promise<void> {
    if (this.#state !== 'running') return
    if (this.#role === 'leader' && this.#members.confState.voters.length > 1 && !this.#handover.refused)
      // A courtesy that saves the others an election timeout; without a fit successor they hold one.
      await this.transferLeadership().catch((e) =>
        this.#logger.info('leadership not handed over', { error: String(e) }),
      )
    await this.#halt(unavailable('raftStopped', 'this raft member stopped'))
  }

  async #halt(reason: ShoalError): Promise<void> {
    if (this.#state !== 'running') return
    this.#state = 'stopped'
    for (const t of this.#timers) t.cancel()
    this.#timers = []
    this.#campaigns.cancel()
    if (this.#announced) {
      this.#announced = false
      this.#leadership.emit({ leading: false, term: this.#term })
    }
    this.#proposals.stop()
    this.#reads.fail(reason)
    this.#changes.fail(reason)
    this.#handover.stop(reason)
    await this.#transport.close()
    await this.#snapshots.stop()
    await this.#appends.stop()
    await this.#log.close()
  }

  /** A failed write or fsync is final (raft.md §3): what is on disk is unknown until it is read again. */
  #fail(caught: unknown): void {
    if (caught instanceof Error && caught.name === 'InvariantError') throw caught
    const error = ShoalError.from(caught)
    if (this.#state !== 'running') return
    this.#logger.error('raft log failed; this member stops', { error: error.message })
    this.#halt(error).then(
      () => this.#failed.emit(error),
      () => this.#failed.emit(error),
    )
  }

  // ------------------------------------------------------------ the loop

  #wake(): void {
    if (this.#wakePending || this.#state !== 'running') return
    this.#wakePending = true
    this.platform.defer(() => {
      this.#wakePending = false
      this.#turn()
    })
  }

  #receive(messages: readonly Message[]): void {
    if (this.#state !== 'running') return
    for (const m of messages) {
      const bytes = messageBytes(m)
      // Raft sends appends again; heartbeats and votes are small and always taken.
      if (m.type === 'MsgApp' && this.#inboxBytes + bytes > INBOX_BYTES_MAX) continue
      this.#inbox.push(m)
      this.#inboxBytes += bytes
    }
    this.#wake()
  }

  /** Late ticks are made up for, but fewer than an election needs: whoever was paused must hear the leader first. */
  #onTimer(): void {
    const { tickMs, electionTick } = this.options
    const now = this.modules.clock.monotonic()
    const due = Math.floor((now - this.#lastTickAt + tickMs / 4) / tickMs)
    if (due <= 0) return
    if (due >= electionTick) this.#lastTickAt = now
    else this.#lastTickAt += due * tickMs
    this.#ticks = Math.min(this.#ticks + due, electionTick - 1)
    this.#wake()
  }

  #turn(): void {
    if (this.#state !== 'running') return
    const core = this.#core
    const inbox = this.#inbox
    this.#inbox = []
    this.#inboxBytes = 0
    for (const m of inbox) {
      this.#handover.hear(m.from)
      this.#campaigns.hear(m, this.#role, this.#term)
      this.#step(m)
    }
    for (const id of this.#unreachable) core.reportUnreachable(id)
    this.#unreachable.clear()
    const ticks = this.#ticks
    this.#ticks = 0
    for (let i = 0; i < ticks; i++) core.tick()
    this.#drain()
    if (ticks > 0) this.#everyTick(ticks)
    this.#offer()
    this.#reads.ask(this.#lead, (context) => core.readIndex(context))
    this.#drain()
    if (this.#campaigns.look(this.#standing())) {
      core.campaign()
      this.#drain()
    }
    this.#snapshots.maybeTake()
    this.#handover.turned()
    this.#tellStatus()
  }

  #standing(): Standing {
    const { voters } = this.#members.confState
    const amongVoters = voters.length > 1 && this.#members.isVoter(this.#log.raftId)
    return { role: this.#role, lead: this.#lead, term: this.#term, amongVoters }
  }

  #step(m: Message): void {
    const refused = this.#core.step(m)
    if (refused !== null) this.#logger.debug('raft message refused', { type: m.type, from: m.from, refused })
  }

  /** What takes longer (a start applies thousands of entries) goes on in the next turn, after what arrived meanwhile. */
  #drain(): void {
    const { clock } = this.modules
    const begun = clock.monotonic()
    while (this.#state === 'running' && this.#core.hasReady()) {
      if (clock.monotonic() - begun > TURN_MS) {
        this.#wake()
        return
      }
      this.#do(this.#core.ready())
    }
  }

  #do(ready: Ready): void {
    this.#observe(ready)
    if (ready.readStates.length > 0) this.#reads.answer(ready.readStates)
    this.#dispatch(afterOwnVote(ready.messages))
    this.#reads.applied(this.#applied)
  }

  /** To this member's disk, state machine or core, or out to the others. */
  #dispatch(messages: readonly Message[]): void {
    const out: Message[] = []
    const writes: Message[] = []
    for (const m of messages) {
      if (m.to === APPEND_THREAD) writes.push(m)
      else if (m.to === APPLY_THREAD) this.#apply(m)
      else if (m.to === this.#log.raftId) this.#step(m)
      else if (m.type === 'MsgSnap') this.#snapshots.send(m)
      // Not what another member asked, sent on under its name: it asks again, and a transport vouches for its own member only.
      else if (m.from === this.#log.raftId) out.push(m)
    }
    if (out.length > 0) this.#transport.send(out.map((m) => this.#discreet(m)))
    for (const m of writes) this.#appends.push(m, out.length > 0)
  }

  /**
   * The others do not hear that a change of the members is committed before it is on this disk. A member that was removed forgets
   * everything; a leader that does not know after a crash that it was might need its vote.
   */
  #discreet(m: Message): Message {
    const { pendingConfIndex } = this.#core
    if (m.commit < pendingConfIndex || this.#log.hardState.commit >= pendingConfIndex) return m
    return { ...m, commit: pendingConfIndex - 1 }
  }

  /** Follows leader, role and term; losing leadership is told before any waiting proposal ends. */
  #observe(ready: Ready): void {
    if (ready.hardState) {
      this.#term = ready.hardState.term
      this.#commit = ready.hardState.commit
    }
    if (ready.softState) {
      if (ready.softState.lead !== this.#lead) this.#reads.again()
      this.#lead = ready.softState.lead
      this.#role = ready.softState.role
    }
    const leading = this.#role === 'leader'
    if (this.#leadTerm !== 0 && (!leading || this.#term !== this.#leadTerm)) {
      this.#logger.info('raft leadership lost', { term: this.#leadTerm, leader: this.#lead })
      this.#leadTerm = 0
      if (this.#announced) {
        this.#announced = false
        this.#leadership.emit({ leading: false, term: this.#term })
      }
      this.#proposals.lose('leadershipLost')
      this.#snapshots.abortSending()
      this.#changes.lost()
    }
    if (leading && this.#leadTerm === 0) {
      this.#leadTerm = this.#term
      this.#logger.info('raft leadership won', { term: this.#term })
    }
  }

  #apply(m: Message): void {
    const { stateMachine } = this.modules
    for (const e of m.entries) {
      invariant(e.index === this.#applied + 1, `raft: entry ${e.index} committed after ${this.#applied}`)
      if (e.type !== 'normal') this.#applyChange(e)
      else if (e.data.length > 0) {
        const { proposals, applied } = this.#proposals.read(e.data)
        stateMachine.apply(e.index, proposals)
        this.#applied = e.index
        applied(e.index)
      }
      this.#applied = e.index
      if (!this.#announced && this.#leadTerm !== 0 && e.term === this.#leadTerm) {
        this.#announced = true
        this.#leadership.emit({ leading: true, term: this.#term })
      }
    }
    this.#dispatch(m.responses)
    this.#campaignAlone()
  }

  #applyChange(e: Entry): void {
    invariant(e.type !== 'normal', 'raft: a normal entry is no conf change')
    const change = decodeConfChange(e.data, e.type)
    this.#members.apply(change, this.#core.applyConfChange(change))
    this.#applied = e.index
    this.#appends.whenCommitted(e.index, () => {
      this.#membersChanged()
      this.#changes.applied(change)
      if (this.#members.isRemoved(this.#log.raftId)) this.#tellRemoved()
    })
  }

  /** The only voter need not wait for an election timeout, once it has applied what it knows to be committed. */
  #campaignAlone(): void {
    if (this.#lead !== NONE || this.#role !== 'follower' || this.#applied < this.#commit) return
    const { voters, votersOutgoing } = this.#members.confState
    if (voters.length === 1 && votersOutgoing.length === 0 && this.#members.isVoter(this.#log.raftId))
      this.#core.campaign()
  }

  #membersChanged(): void {
    const { raftId, joined } = this.#log
    const { members, removed } = this.#members.membership
    const known = new Map<RaftId, RaftMember>()
    // Until our own addition is applied, our log's view of the cluster is older than what we were told when joining.
    if (this.#members.get(raftId) === undefined)
      for (const m of joined.members) if (!this.#members.isRemoved(m.raftId)) known.set(m.raftId, m)
    for (const m of members) known.set(m.raftId, m)
    this.#transport.setMembers([...known.values()], [...new Set([...removed, ...joined.removed])])
  }

  #offer(): void {
    if (!this.#proposals.waiting || !this.#announced) return
    // While a write runs, what comes in gathers for the next one: entries per fsync rise with the load.
    if (this.#appends.busy && this.#proposals.waitingBytes < ENTRY_BYTES_WANTED) return
    this.#proposals.flush((entries) => {
      if (this.#core.proposeBatch(entries) === null) return 'taken'
      return this.#core.status().leadTransferee !== NONE || this.#role !== 'leader' ? 'notLeader' : 'overloaded'
    })
  }

  #everyTick(ticks: number): void {
    const now = this.modules.clock.monotonic()
    this.#reads.tick(ticks)
    this.#appends.flushCommit()
    if (this.#lead !== NONE) this.#leaderSeenAt = now
    else if (now - this.#leaderSeenAt > NO_LEADER_GRACE_MS) this.#reads.noLeader()
    this.#handover.tick(ticks, now)
    if (this.#announced) this.#changes.lookAtLearners(now)
  }

  #checkSpace(): void {
    this.#log.freeBytes().then(
      (free) => {
        const full = free < FREE_BYTES_FLOOR
        if (full !== this.#diskFull) {
          const fields = { freeBytes: free, floorBytes: FREE_BYTES_FLOOR, dir: this.options.dir }
          if (full) this.#logger.error('too little disk space left for the raft log; proposals are refused', fields)
          else this.#logger.info('enough disk space for the raft log again', fields)
        }
        this.#diskFull = full
      },
      (e) => this.#logger.warn('free disk space unknown', { error: String(e) }),
    )
  }

  // ------------------------------------------------------------ proposals and reads

  propose(actions: readonly StoreAction[], options?: { readonly deadlineMs?: number }): Promise<ProposalOutcome> {
    const refused = (reason: 'notLeader' | 'diskFull' | 'stopped'): Promise<ProposalOutcome> =>
      Promise.resolve({ result: 'refused', reason })
    if (this.#state !== 'running') return refused('stopped')
    if (!this.#announced) return refused('notLeader')
    if (this.#diskFull) return refused('diskFull')
    const outcome = this.#proposals.add(actions, options?.deadlineMs)
    this.#wake()
    return outcome
  }

  readBarrier(signal?: AbortSignal): Promise<void> {
    if (this.#state !== 'running') return Promise.reject(unavailable('raftStopped', 'this raft member is not running'))
    const done = this.#reads.barrier(signal)
    if (this.#lead === NONE && this.modules.clock.monotonic() - this.#leaderSeenAt > NO_LEADER_GRACE_MS)
      this.#reads.noLeader()
    this.#wake()
    return done
  }

  // ------------------------------------------------------------ what others may know

  onLeadership(listener: (event: LeadershipEvent) => void): () => void {
    listener({ leading: this.#announced, term: this.#term })
    return this.#leadership.on(listener)
  }
  onRemoved(listener: () => void): () => void {
    return this.#removed.on(listener)
  }
  onFailed(listener: (error: ShoalError) => void): () => void {
    return this.#failed.on(listener)
  }
  onStatus(listener: (status: RaftNodeStatus) => void): () => void {
    return this.#statusBell.on(listener)
  }

  status(): RaftNodeStatus {
    const running = this.#state === 'running'
    return {
      raftId: this.raftId,
      leader: running ? this.#lead : NONE,
      leading: this.#announced,
      term: this.#term,
      commit: this.#commit,
      applied: this.#applied,
      members: (this.#state === 'new' ? [] : this.#members.list).map((m) => ({
        ...m,
        reachable: running && this.#transport.reachable(m.raftId),
        learner: this.#members.isLearner(m.raftId),
      })),
    }
  }

  membership(): RaftMembership {
    return this.#state === 'new' ? { members: [], removed: [] } : this.#members.membership
  }

  leaderAddress(): string | null {
    if (this.#state !== 'running' || this.#lead === NONE) return null
    return (
      this.#members.get(this.#lead)?.address ??
      this.#log.joined.members.find((m) => m.raftId === this.#lead)?.address ??
      null
    )
  }

  #tellStatus(): void {
    if (this.#statusBell.size === 0) return
    const status = this.status()
    const words = JSON.stringify([status.leader, status.leading, status.term, status.members])
    if (words === this.#lastStatus) return
    this.#lastStatus = words
    this.#statusBell.emit(status)
  }

  #tellRemoved(): void {
    if (this.#removedTold || this.#state !== 'running') return
    this.#removedTold = true
    this.#logger.warn('this raft member was removed from the cluster', { raftId: this.#log.raftId })
    this.#removed.emit()
  }

  // ------------------------------------------------------------ membership

  addMember(nodeId: string, address: string, incarnation = ''): Promise<RaftMember> {
    return this.#whileRunning(() => this.#changes.add(nodeId, address, incarnation))
  }

  removeMember(raftId: RaftId, options?: { readonly force?: boolean }): Promise<void> {
    return this.#whileRunning(() => this.#changes.remove(raftId, options?.force ?? false))
  }

  canRemove(raftId: RaftId): boolean {
    return this.#state === 'running' && this.#changes.canRemove(raftId)
  }

  updateAddress(address: string): Promise<void> {
    return this.#whileRunning(() => this.#changes.updateAddress(address))
  }

  #whileRunning<T>(work: () => Promise<T>): Promise<T> {
    if (this.#state === 'running') return work()
    return Promise.reject(unavailable('raftStopped', 'this raft member is not running'))
  }

  async transferLeadership(to?: RaftId): Promise<void> {
    if (this.#state !== 'running' || this.#role !== 'leader')
      throw unavailable(
        'notLeader',
        `only the leader hands leadership over; it is at ${this.leaderAddress() ?? 'no known address'}`,
      )
    await this.#handover.transfer(to)
  }

  /** Do too few others follow the log, so that nothing is committed until this member does? */
  #isNeeded(id: RaftId): boolean {
    const { progress } = this.#core.status()
    const follows = (voter: RaftId): boolean => {
      if (voter === this.#log.raftId) return true
      const p = progress.get(voter)
      return voter !== id && p?.state === 'replicate' && p.recentActive
    }
    const { voters, votersOutgoing } = this.#members.confState
    return [voters, votersOutgoing].some(
      (ids) => ids.includes(id) && ids.filter(follows).length < Math.floor(ids.length / 2) + 1,
    )
  }

  rotateKek(kek: Uint8Array | null): Promise<void> {
    if (this.#state !== 'running') return Promise.reject(unavailable('raftStopped', 'this raft member is not running'))
    return this.#log.rotateKek(kek)
  }

  derivedKey(purpose: string): Uint8Array {
    if (this.#state !== 'running') throw unavailable('raftStopped', 'this raft member is not running')
    return this.#log.derivedKey(purpose)
  }

  /** Announced as leader: as status().leading, at no cost. */
  get leading(): boolean {
    return this.#announced
  }

  /** For checkers that look inside a running member; null while there is nothing to see. */
  inspect(): { readonly core: RaftCore; readonly log: DurableLog; readonly members: Members } | null {
    return this.#state === 'running' ? { core: this.#core, log: this.#log, members: this.#members } : null
  }

  /** How well fsyncs are shared, and what is still open: for metrics and for leak checks in tests. */
  counters(): {
    readonly writes: number
    readonly entriesWritten: number
    readonly openProposals: number
    readonly openReads: number
  } {
    return {
      writes: this.#appends.writes,
      entriesWritten: this.#appends.entriesWritten,
      openProposals: this.#proposals.open,
      openReads: this.#reads.open,
    }
  }
}

/**
 * A candidate asks for votes only when its own is durable. Elected by the others alone it would send entries in a term that its
 * disk does not know, and after a crash it could win the same term again, with other entries at the same places.
 */
function afterOwnVote(messages: readonly Message[]): readonly Message[] {
  const requests = messages.filter((m) => m.type === 'MsgVote')
  if (requests.length === 0) return messages
  const write = messages.find((m) => m.to === APPEND_THREAD)
  invariant(write !== undefined, 'raft: a candidate asks for votes without a new term')
  const held: Message = { ...write, responses: [...write.responses, ...requests] }
  return messages.filter((m) => m.type !== 'MsgVote').map((m) => (m === write ? held : m))
}
