import { ManagerStatus, type Node, NodeRole, Reachability } from '#proto'
import { type Clock, isKind, ShoalError, type Timer } from '../common/index.js'
import type { Logger } from '../common/log.js'
import type { RaftNode, RaftNodeStatus } from '../raft/index.js'
import type { Store } from './store/index.js'

/** A demotion that would lose the quorum now is tried again after this, and at each change of a node. */
const RETRY_MS = 1_000

/**
 * On the leader: makes roles what operators want, and shows Raft's members on the node objects.
 * Promotion: the role at once; the node then renews its certificate, starts its manager and joins. Demotion: out of Raft
 * first, then the role, then (by the agent) the certificate. A leader that is to go hands over first; the next one goes on.
 */
export class RoleKeeper {
  readonly #stops: (() => void)[]
  readonly #retry: Timer
  #running: Promise<void> | null = null
  #again = false
  #stopped = false

  constructor(
    private readonly store: Store,
    private readonly raft: RaftNode,
    clock: Clock,
    private readonly logger: Logger,
  ) {
    this.#stops = [
      store.onCommit((c) => {
        if (c.reset || c.events.some((e) => e.kind === 'node')) this.#wake()
      }),
      raft.onStatus(() => this.#wake()),
    ]
    this.#retry = clock.every(RETRY_MS, () => this.#wake())
    this.#wake()
  }

  async stop(): Promise<void> {
    this.#stopped = true
    for (const s of this.#stops) s()
    this.#retry.cancel()
    await this.#running
  }

  #wake(): void {
    if (this.#stopped) return
    this.#again = true
    this.#running ??= this.#run().finally(() => {
      this.#running = null
    })
  }

  async #run(): Promise<void> {
    while (this.#again && !this.#stopped) {
      this.#again = false
      try {
        await this.#roles()
        await this.#statuses()
      } catch (e) {
        // Leadership moves, or the quorum does not allow it now: the next event or the retry goes on.
        const error = ShoalError.from(e)
        if (isKind(e, 'unavailable') || isKind(e, 'conflict'))
          this.logger.debug('roles not settled yet', { error: error.message })
        else this.logger.warn('roles not settled', { error: error.message })
        return
      }
    }
  }

  async #roles(): Promise<void> {
    for (const node of this.store.view().list('node')) {
      if (this.#stopped) return
      const wanted = node.spec?.desiredRole ?? NodeRole.WORKER
      if (wanted === node.role) continue
      if (wanted === NodeRole.WORKER) {
        const member = this.raft.status().members.find((m) => m.nodeId === node.id)
        if (member) await this.raft.removeMember(member.raftId)
      }
      await this.store.update((tx) => {
        const now = tx.get('node', node.id)
        if (!now || now.spec?.desiredRole !== wanted) return
        const managerStatus = wanted === NodeRole.WORKER ? null : now.managerStatus
        tx.update('node', { ...now, role: wanted, managerStatus })
      })
      this.logger.info('node has a new role', { nodeId: node.id, manager: wanted === NodeRole.MANAGER })
    }
  }

  async #statuses(): Promise<void> {
    const status = this.raft.status()
    const wanted = (node: Node): ManagerStatus | null => statusOf(node.id, status)
    const stale = this.store
      .view()
      .list('node')
      .filter((n) => !same(n.managerStatus, wanted(n)))
    if (stale.length === 0 || this.#stopped) return
    await this.store.update((tx) => {
      for (const { id } of stale) {
        const node = tx.get('node', id)
        if (node) tx.update('node', { ...node, managerStatus: wanted(node) })
      }
    })
  }
}

function statusOf(nodeId: string, status: RaftNodeStatus): ManagerStatus | null {
  const member = status.members.find((m) => m.nodeId === nodeId && !m.learner)
  if (!member) return null
  return ManagerStatus.create({
    raftId: member.raftId,
    address: member.address,
    leader: member.raftId === status.leader,
    reachability: member.reachable ? Reachability.REACHABLE : Reachability.UNREACHABLE,
  })
}

const same = (a: ManagerStatus | null, b: ManagerStatus | null): boolean =>
  a === b ||
  (a !== null &&
    b !== null &&
    a.raftId === b.raftId &&
    a.address === b.address &&
    a.leader === b.leader &&
    a.reachability === b.reachability)
