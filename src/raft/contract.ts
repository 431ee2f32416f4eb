import type { RaftMember, RaftMembership, StoreAction } from '#proto'
import type { Clock, Rng, ShoalError } from '../common/index.js'
import type { Logger } from '../common/log.js'
import type { Message, RaftId, SnapshotMeta } from './core/index.js'

/** What the state machine (the store) gives to Raft. All calls come from one place, in order, never concurrently. */
export interface StateMachine {
  /**
   * Applies the proposals of one committed entry. Deterministic. `ours` are proposals made by this member in this run
   * that are still waited for: their promise resolves after this returns.
   */
  apply(index: number, proposals: readonly AppliedProposal[]): void
  /**
   * The state of the moment of this call, however late it is read, encoded piece by piece (each ≤ 1 MiB). Other work goes on
   * between two pieces: making one should take some milliseconds at most.
   */
  snapshot(): Iterable<Uint8Array>
  /**
   * Replaces everything, at once and when the last piece was read; rejects, with nothing changed, if reading does. The
   * pieces are those of some member's snapshot() joined and cut anew, and may be kept. Nothing is applied meanwhile.
   */
  restore(index: number, pieces: AsyncIterable<Uint8Array>): Promise<void>
}

export interface AppliedProposal {
  readonly ours: boolean
  readonly actions: readonly StoreAction[]
}

/** How a proposal ended. `unknown`: it may still be committed later; the caller must not assume either. */
export type ProposalOutcome =
  | { readonly result: 'applied'; readonly index: number }
  | { readonly result: 'refused'; readonly reason: 'notLeader' | 'tooLarge' | 'overloaded' | 'diskFull' | 'stopped' }
  | { readonly result: 'unknown'; readonly reason: 'leadershipLost' | 'deadline' | 'stopped' }

export interface LeadershipEvent {
  /** True only once everything in the log up to the election is applied. False before any waiting proposal is refused. */
  readonly leading: boolean
  readonly term: number
}

export interface RaftNodeStatus {
  readonly raftId: RaftId
  readonly leader: RaftId
  readonly leading: boolean
  readonly term: number
  readonly commit: number
  readonly applied: number
  readonly members: readonly (RaftMember & { readonly reachable: boolean; readonly learner: boolean })[]
}

/** The member of the cluster that this process is (raft.md §6–9). */
export interface RaftNode {
  readonly raftId: RaftId
  /** Loads the log, verifies it, restores the state machine, starts ticking. Throws ShoalError code `damaged` with file, record and remedy. */
  start(): Promise<void>
  /** Waits for the running write; every open promise ends. */
  stop(): Promise<void>
  /** Proposals are pipelined: many may be in flight; they are applied in the order of these calls. Max 1.5 MiB each. */
  propose(actions: readonly StoreAction[], options?: { readonly deadlineMs?: number }): Promise<ProposalOutcome>
  /** Resolves when everything committed before the call is applied here (read-index). Rejects with unavailable/noLeader. */
  readBarrier(signal?: AbortSignal): Promise<void>
  /** Calls back on every change, at once with the present state. */
  onLeadership(listener: (event: LeadershipEvent) => void): () => void
  /** This member was removed from the cluster: it must stop and forget. */
  onRemoved(listener: () => void): () => void
  /** A write to the log failed: this member has stopped and the process should end. Called once. */
  onFailed(listener: (error: ShoalError) => void): () => void
  onStatus(listener: (status: RaftNodeStatus) => void): () => void
  status(): RaftNodeStatus
  /** Address of the leader, or null. */
  leaderAddress(): string | null
  /**
   * Leader only. Adds as learner and resolves once that is applied, because the joiner can only start with its raft id;
   * this or a later leader promotes it when it has caught up, or drops it after 60 s without progress. Same node id: same
   * raft id, address updated; but with an `incarnation` that this leader has not taken in before, its disk is new and has
   * forgotten votes and acknowledgements: the old raft id is removed (or refused with `quorumLoss`) and a new one given.
   */
  addMember(nodeId: string, address: string, incarnation?: string): Promise<RaftMember>
  /** The members and the removed ids, as applied here. */
  membership(): RaftMembership
  /**
   * Leader only. Refuses (conflict, code `quorumLoss`) when too few reachable members would be left. Of the leader itself:
   * hands leadership over and rejects with unavailable, code `leadershipMoved`: ask the next leader.
   */
  removeMember(raftId: RaftId, options?: { readonly force?: boolean }): Promise<void>
  /** Leader only: would removing it leave a quorum of reachable members? */
  canRemove(raftId: RaftId): boolean
  transferLeadership(to?: RaftId): Promise<void>
  /** This node's own address changed. */
  updateAddress(address: string): Promise<void>
  /** Wraps the data key anew; see raft.md §4. `kek` null: autolock off. */
  rotateKek(kek: Uint8Array | null): Promise<void>
  /** For a file beside this member's that is to be as safe as they: derived from the data key, another one once autolock is turned on. */
  derivedKey(purpose: string): Uint8Array
}

export interface RaftNodeOptions {
  /** Directory of this member's log, snapshots and keys. */
  readonly dir: string
  readonly nodeId: string
  /** host:port that others dial. */
  readonly advertiseAddress: string
  /** `null`: continue from disk. `create`: first member of a new cluster. `join`: learned from a RaftJoinResponse. */
  readonly bootstrap:
    | null
    | { readonly kind: 'create' }
    | {
        readonly kind: 'join'
        readonly raftId: RaftId
        readonly members: readonly RaftMember[]
        readonly removed: readonly RaftId[]
      }
    | { readonly kind: 'forceNewCluster' }
  /** Key-encryption key of autolock, or null. A wrong one: ShoalError unauthorized, code `wrongUnlockKey`. */
  readonly kek: Uint8Array | null
  readonly tickMs: number
  readonly heartbeatTick: number
  readonly electionTick: number
  readonly snapshotInterval: number
  readonly entriesForSlowFollowers: number
}

export interface RaftNodeModules {
  readonly clock: Clock
  readonly rng: Rng
  readonly logger: Logger
  readonly stateMachine: StateMachine
  readonly transport: RaftTransportFactory
}

/** Where messages go out and come in. The gRPC one is in transport/; simulations have their own. */
export interface RaftTransport {
  /** Never blocks; drops when the peer's queue is full and reports it unreachable. */
  send(messages: readonly Message[]): void
  setMembers(members: readonly RaftMember[], removed: readonly RaftId[]): void
  /** Streams a snapshot to the member that `message` (MsgSnap) is for; resolves when it has it durably. */
  sendSnapshot(message: Message, snapshot: OutgoingSnapshot, signal: AbortSignal): Promise<void>
  reachable(raftId: RaftId): boolean
  close(): Promise<void>
}

/** The current snapshot in plain; on disk it is sealed with this member's key, on the wire TLS protects it. */
export interface OutgoingSnapshot {
  readonly meta: SnapshotMeta
  readonly membership: RaftMembership
  /** Bytes of all pieces. */
  readonly size: number
  /** Hex, of all pieces. */
  readonly sha256: string
  /** Each ≤ 4 MiB. May be read once. */
  pieces(): AsyncIterable<Uint8Array>
  /** Asked before each chunk: true sends it as fast as it goes, since nothing is committed before the member has it. */
  isUrgent(): boolean
}

export type SnapshotDescription = Omit<OutgoingSnapshot, 'pieces' | 'isUrgent'>

/** Where the pieces of a snapshot go that another member sends. */
export interface IncomingSnapshot {
  write(piece: Uint8Array): Promise<void>
  /** Checks size and hash, makes it durable, then steps its MsgSnap into the core. Rejects on a mismatch. */
  finish(): Promise<void>
  abort(): Promise<void>
}

export interface RaftInbox {
  receive(messages: readonly Message[]): void
  /** A newer transfer ends an older one, whose write or finish then rejects. */
  receiveSnapshot(message: Message, snapshot: SnapshotDescription): Promise<IncomingSnapshot>
  unreachable(raftId: RaftId): void
  /** A peer told us that we were removed. */
  removed(): void
}

export type RaftTransportFactory = (self: RaftMember, inbox: RaftInbox) => RaftTransport
