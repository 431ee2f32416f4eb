import { notFound, ShoalError, unavailable, unlessAborted } from '../../common/index.js'

/** Plugins by name, as the daemon finds them (src/runtime/plugin). */
export interface NetworkPlugins {
  /** notFound `noSuchPlugin` where there is none of the name that implements `subsystem`. `retry`: waits for it to come. */
  get(
    name: string,
    subsystem: string,
    retry?: boolean,
  ): Promise<{
    readonly client: {
      call(
        method: string,
        body: object,
        options: { readonly timeoutMs: number; readonly retry?: boolean },
      ): Promise<Record<string, unknown>>
    }
  }>
}

/** What is asked of a plugin: to be said again by the one who gives back. */
export interface PluginCall {
  readonly plugin: string
  /** "NetworkDriver.Join" */
  readonly method: string
  readonly body: object
}

/** For what a user waits for, ms: a plugin that is being restarted gets its time too. */
const ASK_MS = 60_000
/** For giving back, ms: a container's end does not wait for a plugin that hangs. */
const TELL_MS = 10_000

/** The calls of networks and addresses to plugins; errors carry the plugin's name and its own words. */
export class PluginCalls {
  readonly #stop = new AbortController()

  constructor(private readonly plugins: NetworkPlugins | null) {}

  /** Who waits for a plugin waits no more; what was asked is owed. */
  stop(): void {
    this.#stop.abort(unavailable('stopping', 'this daemon is stopping'))
  }

  async ask(call: PluginCall): Promise<Record<string, unknown>> {
    return this.#call(call, { timeoutMs: ASK_MS, retry: true })
  }

  /** Does not wait for a plugin that is not there. */
  async tell(call: PluginCall): Promise<Record<string, unknown>> {
    return this.#call(call, { timeoutMs: TELL_MS })
  }

  /** null: the plugin does not know the method, or fails it: not every one has it. */
  async askIfAble(call: PluginCall): Promise<Record<string, unknown> | null> {
    try {
      return await this.ask(call)
    } catch (caught) {
      if (isRefusal(caught)) return null
      throw caught
    }
  }

  async #call(
    { plugin, method, body }: PluginCall,
    options: { readonly timeoutMs: number; readonly retry?: boolean },
  ): Promise<Record<string, unknown>> {
    if (!this.plugins) throw notFound('noSuchPlugin', `plugin "${plugin}" not found`, { plugin })
    const { client } = await this.plugins.get(plugin, method.split('.')[0]!, options.retry ?? false)
    const answer = await unlessAborted(client.call(method, body, options), this.#stop.signal)
    // IPAM plugins say "Error" where all others say "Err".
    if (typeof answer.Error === 'string' && answer.Error !== '')
      throw new ShoalError('internal', 'pluginFailed', `${method}: ${answer.Error}`, { plugin, method })
    return answer
  }
}

/** Not every plugin has every method. */
export const isUnknownMethod = (caught: unknown): boolean =>
  isRefusal(caught) && (caught as ShoalError).fields.status === 404

/** The plugin has answered, and its answer is no: it has not done it, and will say so again. */
export const isRefusal = (caught: unknown): boolean => (caught as { code?: unknown }).code === 'pluginFailed'
