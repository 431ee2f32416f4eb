import type { Node, Task } from '#proto'
import { NodeAvailability, TaskState } from '#proto'
import { isTerminal, isWanted, millis, stateOf } from '../objects/index.js'
import type { ServiceDraft } from './draft.js'
import { isEligible } from './global.js'
import { planRestarts, usedUp } from './restart.js'

const iterationOf = (draft: ServiceDraft): number => draft.service.jobStatus?.jobIteration ?? 0
const isCurrent = (draft: ServiceDraft, task: Task): boolean => (task.jobIteration?.index ?? 0) === iterationOf(draft)

/** Tasks of earlier iterations leave: an update runs the job anew and their results no longer count. */
function planOldIterations(draft: ServiceDraft): void {
  for (const task of [...draft.tasks()]) if (!isCurrent(draft, task)) draft.setDesired(task, TaskState.TASK_REMOVE)
}

type Outcome = 'open' | 'active' | 'complete' | 'exhausted'

/** How far a slot's place in the present iteration has come. */
function outcomeOf(draft: ServiceDraft, slot: readonly Task[], isUsedUp: ReturnType<typeof usedUp>): Outcome {
  const current = slot.filter((t) => isCurrent(draft, t) && t.desiredState !== TaskState.TASK_REMOVE)
  if (current.some((t) => stateOf(t) === TaskState.TASK_COMPLETE)) return 'complete'
  if (current.some((t) => isWanted(t) && !isTerminal(t))) return 'active'
  const newest = current.at(-1)
  if (newest === undefined) return 'open'
  // Failed, and waiting for its own restart delay before it is replaced.
  if (isWanted(newest)) return 'active'
  return isUsedUp(newest, slot) ? 'exhausted' : 'open'
}

/**
 * Runs until `totalCompletions` slots have completed, never more than `maxConcurrent` at a time. A slot whose task failed
 * for good is not tried again; the others go on. Slots count from 0, as in Swarm: docker's progress looks for them there.
 */
export function planReplicatedJob(draft: ServiceDraft): void {
  const job = draft.service.spec?.mode?.replicatedJob
  const total = job?.totalCompletions ?? 0
  const concurrent = job?.maxConcurrent || total
  planOldIterations(draft)
  planRestarts(draft)
  const isUsedUp = usedUp(draft)
  const open: string[] = []
  let active = 0
  for (let number = 0; number < total; number++) {
    const key = String(number)
    const outcome = outcomeOf(draft, draft.slot(key), isUsedUp)
    if (outcome === 'active') active++
    else if (outcome === 'open') open.push(key)
  }
  for (const [key, slot] of [...draft.slots])
    if (Number(key) >= total) for (const task of [...slot]) draft.setDesired(task, TaskState.TASK_REMOVE)
  for (const key of open.slice(0, Math.max(0, concurrent - active)))
    draft.create({ key, desiredState: TaskState.TASK_COMPLETE })
}

/** Once on each node that is eligible and was in the cluster when the iteration began. */
export function planGlobalJob(draft: ServiceDraft, nodes: readonly Node[]): void {
  planOldIterations(draft)
  const eligible = new Map(nodes.filter((n) => isEligible(n, draft)).map((n) => [n.id, n]))
  for (const [nodeId, slot] of [...draft.slots])
    if (!eligible.has(nodeId))
      for (const task of slot) if (isWanted(task) && !isTerminal(task)) draft.setDesired(task, TaskState.TASK_SHUTDOWN)
  planRestarts(draft)
  const isUsedUp = usedUp(draft)
  const begunMs = millis(draft.service.jobStatus?.lastExecution ?? draft.service.meta?.createdAt ?? null)
  for (const node of eligible.values()) {
    if (node.spec?.availability !== NodeAvailability.ACTIVE) continue
    if (millis(node.meta?.createdAt ?? null) > begunMs) continue
    if (outcomeOf(draft, draft.slot(node.id), isUsedUp) === 'open')
      draft.create({ key: node.id, desiredState: TaskState.TASK_COMPLETE })
  }
}
