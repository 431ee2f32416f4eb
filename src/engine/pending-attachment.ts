import { isKind } from '../common/index.js'
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
    const streams = await attachUnlessEnding(live, this.request)
    if (this.#isCancelled) streams?.close()
    else this.#settle(streams)
  }

  /** The client went, or there will be no process. */
  cancel(): void {
    this.#isCancelled = true
    this.#settle(null)
  }
}

/** Null for one whose process has just ended: its end is on the way. */
export const attachUnlessEnding = (live: LiveContainer, request: AttachRequest): Promise<AttachedStreams | null> =>
  live.attach(request).catch((caught: unknown) => {
    if (isKind(caught, 'unavailable')) return null
    throw caught
  })
