import type { NetworkAttachmentConfig, Node, PortConfig, Service, ServiceSpec, Task } from '#proto'
import { NodeAvailability, NodeState, PublishMode, TaskState } from '#proto'
import { millis } from './time.js'

/** The task has ended; the observed state says how. */
export const isTerminal = (task: Task): boolean => task.status !== null && task.status.state > TaskState.TASK_RUNNING

/** Told to run (or, a job's, to complete): counts as a member of its service. */
export const isWanted = (task: Task): boolean => task.desiredState < TaskState.TASK_SHUTDOWN

/** Observed state; a task without a status is new. */
export const stateOf = (task: Task): TaskState => task.status?.state ?? TaskState.TASK_NEW

/** The task occupies its node: assigned and not known to have ended. */
export const holdsNode = (task: Task): boolean =>
  task.nodeId !== '' && stateOf(task) >= TaskState.TASK_ASSIGNED && !isTerminal(task)

/** When the last status took effect: the manager's clock where it is known, since nodes' clocks may be off. */
export const statusMs = (task: Task): number => millis(task.status?.appliedAt ?? task.status?.timestamp ?? null)

/** Order of creation. In one instant, the one told to stop is the older; then by id, so that every manager sorts alike. */
export const createdMs = (task: Task): number => millis(task.meta?.createdAt ?? null)
export const byCreation = (a: Task, b: Task): number =>
  createdMs(a) - createdMs(b) || b.desiredState - a.desiredState || (a.id < b.id ? -1 : a.id > b.id ? 1 : 0)

/** Tasks cannot live there: gone, down, or told to empty itself. */
export const isLostNode = (node: Node | null): boolean => node === null || node.status?.state === NodeState.NODE_DOWN
export const isDrained = (node: Node | null): boolean => node?.spec?.availability === NodeAvailability.DRAIN
export const isInvalidNode = (node: Node | null): boolean => isLostNode(node) || isDrained(node)

/** Networks that the spec attaches tasks to; the service-level list is the old place. */
export const networksOf = (spec: ServiceSpec | null): readonly NetworkAttachmentConfig[] =>
  spec?.task?.networks.length ? spec.task.networks : (spec?.networks ?? [])

export const ingressPortsOf = (ports: readonly PortConfig[] | undefined): readonly PortConfig[] =>
  (ports ?? []).filter((p) => p.publishMode === PublishMode.INGRESS)

export const usesIngress = (service: Service): boolean => ingressPortsOf(service.spec?.endpoint?.ports).length > 0

export const isJob = (service: Service): boolean =>
  (service.spec?.mode?.replicatedJob ?? null) !== null || (service.spec?.mode?.globalJob ?? null) !== null

export const isGlobal = (service: Service): boolean =>
  (service.spec?.mode?.global ?? null) !== null || (service.spec?.mode?.globalJob ?? null) !== null

/** Names of networks that every engine has by itself; they are attached by name and have no addresses of the cluster's. */
const NODE_LOCAL = new Set(['host', 'bridge', 'none'])
export const isNodeLocalNetwork = (nameOrDriver: string): boolean => NODE_LOCAL.has(nameOrDriver)

/** What the constraint enforcer writes into a task's status. */
export const ENFORCER_MESSAGE = 'task rejected by constraint enforcer'

/** Rejected by a manager while its node may still run the container: its addresses stay lent until the object goes. */
export const mayStillRun = (task: Task): boolean =>
  stateOf(task) === TaskState.TASK_REJECTED && task.status?.message === ENFORCER_MESSAGE
