import { type RaftMember, StoreAction } from '#proto'
import type {
  AppliedProposal,
  LeadershipEvent,
  ProposalOutcome,
  RaftNode,
  RaftNodeStatus,
  StateMachine,
} from '../../src/raft/index.js'

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

/** A cluster of one member, in memory: leads from the start. */
export function memoryRaft(machine: StateMachine, self: { nodeId: string; address: string }): RaftNode {
  const log = new MemoryLog()
  const proposer = log.proposer(machine)
  const member: RaftMember = { raftId: 1, nodeId: self.nodeId, address: self.address }
  const status = (): RaftNodeStatus => ({
    raftId: 1,
    leader: 1,
    leading: true,
    term: 1,
    commit: log.index,
    applied: log.index,
    members: [{ ...member, reachable: true, learner: false }],
  })
  const leadership = new Set<(e: LeadershipEvent) => void>()
  let started = false
  return {
    raftId: 1,
    async start() {
      started = true
      for (const l of leadership) l({ leading: true, term: 1 })
    },
    async stop() {
      for (const l of leadership) l({ leading: false, term: 1 })
    },
    propose: (actions) => proposer.propose(actions),
    readBarrier: async () => {},
    onLeadership(l) {
      leadership.add(l)
      l({ leading: started, term: 1 })
      return () => leadership.delete(l)
    },
    onRemoved: () => () => {},
    onStatus(l) {
      l(status())
      return () => {}
    },
    status,
    leaderAddress: () => self.address,
    addMember: async () => {
      throw new Error('a memory cluster has one member')
    },
    removeMember: async () => {
      throw new Error('a memory cluster has one member')
    },
    canRemove: () => false,
    transferLeadership: async () => {},
    updateAddress: async () => {},
    rotateKek: async () => {},
  }
}
