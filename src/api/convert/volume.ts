import { rfc3339 } from '../../common/index.js'
import type { VolumeRecord } from '../../runtime/index.js'

export const volumeJson = (v: VolumeRecord): Record<string, unknown> => ({
  ...(v.createdMs > 0 ? { CreatedAt: rfc3339(v.createdMs).replace(/\.\d+Z$/, 'Z') } : {}),
  Driver: v.driver,
  Labels: Object.keys(v.labels).length > 0 ? v.labels : null,
  Mountpoint: v.mountpoint,
  Name: v.name,
  Options: Object.keys(v.options).length > 0 ? v.options : null,
  Scope: v.scope ?? 'local',
  ...(v.status ? { Status: v.status } : {}),
})
