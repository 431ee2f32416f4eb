import type { Entry, Message, RaftId } from '../../src/raft/core/index.js'
import type { Member } from '../../src/raft/node.js'
import { mix } from './machine.js'

export class Violation extends Error {
  override readonly name = 'Violation'
}

export function hold(condition: boolean, invariant: string, detail: () => string): asserts condition {
  if (!condition) throw new Violation(`${invariant}: ${detail()}`)
}

/** What the checker remembers of one raft id, over restarts. */
interface Remembered {
  term: number
  commit: number
  applied: number
  life: number
  /** Highest durable end of the log, and what was there, when last looked at. */
  lastIndex: number
  lastTerm: number
  hardTerm: number
  hardVote: number
  /** While it leads: term and end of its log at the last look. */
  leadTerm: number
  leadLast: number
}

/** The invariants, looked at after each event of a member. */
export class Checker {
  readonly #leaders = new Map<number, RaftId>()
  readonly #entries = new Map<string, { readonly prevTerm: number; readonly hash: number }>()
  readonly #seen = new Map<RaftId, Map<number, number>>()
  readonly #chains = new Map<number, { readonly chain: number; readonly values: readonly string[] }>()
  readonly #indexOf = new Map<string, number>()
  readonly #members = new Map<RaftId, Remembered>()
  readonly #votes = new Map<string, RaftId>()
  readonly #removedEver = new Set<RaftId>()
  #chainIndexes: number[] = []
  committed = 0
  looks = 0

  /** 5: the first to apply an index says what is there. */
  applied(id: RaftId, index: number, chain: number, values: readonly string[]): void {
    const known = this.#chains.get(index)
    if (known) {
      hold(
        known.chain === chain,
        'state machine safety',
        () => `${id} applied ${values} at ${index}, others ${known.values}`,
      )
      return
    }
    this.#chains.set(index, { chain, values })
    this.#chainIndexes.push(index)
    for (const v of values) {
      hold(!this.#indexOf.has(v), 'applied once', () => `${v} at ${this.#indexOf.get(v)} and ${index}`)
      this.#indexOf.set(v, index)
    }
    this.committed = Math.max(this.committed, index)
  }

  indexOf(value: string): number | undefined {
    return this.#indexOf.get(value)
  }

  /** 11: a snapshot holds what replaying would have given. */
  restored(id: RaftId, index: number, chain: number): void {
    let best = -1
    for (const i of this.#chainIndexes) if (i <= index && i > best) best = i
    const expected = best < 0 ? 0 : this.#chains.get(best)!.chain
    hold(chain === expected, 'install = replay', () => `${id} restored ${chain} at ${index}, replay gives ${expected}`)
  }

  /** 6: one vote a term for ever; what is accepted is durable first. */
  sent(m: Message, member: Member): void {
    if (m.type === 'MsgVoteResp' && !m.reject) {
      const key = `${m.from} ${m.term}`
      const before = this.#votes.get(key)
      hold(
        before === undefined || before === m.to,
        'one vote a term',
        () => `${m.from} voted in ${m.term} for ${before} and ${m.to}`,
      )
      this.#votes.set(key, m.to)
      const hard = member.inspect()?.log.hardState
      hold(
        hard !== undefined && hard.term >= m.term,
        'vote durable before it is sent',
        () => `${m.from} term ${m.term}, on disk ${hard?.term}`,
      )
    }
    if (m.type === 'MsgAppResp' && !m.reject) {
      const log = member.inspect()?.log
      hold(
        log !== undefined && log.lastIndex() >= m.index,
        'entries durable before they are acknowledged',
        () => `${m.from} acknowledges ${m.index}, on disk ${log?.lastIndex()}`,
      )
    }
  }

  /** The disk was synced; what a new process finds may not be older than what the last one had. */
  restarted(id: RaftId, member: Member): void {
    const known = this.#members.get(id)
    const log = member.inspect()?.log
    if (known === undefined || log === undefined) return
    const { term, vote } = log.hardState
    hold(term >= known.hardTerm, 'term survives', () => `${id}: ${term} after ${known.hardTerm}`)
    hold(
      term > known.hardTerm || known.hardVote === 0 || vote === known.hardVote,
      'vote survives',
      () => `${id}: ${vote} after ${known.hardVote} in ${term}`,
    )
    const at = log.term(known.lastIndex)
    hold(
      log.lastIndex() >= known.lastIndex || Number(log.term(log.lastIndex())) > known.lastTerm,
      'entries survive',
      () => `${id}: ${log.lastIndex()} after ${known.lastIndex}`,
    )
    hold(
      typeof at !== 'number' || at >= known.lastTerm,
      'entries survive',
      () => `${id}: term ${at} at ${known.lastIndex}, was ${known.lastTerm}`,
    )
  }

  look(member: Member, life: number): void {
    const inside = member.inspect()
    if (inside === null) return
    this.looks++
    const { core, log } = inside
    const { id } = core
    const status = core.status()
    const { term, commit } = status.hardState
    const { applied } = status
    let r = this.#members.get(id)
    if (r === undefined) {
      r = {
        term: 0,
        commit: 0,
        applied: 0,
        life,
        lastIndex: 0,
        lastTerm: 0,
        hardTerm: 0,
        hardVote: 0,
        leadTerm: 0,
        leadLast: 0,
      }
      this.#members.set(id, r)
    }
    // 6 within one life; over restarts `restarted` looks.
    if (r.life === life) {
      hold(
        term >= r.term && commit >= r.commit && applied >= r.applied,
        'nothing goes back',
        () => `${id}: term ${r.term}→${term}, commit ${r.commit}→${commit}, applied ${r.applied}→${applied}`,
      )
    }
    // 7
    hold(applied <= commit, 'applied ≤ commit', () => `${id}: ${applied} > ${commit}`)
    hold(log.hardState.commit <= log.lastIndex(), 'commit on disk ≤ end of the log', () => `${id}`)
    this.#matching(id, log)
    // 1
    if (status.softState.role === 'leader') {
      const other = this.#leaders.get(term)
      hold(other === undefined || other === id, 'election safety', () => `${other} and ${id} lead in term ${term}`)
      if (other === undefined) this.#leaders.set(term, id)
      // 4: once it has applied an entry of its own, everything committed before is in its log.
      if (member.status().leading)
        hold(
          log.lastIndex() >= this.#committedBefore(term),
          'leader completeness',
          () => `${id} leads ${term} with ${log.lastIndex()}`,
        )
      // 2
      if (r.leadTerm === term && r.life === life)
        hold(log.lastIndex() >= r.leadLast, 'leader append-only', () => `${id}: ${r.leadLast} → ${log.lastIndex()}`)
      r.leadTerm = term
      r.leadLast = log.lastIndex()
      for (const [peer, p] of status.progress)
        hold(
          p.match < p.next && p.match <= status.hardState.commit + 100_000,
          'match < next',
          () => `${id} of ${peer}: ${p.match} ${p.next}`,
        )
    } else r.leadTerm = 0
    // 8
    for (const gone of member.membership().removed) this.#removedEver.add(gone)
    for (const v of [...status.config.voters, ...status.config.learners])
      hold(
        !member.membership().removed.includes(v),
        'a removed id never returns',
        () => `${v} in the configuration of ${id}`,
      )
    r.term = term
    r.commit = commit
    r.applied = applied
    r.life = life
    r.lastIndex = log.lastIndex()
    r.lastTerm = Number(log.term(log.lastIndex()))
    r.hardTerm = log.hardState.term
    r.hardVote = log.hardState.vote
  }

  readonly #committedIn = new Map<number, number>()
  /** Highest index known to be committed when the term was first seen led. */
  #committedBefore(term: number): number {
    let c = this.#committedIn.get(term)
    if (c === undefined) {
      c = this.committed
      this.#committedIn.set(term, c)
    }
    return c
  }

  /** 3: the same (index, term) names the same entry with the same one before it; so, by induction, the same prefix. */
  #matching(id: RaftId, log: NonNullable<ReturnType<Member['inspect']>>['log']): void {
    let seen = this.#seen.get(id)
    if (seen === undefined) {
      seen = new Map()
      this.#seen.set(id, seen)
    }
    for (let i = log.lastIndex(); i >= log.firstIndex(); i--) {
      const term = Number(log.term(i))
      if (seen.get(i) === term) break
      seen.set(i, term)
      const entries = log.entries(i, i + 1, 0)
      const e = (entries as readonly Entry[])[0]!
      const hash = mix(0, `${e.type} ${Buffer.from(e.data).toString('latin1')}`)
      const prevTerm = Number(log.term(i - 1))
      const key = `${i} ${term}`
      const known = this.#entries.get(key)
      if (known === undefined) this.#entries.set(key, { prevTerm, hash })
      else
        hold(
          known.hash === hash && known.prevTerm === prevTerm,
          'log matching',
          () => `${id} has another entry ${i} of term ${term}`,
        )
    }
  }

  /** A new member on a wiped disk is someone else. */
  forget(id: RaftId): void {
    this.#members.delete(id)
    this.#seen.delete(id)
  }
}

/** Registers as clients see them (9). Log order is the order of effect, so real time has to agree with indexes. */
export class Histories {
  readonly #floor = new Map<string, number>()
  readonly acknowledged = new Map<string, number>()

  /** Nothing that begins now may take effect before this. */
  floor(key: string): number {
    return this.#floor.get(key) ?? 0
  }

  written(key: string, value: string, index: number, floorAtStart: number): void {
    hold(
      index > floorAtStart,
      'linearizable writes',
      () => `${value} took effect at ${index}, after ${floorAtStart} was seen`,
    )
    this.acknowledged.set(value, index)
    this.#raise(key, index)
  }

  read(key: string, index: number, floorAtStart: number): void {
    hold(
      index >= floorAtStart,
      'linearizable reads',
      () => `read of ${key} gave version ${index}, ${floorAtStart} was acknowledged before it began`,
    )
    this.#raise(key, index)
  }

  #raise(key: string, index: number): void {
    if (index > this.floor(key)) this.#floor.set(key, index)
  }
}
