import { type RaftId, UNLIMITED } from './types.js'

export type VoteResult = 'pending' | 'lost' | 'won'

/** Enough for any sane cluster; larger ones get a fresh array. Reused because commits are counted on every answer. */
const scratch: number[] = []

/**
 * The highest index that a majority of `voters` has: sorted ascending, the one at place n − (n/2 + 1). An empty quorum
 * has committed everything, so that a joint configuration with an empty half behaves like its other half.
 */
export function majorityCommitted(voters: readonly RaftId[], acked: (id: RaftId) => number): number {
  const n = voters.length
  if (n === 0) return UNLIMITED
  for (let i = 0; i < n; i++) {
    const index = acked(voters[i]!)
    let at = i
    while (at > 0 && scratch[at - 1]! > index) {
      scratch[at] = scratch[at - 1]!
      at--
    }
    scratch[at] = index
  }
  return scratch[n - ((n >> 1) + 1)]!
}

/** Votes by id; absent = not yet voted. An empty quorum has won. */
export function majorityVote(voters: readonly RaftId[], votes: ReadonlyMap<RaftId, boolean>): VoteResult {
  const n = voters.length
  if (n === 0) return 'won'
  let granted = 0
  let missing = 0
  for (let i = 0; i < n; i++) {
    const vote = votes.get(voters[i]!)
    if (vote === undefined) missing++
    else if (vote) granted++
  }
  const quorum = (n >> 1) + 1
  if (granted >= quorum) return 'won'
  return granted + missing >= quorum ? 'pending' : 'lost'
}

/** Raft thesis §4.3: in a joint configuration both halves have to agree. */
export const jointCommitted = (
  incoming: readonly RaftId[],
  outgoing: readonly RaftId[],
  acked: (id: RaftId) => number,
): number => Math.min(majorityCommitted(incoming, acked), majorityCommitted(outgoing, acked))

export function jointVote(
  incoming: readonly RaftId[],
  outgoing: readonly RaftId[],
  votes: ReadonlyMap<RaftId, boolean>,
): VoteResult {
  const first = majorityVote(incoming, votes)
  const second = majorityVote(outgoing, votes)
  if (first === second) return first
  return first === 'lost' || second === 'lost' ? 'lost' : 'pending'
}
