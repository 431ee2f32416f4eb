import { Config, StoreAction, StoreActionKind } from '#proto'
import type { AppliedProposal, StateMachine } from '../../../src/raft/index.js'

/** The change that adds `name`; `bytes` makes it large. */
export const put = (name: string, bytes = 0): StoreAction =>
  StoreAction.create({
    kind: StoreActionKind.STORE_CREATE,
    config: Config.create({ id: bytes > 0 ? `${name}:${'x'.repeat(bytes)}` : name }),
  })

/** A state machine that remembers the names in the order they were applied; any double shows. */
export class Register implements StateMachine {
  names: string[] = []
  readonly at = new Map<string, number>()
  lastIndex = 0
  restored = 0
  #watchers = new Set<() => void>()

  apply(index: number, proposals: readonly AppliedProposal[]): void {
    if (index <= this.lastIndex) throw new Error(`entry ${index} applied after ${this.lastIndex}`)
    this.lastIndex = index
    for (const p of proposals)
      for (const a of p.actions) {
        const name = a.config!.id.split(':')[0]!
        if (this.at.has(name)) throw new Error(`${name} applied at ${this.at.get(name)} and ${index}`)
        this.at.set(name, index)
        this.names.push(name)
      }
    for (const w of [...this.#watchers]) w()
  }

  snapshot(): Iterable<Uint8Array> {
    return pieces(this.names.map((n) => `${n} ${this.at.get(n)}\n`))
  }

  async restore(index: number, pieces: AsyncIterable<Uint8Array>): Promise<void> {
    const read: Uint8Array[] = []
    for await (const piece of pieces) read.push(piece)
    this.names = []
    this.at.clear()
    for (const line of Buffer.concat(read).toString().split('\n').filter(Boolean)) {
      const [name, at] = line.split(' ')
      this.names.push(name!)
      this.at.set(name!, Number(at))
    }
    this.lastIndex = index
    this.restored++
    for (const w of [...this.#watchers]) w()
  }

  onChange(fn: () => void): () => void {
    this.#watchers.add(fn)
    return () => this.#watchers.delete(fn)
  }
}

function* pieces(lines: readonly string[]): Iterable<Uint8Array> {
  for (let i = 0; i < lines.length; i += 1000) yield Buffer.from(lines.slice(i, i + 1000).join(''))
}
