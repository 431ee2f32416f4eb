import type { VolumeService } from '../runtime/index.js'
import type { Registry } from './registry.js'

/** The volumes as others see them: one is in use as long as there is a container that mounts it, running or not. */
export function guardVolumes(volumes: VolumeService, registry: Registry): VolumeService {
  const users = (name: string): readonly string[] => [
    ...new Set([
      ...registry
        .all()
        .filter((c) => c.record.mounts.some((m) => m.type === 'volume' && m.name === name))
        .map((c) => c.id),
      ...registry.claimants(name),
      ...volumes.users(name),
    ]),
  ]
  return {
    start: () => volumes.start(),
    create: (spec) => volumes.create({ ...spec, isHeld: (name) => users(name).length > 0 }),
    get: (name) => volumes.get(name),
    has: (name) => volumes.has(name),
    list: (onWarning) => volumes.list(onWarning),
    remove: (name, options) => volumes.remove(name, { ...options, users }),
    mount: (name, containerId) => volumes.mount(name, containerId),
    unmount: (name, containerId) => volumes.unmount(name, containerId),
    settle: (isLive) => volumes.settle(isLive),
    usage: (name) => volumes.usage(name),
    drivers: () => volumes.drivers(),
    driversInUse: () => volumes.driversInUse(),
    users,
  }
}
