import type { Node, Task } from '#proto'
import { NodeAvailability, TaskState } from '#proto'
import { byCreation, ENFORCER_MESSAGE, holdsNode, isWanted, timestamp } from '../objects/index.js'
import { fits, matchesConstraints, reservationsOf, subtractResources, totalsOf } from '../scheduler/index.js'
import type { ReadView } from '../store/contract.js'
import type { Unit } from './draft.js'

const REASON = 'assigned node no longer meets constraints'

/**
 * Tasks that no longer fit their node after its labels, role, resources or availability changed: the constraints of their
 * service's present spec fail, or the reservations of all together are more than the node has (newest go first).
 */
export function unfitTasks(node: Node, view: Pick<ReadView, 'get' | 'tasksOfNode'>): readonly Task[] {
  // A drained node is emptied by the orchestrators; a paused one keeps what it has.
  if (node.spec?.availability === NodeAvailability.DRAIN) return []
  const left = totalsOf(node)
  const unfit: Task[] = []
  for (const task of view
    .tasksOfNode(node.id)
    .filter((t) => holdsNode(t) && isWanted(t))
    .sort(byCreation)) {
    const service = task.serviceId === '' ? null : view.get('service', task.serviceId)
    const placement = service?.spec?.task?.placement ?? task.spec?.placement ?? null
    const wants = reservationsOf(task)
    // A node that never described itself has no totals to compare with.
    const isShort = node.description?.resources != null && !fits(wants, left)
    if (isShort || !matchesConstraints(placement?.constraints ?? [], node)) unfit.push(task)
    else subtractResources(left, wants)
  }
  return unfit
}

/** Rejects the task; its desired state is the orchestrator's, which replaces it by its policy. */
export const reject =
  (taskId: string, nowMs: number): Unit =>
  (tx) => {
    const task = tx.get('task', taskId)
    if (task === null || task.status === null || !holdsNode(task) || !isWanted(task)) return
    const now = timestamp(nowMs)
    tx.update('task', {
      ...task,
      status: {
        ...task.status,
        state: TaskState.TASK_REJECTED,
        message: ENFORCER_MESSAGE,
        err: REASON,
        timestamp: now,
        appliedAt: now,
      },
    })
  }

/** The node is gone for good, or for so long that its tasks' addresses are taken back. */
export const orphan =
  (taskId: string, nowMs: number): Unit =>
  (tx) => {
    const task = tx.get('task', taskId)
    if (task === null || task.status === null || !holdsNode(task)) return
    const now = timestamp(nowMs)
    tx.update('task', {
      ...task,
      status: {
        ...task.status,
        state: TaskState.TASK_ORPHANED,
        message: 'task orphaned',
        err: 'its node was removed or has been down for a day',
        timestamp: now,
        appliedAt: now,
      },
    })
  }
