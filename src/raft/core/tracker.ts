import { Inflights } from './inflights.js'
import type { Progress } from './progress.js'
import { jointCommitted, jointVote, majorityCommitted, type VoteResult } from './quorum.js'
import type { ConfState, RaftId } from './types.js'

export const EMPTY_CONFIG: ConfState = Object.freeze({
  voters: Object.freeze([]) as readonly RaftId[],
  votersOutgoing: Object.freeze([]) as readonly RaftId[],
  learners: Object.freeze([]) as readonly RaftId[],
  learnersNext: Object.freeze([]) as readonly RaftId[],
  autoLeave: false,
})

export const isJoint = (config: ConfState): boolean => config.votersOutgoing.length > 0

/** Sorted union of both halves: everyone who has a vote. */
export function allVoters(config: ConfState): readonly RaftId[] {
  if (config.votersOutgoing.length === 0) return config.voters
  return [...new Set([...config.voters, ...config.votersOutgoing])].sort((a, b) => a - b)
}

/** The configuration with the progress of each of its members, and the votes of the current election. */
export class Tracker {
  readonly votes = new Map<RaftId, boolean>()
  /** Members by ascending id: the order in which messages go out and lists are printed. */
  ids: readonly RaftId[] = []
  /** Their progress, in the same order. */
  ordered: readonly Progress[] = []
  private readonly acked = (id: RaftId): number => this.progress.get(id)?.match ?? 0

  constructor(
    readonly maxInflightMsgs: number,
    readonly maxInflightBytes: number,
    public config: ConfState = EMPTY_CONFIG,
    public progress: ReadonlyMap<RaftId, Progress> = new Map(),
  ) {
    this.replace(config, progress)
  }

  /** Votes survive a change of configuration: they were cast by members, not by configurations. */
  replace(config: ConfState, progress: ReadonlyMap<RaftId, Progress>): void {
    this.config = config
    this.progress = progress
    this.ids = [...progress.keys()].sort((a, b) => a - b)
    this.ordered = this.ids.map((id) => progress.get(id)!)
  }

  newInflights(): Inflights {
    return new Inflights(this.maxInflightMsgs, this.maxInflightBytes)
  }

  isSingleton(): boolean {
    return this.config.voters.length === 1 && this.config.votersOutgoing.length === 0
  }

  isVoter(id: RaftId): boolean {
    return this.config.voters.includes(id) || this.config.votersOutgoing.includes(id)
  }

  committed(): number {
    const { voters, votersOutgoing } = this.config
    if (votersOutgoing.length === 0) return majorityCommitted(voters, this.acked)
    return jointCommitted(voters, votersOutgoing, this.acked)
  }

  /** Has a quorum answered since the last check? */
  quorumActive(): boolean {
    const active = new Map<RaftId, boolean>()
    for (const [id, pr] of this.progress) if (!pr.isLearner) active.set(id, pr.recentActive)
    return this.voteResult(active) === 'won'
  }

  voteResult(votes: ReadonlyMap<RaftId, boolean>): VoteResult {
    return jointVote(this.config.voters, this.config.votersOutgoing, votes)
  }

  resetVotes(): void {
    this.votes.clear()
  }

  /** A second vote of the same member doesn't change the first. */
  recordVote(id: RaftId, granted: boolean): void {
    if (!this.votes.has(id)) this.votes.set(id, granted)
  }

  tally(): { granted: number; rejected: number; result: VoteResult } {
    let granted = 0
    let rejected = 0
    for (const [id, pr] of this.progress) {
      // Votes of members that left, or never had one, count for nothing, also not in the log line.
      if (pr.isLearner) continue
      const vote = this.votes.get(id)
      if (vote === undefined) continue
      if (vote) granted++
      else rejected++
    }
    return { granted, rejected, result: this.voteResult(this.votes) }
  }
}
