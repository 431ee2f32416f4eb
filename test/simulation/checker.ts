import { decodeConfChange, type Entry, type Message, type RaftId } from '../../src/raft/core/index.js'
import type { Raft } from '../../src/raft/core/raft.js'
import type { RawNode } from '../../src/raft/core/raw-node.js'
import type { DurableLog } from '../../src/raft/log/index.js'
import type { Member } from '../../src/raft/node.js'
import { INFLIGHT_MESSAGES } from '../../src/raft/options.js'
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
  /** While it leads: its term, and the terms of its log's entries at the last look, from `leadFirst` on. */
  leadTerm: number
  leadFirst: number
  leadLog: number[]
  /** Its configuration when last looked at. */
  config: unknown
}

/** An entry that some member holds to be committed. */
interface Committed {
  readonly term: number
  /** Of the member that was seen to hold so first: no smaller than that of the leader that committed it. */
  readonly seenIn: number
}

/** Voters and learners as the committed entries make them. */
interface Configuration {
  readonly index: number
  readonly voters: ReadonlySet<RaftId>
  readonly learners: ReadonlySet<RaftId>
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
  readonly #committed: Committed[] = []
  readonly #changes = new Map<number, Entry>()
  readonly #configurations: Configuration[] = [{ index: 0, voters: new Set(), learners: new Set() }]
  readonly #gone = new Set<RaftId>()
  /** All entries up to here are in `#configurations`. */
  #followed = 0
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
        hard !== undefined && (hard.term > m.term || (hard.term === m.term && hard.vote === m.to)),
        'vote durable before it is sent',
        () => `${m.from} votes for ${m.to} in ${m.term}, on disk ${hard?.vote} in ${hard?.term}`,
      )
    }
    if (m.type === 'MsgVote') {
      const hard = member.inspect()?.log.hardState
      hold(
        hard !== undefined && (hard.term > m.term || (hard.term === m.term && hard.vote === m.from)),
        'own vote durable before others are asked',
        () => `${m.from} asks for votes in ${m.term}, on disk ${hard?.vote} in ${hard?.term}`,
      )
    }
    if (m.type === 'MsgAppResp' && !m.reject) {
      const log = member.inspect()?.log
      // The same write may have replaced the entries, by a newer leader's order.
      hold(
        log !== undefined && (log.lastIndex() >= m.index || log.hardState.term > m.term),
        'entries durable before they are acknowledged',
        () => `${m.from} acknowledges ${m.index}, on disk ${log?.lastIndex()}`,
      )
      // Its process may end before the next look; the others count on this.
      this.#onDisk(this.#of(m.from), log)
    }
  }

  #of(id: RaftId): Remembered {
    let r = this.#members.get(id)
    if (r === undefined) {
      r = {
        ...{ term: 0, commit: 0, applied: 0, life: -1, lastIndex: 0, lastTerm: 0, hardTerm: 0, hardVote: 0 },
        ...{ leadTerm: 0, leadFirst: 0, leadLog: [], config: null },
      }
      this.#members.set(id, r)
    }
    return r
  }

  #onDisk(r: Remembered, log: DurableLog): void {
    r.lastIndex = log.lastIndex()
    r.lastTerm = Number(log.term(r.lastIndex))
    r.hardTerm = log.hardState.term
    r.hardVote = log.hardState.vote
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
    // A leader of a later term may replace what was not committed, also by an entry of an older term than the replaced one.
    const isReplaced = Number(log.term(log.lastIndex())) > known.lastTerm
    hold(
      log.lastIndex() >= known.lastIndex || isReplaced,
      'entries survive',
      () => `${id}: ${log.lastIndex()} after ${known.lastIndex}`,
    )
    hold(
      typeof at !== 'number' || at >= known.lastTerm || isReplaced,
      'entries survive',
      () => `${id}: term ${at} at ${known.lastIndex}, was ${known.lastTerm}`,
    )
  }

  look(member: Member, life: number): void {
    const inside = member.inspect()
    if (inside === null) return
    this.looks++
    const { log } = inside
    const { raft } = inside.core as RawNode
    const { id, term } = raft
    const commit = raft.log.committed
    const { applied } = raft.log
    const lastIndex = log.lastIndex()
    const { hardState } = log
    const r = this.#of(id)
    const sameLife = r.life === life
    // 6 within one life; over restarts `restarted` looks.
    if (sameLife)
      hold(
        term >= r.term && commit >= r.commit && applied >= r.applied,
        'nothing goes back',
        () => `${id}: term ${r.term}→${term}, commit ${r.commit}→${commit}, applied ${r.applied}→${applied}`,
      )
    // 7
    hold(applied <= commit, 'applied ≤ commit', () => `${id}: ${applied} > ${commit}`)
    hold(applied <= lastIndex, 'applied ≤ durable end', () => `${id}: ${applied} > ${lastIndex}`)
    hold(commit <= raft.log.lastIndex(), 'commit ≤ end of the log', () => `${id}: ${commit}`)
    hold(
      hardState.commit <= lastIndex,
      'commit on disk ≤ end of the log',
      () => `${id}: ${hardState.commit} > ${lastIndex}`,
    )
    this.#matching(id, log)
    if (!sameLife || commit > r.commit) this.#committedBy(raft, sameLife ? r.commit : 0)
    this.#onDisk(r, log)
    if (raft.role === 'leader') this.#leading(raft, r, sameLife)
    else r.leadTerm = 0
    // 8
    if (r.config !== raft.tracker.config || !sameLife) {
      r.config = raft.tracker.config
      this.#configured(raft)
    }
    r.term = term
    r.commit = commit
    r.applied = applied
    r.life = life
  }

  /** 1, 2, 4, 7 of a leader. */
  #leading(raft: Raft, r: Remembered, sameLife: boolean): void {
    const { id, term, log } = raft
    const last = log.lastIndex()
    if (r.leadTerm !== term || !sameLife) {
      const other = this.#leaders.get(term)
      hold(other === undefined || other === id, 'election safety', () => `${other} and ${id} lead in term ${term}`)
      this.#leaders.set(term, id)
      this.#complete(raft)
      r.leadTerm = term
      r.leadFirst = log.firstIndex()
      r.leadLog = []
      for (let i = r.leadFirst; i <= last; i++) r.leadLog.push(Number(log.term(i)))
    } else {
      const before = r.leadFirst + r.leadLog.length - 1
      hold(last >= before, 'leader append-only', () => `${id} in ${term}: ${before} → ${last}`)
      if (last > before) {
        // With log matching (3) equal terms mean equal entries.
        const first = log.firstIndex()
        for (let i = Math.max(first, r.leadFirst); i <= before; i++)
          hold(
            Number(log.term(i)) === r.leadLog[i - r.leadFirst],
            'leader append-only',
            () => `${id} in ${term} changed entry ${i}`,
          )
        for (let i = before + 1; i <= last; i++) r.leadLog.push(Number(log.term(i)))
        if (first > r.leadFirst) {
          r.leadLog.splice(0, first - r.leadFirst)
          r.leadFirst = first
        }
        this.#unapplied(raft)
      }
    }
    hold(
      raft.tracker.isVoter(id),
      'only a voter leads',
      () => `${id} leads ${term} and is not in ${raft.tracker.config.voters}`,
    )
    for (const peer of raft.tracker.ids) {
      const p = raft.tracker.progress.get(peer)!
      hold(p.match < p.next, 'match < next', () => `${id} of ${peer}: ${p.match} ${p.next}`)
      hold(p.inflights.count <= INFLIGHT_MESSAGES, 'inflights', () => `${id} of ${peer}: ${p.inflights.count}`)
      const known = this.#members.get(peer)
      // Who has heard of a newer leader may have replaced what this one still counts on.
      if (known !== undefined && known.hardTerm <= term)
        hold(
          p.match <= known.lastIndex,
          'match ≤ durable end',
          () => `${id} leads ${term} and believes ${peer} has ${p.match}, on its disk is ${known.lastIndex}`,
        )
    }
  }

  /** 4: what was committed in an earlier term is in the log of each later leader, entry by entry. */
  #complete(raft: Raft): void {
    const { log, term, id } = raft
    const first = log.firstIndex()
    for (let i = this.#committed.length - 1; i >= first; i--) {
      const c = this.#committed[i]
      if (c === undefined || c.seenIn >= term) continue
      hold(
        i <= log.lastIndex() && Number(log.term(i)) === c.term,
        'leader completeness',
        () =>
          `${id} leads ${term} without the committed entry ${i} of term ${c.term}; its log ends at ${log.lastIndex()}`,
      )
    }
  }

  /** What one member holds to be committed must be the same entry for all (3 makes terms enough). */
  #committedBy(raft: Raft, known: number): void {
    const { log } = raft
    for (let i = Math.max(known + 1, log.firstIndex()); i <= log.committed; i++) {
      const term = Number(log.term(i))
      const c = this.#committed[i]
      if (c === undefined) {
        this.#committed[i] = { term, seenIn: raft.term }
        const entries = log.slice(i, i + 1, 0) as readonly Entry[]
        this.#follow(i, entries[0]!)
      } else
        hold(
          c.term === term,
          'one committed entry an index',
          () => `${raft.id} commits ${i} of ${term}, others of ${c.term}`,
        )
    }
  }

  /** 8: the chain of configurations, from the committed entries in their order. */
  #follow(index: number, entry: Entry): void {
    if (entry.type !== 'normal') this.#changes.set(index, entry)
    while (this.#committed[this.#followed + 1] !== undefined) {
      const at = ++this.#followed
      const e = this.#changes.get(at)
      if (e === undefined || e.type === 'normal') continue
      const before = this.#configurations[this.#configurations.length - 1]!
      const voters = new Set(before.voters)
      const learners = new Set(before.learners)
      for (const c of decodeConfChange(e.data, e.type).changes) {
        if (c.type === 'addNode' || c.type === 'addLearnerNode') {
          hold(!this.#gone.has(c.nodeId), 'a removed id never returns', () => `${c.nodeId} at ${at}`)
          ;(c.type === 'addNode' ? voters : learners).add(c.nodeId)
          ;(c.type === 'addNode' ? learners : voters).delete(c.nodeId)
        } else if (c.type === 'removeNode') {
          if (voters.delete(c.nodeId) || learners.delete(c.nodeId)) this.#gone.add(c.nodeId)
        }
      }
      hold(
        quorumsMeet(before.voters, voters),
        'quorums of neighbours intersect',
        () => `${[...before.voters]} and ${[...voters]} at ${at}`,
      )
      this.#configurations.push({ index: at, voters, learners })
    }
  }

  /** A member's configuration is what the entries up to its applied index make. */
  #configured(raft: Raft): void {
    // A snapshot brings its configuration when it is taken in, before it is on disk and applied.
    const applied = raft.log.unstable.snapshot?.index ?? raft.log.applied
    if (applied > this.#followed) return
    let i = this.#configurations.length - 1
    while (this.#configurations[i]!.index > applied) i--
    const { voters, learners } = this.#configurations[i]!
    const { config } = raft.tracker
    // A joiner that has applied nothing yet has none.
    if (applied === 0) return
    hold(
      config.voters.length === voters.size &&
        config.voters.every((v) => voters.has(v)) &&
        config.learners.length === learners.size &&
        config.learners.every((l) => learners.has(l)),
      'configuration = the applied changes',
      () => `${raft.id} at ${applied} has ${config.voters} + ${config.learners}, not ${[...voters]} + ${[...learners]}`,
    )
  }

  /** 8: Raft's single-step changes rest on there being one at a time. */
  #unapplied(raft: Raft): void {
    const { log } = raft
    if (log.applied >= log.lastIndex()) return
    const entries = log.slice(Math.max(log.applied + 1, log.firstIndex()), log.lastIndex() + 1, Number.MAX_SAFE_INTEGER)
    let changes = 0
    for (const e of entries as readonly Entry[]) if (e.type !== 'normal') changes++
    hold(changes <= 1, 'one unapplied change', () => `${raft.id} leads ${raft.term} with ${changes} unapplied changes`)
  }

  /** 3: the same (index, term) names the same entry with the same one before it; so, by induction, the same prefix. */
  #matching(id: RaftId, log: DurableLog): void {
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

/** Does every majority of the one share a member with every majority of the other? */
function quorumsMeet(a: ReadonlySet<RaftId>, b: ReadonlySet<RaftId>): boolean {
  if (a.size === 0 || b.size === 0) return true
  const need = (s: ReadonlySet<RaftId>): number => (s.size >> 1) + 1
  const common = [...a].filter((x) => b.has(x)).length
  // The worst pair takes as many as it can from outside the common part.
  const outsideA = a.size - common
  const outsideB = b.size - common
  return Math.max(0, need(a) - outsideA) + Math.max(0, need(b) - outsideB) > common
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
