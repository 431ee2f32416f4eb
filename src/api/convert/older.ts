import { invalid } from '../../common/index.js'
import type { CreateContainerBody, HostConfig } from '../../engine/index.js'
import { manyEndpoints } from '../../engine/index.js'
import { atLeast } from '../streams.js'
import { HOST_CONFIG } from './container-shape.js'

type Fields = Record<string, unknown>

/** Of what stands beside a HostConfig, these are still taken where that has none of its own. */
const TAKEN_BESIDE = ['Memory', 'MemorySwap', 'CpuShares', 'CpusetCpus', 'VolumeDriver']

/**
 * A request to create a container from a client of an older API version: what belonged elsewhere then is moved, and what that
 * version did not have yet is taken away, as dockerd does, so that a field which happens to be sent means nothing new.
 *
 * @throws invalid `manyEndpoints` before 1.44.
 */
export function createBodyOf(body: CreateContainerBody, apiVersion: string): CreateContainerBody {
  const { Healthcheck, HostConfig, NetworkingConfig, Cpuset, ...others } = body as CreateContainerBody & Fields
  const isOfHost = ([field]: [string, unknown]): boolean => Object.hasOwn(HOST_CONFIG, field)
  const config = Object.fromEntries(Object.entries(others).filter((f) => !isOfHost(f)))
  const beside = Object.fromEntries(Object.entries(others).filter((f) => isOfHost(f) && f[1] != null))

  const endpoints = Object.keys(NetworkingConfig?.EndpointsConfig ?? {})
  if (!atLeast(apiVersion, '1.44') && endpoints.length > 1) throw invalid('manyEndpoints', manyEndpoints(endpoints))
  const host = hostConfigOf(HostConfig, beside, Cpuset)
  if (host && !atLeast(apiVersion, '1.43')) delete host.Annotations
  if (host && !atLeast(apiVersion, '1.42')) delete host.ConsoleSize
  if (host && !atLeast(apiVersion, '1.41')) host.CgroupnsMode = 'host'
  if (host && !atLeast(apiVersion, '1.40')) host.IpcMode ||= 'shareable'
  return {
    ...config,
    ...(Healthcheck
      ? { Healthcheck: atLeast(apiVersion, '1.44') ? Healthcheck : { ...Healthcheck, StartInterval: 0 } }
      : {}),
    ...(host ? { HostConfig: host } : {}),
    ...(NetworkingConfig ? { NetworkingConfig } : {}),
  }
}

function hostConfigOf(given: HostConfig | null | undefined, beside: Fields, cpuset: unknown): HostConfig | null {
  if (!given && !cpuset && Object.keys(beside).length === 0) return null
  const host: Fields = given ? { ...given } : beside
  if (given) for (const field of TAKEN_BESIDE) host[field] ||= beside[field]
  host.CpusetCpus ||= cpuset
  for (const field of ['CapAdd', 'CapDrop']) if (typeof host[field] === 'string') host[field] = [host[field]]
  return Object.fromEntries(Object.entries(host).filter(([, v]) => v !== undefined)) as HostConfig
}
