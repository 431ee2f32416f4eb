import type { Timestamp } from '#proto'

/** Wall time in ms since 1970 UTC → the form in task objects. */
export function timestampOf(ms: number): Timestamp {
  const seconds = Math.floor(ms / 1000)
  return { seconds, nanos: Math.round((ms - seconds * 1000) * 1e6) }
}
