import {
  type Node,
  NodeAvailability,
  NodeRole,
  NodeState,
  ObjectKind,
  Reachability,
  type Service,
  UpdateState,
  type WatchEvent,
} from '#proto'
import { type Clock, isKind } from '../common/index.js'
import type { Logger } from '../common/log.js'
import type { EngineEvent } from '../engine/index.js'
import type { ControlApi } from '../manager/index.js'

/** What `docker events` on a manager shows of the cluster. */
export type ClusterEvent = Omit<EngineEvent, 'timeMs'>

const KINDS = [
  ObjectKind.KIND_NODE,
  ObjectKind.KIND_SERVICE,
  ObjectKind.KIND_NETWORK,
  ObjectKind.KIND_SECRET,
  ObjectKind.KIND_CONFIG,
]
/** Before a watch that was lost is opened again, ms. */
const REOPEN_MS = 1000

/** Publishes what changes until the signal fires. What changed while a watch was lost is not told later. */
export async function followCluster(
  control: ControlApi,
  m: { readonly clock: Clock; readonly logger: Logger; readonly publish: (event: ClusterEvent) => void },
  signal: AbortSignal,
): Promise<void> {
  while (!signal.aborted) {
    try {
      for await (const change of control.watch({ kinds: KINDS }, signal)) {
        const event = clusterEvent(change)
        if (event) m.publish(event)
      }
    } catch (caught) {
      if (signal.aborted) return
      if (!isKind(caught, 'unavailable')) throw caught
      m.logger.debug('the watch for cluster events was lost', { error: String(caught) })
    }
    await m.clock.sleep(REOPEN_MS, signal).catch(() => {}) // aborted: the loop ends
  }
}

/** Pure. Null: of no interest. */
export function clusterEvent({ action, object, old }: WatchEvent): ClusterEvent | null {
  if (action !== 'create' && action !== 'update' && action !== 'remove') return null
  const service = object?.service
  // To its users a service is gone when they removed it, not when its last task has stopped.
  const isRemoved = service?.pendingDelete === true
  if (isRemoved && (action !== 'update' || old?.service?.pendingDelete)) return null
  const event = (type: ClusterEvent['type'], actorId: string, attributes: Record<string, string>): ClusterEvent => ({
    type,
    action: isRemoved ? 'remove' : action,
    actorId,
    attributes,
    scope: 'swarm',
  })
  if (object?.node)
    return event('node', object.node.id, {
      name: object.node.spec?.annotations?.name || object.node.description?.hostname || '',
      ...(old?.node ? nodeChanges(old.node, object.node) : {}),
    })
  if (service)
    return event('service', service.id, {
      name: service.spec?.annotations?.name ?? '',
      ...(old?.service && !isRemoved ? serviceChanges(old.service, service) : {}),
    })
  for (const type of ['network', 'secret', 'config'] as const) {
    const found = object?.[type]
    if (found) return event(type, found.id, { name: found.spec?.annotations?.name ?? '' })
  }
  return null
}

const changed = (name: string, before: string, after: string): Record<string, string> =>
  before === after ? {} : { [`${name}.old`]: before, [`${name}.new`]: after }

const AVAILABILITIES: Record<NodeAvailability, string> = {
  [NodeAvailability.ACTIVE]: 'active',
  [NodeAvailability.PAUSE]: 'pause',
  [NodeAvailability.DRAIN]: 'drain',
}
const ROLES: Record<NodeRole, string> = { [NodeRole.WORKER]: 'worker', [NodeRole.MANAGER]: 'manager' }
const STATES: Record<NodeState, string> = {
  [NodeState.NODE_UNKNOWN]: 'unknown',
  [NodeState.NODE_DOWN]: 'down',
  [NodeState.NODE_READY]: 'ready',
  [NodeState.NODE_DISCONNECTED]: 'disconnected',
}
const UPDATE_STATES: Record<UpdateState, string> = {
  [UpdateState.UPDATE_NONE]: '',
  [UpdateState.UPDATE_UPDATING]: 'updating',
  [UpdateState.UPDATE_PAUSED]: 'paused',
  [UpdateState.UPDATE_COMPLETED]: 'completed',
  [UpdateState.ROLLBACK_STARTED]: 'rollback_started',
  [UpdateState.ROLLBACK_PAUSED]: 'rollback_paused',
  [UpdateState.ROLLBACK_COMPLETED]: 'rollback_completed',
}
const REACHABILITIES: Record<Reachability, string> = {
  [Reachability.REACHABILITY_UNKNOWN]: 'unknown',
  [Reachability.UNREACHABLE]: 'unreachable',
  [Reachability.REACHABLE]: 'reachable',
}

function nodeChanges(a: Node, b: Node): Record<string, string> {
  const availability = (n: Node): string => AVAILABILITIES[n.spec?.availability ?? NodeAvailability.ACTIVE]
  const role = (n: Node): string => ROLES[n.spec?.desiredRole ?? NodeRole.WORKER]
  const state = (n: Node): string => STATES[n.status?.state ?? NodeState.NODE_UNKNOWN]
  const managers = a.managerStatus && b.managerStatus ? { a: a.managerStatus, b: b.managerStatus } : null
  return {
    ...changed('availability', availability(a), availability(b)),
    ...changed('role', role(a), role(b)),
    ...changed('state', state(a), state(b)),
    ...(managers
      ? {
          ...changed('leader', String(managers.a.leader), String(managers.b.leader)),
          ...changed('reachability', REACHABILITIES[managers.a.reachability], REACHABILITIES[managers.b.reachability]),
        }
      : {}),
  }
}

function serviceChanges(a: Service, b: Service): Record<string, string> {
  const update = (s: Service): string => UPDATE_STATES[s.updateStatus?.state ?? UpdateState.UPDATE_NONE]
  const replicas = (s: Service): string => String(s.spec?.mode?.replicated?.replicas ?? '')
  return {
    ...(a.spec?.mode?.replicated && b.spec?.mode?.replicated ? changed('replicas', replicas(a), replicas(b)) : {}),
    ...(b.updateStatus ? changed('updatestate', update(a), update(b)) : {}),
  }
}
