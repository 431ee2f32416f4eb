import type { Clock } from '../../common/index.js'
import type { OnProgress } from '../contract.js'

/** Docker sends at most one message a layer in this time. */
const INTERVAL_MS = 100

/** docker/go-units HumanSize: four digits, powers of a thousand. */
export function humanSize(bytes: number): string {
  const units = ['B', 'kB', 'MB', 'GB', 'TB', 'PB', 'EB']
  let value = bytes
  let i = 0
  while (value >= 1000 && i < units.length - 1) {
    value /= 1000
    i++
  }
  return `${Number(value.toPrecision(4))}${units[i]}`
}

/** The bar that the daemon draws for clients which print it as it is. */
export function progressBar(current: number, total: number): string {
  if (current <= 0 && total <= 0) return ''
  if (total <= 0) return humanSize(current).padStart(8)
  const percent = Math.min(50, Math.trunc(Math.trunc((current / total) * 100) / 2))
  const bar = `[${'='.repeat(percent)}>${' '.repeat(50 - percent)}] `
  return current > total
    ? bar + humanSize(current).padStart(8)
    : `${bar}${humanSize(current).padStart(8)}/${humanSize(total)}`
}

/** Messages about one layer. */
export class LayerProgress {
  #lastMs = Number.NEGATIVE_INFINITY

  constructor(
    private readonly id: string,
    private readonly clock: Clock,
    private readonly emit: OnProgress,
  ) {}

  say(status: string): void {
    this.emit({ status, progressDetail: {}, id: this.id })
  }

  advance(status: string, current: number, total: number): void {
    const now = this.clock.monotonic()
    if (now - this.#lastMs < INTERVAL_MS && current < total) return
    this.#lastMs = now
    this.emit({ status, progressDetail: { current, total }, progress: progressBar(current, total), id: this.id })
  }
}
