import type { Task } from '#proto'
import { TaskState } from '#proto'
import { isWanted, stateOf } from '../objects/index.js'
import { type ServiceDraft, standing } from './draft.js'
import { usedUp } from './restart.js'

interface Slot {
  readonly key: string
  readonly tasks: readonly Task[]
}

/**
 * Makes the number of slots right: fresh slots take the lowest free numbers; surplus ones go from the fullest nodes
 * first, those that do not run before those that do. Returns the slots that stay, in order of their number.
 */
export function planReplicas(draft: ServiceDraft): readonly string[] {
  const replicas = draft.service.spec?.mode?.replicated?.replicas ?? 0
  const isUsedUp = usedUp(draft)
  const standingSlots: Slot[] = []
  const dead: string[] = []
  for (const [key, slot] of draft.slots) {
    const tasks = standing(slot, isUsedUp)
    if (tasks.length > 0) standingSlots.push({ key, tasks })
    else if (slot.some((t) => t.desiredState !== TaskState.TASK_REMOVE)) dead.push(key)
  }
  let kept = standingSlots.map((s) => s.key)
  if (kept.length > replicas) {
    const ordered = mostWorthKeeping(standingSlots)
    kept = ordered.slice(0, replicas).map((s) => s.key)
    for (const { key } of ordered.slice(replicas)) removeSlot(draft, key)
  }
  const taken = new Set(kept)
  const fresh: string[] = []
  for (let number = 1; taken.size < replicas; number++) {
    const key = String(number)
    if (taken.has(key)) continue
    taken.add(key)
    fresh.push(key)
    draft.create({ key, desiredState: TaskState.TASK_RUNNING })
  }
  for (const key of dead) if (!taken.has(key)) removeSlot(draft, key)
  return kept.concat(fresh).sort((a, b) => Number(a) - Number(b))
}

function removeSlot(draft: ServiceDraft, key: string): void {
  for (const task of [...draft.slot(key)]) draft.setDesired(task, TaskState.TASK_REMOVE)
}

/** Running before not running, then by how many of the kept ones share the node: the tail sits on the fullest nodes. */
function mostWorthKeeping(slots: readonly Slot[]): readonly Slot[] {
  const rank = slots.map((slot) => {
    const running = slot.tasks.find((t) => isWanted(t) && stateOf(t) === TaskState.TASK_RUNNING)
    const task = running ?? slot.tasks.at(-1)!
    return { slot, isRunning: running !== undefined, nodeId: task.nodeId, onNode: 0 }
  })
  rank.sort((a, b) => Number(b.isRunning) - Number(a.isRunning) || Number(a.slot.key) - Number(b.slot.key))
  const counts = new Map<string, number>()
  for (const r of rank) {
    r.onNode = counts.get(r.nodeId) ?? 0
    counts.set(r.nodeId, r.onNode + 1)
  }
  rank.sort(
    (a, b) =>
      Number(b.isRunning) - Number(a.isRunning) || a.onNode - b.onNode || Number(a.slot.key) - Number(b.slot.key),
  )
  return rank.map((r) => r.slot)
}
