/** A pending call; `cancel` is harmless after it ran. */
export interface Timer {
  cancel(): void
}

/** The only source of time. Wall time is for records shown to people; monotonic time for every decision. */
export interface Clock {
  /** Wall time in milliseconds since 1970 UTC. */
  now(): number
  /** Monotonic milliseconds, with fractions, from an arbitrary start. */
  monotonic(): number
  /** Calls back once after `ms`. Timers never keep the process alive. */
  after(ms: number, fn: () => void): Timer
  /** Calls back each `ms` until cancelled; a late call is not made up for. */
  every(ms: number, fn: () => void): Timer
  /** Resolves after `ms`; rejects with the signal's reason when aborted. */
  sleep(ms: number, signal?: AbortSignal): Promise<void>
}

export const systemClock: Clock = {
  now: () => Date.now(),
  monotonic: () => performance.now(),
  after(ms, fn) {
    const t = setTimeout(fn, ms)
    t.unref()
    return { cancel: () => clearTimeout(t) }
  },
  every(ms, fn) {
    const t = setInterval(fn, ms)
    t.unref()
    return { cancel: () => clearInterval(t) }
  },
  sleep(ms, signal) {
    return new Promise((resolve, reject) => {
      if (signal?.aborted) return reject(signal.reason)
      const stop = (): void => {
        clearTimeout(t)
        reject(signal?.reason)
      }
      const t = setTimeout(() => {
        signal?.removeEventListener('abort', stop)
        resolve()
      }, ms)
      signal?.addEventListener('abort', stop, { once: true })
    })
  },
}

/** RFC 3339 with nanosecond digits, as the Engine API writes times. `ms` may have fractions. */
export function rfc3339(ms: number): string {
  const whole = Math.floor(ms)
  const nanos = Math.round((ms - whole) * 1e6)
  return `${new Date(whole).toISOString().slice(0, -1)}${String(nanos).padStart(6, '0')}Z`
}

/** What the Engine API writes for "never": the zero time of Go. */
export const ZERO_TIME = '0001-01-01T00:00:00Z'

/**
 * Seconds and nanoseconds since 1970 → ms with fractions. The one way to reckon it: a time told as text, as a stored
 * timestamp and as a query's "1700000000.25" must come out as the same number, as they are compared.
 */
export const millisOf = (seconds: number, nanos: number): number => seconds * 1000 + nanos / 1e6

/** The digits behind a decimal point (".25", "" for none) as nanoseconds; what is finer is cut off. */
export const nanosOf = (fraction: string): number => Number(fraction.slice(1, 10).padEnd(9, '0'))

/** Nanoseconds as Go prints a duration. */
export function goDuration(ns: number): string {
  if (ns === 0) return '0s'
  if (ns < 1e3) return `${ns}ns`
  if (ns < 1e6) return `${ns / 1e3}µs`
  if (ns < 1e9) return `${ns / 1e6}ms`
  const s = ns / 1e9
  const h = Math.floor(s / 3600)
  const m = Math.floor((s % 3600) / 60)
  return `${h > 0 ? `${h}h` : ''}${h > 0 || m > 0 ? `${m}m` : ''}${Number((s % 60).toFixed(9))}s`
}
