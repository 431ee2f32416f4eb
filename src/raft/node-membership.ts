import { type RaftMember, RaftMemberChange } from '#proto'
import type { ConfChange, ConfChangeType, ConfState, CoreStatus, RaftId } from './core/index.js'
import type { Membership } from './log/index.js'
import { LEARNER_STALL_MS, PROMOTE_LAG_MAX } from './options.js'

/** The applied membership: who is in, with addresses, and who was removed. Changed only by the log and by snapshots. */
export class Members {
  readonly #members = new Map<RaftId, RaftMember>()
  readonly #removed = new Set<RaftId>()
  #list: readonly RaftMember[] | null = null
  confState: ConfState

  constructor(membership: Membership, confState: ConfState) {
    this.confState = confState
    this.reset(membership, confState)
  }

  reset(membership: Membership, confState: ConfState): void {
    this.#members.clear()
    this.#list = null
    for (const m of membership.members) this.#members.set(m.raftId, m)
    this.#removed.clear()
    for (const id of membership.removed) this.#removed.add(id)
    this.confState = confState
  }

  /** After core.applyConfChange of the same change. */
  apply(change: ConfChange, confState: ConfState): void {
    this.confState = confState
    this.#list = null
    const member = change.context.length > 0 ? RaftMemberChange.decode(change.context).member : null
    for (const { type, nodeId } of change.changes) {
      if (type === 'removeNode') {
        this.#members.delete(nodeId)
        this.#removed.add(nodeId)
      } else if (member !== null && member.raftId === nodeId) this.#members.set(nodeId, member)
    }
  }

  /** By raft id. */
  get list(): readonly RaftMember[] {
    this.#list ??= [...this.#members.values()].sort((a, b) => a.raftId - b.raftId)
    return this.#list
  }
  get membership(): { members: RaftMember[]; removed: RaftId[] } {
    return { members: [...this.list], removed: [...this.#removed].sort((a, b) => a - b) }
  }
  get(id: RaftId): RaftMember | undefined {
    return this.#members.get(id)
  }
  byNode(nodeId: string): RaftMember | undefined {
    return this.list.find((m) => m.nodeId === nodeId)
  }
  get removed(): ReadonlySet<RaftId> {
    return this.#removed
  }
  isRemoved(id: RaftId): boolean {
    return this.#removed.has(id)
  }
  isKnown(id: RaftId): boolean {
    return this.#members.has(id) || this.#removed.has(id)
  }
  isVoter(id: RaftId): boolean {
    return this.confState.voters.includes(id)
  }
  isLearner(id: RaftId): boolean {
    return this.confState.learners.includes(id)
  }

  /** Would the reachable rest still be a quorum of the cluster without `id`? (swarm's rule, raft.md §9) */
  quorumWithout(id: RaftId, reachable: (id: RaftId) => boolean): boolean {
    if (!this.isVoter(id)) return true
    const rest = this.confState.voters.filter((v) => v !== id)
    if (rest.length === 0) return false
    return rest.filter(reachable).length >= Math.floor(rest.length / 2) + 1
  }
}

export const memberChange = (type: ConfChangeType, member: RaftMember): ConfChange => ({
  transition: 'auto',
  changes: [{ type, nodeId: member.raftId }],
  context: RaftMemberChange.encode({ member }),
})

export const removal = (id: RaftId): ConfChange => ({
  transition: 'auto',
  changes: [{ type: 'removeNode', nodeId: id }],
  context: new Uint8Array(0),
})

interface Watched {
  match: number
  movedAt: number
  /** Looks in a row at which it was caught up. */
  caughtUp: number
}

/**
 * Decides, at each heartbeat of a leader, which learner becomes a voter and which is given up. Every learner is one that
 * joined: the manager has no others.
 */
export class LearnerWatch {
  readonly #watched = new Map<RaftId, Watched>()

  clear(): void {
    this.#watched.clear()
  }

  look(status: CoreStatus, nowMs: number): { readonly promote: RaftId | null; readonly drop: RaftId | null } {
    let promote: RaftId | null = null
    let drop: RaftId | null = null
    for (const id of this.#watched.keys()) if (!status.config.learners.includes(id)) this.#watched.delete(id)
    for (const id of status.config.learners) {
      const p = status.progress.get(id)
      if (p === undefined) continue
      const w = this.#watched.get(id) ?? { match: p.match, movedAt: nowMs, caughtUp: 0 }
      this.#watched.set(id, w)
      const close = p.state === 'replicate' && p.match > 0 && status.hardState.commit - p.match < PROMOTE_LAG_MAX
      if (p.match > w.match || (close && p.recentActive)) {
        w.match = p.match
        w.movedAt = nowMs
      }
      w.caughtUp = close ? w.caughtUp + 1 : 0
      if (w.caughtUp >= 2) promote ??= id
      else if (nowMs - w.movedAt > LEARNER_STALL_MS) drop ??= id
    }
    return { promote, drop }
  }
}
