import { randomBytes } from 'node:crypto'
import { Meta, StoreAction, StoreChain, Timestamp, Version } from '#proto'
import { type Clock, conflict, Emitter, invalid, type ShoalError, unavailable } from '../../common/index.js'
import type { AppliedProposal, ProposalOutcome, StateMachine } from '../../raft/index.js'
import type { Commit, Kind, Proposer, ReadView, Store, StoreEvent, Tables, Transaction } from './contract.js'
import { STORE_DEFAULTS, type StoreOptions } from './options.js'
import { decodeState, encodeState } from './snapshot.js'
import { State } from './state.js'
import { type Change, freeze, fromAction, toAction } from './tables.js'
import { StagedTransaction } from './transaction.js'
import type { Edit } from './tree.js'

/** Provisional versions start here: no raft index gets that far, and all stay exact as doubles. */
const PROVISIONAL = 2 ** 52

/** A proposal under way. */
interface Pending {
  readonly sequence: number
  readonly changes: readonly Change[]
  readonly settle: (error: ShoalError | null) => void
}

/** Store and raft's state machine in one: what is proposed here comes back through apply, as others' entries do. */
export interface ReplicatedStore extends Store, StateMachine {
  /** Where writes go; before that, and while not leading, writes are refused. */
  connect(proposer: Proposer): void
  /** Call with true only when everything in the log up to the election is applied. */
  setLeading(leading: boolean): void
}

export const createStore = (modules: { readonly clock: Clock }, options: Partial<StoreOptions> = {}): ReplicatedStore =>
  new RaftStore(modules.clock, { ...STORE_DEFAULTS, ...options })

/**
 * Two states: `applied`, what the log says; and `head`, that plus the transactions proposed but not yet applied, on which
 * the next transaction runs. Objects in head that are not yet applied carry a provisional version, so that a writer who
 * read the applied one is told "update out of sequence" instead of undoing what is in flight.
 */
class RaftStore implements ReplicatedStore {
  #applied = State.empty()
  #head = this.#applied
  readonly #inFlight = new Map<number, Pending>()
  readonly #commits = new Emitter<Commit>()
  /** How many proposals in flight write an object, by kind and id. */
  readonly #written = new Map<string, number>()
  #sequence = 1 + randomBytes(6).readUIntBE(0, 6)
  #transactions = 0
  /** The last proposal in flight, or else applied: the next one builds on it. */
  #headChain = 0
  #leading = false
  #proposer: Proposer | null = null

  constructor(
    private readonly clock: Clock,
    private readonly options: StoreOptions,
  ) {}

  get version(): number {
    return this.#applied.version
  }

  view(): ReadView {
    return this.#applied
  }

  onCommit(listener: (commit: Commit) => void): () => void {
    return this.#commits.on(listener)
  }

  viewAndWatch(listener: (commit: Commit) => void): { readonly view: ReadView; readonly stop: () => void } {
    return { view: this.#applied, stop: this.#commits.on(listener) }
  }

  connect(proposer: Proposer): void {
    this.#proposer = proposer
  }

  setLeading(leading: boolean): void {
    this.#leading = leading
    if (leading && this.#inFlight.size === 0) this.#rewind()
  }

  async update<T>(fn: (tx: Transaction) => T): Promise<T> {
    this.#mayWrite()
    const tx = this.#begin()
    let value: T
    try {
      value = fn(tx)
    } catch (e) {
      // Refused because of what may still be in flight: whoever reads again to find out why must find it.
      await this.#tail().catch(() => {})
      throw e
    }
    if (tx.changes.length === 0) await this.#tail()
    else await this.#propose(tx)
    return value
  }

  async batch(fns: readonly ((tx: Transaction) => void)[]): Promise<readonly (Error | null)[]> {
    const results: (Error | null)[] = fns.map(() => null)
    const packs: Promise<void>[] = []
    let from = 0
    while (from < fns.length) {
      try {
        this.#mayWrite()
      } catch (e) {
        results.fill(e as Error, from)
        break
      }
      const pack = this.#pack(fns, from, results)
      if (pack.done !== null) packs.push(pack.done)
      from = pack.next
      if (packs.length >= this.options.maxPacksInFlight) await packs.shift()
    }
    await Promise.all(packs)
    return results
  }

  /** Runs transactions from `from` on until an entry is full, and proposes it. */
  #pack(
    fns: readonly ((tx: Transaction) => void)[],
    from: number,
    results: (Error | null)[],
  ): { readonly next: number; readonly done: Promise<void> | null } {
    const { maxBatchChanges, maxProposalBytes } = this.options
    const pack: StagedTransaction[] = []
    const members: number[] = []
    const before = this.#head
    let changes = 0
    let bytes = 0
    let next = from
    let staged = before
    while (next < fns.length && changes < maxBatchChanges) {
      const tx = this.#begin(staged)
      try {
        fns[next]!(tx)
      } catch (e) {
        results[next++] = e as Error
        continue
      }
      const size = tx.changes.reduce((sum, c) => sum + StoreAction.encode(toAction(c)).length, 0)
      const full = changes + tx.changes.length > maxBatchChanges || bytes + size > maxProposalBytes
      if (full && pack.length > 0) break
      if (size > maxProposalBytes) {
        results[next++] = tooLarge(size, maxProposalBytes)
        continue
      }
      staged = tx.staged()
      pack.push(tx)
      members.push(next++)
      changes += tx.changes.length
      bytes += size
    }
    const all = pack.flatMap((tx) => tx.changes)
    if (all.length === 0) return { next, done: null }
    const done = this.#send(all, staged).catch((e: Error) => {
      for (const i of members) results[i] = e
    })
    return { next, done }
  }

  // ---------------------------------------------------------------- proposing

  #mayWrite(): void {
    if (!this.#leading || !this.#proposer)
      throw unavailable('notLeader', 'this manager does not lead the cluster: write through the leader')
    if (this.#inFlight.size >= this.options.maxInFlight)
      throw unavailable('overloaded', `${this.#inFlight.size} writes wait for the other managers; try again later`)
  }

  #begin(on: State = this.#head): StagedTransaction {
    const ms = this.clock.now()
    const seconds = Math.floor(ms / 1000)
    const now = freeze(Timestamp.create({ seconds, nanos: Math.floor((ms - seconds * 1000) * 1e6) }))
    return new StagedTransaction(on, PROVISIONAL + ++this.#transactions, now)
  }

  #propose(tx: StagedTransaction): Promise<void> {
    const size = tx.changes.reduce((sum, c) => sum + StoreAction.encode(toAction(c)).length, 0)
    if (size > this.options.maxProposalBytes) throw tooLarge(size, this.options.maxProposalBytes)
    return this.#send(tx.changes, tx.staged())
  }

  /** Resolves when applied here. The caller has just staged the changes on the present head. */
  #send(changes: readonly Change[], staged: State): Promise<void> {
    const sequence = ++this.#sequence
    const chain = StoreAction.create({ chain: StoreChain.create({ sequence, after: this.#headChain }) })
    const done = new Promise<void>((resolve, reject) => {
      this.#inFlight.set(sequence, { sequence, changes, settle: (e) => (e ? reject(e) : resolve()) })
    })
    for (const c of changes) this.#count(c, 1)
    this.#head = staged
    this.#headChain = sequence
    this.#proposer!.propose([chain, ...changes.map(toAction)]).then(
      (outcome) => {
        if (outcome.result !== 'applied') this.#fail(sequence, outcome)
      },
      (e: unknown) => this.#fail(sequence, { result: 'unknown', reason: 'stopped' }, e),
    )
    return done
  }

  /** A transaction without writes may have read what is in flight: it stands or falls with that. */
  async #tail(): Promise<void> {
    const last = this.#inFlight.get(this.#headChain)
    if (!last) return
    await new Promise<void>((resolve, reject) => {
      this.#inFlight.set(last.sequence, {
        ...last,
        settle: (e) => {
          last.settle(e)
          if (e) reject(e)
          else resolve()
        },
      })
    })
  }

  /** What was built on a failed proposal fails with it: members ignore it by its chain. */
  #fail(sequence: number, outcome: Exclude<ProposalOutcome, { result: 'applied' }>, cause?: unknown): void {
    if (!this.#inFlight.has(sequence)) return
    const failed = [...this.#inFlight.values()].filter((p) => p.sequence >= sequence)
    for (const p of failed) this.#forget(p)
    this.#rewind()
    for (const p of failed) p.settle(outcomeError(outcome, cause))
  }

  #forget(pending: Pending): void {
    this.#inFlight.delete(pending.sequence)
    for (const c of pending.changes) this.#count(c, -1)
  }

  #count(change: Change, by: number): void {
    const id = objectKey(change)
    const n = (this.#written.get(id) ?? 0) + by
    if (n === 0) this.#written.delete(id)
    else this.#written.set(id, n)
  }

  /** Head becomes what is applied plus what is still in flight. */
  #rewind(): void {
    this.#head = this.#applied
    this.#headChain = this.#applied.chain
    for (const p of this.#inFlight.values()) {
      this.#head = put(this.#head, p.changes, {})
      this.#headChain = p.sequence
    }
  }

  // ---------------------------------------------------------------- state machine

  apply(index: number, proposals: readonly AppliedProposal[]): void {
    const edit = {}
    const events: StoreEvent[] = []
    const settled: (() => void)[] = []
    let state = this.#applied
    let chain = state.chain
    let broken = false
    for (const { ours, actions } of proposals) {
      const link = actions[0]?.chain ?? null
      const pending = ours && link ? this.#inFlight.get(link.sequence) : undefined
      if (pending) this.#forget(pending)
      if (link && link.after !== chain) {
        if (pending) {
          settled.push(() => pending.settle(builtOnFailed()))
          broken = true
        }
        continue
      }
      if (link) chain = link.sequence
      for (const action of actions) {
        const change = fromAction(action)
        if (change) state = applyChange(state, change, index, edit, events)
      }
      if (pending) settled.push(() => pending.settle(null))
    }
    state = state.at(index, chain)
    // What is in flight behind a refused proposal will be refused too: say so now, and let new writes start afresh.
    if (broken) {
      for (const p of [...this.#inFlight.values()]) {
        this.#forget(p)
        settled.push(() => p.settle(builtOnFailed()))
      }
    }
    this.#rebase(state, events)
    this.#applied = state
    if (events.length > 0) this.#commits.emit({ version: index, events, reset: false })
    for (const s of settled) s()
  }

  /** Head follows: objects that nothing in flight has written again are now the applied ones. */
  #rebase(state: State, events: readonly StoreEvent[]): void {
    if (this.#inFlight.size === 0) {
      this.#head = state
      this.#headChain = state.chain
      return
    }
    const edit = {}
    let head = this.#head
    for (const event of events) {
      const { kind, object } = event
      if (this.#written.has(objectKey(event))) continue
      const now = state.get(kind, object.id)
      head = now ? head.put(kind, now, edit) : head.drop(kind, object.id, edit)
    }
    this.#head = head
  }

  snapshot(): Iterable<Uint8Array> {
    return encodeState(this.#applied)
  }

  async restore(index: number, pieces: AsyncIterable<Uint8Array>): Promise<void> {
    this.#applied = await decodeState(index, pieces)
    const dropped = [...this.#inFlight.values()]
    for (const p of dropped) this.#forget(p)
    this.#rewind()
    this.#commits.emit({ version: index, events: [], reset: true })
    for (const p of dropped) p.settle(outcomeError({ result: 'unknown', reason: 'leadershipLost' }))
  }
}

const objectKey = (c: { readonly kind: Kind; readonly object: { readonly id: string } }): string =>
  `${c.kind} ${c.object.id}`

function put(state: State, changes: readonly Change[], edit: Edit): State {
  let next = state
  for (const c of changes)
    next = c.action === 'remove' ? next.drop(c.kind, c.object.id, edit) : next.put(c.kind, c.object, edit)
  return next
}

/**
 * Deterministic, and lenient: a create of what exists replaces it, an update or removal of what is gone does nothing, so
 * that one odd entry cannot stop every manager for good. The proposer has checked before.
 */
function applyChange(state: State, change: Change, index: number, edit: Edit, events: StoreEvent[]): State {
  const { kind, object } = change
  const old = state.get(kind, object.id)
  if (change.action === 'remove') {
    if (!old) return state
    events.push({ action: 'remove', kind, object: old, old } as StoreEvent)
    return state.drop(kind, object.id, edit)
  }
  if (change.action === 'update' && !old) return state
  const meta = Meta.create({ ...object.meta, version: Version.create({ index }) })
  const stored = freeze({ ...object, meta }) as Tables[Kind]
  events.push({ action: old ? 'update' : 'create', kind, object: stored, old } as StoreEvent)
  return state.put(kind, stored, edit)
}

const builtOnFailed = (): ShoalError =>
  unavailable('refused', 'the write was built on one that failed; nothing was changed, try again')

const tooLarge = (size: number, limit: number): ShoalError =>
  invalid('transactionTooLarge', `the change takes ${size} bytes, more than the ${limit} that one raft entry may have`)

function outcomeError(outcome: Exclude<ProposalOutcome, { result: 'applied' }>, cause?: unknown): ShoalError {
  const fields = { reason: outcome.reason }
  if (outcome.result === 'unknown')
    return unavailable(
      'outcomeUnknown',
      `leadership was lost or time ran out while the write was under way (${outcome.reason}): it may or may not have happened`,
      fields,
      { cause },
    )
  switch (outcome.reason) {
    case 'notLeader':
      return unavailable('notLeader', 'this manager does not lead the cluster: write through the leader', fields)
    case 'tooLarge':
      return conflict('transactionTooLarge', 'the change is too large for one raft entry', fields)
    default:
      return outcome.reason === 'diskFull'
        ? unavailable(
            'diskFull',
            "no space left on device: the leading manager's disk is full; free space in its data root",
            fields,
          )
        : unavailable(outcome.reason, `the managers cannot take a write now (${outcome.reason})`, fields)
  }
}
