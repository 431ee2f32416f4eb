import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { invalid, ShoalError, unimplemented } from '../../common/index.js'
import {
  type Digest,
  download,
  type Image,
  type ProgressMessage,
  parsePlatform,
  type RegistryAuth,
} from '../../runtime/index.js'
import type { ApiModules } from '../contract.js'
import { imageHistory, imageInspect, imageSummary } from '../convert/image.js'
import { bool, Filters, int, list, type Query, text } from '../query.js'
import { bodyOf, clientGone, startStream } from '../streams.js'
import { pruneUntil, unlessTaken } from './containers.js'

/** Results of a search: docker's own default, and the most that it takes. */
const SEARCH_LIMIT = 25
const SEARCH_LIMIT_MAX = 100

export function registerImages(app: FastifyInstance, m: ApiModules): void {
  const inUse = (id: Digest): { container: string; running: boolean } | null => containers.userOfImage(id)
  const { images, containers } = m.engine

  app.get('/images/json', async (request) => {
    const q = request.query as Query
    const f = Filters.parse(q, ['before', 'dangling', 'label', 'reference', 'since', 'until'])
    const all = await images.list()
    const before = f.has('before') ? (await images.get(f.values('before')[0]!)).createdMs : Number.POSITIVE_INFINITY
    const since = f.has('since') ? (await images.get(f.values('since')[0]!)).createdMs : Number.NEGATIVE_INFINITY
    const until = pruneUntil(f, m.clock.now())
    const shared = bool(q, 'shared-size') ? await images.usage() : null
    const used = containers.list()
    const shown = bool(q, 'all') && !f.bool('dangling', false) ? all : withoutIntermediate(all)
    return shown
      .filter(
        (i) =>
          i.createdMs < before &&
          i.createdMs > since &&
          i.createdMs <= until &&
          f.labels('label', i.config.config?.Labels),
      )
      .filter((i) => !f.has('dangling') || f.bool('dangling', false) === (i.repoTags.length === 0))
      .map((i) => narrowed(i, f))
      .filter((i): i is Image => i !== null)
      .sort((a, b) => b.createdMs - a.createdMs)
      .map((i) => ({
        ...imageSummary(i, request.apiVersion),
        ...(shared
          ? { SharedSize: shared.sharedBytes.get(i.id) ?? 0, Containers: used.filter((c) => c.image === i.id).length }
          : {}),
      }))
  })

  app.post('/images/create', async (request, reply) => {
    const q = request.query as Query
    const from = text(q, 'fromImage')
    const src = text(q, 'fromSrc')
    const tag = text(q, 'tag')
    const platform = parsePlatform(text(q, 'platform')) ?? undefined
    if (from !== '') {
      const reference = tag === '' ? from : tag.startsWith('sha256:') ? `${from}@${tag}` : `${from}:${tag}`
      return progress(request, reply, (onProgress, signal) =>
        images.pull(reference, {
          platform,
          auth: registryAuth(request),
          allTags: tag === '' && !/[:@][^/]*$/.test(from),
          onProgress,
          signal,
        }),
      )
    }
    if (src === '') throw invalid('noSource', 'name an image with fromImage, or a source with fromSrc')
    const tar = src === '-' ? bodyOf(request) : await download(src, clientGone(request))
    const repo = text(q, 'repo')
    return progress(request, reply, async (onProgress) => {
      const image = await images.import(tar, {
        reference: repo ? `${repo}${tag ? `:${tag}` : ''}` : undefined,
        message: text(q, 'message') || undefined,
        changes: list(q, 'changes')
          .flatMap((c) => c.split('\n'))
          .filter((c) => c.trim() !== ''),
        platform,
      })
      onProgress({ status: image.id })
    })
  })

  app.post('/images/load', async (request, reply) => {
    const platform = parsePlatform(text(request.query as Query, 'platform'))
    return progress(
      request,
      reply,
      async (onProgress) => {
        await images.load(bodyOf(request), {
          onProgress: bool(request.query as Query, 'quiet') ? keepStreams(onProgress) : onProgress,
          platform,
        })
      },
      { hasStatus: false },
    )
  })

  app.get('/images/get', async (request, reply) => {
    const names = list(request.query as Query, 'names').flatMap((n) => n.split(','))
    if (names.length === 0) throw invalid('noNames', 'name the images to save with ?names=')
    reply.type('application/x-tar')
    return reply.send(await images.save(names))
  })

  app.get('/images/search', async (request) => {
    const q = request.query as Query
    const limit = int(q, 'limit', SEARCH_LIMIT) || SEARCH_LIMIT
    if (limit < 0 || limit > SEARCH_LIMIT_MAX)
      throw invalid('badParameter', `Limit ${limit} is outside the range of [1, ${SEARCH_LIMIT_MAX}]`)
    const filters = Filters.parse(q, ['is-automated', 'is-official', 'stars'])
    const stars = filters.values('stars').map(Number)
    if (stars.some((n) => !Number.isInteger(n)))
      throw invalid('badFilter', `Invalid filter 'stars=${filters.values('stars')[0]}'`)
    const official = filters.has('is-official') ? filters.bool('is-official', false) : null
    const automated = filters.bool('is-automated', false)
    const found = await images.search(text(q, 'term'), { limit, auth: registryAuth(request) })
    return found
      .filter((r) => stars.every((n) => r.stars >= n))
      .filter((r) => official === null || r.isOfficial === official)
      .filter(() => !automated)
      .map((r) => ({
        name: r.name,
        description: r.description,
        star_count: r.stars,
        is_official: r.isOfficial,
        is_automated: false,
      }))
  })

  app.post('/images/prune', async (request) => {
    const f = Filters.parse(request.query as Query, ['dangling', 'until', 'label', 'label!'])
    const onlyDangling = f.bool('dangling', true)
    const until = pruneUntil(f, m.clock.now())
    const deleted: object[] = []
    let reclaimed = 0
    for (const i of withoutIntermediate(await images.list())) {
      if (inUse(i.id) !== null || (onlyDangling && i.repoTags.length > 0) || i.createdMs > until) continue
      if (!f.labels('label', i.config.config?.Labels) || !f.notLabels('label!', i.config.config?.Labels)) continue
      const refs = i.repoTags.length > 0 ? i.repoTags : [i.id]
      let isGone = false
      for (const r of refs) {
        const gone = await unlessTaken(images.remove(r, { force: false, prune: true, inUse }))
        deleted.push(...(gone ?? []))
        isGone = gone !== null
      }
      if (isGone) reclaimed += i.sizeBytes
    }
    return { ImagesDeleted: deleted.length > 0 ? deleted : null, SpaceReclaimed: reclaimed }
  })

  // Names contain slashes: one wildcard route a method, told apart by the last word of the path.
  app.get<{ Params: { '*': string } }>('/images/*', async (request, reply) => {
    const { name, verb } = split(request.params['*'], ['json', 'history', 'get', 'attestations'])
    const image = await images.get(name)
    if (verb === 'json') return imageInspect(image, request.apiVersion)
    if (verb === 'history') {
      const lineage = images.lineageOf(image.id).map((id) => images.get(id))
      return imageHistory(image, await Promise.all(lineage))
    }
    if (verb === 'get') {
      reply.type('application/x-tar')
      return reply.send(await images.save([name]))
    }
    throw unimplemented('attestations', 'attestations are not kept by this engine')
  })

  app.post<{ Params: { '*': string } }>('/images/*', async (request, reply) => {
    const q = request.query as Query
    const { name, verb } = split(request.params['*'], ['push', 'tag'])
    if (verb === 'tag') {
      if (text(q, 'repo') === '') throw invalid('noRepo', 'name the new repository with ?repo=')
      await images.tag(name, `${text(q, 'repo')}${text(q, 'tag') ? `:${text(q, 'tag')}` : ''}`)
      return reply.code(201).send()
    }
    const tag = text(q, 'tag')
    return progress(request, reply, (onProgress, signal) =>
      images.push(tag ? `${name}:${tag}` : name, { auth: registryAuth(request), onProgress, signal }),
    )
  })

  app.delete<{ Params: { '*': string } }>('/images/*', async (request) => {
    const q = request.query as Query
    const name = request.params['*']
    if (name.trim() === '') throw invalid('noImage', 'image name cannot be blank')
    return images.remove(name, { force: bool(q, 'force'), prune: !bool(q, 'noprune'), inUse })
  })

  app.get<{ Params: { '*': string } }>('/distribution/*', async (request) => {
    const { name } = split(request.params['*'], ['json'])
    const remote = await images.resolveRemote(name, { auth: registryAuth(request), signal: clientGone(request) })
    return { Descriptor: remote.descriptor, Platforms: remote.platforms }
  })
}

/** Without images that are only steps on the way to others: no name, and images stand on them. */
export function withoutIntermediate(all: readonly Image[]): readonly Image[] {
  const parents = new Set(all.map((i) => i.parent))
  return all.filter((i) => i.repoTags.length + i.repoDigests.length > 0 || !parents.has(i.id))
}

/** With a reference filter an image shows only the names that match. */
function narrowed(i: Image, f: Filters): Image | null {
  if (!f.has('reference')) return i
  const fits = (name: string): boolean => f.values('reference').some((p) => referenceMatches(p, name))
  const repoTags = i.repoTags.filter(fits)
  const repoDigests = i.repoDigests.filter(fits)
  return repoTags.length + repoDigests.length > 0 ? { ...i, repoTags, repoDigests } : null
}

/** Shell patterns over "repo", "repo:tag" or their last part, as path.Match of Go does (no crossing of slashes). */
function referenceMatches(pattern: string, name: string): boolean {
  const re = new RegExp(
    `^${pattern
      .replace(/[.+^${}()|\\]/g, '\\$&')
      .replace(/\*/g, '[^/]*')
      .replace(/\?/g, '[^/]')}$`,
  )
  const repo = name.replace(/@.*$/, '').replace(/:[^:/]*$/, '')
  return [name, repo].some((n) => re.test(n) || re.test(n.slice(n.lastIndexOf('/') + 1)))
}

function split(path: string, verbs: readonly string[]): { name: string; verb: string } {
  const i = path.lastIndexOf('/')
  const verb = path.slice(i + 1)
  if (i <= 0 || !verbs.includes(verb)) throw new ShoalError('notFound', 'noSuchPage', 'page not found')
  return { name: path.slice(0, i), verb }
}

/** Credentials that cannot be read count as none, as with dockerd: clients send all sorts where none are needed. */
export function registryAuth(request: FastifyRequest): RegistryAuth {
  const header = request.headers['x-registry-auth']
  return { ...(typeof header === 'string' ? decodedAuth(header) : {}), ...clientAgent(request) }
}

function decodedAuth(header: string): RegistryAuth {
  try {
    const auth: unknown = JSON.parse(Buffer.from(header, 'base64url').toString('utf8'))
    return auth !== null && typeof auth === 'object' ? auth : {}
  } catch {
    return {}
  }
}

export const clientAgent = (request: FastifyRequest): { userAgent?: string } => {
  const userAgent = request.headers['user-agent']
  return userAgent ? { userAgent } : {}
}

const keepStreams =
  (onProgress: (p: ProgressMessage) => void) =>
  (p: ProgressMessage): void => {
    if (p.stream) onProgress(p)
  }

/**
 * Runs a long operation as a stream of JSON objects. What fails before the first object is an ordinary error answer, unless
 * clients look for it in the stream only (`hasStatus` false); later failures go into the stream, since its status has been sent.
 */
export async function progress(
  request: FastifyRequest,
  reply: FastifyReply,
  run: (onProgress: (p: ProgressMessage) => void, signal: AbortSignal) => Promise<unknown>,
  { hasStatus = true } = {},
): Promise<FastifyReply> {
  let out: ReturnType<typeof startStream> | null = null
  const send = (p: object): void => {
    out ??= startStream(request, reply, 'application/json')
    out.write(`${JSON.stringify(p)}\r\n`)
  }
  try {
    await run(send, clientGone(request))
  } catch (e) {
    if (out === null && hasStatus) throw e
    const { message } = request.server.explained(e) as Error
    const code = e instanceof ShoalError && e.code === 'commandFailed' ? { code: e.fields.exitCode } : {}
    send({ errorDetail: { ...code, message }, error: message })
  }
  const started = out as ReturnType<typeof startStream> | null
  if (started) started.end()
  else return reply.code(200).type('application/json').send('')
  return reply
}
