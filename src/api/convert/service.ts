import {
  EndpointMode,
  type Service,
  type ServiceMode,
  type ServiceSpec,
  type ServiceStatus,
  type UpdateConfig,
  UpdateFailureAction,
  UpdateOrder,
  UpdateState,
} from '#proto'
import { invalid } from '../../common/index.js'
import { annotationsFrom, annotationsJson, metaJson, timeJson } from './proto.js'
import type { ServiceSpecJson, UpdateConfigJson } from './service-json.js'
import {
  attachmentFrom,
  attachmentJson,
  endpointModes,
  portFrom,
  portJson,
  taskSpecFrom,
  taskSpecJson,
  words,
} from './task-spec.js'

const failureActions = words<UpdateFailureAction>('failure action', {
  pause: UpdateFailureAction.FAILURE_PAUSE,
  continue: UpdateFailureAction.FAILURE_CONTINUE,
  rollback: UpdateFailureAction.FAILURE_ROLLBACK,
})
const orders = words<UpdateOrder>('update order', {
  'stop-first': UpdateOrder.STOP_FIRST,
  'start-first': UpdateOrder.START_FIRST,
})

const UPDATE_STATES: Record<UpdateState, string> = {
  [UpdateState.UPDATE_NONE]: '',
  [UpdateState.UPDATE_UPDATING]: 'updating',
  [UpdateState.UPDATE_PAUSED]: 'paused',
  [UpdateState.UPDATE_COMPLETED]: 'completed',
  [UpdateState.ROLLBACK_STARTED]: 'rollback_started',
  [UpdateState.ROLLBACK_PAUSED]: 'rollback_paused',
  [UpdateState.ROLLBACK_COMPLETED]: 'rollback_completed',
}

const updateFrom = (u: UpdateConfigJson | null | undefined): UpdateConfig | null =>
  u
    ? {
        parallelism: u.Parallelism ?? 0,
        delay: u.Delay ?? 0,
        failureAction: failureActions.from(u.FailureAction, UpdateFailureAction.FAILURE_PAUSE),
        monitor: u.Monitor ?? null,
        maxFailureRatio: Math.fround(u.MaxFailureRatio ?? 0),
        order: orders.from(u.Order, UpdateOrder.STOP_FIRST),
      }
    : null

const updateJson = (u: UpdateConfig): UpdateConfigJson => ({
  Parallelism: u.parallelism,
  ...(u.delay ? { Delay: u.delay } : {}),
  FailureAction: failureActions.to(u.failureAction),
  ...(u.monitor !== null ? { Monitor: u.monitor } : {}),
  MaxFailureRatio: Number(u.maxFailureRatio.toPrecision(7)),
  Order: orders.to(u.order),
})

function modeFrom(m: ServiceSpecJson['Mode']): ServiceMode {
  const given = Object.entries(m ?? {}).filter(([, v]) => v !== null && v !== undefined)
  if (given.length > 1)
    throw invalid('severalModes', `a service has one mode; given: ${given.map(([k]) => k).join(', ')}`)
  const none = { replicated: null, global: null, replicatedJob: null, globalJob: null }
  if (m?.Global) return { ...none, global: {} }
  if (m?.GlobalJob) return { ...none, globalJob: {} }
  if (m?.ReplicatedJob) {
    const concurrent = m.ReplicatedJob.MaxConcurrent ?? 1
    return {
      ...none,
      replicatedJob: { maxConcurrent: concurrent, totalCompletions: m.ReplicatedJob.TotalCompletions ?? concurrent },
    }
  }
  return { ...none, replicated: { replicas: m?.Replicated?.Replicas ?? 1 } }
}

function modeJson(m: ServiceMode | null): object {
  if (m?.global) return { Global: {} }
  if (m?.globalJob) return { GlobalJob: {} }
  if (m?.replicatedJob)
    return {
      ReplicatedJob: {
        MaxConcurrent: m.replicatedJob.maxConcurrent,
        TotalCompletions: m.replicatedJob.totalCompletions,
      },
    }
  return { Replicated: { Replicas: m?.replicated?.replicas ?? 1 } }
}

/** Body of service create and update. `registryAuth` is the X-Registry-Auth header as it came, or empty. */
export function serviceSpecFrom(s: ServiceSpecJson, registryAuth: string): ServiceSpec {
  const task = taskSpecFrom(s.TaskTemplate ?? {})
  if (task.container && registryAuth) task.container = { ...task.container, pullOptions: { registryAuth } }
  return {
    annotations: annotationsFrom(s),
    task,
    mode: modeFrom(s.Mode),
    update: updateFrom(s.UpdateConfig),
    rollback: updateFrom(s.RollbackConfig),
    endpoint: s.EndpointSpec
      ? {
          mode: endpointModes.from(s.EndpointSpec.Mode, EndpointMode.VIP),
          ports: (s.EndpointSpec.Ports ?? []).map(portFrom),
        }
      : null,
    networks: (s.Networks ?? []).map(attachmentFrom),
  }
}

export function serviceSpecJson(s: ServiceSpec): ServiceSpecJson {
  return {
    ...annotationsJson(s.annotations),
    TaskTemplate: s.task ? taskSpecJson(s.task) : {},
    Mode: modeJson(s.mode),
    ...(s.update ? { UpdateConfig: updateJson(s.update) } : {}),
    ...(s.rollback ? { RollbackConfig: updateJson(s.rollback) } : {}),
    ...(s.networks.length > 0 ? { Networks: s.networks.map(attachmentJson) } : {}),
    ...(s.endpoint
      ? {
          EndpointSpec: {
            Mode: endpointModes.to(s.endpoint.mode),
            ...(s.endpoint.ports.length > 0 ? { Ports: s.endpoint.ports.map(portJson) } : {}),
          },
        }
      : {}),
  }
}

export function serviceJson(
  s: Service,
  status?: ServiceStatus,
): { readonly Spec: ServiceSpecJson; readonly [field: string]: unknown } {
  const e = s.endpoint
  const u = s.updateStatus
  return {
    ID: s.id,
    ...metaJson(s.meta),
    Spec: s.spec ? serviceSpecJson(s.spec) : {},
    ...(s.previousSpec ? { PreviousSpec: serviceSpecJson(s.previousSpec) } : {}),
    Endpoint: {
      Spec: e?.spec
        ? {
            Mode: endpointModes.to(e.spec.mode),
            ...(e.spec.ports.length > 0 ? { Ports: e.spec.ports.map(portJson) } : {}),
          }
        : {},
      ...(e && e.ports.length > 0 ? { Ports: e.ports.map(portJson) } : {}),
      ...(e && e.virtualIps.length > 0
        ? {
            VirtualIPs: e.virtualIps.map((v) => ({
              NetworkID: v.networkId,
              ...(v.address ? { Addr: v.address } : {}),
            })),
          }
        : {}),
    },
    ...(u && u.state !== UpdateState.UPDATE_NONE
      ? {
          UpdateStatus: {
            State: UPDATE_STATES[u.state],
            ...(u.startedAt ? { StartedAt: timeJson(u.startedAt) } : {}),
            ...(u.completedAt ? { CompletedAt: timeJson(u.completedAt) } : {}),
            Message: u.message,
          },
        }
      : {}),
    ...(s.jobStatus
      ? {
          JobStatus: {
            JobIteration: { Index: s.jobStatus.jobIteration },
            ...(s.jobStatus.lastExecution ? { LastExecution: timeJson(s.jobStatus.lastExecution) } : {}),
          },
        }
      : {}),
    ...(status
      ? {
          ServiceStatus: {
            RunningTasks: status.runningTasks,
            DesiredTasks: status.desiredTasks,
            CompletedTasks: status.completedTasks,
          },
        }
      : {}),
  }
}
