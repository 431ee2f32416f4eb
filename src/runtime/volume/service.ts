import { randomBytes } from 'node:crypto'
import { lookup } from 'node:dns/promises'
import { mkdir, open, readdir, readFile, rename, rm } from 'node:fs/promises'
import { isIP } from 'node:net'
import { dirname, isAbsolute, join } from 'node:path'
import { conflict, internal, invalid, isKind, newHexId, notFound, ShoalError } from '../../common/index.js'
import { KeyedMutex } from '../content/mutex.js'
import type { VolumeRecord, VolumeService } from '../contract.js'
import { defaultLayerTool, type RuntimeModules } from '../options.js'
import type { Plugins } from '../plugin/registry.js'
import { LayerTool } from '../snapshot/layer-tool.js'
import { PluginDriver, type PluginVolume, VOLUME_DRIVER } from './plugin-driver.js'

export interface VolumeOptions {
  /** Absolute directory of our own; a volume's data is <root>/<name>/_data. */
  readonly root: string
  readonly layerTool?: string
}

export interface VolumeModules extends RuntimeModules {
  /** Drivers other than `local`; none when absent. */
  readonly plugins?: Plugins
}

const NAME = /^[a-zA-Z0-9][a-zA-Z0-9_.-]+$/
const OPTION_NAMES = new Set(['type', 'o', 'device'])

/** Throws docker's texts. */
export function checkVolumeOptions(options: Readonly<Record<string, string>>): void {
  const names = Object.keys(options)
  if (names.length === 0) return
  for (const n of names)
    if (!OPTION_NAMES.has(n)) throw invalid('badVolumeOption', `invalid option: "${n}"`, { option: n })
  for (const n of ['device', 'type'])
    if (!options[n]) throw invalid('badVolumeOption', `missing required option: "${n}"`, { option: n })
}

async function writeSynced(path: string, text: string): Promise<void> {
  const f = await open(path, 'wx', 0o600)
  try {
    await f.writeFile(text)
    await f.sync()
  } finally {
    await f.close()
  }
}

/** Replaces a file: after a crash the old or the new content is there. */
async function writeDurable(path: string, text: string): Promise<void> {
  const temporary = `${path}.${randomBytes(6).toString('hex')}`
  try {
    await writeSynced(temporary, text)
    await rename(temporary, path)
  } catch (caught) {
    await rm(temporary, { force: true }) // on a full disk, say
    throw caught
  }
  await syncDirectory(dirname(path))
}

async function syncDirectory(path: string): Promise<void> {
  const d = await open(path, 'r')
  try {
    await d.sync()
  } finally {
    await d.close()
  }
}

/** Mount points of this namespace; octal escapes as in proc(5). */
async function mountPoints(): Promise<Set<string>> {
  const decode = (s: string): string =>
    s.replace(/\\([0-7]{3})/g, (_, o: string) => String.fromCharCode(Number.parseInt(o, 8)))
  const text = await readFile('/proc/self/mountinfo', 'utf8')
  return new Set(text.split('\n').flatMap((line) => (line ? [decode(line.split(' ')[4]!)] : [])))
}

/** Directory of a volume: a plugin's volumes may have names that are no file names. */
const directoryName = (name: string): string => encodeURIComponent(name)

/**
 * The volumes of this host. One is a directory that appears and goes by one rename: volume.json says what it is, _data
 * holds it. What type, o and device ask for is mounted on _data while a container uses it. Of a plugin's volume only
 * volume.json is here.
 *
 * Users of what has to be mounted are in users.json before the mount is made: such a mount outlives a crash of the daemon,
 * and the next one takes it up (`mount` again) or away (`settle`).
 */
class Volumes implements VolumeService {
  readonly #root: string
  readonly #tool: LayerTool
  readonly #records = new Map<string, VolumeRecord>()
  /** Volume → user → path that it was given; the path of a mount that was begun is empty. */
  readonly #users = new Map<string, Map<string, string>>()
  readonly #drivers = new Map<string, PluginDriver>()
  readonly #locks = new KeyedMutex()

  constructor(
    options: VolumeOptions,
    private readonly modules: VolumeModules,
  ) {
    if (!isAbsolute(options.root))
      throw invalid('badOptions', `the volume root must be an absolute path, not "${options.root}"`)
    this.#root = options.root
    this.#tool = new LayerTool(options.layerTool ?? defaultLayerTool())
  }

  async start(): Promise<void> {
    await mkdir(this.#root, { recursive: true, mode: 0o701 })
    for (const entry of await readdir(this.#root)) {
      if (entry.startsWith('.tmp-')) await this.#discard(join(this.#root, entry))
      else await this.#read(entry)
    }
  }

  async #read(entry: string): Promise<void> {
    try {
      const found = JSON.parse(await readFile(join(this.#root, entry, 'volume.json'), 'utf8')) as VolumeRecord
      const name = found.driver === 'local' ? entry : found.name
      this.#records.set(name, found.driver === 'local' ? { ...found, mountpoint: this.#data(name) } : found)
      const users = await readFile(join(this.#root, entry, 'users.json'), 'utf8').catch(() => '{}')
      this.#users.set(name, new Map(Object.entries(JSON.parse(users) as Record<string, string>)))
    } catch (e) {
      // Somebody's directory, or a damaged record: never removed without being asked.
      this.modules.logger.error('a directory among the volumes is no volume', {
        name: entry,
        reason: e instanceof Error ? e.message : String(e),
      })
    }
  }

  #directory(name: string): string {
    return join(this.#root, directoryName(name))
  }

  #data(name: string): string {
    return join(this.#directory(name), '_data')
  }

  #driver(name: string): PluginDriver {
    const { plugins } = this.modules
    if (!plugins)
      throw notFound('noVolumeDriver', `error looking up volume plugin ${name}: plugin "${name}" not found`, {
        driver: name,
      })
    let driver = this.#drivers.get(name)
    if (!driver) {
      driver = new PluginDriver(name, plugins)
      this.#drivers.set(name, driver)
    }
    return driver
  }

  async create(spec: Parameters<VolumeService['create']>[0]): Promise<VolumeRecord> {
    const driver = this.modules.plugins?.canonical(spec.driver || 'local') ?? (spec.driver || 'local')
    const anonymous = !spec.name
    const name = spec.name || newHexId()
    if (driver === 'local' && !this.#records.has(name)) {
      if (name.length === 1)
        throw invalid(
          'badVolumeName',
          `create ${name}: volume name is too short, names should be at least two alphanumeric characters`,
          { name },
        )
      if (!NAME.test(name))
        throw invalid(
          'badVolumeName',
          `create ${name}: "${name}" includes invalid characters for a local volume name, only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, use absolute path`,
          { name },
        )
      checkVolumeOptions(spec.options ?? {})
    }
    if (directoryName(name).length > 255 || name.startsWith('.'))
      throw invalid('badVolumeName', `create ${name}: a volume name has at most 255 characters and no dot in front`, {
        name,
      })
    return this.#locks.run(name, async () => {
      const there = await this.#usable(name, spec.driver ? driver : null, spec.isHeld)
      if (there) return there
      const record: VolumeRecord = {
        name,
        driver,
        mountpoint: driver === 'local' ? this.#data(name) : '',
        labels: spec.labels ?? null,
        options: spec.options ?? null,
        createdMs: this.modules.clock.now(),
        anonymous,
      }
      // The plugin first: a record must not speak of a volume that was never made. Without one the plugin still lists it.
      const made = driver === 'local' ? record : await this.#make(record)
      const temporary = join(this.#root, `.tmp-${randomBytes(12).toString('hex')}`)
      await mkdir(driver === 'local' ? join(temporary, '_data') : temporary, { recursive: true, mode: 0o755 })
      try {
        await writeSynced(join(temporary, 'volume.json'), JSON.stringify(record))
        await syncDirectory(temporary)
        await rename(temporary, this.#directory(name))
        await syncDirectory(this.#root)
      } catch (e) {
        await this.#discard(temporary)
        throw e
      }
      this.#records.set(name, record)
      return made
    })
  }

  /** One that exists is used whatever its driver, unless a driver was asked for; what its plugin has lost is forgotten. */
  async #usable(
    name: string,
    driver: string | null,
    isHeld: ((name: string) => boolean) | undefined,
  ): Promise<VolumeRecord | null> {
    const record = this.#records.get(name)
    if (!record) return null
    const clash = (why: string): ShoalError =>
      conflict('volumeExists', `create ${name}: ${why}: volume name must be unique`, { name })
    const found = await this.#look(record).catch((e: unknown) => {
      throw clash(
        `found reference to volume '${name}' in driver '${record.driver}', but got an error while checking the driver: ${(e as Error).message}`,
      )
    })
    if (found && driver !== null && driver !== record.driver)
      throw clash(`driver '${record.driver}' already has volume '${name}'`)
    if (found) return found
    if (this.users(name).length > 0 || isHeld?.(name))
      throw clash(
        `found references to volume '${name}' in driver '${record.driver}' but the volume was not found in the driver -- you may need to remove containers referencing this volume or force remove the volume to re-create it`,
      )
    await this.#forget(name)
    return null
  }

  async #make(record: VolumeRecord): Promise<VolumeRecord> {
    const driver = this.#driver(record.driver)
    try {
      await driver.awaited()
      // One that the plugin has already is taken over as it is.
      if (!(await driver.get(record.name))) await driver.create(record.name, record.options ?? {})
      // What it says of the new one decides nothing.
      return (await this.#look(record)) ?? { ...record, scope: await driver.scope() }
    } catch (caught) {
      throw named(`create ${record.name}`, caught)
    }
  }

  /** A record with what its plugin says now; null when the plugin does not know it. */
  async #look(record: VolumeRecord): Promise<VolumeRecord | null> {
    if (record.driver === 'local') return record
    const driver = this.#driver(record.driver)
    const said = await driver.get(record.name)
    return said && merged(record, said, await driver.scope())
  }

  async get(name: string): Promise<VolumeRecord> {
    const record = this.#records.get(name)
    if (record) {
      const known = await this.#look(record)
      if (known) return known
      throw notFound('noSuchVolume', `get ${name}: no such volume`, { name })
    }
    const found = await Promise.all(
      (await this.#plugins()).names.map(async (driver) => {
        // One that cannot tell is as good as one that does not know it.
        const said = await this.#driver(driver)
          .get(name, true)
          .catch(() => null)
        return said && merged(foreign(driver, name), said, await this.#driver(driver).scope())
      }),
    )
    for (const volume of found) if (volume) return volume
    throw notFound('noSuchVolume', `get ${name}: no such volume`, { name })
  }

  async has(name: string): Promise<boolean> {
    return (
      this.#records.has(name) ||
      (await this.get(name).then(
        () => true,
        (caught: unknown) => {
          if (isKind(caught, 'notFound')) return false
          throw caught
        },
      ))
    )
  }

  async #plugins(): Promise<{ readonly names: readonly string[]; readonly warnings: readonly string[] }> {
    return (await this.modules.plugins?.list(VOLUME_DRIVER)) ?? { names: [], warnings: [] }
  }

  async list(onWarning: (text: string) => void = () => {}): Promise<readonly VolumeRecord[]> {
    const local = [...this.#records.values()].filter((r) => r.driver === 'local')
    const { names, warnings } = await this.#plugins()
    for (const w of warnings) onWarning(w)
    // Volumes of plugins that are not there now are not shown, but it is said that some are missing.
    const known = [...this.#records.values()].map((r) => r.driver).filter((d) => d !== 'local')
    const lists = await Promise.all(
      [...new Set([...names, ...known])].map(async (name) => {
        const driver = this.#driver(name)
        try {
          const [volumes, scope] = [await driver.list(), await driver.scope()]
          return volumes.map((v) => merged(this.#recordOf(name, v.name), v, scope))
        } catch (caught) {
          onWarning(`list ${name}: ${(caught as Error).message}`)
          return []
        }
      }),
    )
    return [...local, ...lists.flat()]
  }

  #recordOf(driver: string, name: string): VolumeRecord {
    const known = this.#records.get(name)
    return known?.driver === driver ? known : foreign(driver, name)
  }

  async remove(name: string, options: Parameters<VolumeService['remove']>[1]): Promise<VolumeRecord | null> {
    return this.#locks.run(name, async () => {
      const record = this.#records.get(name) ?? (await this.#unrecorded(name))
      if (!record) {
        if (options.force) return null
        throw notFound('noSuchVolume', `get ${name}: no such volume`, { name })
      }
      const users = options.users?.(name) ?? this.users(name)
      if (users.length > 0)
        throw conflict('volumeInUse', `remove ${name}: volume is in use - [${users.join(', ')}]`, { name, users })
      if (record.driver === 'local') {
        // Before anything is removed: what is mounted there is not ours.
        await this.#tool.run('umount', ['--root', this.#data(name)])
        if ((await mountPoints()).has(this.#data(name)))
          throw internal(
            'volumeMounted',
            `the volume ${name} is still mounted on ${this.#data(name)}; unmount it first`,
          )
      } else
        try {
          await this.#driver(record.driver).remove(name)
        } catch (caught) {
          if (!options.force) throw named(`remove ${name}`, caught)
          this.modules.logger.warn('a volume is forgotten though its plugin did not remove it', {
            name,
            driver: record.driver,
            reason: (caught as Error).message,
          })
        }
      if (this.#records.has(name)) await this.#forget(name)
      return record
    })
  }

  /** Its directory, and what it holds, go. */
  async #forget(name: string): Promise<void> {
    const doomed = join(this.#root, `.tmp-${randomBytes(12).toString('hex')}`)
    await rename(this.#directory(name), doomed).catch((caught) => {
      if (caught.code !== 'ENOENT') throw caught // somebody took it away by hand
    })
    await syncDirectory(this.#root)
    this.#records.delete(name)
    this.#users.delete(name)
    await this.#discard(doomed)
  }

  /** One that a plugin has and that was not made here. */
  async #unrecorded(name: string): Promise<VolumeRecord | null> {
    return this.get(name).catch((caught: unknown) => {
      if (isKind(caught, 'notFound')) return null
      throw caught
    })
  }

  async #discard(path: string): Promise<void> {
    await this.#tool.run('umount', ['--root', join(path, '_data')])
    await this.#tool.run('remove', ['--root', path])
  }

  async mount(name: string, containerId: string): Promise<string> {
    return this.#locks.run(name, async () => {
      const record = this.#records.get(name) ?? (await this.#adopted(name))
      const users = this.#users.get(name) ?? new Map<string, string>()
      this.#users.set(name, users)
      if (!isMounted(record)) {
        users.set(containerId, record.mountpoint)
        return record.mountpoint
      }
      const known = users.get(containerId)
      // Mounted for it already, by this daemon or one that died.
      if (known && (record.driver !== 'local' || (await mountPoints()).has(known))) return known
      users.set(containerId, '')
      await this.#saveUsers(name)
      try {
        let path = record.mountpoint
        if (record.driver !== 'local') path = await this.#driver(record.driver).mount(name, containerId)
        else await this.#mountDevice(record)
        users.set(containerId, path)
        await this.#saveUsers(name)
        return path
      } catch (caught) {
        users.delete(containerId)
        await this.#saveUsers(name)
        throw record.driver === 'local' ? caught : named(`mount ${name}`, caught)
      }
    })
  }

  /** A volume that only its plugin knew gets a record with its first user. */
  async #adopted(name: string): Promise<VolumeRecord> {
    const { mountpoint: _, status: __, scope: ___, ...record } = await this.get(name)
    const kept: VolumeRecord = { ...record, mountpoint: '' }
    await mkdir(this.#directory(name), { recursive: true, mode: 0o755 })
    await writeDurable(join(this.#directory(name), 'volume.json'), JSON.stringify(kept))
    await syncDirectory(this.#root)
    this.#records.set(name, kept)
    return kept
  }

  async #saveUsers(name: string): Promise<void> {
    await writeDurable(
      join(this.#directory(name), 'users.json'),
      JSON.stringify(Object.fromEntries(this.#users.get(name) ?? [])),
    )
  }

  async #mountDevice(record: VolumeRecord): Promise<void> {
    // By another container, or left by a daemon that died: containers may be using it.
    if ((await mountPoints()).has(record.mountpoint)) return
    const { type = '', device = '', o = '' } = record.options ?? {}
    await this.#tool.run('mount', [
      '--root',
      record.mountpoint,
      '--type',
      type,
      '--source',
      device,
      '--options',
      type.startsWith('nfs') ? await resolveAddress(o) : o,
    ])
  }

  async unmount(name: string, containerId: string): Promise<void> {
    await this.#locks.run(name, () => this.#unmount(name, containerId))
  }

  async #unmount(name: string, containerId: string): Promise<void> {
    const users = this.#users.get(name)
    const record = this.#records.get(name)
    if (!record || !users?.delete(containerId)) return
    if (!isMounted(record)) return
    if (record.driver === 'local') {
      if (users.size === 0) await this.#tool.run('umount', ['--root', record.mountpoint])
    } else
      try {
        await this.#driver(record.driver).unmount(name, containerId)
      } catch (caught) {
        // The container has ended and goes its way; what is left is the plugin's.
        this.modules.logger.warn('a plugin did not unmount a volume', {
          name,
          driver: record.driver,
          containerId,
          reason: (caught as Error).message,
        })
      }
    await this.#saveUsers(name)
  }

  settle(isLive: (containerId: string) => boolean): void {
    for (const [name, users] of this.#users)
      for (const id of [...users.keys()].filter((u) => !isLive(u)))
        void this.unmount(name, id).catch((caught: unknown) =>
          this.modules.logger.error('a mount that a crash left stays', {
            name,
            containerId: id,
            reason: (caught as Error).message,
          }),
        )
  }

  async usage(name: string): Promise<number> {
    const record = this.#records.get(name)
    if (record?.driver !== 'local') return -1
    return this.#tool.usage(record.mountpoint)
  }

  async drivers(): Promise<readonly string[]> {
    return ['local', ...(await this.#plugins()).names]
  }

  driversInUse(): ReadonlySet<string> {
    return new Set([...this.#records.values()].map((r) => r.driver))
  }

  users(name: string): readonly string[] {
    return [...(this.#users.get(name)?.keys() ?? [])]
  }
}

/** What must be mounted before use and unmounted after it. */
const isMounted = (record: VolumeRecord): boolean => record.driver !== 'local' || Boolean(record.options?.device)

const foreign = (driver: string, name: string): VolumeRecord => ({
  name,
  driver,
  mountpoint: '',
  labels: {},
  options: {},
  createdMs: 0,
  anonymous: false,
})

const merged = (record: VolumeRecord, said: PluginVolume, scope: 'local' | 'global'): VolumeRecord => ({
  ...record,
  mountpoint: said.mountpoint,
  createdMs: record.createdMs || Date.parse(said.createdAt) || 0,
  scope,
  ...(said.status ? { status: said.status } : {}),
})

/** dockerd writes what it tried before what went wrong. */
function named(what: string, caught: unknown): ShoalError {
  const e = ShoalError.from(caught)
  return new ShoalError(e.kind, e.code, `${what}: ${e.message}`, e.fields, { cause: caught })
}

/** The kernel's nfs wants a number in addr=; people write names. */
async function resolveAddress(o: string): Promise<string> {
  const host = /(?:^|,)addr=([^,]+)/.exec(o)?.[1]
  if (!host || isIP(host) !== 0) return o
  try {
    return o.replace(`addr=${host}`, `addr=${(await lookup(host)).address}`)
  } catch (cause) {
    throw new ShoalError('unavailable', 'noAddress', `cannot resolve the nfs server "${host}"`, { host }, { cause })
  }
}

export const createVolumeService = (options: VolumeOptions, modules: VolumeModules): VolumeService =>
  new Volumes(options, modules)
