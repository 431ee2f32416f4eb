import type { Clock, Timer } from '../../src/common/index.js'

interface Event {
  at: number
  order: number
  readonly owner: Owner | null
  readonly life: number
  readonly run: () => void
  cancelled: boolean
}

/** Whoever events belong to: they wait while it is paused and are void once it died. */
export interface Owner {
  /** Rises with each crash. */
  life: number
  pausedUntil: number
  readonly clock: LocalClock
}

/** A machine's own idea of time: it runs at a rate of its own and jumps, but its monotonic reading never goes back. */
export class LocalClock {
  #base = 0
  #since = 0
  #rate = 1
  #wallOffset = 0

  get rate(): number {
    return this.#rate
  }
  at(worldMs: number): number {
    return this.#base + (worldMs - this.#since) * this.#rate
  }
  wallAt(worldMs: number): number {
    return this.at(worldMs) + this.#wallOffset
  }
  /** Running timers keep the rate that they were set with. */
  run(worldMs: number, rate: number): void {
    this.#base = this.at(worldMs)
    this.#since = worldMs
    this.#rate = rate
  }
  /** The wall clock either way; the monotonic one, as after a suspended machine, only ahead. */
  jump(ms: number): void {
    this.#wallOffset += ms
    if (ms > 0) this.#base += ms
  }
}

/** One queue of events in virtual milliseconds. Between two of them every promise that can go on does. */
export class VirtualTime {
  now = 0
  steps = 0
  #order = 0
  readonly #heap: Event[] = []

  schedule(owner: Owner | null, delayMs: number, run: () => void): { cancelled: boolean } {
    const event = {
      at: this.now + Math.max(0, delayMs),
      order: this.#order++,
      owner,
      life: owner?.life ?? 0,
      run,
      cancelled: false,
    }
    this.#push(event)
    return event
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
      if (next.cancelled) continue
      if (owner !== null) {
        if (owner.life !== next.life) continue
        if (owner.pausedUntil > this.now) {
          next.at = owner.pausedUntil
          next.order = this.#order++
          this.#push(next)
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
      const handle = this.schedule(owner, ms / owner.clock.rate, fn)
      return {
        cancel: () => {
          handle.cancelled = true
        },
      }
    }
    return {
      now: () => owner.clock.wallAt(this.now),
      monotonic: () => owner.clock.at(this.now),
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

/**
 * All that promises can do without new events: Node runs a tick only when no promise can go on. Nothing in a simulation
 * waits for the event loop itself; it turns now and then for the rejections that nobody handled.
 */
let ticks = 0
const settled = (): Promise<void> =>
  new Promise((resolve) => {
    if (++ticks % 64 === 0) setImmediate(resolve)
    else process.nextTick(resolve)
  })
