import { NodeRole } from '#proto'
import { type Clock, newObjectId, type Rng, ShoalError } from '../common/index.js'
import type { Logger } from '../common/log.js'
import type { RaftNode } from '../raft/index.js'
import { newNode, RootRotator } from './ca/index.js'
import type { ClusterInit, NodeIdentity } from './contract.js'
import { ingressNetwork, newCluster } from './control/index.js'
import { PresenceDesk } from './dispatcher/index.js'
import type { LeaderLink } from './leader-link.js'
import { startOrchestration } from './orchestrator/index.js'
import { RoleKeeper } from './role-keeper.js'
import type { ReplicatedStore, Transaction } from './store/index.js'

/** After a failed first write. */
const RETRY_MS = 500

export interface LeadershipModules {
  readonly store: ReplicatedStore
  readonly raft: RaftNode
  readonly link: LeaderLink
  readonly identity: () => NodeIdentity
  readonly clock: Clock
  readonly rng: Rng
  readonly logger: Logger
  /** What the very first leader writes; null on members of a cluster that exists. */
  readonly create: { readonly init: ClusterInit; readonly root: { readonly cert: string; readonly key: string } } | null
}

interface LeaderParts {
  readonly desk: PresenceDesk
  stop(): Promise<void>
}

/** What runs only on the leader, started and stopped in turn as Raft says. */
export class Leadership {
  #parts: LeaderParts | null = null
  #wanted = false
  #turn: Promise<void> = Promise.resolve()
  #stopRaft: () => void = () => {}

  constructor(private readonly modules: LeadershipModules) {}

  get desk(): PresenceDesk | null {
    return this.#wanted ? (this.#parts?.desk ?? null) : null
  }

  start(): void {
    this.#stopRaft = this.modules.raft.onLeadership(({ leading }) => this.#lead(leading))
  }

  async stop(): Promise<void> {
    this.#stopRaft()
    this.#lead(false)
    await this.#turn
  }

  #lead(leading: boolean): void {
    if (leading === this.#wanted) return
    this.#wanted = leading
    const { link, store, logger } = this.modules
    // At once: no call may begin here any more.
    if (!leading) link.setLeading(false)
    store.setLeading(leading)
    logger.info(leading ? 'this manager leads' : 'this manager leads no more')
    this.#turn = this.#turn
      .then(() => (this.#wanted ? this.#begin() : this.#end()))
      .catch((e: unknown) => {
        // A leader without its parts would block the cluster: another one shall try.
        logger.error('the leader could not start its parts', { error: ShoalError.from(e).message })
        return this.modules.raft.transferLeadership().catch((failed: unknown) => {
          logger.error('no other manager takes over', { error: ShoalError.from(failed).message })
        })
      })
  }

  async #begin(): Promise<void> {
    if (this.#parts) return
    const { store, raft, link, identity, clock, rng, logger } = this.modules
    await this.#writeFirst()
    if (!this.#wanted) return
    const desk = new PresenceDesk(store, identity().nodeId, clock, logger.child({ room: 'dispatcher' }))
    const watch = store.onCommit((commit) => {
      for (const e of commit.events) if (e.kind === 'node') desk.noteNode(e.object, e.action === 'remove')
    })
    const orchestration = startOrchestration({ store, clock, rng, logger })
    const roles = new RoleKeeper(store, raft, clock, logger.child({ room: 'roles' }))
    const rotator = new RootRotator(store, clock, logger.child({ room: 'ca' }))
    this.#parts = {
      desk,
      async stop() {
        watch()
        desk.stop()
        await Promise.all([orchestration.stop(), roles.stop(), rotator.stop()])
      },
    }
    link.setLeading(true)
  }

  async #end(): Promise<void> {
    const parts = this.#parts
    this.#parts = null
    await parts?.stop()
  }

  /** Cluster, first node, routing mesh: one transaction, once. Tried until it is done or leadership goes. */
  async #writeFirst(): Promise<void> {
    const { store, create, clock, logger } = this.modules
    while (create && this.#wanted && !store.view().cluster()) {
      try {
        await store.update((tx) => this.#first(tx, create))
      } catch (e) {
        logger.warn('the cluster could not be written, tried again', { error: ShoalError.from(e).message })
        await clock.sleep(RETRY_MS)
      }
    }
  }

  #first(tx: Transaction, { init, root }: NonNullable<LeadershipModules['create']>): void {
    const self = this.modules.identity()
    if (tx.cluster()) return
    tx.create('cluster', newCluster(self.clusterId, init, root))
    tx.create('node', newNode(self.nodeId, NodeRole.MANAGER, init.availability, self.cert, 1))
    tx.create('network', ingressNetwork(newObjectId()))
  }
}
