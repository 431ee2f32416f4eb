import type { Task } from '#proto'
import { TaskState } from '#proto'
import { isTerminal, stateOf } from '../objects/index.js'
import { isDeletable, type ServiceDraft } from './draft.js'

/** What a cluster without a spec keeps; the same as the Engine API's default. */
export const DEFAULT_HISTORY = 5

/**
 * Deletes tasks that were told to leave the cluster and have stopped, and in each slot the oldest ended ones above the
 * history limit. A slot with a limit of restart attempts keeps one more than that: they are what attempts are counted from.
 */
export function planReaping(draft: ServiceDraft): void {
  const limit = draft.cluster?.spec ? draft.cluster.spec.taskHistoryRetentionLimit : DEFAULT_HISTORY
  for (const slot of [...draft.slots.values()]) {
    let length = slot.length
    const keep = historyForRestarts(slot.at(-1)) ?? limit
    for (const task of slot) {
      if (task.desiredState === TaskState.TASK_REMOVE) {
        if (!isDeletable(task)) continue
      } else if (limit < 0 || length <= keep || !isPast(task)) continue
      draft.remove(task)
      length--
    }
  }
}

const historyForRestarts = (newest: Task | undefined): number | null => {
  const attempts = newest?.spec?.restart?.maxAttempts ?? 0
  return attempts > 0 ? attempts + 1 : null
}

/** Ended and replaced, or called off before a node had it. */
const isPast = (task: Task): boolean =>
  task.desiredState >= TaskState.TASK_SHUTDOWN && (isTerminal(task) || stateOf(task) < TaskState.TASK_ASSIGNED)
