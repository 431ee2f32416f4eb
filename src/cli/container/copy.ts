import {
  createReadStream,
  createWriteStream,
  lstatSync,
  readdirSync,
  readlinkSync,
  realpathSync,
  statSync,
} from 'node:fs'
import { chmod, chown, lchown, link, lstat, lutimes, mkdir, rm, symlink, utimes } from 'node:fs/promises'

import { basename, dirname, join, posix, resolve } from 'node:path'
import { PassThrough, type Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { extract, type Header, type Pack, pack } from 'tar-stream'
import type { Api } from '../api.js'
import { type Cli, Exit } from '../command.js'
import { humanSize } from '../format/units.js'

interface CopyFlags {
  readonly archive?: boolean
  readonly followLink?: boolean
  readonly quiet?: boolean
}

/** What the engine tells of a path in X-Docker-Container-Path-Stat. `mode` has Go's bits: the top one is a directory's. */
interface PathStat {
  name: string
  size: number
  mode: number
  linkTarget: string
}
const GO_DIRECTORY = 0x80000000
const GO_SYMLINK = 0x8000000

/** "CONTAINER:PATH"; null for a local path: also one that begins with / or ., or has no colon. */
export function splitReference(text: string): { container: string; path: string } | null {
  const i = text.indexOf(':')
  if (text.startsWith('/') || text.startsWith('.') || i <= 0) return null
  return { container: text.slice(0, i), path: text.slice(i + 1) }
}

/** "dir/." copies what is in the directory, "dir" the directory itself. */
const contentOnly = (path: string): boolean => /(^|\/)\.$/.test(path)
const asDirectory = (path: string): boolean => path.endsWith('/') || contentOnly(path)

export async function copy(cli: Cli, from: string, to: string, f: CopyFlags): Promise<void> {
  const source = splitReference(from)
  const target = splitReference(to)
  if (source && target) throw new Exit(1, 'copying between containers is not supported')
  if (!source && !target) throw new Exit(1, 'must specify at least one container source')
  const api = await cli.api()
  const bytes = source
    ? await copyOut(api, source, to, f)
    : await copyIn(api, from, target as { container: string; path: string }, f)
  if (!f.quiet && process.stderr.isTTY && to !== '-')
    cli.err(`Successfully copied ${humanSize(bytes, 3)} to ${source ? resolve(to) : to}\n`)
}

const archive = (container: string): string => `/containers/${encodeURIComponent(container)}/archive`

/** Absolute, and keeping an end of / or /. that says "directory". */
function inContainer(path: string): string {
  const absolute = path.startsWith('/') ? path : `/${path}`
  const clean = posix.normalize(absolute)
  return contentOnly(absolute) ? `${posix.join(clean, '/')}.` : clean
}

async function statPath(api: Api, container: string, path: string): Promise<PathStat> {
  // HEAD answers have no body: the message of a refusal is asked for with GET.
  try {
    const headers = await api.head(archive(container), { path })
    return JSON.parse(Buffer.from(headers['x-docker-container-path-stat'] ?? '', 'base64').toString('utf8')) as PathStat
  } catch (e) {
    if ((e as { status?: number }).status !== 404) throw e
    const stream = await api.stream('GET', archive(container), { query: { path } })
    stream.destroy()
    throw e
  }
}

async function copyOut(
  api: Api,
  source: { container: string; path: string },
  to: string,
  f: CopyFlags,
): Promise<number> {
  const exists = statOrNull(to)
  const parent = exists?.isDirectory() ? to : dirname(resolve(to))
  if (to !== '-' && !statOrNull(parent)?.isDirectory())
    throw new Exit(1, `invalid output path: directory "${resolve(parent)}" does not exist`)
  let path = inContainer(source.path)
  if (f.followLink) {
    const s = await statPath(api, source.container, path)
    if (s.mode & GO_SYMLINK) path = s.linkTarget
  }
  const stream = await api.stream('GET', archive(source.container), { query: { path } })
  if (to === '-') {
    if (process.stdout.isTTY) throw new Exit(1, 'cannot copy a tar archive to a terminal: redirect the output')
    await pipeline(stream, process.stdout, { end: false })
    return 0
  }
  if (!exists && to.endsWith('/')) throw new Exit(1, 'no such directory')
  const intoDirectory = exists?.isDirectory() ?? false
  return unpack(stream, {
    // The archive's first part is the source's name: it is kept in a directory, replaced by the new name elsewhere.
    base: intoDirectory ? to : parent,
    rename: contentOnly(source.path)
      ? intoDirectory
        ? ''
        : basename(to)
      : intoDirectory
        ? f.followLink
          ? basename(source.path)
          : null
        : basename(to),
    existingFile: exists !== null && !intoDirectory ? to : null,
    owner: f.archive ?? false,
  })
}

const statOrNull = (path: string) => statSync(path, { throwIfNoEntry: false }) ?? null

interface Unpack {
  readonly base: string
  /** In place of the first part of every name; '' drops it, null keeps it. */
  readonly rename: string | null
  /** A file that is overwritten: the source must be none of a directory. */
  readonly existingFile: string | null
  readonly owner: boolean
}

/** Writes a tar under a directory. Names cannot leave it: ".." is refused, and links already written are not followed. */
async function unpack(from: Readable, o: Unpack): Promise<number> {
  const base = resolve(o.base)
  let bytes = 0
  const directories: [string, Header][] = []
  const reader = extract()
  const done = pipeline(from, reader)
  for await (const entry of reader) {
    const h = entry.header
    const where = await target(base, h.name, o.rename)
    if (o.existingFile && h.type === 'directory') throw new Exit(1, 'cannot copy directory')
    bytes += h.size ?? 0
    if (where === base && h.type === 'directory') {
      entry.resume()
      continue
    }
    if (h.type === 'directory') {
      await mkdir(where, { recursive: true })
      directories.push([where, h])
      entry.resume()
      continue
    }
    await mkdir(dirname(where), { recursive: true })
    if (h.type === 'symlink' || h.type === 'link') {
      await rm(where, { force: true })
      if (h.type === 'symlink') {
        await symlink(h.linkname ?? '', where)
        if (o.owner && process.getuid?.() === 0) await lchown(where, h.uid ?? 0, h.gid ?? 0)
        if (h.mtime) await lutimes(where, h.mtime, h.mtime)
      } else await link(await target(base, h.linkname ?? '', o.rename), where)
      entry.resume()
      continue
    }
    if (h.type !== 'file' && h.type !== 'contiguous-file') {
      entry.resume() // Devices and pipes are not made on this side.
      continue
    }
    const old = await lstat(where).catch(() => null)
    if (old?.isDirectory()) throw new Exit(1, `cannot overwrite directory "${where}" with non-directory "${h.name}"`)
    if (old) await rm(where)
    await pipeline(entry, createWriteStream(where, { mode: h.mode }))
    await attributes(where, h, o.owner)
  }
  await done
  // Last, and the deepest first: writing into a directory changes its time, and its mode may forbid writing.
  for (const [path, h] of directories.reverse()) await attributes(path, h, o.owner)
  return bytes
}

async function attributes(path: string, h: Header, owner: boolean): Promise<void> {
  if (owner && process.getuid?.() === 0) await chown(path, h.uid ?? 0, h.gid ?? 0)
  if (h.mode !== undefined) await chmod(path, h.mode & 0o7777)
  if (h.mtime) await utimes(path, h.mtime, h.mtime)
}

async function target(base: string, name: string, rename: string | null): Promise<string> {
  // The first part stands for the source itself; it may be ".".
  const parts = name.split('/').filter((p, i) => p !== '' && (p !== '.' || i === 0))
  if (parts.includes('..')) throw new Exit(1, `refusing to write "${name}": the archive leaves the target directory`)
  if (rename !== null) parts.splice(0, 1, ...(rename === '' ? [] : [rename]))
  let path = base
  for (const [i, p] of parts.entries()) {
    path = join(path, p)
    if (i === parts.length - 1) break
    const s = await lstat(path).catch(() => null)
    if (s?.isSymbolicLink()) throw new Exit(1, `refusing to write "${name}" through the symbolic link ${path}`)
  }
  return path
}

async function copyIn(api: Api, from: string, to: { container: string; path: string }, f: CopyFlags): Promise<number> {
  const local = f.followLink && from !== '-' ? realpathSync(from) : from
  const missing = from !== '-' && !lstatSync(local, { throwIfNoEntry: false })
  if (missing) throw new Exit(1, `lstat ${resolve(from)}: no such file or directory`)
  let path = inContainer(to.path)
  let stat: PathStat | null = null
  try {
    stat = await statPath(api, to.container, path)
    if (stat.mode & GO_SYMLINK) {
      path = stat.linkTarget
      stat = await statPath(api, to.container, path)
    }
  } catch (e) {
    if ((e as { status?: number }).status !== 404 || /No such container/.test((e as Error).message)) throw e
    // There is nothing there yet: it will be made under its parent.
  }
  const isDirectory = stat !== null && (stat.mode & GO_DIRECTORY) !== 0
  if (from === '-') {
    if (stat && !isDirectory) throw new Exit(1, `destination "${to.container}:${to.path}" must be a directory`)
    await api.put(archive(to.container), {
      query: { path, noOverwriteDirNonDir: true, ...(f.archive ? { copyUIDGID: true } : {}) },
      stream: process.stdin,
      headers: { 'Content-Type': 'application/x-tar' },
    })
    return 0
  }
  const source = lstatSync(contentOnly(from) || from.endsWith('/') ? realpathSync(from) : local)
  if (from.endsWith('/') && !source.isDirectory()) throw new Exit(1, `${from}: not a directory`)
  if (source.isDirectory() && stat && !isDirectory) throw new Exit(1, 'cannot copy directory')
  if (!stat && asDirectory(to.path) && !source.isDirectory())
    throw new Exit(1, `destination directory "${to.container}:${to.path}" does not exist`)
  // Into a directory under its own name; elsewhere under the new name, in that one's parent.
  const into = isDirectory ? path : posix.dirname(path.replace(/\/+$/, ''))
  const name = isDirectory ? (contentOnly(from) ? '' : basename(resolve(local))) : posix.basename(path)
  const tar = pack()
  const count = { bytes: 0 }
  const packed = packPath(tar, resolve(local), name, count).then(
    () => tar.finalize(),
    (e: Error) => tar.destroy(e),
  )
  await api.put(archive(to.container), {
    query: { path: into, noOverwriteDirNonDir: true, ...(f.archive ? { copyUIDGID: true } : {}) },
    stream: tar.pipe(new PassThrough()),
    headers: { 'Content-Type': 'application/x-tar' },
  })
  await packed
  return count.bytes
}

/** A directory's content as a tar stream; what cannot be read ends it with the error. */
export function packDirectory(path: string): Readable {
  const tar = pack()
  packPath(tar, resolve(path), '', { bytes: 0 }).then(
    () => tar.finalize(),
    (e: Error) => tar.destroy(e),
  )
  return tar.pipe(new PassThrough())
}

/** What of a tree is packed, by its path in the tar; a directory that is passed over may be entered all the same. */
export interface PackRules {
  readonly isPacked: (name: string) => boolean
  readonly isEntered: (name: string) => boolean
  /** Whose it all is on the other side; absent: the owners here. */
  readonly owner?: { readonly uid: number; readonly gid: number }
}

export async function packPath(
  tar: Pack,
  path: string,
  name: string,
  count: { bytes: number },
  rules: PackRules = { isPacked: () => true, isEntered: () => true },
): Promise<void> {
  const s = lstatSync(path)
  const header = {
    name: name || '.',
    mode: s.mode & 0o7777,
    uid: s.uid,
    gid: s.gid,
    mtime: s.mtime,
    ...rules.owner,
  }
  if (name !== '' && !rules.isPacked(name)) {
    if (s.isDirectory() && rules.isEntered(name)) await children()
    return
  }
  async function children(): Promise<void> {
    for (const child of readdirSync(path).sort())
      await packPath(tar, join(path, child), name ? `${name}/${child}` : child, count, rules)
  }
  const entry = (h: Partial<Header> & { name: string }): Promise<void> =>
    new Promise((resolve, reject) => {
      tar.entry(h, (e) => (e ? reject(e) : resolve()))
    })
  if (s.isSymbolicLink()) await entry({ ...header, type: 'symlink', linkname: readlinkSync(path), size: 0 })
  else if (s.isDirectory()) {
    await entry({ ...header, name: `${name || '.'}/`, type: 'directory', size: 0 })
    await children()
  } else if (s.isFile()) {
    const sink = tar.entry({ ...header, type: 'file', size: s.size })
    await pipeline(createReadStream(path, { end: Math.max(s.size - 1, 0) }), sink)
    count.bytes += s.size
  } else throw new Exit(1, `cannot copy ${path}: it is neither a file, a directory nor a symbolic link`)
}
