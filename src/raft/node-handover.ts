import { type Clock, Emitter, type ShoalError, unavailable } from '../common/index.js'
import { NONE, type RaftCore, type RaftId } from './core/index.js'
import type { Standing } from './node-campaigns.js'
import type { Members } from './node-membership.js'
import { QUIET_HEARTBEATS, TRANSFER_ORDER_ELECTIONS } from './options.js'

export interface HandoverHooks {
  readonly own: RaftId
  readonly core: RaftCore
  readonly members: Members
  readonly clock: Clock
  /** An election timeout, milliseconds. */
  readonly electionMs: number
  /** Ticks between two heartbeats. */
  readonly heartbeatTick: number
  reachable(id: RaftId): boolean
  standing(): Standing
  /** The core has something new to hand out. */
  ordered(): void
}

/** What a member knows of the others' health, and how it hands leadership over to the fittest of them. */
export class Handover {
  /** Since when each is reachable without a break, monotonic milliseconds. */
  readonly #reachableSince = new Map<RaftId, number>()
  /** Ticks so far, and at which of them each other member was heard of last. */
  #tickCount = 0
  readonly #heardAtTick = new Map<RaftId, number>()
  /** The last term in which nobody took leadership when told to. */
  #refusedTerm = 0
  readonly #turned = new Emitter<ShoalError | null>()

  constructor(private readonly hooks: HandoverHooks) {}

  hear(from: RaftId): void {
    this.#heardAtTick.set(from, this.#tickCount)
  }

  tick(ticks: number, now: number): void {
    this.#tickCount += ticks
    for (const { raftId } of this.hooks.members.list)
      if (!this.hooks.reachable(raftId)) this.#reachableSince.delete(raftId)
      else if (!this.#reachableSince.has(raftId)) this.#reachableSince.set(raftId, now)
  }

  /** After each turn of the node's loop. */
  turned(): void {
    this.#turned.emit(null)
  }

  stop(reason: ShoalError): void {
    this.#turned.emit(reason)
  }

  /** Nobody took leadership in the present term: asking again costs two election timeouts for nothing. */
  get refused(): boolean {
    return this.hooks.standing().term === this.#refusedTerm
  }

  /**
   * Of a leader. Resolves when another member leads. Rejects with unavailable: `noSuccessor`, or `transferFailed` after two election
   * timeouts in which `to` (without it: any fit voter) did not take over.
   */
  async transfer(to?: RaftId): Promise<void> {
    const { own, core, members, clock, electionMs } = this.hooks
    const target = to ?? this.#successors()[0]
    if (target === undefined || !members.isVoter(target))
      throw unavailable(
        'noSuccessor',
        `leadership cannot be handed over: ${to === undefined ? 'no other voter is reachable' : `member ${to} is no voter`}`,
      )
    if (target === own) return
    const { term } = this.hooks.standing()
    const leads = (): boolean => this.hooks.standing().role === 'leader'
    const told: RaftId[] = []
    const order = (): void => {
      // The last one has its time as well: the core ends a hand-over after an election timeout.
      if (!leads() || told.length * TRANSFER_ORDER_ELECTIONS >= 1) return
      const fit = to === undefined ? this.#successors() : [to]
      const next = fit.find((id) => !told.includes(id)) ?? fit[0]
      if (next === undefined) return
      // The core sends no second order to the same member; one to this member itself ends the first.
      core.transferLeader(own)
      core.transferLeader(next)
      told.push(next)
      this.hooks.ordered()
    }
    await new Promise<void>((resolve, reject) => {
      const settle = (error: ShoalError | null): void => {
        deadline.cancel()
        again.cancel()
        off()
        if (error) {
          // Whoever did not take it does not hold up proposals any longer.
          if (leads()) core.transferLeader(own)
          reject(error)
        } else resolve()
      }
      const again = clock.every(electionMs * TRANSFER_ORDER_ELECTIONS, order)
      const deadline = clock.after(electionMs * 2, () => {
        this.#refusedTerm = term
        const whom = told.join(', ')
        settle(unavailable('transferFailed', `told to lead, ${whom} did not within two election timeouts; try again`))
      })
      const off = this.#turned.on((stopped) => {
        const { role, lead } = this.hooks.standing()
        if (stopped) settle(stopped)
        else if (role !== 'leader' && lead !== NONE && lead !== own) settle(null)
      })
      order()
    })
  }

  /**
   * Who may be told to lead, the fittest first: heard of lately (the transport takes seconds to notice a host without power),
   * not in need of a snapshot or of a look where its log ends, and then the one that was reachable the longest.
   */
  #successors(): RaftId[] {
    const { own, core, members, heartbeatTick } = this.hooks
    const { progress } = core.status()
    const quiet = (id: RaftId): boolean =>
      this.#tickCount - (this.#heardAtTick.get(id) ?? -1) > QUIET_HEARTBEATS * heartbeatTick
    return members.confState.voters
      .filter((id) => id !== own && this.#reachableSince.has(id) && this.hooks.reachable(id))
      .map((id) => ({ id, unfit: (quiet(id) ? 2 : 0) + (progress.get(id)?.state === 'replicate' ? 0 : 1) }))
      .sort((a, b) => a.unfit - b.unfit || this.#reachableSince.get(a.id)! - this.#reachableSince.get(b.id)!)
      .map(({ id }) => id)
  }
}
