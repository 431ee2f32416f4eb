import type { Cluster, Service } from '#proto'
import { TaskState } from '#proto'
import { isLostNode } from '../objects/index.js'
import type { ReadView } from '../store/contract.js'
import { planDuplicates, ServiceDraft } from './draft.js'
import { planGlobal } from './global.js'
import { planGlobalJob, planReplicatedJob } from './jobs.js'
import { planReaping } from './reaper.js'
import { planReplicas } from './replicated.js'
import { planPromotions, planRestarts } from './restart.js'
import { planUpdate, type UpdateMemory } from './updater.js'

/**
 * Decides everything about one service at one moment. Pure but for `memory`, which carries what the store cannot say from
 * one plan of a rolling update to the next. The draft's `wakeAtMs` says when to ask again if nothing changes before.
 */
export function planService(input: {
  readonly service: Service
  readonly cluster: Cluster | null
  readonly view: Pick<ReadView, 'get' | 'list' | 'tasksOfService'>
  readonly nowMs: number
  readonly newId: () => string
  readonly memory: UpdateMemory
}): ServiceDraft {
  const { service, view } = input
  const draft = new ServiceDraft(service, input.cluster, input.nowMs, view, input.newId)
  const mode = service.spec?.mode
  if (service.pendingDelete) {
    planRemoval(draft)
    return draft
  }
  if (mode?.replicated) {
    planRestarts(draft)
    planUpdate(draft, planReplicas(draft), input.memory)
  } else if (mode?.global) planUpdate(draft, planGlobal(draft, view.list('node')), input.memory)
  else if (mode?.replicatedJob) planReplicatedJob(draft)
  else if (mode?.globalJob) planGlobalJob(draft, view.list('node'))
  planDuplicates(draft)
  planPromotions(draft)
  planReaping(draft)
  return draft
}

/** Tasks leave first, so that their addresses are not lent again too early; those on lost nodes are not waited for. */
function planRemoval(draft: ServiceDraft): void {
  for (const task of [...draft.tasks()]) draft.setDesired(task, TaskState.TASK_REMOVE)
  planReaping(draft)
  for (const task of draft.tasks()) if (!isLostNode(draft.node(task.nodeId))) return
  draft.removeService()
}
