/** Between several writers and one reader: writers wait while `limit` items are unread. */
export class Channel<T> implements AsyncIterable<T> {
  readonly #items: T[] = []
  #reader: (() => void) | null = null
  readonly #writers: (() => void)[] = []
  #closed = false

  constructor(private readonly limit: number) {}

  /** False when the reader is gone: the writer stops. */
  async push(item: T): Promise<boolean> {
    while (!this.#closed && this.#items.length >= this.limit) await new Promise<void>((r) => this.#writers.push(r))
    if (this.#closed) return false
    this.#items.push(item)
    this.#reader?.()
    return true
  }

  /** What is queued is still delivered. */
  close(): void {
    this.#closed = true
    this.#reader?.()
    for (const w of this.#writers.splice(0)) w()
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<T> {
    try {
      for (;;) {
        while (this.#items.length > 0) {
          yield this.#items.shift()!
          this.#writers.shift()?.()
        }
        if (this.#closed) return
        await new Promise<void>((r) => {
          this.#reader = r
        })
        this.#reader = null
      }
    } finally {
      this.close()
    }
  }
}
