import { invalid } from '../common/index.js'
import type { Image } from '../runtime/index.js'

/** What a stage came to; null: it began with scratch and has no step. */
export interface StageResult {
  readonly image: Image | null
}

/** Stages that are done, by number and by name. */
export class StageResults {
  readonly #all: StageResult[] = []
  readonly #names = new Map<string, StageResult>()

  /** @throws invalid `stageTaken` */
  checkFree(name: string): void {
    if (name !== '' && this.#names.has(name)) throw invalid('stageTaken', `${name} stage name already used`, { name })
  }

  add(name: string, image: Image | null): void {
    this.checkFree(name)
    const result = { image }
    this.#all.push(result)
    if (name !== '') this.#names.set(name, result)
  }

  byName(name: string): StageResult | null {
    return this.#names.get(name.toLowerCase()) ?? null
  }

  /**
   * Null: neither a stage's name nor a number; an image then.
   *
   * @throws invalid `noStage` for a number that no stage before has.
   */
  find(nameOrNumber: string): StageResult | null {
    const named = this.byName(nameOrNumber)
    if (named || !/^[-+]?\d+$/.test(nameOrNumber)) return named
    const index = Number(nameOrNumber)
    if (index === this.#all.length) throw invalid('noStage', 'refers to current build stage')
    const result = this.#all[index]
    if (!result) throw invalid('noStage', 'index out of bounds')
    return result
  }
}
