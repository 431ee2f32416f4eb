/** Runs the work of one key one after another, of different keys side by side. Waiters run in the order they came. */
export class KeyedLock {
  readonly #tails = new Map<string, Promise<unknown>>()

  run<T>(key: string, work: () => Promise<T>): Promise<T> {
    const before = this.#tails.get(key) ?? Promise.resolve()
    const mine = before.then(work, work)
    this.#tails.set(key, mine)
    const forget = (): void => {
      if (this.#tails.get(key) === mine) this.#tails.delete(key)
    }
    mine.then(forget, forget)
    return mine
  }

  /** Resolves when everything queued so far has run. */
  async idle(): Promise<void> {
    await Promise.allSettled(this.#tails.values())
  }
}
