import type { Clock, Timer } from '../../../src/common/index.js'

interface Entry {
  readonly atMs: number
  readonly order: number
  readonly fn: () => void
  cancelled: boolean
}

/** Time that moves only when told to. Everything awaited in between has run before the next timer is called. */
export class FakeClock implements Clock {
  #nowMs: number
  #order = 0
  readonly #entries = new Set<Entry>()

  constructor(startMs = 1_700_000_000_000) {
    this.#nowMs = startMs
  }

  now(): number {
    return this.#nowMs
  }

  monotonic(): number {
    return this.#nowMs
  }

  after(ms: number, fn: () => void): Timer {
    const entry: Entry = { atMs: this.#nowMs + Math.max(0, ms), order: this.#order++, fn, cancelled: false }
    this.#entries.add(entry)
    return {
      cancel: () => {
        entry.cancelled = true
        this.#entries.delete(entry)
      },
    }
  }

  every(ms: number, fn: () => void): Timer {
    let timer: Timer
    const again = (): void => {
      timer = this.after(ms, again)
      fn()
    }
    timer = this.after(ms, again)
    return { cancel: () => timer.cancel() }
  }

  sleep(ms: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      if (signal?.aborted) return reject(signal.reason)
      const timer = this.after(ms, resolve)
      signal?.addEventListener(
        'abort',
        () => {
          timer.cancel()
          reject(signal.reason)
        },
        { once: true },
      )
    })
  }

  /** Lets promises run until nothing moves; I/O that is under way is given a few turns of the event loop. */
  async settle(turns = 2): Promise<void> {
    for (let i = 0; i < turns; i++) await new Promise<void>((resolve) => setImmediate(resolve))
  }

  async advance(ms: number): Promise<void> {
    const endMs = this.#nowMs + ms
    await this.settle()
    for (;;) {
      let next: Entry | null = null
      for (const e of this.#entries)
        if (e.atMs <= endMs && (next === null || e.atMs < next.atMs || (e.atMs === next.atMs && e.order < next.order)))
          next = e
      if (next === null) break
      this.#nowMs = Math.max(this.#nowMs, next.atMs)
      this.#entries.delete(next)
      next.fn()
      await this.settle(1)
    }
    this.#nowMs = endMs
    await this.settle()
  }
}
