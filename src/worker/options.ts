/** How often the agent says that it lives, in ms; a manager may ask for more often. Down is 8 s without a word. */
export const BEAT_MS = 1_000
/** Between two looks whether the node's description (CPUs, labels, plugins) changed, in ms. */
export const DESCRIBE_MS = 20_000
/** A manager that has not answered a registration after so long is given up, in ms. */
export const REGISTER_TIMEOUT_MS = 2_500
/** Wait before the next manager is tried: doubles from the least to the most, with jitter, in ms. */
export const BACKOFF_MIN_MS = 100
export const BACKOFF_MAX_MS = 8_000
/** A session that lived so long was a good one: the next attempt starts with the least wait again, in ms. */
export const GOOD_SESSION_MS = 10_000
/** Managers remembered from sessions, beside those that the owner names. */
export const MANAGERS_MAX = 64
/** Task statuses in one message: well below gRPC's message limit. */
export const STATUSES_MAX = 1_000
/** Statuses gather for so long before they are sent, in ms, when none was sent just before. */
export const STATUS_DEBOUNCE_MS = 5
/** Log subscriptions served at a time in a session; one more is refused with an error. */
export const LOG_SUBSCRIPTIONS_MAX = 64
/** Lines and bytes in one log message. */
export const LOG_LINES_MAX = 256
export const LOG_BYTES_MAX = 256 * 1024
/** Wait before a stop or removal that failed is tried again: doubles from the least to the most, in ms. */
export const CLEANUP_MIN_MS = 1_000
export const CLEANUP_MAX_MS = 60_000
/** A manager is asked for the whole network state again, by a new session, at most this often, in ms. */
export const RESYNC_MS = 30_000

/** A start that takes longer than this, in ms, is told to the managers; see TaskRunner. */
export const START_TOLD_MS = 1_000
