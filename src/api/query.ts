import { invalid, millisOf, nanosOf } from '../common/index.js'

export type Query = Readonly<Record<string, string | string[] | undefined>>

const last = (v: string | string[] | undefined): string | undefined => (Array.isArray(v) ? v[v.length - 1] : v)

export const text = (q: Query, name: string): string => last(q[name]) ?? ''
export const list = (q: Query, name: string): string[] => {
  const v = q[name]
  return v === undefined ? [] : Array.isArray(v) ? v : [v]
}

/** As dockerd reads flags: absent, "", 0, no, false and none are false; everything else is true. */
export function bool(q: Query, name: string, absent = false): boolean {
  const v = last(q[name])
  if (v === undefined) return absent
  return !['', '0', 'no', 'false', 'none'].includes(v.trim().toLowerCase())
}

/** A whole number, or `absent` when it is not given. */
export function int<T>(q: Query, name: string, absent: T): number | T {
  const v = last(q[name])
  if (v === undefined || v === '') return absent
  if (!/^-?\d+$/.test(v)) throw invalid('badParameter', `parameter ${name}: "${v}" is not a whole number`)
  return Number(v)
}

/** "1700000000.5", RFC 3339, or a Go duration before `nowMs`; milliseconds since 1970. */
export function timestamp(q: Query, name: string, nowMs: number): number | null {
  const v = last(q[name])
  if (v === undefined || v === '' || v === '0') return null
  return parseTimestamp(v, nowMs, name)
}

export function parseTimestamp(v: string, nowMs: number, name: string): number {
  const seconds = /^(\d+)(\.\d+)?$/.exec(v)
  if (seconds) return millisOf(Number(seconds[1]), nanosOf(seconds[2] ?? ''))
  const ago = parseDuration(v)
  if (ago !== null) return nowMs - ago / 1e6
  const [, whole, fraction, zone] = /^([^.]*)(\.\d+)?(Z|[+-]\d\d:\d\d)?$/.exec(v) ?? []
  const ms = Date.parse(`${whole}${zone ?? ''}`)
  if (Number.isNaN(ms))
    throw invalid(
      'badParameter',
      `parameter ${name}: "${v}" is not a time; use seconds since 1970, RFC 3339 or a duration such as 10m`,
    )
  return millisOf(ms / 1000, nanosOf(fraction ?? ''))
}

const UNITS: Record<string, number> = { ns: 1, us: 1e3, µs: 1e3, ms: 1e6, s: 1e9, m: 60e9, h: 3600e9 }

/** A Go duration ("1h30m", "1.5s") in nanoseconds; null when it is none. */
export function parseDuration(v: string): number | null {
  const m = /^(?:\d+(?:\.\d+)?(?:ns|us|µs|ms|s|m|h))+$/.exec(v)
  if (!m) return v === '0' ? 0 : null
  let sum = 0
  for (const [, n, unit] of v.matchAll(/(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)/g)) sum += Number(n) * UNITS[unit!]!
  return sum
}

/** Filters of a list call: key → accepted values. Both shapes that clients send are read. */
export class Filters {
  constructor(private readonly map: ReadonlyMap<string, readonly string[]>) {}

  static parse(q: Query, accepted: readonly string[]): Filters {
    const raw = text(q, 'filters')
    const map = new Map<string, string[]>()
    if (raw !== '') {
      let parsed: unknown
      try {
        parsed = JSON.parse(raw)
      } catch {
        throw invalid('badFilter', `invalid filter: "${raw.slice(0, 100)}" is not JSON`)
      }
      if (parsed === null || typeof parsed !== 'object' || Array.isArray(parsed))
        throw invalid('badFilter', 'invalid filter: not a JSON object')
      for (const [key, value] of Object.entries(parsed)) {
        if (!accepted.includes(key)) throw invalid('badFilter', `Invalid filter '${key}'`)
        if (Array.isArray(value)) map.set(key, value.map(String))
        else if (value && typeof value === 'object') {
          map.set(
            key,
            Object.entries(value)
              .filter(([, on]) => on === true)
              .map(([v]) => v),
          )
        } else throw invalid('badFilter', `invalid filter '${key}': its values must be a list or a map`)
      }
    }
    return new Filters(map)
  }

  has(key: string): boolean {
    return (this.map.get(key)?.length ?? 0) > 0
  }

  values(key: string): readonly string[] {
    return this.map.get(key) ?? []
  }

  entries(): [string, readonly string[]][] {
    return [...this.map].filter(([, v]) => v.length > 0)
  }

  /** No such filter, or one of its values is equal. */
  exact(key: string, value: string): boolean {
    return !this.has(key) || this.values(key).includes(value)
  }

  /** @throws invalid `badFilter` for a value that is none of these. */
  oneOf(key: string, accepted: readonly string[]): void {
    this.each(key, (v) => accepted.includes(v), `it can be ${accepted.join(', ')}`)
  }

  /** @throws invalid `badFilter` for a value that does not hold; `rule` is what it is told. */
  each(key: string, holds: (value: string) => boolean, rule: string): void {
    const bad = this.values(key).find((v) => !holds(v))
    if (bad !== undefined) throw invalid('badFilter', `Invalid filter '${key}=${bad}': ${rule}`)
  }

  /** No such filter, or one of its values is contained in it. */
  contains(key: string, value: string): boolean {
    return !this.has(key) || this.values(key).some((v) => value.includes(v))
  }

  prefix(key: string, value: string): boolean {
    return !this.has(key) || this.values(key).some((v) => value.startsWith(v))
  }

  /** Docker's name filter: a regular expression anywhere in the name, or plain text where it is none. */
  name(key: string, value: string): boolean {
    if (!this.has(key)) return true
    return this.values(key).some((v) => {
      try {
        return new RegExp(v).test(value)
      } catch {
        return value.includes(v)
      }
    })
  }

  /** "key" or "key=value"; all of them must match. */
  labels(key: string, labels: Readonly<Record<string, string>> | null | undefined): boolean {
    return this.values(key).every((want) => matchesLabel(want, labels ?? {}))
  }

  /** For prune's "label!": none of them may match. */
  notLabels(key: string, labels: Readonly<Record<string, string>> | null | undefined): boolean {
    return !this.values(key).some((want) => matchesLabel(want, labels ?? {}))
  }

  bool(key: string, absent: boolean): boolean {
    const v = this.values(key)
    if (v.length === 0) return absent
    if (v.some((x) => ['1', 'true', 't', 'True', 'TRUE'].includes(x))) return true
    if (v.some((x) => ['0', 'false', 'f', 'False', 'FALSE'].includes(x))) return false
    throw invalid('badFilter', `Invalid filter '${key}=[${v.join(' ')}]'`)
  }
}

function matchesLabel(want: string, labels: Readonly<Record<string, string>>): boolean {
  const eq = want.indexOf('=')
  return eq < 0 ? want in labels : labels[want.slice(0, eq)] === want.slice(eq + 1)
}
