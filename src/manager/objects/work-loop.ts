import type { Clock, Timer } from '../../common/index.js'
import { InvariantError, ShoalError } from '../../common/index.js'
import type { Logger } from '../../common/log.js'

/** Ceiling of the wait after a pass that failed, e.g. because no quorum took its writes. */
const RETRY_MAX_MS = 2_000
const RETRY_MIN_MS = 50
/** Before a pass that takes up what the one before could not do. */
const AGAIN_MS = 10

/**
 * Runs one pass of work after another, never two at once. A kick during a pass makes another one follow, so that changes
 * which come while writes are on their way are taken together: the write's round trip is the batching delay.
 */
export class WorkLoop {
  #kicked = false
  #running: Promise<void> | null = null
  #stopped = false
  #retry: Timer | null = null
  #failures = 0

  constructor(
    private readonly pass: () => Promise<void>,
    private readonly modules: { readonly clock: Clock; readonly logger: Logger },
    /** Called before the retry of a failed pass: what was assumed written may not be. */
    private readonly onFailure: () => void = () => {},
  ) {}

  /** Starts a pass in a microtask, after the present commit's listeners have all run. */
  kick(): void {
    this.#kicked = true
    if (this.#stopped || this.#running !== null || this.#retry !== null) return
    this.#running = Promise.resolve().then(() => this.#run())
  }

  /**
   * Called by a pass whose plan did not apply because of a write that is still under way: the next one comes a little later. At once
   * it would plan the same from the same state, and as no timer or message is heard between microtasks, do so for ever.
   */
  again(): void {
    this.#kicked = true
    if (!this.#stopped) this.#later(AGAIN_MS)
  }

  /** No pass starts any more; resolves when the present one is over. */
  async stop(): Promise<void> {
    this.#stopped = true
    this.#retry?.cancel()
    await this.#running
  }

  async #run(): Promise<void> {
    while (this.#kicked && !this.#stopped && this.#retry === null) {
      this.#kicked = false
      try {
        await this.pass()
        this.#failures = 0
      } catch (caught) {
        if (caught instanceof InvariantError) throw caught
        this.#failed(ShoalError.from(caught))
        break
      }
    }
    this.#running = null
    if (this.#kicked) this.kick()
  }

  #failed(error: ShoalError): void {
    this.#kicked = true
    if (this.#stopped) return
    const delay = Math.min(RETRY_MAX_MS, RETRY_MIN_MS * 2 ** Math.min(this.#failures++, 10))
    // No leader and no quorum are everyday states of a cluster, and the retry is the answer; anything else is a defect.
    const log = error.kind === 'unavailable' ? this.modules.logger.debug : this.modules.logger.error
    log('a pass failed and is tried again', {
      code: error.code,
      error: error.message,
      stack: error.stack,
      delayMs: delay,
    })
    this.onFailure()
    this.#later(delay)
  }

  #later(ms: number): void {
    this.#retry?.cancel()
    this.#retry = this.modules.clock.after(ms, () => {
      this.#retry = null
      if (this.#kicked) this.kick()
    })
  }
}

/** The first write of a batch that failed for want of a leader or quorum: the pass as a whole has to be tried again later. */
export function throwUnavailable(results: readonly (Error | null)[]): void {
  for (const error of results) if (error instanceof ShoalError && error.kind === 'unavailable') throw error
}
