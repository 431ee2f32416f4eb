import type { CreateContainerBody } from '../../engine/index.js'
import { atLeast } from '../streams.js'

/**
 * A request to create a container from a client of an older API version: what that version did not have yet is taken away, as
 * dockerd does, so that a field which happens to be sent means nothing new.
 */
export function createBodyOf(body: CreateContainerBody, apiVersion: string): CreateContainerBody {
  let { Healthcheck, HostConfig, ...rest } = body as CreateContainerBody & Record<string, never>
  if (!atLeast(apiVersion, '1.44') && Healthcheck)
    Healthcheck = { ...(Healthcheck as object), StartInterval: 0 } as never
  if (HostConfig) {
    const host: Record<string, unknown> = { ...(HostConfig as object) }
    if (!atLeast(apiVersion, '1.43')) delete host.Annotations
    if (!atLeast(apiVersion, '1.42')) delete host.ConsoleSize
    if (!atLeast(apiVersion, '1.41')) host.CgroupnsMode = 'host'
    HostConfig = host as never
  }
  return {
    ...rest,
    ...(Healthcheck ? { Healthcheck } : {}),
    ...(HostConfig ? { HostConfig } : {}),
  } as CreateContainerBody
}
