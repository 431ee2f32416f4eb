import type { Timestamp } from '#proto'
import { millisOf } from '../../common/index.js'

/** Nanoseconds in a millisecond: durations in specs are nanoseconds, clocks here count milliseconds. */
export const NANOS_PER_MS = 1e6

/** Wall time in ms since 1970 UTC → the stored form. */
export function timestamp(ms: number): Timestamp {
  const seconds = Math.floor(ms / 1000)
  return { seconds, nanos: Math.round((ms - seconds * 1000) * NANOS_PER_MS) }
}

/** The stored form → wall time in ms; absent is 0. */
export const millis = (t: Timestamp | null): number => (t ? millisOf(t.seconds, t.nanos) : 0)
