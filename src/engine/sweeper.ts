import type { Logger } from '../common/log.js'

/** Layers and directories taken away at one time. */
const PARALLEL = 2

/**
 * Takes away what nothing refers to any more, after the answer was given: a removed container's layer and directory. What
 * a crash leaves of it, the start-up check finds.
 */
export class Sweeper {
  readonly #queue: { readonly what: string; readonly run: () => Promise<unknown> }[] = []
  #running = 0
  #idle: (() => void)[] = []

  constructor(private readonly logger: Logger) {}

  add(what: string, run: () => Promise<unknown>): void {
    this.#queue.push({ what, run })
    this.#next()
  }

  /** Resolves when all that was added is done. */
  idle(): Promise<void> {
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
