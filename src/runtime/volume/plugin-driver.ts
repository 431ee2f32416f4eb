import { isAbsolute } from 'node:path'
import { internal, isKind, notFound } from '../../common/index.js'
import type { Plugins } from '../plugin/registry.js'

/** dockerd's limits: what may provision storage, and what only asks. */
const LONG_MS = 120_000
const SHORT_MS = 60_000
/** Where every plugin is asked: one that hangs must not hang `volume ls`, nor the first use of another's volume. */
const LIST_MS = 10_000

export const VOLUME_DRIVER = 'VolumeDriver'

/** What a plugin tells of a volume. */
export interface PluginVolume {
  readonly name: string
  /** On the host; empty while it is mounted nowhere. */
  readonly mountpoint: string
  readonly createdAt: string
  readonly status: Readonly<Record<string, unknown>> | null
}

const isFailed = (caught: unknown): boolean => (caught as { code?: string }).code === 'pluginFailed'
const record = (x: unknown): Record<string, unknown> =>
  x !== null && typeof x === 'object' && !Array.isArray(x) ? (x as Record<string, unknown>) : {}

/** The volume plugin protocol (docker's "Volume plugins", version 1): one plugin that keeps volumes. */
export class PluginDriver {
  #scope: 'local' | 'global' | null = null

  constructor(
    readonly name: string,
    private readonly plugins: Plugins,
  ) {}

  async #call(
    method: string,
    body: object,
    timeoutMs: number,
    retry = true,
  ): Promise<{ readonly answer: Record<string, unknown>; readonly hostPath: (path: string) => Promise<string> }> {
    const plugin = await this.plugins.get(this.name, VOLUME_DRIVER).catch((caught: unknown) => {
      if (!isKind(caught, 'notFound')) throw caught
      throw notFound(
        'noVolumeDriver',
        `error looking up volume plugin ${this.name}: plugin "${this.name}" not found`,
        { driver: this.name },
        { cause: caught },
      )
    })
    return {
      answer: await plugin.client.call(`${VOLUME_DRIVER}.${method}`, body, { timeoutMs, retry }),
      hostPath: plugin.hostPath,
    }
  }

  /** Gives a plugin that is being started its time. */
  awaited(): Promise<void> {
    return this.plugins.awaited(this.name)
  }

  async create(name: string, options: Readonly<Record<string, string>>): Promise<void> {
    await this.#call('Create', { Name: name, Opts: options }, LONG_MS)
  }

  async remove(name: string): Promise<void> {
    await this.#call('Remove', { Name: name }, SHORT_MS)
  }

  /** `id` names the user: the plugin may count by it. */
  async mount(name: string, id: string): Promise<string> {
    const { answer, hostPath } = await this.#call('Mount', { Name: name, ID: id }, LONG_MS)
    const path = answer.Mountpoint
    if (typeof path !== 'string' || !isAbsolute(path))
      throw internal(
        'pluginBroken',
        `plugin "${this.name}" mounted volume ${name} on "${String(path ?? '')}", which is no absolute path`,
        { driver: this.name, name },
      )
    return hostPath(path)
  }

  async unmount(name: string, id: string): Promise<void> {
    await this.#call('Unmount', { Name: name, ID: id }, SHORT_MS)
  }

  /** Null when the plugin does not know it. `isLook`: one that does not answer soon is not waited for. */
  async get(name: string, isLook = false): Promise<PluginVolume | null> {
    try {
      const { answer, hostPath } = await this.#call('Get', { Name: name }, isLook ? LIST_MS : SHORT_MS, !isLook)
      return await this.#volume(answer.Volume, hostPath)
    } catch (caught) {
      // The protocol has no word for "no such volume": an error of the plugin's own is one.
      if (isFailed(caught)) return null
      throw caught
    }
  }

  async list(): Promise<PluginVolume[]> {
    const { answer, hostPath } = await this.#call('List', {}, LIST_MS, false)
    const list = Array.isArray(answer.Volumes) ? answer.Volumes : []
    const volumes = await Promise.all(list.map((v) => this.#volume(v, hostPath)))
    return volumes.filter((v) => v !== null)
  }

  /** Where the plugin says nothing: local. */
  async scope(): Promise<'local' | 'global'> {
    if (this.#scope === null) {
      const capabilities = await this.#call('Capabilities', {}, SHORT_MS, false).then(
        ({ answer }) => record(answer.Capabilities),
        (caught: unknown): Record<string, unknown> => {
          if (isFailed(caught)) return {}
          throw caught
        },
      )
      this.#scope = capabilities.Scope === 'global' ? 'global' : 'local'
    }
    return this.#scope
  }

  async #volume(x: unknown, hostPath: (path: string) => Promise<string>): Promise<PluginVolume | null> {
    const { Name, Mountpoint, CreatedAt, Status } = record(x)
    if (typeof Name !== 'string' || Name === '') return null
    return {
      name: Name,
      mountpoint: typeof Mountpoint === 'string' && Mountpoint !== '' ? await hostPath(Mountpoint) : '',
      createdAt: typeof CreatedAt === 'string' ? CreatedAt : '',
      status: Status === undefined || Status === null ? null : record(Status),
    }
  }
}
