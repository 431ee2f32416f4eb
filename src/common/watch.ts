import { unavailable } from './errors.js'

/** A synchronous bell: listeners run in the order they came, inside `emit`; a throwing listener is the caller's bug. */
export class Emitter<T> {
  readonly #listeners = new Set<(value: T) => void>()

  /** Returns the function that ends the subscription. */
  on(listener: (value: T) => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  emit(value: T): void {
    for (const l of [...this.#listeners]) l(value)
  }

  get size(): number {
    return this.#listeners.size
  }
}

/**
 * A bounded queue between one emitter and one slow reader. When it overflows, the reader's iteration throws
 * unavailable `readerBehind` instead of growing without limit.
 */
export class BoundedQueue<T> implements AsyncIterable<T> {
  readonly #items: T[] = []
  #wake: (() => void) | null = null
  #closed = false
  #error: Error | null = null

  constructor(private readonly limit: number) {}

  push(item: T): void {
    if (this.#closed) return
    if (this.#items.length >= this.limit) {
      this.fail(unavailable('readerBehind', `a reader fell more than ${this.limit} items behind; read on from now`))
      return
    }
    this.#items.push(item)
    this.#wake?.()
  }

  /** Items already queued are still delivered. */
  close(): void {
    this.#closed = true
    this.#wake?.()
  }

  fail(error: Error): void {
    this.#error = error
    this.close()
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<T> {
    for (;;) {
      while (this.#items.length > 0) yield this.#items.shift()!
      if (this.#error) throw this.#error
      if (this.#closed) return
      await new Promise<void>((resolve) => {
        this.#wake = resolve
      })
      this.#wake = null
    }
  }
}
