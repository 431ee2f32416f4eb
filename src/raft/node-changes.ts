import type { RaftMember } from '#proto'
import { type Clock, conflict, notFound, type Rng, ShoalError, unavailable } from '../common/index.js'
import type { Logger } from '../common/log.js'
import type { ConfChange, RaftCore, RaftId } from './core/index.js'
import { newRaftId } from './node-bootstrap.js'
import { LearnerWatch, type Members, memberChange, removal } from './node-membership.js'

export interface ChangesHooks {
  readonly own: RaftId
  readonly core: RaftCore
  readonly members: Members
  readonly clock: Clock
  readonly rng: Rng
  readonly logger: Logger
  readonly deadlineMs: number
  reachable(id: RaftId): boolean
  /** Announced as leader: everything up to the election is applied, so no earlier change is open. */
  leading(): boolean
  leaderAddress(): string | null
  transferLeadership(): Promise<void>
  /** The core has something new to hand out. */
  proposed(): void
}

interface Waiter {
  readonly change: ConfChange
  readonly resolve: () => void
  readonly reject: (error: ShoalError) => void
}

/**
 * The membership changes of this member while it leads (raft.md §9): one after another, since Raft allows one unapplied
 * change (§2 rule 8); each resolves when it is applied here.
 */
export class Changes {
  #waiter: Waiter | null = null
  #last: Promise<unknown> = Promise.resolve()
  #queued = 0
  readonly #learners = new LearnerWatch()
  /** What the members that this leader took in said of their disks: a repeated question gets the same answer. */
  readonly #incarnations = new Map<RaftId, string>()

  constructor(private readonly hooks: ChangesHooks) {}

  add(nodeId: string, address: string, incarnation: string): Promise<RaftMember> {
    const { members, rng, logger } = this.hooks
    return this.#inTurn(async () => {
      const before = members.byNode(nodeId)
      if (before && incarnation !== '' && this.#incarnations.get(before.raftId) !== incarnation) {
        logger.warn('a manager joins with an empty disk; its old raft id is removed', { nodeId, raftId: before.raftId })
        await this.#remove(before.raftId, false)
        this.#incarnations.delete(before.raftId)
      }
      const known = members.byNode(nodeId)
      if (known) {
        const moved = { ...known, address }
        if (known.address !== address) await this.#change(memberChange('updateNode', moved))
        return moved
      }
      const member = { raftId: newRaftId(rng, (id) => members.isKnown(id)), nodeId, address }
      // Noted first: the change may be applied although this wait for it ends without an answer.
      if (incarnation !== '') this.#incarnations.set(member.raftId, incarnation)
      await this.#change(memberChange('addLearnerNode', member))
      return member
    })
  }

  remove(raftId: RaftId, force: boolean): Promise<void> {
    return this.#inTurn(() => this.#remove(raftId, force))
  }

  async #remove(raftId: RaftId, force: boolean): Promise<void> {
    const { members } = this.hooks
    if (members.get(raftId) === undefined) {
      if (members.isRemoved(raftId)) return
      throw notFound('notMember', `raft member ${raftId} is not in the cluster`)
    }
    const { voters } = members.confState
    if (voters.length === 1 && voters[0] === raftId)
      throw conflict('lastManager', 'attempting to demote the last manager of the swarm')
    if (!force && !this.canRemove(raftId))
      throw conflict('quorumLoss', "can't remove member from the raft: this would result in a loss of quorum")
    if (raftId === this.hooks.own) {
      await this.hooks.transferLeadership()
      throw unavailable(
        'leadershipMoved',
        'the leader handed leadership over before its removal; ask the new leader to remove it',
      )
    }
    await this.#change(removal(raftId))
  }

  canRemove(raftId: RaftId): boolean {
    return this.hooks.members.quorumWithout(raftId, (id) => this.hooks.reachable(id))
  }

  updateAddress(address: string): Promise<void> {
    return this.#inTurn(async () => {
      const own = this.hooks.members.get(this.hooks.own)
      if (own === undefined)
        throw unavailable('notMember', 'this member is not in its own log yet; wait until it has caught up')
      if (own.address !== address) await this.#change(memberChange('updateNode', { ...own, address }))
    })
  }

  /** At each tick of a leader. */
  lookAtLearners(nowMs: number): void {
    const { core, members, logger } = this.hooks
    if (members.confState.learners.length === 0 || this.#queued > 0) return
    const { promote, drop } = this.#learners.look(core.status(), nowMs)
    const member = promote === null ? undefined : members.get(promote)
    const work = member ? memberChange('addNode', member) : drop !== null ? removal(drop) : null
    if (work === null) return
    logger.info(member ? 'raft member caught up; it becomes a voter' : 'raft member made no progress; it is dropped', {
      raftId: promote ?? drop,
    })
    this.#inTurn(() => this.#change(work)).catch((e) => {
      logger.warn('learner not changed; looked at again', { error: ShoalError.from(e).message })
    })
  }

  applied(change: ConfChange): void {
    const waiter = this.#waiter
    if (waiter === null || !sameChange(waiter.change, change)) return
    this.#waiter = null
    waiter.resolve()
  }

  lost(): void {
    this.#learners.clear()
    this.#incarnations.clear()
    this.fail(
      unavailable(
        'leadershipLost',
        'leadership was lost before the membership change was applied; it may still happen',
      ),
    )
  }

  fail(error: ShoalError): void {
    const waiter = this.#waiter
    this.#waiter = null
    waiter?.reject(error)
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const run = async (): Promise<T> => {
      if (this.hooks.leading()) return work()
      const at = this.hooks.leaderAddress() ?? 'no known address'
      throw unavailable('notLeader', `only the leader changes the membership; it is at ${at}`)
    }
    this.#queued++
    const done = this.#last.then(run, run).finally(() => {
      this.#queued--
    })
    // The next one runs whether this one failed or not; the failure goes to its caller.
    this.#last = done.catch(() => {})
    return done
  }

  #change(change: ConfChange): Promise<void> {
    const { clock, core, deadlineMs, proposed } = this.hooks
    return new Promise<void>((resolve, reject) => {
      const timer = clock.after(deadlineMs, () => {
        if (this.#waiter === waiter) this.#waiter = null
        reject(unavailable('changeDeadline', 'the membership change was not committed in time; it may still happen'))
      })
      const waiter: Waiter = {
        change,
        resolve: () => {
          timer.cancel()
          resolve()
        },
        reject: (e) => {
          timer.cancel()
          reject(e)
        },
      }
      this.#waiter = waiter
      if (core.proposeConfChange(change) !== null)
        this.fail(
          unavailable('changeRefused', 'the membership change was refused: leadership is being handed over; try again'),
        )
      proposed()
    })
  }
}

function sameChange(a: ConfChange, b: ConfChange): boolean {
  return (
    a.changes.length === b.changes.length &&
    a.changes.every((c, i) => c.type === b.changes[i]!.type && c.nodeId === b.changes[i]!.nodeId) &&
    Buffer.compare(a.context, b.context) === 0
  )
}
