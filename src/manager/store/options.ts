/** Limits of the store. */
export interface StoreOptions {
  /** Changes in one raft entry made by batch(); default 200, as swarmkit packs them. */
  readonly maxBatchChanges: number
  /** Bytes of one proposal; default 1.5 MiB: entries above that delay heartbeats on slow links. */
  readonly maxProposalBytes: number
  /** Transactions proposed and not yet applied; default 4096. Above: unavailable `overloaded`. */
  readonly maxInFlight: number
  /** Packs of one batch() in flight before it waits for the oldest; default 16. */
  readonly maxPacksInFlight: number
}

export const STORE_DEFAULTS: StoreOptions = {
  maxBatchChanges: 200,
  maxProposalBytes: 1.5 * 1024 * 1024,
  maxInFlight: 4096,
  maxPacksInFlight: 16,
}
