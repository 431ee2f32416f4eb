import { BoundedQueue, type Clock, Emitter } from '../common/index.js'
import type { EventService } from './contract.js'
import type { EngineEvent } from './types.js'

/** Events kept for `since`: as many as dockerd keeps. */
const KEPT_EVENTS = 256
/** How far one reader may fall behind before its stream is ended. */
const READER_LIMIT = 16_384

/** Publishes events in order, each with a time later than the one before. */
export class EventHub implements EventService {
  readonly #kept: EngineEvent[] = []
  readonly #bell = new Emitter<EngineEvent>()
  #lastMs = 0
  /** Wall time of monotonic zero: fractions of a millisecond come from the monotonic clock. */
  readonly #originMs: number

  constructor(private readonly clock: Clock) {
    this.#originMs = clock.now() - clock.monotonic()
  }

  publish(event: Omit<EngineEvent, 'timeMs'>): void {
    const wall = this.clock.now()
    const fine = this.#originMs + this.clock.monotonic()
    // The wall clock may have been set since: it wins by whole milliseconds.
    const now = Math.abs(fine - wall) < 2 ? fine : wall
    this.#lastMs = Math.max(now, this.#lastMs + 0.001)
    const stamped = { ...event, timeMs: this.#lastMs }
    this.#kept.push(stamped)
    if (this.#kept.length > KEPT_EVENTS) this.#kept.shift()
    this.#bell.emit(stamped)
  }

  async *subscribe(options: {
    readonly sinceMs: number | null
    readonly untilMs: number | null
    readonly signal: AbortSignal
  }): AsyncGenerator<EngineEvent> {
    const { sinceMs, untilMs, signal } = options
    const queue = new BoundedQueue<EngineEvent>(READER_LIMIT)
    // An end alone asks for the past as well, as with dockerd.
    const past = sinceMs === null && untilMs === null ? [] : this.#kept.filter((e) => e.timeMs >= (sinceMs ?? 0))
    const off = this.#bell.on((event) => queue.push(event))
    const end = (): void => queue.close()
    signal.addEventListener('abort', end, { once: true })
    const timer = untilMs === null ? null : this.clock.after(Math.max(0, untilMs - this.clock.now()), end)
    if (signal.aborted) end()
    try {
      for (const event of past) if (untilMs === null || event.timeMs <= untilMs) yield event
      for await (const event of queue) if (untilMs === null || event.timeMs <= untilMs) yield event
    } finally {
      off()
      timer?.cancel()
      signal.removeEventListener('abort', end)
    }
  }
}
