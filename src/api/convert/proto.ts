import type { Annotations, Driver, Meta, Timestamp, Version } from '#proto'
import { ZERO_TIME } from '../../common/index.js'
import type { ShapeOf } from '../body.js'

/** Milliseconds since 1970, 0 for absent. */
export const fromTimestamp = (t: Timestamp | null): number => (t ? t.seconds * 1000 + t.nanos / 1e6 : 0)

export function timeJson(t: Timestamp | null): string {
  if (!t || (t.seconds === 0 && t.nanos === 0)) return ZERO_TIME
  const whole = new Date(t.seconds * 1000).toISOString().slice(0, 19)
  const fraction = String(t.nanos).padStart(9, '0').replace(/0+$/, '')
  return fraction ? `${whole}.${fraction}Z` : `${whole}Z`
}

export const metaJson = (m: Meta | null): object => ({
  Version: { Index: m?.version?.index ?? 0 },
  CreatedAt: timeJson(m?.createdAt ?? null),
  UpdatedAt: timeJson(m?.updatedAt ?? null),
})

export const versionJson = (v: Version | null): object => ({ Index: v?.index ?? 0 })

export const annotationsJson = (a: Annotations | null): { Name: string; Labels: Record<string, string> } => ({
  Name: a?.name ?? '',
  Labels: a?.labels ?? {},
})

export interface DriverJson {
  Name?: string
  Options?: Record<string, string> | null
}

export const DRIVER: ShapeOf<DriverJson> = { Name: 'string', Options: 'map' }

export const driverJson = (d: Driver | null): DriverJson | undefined =>
  d
    ? { ...(d.name ? { Name: d.name } : {}), ...(Object.keys(d.options).length > 0 ? { Options: d.options } : {}) }
    : undefined

export const driverFrom = (d: DriverJson | null | undefined): Driver | null =>
  d ? { name: d.Name ?? '', options: d.Options ?? {} } : null

export const annotationsFrom = (s: { Name?: string | null; Labels?: Record<string, string> | null }): Annotations => ({
  name: s.Name ?? '',
  labels: s.Labels ?? {},
})

/** Leaves out what is empty, as Go's omitempty does: "", 0, false, null, [], {}. */
export function omitEmpty<T extends Record<string, unknown>>(o: T): Partial<T> {
  const out: Partial<T> = {}
  for (const [k, v] of Object.entries(o) as [keyof T, unknown][]) {
    if (v === undefined || v === null || v === '' || v === 0 || v === false) continue
    if (Array.isArray(v) ? v.length === 0 : typeof v === 'object' && Object.keys(v as object).length === 0) continue
    out[k] = v as T[keyof T]
  }
  return out
}
