import { readdir, readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { invalid } from '../../common/index.js'
import type { PluginAddress } from './client.js'

export interface PluginDirs {
  /** Hold NAME.sock or NAME/NAME.sock. */
  readonly sockets: readonly string[]
  /** Hold NAME.spec (an address) or NAME.json (an address with TLS files), also as NAME/NAME.spec. */
  readonly specs: readonly string[]
}

export const DEFAULT_PLUGIN_DIRS: PluginDirs = {
  sockets: ['/run/docker/plugins'],
  specs: ['/etc/docker/plugins', '/usr/lib/docker/plugins'],
}

/** Everything that a plugin's name may be; with five characters more it becomes the name of a file, of at most 255 bytes. */
const NAME = /^[A-Za-z0-9][A-Za-z0-9_.-]{0,249}$/

const isSocket = (path: string): Promise<boolean> =>
  stat(path).then(
    (s) => s.isSocket(),
    () => false,
  )

async function readText(path: string): Promise<string | null> {
  try {
    return await readFile(path, 'utf8')
  } catch (e) {
    if (['ENOENT', 'ENOTDIR'].includes((e as NodeJS.ErrnoException).code ?? '')) return null
    throw e
  }
}

/** "unix:///run/x.sock", "tcp://host:port", "http://host:port", "https://host:port". */
export function parseAddress(text: string, where: string): PluginAddress {
  const unix = /^unix:\/\/(\/.+)$/.exec(text)
  if (unix) return { socket: unix[1]! }
  const tcp = /^(tcp|https?):\/\/(\[[^\]]+\]|[^:/]+):(\d{1,5})\/?$/.exec(text)
  if (!tcp)
    throw invalid(
      'badPluginAddress',
      `${where}: "${text}" is no address of a plugin; use unix:///PATH or tcp://HOST:PORT`,
      { address: text },
    )
  return {
    host: tcp[2]!.replace(/^\[|\]$/g, ''),
    port: Number(tcp[3]),
    tls: tcp[1] === 'https' ? { ca: null, cert: null, key: null, insecure: false } : null,
  }
}

async function parseSpecFile(path: string, text: string): Promise<PluginAddress> {
  if (path.endsWith('.spec')) return parseAddress(text.trim(), path)
  let doc: {
    Addr?: string
    TLSConfig?: { InsecureSkipVerify?: boolean; CAFile?: string; CertFile?: string; KeyFile?: string } | null
  }
  try {
    doc = JSON.parse(text)
  } catch (e) {
    throw invalid('badPluginSpec', `${path} is no JSON: ${(e as Error).message}`)
  }
  const address = parseAddress(doc.Addr ?? '', path)
  const tls = doc.TLSConfig
  if ('socket' in address || !tls) return address
  const read = (file?: string): Promise<string> | null => (file ? readFile(file, 'utf8') : null)
  return {
    ...address,
    tls: {
      ca: await read(tls.CAFile),
      cert: await read(tls.CertFile),
      key: await read(tls.KeyFile),
      insecure: tls.InsecureSkipVerify === true,
    },
  }
}

/** A plugin by name: a socket wins over spec files, as with dockerd. Null: there is none. */
export async function findPlugin(dirs: PluginDirs, name: string): Promise<PluginAddress | null> {
  if (!NAME.test(name)) return null
  for (const dir of dirs.sockets)
    for (const path of [join(dir, `${name}.sock`), join(dir, name, `${name}.sock`)])
      if (await isSocket(path)) return { socket: path }
  for (const dir of dirs.specs)
    for (const type of ['spec', 'json'])
      for (const path of [join(dir, `${name}.${type}`), join(dir, name, `${name}.${type}`)]) {
        const text = await readText(path)
        if (text !== null) return parseSpecFile(path, text)
      }
  return null
}

/** Names of all plugins that these directories hold. */
export async function pluginNames(dirs: PluginDirs): Promise<string[]> {
  const names = new Set<string>()
  for (const [list, types] of [
    [dirs.sockets, ['sock']],
    [dirs.specs, ['spec', 'json']],
  ] as const)
    for (const dir of list)
      for (const entry of await readdir(dir, { withFileTypes: true }).catch(() => [])) {
        const m = /^(.*)\.(sock|spec|json)$/.exec(entry.name)
        if (m && (types as readonly string[]).includes(m[2]!)) names.add(m[1]!)
        else if (entry.isDirectory() && (await findPlugin(dirs, entry.name).catch(() => null))) names.add(entry.name)
      }
  return [...names].filter((n) => NAME.test(n)).sort()
}
