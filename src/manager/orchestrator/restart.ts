import type { Task, TaskSpec } from '#proto'
import { RestartCondition, TaskState } from '#proto'
import {
  createdMs,
  holdsNode,
  isInvalidNode,
  isJob,
  isLostNode,
  isTerminal,
  isWanted,
  millis,
  NANOS_PER_MS,
  stateOf,
  statusMs,
} from '../objects/index.js'
import type { ServiceDraft } from './draft.js'

/** What docker's clients show as default. */
export const DEFAULT_RESTART_DELAY_MS = 5_000
/** How long a replacement waits for its predecessor's end, in ms. A node that hangs must not hold a slot for ever. */
export const PREDECESSOR_TIMEOUT_MS = 60_000

export interface RestartRules {
  readonly condition: RestartCondition
  readonly delayMs: number
  /** 0: no limit. */
  readonly maxAttempts: number
  /** 0: attempts are counted for ever. */
  readonly windowMs: number
}

/** A job that succeeded is done: for jobs "any" means "on-failure". */
export function restartRules(spec: TaskSpec | null, job: boolean): RestartRules {
  const policy = spec?.restart ?? null
  const condition = policy?.condition ?? RestartCondition.RESTART_ANY
  return {
    condition: job && condition === RestartCondition.RESTART_ANY ? RestartCondition.RESTART_ON_FAILURE : condition,
    delayMs: policy?.delay == null ? DEFAULT_RESTART_DELAY_MS : policy.delay / NANOS_PER_MS,
    maxAttempts: policy?.maxAttempts ?? 0,
    windowMs: (policy?.window ?? 0) / NANOS_PER_MS,
  }
}

const endedByItself = (task: Task): boolean => {
  const state = stateOf(task)
  return state === TaskState.TASK_COMPLETE || state === TaskState.TASK_FAILED || state === TaskState.TASK_REJECTED
}

/**
 * May the slot have another task after this one? Attempts are the tasks before it, of the same spec version, that ended by
 * themselves: they are read off the slot's history, which the reaper keeps long enough, so a new leader counts the same.
 */
export function mayRestart(task: Task, slot: readonly Task[], rules: RestartRules): boolean {
  if (rules.condition === RestartCondition.RESTART_NONE) return false
  if (rules.condition === RestartCondition.RESTART_ON_FAILURE && stateOf(task) === TaskState.TASK_COMPLETE) return false
  if (rules.maxAttempts === 0) return true
  const position = slot.findIndex((t) => t.id === task.id)
  const endMs = statusMs(task)
  let attempts = 0
  for (let i = position - 1; i >= 0; i--) {
    const earlier = slot[i]!
    if (earlier.specVersion?.index !== task.specVersion?.index) break
    if (earlier.jobIteration?.index !== task.jobIteration?.index) break
    if (!endedByItself(earlier)) continue
    if (rules.windowMs > 0 && statusMs(earlier) <= endMs - rules.windowMs) break
    attempts++
  }
  return attempts < rules.maxAttempts
}

/** The slot's newest task ended and its policy forbids another: the slot is used up. */
export const usedUp = (draft: ServiceDraft) => {
  const job = isJob(draft.service)
  return (task: Task, slot: readonly Task[]): boolean => !mayRestart(task, slot, restartRules(task.spec, job))
}

/**
 * Replaces tasks that ended or lost their node. The replacement is made at once with desired state READY, so that its
 * image is there when the delay is over. No delay when the node was lost or drained: the task did nothing wrong.
 */
export function planRestarts(draft: ServiceDraft): void {
  const job = isJob(draft.service)
  const wantedState = job ? TaskState.TASK_COMPLETE : TaskState.TASK_RUNNING
  for (const [key, slot] of [...draft.slots]) {
    for (const [position, task] of [...slot].entries()) {
      if (!isWanted(task)) continue
      if (job && stateOf(task) === TaskState.TASK_COMPLETE) continue
      const node = draft.node(task.nodeId)
      const ended = isTerminal(task)
      if (!ended && !(holdsNode(task) && isInvalidNode(node))) continue
      // A task that fails before its own delay is over waits for that, or a bad image would be tried in a tight loop.
      const startAfterMs = millis(task.startAfter)
      if (ended && task.desiredState === TaskState.TASK_READY && startAfterMs > draft.nowMs) {
        draft.wakeAt(startAfterMs)
        continue
      }
      draft.setDesired(task, TaskState.TASK_SHUTDOWN)
      const newerStands = slot.slice(position + 1).some(isWanted)
      const rules = restartRules(task.spec, job)
      if (newerStands || !mayRestart(task, slot, rules)) continue
      const delayMs = ended && !isInvalidNode(node) ? rules.delayMs : 0
      const mustWait = !ended && !isLostNode(node)
      draft.create({
        key,
        desiredState: delayMs > 0 || mustWait ? TaskState.TASK_READY : wantedState,
        ...(delayMs > 0 ? { startAfterMs: draft.nowMs + delayMs } : {}),
      })
    }
  }
}

/** Lets tasks run whose delay is over and whose predecessors in the slot have stopped (or take too long to). */
export function planPromotions(draft: ServiceDraft): void {
  const wantedState = isJob(draft.service) ? TaskState.TASK_COMPLETE : TaskState.TASK_RUNNING
  for (const slot of [...draft.slots.values()]) {
    for (const task of slot) {
      if (task.desiredState !== TaskState.TASK_READY || isTerminal(task)) continue
      const startAfterMs = millis(task.startAfter)
      if (startAfterMs > draft.nowMs) {
        draft.wakeAt(startAfterMs)
        continue
      }
      const stopping = slot.some(
        (t) => t.id !== task.id && !isWanted(t) && holdsNode(t) && !isLostNode(draft.node(t.nodeId)),
      )
      const giveUpMs = createdMs(task) + PREDECESSOR_TIMEOUT_MS
      if (stopping && giveUpMs > draft.nowMs) draft.wakeAt(giveUpMs)
      else draft.setDesired(task, wantedState)
    }
  }
}
