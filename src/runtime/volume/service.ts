import { randomBytes } from 'node:crypto'
import { lookup } from 'node:dns/promises'
import { mkdir, open, readdir, readFile, rename } from 'node:fs/promises'
import { isIP } from 'node:net'
import { isAbsolute, join } from 'node:path'
import { conflict, internal, invalid, newHexId, notFound, ShoalError } from '../../common/index.js'
import { KeyedMutex } from '../content/mutex.js'
import type { VolumeRecord, VolumeService } from '../contract.js'
import { defaultLayerTool, type RuntimeModules } from '../options.js'
import { LayerTool } from '../snapshot/layer-tool.js'

export interface VolumeOptions {
  /** Absolute directory of our own; a volume's data is <root>/<name>/_data. */
  readonly root: string
  readonly layerTool?: string
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

/**
 * The local driver. A volume is a directory that appears and goes by one rename: volume.json says what it is, _data holds
 * it. What type, o and device ask for is mounted on _data while a container uses it; such a mount outlives a crash of the
 * daemon and is taken up again.
 */
class LocalVolumes implements VolumeService {
  readonly #root: string
  readonly #tool: LayerTool
  readonly #records = new Map<string, VolumeRecord>()
  readonly #users = new Map<string, Set<string>>()
  readonly #locks = new KeyedMutex()

  constructor(
    options: VolumeOptions,
    private readonly modules: RuntimeModules,
  ) {
    if (!isAbsolute(options.root))
      throw invalid('badOptions', `the volume root must be an absolute path, not "${options.root}"`)
    this.#root = options.root
    this.#tool = new LayerTool(options.layerTool ?? defaultLayerTool())
  }

  async start(): Promise<void> {
    await mkdir(this.#root, { recursive: true, mode: 0o701 })
    for (const name of await readdir(this.#root)) {
      if (name.startsWith('.tmp-')) await this.#discard(join(this.#root, name))
      else await this.#read(name)
    }
  }

  async #read(name: string): Promise<void> {
    try {
      const record = JSON.parse(await readFile(join(this.#root, name, 'volume.json'), 'utf8')) as VolumeRecord
      this.#records.set(name, { ...record, mountpoint: this.#data(name) })
    } catch (e) {
      // Somebody's directory, or a damaged record: never removed without being asked.
      this.modules.logger.error('a directory among the volumes is no volume', {
        name,
        reason: e instanceof Error ? e.message : String(e),
      })
    }
  }

  #data(name: string): string {
    return join(this.#root, name, '_data')
  }

  async create(spec: Parameters<VolumeService['create']>[0]): Promise<VolumeRecord> {
    const driver = spec.driver || 'local'
    if (driver !== 'local')
      throw notFound('noVolumeDriver', `error looking up volume plugin ${driver}: plugin "${driver}" not found`, {
        driver,
      })
    const anonymous = !spec.name
    const name = spec.name || newHexId()
    if (!NAME.test(name))
      throw invalid(
        'badVolumeName',
        `create ${name}: "${name}" includes invalid characters for a local volume name, only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, use absolute path`,
        { name },
      )
    if (name.length > 255)
      throw invalid('badVolumeName', `create ${name}: a volume name has at most 255 characters`, { name })
    checkVolumeOptions(spec.options ?? {})
    return this.#locks.run(name, async () => {
      const there = this.#records.get(name)
      if (there) {
        if (there.driver !== driver)
          throw conflict(
            'volumeExists',
            `A volume named ${name} already exists with the ${there.driver} driver. Choose a different volume name.`,
            { name },
          )
        return there
      }
      const record: VolumeRecord = {
        name,
        driver,
        mountpoint: this.#data(name),
        labels: { ...spec.labels },
        options: { ...spec.options },
        createdMs: this.modules.clock.now(),
        anonymous,
      }
      const temporary = join(this.#root, `.tmp-${randomBytes(12).toString('hex')}`)
      await mkdir(join(temporary, '_data'), { recursive: true, mode: 0o755 })
      try {
        await writeSynced(join(temporary, 'volume.json'), JSON.stringify(record))
        await syncDirectory(temporary)
        await rename(temporary, join(this.#root, name))
        await syncDirectory(this.#root)
      } catch (e) {
        await this.#discard(temporary)
        throw e
      }
      this.#records.set(name, record)
      return record
    })
  }

  async get(name: string): Promise<VolumeRecord> {
    const record = this.#records.get(name)
    if (!record) throw notFound('noSuchVolume', `get ${name}: no such volume`, { name })
    return record
  }

  async list(): Promise<readonly VolumeRecord[]> {
    return [...this.#records.values()]
  }

  async remove(name: string, options: { readonly force: boolean }): Promise<void> {
    await this.#locks.run(name, async () => {
      if (!this.#records.has(name)) {
        if (options.force) return
        throw notFound('noSuchVolume', `get ${name}: no such volume`, { name })
      }
      const users = this.users(name)
      if (users.length > 0)
        throw conflict('volumeInUse', `remove ${name}: volume is in use - [${users.join(', ')}]`, { name, users })
      // Before anything is removed: what is mounted there is not ours.
      await this.#tool.run('umount', ['--root', this.#data(name)])
      if ((await mountPoints()).has(this.#data(name)))
        throw internal('volumeMounted', `the volume ${name} is still mounted on ${this.#data(name)}; unmount it first`)
      const doomed = join(this.#root, `.tmp-${randomBytes(12).toString('hex')}`)
      await rename(join(this.#root, name), doomed)
      await syncDirectory(this.#root)
      this.#records.delete(name)
      this.#users.delete(name)
      await this.#discard(doomed)
    })
  }

  async #discard(path: string): Promise<void> {
    await this.#tool.run('umount', ['--root', join(path, '_data')])
    await this.#tool.run('remove', ['--root', path])
  }

  async mount(name: string, containerId: string): Promise<string> {
    return this.#locks.run(name, async () => {
      const record = await this.get(name)
      const users = this.#users.get(name) ?? new Set<string>()
      if (users.size === 0 && record.options.device) await this.#mountDevice(record)
      users.add(containerId)
      this.#users.set(name, users)
      return record.mountpoint
    })
  }

  async #mountDevice(record: VolumeRecord): Promise<void> {
    // Left by a daemon that died: containers may be using it.
    if ((await mountPoints()).has(record.mountpoint)) return
    const { type = '', device = '', o = '' } = record.options
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
    await this.#locks.run(name, async () => {
      const users = this.#users.get(name)
      if (!users?.delete(containerId) || users.size > 0) return
      this.#users.delete(name)
      const record = this.#records.get(name)
      if (record?.options.device) await this.#tool.run('umount', ['--root', record.mountpoint])
    })
  }

  async usage(name: string): Promise<number> {
    const record = await this.get(name)
    return this.#tool.usage(record.mountpoint)
  }

  users(name: string): readonly string[] {
    return [...(this.#users.get(name) ?? [])]
  }
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

export const createVolumeService = (options: VolumeOptions, modules: RuntimeModules): VolumeService =>
  new LocalVolumes(options, modules)
