/**
 * One-line faults of the core, as replacements in its compiled files. Each is a mistake that someone could make in good
 * faith; the tests must find every one. `search` has to occur exactly once, or the list has fallen behind the code.
 */
export interface Fault {
  readonly name: string
  /** In build/src/raft/core. */
  readonly file: string
  readonly search: string
  readonly replace: string
}

const fault = (name: string, file: string, search: string, replace: string): Fault => ({ name, file, search, replace })

export const FAULTS: readonly Fault[] = [
  // Elections
  fault('votes twice in a term', 'election.js', 'const free = r.vote === m.from ||', 'const free = true ||'),
  fault('votes for a log that is behind', 'election.js', 'free && r.log.isUpToDate(m.index, m.logTerm)', 'free'),
  fault('keeps its vote over a change of term', 'raft.js', 'this.vote = NONE;', ''),
  fault(
    'a vote is sent before it is durable',
    'raft.js',
    "|| type === 'MsgVoteResp' || type === 'MsgPreVoteResp')",
    "|| (type === 'MsgVoteResp' && m.to === this.id) || type === 'MsgPreVoteResp')",
  ),
  fault('a pre-vote raises the term', 'step.js', "m.type === 'MsgPreVote' || (m.type", '(m.type'),
  fault('the election timeout is the same for all', 'raft.js', 'Math.floor(random() * electionTick)', '0'),
  fault('campaigns with an unapplied conf change', 'election.js', 'if (hasUnappliedConfChanges(r))', 'if (false)'),
  fault('a learner campaigns', 'raft.js', 'pr !== undefined && !pr.isLearner &&', 'pr !== undefined &&'),
  fault(
    'half of a joint quorum elects',
    'quorum.js',
    "first === 'lost' || second === 'lost' ? 'lost' : 'pending'",
    'first',
  ),
  fault('the lease does not hold', 'election.js', 'if (!checkQuorum || r.lead', 'if (true || r.lead'),
  fault('a leader without a quorum stays', 'leader.js', 'if (!r.tracker.quorumActive())', 'if (false)'),
  fault('a late pre-vote counts as a vote', 'follower.js', "if (r.role === 'preCandidate')", 'if (true)'),

  // Replication and commit
  fault('entries of older terms commit by counting', 'log.js', ' || !this.matchTerm(index, term))', ')'),
  fault(
    'commits one copy too early',
    'quorum.js',
    'scratch[n - ((n >> 1) + 1)]',
    'scratch[Math.min(n - 1, n - (n >> 1))]',
  ),
  fault(
    'half of a joint quorum commits',
    'quorum.js',
    'Math.min(majorityCommitted(incoming, acked), majorityCommitted(outgoing, acked))',
    'majorityCommitted(incoming, acked)',
  ),
  fault(
    'a follower commits past the last new entry',
    'log.js',
    'Math.min(leaderCommit, lastNew)',
    'Math.min(leaderCommit, this.lastIndex())',
  ),
  fault('an append drops a matching tail', 'log.js', 'if (!this.matchTerm(entry.index, entry.term))', 'if (true)'),
  fault(
    'an append is accepted without its previous entry',
    'log.js',
    'if (!this.matchTerm(prevIndex, prevTerm))',
    'if (false)',
  ),
  fault(
    'acknowledges before the write',
    'raft.js',
    "if (type === 'MsgAppResp' ||",
    "if ((type === 'MsgAppResp' && m.to === this.id) ||",
  ),
  fault(
    'the leader counts itself before its write',
    'raft.js',
    'this.send(ack);',
    'this.tracker.progress.get(this.id)?.maybeUpdate(ack.index); this.send(ack);',
  ),
  fault(
    'a heartbeat commits what the member may lack',
    'replication.js',
    'Math.min(pr.match, r.log.committed)',
    'r.log.committed',
  ),
  fault(
    'probing falls below the match',
    'progress.js',
    'Math.max(Math.min(rejected, hint + 1), this.match + 1)',
    'Math.min(rejected, hint + 1)',
  ),
  fault('a stale rejection is believed', 'progress.js', 'if (this.next - 1 !== rejected)', 'if (false)'),
  fault('hints do not skip terms', 'leader.js', 'm.logTerm > 0 ?', 'm.logTerm < 0 ?'),
  fault('a full window is not full', 'inflights.js', 'this.count_ >= this.maxCount', 'this.count_ > this.maxCount'),
  fault(
    'an acknowledgement frees one too many',
    'inflights.js',
    'this.indexes[this.start] <= index',
    'this.indexes[this.start] <= index + 1',
  ),
  fault('uncommitted bytes have no limit', 'raft.js', 'this.uncommittedBytes + bytes > limit', 'false'),
  fault('uncommitted bytes are never released', 'proposals.js', 'r.releaseUncommitted(payloadsSize(entries));', ''),

  // Storage and Ready
  fault('a write of an older term counts', 'storage-messages.js', 'm.term = r.term;', 'm.term = 0;'),
  fault('a replaced tail counts as written', 'unstable.js', 'if (ours !== term)', 'if (false)'),
  fault('a truncated tail counts as on its way', 'unstable.js', 'if (this.offsetInProgress > first)', 'if (false)'),
  fault('applies what is not stable', 'raw-node.js', 'log.nextCommitted(!this.async)', 'log.nextCommitted(true)'),
  fault(
    'a vote needs no sync',
    'raw-node.js',
    'mustSync: entries.length > 0 || termOrVoteChanged',
    'mustSync: entries.length > 0',
  ),
  fault('a vote alone is no new hard state', 'raw-node.js', ' || r.vote !== previous.vote;', ';'),
  fault('accepts a Ready twice', 'raw-node.js', 'if (this.onAdvance.length > 0)', 'if (false)'),
  fault(
    'a Ready hands out the working array',
    'unstable.js',
    ': this.entries.slice(inProgress)',
    ': inProgress === 0 ? this.entries : this.entries.slice(inProgress)',
  ),
  fault(
    'applies over a pending snapshot',
    'log.js',
    'this.applyingPaused || this.unstable.snapshot !== null',
    'this.applyingPaused',
  ),
  fault('pages slip past each other', 'log.js', ' || index < this.maxAppliable(allowUnstable);', ';'),

  // Snapshots
  fault('a snapshot does not bring its configuration', 'membership.js', 'restoreConfig(r, snapshot.confState);', ''),
  fault(
    'a snapshot replaces a log that has it',
    'membership.js',
    'if (r.log.matchTerm(snapshot.index, snapshot.term))',
    'if (false)',
  ),
  fault('an older snapshot is installed', 'membership.js', 'if (snapshot.index <= r.log.committed)', 'if (false)'),
  fault(
    'appends go on while a snapshot is pending',
    'progress.js',
    "this.state === 'snapshot' || this.flowPaused",
    'this.flowPaused',
  ),
  fault('a failed snapshot counts as installed', 'leader.js', 'pr.pendingSnapshot = 0;', ';'),

  // Membership
  fault(
    'learners come back as voters',
    'confchange.js',
    '...state.learners.map(learner)',
    '...state.learners.map(add)',
  ),
  fault('a demoted voter is not marked as learner', 'confchange.js', 'next.progress.get(id).isLearner = true;', ''),
  fault(
    'an outgoing voter is dropped too early',
    'confchange.js',
    'if (!next.outgoing.has(id))\n        next.progress.delete(id);',
    'next.progress.delete(id);',
  ),
  fault('two voters change in one simple step', 'confchange.js', 'if (touched > 1)', 'if (touched > 2)'),
  fault('a second conf change is taken', 'proposals.js', 'if (r.pendingConfIndex > r.log.applied)', 'if (false)'),
  fault('a new leader assumes no pending conf change', 'raft.js', 'this.pendingConfIndex = this.log.lastIndex();', ''),
  fault('the joint configuration is never left', 'proposals.js', 'if (!config.autoLeave ||', 'if (true ||'),
  fault('a removed leader stays', 'membership.js', 'if (r.config.stepDownOnRemoval)', 'if (false)'),
  fault('a smaller quorum commits nothing', 'membership.js', 'if (maybeCommit(r))', 'if (false)'),

  // Transfer and reads
  fault('takes proposals during a transfer', 'proposals.js', 'if (r.leadTransferee !== NONE)', 'if (false)'),
  fault('a transfer never ends', 'step.js', "if (r.role === 'leader')\n            r.leadTransferee = NONE;", ''),
  fault(
    'a transfer does not wait for the log',
    'leader.js',
    'r.leadTransferee = to;\n    if (pr.match === r.log.lastIndex())',
    'r.leadTransferee = to;\n    if (true)',
  ),
  fault('reads without a heartbeat round', 'reads.js', " || r.readOnly.option === 'leaseBased')", ' || true)'),
  fault("reads before the term's first commit", 'reads.js', 'if (r.committedInCurrentTerm())', 'if (true)'),
  fault(
    'the only voter reads at the commit index that it started with',
    'reads.js',
    'if (r.committedInCurrentTerm())',
    'if (r.tracker.isSingleton() || r.committedInCurrentTerm())',
  ),
  fault('waiting reads miss the commit of a smaller quorum', 'membership.js', 'releaseWaitingReads(r);', ''),
  fault('reads on one answer', 'reads.js', " || r.tracker.voteResult(acks) !== 'won')", ')'),
  fault('reads outlive the leadership', 'raft.js', 'this.readOnly = new ReadOnly(this.config.readOnlyOption);', ''),
  fault(
    'an earlier read gets the later index',
    'reads.js',
    'answerRead(r, read.request, read.index)',
    'answerRead(r, read.request, r.log.committed + 1)',
  ),
]
