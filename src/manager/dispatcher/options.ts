import type { Cluster } from '#proto'

/** A node is down when nothing was heard of it for this long. Swarm's 5 s period times three is 15 s; ours is quicker. */
export const NODE_DOWN_MS = 8_000
/** The stored period for which NODE_DOWN_MS holds; another period (slow links) stretches it in proportion. */
const USUAL_PERIOD_NANOS = 5e9
const NODE_DOWN_MIN_MS = 3_000

export const nodeDownMs = (cluster: Cluster | null): number =>
  Math.max(
    NODE_DOWN_MIN_MS,
    (NODE_DOWN_MS * (cluster?.spec?.dispatcherHeartbeatPeriod || USUAL_PERIOD_NANOS)) / USUAL_PERIOD_NANOS,
  )
/** Nodes of one manager that are asked to renew their certificates at a time, and how long the next ones wait. */
export const RENEW_BATCH = 30
export const RENEW_PAUSE_MS = 1_000
/** Between two looks for silent nodes. */
export const SWEEP_MS = 500
/** Agents beat this often on their stream. */
export const BEAT_MS = 1_000
/** Beats travel to the leader this often, all nodes of a manager in one batch. */
export const PRESENCE_MS = 1_000
/** Statuses wait at most this long for company on their way to the leader. */
export const REPORT_MS = 20
/** Status updates in one batch to the leader. */
export const REPORT_MAX = 2_000
/** Status updates of one session that may wait for the leader; a session with more is ended. */
export const SESSION_STATUS_MAX = 20_000
/** Changes wait at most this long for company on their way to agents. */
export const FLUSH_MS = 10
/** The member list goes to every node: at most this often. */
export const MEMBERS_MS = 250
/** Messages that may wait in one session's stream; a slower agent starts a new session. */
export const SESSION_BACKLOG = 4_096
/** A node that joined through another manager may be here a little later. */
export const NODE_APPEARS_MS = 5_000
/** Tasks of a node that is down this long are given up. */
export const ORPHAN_MS = 24 * 3_600_000
export const ORPHAN_SWEEP_MS = 60_000
/** Log lines of one subscription that may wait for the reader. */
export const LOG_BACKLOG = 1_024
/** Registrations of one node within NODE_DOWN_MS; more are refused for a while. */
export const REGISTRATIONS_MAX = 10
