import type { Clock, Timer } from '../common/index.js'
import type { Logger } from '../common/log.js'

/** Layers and directories taken away at one time. */
const PARALLEL = 2
/** Sweeping waits until nothing was added for so long: a run of short containers is not slowed by the leaving of the last. */
const QUIET_MS = 100
/** But never with more than this waiting. */
const WAITING_MAX = 64

/**
 * Takes away what nothing refers to any more, after the answer was given: a removed container's layer and directory. What
 * a crash leaves of it, the start-up check finds.
 */
export class Sweeper {
  readonly #queue: { readonly what: string; readonly run: () => Promise<unknown> }[] = []
  #running = 0
  #idle: (() => void)[] = []

  #timer: Timer | null = null

  constructor(
    private readonly clock: Clock,
    private readonly logger: Logger,
  ) {}

  add(what: string, run: () => Promise<unknown>): void {
    this.#queue.push({ what, run })
    this.#timer?.cancel()
    this.#timer = null
    if (this.#queue.length > WAITING_MAX) this.#next()
    else this.#timer = this.clock.after(QUIET_MS, () => this.#next())
  }

  /** Does what waits now; resolves when all that was added is done. */
  idle(): Promise<void> {
    this.#timer?.cancel()
    this.#next()
    if (this.#running === 0) return Promise.resolve()
    return new Promise((resolve) => this.#idle.push(resolve))
  }

  #next(): void {
    while (this.#running < PARALLEL) {
      const job = this.#queue.shift()
      if (!job) break
      this.#running++
      job
        .run()
        .catch((caught) => this.logger.error('sweeping failed', { what: job.what, error: String(caught) }))
        .finally(() => {
          this.#running--
          this.#next()
        })
    }
    if (this.#running === 0) for (const resolve of this.#idle.splice(0)) resolve()
  }
}
