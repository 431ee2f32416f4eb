import { RaftEntryData, RaftProposal, type StoreAction } from '#proto'
import type { Clock, Timer } from '../common/index.js'
import type { AppliedProposal, ProposalOutcome } from './contract.js'
import type { RaftId } from './core/index.js'
import {
  ENTRY_BYTES_WANTED,
  PROPOSAL_BYTES_MAX,
  PROPOSAL_DEADLINE_MS,
  WAITING_BYTES_MAX,
  WAITING_PROPOSALS_MAX,
} from './options.js'

/** Sequence numbers of one start of the log; starts are numbered in the log, so that no number comes twice. */
const SEQUENCES_PER_BOOT = 2 ** 32

interface Pending {
  readonly sequence: number
  readonly bytes: Uint8Array
  readonly resolve: (outcome: ProposalOutcome) => void
  readonly expires: number
  /** False once it has an outcome; then the entry may still be applied, as a stranger's. */
  open: boolean
}

/**
 * The proposals of this member while it leads (raft.md §7): first they wait, several to one entry, then they are in
 * flight until their entry is applied. Each promise ends exactly once.
 */
export class Proposals {
  #waiting: Pending[] = []
  #waitingBytes = 0
  readonly #inFlight = new Map<number, Pending>()
  #next: number
  #sweep: Timer

  constructor(
    private readonly raftId: RaftId,
    boots: number,
    private readonly clock: Clock,
  ) {
    this.#next = boots * SEQUENCES_PER_BOOT
    this.#sweep = clock.every(100, () => this.#expire())
  }

  get waiting(): boolean {
    return this.#waiting.length > 0
  }
  get waitingBytes(): number {
    return this.#waitingBytes
  }
  get open(): number {
    return this.#waiting.length + this.#inFlight.size
  }

  add(actions: readonly StoreAction[], deadlineMs = PROPOSAL_DEADLINE_MS): Promise<ProposalOutcome> {
    const sequence = this.#next++
    const bytes = RaftProposal.encode({ proposer: this.raftId, sequence, actions: [...actions] })
    if (bytes.length > PROPOSAL_BYTES_MAX) return Promise.resolve({ result: 'refused', reason: 'tooLarge' })
    if (this.#waiting.length >= WAITING_PROPOSALS_MAX || this.#waitingBytes + bytes.length > WAITING_BYTES_MAX)
      return Promise.resolve({ result: 'refused', reason: 'overloaded' })
    return new Promise((resolve) => {
      this.#waiting.push({ sequence, bytes, resolve, expires: this.clock.monotonic() + deadlineMs, open: true })
      this.#waitingBytes += bytes.length
    })
  }

  /** Puts all that wait into entries; `propose` tells whether the core took them (all or none). */
  flush(propose: (entries: readonly Uint8Array[]) => 'taken' | 'notLeader' | 'overloaded'): void {
    const taken = this.#waiting.filter((p) => p.open)
    this.#waiting = []
    this.#waitingBytes = 0
    if (taken.length === 0) return
    const entries: Uint8Array[] = []
    for (let from = 0; from < taken.length; ) {
      let to = from
      for (
        let bytes = 0;
        to < taken.length && (to === from || bytes + taken[to]!.bytes.length <= ENTRY_BYTES_WANTED);
        to++
      )
        bytes += taken[to]!.bytes.length
      entries.push(joinProposals(taken.slice(from, to)))
      from = to
    }
    const answer = propose(entries)
    for (const p of taken)
      if (answer === 'taken') this.#inFlight.set(p.sequence, p)
      else end(p, { result: 'refused', reason: answer })
  }

  /** Splits a committed entry; `ours` are those whose promise still waits. Call `applied` after applying. */
  read(data: Uint8Array): { proposals: AppliedProposal[]; applied: (index: number) => void } {
    const mine: Pending[] = []
    const proposals = RaftEntryData.decode(data).proposals.map((p): AppliedProposal => {
      const pending = p.proposer === this.raftId ? this.#inFlight.get(p.sequence) : undefined
      if (pending) {
        this.#inFlight.delete(p.sequence)
        mine.push(pending)
      }
      return { ours: pending?.open ?? false, actions: p.actions }
    })
    return {
      proposals,
      applied: (index) => {
        for (const p of mine) end(p, { result: 'applied', index })
      },
    }
  }

  /** Leadership is gone: what waits never happened, what was proposed may still be committed by the next leader. */
  lose(reason: 'leadershipLost' | 'stopped'): void {
    const waiting = this.#waiting
    const inFlight = [...this.#inFlight.values()]
    this.#waiting = []
    this.#waitingBytes = 0
    this.#inFlight.clear()
    for (const p of inFlight) end(p, { result: 'unknown', reason })
    for (const p of waiting) end(p, { result: 'refused', reason: reason === 'stopped' ? 'stopped' : 'notLeader' })
  }

  stop(): void {
    this.#sweep.cancel()
    this.lose('stopped')
  }

  #expire(): void {
    const now = this.clock.monotonic()
    const late = (p: Pending): boolean => p.open && p.expires <= now
    for (const p of this.#waiting) if (late(p)) end(p, { result: 'unknown', reason: 'deadline' })
    // Kept in the map, closed: memory is bounded by the core's limit on uncommitted bytes, and losing clears it.
    for (const p of this.#inFlight.values()) if (late(p)) end(p, { result: 'unknown', reason: 'deadline' })
  }
}

function end(p: Pending, outcome: ProposalOutcome): void {
  if (!p.open) return
  p.open = false
  p.resolve(outcome)
}

/** RaftEntryData from proposals that are encoded already: field 1, repeated. */
function joinProposals(proposals: readonly Pending[]): Uint8Array {
  let size = 0
  for (const p of proposals) size += 1 + varintBytes(p.bytes.length) + p.bytes.length
  const entry = new Uint8Array(size)
  let at = 0
  for (const { bytes } of proposals) {
    entry[at++] = 0x0a
    let n = bytes.length
    for (; n >= 128; n >>>= 7) entry[at++] = (n & 127) | 128
    entry[at++] = n
    entry.set(bytes, at)
    at += bytes.length
  }
  return entry
}

function varintBytes(n: number): number {
  let size = 1
  for (let rest = n >>> 7; rest > 0; rest >>>= 7) size++
  return size
}
