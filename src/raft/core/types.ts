/**
 * The vocabulary of the Raft core (raft.md §1–2; etcd-io/raft's raftpb and Ready in meaning). Everything here is plain
 * data. Indexes and terms are non-negative integers below 2^53; raft ids are integers in [1, 2^53).
 */

export type RaftId = number

/** "No member": never a valid id. */
export const NONE: RaftId = 0
/** Target of storage-append messages; no member can have it. */
export const APPEND_THREAD: RaftId = -1
/** Target of storage-apply messages. */
export const APPLY_THREAD: RaftId = -2
/** "No limit" for sizes, and the index that an empty quorum has committed. */
export const UNLIMITED = Number.MAX_SAFE_INTEGER

export type EntryType = 'normal' | 'confChange' | 'confChangeV2'

export interface Entry {
  readonly term: number
  readonly index: number
  readonly type: EntryType
  /** Never changed after the entry was made. Empty for a new leader's first entry. */
  readonly data: Uint8Array
}

export interface HardState {
  readonly term: number
  readonly vote: RaftId
  readonly commit: number
}

/** Sorted ascending, without repeats. */
export interface ConfState {
  readonly voters: readonly RaftId[]
  readonly votersOutgoing: readonly RaftId[]
  readonly learners: readonly RaftId[]
  readonly learnersNext: readonly RaftId[]
  readonly autoLeave: boolean
}

export interface SnapshotMeta {
  readonly index: number
  readonly term: number
  readonly confState: ConfState
}

/** `data` is opaque to the core; the node keeps a file name or nothing in it, the tests their state machine. */
export interface Snapshot extends SnapshotMeta {
  readonly data: Uint8Array
}

export type ConfChangeType = 'addNode' | 'removeNode' | 'updateNode' | 'addLearnerNode'

export interface ConfChangeSingle {
  readonly type: ConfChangeType
  readonly nodeId: RaftId
}

export type ConfChangeTransition = 'auto' | 'jointImplicit' | 'jointExplicit'

/** No changes and transition auto: leave the joint configuration. */
export interface ConfChange {
  readonly transition: ConfChangeTransition
  readonly changes: readonly ConfChangeSingle[]
  readonly context: Uint8Array
}

export type MessageType =
  | 'MsgHup'
  | 'MsgBeat'
  | 'MsgProp'
  | 'MsgApp'
  | 'MsgAppResp'
  | 'MsgVote'
  | 'MsgVoteResp'
  | 'MsgSnap'
  | 'MsgHeartbeat'
  | 'MsgHeartbeatResp'
  | 'MsgUnreachable'
  | 'MsgSnapStatus'
  | 'MsgCheckQuorum'
  | 'MsgTransferLeader'
  | 'MsgTimeoutNow'
  | 'MsgReadIndex'
  | 'MsgReadIndexResp'
  | 'MsgPreVote'
  | 'MsgPreVoteResp'
  | 'MsgStorageAppend'
  | 'MsgStorageAppendResp'
  | 'MsgStorageApply'
  | 'MsgStorageApplyResp'
  | 'MsgForgetLeader'

/** Fields that a type does not use have their zero value (0, false, [], null), never undefined. */
export interface Message {
  readonly type: MessageType
  readonly to: RaftId
  readonly from: RaftId
  readonly term: number
  readonly logTerm: number
  readonly index: number
  readonly entries: readonly Entry[]
  readonly commit: number
  readonly vote: RaftId
  readonly snapshot: Snapshot | null
  readonly reject: boolean
  readonly rejectHint: number
  readonly context: Uint8Array
  /** Only on MsgStorageAppend and MsgStorageApply: to be sent or stepped once the write (and all before it) is done. */
  readonly responses: readonly Message[]
}

export type Role = 'follower' | 'preCandidate' | 'candidate' | 'leader'

export interface SoftState {
  readonly lead: RaftId
  readonly role: Role
}

export interface ReadState {
  /** Commit index at the time of the request: answer once applied ≥ index. */
  readonly index: number
  readonly context: Uint8Array
}

/** What is new since the last Ready; absent parts are null or empty. In synchronous mode `advance()` must follow. */
export interface Ready {
  readonly softState: SoftState | null
  readonly hardState: HardState | null
  readonly readStates: readonly ReadState[]
  readonly entries: readonly Entry[]
  readonly snapshot: Snapshot | null
  readonly committedEntries: readonly Entry[]
  readonly messages: readonly Message[]
  /** Entries, term or vote changed: the write must reach the disk before anything that depends on it is sent. */
  readonly mustSync: boolean
}

/** What `StorageReader` answers where the log was cut or has not arrived. */
export type StorageFault = 'compacted' | 'unavailable' | 'snapshotTemporarilyUnavailable'

/** The stable log as the core reads it: synchronous, from memory. Returned arrays are never changed afterwards. */
export interface StorageReader {
  initialState(): { hardState: HardState; confState: ConfState }
  firstIndex(): number
  lastIndex(): number
  /** Known for [firstIndex−1, lastIndex]. */
  term(index: number): number | StorageFault
  /** Entries in [lo, hi), at least one, then as many as fit in `maxBytes` of encoded size. */
  entries(lo: number, hi: number, maxBytes: number): readonly Entry[] | StorageFault
  snapshot(): Snapshot | StorageFault
}

export interface CoreLogger {
  debug(text: string): void
  info(text: string): void
  warn(text: string): void
  error(text: string): void
}

export type ReadOnlyOption = 'safe' | 'leaseBased'

export interface CoreConfig {
  readonly id: RaftId
  /** Ticks without a leader before an election; drawn anew from [electionTick, 2·electionTick). */
  readonly electionTick: number
  readonly heartbeatTick: number
  readonly storage: StorageReader
  /** Index up to which the state machine has applied, at a restart; 0 on a fresh start. */
  readonly applied: number
  readonly asyncStorageWrites: boolean
  /** Bytes of entries in one append message; UNLIMITED, or 0 for one entry at a time. */
  readonly maxSizePerMsg: number
  /** Bytes of committed entries in one Ready; 0 means maxSizePerMsg. */
  readonly maxCommittedSizePerReady: number
  /** Bytes of proposed and uncommitted entries at the leader; 0 means no limit. */
  readonly maxUncommittedEntriesSize: number
  readonly maxInflightMsgs: number
  /** Bytes in flight to one member; 0 means no limit. */
  readonly maxInflightBytes: number
  readonly checkQuorum: boolean
  readonly preVote: boolean
  readonly readOnlyOption: ReadOnlyOption
  readonly disableProposalForwarding: boolean
  readonly disableConfChangeValidation: boolean
  readonly stepDownOnRemoval: boolean
  /** Uniform in [0, 1). */
  readonly random: () => number
  readonly logger: CoreLogger
}

/** An expected refusal. `peerNotFound` and `localMessage` come from step, the others from propose. */
export type StepError = 'proposalDropped' | 'peerNotFound' | 'localMessage'

export type ProgressState = 'probe' | 'replicate' | 'snapshot'

export interface ProgressStatus {
  readonly match: number
  readonly next: number
  readonly state: ProgressState
  readonly isLearner: boolean
  readonly recentActive: boolean
  readonly paused: boolean
  readonly pendingSnapshot: number
  readonly inflight: number
  /** The window is used up, by number or by bytes. */
  readonly inflightFull: boolean
}

export interface CoreStatus {
  readonly id: RaftId
  readonly hardState: HardState
  readonly softState: SoftState
  readonly applied: number
  readonly config: ConfState
  /** Empty unless leader. */
  readonly progress: ReadonlyMap<RaftId, ProgressStatus>
  readonly leadTransferee: RaftId
}

/**
 * One member's state machine (raft.md §1). Every call is synchronous; an assertion failure means a bug or damaged
 * storage and must end the process. Returned errors are refusals; nothing has changed then.
 */
export interface RaftCore {
  readonly id: RaftId
  /** Of a leader: no conf change after this index is in its log. Of others 0. */
  readonly pendingConfIndex: number
  tick(): void
  step(m: Message): StepError | null
  propose(data: Uint8Array): StepError | null
  /** Several entries proposed as one message: all or none are appended. */
  proposeBatch(datas: readonly Uint8Array[]): StepError | null
  /** `type` confChange: the old entry type, for exactly one change with transition auto. Default: confChangeV2. */
  proposeConfChange(cc: ConfChange, type?: 'confChange' | 'confChangeV2'): StepError | null
  /**
   * To be called for every committed conf change entry, in order, when it is applied. One that the application refuses:
   * with node ids zeroed (a single change), so that nothing changes. Leaving a joint configuration that is none: no-op.
   */
  applyConfChange(cc: ConfChange): ConfState
  hasReady(): boolean
  ready(): Ready
  /** Synchronous mode only: the last Ready was written, sent and applied. */
  advance(): void
  /** The answer comes as a ReadState with the same context in a later Ready, or never. Contexts: not empty, not reused. */
  readIndex(context: Uint8Array): void
  transferLeader(to: RaftId): void
  forgetLeader(): StepError | null
  campaign(): StepError | null
  reportUnreachable(id: RaftId): void
  reportSnapshot(id: RaftId, ok: boolean): void
  status(): CoreStatus
}

/** core/index.ts exports this as createCore; throws on an invalid config, naming the field. */
export type CreateCore = (config: CoreConfig) => RaftCore
