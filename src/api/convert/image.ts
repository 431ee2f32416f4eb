import { rfc3339 } from '../../common/index.js'
import type { Image } from '../../runtime/index.js'
import { atLeast } from '../streams.js'

/** An element of GET /images/json and of /system/df. VirtualSize repeats Size up to API 1.43. */
export function imageSummary(i: Image, apiVersion: string): Record<string, unknown> {
  return {
    Id: i.id,
    ParentId: i.parent ?? '',
    RepoTags: i.repoTags,
    RepoDigests: i.repoDigests,
    Created: Math.floor(i.createdMs / 1000),
    Size: i.sizeBytes,
    ...virtualSize(i, apiVersion),
    SharedSize: -1,
    Containers: -1,
    Labels: i.config.config?.Labels ?? null,
  }
}

const virtualSize = (i: Image, apiVersion: string): object =>
  atLeast(apiVersion, '1.44') ? {} : { VirtualSize: i.sizeBytes }

/** Fields of a container that an image cannot have; shown with it up to API 1.49. */
const CONTAINER_ONLY = {
  Hostname: '',
  Domainname: '',
  AttachStdin: false,
  AttachStdout: false,
  AttachStderr: false,
  Tty: false,
  OpenStdin: false,
  StdinOnce: false,
  Image: '',
} as const

/** GET /images/{name}/json. ContainerConfig is kept at every version: docker-compose 1.29 reads it. */
export function imageInspect(i: Image, apiVersion: string): object {
  const c = i.config.config ?? {}
  const config = {
    User: c.User ?? '',
    ...(c.ExposedPorts ? { ExposedPorts: c.ExposedPorts } : {}),
    Env: c.Env ?? null,
    Cmd: c.Cmd ?? null,
    ...(c.Healthcheck ? { Healthcheck: c.Healthcheck } : {}),
    Volumes: c.Volumes ?? null,
    WorkingDir: c.WorkingDir ?? '',
    Entrypoint: c.Entrypoint ?? null,
    OnBuild: c.OnBuild ?? null,
    Labels: c.Labels ?? null,
    ...(c.StopSignal ? { StopSignal: c.StopSignal } : {}),
    ...(c.Shell ? { Shell: c.Shell } : {}),
  }
  const history = i.config.history
  return {
    Id: i.id,
    RepoTags: i.repoTags,
    RepoDigests: i.repoDigests,
    Parent: i.parent ?? '',
    Comment: history?.[history.length - 1]?.comment ?? '',
    Created: i.config.created ?? rfc3339(i.createdMs),
    DockerVersion: '',
    Author: i.config.author ?? '',
    Config: atLeast(apiVersion, '1.50') ? config : { ...CONTAINER_ONLY, ...config },
    ContainerConfig: { ...CONTAINER_ONLY, ...config, ...i.config.container_config },
    ...(atLeast(apiVersion, '1.45') ? {} : { Container: i.config.container ?? '' }),
    Architecture: i.config.architecture,
    ...(i.config.variant ? { Variant: i.config.variant } : {}),
    Os: i.config.os,
    Size: i.sizeBytes,
    ...virtualSize(i, apiVersion),
    GraphDriver: { Name: 'overlay2', Data: null },
    RootFS: { Type: 'layers', Layers: i.config.rootfs.diff_ids },
    Metadata: { LastTagTime: i.lastTaggedMs ? rfc3339(i.lastTaggedMs) : '0001-01-01T00:00:00Z' },
    ...(i.manifest && atLeast(apiVersion, '1.48') ? { Descriptor: i.manifest } : {}),
  }
}

/** GET /images/{name}/history, newest first. `lineage`: the image and those that it was made from here, a step each. */
export function imageHistory(i: Image, lineage: readonly Image[]): object[] {
  const history = i.config.history ?? []
  let layer = 0
  const rows = history.map((h, n) => {
    const here = lineage[history.length - 1 - n]
    return {
      Id: here?.id ?? '<missing>',
      Created: h.created ? Math.floor(Date.parse(h.created) / 1000) : 0,
      CreatedBy: h.created_by ?? '',
      Tags: here && here.repoTags.length > 0 ? here.repoTags : null,
      Size: h.empty_layer ? 0 : (i.layerSizes[layer++] ?? 0),
      Comment: h.comment ?? '',
    }
  })
  return rows.reverse()
}
