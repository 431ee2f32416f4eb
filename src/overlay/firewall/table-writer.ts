import type { Logger } from '../../common/index.js'
import type { NetNative } from '../native.js'
import { deleteTable, renderDifference, renderTable, type TableModel } from './table.js'

/** Many namespaces go from one model to the next together: what was compared once is remembered. */
const compared = new WeakMap<TableModel, WeakMap<TableModel, { readonly text: string | null }>>()

function differenceOf(from: TableModel, to: TableModel): string | null {
  let known = compared.get(from)
  if (!known) {
    known = new WeakMap()
    compared.set(from, known)
  }
  let entry = known.get(to)
  if (!entry) {
    entry = { text: renderDifference(from, to) }
    known.set(to, entry)
  }
  return entry.text
}

/**
 * Keeps one table of one namespace as its owner wants it. Changes that arrive while the kernel is being told are put
 * together into the next transaction; `write` resolves when the kernel has that state or a later one.
 */
export class TableWriter {
  #applied: TableModel | null = null
  #wanted: TableModel | null = null
  #commands: string[] = []
  #running: Promise<void> | null = null
  #next: Promise<void> | null = null

  constructor(
    private readonly native: Pick<NetNative, 'netNft'>,
    private readonly netns: string | null,
    private readonly log: Logger,
  ) {}

  /** `commands` run in the same transaction, after the difference: for elements that end by themselves. */
  write(model: TableModel, commands: readonly string[] = []): Promise<void> {
    this.#wanted = model
    this.#commands.push(...commands)
    if (!this.#running) {
      this.#running = this.#run()
      return this.#running
    }
    this.#next ??= this.#running.then(
      () => this.#turn(),
      () => this.#turn(),
    )
    return this.#next
  }

  /** Removes the table. */
  async remove(): Promise<void> {
    await this.#running?.catch(() => {}) // its own caller has the error
    const model = this.#applied ?? this.#wanted
    this.#applied = null
    if (model) await this.native.netNft(this.netns, deleteTable(model))
  }

  #turn(): Promise<void> {
    this.#next = null
    this.#running = this.#run()
    return this.#running
  }

  async #run(): Promise<void> {
    await null // so that #running is set before it can be cleared, and changes of this turn go together
    const model = this.#wanted!
    const commands = this.#commands
    this.#commands = []
    try {
      const tail = commands.length === 0 ? '' : `${commands.join('\n')}\n`
      const difference = this.#applied ? differenceOf(this.#applied, model) : null
      if (difference === '' && tail === '') return
      if (difference !== null) {
        try {
          await this.native.netNft(this.netns, difference + tail)
          this.#applied = model
          return
        } catch (e) {
          // Somebody changed the table under us: state it whole.
          this.log.warn('table changed by others, writing it whole', {
            table: model.name,
            netns: this.netns,
            error: String(e),
          })
        }
      }
      this.#applied = null
      await this.native.netNft(this.netns, renderTable(model) + tail)
      this.#applied = model
    } finally {
      this.#running = null
    }
  }
}
