import type { Clock, Rng, Timer } from '../common/index.js'
import { type Message, NONE, type RaftId } from './core/index.js'

export interface CampaignsHooks {
  readonly clock: Clock
  readonly rng: Rng
  /** One tick, milliseconds: the first wait is one to two of them. */
  readonly tickMs: number
  /** Longest wait, milliseconds: the election timeout, after which the core asks again anyway. */
  readonly maxMs: number
  /** Time for the next look. */
  due(): void
}

/** What the core is, after all its Readies were done. */
export interface Standing {
  readonly role: 'follower' | 'preCandidate' | 'candidate' | 'leader'
  readonly lead: RaftId
  readonly term: number
  /** Votes and is not the only one who does. */
  readonly amongVoters: boolean
}

/**
 * Campaigns that come to nothing are begun again soon (docs/raft.md, "Split votes"). The core waits for another whole election
 * timeout; here the wait is random, short at first, and doubles with each try:
 *
 *     pre-candidate, no majority yet ──────────────────┐
 *     candidate, refused by some, neither won nor lost ├──wait──> pre-vote for the next term
 *     candidate that lost, and no leader is heard of ──┘
 *
 * A candidate waits for its own disk and for the voters' without a limit of ours: only a refusal, which comes after both, starts
 * its wait. The core campaigns first in any case, so nobody asks before it missed its leader for an election timeout.
 */
export class Campaigns {
  #timer: Timer | null = null
  #due = false
  /** Campaigns begun again since a leader was last known. */
  #tries = 0
  /** Term of this member's newest campaign that a voter refused. */
  #refusedTerm = 0
  /** What the running wait is for. */
  #waitsIn = ''

  constructor(private readonly hooks: CampaignsHooks) {}

  /** Before the core gets it. */
  hear(m: Message, role: Standing['role'], term: number): void {
    if (m.type === 'MsgVoteResp' && m.reject && role === 'candidate' && m.term === term) this.#refusedTerm = term
  }

  /** True: campaign now. */
  look(s: Standing): boolean {
    if (s.lead !== NONE) this.#tries = 0
    const cause = this.#cause(s)
    if (cause !== this.#waitsIn) this.cancel()
    if (cause === '') return false
    this.#waitsIn = cause
    if (this.#due) {
      this.#tries++
      this.cancel()
      return true
    }
    this.#timer ??= this.hooks.clock.after(this.#waitMs(), () => {
      this.#due = true
      this.hooks.due()
    })
    return false
  }

  /** Empty where nothing is to be begun again. */
  #cause({ role, lead, term, amongVoters }: Standing): string {
    if (!amongVoters || lead !== NONE) return ''
    if (role === 'preCandidate') return `pre-vote ${term}`
    return term === this.#refusedTerm ? `vote ${term}` : ''
  }

  #waitMs(): number {
    const { tickMs, maxMs, rng } = this.hooks
    return Math.min(tickMs * 2 ** this.#tries, maxMs) * (1 + rng.random())
  }

  cancel(): void {
    this.#timer?.cancel()
    this.#timer = null
    this.#due = false
    this.#waitsIn = ''
  }
}
