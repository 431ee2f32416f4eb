/** One at a time, in the order of asking. Not re-entrant: what holds it must not ask again. */
export class Mutex {
  #tail: Promise<unknown> = Promise.resolve()

  run<T>(critical: () => Promise<T>): Promise<T> {
    const turn = this.#tail.then(critical)
    this.#tail = turn.catch(() => {}) // the one who asked gets the error
    return turn
  }
}
