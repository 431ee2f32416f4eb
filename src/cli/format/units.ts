import { humanDuration } from '../../common/duration.js'

/** "1.982MB": powers of 1000; docker gives image sizes three digits and sums four. */
export function humanSize(bytes: number, digits = 4): string {
  const units = ['B', 'kB', 'MB', 'GB', 'TB', 'PB']
  let v = bytes
  let i = 0
  while (v >= 1000 && i < units.length - 1) {
    v /= 1000
    i++
  }
  return `${trimmed(v, digits)}${units[i]}`
}

/** "23.54GiB": powers of 1024. */
export function binarySize(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB']
  let v = bytes
  let i = 0
  while (v >= 1024 && i < units.length - 1) {
    v /= 1024
    i++
  }
  return `${trimmed(v, 4)}${units[i]}`
}

/** Go's %.4g. */
function trimmed(v: number, digits: number): string {
  if (v === 0) return '0'
  return String(Number(v.toPrecision(digits)))
}

export const ago = (ms: number): string => `${humanDuration(ms)} ago`

/** Go's way of writing a time: "2026-11-27 10:40:16 +0000 UTC", in this machine's zone. */
export function goTime(ms: number): string {
  const d = new Date(ms)
  const offset = -d.getTimezoneOffset()
  const two = (n: number): string => String(n).padStart(2, '0')
  const zone =
    offset === 0
      ? 'UTC'
      : new Intl.DateTimeFormat('en', { timeZoneName: 'short' })
          .formatToParts(d)
          .find((p) => p.type === 'timeZoneName')!.value
  const sign = offset < 0 ? '-' : '+'
  const by = Math.abs(offset)
  return `${d.getFullYear()}-${two(d.getMonth() + 1)}-${two(d.getDate())} ${two(d.getHours())}:${two(d.getMinutes())}:${two(d.getSeconds())} ${sign}${two(Math.floor(by / 60))}${two(by % 60)} ${zone}`
}

/** "2026-11-27T10:40:16Z", or with an offset. */
export function rfc3339(ms: number): string {
  const [date, time, offset] = goTime(ms).split(' ')
  return `${date}T${time}${offset === '+0000' ? 'Z' : `${offset!.slice(0, 3)}:${offset!.slice(3)}`}`
}

/** "64m", "1.5g", "512" in bytes; null when it is no size. */
export function parseSize(text: string): number | null {
  const m = /^(\d+(?:\.\d+)?)\s*([bkmgtp]?)(?:i?b)?$/i.exec(text)
  if (!m) return null
  return Math.floor(Number(m[1]) * 1024 ** 'bkmgtp'.indexOf((m[2] || 'b').toLowerCase()))
}

const UNITS: Record<string, number> = { ns: 1, us: 1e3, µs: 1e3, ms: 1e6, s: 1e9, m: 60e9, h: 3600e9 }

/** Go's duration ("1m30s") in nanoseconds; null when it is none. */
export function parseDuration(text: string): number | null {
  if (text === '0') return 0
  if (!/^(?:\d+(?:\.\d+)?(?:ns|us|µs|ms|s|m|h))+$/.test(text)) return null
  let sum = 0
  for (const [, n, unit] of text.matchAll(/(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)/g)) sum += Number(n) * UNITS[unit!]!
  return sum
}
