import type { AttachedStreams, AttachRequest, LiveContainer } from '../runtime/index.js'

/** A client that attached before the process runs. Start connects it, so that it misses no byte. */
export class PendingAttachment {
  /** Null when the process never came. */
  readonly streams: Promise<AttachedStreams | null>
  #settle!: (streams: AttachedStreams | null) => void
  #isCancelled = false

  constructor(private readonly request: AttachRequest) {
    this.streams = new Promise((resolve) => {
      this.#settle = resolve
    })
  }

  async connect(live: LiveContainer): Promise<void> {
    if (this.#isCancelled) return
    const streams = await live.attach(this.request)
    if (this.#isCancelled) streams.close()
    else this.#settle(streams)
  }

  /** The client went, or there will be no process. */
  cancel(): void {
    this.#isCancelled = true
    this.#settle(null)
  }
}
