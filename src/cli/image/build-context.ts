import { randomBytes } from 'node:crypto'
import { createReadStream, lstatSync, readdirSync, readFileSync, realpathSync, statSync } from 'node:fs'
import { basename, isAbsolute, join, relative, resolve } from 'node:path'
import { PassThrough, type Readable, Transform } from 'node:stream'
import { createGzip } from 'node:zlib'
import { pack } from 'tar-stream'
import { isIgnored, readIgnoreFile } from '../../common/path-patterns.js'
import { Exit } from '../command.js'
import { packPath } from '../container/copy.js'

/** What is sent to the engine. */
export interface SentContext {
  /** A tar; null: the engine fetches `remote`. */
  readonly body: Readable | null
  readonly remote: string
  /** Path of the Dockerfile in the context; "": the usual. */
  readonly dockerfile: string
  /** Bytes of the body, once it has ended. */
  readonly count: { bytes: number }
}

const isRemote = (path: string): boolean => /^(?:https?:\/\/|git:\/\/|github\.com\/|git@)/.test(path)

/** Bytes that tell an archive from a Dockerfile. */
const HEAD_BYTES = 512
const ARCHIVES: readonly (readonly number[])[] = [
  [0x1f, 0x8b],
  [0x42, 0x5a, 0x68],
  [0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00],
  [0x28, 0xb5, 0x2f, 0xfd],
]
const isArchive = (head: Buffer): boolean =>
  ARCHIVES.some((magic) => magic.every((b, i) => head[i] === b)) || head.toString('latin1', 257, 262) === 'ustar'

/** `path`: a directory, a URL, or - for a tar or a Dockerfile on standard input. */
export async function openContext(
  path: string,
  o: { readonly file: string; readonly compress: boolean; readonly stdin: Readable },
): Promise<SentContext> {
  if (path === '-') {
    if (o.file === '-') throw new Exit(1, "invalid argument: can't use stdin for both build context and dockerfile")
    return fromInput(o.stdin, o.file)
  }
  if (isRemote(path)) {
    if (o.file === '-')
      throw new Exit(1, 'the Dockerfile of a remote context cannot come from standard input: name one in it')
    return { body: null, remote: path, dockerfile: o.file, count: { bytes: 0 } }
  }
  return fromDirectory(path, o)
}

async function fromInput(stdin: Readable, file: string): Promise<SentContext> {
  const chunks: Buffer[] = []
  const body = new PassThrough()
  const input = stdin[Symbol.asyncIterator]()
  for (let next = await input.next(); !next.done; next = await input.next()) {
    chunks.push(Buffer.from(next.value as Buffer))
    if (Buffer.concat(chunks).length >= HEAD_BYTES) break
  }
  const head = Buffer.concat(chunks)
  if (head.length === 0) throw new Exit(1, 'failed to peek context header from STDIN: EOF')
  const count = { bytes: 0 }
  if (isArchive(head)) {
    body.write(head)
    const rest = async (): Promise<void> => {
      for (let next = await input.next(); !next.done; next = await input.next()) {
        if (!body.write(next.value)) await new Promise((done) => body.once('drain', done))
      }
      body.end()
    }
    rest().catch((e: Error) => body.destroy(e))
    return { body: counted(body, count), remote: '', dockerfile: file, count }
  }
  for (let next = await input.next(); !next.done; next = await input.next())
    chunks.push(Buffer.from(next.value as Buffer))
  const text = Buffer.concat(chunks)
  const tar = pack()
  tar.entry({ name: 'Dockerfile', mode: 0o600 }, text)
  tar.finalize()
  return { body: counted(tar.pipe(body), count), remote: '', dockerfile: 'Dockerfile', count }
}

async function fromDirectory(
  path: string,
  o: { readonly file: string; readonly compress: boolean; readonly stdin: Readable },
): Promise<SentContext> {
  const stats = statSync(path, { throwIfNoEntry: false })
  if (!stats) throw new Exit(1, `unable to prepare context: path ${JSON.stringify(path)} not found`)
  if (!stats.isDirectory())
    throw new Exit(1, `unable to prepare context: context must be a directory: ${resolve(path)}`)
  const root = realpathSync(path)
  const ignoreFile = readIgnoreText(root)
  const patterns = readIgnoreFile(ignoreFile ?? '')
  // The engine needs these two even where they are ignored: it takes them out itself.
  const kept = new Set(['.dockerignore'])
  const outside = await outsideDockerfile(root, o)
  const dockerfile = outside ? outside.name : dockerfileIn(root, o.file)
  kept.add(dockerfile)
  const hasExceptions = patterns.some((p) => p.startsWith('!'))
  const keepsBelow = (name: string): boolean => [...kept].some((k) => k.startsWith(`${name}/`))
  const tar = pack()
  const count = { bytes: 0 }
  const rules = {
    isPacked: (name: string) =>
      isPlain(join(root, name)) &&
      !(outside && name === '.dockerignore') &&
      (kept.has(name) || !isIgnored(name, patterns)),
    isEntered: (name: string) => hasExceptions || keepsBelow(name),
    owner: { uid: 0, gid: 0 },
  }
  const packing = async (): Promise<void> => {
    for (const name of readdirSync(root).sort()) await packPath(tar, join(root, name), name, { bytes: 0 }, rules)
    if (outside) {
      tar.entry({ name: outside.name, mode: 0o600 }, outside.text)
      // COPY is not to see what was added here.
      tar.entry({ name: '.dockerignore', mode: 0o600 }, `${ignoreFile ?? '.dockerignore'}\n${outside.name}\n`)
    }
    tar.finalize()
  }
  packing().catch((e: Error) => tar.destroy(e))
  const plain = tar.pipe(new PassThrough())
  tar.on('error', (e) => plain.destroy(e))
  return { body: counted(o.compress ? plain.pipe(createGzip()) : plain, count), remote: '', dockerfile, count }
}

function counted(from: Readable, count: { bytes: number }): Readable {
  const to = new Transform({
    transform(chunk: Buffer, _encoding, done) {
      count.bytes += chunk.length
      done(null, chunk)
    },
  })
  from.on('error', (e) => to.destroy(e))
  return from.pipe(to)
}

/** Sockets and the like are nothing that a context can hold. */
function isPlain(path: string): boolean {
  const s = lstatSync(path)
  return s.isFile() || s.isDirectory() || s.isSymbolicLink()
}

function readIgnoreText(root: string): string | null {
  try {
    return readFileSync(join(root, '.dockerignore'), 'utf8')
  } catch (e) {
    if ((e as NodeJS.ErrnoException).code === 'ENOENT') return null
    throw new Exit(1, `error reading .dockerignore: ${(e as Error).message}`)
  }
}

/** A Dockerfile from elsewhere goes under a name that nothing in the context has. */
async function outsideDockerfile(
  root: string,
  o: { readonly file: string; readonly stdin: Readable },
): Promise<{ name: string; text: Buffer } | null> {
  const name = `.dockerfile.${randomBytes(10).toString('hex')}`
  if (o.file === '-') {
    const chunks: Buffer[] = []
    for await (const chunk of o.stdin) chunks.push(Buffer.from(chunk as Buffer))
    return { name, text: Buffer.concat(chunks) }
  }
  if (o.file === '' || isInside(root, resolve(o.file))) return null
  const chunks: Buffer[] = []
  try {
    for await (const chunk of createReadStream(o.file)) chunks.push(chunk as Buffer)
  } catch (e) {
    throw new Exit(
      1,
      `unable to prepare context: unable to open Dockerfile ${basename(o.file)}: ${(e as Error).message}`,
    )
  }
  return { name, text: Buffer.concat(chunks) }
}

function isInside(root: string, path: string): boolean {
  const inside = relative(root, path)
  return inside !== '' && !inside.startsWith('..') && !isAbsolute(inside)
}

function dockerfileIn(root: string, file: string): string {
  let path = file === '' ? join(root, 'Dockerfile') : resolve(file)
  if (file === '' && !statSync(path, { throwIfNoEntry: false })) {
    const lower = join(root, 'dockerfile')
    if (statSync(lower, { throwIfNoEntry: false })) path = lower
  }
  if (!lstatSync(path, { throwIfNoEntry: false }))
    throw new Exit(
      1,
      `unable to prepare context: unable to evaluate symlinks in Dockerfile path: lstat ${path}: no such file or directory`,
    )
  return relative(root, path)
}
