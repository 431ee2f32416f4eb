import type { Logger } from '../common/log.js'

/**
 * What to take back when a later step fails. Steps are undone in reverse; one that fails is logged and the rest still run,
 * and the start-up check finds what it left.
 */
export class UndoList {
  readonly #steps: { readonly name: string; readonly undo: () => Promise<unknown> }[] = []

  constructor(
    private readonly logger: Logger,
    private readonly fields: object,
  ) {}

  add(name: string, undo: () => Promise<unknown>): void {
    this.#steps.push({ name, undo })
  }

  async run(): Promise<void> {
    for (const step of this.#steps.splice(0).reverse()) {
      try {
        await step.undo()
      } catch (caught) {
        this.logger.error('undoing a step failed', { ...this.fields, step: step.name, error: String(caught) })
      }
    }
  }
}
