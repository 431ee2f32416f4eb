import { StoreAction } from '#proto'
import type { AppliedProposal, ProposalOutcome, StateMachine } from '../../src/raft/index.js'

/**
 * The log of a cluster without a network: proposals are committed in order on a later turn, to all machines alike.
 * `hold` keeps them back; `refuse` ends the next one without a trace; `lose` ends the next as unknown, committed or not.
 */
export class MemoryLog {
  index = 0
  readonly #queue: {
    actions: readonly StoreAction[]
    resolve: (o: ProposalOutcome) => void
    from: StateMachine
    silent: boolean
  }[] = []
  #held = false
  #scheduled = false
  #next: 'refuse' | 'loseKept' | 'loseDropped' | null = null
  readonly machines: StateMachine[] = []
  entries = 0

  proposer(machine: StateMachine): { propose(actions: readonly StoreAction[]): Promise<ProposalOutcome> } {
    this.machines.push(machine)
    return {
      propose: (actions) => {
        const fate = this.#next
        this.#next = null
        if (fate === 'refuse') return Promise.resolve({ result: 'refused', reason: 'overloaded' })
        if (fate === 'loseDropped') return Promise.resolve({ result: 'unknown', reason: 'deadline' })
        const done = new Promise<ProposalOutcome>((resolve) => {
          this.#queue.push({ actions, resolve, from: machine, silent: fate === 'loseKept' })
          this.#schedule()
        })
        return fate === 'loseKept' ? Promise.resolve({ result: 'unknown', reason: 'deadline' }) : done
      },
    }
  }

  fateOfNext(fate: 'refuse' | 'loseKept' | 'loseDropped' | null): void {
    this.#next = fate
  }

  hold(): void {
    this.#held = true
  }

  release(): void {
    this.#held = false
    this.#schedule()
  }

  #schedule(): void {
    if (this.#scheduled || this.#held) return
    this.#scheduled = true
    setImmediate(() => {
      this.#scheduled = false
      if (this.#held) return
      const all = this.#queue.splice(0)
      if (all.length === 0) return
      this.index++
      this.entries++
      // Others get what travelled over the wire.
      const wire = all.map((p) => p.actions.map((a) => StoreAction.decode(StoreAction.encode(a))))
      for (const m of this.machines)
        m.apply(
          this.index,
          all.map(
            (p, i): AppliedProposal => ({
              ours: m === p.from && !p.silent,
              actions: m === p.from ? p.actions : wire[i]!,
            }),
          ),
        )
      for (const p of all) p.resolve({ result: 'applied', index: this.index })
    })
  }
}
