import { join } from 'node:path'
import { type Clock, conflict, newHexId, notFound, ShoalError } from '../../common/index.js'
import type { Logger } from '../../common/log.js'
import {
  type LiveContainer,
  PluginClient,
  PluginDistribution,
  type Plugins,
  type TransferOptions,
} from '../../runtime/index.js'
import type { EventService } from '../contract.js'
import { Mutex } from '../mutex.js'
import { RESTART_DELAY_MAX_MS, RESTART_DELAY_MIN_MS, RESTART_RESET_AFTER_MS } from '../restart-policy.js'
import {
  applySettings,
  checkPrivileges,
  defaultSettings,
  type PluginConfig,
  type PluginPrivilege,
  type PluginSettings,
  parsePluginConfig,
  privilegesOf,
} from './config.js'
import type { PluginProcesses, PluginToRun } from './process.js'
import { type PluginRecord, PluginStore } from './store.js'

/** How long a plugin may take until it answers, when nobody says. */
const ENABLE_MS = 30_000
/** When the daemon comes: one that takes longer is tried again in the background, so that it does not hold everything up. */
const START_MS = 10_000

/** docker's names of what plugins implement → the plugin API's subsystems. */
const SUBSYSTEMS: Readonly<Record<string, string>> = { authz: 'authz', volumedriver: 'VolumeDriver' }

export interface PluginView {
  readonly id: string
  readonly name: string
  readonly reference: string
  readonly enabled: boolean
  readonly config: PluginConfig
  readonly settings: PluginSettings
}

export interface PluginServiceModules {
  readonly clock: Clock
  readonly logger: Logger
  readonly distribution: PluginDistribution
  readonly processes: PluginProcesses
  /** Where enabled ones are found by those that use them. */
  readonly plugins: Plugins
  /** Drivers of volumes that there are. */
  readonly driversInUse: () => ReadonlySet<string>
  readonly publish: EventService['publish']
}

interface Entry {
  readonly record: PluginRecord
  readonly lock: Mutex
  live: LiveContainer | null
  /** Aborts a restart that waits. */
  restarting: AbortController | null
}

/** Managed plugins: installed from a registry or a directory, run by the engine while enabled (docs/engine.md). */
export class PluginService {
  readonly #entries = new Map<string, Entry>()
  readonly #store: PluginStore
  /** Names of those that are being installed: two requests must not race for one. */
  readonly #coming = new Set<string>()
  #isStopping = false

  constructor(
    private readonly options: { readonly root: string; readonly liveRestore: () => boolean },
    private readonly m: PluginServiceModules,
  ) {
    this.#store = new PluginStore(options.root, m.distribution, m.logger)
  }

  /** Adopts those that run, runs those that should, ends those that should not. One that fails is tried again in the background. */
  async start(): Promise<void> {
    for (const record of await this.#store.open())
      this.#entries.set(record.id, { record, lock: new Mutex(), live: null, restarting: null })
    await Promise.all(
      [...this.#entries.values()].map(async (e) => {
        const p = this.#toRun(e.record)
        if (!e.record.enabled) {
          this.m.plugins.drop(e.record.name)
          return this.m.processes.remove(p)
        }
        const live = await this.m.processes.adopt(p)
        if (live) return this.#joined(e, live)
        await this.m.processes.remove(p)
        await this.#relaunch(e, RESTART_DELAY_MIN_MS, START_MS)
      }),
    )
  }

  async stop(): Promise<void> {
    this.#isStopping = true
    await Promise.all(
      [...this.#entries.values()].map(async (e) => {
        e.restarting?.abort()
        if (this.options.liveRestore()) return
        await e.lock.run(async () => {
          if (e.live) await this.m.processes.stop(this.#toRun(e.record), e.live)
        })
      }),
    )
  }

  list(): PluginView[] {
    return [...this.#entries.values()]
      .map((e) => e.record)
      .sort((a, b) => (a.name < b.name ? -1 : 1))
      .map(view)
  }

  get(reference: string): PluginView {
    return view(this.#find(reference).record)
  }

  /** The name that a plugin gets: with its tag, without docker.io. */
  nameOf(reference: string): string {
    return PluginDistribution.names(reference).familiar
  }

  /**
   * As dockerd: empty where the registry does not give the configuration. The pull that follows tells why, and refuses a plugin
   * that asks for what was not granted.
   */
  async privileges(remote: string, options: TransferOptions): Promise<PluginPrivilege[]> {
    const config = await this.m.distribution.config(remote, options).catch((e: unknown) => {
      if (!(e instanceof ShoalError) || e.kind === 'invalid') throw e
      this.m.logger.warn('a registry does not tell what a plugin asks for', { remote, reason: e.message })
      return null
    })
    return config === null ? [] : privilegesOf(parsePluginConfig(config))
  }

  async pull(
    remote: string,
    options: TransferOptions & { readonly name: string; readonly privileges: readonly PluginPrivilege[] },
  ): Promise<void> {
    const { familiar, full } = PluginDistribution.names(options.name || remote)
    await this.#install(familiar, async (tree) => {
      const pulled = await this.m.distribution.pull(remote, tree, options)
      const config = parsePluginConfig(pulled.config)
      checkPrivileges(privilegesOf(config), options.privileges)
      return {
        name: familiar,
        reference: options.name ? PluginDistribution.names(remote).full : full,
        enabled: false,
        config,
        settings: defaultSettings(config),
      }
    })
    this.#tell('pull', familiar)
  }

  async create(name: string, tar: AsyncIterable<Uint8Array>): Promise<void> {
    const { familiar, full } = PluginDistribution.names(name)
    await this.#install(familiar, async (tree) => {
      const config = parsePluginConfig(await this.#store.unpackContext(tar, tree))
      const { rootfs: _, ...kept } = config
      const packed = parsePluginConfig((await this.m.distribution.pack(tree, kept)).config)
      return { name: familiar, reference: full, enabled: false, config: packed, settings: defaultSettings(packed) }
    })
    this.#tell('create', familiar)
  }

  async #install(
    name: string,
    fill: (tree: string) => Promise<Omit<PluginRecord, 'version' | 'id' | 'tree'>>,
  ): Promise<void> {
    const isTaken = this.#coming.has(name) || [...this.#entries.values()].some((e) => e.record.name === name)
    if (isTaken) throw conflict('pluginExists', `plugin "${name}" already exists`, { name })
    this.#coming.add(name)
    try {
      const record = await this.#store.install(newHexId(), fill)
      this.#entries.set(record.id, { record, lock: new Mutex(), live: null, restarting: null })
    } finally {
      this.#coming.delete(name)
    }
  }

  async upgrade(
    reference: string,
    remote: string,
    options: TransferOptions & { readonly privileges: readonly PluginPrivilege[] },
  ): Promise<void> {
    const e = this.#find(reference)
    await this.#locked(e, async () => {
      if (e.record.enabled)
        throw conflict('pluginEnabled', `plugin must be disabled before upgrading: plugin ${e.record.name} is enabled`)
      await this.#store.replace(e.record, async (tree) => {
        const config = parsePluginConfig((await this.m.distribution.pull(remote, tree, options)).config)
        checkPrivileges(privilegesOf(config), options.privileges)
        return { reference: PluginDistribution.names(remote).full, config, settings: defaultSettings(config) }
      })
    })
    this.#tell('upgrade', e.record.name)
  }

  async push(reference: string, options: TransferOptions): Promise<void> {
    const { record } = this.#find(reference)
    await this.m.distribution.push(record.name, this.#store.treeDir(record), options)
    this.#tell('push', record.name)
  }

  /** The process, its socket, then the record: enabled on disk means that it has answered once. */
  async enable(reference: string, options: { readonly timeoutSeconds: number }): Promise<void> {
    const e = this.#find(reference)
    await this.#locked(e, async () => {
      if (e.record.enabled)
        throw conflict('pluginEnabled', `plugin ${e.record.name} is already enabled`, { name: e.record.name })
      const p = this.#toRun(e.record)
      const live = await this.m.processes.launch(
        p,
        options.timeoutSeconds > 0 ? options.timeoutSeconds * 1000 : ENABLE_MS,
      )
      try {
        await this.#store.put({ ...e.record, enabled: true })
      } catch (caught) {
        await this.m.processes.remove(p)
        throw caught
      }
      e.record.enabled = true
      this.#joined(e, live)
    })
    this.#tell('enable', e.record.name)
  }

  /** The record, then the process: after a crash in between the next start ends it. */
  async disable(reference: string, options: { readonly force: boolean }): Promise<void> {
    const e = this.#find(reference)
    await this.#locked(e, async () => {
      if (!e.record.enabled)
        throw conflict('pluginDisabled', `plugin ${e.record.name} is already disabled`, { name: e.record.name })
      if (!options.force) this.#checkUnused(e.record)
      await this.#disable(e)
    })
    this.#tell('disable', e.record.name)
  }

  async #disable(e: Entry): Promise<void> {
    await this.#store.put({ ...e.record, enabled: false })
    e.record.enabled = false
    e.restarting?.abort()
    this.m.plugins.drop(e.record.name)
    const p = this.#toRun(e.record)
    const { live } = e
    e.live = null
    if (live) await this.m.processes.stop(p, live)
    else await this.m.processes.remove(p)
  }

  async remove(reference: string, options: { readonly force: boolean }): Promise<PluginView> {
    const e = this.#find(reference)
    await this.#locked(e, async () => {
      if (e.record.enabled && !options.force)
        throw conflict('pluginEnabled', `plugin ${e.record.name} is enabled; disable it first, or use force`, {
          name: e.record.name,
        })
      if (!options.force) this.#checkUnused(e.record)
      if (e.record.enabled) await this.#disable(e)
      await this.#store.remove(e.record)
      this.#entries.delete(e.record.id)
    })
    this.#tell('remove', e.record.name)
    return view(e.record)
  }

  async set(reference: string, changes: readonly string[]): Promise<void> {
    const e = this.#find(reference)
    await this.#locked(e, async () => {
      if (e.record.enabled)
        throw conflict(
          'pluginEnabled',
          `cannot set on an active plugin, disable plugin ${e.record.name} before setting`,
        )
      const settings = applySettings(e.record.config, e.record.settings, changes)
      await this.#store.put({ ...e.record, settings })
      e.record.settings = settings
    })
  }

  /** One change of a plugin at a time; what waited while it was removed finds it gone. */
  #locked<T>(e: Entry, change: () => Promise<T>): Promise<T> {
    return e.lock.run(async () => {
      if (this.#entries.get(e.record.id) !== e)
        throw notFound('noSuchPlugin', `plugin "${e.record.name}" not found`, { plugin: e.record.name })
      return change()
    })
  }

  #find(reference: string): Entry {
    const all = [...this.#entries.values()]
    const tagged = /:[^/]+$/.test(reference) ? reference : `${reference}:latest`
    const byName = all.find((e) => e.record.name === tagged || e.record.reference === tagged)
    if (byName) return byName
    const byId =
      reference.length >= 1 && /^[0-9a-f]+$/.test(reference) ? all.filter((e) => e.record.id.startsWith(reference)) : []
    if (byId.length > 1) throw conflict('ambiguousPlugin', `multiple plugins found with the id prefix "${reference}"`)
    if (byId.length === 1) return byId[0]!
    throw notFound('noSuchPlugin', `plugin "${reference}" not found`, { plugin: reference })
  }

  #checkUnused(record: PluginRecord): void {
    if (this.m.driversInUse().has(record.name))
      throw conflict(
        'pluginInUse',
        `plugin ${record.name} is in use: volumes or networks of it exist; remove them, or use force`,
        {
          name: record.name,
        },
      )
  }

  #toRun(record: PluginRecord): PluginToRun {
    const { id, name, config, settings } = record
    return { id, name, config, settings, dir: this.#store.dir(id), rootfs: join(this.#store.treeDir(record), 'rootfs') }
  }

  /** It runs: others may find it, and its end is watched. */
  #joined(e: Entry, live: LiveContainer): void {
    const p = this.#toRun(e.record)
    e.live = live
    this.m.plugins.add({
      name: p.name,
      client: new PluginClient(p.name, { socket: this.m.processes.socket(p) }, this.m.clock),
      implements: p.config.Interface.Types.flatMap((t) => SUBSYSTEMS[/^docker\.([a-z]+)\//.exec(t)?.[1] ?? ''] ?? []),
      hostPath: (path) => this.m.processes.hostPath(p, path),
    })
    const sinceMs = this.m.clock.monotonic()
    void live.exited
      .then(async (exit) => {
        if (e.live !== live || this.#isStopping) return
        e.live = null
        this.m.logger.warn('a plugin ended by itself and is started again', { plugin: p.name, exitCode: exit.exitCode })
        const ran = this.m.clock.monotonic() - sinceMs
        await this.m.processes.remove(p)
        const delay = ran >= RESTART_RESET_AFTER_MS ? RESTART_DELAY_MIN_MS : RESTART_DELAY_MIN_MS * 5
        await this.#later(e, delay)
      })
      .catch((caught: unknown) =>
        this.m.logger.error('a plugin could not be started again', { plugin: p.name, error: String(caught) }),
      )
  }

  async #later(e: Entry, delayMs: number): Promise<void> {
    const stop = new AbortController()
    e.restarting = stop
    await this.m.clock.sleep(delayMs, stop.signal).catch(() => {}) // aborted: below
    if (!stop.signal.aborted && !this.#isStopping) await this.#relaunch(e, delayMs)
  }

  /** Never throws: what fails is tried again, ever more seldom, until the plugin is disabled. */
  async #relaunch(e: Entry, lastDelayMs: number, timeoutMs = ENABLE_MS): Promise<void> {
    try {
      await e.lock.run(async () => {
        if (!e.record.enabled || e.live) return
        this.#joined(e, await this.m.processes.launch(this.#toRun(e.record), timeoutMs))
      })
    } catch (caught) {
      this.m.logger.error('an enabled plugin does not start', {
        plugin: e.record.name,
        error: ShoalError.from(caught).message,
      })
      void this.#later(e, Math.min(lastDelayMs * 2, RESTART_DELAY_MAX_MS))
    }
  }

  #tell(action: string, name: string): void {
    this.m.publish({ type: 'plugin', action, actorId: name, attributes: { name }, scope: 'local' })
  }
}

const view = ({ id, name, reference, enabled, config, settings }: PluginRecord): PluginView => ({
  id,
  name,
  reference,
  enabled,
  config,
  settings,
})
