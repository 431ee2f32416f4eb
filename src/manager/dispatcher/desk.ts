import {
  Node,
  type NodeDescription,
  type NodeReport,
  NodeState,
  NodeStatus,
  type ReportBatch,
  TaskState,
  TaskStatus,
  type TaskStatusUpdate,
} from '#proto'
import { type Clock, isKind, ShoalError, type Timer, unavailable } from '../../common/index.js'
import type { Logger } from '../../common/log.js'
import { timestamp } from '../ca/index.js'
import type { Store, Transaction } from '../store/index.js'
import { nodeDownMs, ORPHAN_MS, ORPHAN_SWEEP_MS, SWEEP_MS } from './options.js'
import type { LeaderDesk } from './reporter.js'

interface Presence {
  sessionId: string
  /** Node id of the manager that holds its session. */
  manager: string
  lastHeard: number
  down: boolean
}

const NOT_HEARD = 'heartbeat failure'
const NEW_LEADER = 'Node moved to "unknown" state due to leadership change in cluster'

/**
 * The leader's book of who is there. A node that was Ready under another leader is Unknown until it reports, and has one
 * grace period for it; one that is silent for nodeDownMs is Down. Statuses of tasks are written here, and nowhere else.
 */
export class PresenceDesk implements LeaderDesk {
  readonly #present = new Map<string, Presence>()
  readonly #timers: Timer[]
  #lastSweep: number
  #stopped = false

  constructor(
    private readonly store: Store,
    private readonly selfId: string,
    private readonly clock: Clock,
    private readonly logger: Logger,
  ) {
    this.#lastSweep = clock.monotonic()
    this.#adopt()
    this.#timers = [clock.every(SWEEP_MS, () => this.#sweep()), clock.every(ORPHAN_SWEEP_MS, () => this.#orphan())]
  }

  stop(): void {
    this.#stopped = true
    for (const t of this.#timers) t.cancel()
  }

  /** The manager that holds the node's session, as far as is known. */
  managerOf(nodeId: string): string | null {
    const p = this.#present.get(nodeId)
    return p && !p.down ? p.manager : null
  }

  async accept(fromManager: string, batch: ReportBatch): Promise<void> {
    if (this.#stopped) throw unavailable('notLeader', 'this manager does not lead any more')
    const writes: ((tx: Transaction) => void)[] = []
    for (const report of batch.reports) this.#take(fromManager, report, writes)
    if (writes.length === 0) return
    for (const e of await this.store.batch(writes)) {
      // Sent again; anything else would fail again.
      if (isKind(e, 'unavailable')) throw e
      if (e) this.logger.warn('a report could not be written', { error: e.message })
    }
  }

  #take(manager: string, report: NodeReport, writes: ((tx: Transaction) => void)[]): void {
    const { nodeId, sessionId, description } = report
    const now = this.clock.monotonic()
    let p = this.#present.get(nodeId)
    if (report.gone) {
      // Its grace period runs from when it was last heard.
      return
    }
    if (description) {
      p = { sessionId, manager, lastHeard: now, down: false }
      this.#present.set(nodeId, p)
      writes.push((tx) => registered(tx, nodeId, description, report.address))
    } else if (p?.sessionId === sessionId) {
      p.lastHeard = now
      if (p.down) {
        // Its manager was cut off for a while, not the node.
        p.down = false
        writes.push((tx) => setState(tx, nodeId, NodeState.NODE_READY, ''))
      }
    }
    for (const update of report.statuses) writes.push((tx) => this.#status(tx, nodeId, update))
  }

  #status(tx: Transaction, nodeId: string, { taskId, status }: TaskStatusUpdate): void {
    const task = tx.get('task', taskId)
    // Deleted meanwhile, or given to another node: nothing to tell.
    if (!task || task.nodeId !== nodeId || !status) return
    const stored = task.status ?? TaskStatus.create()
    // Observed state never goes back; Orphaned is the last.
    if (status.state < stored.state || status.state < TaskState.TASK_ASSIGNED) return
    const next = { ...status, appliedBy: this.selfId, appliedAt: timestamp(this.clock.now()) }
    const same = (s: TaskStatus): Uint8Array => TaskStatus.encode({ ...s, appliedBy: '', appliedAt: null })
    if (Buffer.compare(same(stored), same(next)) === 0) return
    tx.update('task', { ...task, status: next })
  }

  /** Nodes as the last leader left them. */
  #adopt(): void {
    const now = this.clock.monotonic()
    const writes: ((tx: Transaction) => void)[] = []
    for (const node of this.store.view().list('node')) {
      const state = node.status?.state ?? NodeState.NODE_UNKNOWN
      if (state === NodeState.NODE_DOWN) continue
      this.#present.set(node.id, { sessionId: '', manager: '', lastHeard: now, down: false })
      if (state === NodeState.NODE_READY)
        writes.push((tx) => setState(tx, node.id, NodeState.NODE_UNKNOWN, NEW_LEADER, NodeState.NODE_READY))
    }
    this.#write(writes)
  }

  #sweep(): void {
    const now = this.clock.monotonic()
    // This process slept (SIGSTOP, a stalled host): what the nodes sent meanwhile is still on its way in.
    const slept = now - this.#lastSweep - SWEEP_MS
    this.#lastSweep = now
    if (slept > SWEEP_MS) for (const p of this.#present.values()) p.lastHeard += slept
    const writes: ((tx: Transaction) => void)[] = []
    const view = this.store.view()
    const downMs = nodeDownMs(view.cluster())
    for (const [id, p] of this.#present) {
      if (p.down || now - p.lastHeard < downMs) continue
      p.down = true
      if (!view.get('node', id)) {
        this.#present.delete(id)
        continue
      }
      this.logger.info('node is down', { nodeId: id })
      writes.push((tx) => {
        // Heard again while this write was on its way.
        if (this.#present.get(id)?.down) setState(tx, id, NodeState.NODE_DOWN, NOT_HEARD)
      })
    }
    this.#write(writes)
  }

  /** A node that joined and never came is followed too; one that is removed is forgotten. */
  noteNode(node: Node, removed: boolean): void {
    if (removed) this.#present.delete(node.id)
    else if (!this.#present.has(node.id) && node.status?.state !== NodeState.NODE_DOWN)
      this.#present.set(node.id, { sessionId: '', manager: '', lastHeard: this.clock.monotonic(), down: false })
  }

  /** Tasks of nodes that are down for a day: their addresses and names are given free. */
  #orphan(): void {
    const now = this.clock.now()
    const view = this.store.view()
    const writes: ((tx: Transaction) => void)[] = []
    for (const node of view.list('node')) {
      if (node.status?.state !== NodeState.NODE_DOWN) continue
      const since = (node.meta?.updatedAt?.seconds ?? 0) * 1000
      if (now - since < ORPHAN_MS) continue
      for (const { id } of view.tasksOfNode(node.id))
        writes.push((tx) => {
          const task = tx.get('task', id)
          const state = task?.status?.state ?? 0
          if (!task || state < TaskState.TASK_ASSIGNED || state > TaskState.TASK_RUNNING) return
          const status = TaskStatus.create({
            ...task.status,
            state: TaskState.TASK_ORPHANED,
            timestamp: timestamp(now),
            message: 'orphaned: its node is down for 24 hours',
          })
          tx.update('task', { ...task, status })
        })
    }
    this.#write(writes)
  }

  #write(writes: readonly ((tx: Transaction) => void)[]): void {
    if (writes.length === 0) return
    const lost = (e: unknown): void =>
      this.logger.debug('node states not written: leadership moves', { error: ShoalError.from(e).message })
    this.store.batch(writes).then((results) => {
      for (const e of results) if (e) lost(e)
    }, lost)
  }
}

function setState(tx: Transaction, nodeId: string, state: NodeState, message: string, only?: NodeState): void {
  const node = tx.get('node', nodeId)
  if (!node || node.status?.state === state) return
  if (only !== undefined && node.status?.state !== only) return
  tx.update('node', { ...node, status: NodeStatus.create({ ...node.status, state, message }) })
}

function registered(tx: Transaction, nodeId: string, description: NodeDescription, address: string): void {
  const node = tx.get('node', nodeId)
  if (!node) return
  const status = NodeStatus.create({ state: NodeState.NODE_READY, address })
  const next: Node = { ...node, description, status }
  const same = (n: Node): Uint8Array => Node.encode({ ...n, meta: null })
  if (Buffer.compare(same(node), same(next)) !== 0) tx.update('node', next)
}
