import type { ImageConfig } from '../runtime/index.js'
import { applyChanges, type Digest } from '../runtime/index.js'
import type { Container } from './container.js'
import { containerEvent } from './container-events.js'
import type { EngineContext } from './context.js'
import type { ContainerService } from './contract.js'
import { hasEnded } from './exec.js'
import { mergeConfig } from './merge-config.js'
import type { ContainerConfig } from './types.js'

/** A new image from a container's writable layer; a running one stands still meanwhile, if `pause`. */
export async function commitContainer(
  ctx: EngineContext,
  container: Container,
  options: Parameters<ContainerService['commit']>[1],
): Promise<Digest> {
  return container.locked(async () => {
    const { record, live } = container
    const own = imageConfig(record.config)
    const config = applyChanges(options.config ? imageConfig(mergeConfig(options.config, own)) : own, options.changes)
    const pauses = options.pause && live !== null && record.status === 'running'
    if (pauses) await unlessGone(live.pause())
    try {
      const image = await ctx.images.commit({
        container: container.id,
        image: record.image,
        config,
        containerConfig: { ...record.config },
        command: [record.config.Cmd ?? []].flat().join(' '),
        ...(options.reference ? { reference: options.reference } : {}),
        ...(options.comment ? { comment: options.comment } : {}),
        ...(options.author ? { author: options.author } : {}),
      })
      containerEvent(ctx, container, 'commit', {
        comment: options.comment ?? '',
        imageID: image.id,
        imageRef: options.reference ?? '',
      })
      return image.id
    } finally {
      if (pauses) await unlessGone(live.resume())
    }
  })
}

/** One that has just ended stands still by itself. */
const unlessGone = (asked: Promise<void>): Promise<void> =>
  asked.catch((caught: unknown) => {
    if (!hasEnded(caught)) throw caught
  })

/** What of a container's configuration belongs to an image. */
function imageConfig(config: ContainerConfig): NonNullable<ImageConfig['config']> {
  const list = (v: string[] | string | null | undefined): string[] | null =>
    v == null ? null : typeof v === 'string' ? [v] : v
  const health = config.Healthcheck
  return {
    User: config.User ?? '',
    ...(config.ExposedPorts ? { ExposedPorts: config.ExposedPorts } : {}),
    Env: config.Env ?? [],
    Entrypoint: list(config.Entrypoint),
    Cmd: list(config.Cmd),
    ...(config.Volumes ? { Volumes: config.Volumes } : {}),
    WorkingDir: config.WorkingDir ?? '',
    Labels: config.Labels ?? {},
    ...(config.StopSignal ? { StopSignal: config.StopSignal } : {}),
    ...(config.Shell ? { Shell: config.Shell } : {}),
    ...(config.OnBuild ? { OnBuild: config.OnBuild } : {}),
    ...(health ? { Healthcheck: { ...health, Test: health.Test ?? undefined } } : {}),
  } as NonNullable<ImageConfig['config']>
}
