import { conflict } from '../common/index.js'
import type { ContainerView } from '../engine/index.js'

const LABEL = 'com.docker.swarm'

/** Made by this node's agent for a task of a service. */
export const isTaskContainer = ({ config }: Pick<ContainerView, 'config'>): boolean =>
  `${LABEL}.task.id` in (config.Labels ?? {})

/**
 * A task runs once: when its container stops, the managers have another task take its place, beside which this container must
 * not run again. Throws conflict for one whom a user wants to start, or to stop and start.
 */
export function refuseTaskContainer(container: Pick<ContainerView, 'config' | 'name'>): void {
  if (!isTaskContainer(container)) return
  const service = container.config.Labels?.[`${LABEL}.service.name`] ?? ''
  throw conflict(
    'taskContainer',
    `container ${container.name} is a task of service ${service}, and only its swarm starts it: to have its tasks made anew, use docker service update --force ${service}`,
    { service },
  )
}
