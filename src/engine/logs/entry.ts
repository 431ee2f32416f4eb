import { millisOf, nanosOf } from '../../common/index.js'
import type { LogEntry } from '../contract.js'

/** RFC 3339 with up to nine digits of fraction → milliseconds with fractions; NaN when it is none. */
export function parseTime(time: string): number {
  const m = /^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d{1,9})?(Z|[+-]\d\d:\d\d)$/.exec(time)
  if (!m) return Number.NaN
  return millisOf(Date.parse(`${m[1]}${m[3]}`) / 1000, nanosOf(m[2] ?? ''))
}

/** One line of a json-file log; null for one that a crash cut short or something else damaged. */
export function parseEntry(line: Buffer): LogEntry | null {
  let raw: { log?: unknown; stream?: unknown; time?: unknown; attrs?: unknown }
  try {
    raw = JSON.parse(line.toString('utf8'))
  } catch {
    return null
  }
  if (typeof raw.log !== 'string' || typeof raw.time !== 'string') return null
  return {
    stream: raw.stream === 'stderr' ? 'stderr' : 'stdout',
    data: Buffer.from(raw.log, 'utf8'),
    time: raw.time,
    attributes: (raw.attrs as Record<string, string> | undefined) ?? {},
  }
}
