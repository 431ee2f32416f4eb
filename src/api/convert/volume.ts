import { rfc3339 } from '../../common/index.js'
import type { VolumeRecord } from '../../runtime/index.js'

export const volumeJson = (v: VolumeRecord): Record<string, unknown> => ({
  ...(v.createdMs > 0 ? { CreatedAt: rfc3339(v.createdMs).replace(/\.\d+Z$/, 'Z') } : {}),
  Driver: v.driver,
  Labels: v.labels,
  Mountpoint: v.mountpoint,
  Name: v.name,
  Options: v.options,
  Scope: v.scope ?? 'local',
  ...(v.status ? { Status: v.status } : {}),
})
