import { Config, StoreAction, StoreActionKind } from '#proto'
import type { AppliedProposal, StateMachine } from '../../src/raft/index.js'

/** The one kind of operation: key := value, where every value is used once. */
export const setRegister = (key: string, value: string): StoreAction =>
  StoreAction.create({ kind: StoreActionKind.STORE_UPDATE, config: Config.create({ id: `${key}=${value}` }) })

export interface Cell {
  readonly value: string
  /** Log index of the entry that wrote it. */
  readonly index: number
}

/** Registers, plus a hash over everything ever applied: equal hashes mean equal histories. */
export class Registers implements StateMachine {
  readonly cells = new Map<string, Cell>()
  readonly values = new Set<string>()
  chain = 0
  index = 0
  restores = 0

  constructor(private readonly applied: (index: number, chain: number, values: readonly string[]) => void) {}

  apply(index: number, proposals: readonly AppliedProposal[]): void {
    const values: string[] = []
    for (const p of proposals)
      for (const a of p.actions) {
        const [key, value] = a.config!.id.split('=') as [string, string]
        if (this.values.has(value)) throw new Error(`${value} applied a second time at ${index}`)
        this.values.add(value)
        this.cells.set(key, { value, index })
        this.chain = mix(this.chain, `${index} ${key} ${value}`)
        values.push(value)
      }
    this.index = index
    this.applied(index, this.chain, values)
  }

  snapshot(): Iterable<Uint8Array> {
    const text = JSON.stringify({
      chain: this.chain,
      cells: [...this.cells].sort(([a], [b]) => (a < b ? -1 : 1)),
      values: [...this.values].sort(),
    })
    const bytes = Buffer.from(text)
    const third = Math.ceil(bytes.length / 3)
    return [0, 1, 2].map((i) => bytes.subarray(i * third, (i + 1) * third))
  }

  async restore(index: number, pieces: AsyncIterable<Uint8Array>): Promise<void> {
    const read: Uint8Array[] = []
    for await (const piece of pieces) read.push(piece)
    const state = JSON.parse(Buffer.concat(read).toString()) as {
      chain: number
      cells: [string, Cell][]
      values: string[]
    }
    this.cells.clear()
    for (const [k, c] of state.cells) this.cells.set(k, c)
    this.values.clear()
    for (const v of state.values) this.values.add(v)
    this.chain = state.chain
    this.index = index
    this.restores++
  }
}

/** FNV-1a over the text, started with the hash before. */
export function mix(hash: number, text: string): number {
  let h = (hash ^ 0x811c9dc5) >>> 0
  for (let i = 0; i < text.length; i++) h = Math.imul(h ^ text.charCodeAt(i), 0x01000193) >>> 0
  return h
}
