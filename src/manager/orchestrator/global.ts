import type { Node } from '#proto'
import { NodeAvailability, TaskState } from '#proto'
import { isInvalidNode, isTerminal, isWanted, stateOf } from '../objects/index.js'
import { matchesConstraints } from '../scheduler/index.js'
import { type ServiceDraft, standing } from './draft.js'
import { planRestarts, usedUp } from './restart.js'

/** Nodes that a global service or job should be on. */
export const isEligible = (node: Node, draft: ServiceDraft): boolean =>
  !isInvalidNode(node) && matchesConstraints(draft.service.spec?.task?.placement?.constraints ?? [], node)

/**
 * One task on each eligible node. Where a node stopped being eligible its task is stopped; a paused node keeps its task but
 * gets no new one. Returns the nodes whose tasks take part in updates: a node that is down is skipped, not waited for.
 */
export function planGlobal(draft: ServiceDraft, nodes: readonly Node[]): readonly string[] {
  const eligible = new Map(nodes.filter((n) => isEligible(n, draft)).map((n) => [n.id, n]))
  for (const [nodeId, slot] of [...draft.slots])
    if (!eligible.has(nodeId))
      for (const task of slot) if (isWanted(task)) draft.setDesired(task, TaskState.TASK_SHUTDOWN)
  planRestarts(draft)
  const isUsedUp = usedUp(draft)
  for (const node of eligible.values()) {
    if (node.spec?.availability !== NodeAvailability.ACTIVE) continue
    const stands = standing(
      draft.slot(node.id),
      (task, slot) => isTerminal(task) && endedHere(task) && isUsedUp(task, slot),
    )
    if (stands.length === 0) draft.create({ key: node.id, desiredState: TaskState.TASK_RUNNING })
  }
  return [...eligible.keys()].filter((id) => draft.slot(id).length > 0)
}

/** Ended by itself, not because its node went away for a time. */
const endedHere = (task: Parameters<typeof stateOf>[0]): boolean => {
  const state = stateOf(task)
  return state !== TaskState.TASK_SHUTDOWN && state !== TaskState.TASK_ORPHANED
}
