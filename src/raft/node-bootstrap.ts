import type { RaftMember } from '#proto'
import type { Rng } from '../common/index.js'
import type { Logger } from '../common/log.js'
import type { RaftNodeOptions } from './contract.js'
import { type ConfChange, decodeConfChange, type Entry, encodeConfChange, type RaftId } from './core/index.js'
import type { DurableLog, LogInit } from './log/index.js'
import { Members, memberChange, removal } from './node-membership.js'

/** Raft ids are drawn from [1, 2^53) and never used again (raft.md §1). */
export function newRaftId(rng: Rng, taken: (id: RaftId) => boolean): RaftId {
  for (;;) {
    const id = Math.floor(rng.random() * 2 ** 21) * 2 ** 32 + Math.floor(rng.random() * 2 ** 32)
    if (id >= 1 && !taken(id)) return id
  }
}

const changeEntry = (term: number, index: number, change: ConfChange): Entry => ({
  term,
  index,
  type: 'confChangeV2',
  data: encodeConfChange(change, 'confChangeV2'),
})

/** How the log of a member begins; null when it is there already. */
export function initialLog(options: RaftNodeOptions, rng: Rng): LogInit | null {
  const { bootstrap, nodeId, advertiseAddress: address } = options
  if (bootstrap === null || bootstrap.kind === 'forceNewCluster') return null
  const nobody = { members: [], removed: [] }
  if (bootstrap.kind === 'create') {
    const raftId = newRaftId(rng, () => false)
    // The first entry of the first term adds the founder; it is committed from the start.
    const founder = memberChange('addNode', { raftId, nodeId, address })
    return {
      raftId,
      joined: nobody,
      hardState: { term: 1, vote: 0, commit: 1 },
      entries: [changeEntry(1, 1, founder)],
    }
  }
  const { raftId, members, removed } = bootstrap
  return { raftId, joined: { members, removed }, hardState: { term: 0, vote: 0, commit: 0 }, entries: [] }
}

/**
 * Makes this member a cluster of one (raft.md §10): what was not committed is dropped, then all others are removed, all
 * committed at once and in one batch. Doing it again finds nobody to remove and changes nothing.
 */
export async function forceNewCluster(log: DurableLog, self: RaftMember, logger: Logger): Promise<void> {
  const { hardState } = log
  const members = new Members(log.membership, log.initialState().confState)
  const voters = new Set(members.confState.voters)
  for (let i = Math.max(log.snapshotIndex + 1, log.firstIndex()); i <= hardState.commit; i++) {
    const found = log.entries(i, i + 1, 0)
    if (typeof found === 'string') throw new Error(`raft log: entry ${i} is ${found}`)
    const e = found[0]!
    if (e.type === 'normal') continue
    const change = decodeConfChange(e.data, e.type)
    members.apply(change, members.confState)
    for (const c of change.changes)
      if (c.type === 'addNode') voters.add(c.nodeId)
      else if (c.type !== 'updateNode') voters.delete(c.nodeId)
  }
  const others = members.list.filter((m) => m.raftId !== self.raftId)
  const changes: ConfChange[] = []
  const known = members.get(self.raftId)
  // Before the removals: a configuration is never without a voter.
  if (!voters.has(self.raftId) || known === undefined) changes.push(memberChange('addNode', self))
  else if (known.address !== self.address) changes.push(memberChange('updateNode', self))
  for (const m of others) changes.push(removal(m.raftId))
  logger.warn('making a new cluster of this member alone', {
    raftId: self.raftId,
    removed: others.map((m) => m.raftId),
    droppedEntries: log.lastIndex() - hardState.commit,
  })
  if (changes.length === 0 && log.lastIndex() === hardState.commit) return
  const term = hardState.term
  let entries = changes.map((c, n) => changeEntry(term, hardState.commit + 1 + n, c))
  // Nothing to change, but a tail to drop: an empty entry takes its place, which says nothing.
  if (entries.length === 0) entries = [{ term, index: hardState.commit + 1, type: 'normal', data: new Uint8Array(0) }]
  await log.append(entries, { ...hardState, commit: hardState.commit + entries.length })
}
