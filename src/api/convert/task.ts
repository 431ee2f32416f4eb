import { type NetworkAttachment, type Task, TaskState } from '#proto'
import { annotationsJson, driverJson, metaJson, timeJson, versionJson } from './proto.js'
import { networkSpecJson } from './swarm.js'
import { genericJson, portJson, taskSpecJson } from './task-spec.js'

const STATES: Record<TaskState, string> = {
  [TaskState.TASK_NEW]: 'new',
  [TaskState.TASK_PENDING]: 'pending',
  [TaskState.TASK_ASSIGNED]: 'assigned',
  [TaskState.TASK_ACCEPTED]: 'accepted',
  [TaskState.TASK_PREPARING]: 'preparing',
  [TaskState.TASK_READY]: 'ready',
  [TaskState.TASK_STARTING]: 'starting',
  [TaskState.TASK_RUNNING]: 'running',
  [TaskState.TASK_COMPLETE]: 'complete',
  [TaskState.TASK_SHUTDOWN]: 'shutdown',
  [TaskState.TASK_FAILED]: 'failed',
  [TaskState.TASK_REJECTED]: 'rejected',
  [TaskState.TASK_REMOVE]: 'remove',
  [TaskState.TASK_ORPHANED]: 'orphaned',
}
export const stateWord = (s: TaskState): string => STATES[s] ?? 'new'

const attachmentJson = (a: NetworkAttachment): object => ({
  Network: a.network
    ? {
        ID: a.network.id,
        ...metaJson(a.network.meta),
        Spec: a.network.spec ? networkSpecJson(a.network.spec) : {},
        DriverState: driverJson(a.network.driverState) ?? {},
        IPAMOptions: {
          Driver: { Name: 'default' },
          Configs: (a.network.ipam?.configs ?? []).map((c) => ({
            Subnet: c.subnet,
            ...(c.gateway ? { Gateway: c.gateway } : {}),
          })),
        },
      }
    : {},
  Addresses: a.addresses,
})

export function taskJson(t: Task): object {
  const s = t.status
  return {
    ID: t.id,
    ...metaJson(t.meta),
    ...(t.annotations?.name ? { Name: t.annotations.name } : {}),
    Labels: annotationsJson(t.annotations).Labels,
    Spec: t.spec ? taskSpecJson(t.spec) : {},
    ServiceID: t.serviceId,
    ...(t.slot ? { Slot: t.slot } : {}),
    ...(t.nodeId ? { NodeID: t.nodeId } : {}),
    ...(t.assignedGenericResources.length > 0
      ? { AssignedGenericResources: t.assignedGenericResources.map(genericJson) }
      : {}),
    Status: {
      Timestamp: timeJson(s?.timestamp ?? null),
      State: stateWord(s?.state ?? TaskState.TASK_NEW),
      ...(s?.message ? { Message: s.message } : {}),
      ...(s?.err ? { Err: s.err } : {}),
      ...(s?.container
        ? {
            ContainerStatus: {
              ContainerID: s.container.containerId,
              PID: s.container.pid,
              ExitCode: s.container.exitCode,
            },
          }
        : {}),
      PortStatus: s && s.ports.length > 0 ? { Ports: s.ports.map(portJson) } : {},
    },
    DesiredState: stateWord(t.desiredState),
    ...(t.networks.length > 0 ? { NetworksAttachments: t.networks.map(attachmentJson) } : {}),
    ...(t.jobIteration ? { JobIteration: versionJson(t.jobIteration) } : {}),
  }
}
