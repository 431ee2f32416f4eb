import { join } from 'node:path'
import type { OverlayContext } from '../context.js'
import { RecordStore } from '../record-store.js'
import { isRefusal, type PluginCall, type PluginCalls } from './calls.js'

/** Waits between attempts to give something back to a plugin that does not answer, ms. */
const AGAIN_MIN_MS = 1000
const AGAIN_MAX_MS = 60_000

interface Owed {
  readonly calls: readonly PluginCall[]
}

/**
 * What plugins have lent, each as the call that gives it back, by owner (a network's or an endpoint's id), in the order in
 * which it was lent. A debt is on disk before the plugin is asked, wherever the call can be told beforehand, and else as soon
 * as its answer is there; it is struck out when it was paid, last first. What stays unpaid because a plugin does not answer is
 * paid in the background, also after a crash: nothing waits for it, and nothing is lost.
 */
export class PluginDebts {
  readonly #owed = new Map<string, readonly PluginCall[]>()
  readonly #store: RecordStore<Owed>
  readonly #stop = new AbortController()
  readonly #paying = new Map<string, Promise<void>>()
  #isOpen = false

  constructor(
    private readonly ctx: OverlayContext,
    private readonly calls: PluginCalls,
  ) {
    this.#store = new RecordStore(join(ctx.options.root, 'plugins'), true, ctx.log)
  }

  async load(): Promise<void> {
    for (const [owner, { calls }] of await this.#store.load()) this.#owed.set(owner, calls)
  }

  /** From here on plugins are asked: debts of owners that are no more are paid in the background. */
  open(owners: ReadonlySet<string>): void {
    this.#isOpen = true
    for (const owner of this.#owed.keys()) if (!owners.has(owner)) this.#payLater(owner)
  }

  /** What is not paid by now is on disk. */
  async stop(): Promise<void> {
    this.#stop.abort()
    await Promise.all(this.#paying.values())
  }

  async add(owner: string, call: PluginCall): Promise<void> {
    await this.#set(owner, [...(this.#owed.get(owner) ?? []), call])
  }

  /** Not owed: the plugin has refused what it would have been for, or has it back. */
  async strike(owner: string, call: PluginCall): Promise<void> {
    await this.#set(
      owner,
      (this.#owed.get(owner) ?? []).filter((c) => c !== call),
    )
  }

  /** Asks, and owes `debt` for it unless the plugin refuses. */
  async askOwing(owner: string, call: PluginCall, debt: PluginCall): Promise<Record<string, unknown>> {
    await this.add(owner, debt)
    try {
      return await this.calls.ask(call)
    } catch (caught) {
      // Without an answer it may have been done.
      if (isRefusal(caught) || (caught as { code?: unknown }).code === 'noSuchPlugin') await this.strike(owner, debt)
      throw caught
    }
  }

  /** Pays the owner's last debt of that method; throws what the plugin says to it, and it stays. */
  async pay(owner: string, method: string): Promise<void> {
    const call = this.#owed.get(owner)?.findLast((c) => c.method === method)
    if (!call) return
    await this.calls.tell(call)
    await this.strike(owner, call)
  }

  /** Pays all of the owner's; never fails: what a plugin does not take now is left for later. */
  async release(owner: string): Promise<void> {
    if (!this.#isOpen || !this.#owed.has(owner)) return
    if (!(await this.#payAll(owner))) this.#payLater(owner)
  }

  #payLater(owner: string): void {
    if (this.#paying.has(owner) || this.#stop.signal.aborted) return
    const run = async (): Promise<void> => {
      for (let wait = AGAIN_MIN_MS; !(await this.#payAll(owner)); wait = Math.min(AGAIN_MAX_MS, wait * 2))
        await this.ctx.clock.sleep(wait, this.#stop.signal)
    }
    const paying = run()
      .catch((error: unknown) => {
        if (!this.#stop.signal.aborted)
          this.ctx.log.error('what plugins lent was not given back', { owner, error: String(error) })
      })
      .finally(() => this.#paying.delete(owner))
    this.#paying.set(owner, paying)
  }

  /** False: somebody did not answer. */
  async #payAll(owner: string): Promise<boolean> {
    const silent = new Set<string>()
    for (const call of [...(this.#owed.get(owner) ?? [])].reverse()) {
      // What came later goes first: the rest waits with it, but only for its own plugin.
      if (silent.has(call.plugin)) continue
      try {
        await this.calls.tell(call)
      } catch (caught) {
        if (!isRefusal(caught)) {
          silent.add(call.plugin)
          this.ctx.log.debug('a plugin does not take back now what it lent', { ...call, error: String(caught) })
          continue
        }
        this.ctx.log.warn('a plugin refuses to take back what it lent', { ...call, error: String(caught) })
      }
      await this.strike(owner, call)
    }
    return silent.size === 0
  }

  async #set(owner: string, calls: readonly PluginCall[]): Promise<void> {
    if (calls.length === 0) {
      this.#owed.delete(owner)
      await this.#store.delete(owner)
      return
    }
    this.#owed.set(owner, calls)
    await this.#store.put(owner, { calls })
  }
}
