/** One at a time, in the order of asking. */
export class Mutex {
  #tail: Promise<unknown> = Promise.resolve()

  run<T>(fn: () => Promise<T>): Promise<T> {
    const result = this.#tail.then(fn)
    // The next in line waits for the end, not for success.
    this.#tail = result.then(
      () => undefined,
      () => undefined,
    )
    return result
  }
}

/** One mutex a key; a key costs memory only while somebody holds or awaits it. */
export class KeyedMutex {
  readonly #held = new Map<string, { mutex: Mutex; users: number }>()

  async run<T>(key: string, fn: () => Promise<T>): Promise<T> {
    const entry = this.#held.get(key) ?? { mutex: new Mutex(), users: 0 }
    this.#held.set(key, entry)
    entry.users++
    try {
      return await entry.mutex.run(fn)
    } finally {
      if (--entry.users === 0) this.#held.delete(key)
    }
  }

  isHeld(key: string): boolean {
    return this.#held.has(key)
  }
}

/** At most `limit` at a time; the rest wait in order. A waiter whose signal aborts leaves the line. */
export class Limiter {
  #running = 0
  readonly #waiting: (() => void)[] = []

  constructor(public limit: number) {}

  async run<T>(fn: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    signal?.throwIfAborted()
    if (this.#running < this.limit) this.#running++
    else await this.#wait(signal)
    try {
      return await fn()
    } finally {
      // The place is handed on, so that nobody can slip in between.
      const next = this.#waiting.shift()
      if (next) next()
      else this.#running--
    }
  }

  #wait(signal?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const go = (): void => {
        signal?.removeEventListener('abort', leave)
        resolve()
      }
      const leave = (): void => {
        const i = this.#waiting.indexOf(go)
        if (i >= 0) this.#waiting.splice(i, 1)
        reject(signal?.reason)
      }
      this.#waiting.push(go)
      signal?.addEventListener('abort', leave, { once: true })
    })
  }
}
