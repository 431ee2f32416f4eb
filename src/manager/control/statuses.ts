import { type Service, ServiceStatus, TaskState } from '#proto'
import type { ReadView } from '../store/index.js'

/** Counts as `service ls` shows them. Of a job only the present iteration counts. */
export function serviceStatus(view: ReadView, service: Service): ServiceStatus {
  const mode = service.spec?.mode
  const job = mode?.replicatedJob != null || mode?.globalJob != null
  const iteration = service.jobStatus?.jobIteration ?? 0
  let running = 0
  let wanted = 0
  let completed = 0
  for (const task of view.tasksOfService(service.id)) {
    if (job && (task.jobIteration?.index ?? 0) !== iteration) continue
    const state = task.status?.state ?? TaskState.TASK_NEW
    if (task.desiredState <= TaskState.TASK_COMPLETE) {
      if (state === TaskState.TASK_RUNNING) running++
      if (!job || state !== TaskState.TASK_COMPLETE) wanted++
    }
    if (job && state === TaskState.TASK_COMPLETE) completed++
  }
  const desired = mode?.replicated
    ? mode.replicated.replicas
    : mode?.replicatedJob
      ? Math.min(
          mode.replicatedJob.maxConcurrent || mode.replicatedJob.totalCompletions,
          mode.replicatedJob.totalCompletions,
        )
      : wanted
  return ServiceStatus.create({
    serviceId: service.id,
    runningTasks: running,
    desiredTasks: desired,
    completedTasks: completed,
  })
}
