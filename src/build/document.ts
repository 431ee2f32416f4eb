import type { ContainerConfig } from '../engine/index.js'
import type { Digest, ImageConfig, ImagePlatform } from '../runtime/index.js'
import type { RunConfig } from './config.js'

/** What a step's image is made of; `container` is how its container was configured. */
export interface StepDocument {
  readonly parent: ImageConfig | null
  readonly platform: ImagePlatform
  readonly config: RunConfig
  readonly container: RunConfig
  /** "": none was needed. */
  readonly containerId: string
  /** Id of the image that the step began with, as it stands in the configuration; "": none. */
  readonly image: string
  readonly author: string
  /** RFC 3339. */
  readonly created: string
}

const list = (v: readonly string[] | string | null | undefined): string[] | null =>
  v == null ? null : typeof v === 'string' ? [v] : [...v]

/** A configuration with the members that dockerd writes, in its order. */
function written(c: ContainerConfig, image: string) {
  return {
    Hostname: c.Hostname ?? '',
    Domainname: c.Domainname ?? '',
    User: c.User ?? '',
    AttachStdin: c.AttachStdin ?? false,
    AttachStdout: c.AttachStdout ?? false,
    AttachStderr: c.AttachStderr ?? false,
    ...(hasKeys(c.ExposedPorts) ? { ExposedPorts: c.ExposedPorts } : {}),
    Tty: c.Tty ?? false,
    OpenStdin: c.OpenStdin ?? false,
    StdinOnce: c.StdinOnce ?? false,
    Env: c.Env ?? null,
    Cmd: list(c.Cmd),
    ...(c.Healthcheck ? { Healthcheck: c.Healthcheck } : {}),
    Image: image,
    Volumes: c.Volumes ?? null,
    WorkingDir: c.WorkingDir ?? '',
    Entrypoint: list(c.Entrypoint),
    OnBuild: c.OnBuild ?? null,
    Labels: c.Labels ?? null,
    ...(c.StopSignal ? { StopSignal: c.StopSignal } : {}),
    ...(c.StopTimeout != null ? { StopTimeout: c.StopTimeout } : {}),
    ...(c.Shell ? { Shell: c.Shell } : {}),
  }
}

const hasKeys = (o: object | null | undefined): boolean => Object.keys(o ?? {}).length > 0

/** The image document of a step; `diffId` is its layer's, null where it changed no file. */
export function stepDocument(s: StepDocument, diffId: Digest | null): ImageConfig {
  const author = s.author ? { author: s.author } : {}
  return {
    architecture: s.parent?.architecture ?? s.platform.architecture,
    ...author,
    config: written(s.config, s.image) as NonNullable<ImageConfig['config']>,
    ...(s.containerId ? { container: s.containerId } : {}),
    container_config: written(s.container, s.image),
    created: s.created,
    history: [
      ...(s.parent?.history ?? []),
      {
        created: s.created,
        ...author,
        created_by: (s.container.Cmd ?? []).join(' '),
        ...(diffId ? {} : { empty_layer: true }),
      },
    ],
    os: s.parent?.os ?? s.platform.os,
    rootfs: { type: 'layers', diff_ids: [...(s.parent?.rootfs.diff_ids ?? []), ...(diffId ? [diffId] : [])] },
    ...(s.parent?.variant ? { variant: s.parent.variant } : {}),
  }
}

/** The image that one entry of another's history stands for, on its own parent. */
export function restoredDocument(
  target: ImageConfig,
  parent: ImageConfig | null,
  step: RunConfig,
  layers: number,
): ImageConfig {
  const count = (parent?.history?.length ?? 0) + 1
  const history = (target.history ?? []).slice(0, count)
  return {
    architecture: target.architecture,
    ...(target.author ? { author: target.author } : {}),
    config: written(step, '') as NonNullable<ImageConfig['config']>,
    container_config: written({}, ''),
    created: history.at(-1)?.created ?? '0001-01-01T00:00:00Z',
    history,
    os: target.os,
    rootfs: { type: 'layers', diff_ids: target.rootfs.diff_ids.slice(0, layers) },
  }
}
