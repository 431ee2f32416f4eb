import type { RaftMember } from '#proto'
import type { Rng } from '../common/index.js'
import type { Logger } from '../common/log.js'
import type { RaftId } from './core/index.js'
import { DurableLog, nodeDisk } from './log/index.js'
import { forceNewCluster, newRaftId } from './node-bootstrap.js'

export interface SeedOptions {
  /** Must hold no member's state yet. */
  readonly dir: string
  readonly nodeId: string
  /** host:port that others dial. */
  readonly address: string
  /** Key-encryption key of autolock, or null. */
  readonly kek: Uint8Array | null
}

/** A state machine's snapshot, and the cluster whose it was. */
export interface SeedState {
  readonly index: number
  readonly term: number
  readonly members: readonly (RaftMember & { readonly learner: boolean })[]
  readonly removed: readonly RaftId[]
  /** Each ≤ 4 MiB. */
  readonly pieces: Iterable<Uint8Array>
}

/**
 * Writes the disk of a member that has never run: a log that begins with that snapshot, in which this member is alone and
 * all others are removed. A crash leaves a directory that must be removed; once this resolved, the member starts from it.
 */
export async function seedRaftState(
  options: SeedOptions,
  state: SeedState,
  modules: { readonly rng: Rng; readonly logger: Logger },
): Promise<void> {
  const { dir, nodeId, address, kek } = options
  const { index, term } = state
  const members = state.members.map(({ raftId, nodeId, address }) => ({ raftId, nodeId, address }))
  const taken = new Set([...members.map((m) => m.raftId), ...state.removed])
  const raftId = newRaftId(modules.rng, (id) => taken.has(id))
  const log = await DurableLog.open({
    ...{ dir, nodeId, kek, disk: nodeDisk(), logger: modules.logger },
    init: { raftId, joined: { members: [], removed: [] }, hardState: { term, vote: 0, commit: 0 }, entries: [] },
  })
  try {
    const writer = await log.createSnapshot(term, index)
    for (const piece of state.pieces) await writer.write(piece)
    const digest = await log.receiveSnapshot(writer)
    const ids = (learner: boolean): RaftId[] => state.members.filter((m) => m.learner === learner).map((m) => m.raftId)
    const confState = {
      voters: ids(false),
      votersOutgoing: [],
      learners: ids(true),
      learnersNext: [],
      autoLeave: false,
    }
    await log.installSnapshot({ index, term, confState }, { members, removed: state.removed }, digest, {
      term,
      vote: 0,
      commit: index,
    })
    await forceNewCluster(log, { raftId, nodeId, address }, modules.logger)
  } finally {
    await log.close()
  }
}
