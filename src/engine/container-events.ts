import type { Container } from './container.js'
import type { EngineContext } from './context.js'

/** Publishes a container event with docker's attributes: its labels, image and name, and those of the action. */
export function containerEvent(
  ctx: Pick<EngineContext, 'hub'>,
  container: Container,
  action: string,
  attributes: Readonly<Record<string, string>> = {},
): void {
  const { record } = container
  ctx.hub.publish({
    type: 'container',
    action,
    actorId: record.id,
    attributes: {
      ...(record.config.Labels ?? {}),
      image: record.imageReference,
      name: record.name,
      ...attributes,
    },
    scope: 'local',
  })
}
