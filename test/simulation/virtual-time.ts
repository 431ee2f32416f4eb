import type { Clock, Timer } from '../../src/common/index.js'

interface Event {
  readonly at: number
  readonly order: number
  readonly owner: Owner | null
  readonly life: number
  readonly run: () => void
}

/** Whoever events belong to: they wait while it is paused and are void once it died. */
export interface Owner {
  /** Rises with each crash. */
  life: number
  pausedUntil: number
  /** Its clock runs so much faster than the world's. */
  rate: number
}

/** One queue of events in virtual milliseconds. Between two of them every promise that can go on does. */
export class VirtualTime {
  now = 0
  steps = 0
  #order = 0
  readonly #heap: Event[] = []

  schedule(owner: Owner | null, delayMs: number, run: () => void): { cancelled: boolean } {
    const handle = { cancelled: false }
    this.#push({
      at: this.now + Math.max(0, delayMs),
      order: this.#order++,
      owner,
      life: owner?.life ?? 0,
      run: () => {
        if (!handle.cancelled) run()
      },
    })
    return handle
  }

  /** Runs the next event; its owner, or undefined when none is left before `until`. */
  async step(until: number): Promise<Owner | null | undefined> {
    for (;;) {
      const next = this.#heap[0]
      if (next === undefined || next.at > until) {
        this.now = until
        return undefined
      }
      this.#pop()
      this.now = Math.max(this.now, next.at)
      const { owner } = next
      if (owner !== null) {
        if (owner.life !== next.life) continue
        if (owner.pausedUntil > this.now) {
          this.#push({ ...next, at: owner.pausedUntil, order: this.#order++ })
          continue
        }
      }
      this.steps++
      next.run()
      await settled()
      return owner
    }
  }

  /** The clock of one member: other rate, no calls while paused or dead. */
  clockOf(owner: Owner): Clock {
    const after = (ms: number, fn: () => void): Timer => {
      const handle = this.schedule(owner, ms / owner.rate, fn)
      return {
        cancel: () => {
          handle.cancelled = true
        },
      }
    }
    return {
      now: () => this.now * owner.rate,
      monotonic: () => this.now * owner.rate,
      after,
      every: (ms, fn) => {
        let timer: Timer
        const again = (): void => {
          timer = after(ms, () => {
            again()
            fn()
          })
        }
        again()
        return { cancel: () => timer.cancel() }
      },
      sleep: (ms, signal) =>
        new Promise((resolve, reject) => {
          const timer = after(ms, resolve)
          signal?.addEventListener('abort', () => {
            timer.cancel()
            reject(signal.reason)
          })
        }),
    }
  }

  #push(e: Event): void {
    const h = this.#heap
    let i = h.push(e) - 1
    while (i > 0) {
      const parent = (i - 1) >> 1
      if (before(h[parent]!, e)) break
      h[i] = h[parent]!
      i = parent
    }
    h[i] = e
  }

  #pop(): void {
    const h = this.#heap
    const last = h.pop()!
    if (h.length === 0) return
    let i = 0
    for (;;) {
      let child = 2 * i + 1
      if (child >= h.length) break
      if (child + 1 < h.length && before(h[child + 1]!, h[child]!)) child++
      if (before(last, h[child]!)) break
      h[i] = h[child]!
      i = child
    }
    h[i] = last
  }
}

const before = (a: Event, b: Event): boolean => a.at < b.at || (a.at === b.at && a.order < b.order)

/** All that promises can do without new events: the event loop turns only after the last of them. */
const settled = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))
