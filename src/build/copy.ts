import { createHash } from 'node:crypto'
import { createReadStream, createWriteStream } from 'node:fs'
import { chmod, chown, lstat, mkdir, readdir, readFile, stat, utimes } from 'node:fs/promises'
import { basename, join, posix, relative } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { hasWildcards, internal, invalid, matchesPattern, newHexId, ShoalError } from '../common/index.js'
import { resolveInRoot } from '../engine/index.js'
import type { LayerTool, Owner } from '../runtime/index.js'
import { isUrl } from './context/git.js'
import { getRemote } from './context/remote.js'
import type { CopyInstruction } from './dockerfile/instructions.js'

/** A tree on this host that is copied from. */
export interface Source {
  readonly root: string
  readonly isContext: boolean
}

/** One file or directory to be copied. */
export interface CopyItem {
  readonly root: string
  /** Below the root, links resolved. */
  readonly path: string
  /** As it was named: a file's name in a directory that it is copied into. */
  readonly name: string
  readonly isDirectory: boolean
  /** Of what is copied, not of its times. */
  readonly digest: string
  /** It came from a server: never unpacked. */
  readonly isRemote: boolean
}

export interface CopyTools {
  readonly tool: LayerTool
  /** Where downloads go; the caller removes it. */
  readonly dir: string
  readonly signal: AbortSignal
  readonly onDownload: (text: string) => void
}

const missing = (caught: unknown): boolean =>
  ['ENOENT', 'ENOTDIR'].includes((caught as NodeJS.ErrnoException).code ?? '')

/** COPY's or ADD's sources, in the order given; patterns in the order of names. */
export async function findSources(step: CopyInstruction, source: Source | null, o: CopyTools): Promise<CopyItem[]> {
  const NAME = step.kind.toUpperCase()
  const items: CopyItem[] = []
  try {
    for (const text of step.sources) {
      if (isUrl(text)) {
        if (step.kind === 'copy') throw invalid('badSource', "source can't be a URL for COPY")
        items.push(await fetchSource(text, step.destination, o))
        continue
      }
      if (!source) throw invalid('noContext', 'missing build context')
      const name = text.replace(/^\//, '').replace(/^\.\//, '')
      const names = hasWildcards(name) ? await namesLike(source.root, name) : [name]
      for (const n of names) items.push(await findSource(source, n, o.tool))
    }
    if (items.length === 0) throw invalid('noSource', 'no source files were specified')
  } catch (caught) {
    const { kind, code, message, fields } = ShoalError.from(caught)
    throw new ShoalError(kind, code, `${NAME} failed: ${message}`, fields, { cause: caught })
  }
  if (items.length > 1 && !step.destination.endsWith('/'))
    throw invalid(
      'badDestination',
      `When using ${NAME} with more than one source file, the destination must be a directory and end with a /`,
    )
  return items
}

async function findSource(source: Source, name: string, tool: LayerTool): Promise<CopyItem> {
  const path = await resolveInRoot(source.root, name)
  const found = await stat(path).catch((caught: unknown) => {
    if (!missing(caught)) throw caught
    const where = source.isContext ? 'file not found in build context or excluded by .dockerignore: ' : ''
    throw invalid('noSource', `${where}stat ${name}: file does not exist`, { name }, { cause: caught })
  })
  const isDirectory = found.isDirectory()
  const inside = relative(source.root, path)
  const digest = (await tool.digestTree(source.root, inside, isDirectory ? '' : basename(name))).replace(/^sha256:/, '')
  return {
    root: source.root,
    path: inside,
    name: basename(name),
    isDirectory,
    digest: `${isDirectory ? 'dir' : 'file'}:${digest}`,
    isRemote: false,
  }
}

/** Paths that a pattern fits. It has as many parts as they: no wildcard crosses a slash, and links are not gone through. */
async function namesLike(root: string, pattern: string): Promise<string[]> {
  let found = ['']
  const parts = pattern.split('/')
  for (const [i, part] of parts.entries()) {
    const next: string[] = []
    for (const at of found) {
      const entries = await readdir(join(root, at), { withFileTypes: true })
      for (const e of entries)
        if (matchesPattern(part, e.name) && (i === parts.length - 1 || e.isDirectory()))
          next.push(posix.join(at, e.name))
    }
    found = next
  }
  return found.sort((a, b) => (a < b ? -1 : 1))
}

/** What `name` stands for where neither URL nor server names a file. */
const UNNAMED = '__unnamed__'

async function fetchSource(url: string, destination: string, o: CopyTools): Promise<CopyItem> {
  const file = await getRemote(url, o.signal)
  const name = file.name || (destination.endsWith('/') ? '' : UNNAMED)
  if (name === '' || name === '.' || name === '..') {
    file.body.destroy()
    throw invalid('badSource', `cannot determine filename for source ${url}`, { url })
  }
  const root = join(o.dir, newHexId())
  await mkdir(root, { recursive: true })
  const path = join(root, name)
  o.onDownload(url)
  await pipeline(file.body, createWriteStream(path, { mode: 0o600 }), { signal: o.signal })
  await utimes(path, file.modifiedMs / 1000, file.modifiedMs / 1000)
  const digest = (await o.tool.digestTree(root, name, name)).replace(/^sha256:/, '')
  return { root, path: name, name, isDirectory: false, digest, isRemote: true }
}

/** One digest for all: of a single source its own. */
export function sourcesDigest(items: readonly CopyItem[]): string {
  if (items.length === 1) return items[0]!.digest
  const all = items.map((i) => i.digest).join(',')
  return `multi:${createHash('sha256').update(all).digest('hex')}`
}

/** Where a step copies to; a slash at the end, which means a directory, stays. */
export function destinationOf(workingDir: string, destination: string): string {
  if (posix.isAbsolute(destination)) return destination
  const path = posix.join('/', workingDir, destination)
  return destination.endsWith('/') && !path.endsWith('/') ? `${path}/` : path
}

/**
 * Copies into the tree at `root`. `owner` null: everything keeps its own. Local archives are unpacked when `unpacks`; their entries keep
 * their owners in any case.
 */
export async function copyItems(
  items: readonly CopyItem[],
  to: { readonly root: string; readonly destination: string; readonly owner: Owner | null; readonly unpacks: boolean },
  tool: LayerTool,
): Promise<void> {
  try {
    for (const item of items) await copyItem(item, to, tool)
  } catch (caught) {
    const { kind, code, message, fields } = ShoalError.from(caught)
    throw new ShoalError(kind, code, `failed to copy files: ${message}`, fields, { cause: caught })
  }
}

const ROOT: Owner = { uid: 0, gid: 0 }

async function copyItem(item: CopyItem, to: Parameters<typeof copyItems>[1], tool: LayerTool): Promise<void> {
  const owned = to.owner ? { owner: to.owner } : {}
  const target = await resolveInRoot(to.root, to.destination)
  const inside = (path: string): string => relative(to.root, path)
  if (item.isDirectory) {
    // Directories on the way are root's, the last one is the new owner's.
    const isNew = !(await isDirectory(target))
    await makeDirectories(to.root, target, ROOT)
    if (isNew && to.owner) await chown(target, to.owner.uid, to.owner.gid)
    await tool.copyTree(
      { root: item.root, path: item.path, name: '' },
      { root: to.root, path: inside(target), ...owned },
    )
    return
  }
  if (to.unpacks && !item.isRemote && (await isRegular(item)) && (await tool.isTar(item.root, item.path))) {
    await makeDirectories(to.root, target, ROOT)
    await tool
      .apply({ root: to.root, path: inside(target), plain: true })
      .consume(createReadStream(join(item.root, item.path)))
    return
  }
  const file = to.destination.endsWith('/') || (await isDirectory(target)) ? join(target, item.name) : target
  await makeDirectories(to.root, join(file, '..'), to.owner ?? ROOT)
  await tool.copyTree(
    { root: item.root, path: item.path, name: basename(file) },
    { root: to.root, path: inside(join(file, '..')), ...owned },
  )
}

const isRegular = async (item: CopyItem): Promise<boolean> => (await lstat(join(item.root, item.path))).isFile()

async function isDirectory(path: string): Promise<boolean> {
  try {
    return (await lstat(path)).isDirectory()
  } catch (caught) {
    if (missing(caught)) return false
    throw caught
  }
}

/** Makes what is not there yet, 0755. `path` has no links. */
async function makeDirectories(root: string, path: string, owner: Owner): Promise<void> {
  if (path === root || relative(root, path) === '') return
  try {
    if ((await lstat(path)).isDirectory()) return
    throw internal('notADirectory', `mkdir /${relative(root, path)}: not a directory`)
  } catch (caught) {
    if (!missing(caught)) throw caught
  }
  await makeDirectories(root, join(path, '..'), owner)
  await mkdir(path)
  await chmod(path, 0o755)
  await chown(path, owner.uid, owner.gid)
}

const ACCOUNTS_BYTES_MAX = 4 * 1024 * 1024

/** "user", "user:group", numbers or names of the tree's own accounts; without a group the user's name or number is the group's too. */
export async function findOwner(root: string, text: string): Promise<Owner> {
  const [user = '', group = user, ...more] = text.split(':')
  try {
    if (more.length > 0) throw invalid('badOwner', `invalid chown string format: ${text}`, { chown: text })
    return {
      uid: await accountId(root, '/etc/passwd', user, "can't find uid for user", 'no such user'),
      gid: await accountId(root, '/etc/group', group, "can't find gid for group", 'no such group'),
    }
  } catch (caught) {
    const { kind, code, message, fields } = ShoalError.from(caught)
    const prefix = 'unable to convert uid/gid chown string to host mapping'
    throw new ShoalError(kind, code, `${prefix}: ${message}`, fields, { cause: caught })
  }
}

const ID_MAX = 2 ** 32 - 2

async function accountId(root: string, file: string, name: string, lost: string, unknown: string): Promise<number> {
  if (/^\+?\d+$/.test(name)) {
    if (Number(name) > ID_MAX) throw invalid('badOwner', `${lost} ${name}: value out of range`, { name })
    return Number(name)
  }
  const path = await resolveInRoot(root, file)
  let text: string
  try {
    if ((await stat(path)).size > ACCOUNTS_BYTES_MAX) throw invalid('badOwner', `${lost} ${name}: ${file} is too long`)
    text = await readFile(path, 'utf8')
  } catch (caught) {
    if (!missing(caught)) throw caught
    throw invalid('badOwner', `${lost} ${name}: open ${file}: no such file or directory`, { name }, { cause: caught })
  }
  const entry = text
    .split('\n')
    .map((line) => line.split(':'))
    .find((f) => f[0] === name && /^\d+$/.test(f[2] ?? ''))
  if (!entry) throw invalid('badOwner', `${lost} ${name}: ${unknown}: ${name}`, { name })
  return Number(entry[2])
}
