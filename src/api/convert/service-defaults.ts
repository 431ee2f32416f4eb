import type { ServiceSpecJson, UpdateConfigJson } from './service-json.js'

const UPDATE: UpdateConfigJson = {
  Parallelism: 1,
  FailureAction: 'pause',
  Monitor: 5e9,
  MaxFailureRatio: 0,
  Order: 'stop-first',
}

/**
 * A service's spec with what the orchestrator takes where nothing is said (`insertDefaults` of GET /services/{id}): ten seconds to
 * stop, restart always after five, updates one by one that pause at a failure. Jobs are not updated. Durations are nanoseconds.
 */
export function withServiceDefaults(spec: ServiceSpecJson): ServiceSpecJson {
  const { TaskTemplate: task, Mode: mode } = spec
  const isJob = Boolean(mode?.ReplicatedJob || mode?.GlobalJob)
  return {
    ...spec,
    TaskTemplate: {
      ...task,
      ...(task?.ContainerSpec
        ? { ContainerSpec: { StopGracePeriod: 10e9, DNSConfig: {}, ...task.ContainerSpec } }
        : {}),
      Resources: task?.Resources ?? {},
      RestartPolicy: { Condition: isJob ? 'on-failure' : 'any', Delay: 5e9, MaxAttempts: 0, ...task?.RestartPolicy },
      Placement: task?.Placement ?? {},
    },
    ...(isJob
      ? {}
      : {
          UpdateConfig: { ...UPDATE, ...spec.UpdateConfig },
          RollbackConfig: { ...UPDATE, ...spec.RollbackConfig },
        }),
  }
}
