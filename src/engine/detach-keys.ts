import { invalid } from '../common/index.js'

export const DEFAULT_DETACH_KEYS = 'ctrl-p,ctrl-q'

/** "ctrl-p,ctrl-q", "ctrl-@", "a" → bytes. @throws invalid `invalidDetachKeys`. */
export function parseDetachKeys(text: string): Uint8Array {
  const keys = (text || DEFAULT_DETACH_KEYS).split(',')
  return Uint8Array.from(
    keys.map((key) => {
      if (key.length === 1) return key.charCodeAt(0)
      const m = /^ctrl-([a-z@[\]\\^_])$/.exec(key)
      if (!m) throw invalid('invalidDetachKeys', `Invalid detach keys (${text}) provided`, { keys: text })
      return m[1]!.toUpperCase().charCodeAt(0) - 64
    }),
  )
}

/** Finds the sequence in typed bytes. A part of it is held back until it is whole, or passed on when it is not. */
export class DetachFilter {
  #matched = 0

  constructor(private readonly keys: Uint8Array) {}

  /** What the process is to get; `detached` when the sequence is complete: what follows it is dropped. */
  push(data: Uint8Array): { readonly pass: Uint8Array; readonly detached: boolean } {
    const pass: number[] = []
    for (const byte of data) {
      if (byte === this.keys[this.#matched]) {
        if (++this.#matched === this.keys.length) return { pass: Uint8Array.from(pass), detached: true }
        continue
      }
      for (let i = 0; i < this.#matched; i++) pass.push(this.keys[i]!)
      this.#matched = 0
      if (byte === this.keys[0]) {
        this.#matched = 1
        if (this.keys.length === 1) return { pass: Uint8Array.from(pass), detached: true }
      } else pass.push(byte)
    }
    return { pass: Uint8Array.from(pass), detached: false }
  }
}
