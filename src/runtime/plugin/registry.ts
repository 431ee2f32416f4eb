import type { Clock, Logger } from '../../common/index.js'
import { notFound } from '../../common/index.js'
import { PluginClient, RETRY_WAITS_MS } from './client.js'
import { findPlugin, type PluginDirs, pluginNames } from './discovery.js'

/** Activation of a plugin that may be there or not. */
const ACTIVATE_MS = 30_000
/** In lists a plugin that does not answer soon is left out. */
const LOOK_MS = 5_000

/** An enabled plugin that Shoal runs itself. */
export interface ManagedPlugin {
  /** With its tag: "vendor/name:latest". */
  readonly name: string
  readonly client: PluginClient
  /** "VolumeDriver", ... as its configuration declares. */
  readonly implements: readonly string[]
  /** A path as the plugin sees it → as the host does. */
  readonly hostPath: (path: string) => Promise<string>
}

/** A plugin that answers, of either kind. */
export interface PluginHandle {
  readonly name: string
  readonly client: PluginClient
  readonly hostPath: (path: string) => Promise<string>
}

/** All plugins of this host: those that somebody else runs, found by their sockets and spec files, and the managed ones. */
export class Plugins {
  readonly #managed = new Map<string, ManagedPlugin>()
  /** Managed ones that do not run: nobody needs to wait for them. */
  readonly #dropped = new Set<string>()
  readonly #clients = new Map<string, PluginClient>()

  constructor(
    private readonly dirs: PluginDirs,
    private readonly modules: { readonly clock: Clock; readonly logger: Logger },
  ) {}

  add(plugin: ManagedPlugin): void {
    this.#managed.set(plugin.name, plugin)
    this.#dropped.delete(plugin.name)
  }

  drop(name: string): void {
    this.#managed.delete(name)
    this.#dropped.add(name)
  }

  /** Waits, as dockerd does, for one that is still being started; resolves also when it has not come. */
  async awaited(name: string): Promise<void> {
    for (const wait of RETRY_WAITS_MS) {
      if (this.#managed.has(this.canonical(name)) || this.#dropped.has(name) || this.#dropped.has(`${name}:latest`))
        return
      if (await this.#legacy(name)) return
      await this.modules.clock.sleep(wait)
    }
  }

  /** "vendor/name" → "vendor/name:latest" where that is a managed plugin. */
  canonical(name: string): string {
    return !this.#managed.has(name) && this.#managed.has(`${name}:latest`) ? `${name}:latest` : name
  }

  /**
   * Throws notFound `noSuchPlugin` where there is none of the name that implements `subsystem`. `retry`: waits for one that is
   * being restarted.
   */
  async get(name: string, subsystem: string, retry = true): Promise<PluginHandle> {
    const managed = this.#managed.get(this.canonical(name))
    if (managed) {
      if (!managed.implements.includes(subsystem)) throw this.#missing(name)
      return managed
    }
    const client = await this.#legacy(name)
    if (!client) throw this.#missing(name)
    const able = await client.implements({ timeoutMs: retry ? ACTIVATE_MS : LOOK_MS, retry })
    if (!able.includes(subsystem)) throw this.#missing(name)
    return { name, client, hostPath: async (path) => path }
  }

  /** Names of all that implement `subsystem`, and why others cannot tell. */
  async list(subsystem: string): Promise<{ readonly names: readonly string[]; readonly warnings: readonly string[] }> {
    const names = [...this.#managed.values()].filter((p) => p.implements.includes(subsystem)).map((p) => p.name)
    const warnings: string[] = []
    await Promise.all(
      (await pluginNames(this.dirs)).map(async (name) => {
        try {
          const client = await this.#legacy(name)
          if ((await client?.implements({ timeoutMs: LOOK_MS }))?.includes(subsystem)) names.push(name)
        } catch (caught) {
          warnings.push((caught as Error).message)
        }
      }),
    )
    return { names: names.sort(), warnings }
  }

  async #legacy(name: string): Promise<PluginClient | null> {
    const address = await findPlugin(this.dirs, name)
    if (!address) {
      this.#clients.delete(name)
      return null
    }
    const known = this.#clients.get(name)
    if (known && JSON.stringify(known.address) === JSON.stringify(address)) return known
    const client = new PluginClient(name, address, this.modules.clock)
    this.#clients.set(name, client)
    return client
  }

  #missing(name: string): Error {
    return notFound('noSuchPlugin', `plugin "${name}" not found`, { plugin: name })
  }
}
