import { createReadStream } from 'node:fs'
import { mkdir, readFile, rm, stat } from 'node:fs/promises'
import { join, posix } from 'node:path'
import { invalid, isIgnored, readIgnoreFile, ShoalError } from '../../common/index.js'
import { resolveInRoot } from '../../engine/index.js'
import type { LayerTool } from '../../runtime/index.js'
import type { BuildRequest } from '../contract.js'
import { checkOut, isGitUrl, isUrl, readGitUrl } from './git.js'
import { getRemote, sniff } from './remote.js'

export interface BuildContext {
  /** The unpacked tree; null: the remote was a Dockerfile alone. */
  readonly root: string | null
  readonly dockerfile: { readonly name: string; readonly text: string }
}

export interface ContextLimits {
  readonly bytesMax: number
  readonly entriesMax: number
}

const DEFAULT_NAME = 'Dockerfile'
const DOCKERFILE_BYTES_MAX = 16 * 1024 * 1024

/**
 * What a request builds from, below `dir`, which is the caller's to remove.
 *
 * @throws invalid `noDockerfile`, `badContext`, `badDockerfile`; what downloads and git say
 */
export async function openContext(
  request: Pick<BuildRequest, 'remote' | 'body' | 'dockerfile'>,
  o: { readonly dir: string; readonly tool: LayerTool; readonly limits: ContextLimits; readonly signal: AbortSignal },
): Promise<BuildContext> {
  const { remote } = request
  const root = join(o.dir, 'context')
  await mkdir(root, { recursive: true })
  const unpack = async (tar: AsyncIterable<Uint8Array>): Promise<void> => {
    const applier = o.tool.apply({ root, plain: true, contain: true, ...o.limits })
    const kill = (): void => void applier.kill()
    o.signal.addEventListener('abort', kill)
    try {
      await applier.consume(tar)
    } catch (caught) {
      if (o.signal.aborted) throw o.signal.reason
      const { kind, code, message, fields } = ShoalError.from(caught)
      if (kind !== 'invalid') throw caught
      throw new ShoalError(kind, code, `Error processing tar file: ${message}`, fields, { cause: caught })
    } finally {
      o.signal.removeEventListener('abort', kill)
    }
  }
  if (remote === '') {
    await unpack(request.body)
    return readTree(root, request.dockerfile)
  }
  if (remote === 'client-session')
    throw invalid(
      'session',
      'experimental session with v1 builder is no longer supported, use builder version v2 (BuildKit) instead',
    )
  if (isGitUrl(remote)) return readTree(await checkOut(readGitUrl(remote), root, o.signal), request.dockerfile)
  if (!isUrl(remote)) throw invalid('badContext', `remoteURL (${remote}) could not be recognized as URL`, { remote })
  const file = await getRemote(remote, o.signal).catch((caught: unknown) => {
    const { kind, code, message, fields } = ShoalError.from(caught)
    throw new ShoalError(kind, code, `error downloading remote context ${remote}: ${message}`, fields, {
      cause: caught,
    })
  })
  const { isText, body } = await sniff(file, remote)
  if (!isText) {
    await unpack(body)
    return readTree(root, request.dockerfile)
  }
  const text: Uint8Array[] = []
  let size = 0
  for await (const chunk of body) {
    text.push(chunk)
    size += chunk.length
    if (size > DOCKERFILE_BYTES_MAX) throw tooLong(remote)
  }
  return {
    root: null,
    dockerfile: { name: request.dockerfile || DEFAULT_NAME, text: Buffer.concat(text).toString('utf8') },
  }
}

const tooLong = (name: string): Error =>
  invalid('badDockerfile', `the Dockerfile (${name}) is longer than ${DOCKERFILE_BYTES_MAX} bytes`)

async function readTree(root: string, wanted: string): Promise<BuildContext> {
  let name = wanted || DEFAULT_NAME
  let path = await resolveInRoot(root, name)
  let found = await statOrNull(path)
  if (!found && name === DEFAULT_NAME) {
    const lower = await resolveInRoot(root, name.toLowerCase())
    found = await statOrNull(lower)
    if (found) [name, path] = [name.toLowerCase(), lower]
  }
  if (!found) throw invalid('noDockerfile', `Cannot locate specified Dockerfile: ${name}`, { name })
  if (!found.isFile()) throw invalid('noDockerfile', `cannot read the Dockerfile ${name}: it is no file`, { name })
  if (found.size > DOCKERFILE_BYTES_MAX) throw tooLong(name)
  const text = await readFile(path, 'utf8')
  if (text === '') throw invalid('badDockerfile', `the Dockerfile (${name}) cannot be empty`)
  await dropIgnored(root, name)
  return { root, dockerfile: { name, text } }
}

/** Clients send these two always: they are needed here, but COPY is not to see them when they are ignored. */
async function dropIgnored(root: string, dockerfile: string): Promise<void> {
  const path = await resolveInRoot(root, '.dockerignore')
  const found = await statOrNull(path)
  if (!found?.isFile()) return
  let text = ''
  for await (const chunk of createReadStream(path, { encoding: 'utf8', end: DOCKERFILE_BYTES_MAX })) text += chunk
  const patterns = readIgnoreFile(text)
  for (const name of ['.dockerignore', posix.normalize(dockerfile)])
    if (isIgnored(name.replace(/^\//, ''), patterns))
      await rm(await resolveInRoot(root, name), { recursive: true, force: true })
}

async function statOrNull(path: string): Promise<Awaited<ReturnType<typeof stat>> | null> {
  try {
    return await stat(path)
  } catch (caught) {
    if (['ENOENT', 'ENOTDIR'].includes((caught as NodeJS.ErrnoException).code ?? '')) return null
    throw caught
  }
}
