import type { Cluster, Node, Service, Task, TaskSpec } from '#proto'
import { Annotations, Endpoint, Meta, TaskState, TaskStatus, Task as TaskType } from '#proto'
import type { Rng } from '../../common/index.js'
import { equal, isJob, stateOf, timestamp } from '../objects/index.js'
import { matchesConstraints } from '../scheduler/index.js'

const BASE_36 = '0123456789abcdefghijklmnopqrstuvwxyz'

/** An object id drawn from the handed-in source of chance, so that a seeded simulation replays with the same ids. */
export function objectIdFrom(rng: Rng): string {
  let id = ''
  while (id.length < 25) id += BASE_36[Math.floor(rng.random() * 36)]
  return id
}

/** A task of a service in its first state, as its present spec has it. `slot` is 0 and `nodeId` set for global modes. */
export function newTask(options: {
  readonly id: string
  readonly service: Service
  readonly cluster: Cluster | null
  readonly slot: number
  readonly nodeId: string
  readonly desiredState: TaskState
  readonly nowMs: number
  /** Absent: may start at once. */
  readonly startAfterMs?: number
}): Task {
  const { service } = options
  const now = timestamp(options.nowMs)
  return TaskType.create({
    id: options.id,
    meta: Meta.create({ createdAt: now, updatedAt: now }),
    spec: service.spec?.task ?? null,
    specVersion: service.specVersion,
    serviceId: service.id,
    slot: options.slot,
    nodeId: options.nodeId,
    annotations: Annotations.create(),
    serviceAnnotations: service.spec?.annotations ?? Annotations.create(),
    status: TaskStatus.create({ timestamp: now, state: TaskState.TASK_NEW, message: 'created' }),
    desiredState: options.desiredState,
    endpoint: Endpoint.create({ spec: service.spec?.endpoint ?? null }),
    logDriver: service.spec?.task?.logDriver ?? options.cluster?.spec?.taskDefaultsLogDriver ?? null,
    jobIteration: isJob(service) ? { index: service.jobStatus?.jobIteration ?? 0 } : null,
    startAfter: options.startAfterMs === undefined ? null : timestamp(options.startAfterMs),
  })
}

/** Task's spec → the service's spec that it was last compared with, and whether they were the same. */
const compared = new WeakMap<TaskSpec, { readonly to: TaskSpec; readonly isSame: boolean }>()

/** Objects of the store never change, and a service's tasks are compared with one spec again and again. */
function isSameSpec(want: TaskSpec, have: TaskSpec): boolean {
  const known = compared.get(have)
  if (known?.to === want) return known.isSame
  const isSame = equal(want, have)
  compared.set(have, { to: want, isSame })
  return isSame
}

/**
 * The task is not what the service's spec asks for now and has to be replaced. Not dirty: a task whose node meets
 * changed constraints already, and one that has its image when only the registry's credentials changed.
 */
export function isDirty(task: Task, service: Service, node: Node | null): boolean {
  if (task.specVersion && service.specVersion && task.specVersion.index === service.specVersion.index) return false
  const want = service.spec?.task ?? null
  const have = task.spec
  if (want === null || have === null) return want !== have
  const endpointWant = service.spec?.endpoint ?? null
  if (task.endpoint !== null && !equal(task.endpoint.spec, endpointWant)) return true
  if (isSameSpec(want, have)) return false
  const state = stateOf(task)
  const hasImage = state >= TaskState.TASK_READY && state <= TaskState.TASK_RUNNING
  const withoutAuth = (spec: typeof want) =>
    hasImage && spec.container ? { ...spec, container: { ...spec.container, pullOptions: null } } : spec
  const left = withoutAuth(want)
  const right = withoutAuth(have)
  if (equal(left, right)) return false
  const onlyConstraints =
    left.placement !== null &&
    equal({ ...left, placement: null }, { ...right, placement: null }) &&
    equal({ ...left.placement, constraints: [] }, { ...(right.placement ?? left.placement), constraints: [] })
  return !(onlyConstraints && node !== null && matchesConstraints(left.placement?.constraints ?? [], node))
}
