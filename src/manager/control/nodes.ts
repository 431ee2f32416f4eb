import { NodeRole, NodeState, RemovedNode, TaskState, TaskStatus, type UpdateRequest } from '#proto'
import type { Clock } from '../../common/index.js'
import type { RaftNode } from '../../raft/index.js'
import { timestamp } from '../ca/index.js'
import type { Store, Transaction } from '../store/index.js'
import { badSpec, objectNotFound, refused } from './errors.js'

/** A removed node's certificate is refused until a week after it has expired. */
const FORGET_AFTER_EXPIRY_MS = 7 * 24 * 3_600_000
const NANOS_PER_MS = 1e6

type RaftView = Pick<RaftNode, 'canRemove' | 'status'>

export class NodeControl {
  constructor(
    private readonly store: Store,
    private readonly clock: Clock,
    private readonly raft: RaftView,
  ) {}

  async update(request: UpdateRequest): Promise<void> {
    const spec = request.spec?.node
    if (!spec) throw badSpec('the update has no node spec')
    if (![0, 1, 2].includes(spec.availability)) throw badSpec(`invalid node availability ${spec.availability}`)
    if (![0, 1].includes(spec.desiredRole)) throw badSpec(`invalid node role ${spec.desiredRole}`)
    await this.store.update((tx) => {
      const node = tx.get('node', request.id)
      if (!node) throw objectNotFound('node', request.id)
      if (node.spec?.desiredRole === NodeRole.MANAGER && spec.desiredRole === NodeRole.WORKER) {
        const managers = tx.list('node').filter((n) => n.spec?.desiredRole === NodeRole.MANAGER)
        if (managers.length === 1 && managers[0]?.id === node.id)
          throw refused('lastManager', 'attempting to demote the last manager of the swarm')
        const member = this.raft.status().members.find((m) => m.nodeId === node.id)
        if (member && !this.raft.canRemove(member.raftId))
          throw refused('quorumLoss', "can't remove member from the raft: this would result in a loss of quorum", {
            node: node.id,
          })
      }
      tx.update('node', {
        ...node,
        spec,
        meta: { createdAt: null, updatedAt: null, version: request.version },
      })
    })
  }

  /** Its certificate is refused from then on, everywhere. */
  async remove(id: string, force: boolean): Promise<void> {
    await this.store.update((tx) => {
      const node = tx.get('node', id)
      if (!node) throw objectNotFound('node', id)
      const member = this.raft.status().members.some((m) => m.nodeId === id)
      if (node.spec?.desiredRole === NodeRole.MANAGER || member)
        throw refused(
          'isManager',
          `node ${id} is a cluster manager and is a member of the raft cluster. It must be demoted to worker before removal`,
          { node: id },
        )
      if (!force && node.status?.state === NodeState.NODE_READY)
        throw refused('notDown', `node ${id} is not down and can't be removed`, { node: id })
      const cluster = tx.cluster()
      if (cluster) {
        const now = this.clock.now()
        const lifeMs = (cluster.spec?.ca?.nodeCertExpiry ?? 0) / NANOS_PER_MS
        const kept = cluster.removedNodes.filter((r) => (r.forgetAfter?.seconds ?? 0) * 1000 > now)
        const forgetAfter = timestamp(now + lifeMs + FORGET_AFTER_EXPIRY_MS)
        tx.update('cluster', {
          ...cluster,
          removedNodes: [...kept, RemovedNode.create({ nodeId: id, forgetAfter })],
        })
      }
      this.#orphanTasks(tx, id)
      tx.remove('node', id)
    })
  }

  /** Nobody will ever report on them again: their addresses and volumes are given free. */
  #orphanTasks(tx: Transaction, nodeId: string): void {
    const now = timestamp(this.clock.now())
    for (const task of tx.tasksOfNode(nodeId)) {
      if ((task.status?.state ?? 0) > TaskState.TASK_RUNNING) continue
      const status = TaskStatus.create({
        ...task.status,
        state: TaskState.TASK_ORPHANED,
        timestamp: now,
        message: 'Task belonged to a node that has been deleted',
      })
      tx.update('task', { ...task, status })
    }
  }
}
