import { randomBytes } from 'node:crypto'
import { lstat, mkdir, open, readdir, readFile, rename } from 'node:fs/promises'
import { join } from 'node:path'
import { invalid } from '../../common/index.js'
import type { Logger } from '../../common/log.js'
import type { PluginDistribution } from '../../runtime/index.js'
import type { PluginConfig, PluginSettings } from './config.js'

/** What is durable of one plugin: `plugin.json`. */
export interface PluginRecord {
  readonly version: 1
  readonly id: string
  /** "vendor/name:latest" */
  name: string
  /** "docker.io/vendor/name:latest": where it came from. */
  reference: string
  enabled: boolean
  /** Directory beside plugin.json that holds rootfs, config.json, manifest.json and layer. */
  tree: string
  config: PluginConfig
  settings: PluginSettings
}

const CONFIG_BYTES_MAX = 1024 * 1024

const newTree = (): string => `tree-${randomBytes(8).toString('hex')}`

/**
 * Plugins on disk. One appears and goes by the rename of its directory; it changes by the rename of its plugin.json, which
 * names the tree that counts. Everything else of a plugin is a stray and taken away at the next start.
 */
export class PluginStore {
  constructor(
    private readonly root: string,
    private readonly files: PluginDistribution,
    private readonly logger: Logger,
  ) {}

  dir(id: string): string {
    return join(this.root, id)
  }

  treeDir(r: Pick<PluginRecord, 'id' | 'tree'>): string {
    return join(this.dir(r.id), r.tree)
  }

  async open(): Promise<PluginRecord[]> {
    await mkdir(this.root, { recursive: true, mode: 0o711 })
    const records: PluginRecord[] = []
    for (const name of await readdir(this.root)) {
      const dir = join(this.root, name)
      if (name.startsWith('tmp-')) {
        await this.files.remove(dir)
        continue
      }
      try {
        const record = JSON.parse(await readFile(join(dir, 'plugin.json'), 'utf8')) as PluginRecord
        for (const entry of await readdir(dir))
          if (entry.startsWith('tree-') && entry !== record.tree) await this.files.remove(join(dir, entry))
        records.push(record)
      } catch (caught) {
        // A hand in our directory, or a bad disk: never removed without being asked.
        this.logger.error('a directory among the plugins is no plugin', { dir, reason: (caught as Error).message })
      }
    }
    return records
  }

  /** `fill` makes the tree in the directory that it is given; the record is durable when this resolves. */
  async install(
    id: string,
    fill: (tree: string) => Promise<Omit<PluginRecord, 'version' | 'id' | 'tree'>>,
  ): Promise<PluginRecord> {
    const temporary = join(this.root, `tmp-${randomBytes(8).toString('hex')}`)
    const tree = newTree()
    await mkdir(join(temporary, tree), { recursive: true, mode: 0o700 })
    try {
      const record: PluginRecord = { version: 1, id, tree, ...(await fill(join(temporary, tree))) }
      await writeSynced(join(temporary, 'plugin.json'), JSON.stringify(record))
      await this.files.sync(temporary)
      await rename(temporary, this.dir(id))
      await syncDirectory(this.root)
      return record
    } catch (caught) {
      await this.files.remove(temporary)
      throw caught
    }
  }

  /** A new tree in place of the old one, which stays until the record names the new. */
  async replace(
    record: PluginRecord,
    fill: (tree: string) => Promise<Pick<PluginRecord, 'reference' | 'config' | 'settings'>>,
  ): Promise<void> {
    const before = this.treeDir(record)
    const tree = newTree()
    const dir = join(this.dir(record.id), tree)
    await mkdir(dir, { mode: 0o700 })
    try {
      const changes = await fill(dir)
      await this.files.sync(dir)
      await this.put({ ...record, ...changes, tree })
      Object.assign(record, changes, { tree })
    } catch (caught) {
      await this.files.remove(dir)
      throw caught
    }
    await this.files.remove(before)
  }

  async put(record: PluginRecord): Promise<void> {
    const path = join(this.dir(record.id), 'plugin.json')
    await writeSynced(`${path}.new`, JSON.stringify(record))
    await rename(`${path}.new`, path)
    await syncDirectory(this.dir(record.id))
  }

  async remove(record: PluginRecord): Promise<void> {
    const doomed = join(this.root, `tmp-${randomBytes(8).toString('hex')}`)
    await rename(this.dir(record.id), doomed)
    await syncDirectory(this.root)
    await this.files.remove(doomed)
  }

  /** A tar of config.json and rootfs/, as `docker plugin create` sends it. */
  async unpackContext(tar: AsyncIterable<Uint8Array>, tree: string): Promise<Uint8Array> {
    await this.files.unpack(tar, tree)
    // Neither may be a link: what it points to is the host's.
    const file = await lstat(join(tree, 'config.json')).catch(() => null)
    if (!file?.isFile())
      throw invalid('noPluginConfig', 'the directory of a plugin needs a file config.json at its top')
    if (file.size > CONFIG_BYTES_MAX)
      throw invalid('noPluginConfig', `config.json has ${file.size} bytes, more than ${CONFIG_BYTES_MAX}`)
    const config = await readFile(join(tree, 'config.json'))
    const rootfs = await lstat(join(tree, 'rootfs')).catch(() => null)
    if (!rootfs?.isDirectory())
      throw invalid('noPluginRootfs', 'the directory of a plugin needs a directory rootfs at its top')
    for (const entry of await readdir(tree))
      if (entry !== 'config.json' && entry !== 'rootfs') await this.files.remove(join(tree, entry))
    return config
  }
}

async function writeSynced(path: string, text: string): Promise<void> {
  const f = await open(path, 'w', 0o600)
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
