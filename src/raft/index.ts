import type { RaftNode, RaftNodeModules, RaftNodeOptions } from './contract.js'
import { nodeDisk, readDerivedKey as readFromLog } from './log/index.js'
import { Member } from './node.js'

export type * from './contract.js'
export { verifyLog as verifyRaftLog } from './log/index.js'
export { NO_LEADER_TEXT } from './node-reads.js'
export { FREE_BYTES_FLOOR } from './options.js'
export { type SeedOptions, type SeedState, seedRaftState } from './seed.js'
export { createRaftHub, type RaftHub, type RaftHubOptions, raftHandlers } from './transport/index.js'

/** One member of the cluster on this machine's disk. `start()` opens its log. */
export const createRaftNode = (options: RaftNodeOptions, modules: RaftNodeModules): RaftNode =>
  new Member(options, modules, { disk: nodeDisk(), defer: (fn) => void setImmediate(fn) })

/** Removes log, snapshots and keys of a member that was removed. Only after its `stop()`; it can never come back. */
export const forgetRaftState = (dir: string): Promise<void> => nodeDisk().remove(dir)

/** What `derivedKey(purpose)` of the member in `dir` gives, while it does not run. Throws `wrongUnlockKey` when it is locked. */
export const readDerivedKey = (dir: string, kek: Uint8Array | null, purpose: string): Promise<Uint8Array> =>
  readFromLog(nodeDisk(), dir, { kek, purpose })
