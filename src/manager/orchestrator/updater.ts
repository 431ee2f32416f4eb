import type { Service, Task, UpdateConfig } from '#proto'
import { PublishMode, TaskState, UpdateFailureAction, UpdateOrder, UpdateState, UpdateStatus } from '#proto'
import {
  createdMs,
  holdsNode,
  isLostNode,
  isTerminal,
  isWanted,
  millis,
  NANOS_PER_MS,
  stateOf,
  statusMs,
  timestamp,
} from '../objects/index.js'
import type { ServiceDraft } from './draft.js'

/** As docker shows for a service without an update config. */
export const DEFAULT_MONITOR_MS = 5_000

export interface UpdateRules {
  /** Slots at a time; Infinity: all. */
  readonly parallelism: number
  readonly delayMs: number
  readonly monitorMs: number
  readonly onFailure: UpdateFailureAction
  readonly maxFailureRatio: number
  readonly order: UpdateOrder
}

export function updateRules(config: UpdateConfig | null): UpdateRules {
  return {
    parallelism: config === null ? 1 : config.parallelism || Number.POSITIVE_INFINITY,
    delayMs: (config?.delay ?? 0) / NANOS_PER_MS,
    monitorMs: config?.monitor == null ? DEFAULT_MONITOR_MS : config.monitor / NANOS_PER_MS,
    onFailure: config?.failureAction ?? UpdateFailureAction.FAILURE_PAUSE,
    maxFailureRatio: config?.maxFailureRatio ?? 0,
    order: config?.order ?? UpdateOrder.STOP_FIRST,
  }
}

/**
 * The rules of the update or rollback under way. Old and new cannot have one host port at a time: with fixed host ports
 * start-first would wait for ever where every node has its task, so the old one is stopped first then.
 */
function rulesFor(service: Service, isRollback: boolean): UpdateRules {
  const rules = updateRules((isRollback ? service.spec?.rollback : service.spec?.update) ?? null)
  const hasHostPort = service.spec?.endpoint?.ports.some(
    (p) => p.publishMode === PublishMode.HOST && p.publishedPort !== 0,
  )
  return hasHostPort ? { ...rules, order: UpdateOrder.STOP_FIRST } : rules
}

/**
 * What a leader knows of a running update beyond the store. A new leader starts with an empty one and finds again from the
 * tasks which slots were updated; only how long an already ended task had run is lost, and that end then counts as a failure.
 */
export interface UpdateMemory {
  /** Of which update this is: the status' start and the spec's version. */
  update: string
  /** Slots that this update has given a new task. */
  readonly updated: Set<string>
  /** Slot → the task that failed in it. */
  readonly failed: Map<string, string>
  /** Task → when it was first seen running, wall ms. */
  readonly runningSince: Map<string, number>
}

export const newUpdateMemory = (): UpdateMemory => ({
  update: '',
  updated: new Set(),
  failed: new Map(),
  runningSince: new Map(),
})

interface SlotView {
  readonly key: string
  readonly clean: readonly Task[]
  readonly stale: readonly Task[]
}

/**
 * One step of a rolling update. No thread sits on an update: which slots are done, busy or still to do is read from the
 * tasks each time, so another leader goes on where this one stopped.
 *
 *   (no status) ─ dirty slot ─> UPDATING ── all done, monitored ──> COMPLETED
 *                                  │ failures above the ratio
 *                                  ├─ pause ────> PAUSED            (until a new spec comes)
 *                                  └─ rollback ─> ROLLBACK_STARTED ─> ROLLBACK_COMPLETED | ROLLBACK_PAUSED
 */
export function planUpdate(draft: ServiceDraft, keys: readonly string[], memory: UpdateMemory): void {
  const { service } = draft
  const status = service.updateStatus
  if (status?.state === UpdateState.UPDATE_PAUSED || status?.state === UpdateState.ROLLBACK_PAUSED) return
  const slots = keys.map((key) => viewSlot(draft, key))
  const dirty = slots.filter((s) => s.clean.length === 0 && s.stale.length > 0)
  const mixed = slots.filter((s) => s.clean.length > 0 && s.stale.some(isWanted))
  const isActive = status?.state === UpdateState.UPDATE_UPDATING || status?.state === UpdateState.ROLLBACK_STARTED
  if (!isActive) {
    if (dirty.length + mixed.length === 0) return
    draft.setUpdateStatus(UpdateState.UPDATE_UPDATING, 'update in progress', { started: true })
  }
  const isRollback = status?.state === UpdateState.ROLLBACK_STARTED
  const rules = rulesFor(service, isRollback)
  const startedMs = isActive ? millis(status?.startedAt ?? null) : draft.nowMs
  remember(draft, slots, memory, startedMs)

  if (isActive) {
    const failure = noteFailures(draft, memory, rules, startedMs)
    const total = new Set([...memory.updated, ...dirty.map((s) => s.key)]).size
    if (failure !== null && rules.onFailure !== UpdateFailureAction.FAILURE_CONTINUE)
      if (memory.failed.size / Math.max(1, total) > rules.maxFailureRatio) {
        act(draft, rules, isRollback, failure)
        return
      }
  }

  for (const slot of mixed) finishSlot(draft, slot, rules)
  let busy = 0
  for (const slot of slots) if (isBusy(draft, slot, memory, rules, dirty.length > 0)) busy++
  const start = dirty.slice(0, Math.max(0, rules.parallelism - busy))
  for (const slot of start) {
    memory.updated.add(slot.key)
    replace(draft, slot, rules)
  }
  if (isActive && dirty.length + mixed.length + busy === 0) complete(draft, slots, memory, rules, isRollback)
}

function viewSlot(draft: ServiceDraft, key: string): SlotView {
  const slot = draft.slot(key)
  const wanted = slot.filter(isWanted)
  const stands = wanted.length > 0 ? wanted : slot.slice(-1)
  const clean: Task[] = []
  const stale: Task[] = []
  for (const task of stands) (draft.isDirty(task) ? stale : clean).push(task)
  return { key, clean, stale }
}

/** Brings the memory up to the store; slots with an older task beside a clean one made since the start were updated. */
function remember(draft: ServiceDraft, slots: readonly SlotView[], memory: UpdateMemory, startedMs: number): void {
  const update = `${startedMs}/${draft.service.specVersion?.index ?? ''}`
  if (memory.update !== update) {
    memory.update = update
    memory.updated.clear()
    memory.failed.clear()
    memory.runningSince.clear()
    for (const { key, clean } of slots) {
      const isNew = clean.some((t) => createdMs(t) >= startedMs)
      if (isNew && draft.slot(key).some((t) => createdMs(t) < startedMs)) memory.updated.add(key)
    }
  }
  const present = new Set(slots.map((s) => s.key))
  for (const key of memory.updated) {
    if (!present.has(key)) {
      memory.updated.delete(key)
      memory.failed.delete(key)
      continue
    }
    for (const task of draft.slot(key))
      if (stateOf(task) === TaskState.TASK_RUNNING && !memory.runningSince.has(task.id))
        memory.runningSince.set(task.id, statusMs(task))
  }
}

/** A task made by this update that ended before it ran, or within the monitor time after. Returns the latest one. */
function noteFailures(draft: ServiceDraft, memory: UpdateMemory, rules: UpdateRules, startedMs: number): string | null {
  let latest: string | null = null
  for (const key of memory.updated) {
    for (const task of draft.slot(key)) {
      if (createdMs(task) < startedMs || !isTerminal(task) || memory.failed.get(key) === task.id) continue
      const state = stateOf(task)
      if (state === TaskState.TASK_SHUTDOWN || state === TaskState.TASK_ORPHANED) continue
      if (draft.isDirty(task)) continue
      const since = memory.runningSince.get(task.id)
      if (since !== undefined && statusMs(task) - since > rules.monitorMs) continue
      if (!memory.failed.has(key)) memory.failed.set(key, task.id)
      latest = task.id
    }
  }
  return latest ?? [...memory.failed.values()].at(-1) ?? null
}

function act(draft: ServiceDraft, rules: UpdateRules, isRollback: boolean, taskId: string): void {
  const cause = `due to failure or early termination of task ${taskId}`
  if (isRollback) draft.setUpdateStatus(UpdateState.ROLLBACK_PAUSED, `rollback paused ${cause}`)
  else if (rules.onFailure === UpdateFailureAction.FAILURE_ROLLBACK && draft.service.previousSpec !== null) {
    const startedAt = timestamp(draft.nowMs)
    draft.changeService((service) => ({
      ...service,
      spec: service.previousSpec,
      specVersion: service.previousSpecVersion,
      previousSpec: null,
      previousSpecVersion: null,
      updateStatus: UpdateStatus.create({
        state: UpdateState.ROLLBACK_STARTED,
        startedAt,
        message: `update rolled back ${cause}`,
      }),
    }))
  } else draft.setUpdateStatus(UpdateState.UPDATE_PAUSED, `update paused ${cause}`)
}

/** Old beside new: with start-first the old one stops when the new one runs, else at once. */
function finishSlot(draft: ServiceDraft, slot: SlotView, rules: UpdateRules): void {
  const runs = slot.clean.some((t) => stateOf(t) === TaskState.TASK_RUNNING)
  if (rules.order === UpdateOrder.START_FIRST && !runs) return
  for (const task of slot.stale) draft.setDesired(task, TaskState.TASK_SHUTDOWN)
}

/** The slot takes one of the places of `parallelism`: its task does not run yet, or not yet for as long as the delay. */
function isBusy(
  draft: ServiceDraft,
  slot: SlotView,
  memory: UpdateMemory,
  rules: UpdateRules,
  moreToDo: boolean,
): boolean {
  if (!memory.updated.has(slot.key) || slot.clean.length === 0) return false
  if (memory.failed.has(slot.key)) return false
  const running = slot.clean.find((t) => stateOf(t) === TaskState.TASK_RUNNING)
  if (running === undefined) return true
  if (!moreToDo || rules.delayMs === 0) return false
  const freeMs = (memory.runningSince.get(running.id) ?? statusMs(running)) + rules.delayMs
  draft.wakeAt(freeMs)
  return freeMs > draft.nowMs
}

function replace(draft: ServiceDraft, slot: SlotView, rules: UpdateRules): void {
  const running = slot.stale.filter((t) => isWanted(t) && !isTerminal(t))
  if (rules.order === UpdateOrder.START_FIRST && running.length > 0) {
    draft.create({ key: slot.key, desiredState: TaskState.TASK_RUNNING })
    return
  }
  for (const task of slot.stale) draft.setDesired(task, TaskState.TASK_SHUTDOWN)
  const mustWait = running.some((t) => holdsNode(t) && !isLostNode(draft.node(t.nodeId)))
  draft.create({ key: slot.key, desiredState: mustWait ? TaskState.TASK_READY : TaskState.TASK_RUNNING })
}

/** All slots are new: after the last one came up it is watched for `monitor`, or a little longer than the delay. */
function complete(
  draft: ServiceDraft,
  slots: readonly SlotView[],
  memory: UpdateMemory,
  rules: UpdateRules,
  isRollback: boolean,
): void {
  const watchMs = rules.monitorMs < rules.delayMs ? rules.delayMs + 1_000 : rules.monitorMs
  let lastMs = 0
  for (const { key, clean } of slots) {
    if (!memory.updated.has(key)) continue
    for (const task of clean) lastMs = Math.max(lastMs, memory.runningSince.get(task.id) ?? statusMs(task))
  }
  if (lastMs + watchMs > draft.nowMs) draft.wakeAt(lastMs + watchMs)
  else if (isRollback) draft.setUpdateStatus(UpdateState.ROLLBACK_COMPLETED, 'rollback completed', { completed: true })
  else draft.setUpdateStatus(UpdateState.UPDATE_COMPLETED, 'update completed', { completed: true })
}
