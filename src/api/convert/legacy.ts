import type { ContainerView } from '../../engine/index.js'
import { atLeast } from '../streams.js'

type Fields = Record<string, unknown>

/** An inspected container as API 1.12 to 1.20 showed it: settings of the host among its own, one network, before 1.20 mounts as maps. */
export function olderInspect(shown: Fields, c: ContainerView, apiVersion: string): Fields {
  if (atLeast(apiVersion, '1.21')) return shown
  const { Networks: _, ...network } = shown.NetworkSettings as Fields
  const { config, hostConfig } = c
  const common = {
    ...shown,
    NetworkSettings: network,
    Config: {
      ...(shown.Config as Fields),
      MacAddress: config.MacAddress ?? '',
      NetworkDisabled: config.NetworkDisabled ?? false,
      ExposedPorts: config.ExposedPorts ?? null,
      VolumeDriver: hostConfig.VolumeDriver ?? '',
    },
  }
  if (atLeast(apiVersion, '1.20')) return common
  const { Mounts: __, ...rest } = common as Fields
  return {
    ...rest,
    Volumes: Object.fromEntries(c.mounts.map((m) => [m.destination, m.source])),
    VolumesRW: Object.fromEntries(c.mounts.map((m) => [m.destination, m.rw])),
    Config: {
      ...common.Config,
      Memory: hostConfig.Memory ?? 0,
      MemorySwap: hostConfig.MemorySwap ?? 0,
      CpuShares: hostConfig.CpuShares ?? 0,
      Cpuset: hostConfig.CpusetCpus ?? '',
    },
  }
}

/** Statistics as API 1.12 to 1.20 gave them: the sum of all interfaces as one. */
export function olderStats(shown: object, apiVersion: string): object {
  if (atLeast(apiVersion, '1.21')) return shown
  const { name: _, id: __, networks, ...rest } = shown as Fields
  const network: Record<string, number> = {}
  for (const one of Object.values((networks ?? {}) as Record<string, Record<string, number>>))
    for (const [counter, n] of Object.entries(one)) network[counter] = (network[counter] ?? 0) + n
  return { ...rest, network }
}
