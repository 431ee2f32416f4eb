/** Limits of the room: unit in the name, reason beside each. Ticks and intervals that users may set are in RaftNodeOptions. */

const KIB = 1024
const MIB = 1024 * KIB

/** Largest encoded proposal; swarm's limit, and well below a gRPC frame. */
export const PROPOSAL_BYTES_MAX = 1.5 * MIB
/** Proposals that wait for an entry; more are refused as overloaded, so that memory stays bounded. */
export const WAITING_PROPOSALS_MAX = 16_384
export const WAITING_BYTES_MAX = 64 * MIB
/** Proposals that share one entry, in bytes: enough to fill a sync, small enough not to delay heartbeats behind it. */
export const ENTRY_BYTES_WANTED = 256 * KIB
/** A proposal without a deadline of its own ends as unknown after this. */
export const PROPOSAL_DEADLINE_MS = 30_000

/** One group commit. */
export const APPEND_ENTRIES_MAX = 1024
export const APPEND_BYTES_MAX = 4 * MIB

export const APPEND_MESSAGE_BYTES = 512 * KIB
/** Applied at once, of entries of some hundred bytes: about 5 ms. */
export const APPLY_BYTES = 64 * KIB
/** The loop gives the event loop back after this. */
export const TURN_MS = 5
export const UNCOMMITTED_BYTES_MAX = 64 * MIB
export const INFLIGHT_MESSAGES = 256
/** Appends to one member that it has not acknowledged: they all fit into its queue (PEER_QUEUE_BYTES). */
export const INFLIGHT_BYTES = 8 * MIB
/** Received and not yet stepped; above it appends are dropped (Raft sends them again). */
export const INBOX_BYTES_MAX = 64 * MIB

/** A snapshot is taken at the interval in entries or at this much log after the last one, whichever comes first. */
export const SNAPSHOT_LOG_BYTES = 64 * MIB
/** Of the entries kept behind a snapshot for slow followers: they are held in memory and read at each start. */
export const KEPT_LOG_BYTES = 16 * MIB
/** More is kept while a snapshot is sent, or a newer one would have to follow it at once. */
export const KEPT_LOG_BYTES_WHILE_SENT = 192 * MIB
export const SNAPSHOT_CHUNK_BYTES = 1 * MIB
/** Sent no faster: it takes the CPUs of both ends and the receiver's disk, and appends shall go first. */
export const SNAPSHOT_BYTES_PER_S = 20 * MIB
/** A transfer that is late makes up for no more than this. */
export const SNAPSHOT_PACE_SLACK_MS = 50
export const SNAPSHOT_TRANSFERS_MAX = 2

/** Below this much free space new proposals are refused; elections and running appends still fit. */
export const FREE_BYTES_FLOOR = 64 * MIB
export const FREE_CHECK_MS = 5000

/** Without a leader for longer, reads fail at once (raft.md §10). */
export const NO_LEADER_GRACE_MS = 10_000
/** A read round without an answer is asked again after this many election timeouts' ticks. */
export const READ_RETRY_FACTOR = 1

/**
 * Share of an election timeout after which an order to take leadership is given again, to the next fit member: far more than the
 * round trip and the two fsyncs that it takes.
 */
export const TRANSFER_ORDER_ELECTIONS = 0.3
/** A member that let so many heartbeats pass in silence is not told to lead while there is another one. */
export const QUIET_HEARTBEATS = 3

/** A membership change that is not applied after so many election timeouts is given up; it may still happen. */
export const CHANGE_DEADLINE_ELECTIONS = 10

/** A learner this close to the commit index may be promoted. */
export const PROMOTE_LAG_MAX = 1000
/** A learner that made no progress for this long is dropped. */
export const LEARNER_STALL_MS = 60_000

/** Transport: one peer's queue, its frames, and its reconnects. */
export const PEER_QUEUE_MESSAGES = 4096
export const PEER_QUEUE_BYTES = 16 * MIB
export const FRAME_BYTES_WANTED = 1 * MIB
export const FRAME_MESSAGES_MAX = 1024
/**
 * An append that only tells a commit index waits so long for one with entries to carry it: under load that halves the
 * messages. It bounds how much later a follower applies what no other entry follows.
 */
export const COMMIT_HOLD_MS = 4
export const RECONNECT_MIN_MS = 50
export const RECONNECT_MAX_MS = 2000
export const HEALTH_INTERVAL_MS = 1000
export const HEALTH_DEADLINE_MS = 2000
export const JOIN_HEALTH_DEADLINE_MS = 5000
/** A removed peer's connection is kept so long, so that it learns of its removal. */
export const REMOVED_LINGER_MS = 5000
/** A snapshot transfer without a byte of progress for so long is given up. */
export const TRANSFER_STALL_MS = 10_000
/** While a write of one peer runs and this much is queued elsewhere, its stream is taken to be stuck. */
export const STREAM_STALL_MS = 10_000
