import type { Authorizer } from '../api/index.js'
import { ShoalError } from '../common/index.js'
import type { PluginService } from '../engine/index.js'
import type { Plugins } from '../runtime/index.js'

/** What the plugins implement, in their protocol's word. */
const SUBSYSTEM = 'authz'
/** A request waits for the plugin: dockerd's limit. */
const CALL_MS = 30_000

/** The plugins that the setting authorization-plugins names, as the API asks them. */
export class Authorizers {
  constructor(
    /** A reload may change them. */
    public names: readonly string[],
    private readonly managed: Pick<PluginService, 'list'>,
    private readonly plugins: Plugins,
  ) {}

  /** A managed one that was disabled is asked no more, as with dockerd; any other that does not answer refuses everything. */
  chain(): readonly Authorizer[] {
    if (this.names.length === 0) return []
    const off = new Set(this.managed.list().flatMap((p) => (p.enabled ? [] : [p.name, p.name.replace(/:latest$/, '')])))
    return this.names.filter((name) => !off.has(name)).map((name) => this.#authorizer(name))
  }

  /** An engine whose guard is not there does not start. */
  async check(): Promise<void> {
    for (const name of this.names)
      try {
        await this.plugins.get(name, SUBSYSTEM)
      } catch (caught) {
        const e = ShoalError.from(caught)
        throw new ShoalError(e.kind, e.code, `error validating authorization plugin: ${e.message}`, e.fields, {
          cause: e,
        })
      }
  }

  #authorizer(name: string): Authorizer {
    return {
      name,
      call: async (method, question) => {
        const { client } = await this.plugins.get(name, SUBSYSTEM)
        return client.call(method, question, { timeoutMs: CALL_MS, retry: true })
      },
    }
  }
}
