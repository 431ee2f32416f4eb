import type { Duplex } from 'node:stream'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { invalid, isKind, notFound, ShoalError, unimplemented } from '../../common/index.js'
import type {
  Attachment,
  ContainerConfig,
  ContainerView,
  CreateContainerBody,
  HostConfig,
  LogQuery,
} from '../../engine/index.js'
import { linkNames } from '../../engine/index.js'
import { NotJson, object } from '../body.js'
import type { ApiModules } from '../contract.js'
import { containerInspect, containerSummary } from '../convert/container.js'
import { CONTAINER_BODY, CREATE_BODY, HOST_CONFIG, START_BODY } from '../convert/container-shape.js'
import { olderInspect, olderStats } from '../convert/legacy.js'
import { createBodyOf } from '../convert/older.js'
import { statsJson } from '../convert/stats.js'
import { errorBody, httpStatus } from '../errors.js'
import { bool, Filters, int, list, parseDuration, type Query, text, timestamp } from '../query.js'
import {
  acceptWebSocket,
  atLeast,
  bodyOf,
  clientGone,
  frame,
  Gatherer,
  hijack,
  pump,
  startStream,
  streamType,
  writeChunk,
} from '../streams.js'
import { admitNetworks, networksOf } from '../swarm-networks.js'
import { isTaskContainer, refuseTaskContainer } from '../task-containers.js'

const LIST_FILTERS = [
  'ancestor',
  'before',
  'exited',
  'expose',
  'health',
  'id',
  'is-task',
  'isolation',
  'label',
  'name',
  'network',
  'publish',
  'since',
  'status',
  'volume',
]

type Params = { id: string }
type StartBody = HostConfig & { HostConfig?: HostConfig }

export function registerContainers(app: FastifyInstance, m: ApiModules): void {
  const { containers } = m.engine

  app.get('/containers/json', async (request) => {
    const q = request.query as Query
    const filters = Filters.parse(q, LIST_FILTERS)
    checkFilters(m, filters)
    const limit = int(q, 'limit', null)
    const all = bool(q, 'all') || (limit !== null && limit > 0) || filters.has('status') || filters.has('exited')
    let found = containers
      .list()
      .filter(
        (c) =>
          (all || c.state.status === 'running' || c.state.status === 'paused' || c.state.status === 'restarting') &&
          matches(m, filters, c),
      )
      .sort((a, b) => b.createdMs - a.createdMs)
    if (limit !== null && limit > 0) found = found.slice(0, limit)
    const shown = bool(q, 'size') ? await sized(m, found) : found.map((c) => summary(m, c))
    const others = linkNames(containers.list())
    return others.size === 0
      ? shown
      : shown.map((c) => ({ ...c, Names: [...c.Names, ...(others.get(c.Id) ?? [])].sort() }))
  })

  app.post('/containers/create', async (request, reply) => {
    const q = request.query as Query
    const body = createBodyOf(object<CreateContainerBody>(request.body, CREATE_BODY, 'container'), request.apiVersion)
    await admitNetworks(m, networksOf(body))
    const made = await containers.create(body, { name: text(q, 'name'), platform: text(q, 'platform') || undefined })
    reply.code(201)
    return { Id: made.id, Warnings: made.warnings }
  })

  app.get<{ Params: Params }>('/containers/:id/json', async (request) => {
    const c = containers.get(request.params.id)
    const shown = olderInspect(containerInspect(c, request.apiVersion), c, request.apiVersion)
    if (!bool(request.query as Query, 'size')) return shown
    const size = await containers.size(c.id)
    return { ...shown, SizeRw: size.rw, SizeRootFs: size.rootFs }
  })

  app.get<{ Params: Params }>('/containers/:id/top', async (request) => {
    const top = await containers.top(request.params.id, text(request.query as Query, 'ps_args') || '-ef')
    return { Titles: top.titles, Processes: top.processes }
  })

  app.get<{ Params: Params }>('/containers/:id/logs', async (request, reply) => {
    const q = request.query as Query
    const query = logQuery(q, m.clock.now())
    const c = containers.get(request.params.id)
    const entries = containers.logs(c.id, query, clientGone(request))
    const tty = c.config.Tty === true
    const decorate = { timestamps: bool(q, 'timestamps'), details: bool(q, 'details') }
    const iterator = entries[Symbol.asyncIterator]()
    // The first entry is asked for before the status goes out, so that an unreadable log is an error and not an empty 200.
    let next = query.follow ? null : await iterator.next()
    const out = new Gatherer(startStream(request, reply, streamType(request.apiVersion, tty)))
    for (;;) {
      next ??= await iterator.next()
      if (next.done) break
      const e = next.value
      next = null
      const data = decorated(e, decorate)
      if (!(await out.write(tty ? data : frame({ stream: e.stream, data })))) break
    }
    await iterator.return?.()
    out.end()
  })

  app.get<{ Params: Params }>('/containers/:id/changes', async (request) => {
    const changes = await containers.changes(request.params.id)
    return changes.map((c) => ({ Path: c.path, Kind: c.kind }))
  })

  app.get<{ Params: Params }>('/containers/:id/export', async (request, reply) => {
    const tar = await containers.export(request.params.id)
    reply.type('application/octet-stream')
    return reply.send(tar)
  })

  app.get<{ Params: Params }>('/containers/:id/stats', async (request, reply) => {
    const q = request.query as Query
    const stream = bool(q, 'stream', true)
    const id = containers.get(request.params.id).id
    const shown = (...args: Parameters<typeof statsJson>) => olderStats(statsJson(...args), request.apiVersion)
    const sample = async () => (containers.get(id).state.pid > 0 ? await containers.stats(id) : null)
    if (!stream) {
      let before = null
      if (!bool(q, 'one-shot')) {
        before = await sample()
        if (before) await m.clock.sleep(1000)
      }
      return shown(containers.get(id), await sample(), before)
    }
    const gone = clientGone(request)
    const out = startStream(request, reply, 'application/json')
    let before = null
    while (!gone.aborted) {
      let c: ContainerView
      try {
        c = containers.get(id)
      } catch {
        break // Removed while we watched: the stream just ends.
      }
      const now = await sample()
      if (!(await writeChunk(out, `${JSON.stringify(shown(c, now, before))}\n`))) break
      before = now
      await m.clock.sleep(1000, gone).catch(() => {})
    }
    out.end()
    return reply
  })

  const act = (
    path: string,
    run: (id: string, q: Query, request: FastifyRequest<{ Params: Params }>) => Promise<void>,
  ): void => {
    app.post<{ Params: Params }>(`/containers/:id/${path}`, async (request, reply) => {
      await run(request.params.id, request.query as Query, request)
      return reply.code(204).send()
    })
  }
  act('start', async (id, _q, { headers, body, apiVersion }) => {
    // More than "null" or "{}"; clients send types without bodies.
    if (headers['transfer-encoding'] || Number(headers['content-length'] ?? 0) > 7) {
      if (atLeast(apiVersion, '1.24'))
        throw invalid(
          'startBody',
          'starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24: give its settings when it is created',
        )
      const { HostConfig, ...beside } = object<StartBody>(body, START_BODY, 'start')
      await containers.configure(id, HostConfig ?? beside)
    }
    const container = containers.get(id)
    if (container.state.status !== 'running') refuseTaskContainer(container)
    // A network of the cluster may have been made anew since, or this node have joined anew.
    await admitNetworks(m, [...container.endpoints.keys()])
    await containers.start(id)
  })
  act('stop', (id, q) =>
    containers.stop(id, { signal: text(q, 'signal') || undefined, timeoutSeconds: int(q, 't', undefined) }),
  )
  act('restart', async (id, q) => {
    refuseTaskContainer(containers.get(id))
    await containers.restart(id, { signal: text(q, 'signal') || undefined, timeoutSeconds: int(q, 't', undefined) })
  })
  act('kill', async (id, q, { apiVersion }) => {
    try {
      await containers.kill(id, text(q, 'signal') || 'SIGKILL')
    } catch (e) {
      if (isKind(e, 'invalid')) throw e
      if (isKind(e, 'conflict') && !atLeast(apiVersion, '1.20')) return // that it ended before was fine then
      const { kind, code, message, fields } = ShoalError.from(e)
      throw new ShoalError(kind, code, `Cannot kill container: ${id}: ${message}`, fields, { cause: e })
    }
  })
  act('pause', (id) => containers.pause(id))
  act('unpause', (id) => containers.unpause(id))
  act('rename', (id, q) => {
    if (text(q, 'name') === '') throw invalid('nameMissing', 'Neither old nor new names may be empty')
    return containers.rename(id, text(q, 'name'))
  })

  app.post<{ Params: Params }>('/containers/:id/resize', async (request, reply) => {
    const { width, height } = size(request.query as Query)
    await containers.resize(request.params.id, width, height)
    return reply.code(200).send()
  })

  // Without this route clients would take the 404 of a page that is not there for one of the container.
  app.all('/containers/:id/checkpoints', async () => {
    throw unimplemented(
      'checkpoints',
      'this engine does not keep checkpoints of containers: commit the container, or pause it',
    )
  })

  app.post<{ Params: Params }>('/containers/:id/update', async (request) => {
    const body = object<HostConfig>(request.body, HOST_CONFIG, 'update')
    if (!atLeast(request.apiVersion, '1.40')) delete body.PidsLimit
    const { warnings } = await containers.update(request.params.id, body)
    return { Warnings: warnings.length > 0 ? warnings : null }
  })

  const attach = (request: FastifyRequest<{ Params: Params }>): Promise<Attachment> => {
    const q = request.query as Query
    return containers.attach(request.params.id, {
      stdin: bool(q, 'stdin'),
      stdout: bool(q, 'stdout'),
      stderr: bool(q, 'stderr'),
      logs: bool(q, 'logs'),
      stream: bool(q, 'stream'),
      detachKeys: text(q, 'detachKeys'),
    })
  }
  app.post<{ Params: Params }>('/containers/:id/attach', async (request, reply) => {
    let attachment: Attachment
    try {
      attachment = await attach(request)
    } catch (e) {
      // In the stream's own form, as dockerd tells it, though nothing was upgraded.
      return reply
        .code(httpStatus(e))
        .header('connection', 'close')
        .type('application/vnd.docker.raw-stream')
        .send(Buffer.from(`${errorBody(e).message}\r\n`))
    }
    await pump(m, hijack(request, reply, streamType(request.apiVersion, attachment.tty)), attachment)
  })
  // The same over a websocket, where output and errors are never told apart.
  app.get<{ Params: Params }>('/containers/:id/attach/ws', async (request, reply) => {
    const attachment = await attach(request)
    let socket: Duplex
    try {
      socket = acceptWebSocket(request, reply)
    } catch (e) {
      attachment.close()
      throw e
    }
    await pump(m, socket, attachment, false)
  })

  app.post<{ Params: Params }>('/containers/:id/wait', async (request, reply) => {
    const condition = text(request.query as Query, 'condition') || 'not-running'
    if (condition !== 'not-running' && condition !== 'next-exit' && condition !== 'removed')
      throw invalid('badCondition', `invalid condition: "${condition}"`)
    const id = containers.get(request.params.id).id
    const waiting = containers.wait(id, condition, clientGone(request))
    const out = startStream(request, reply, 'application/json')
    try {
      // Why a start failed is told by the start itself: as an Error here, clients would print it a second time.
      const { exitCode } = await waiting
      out.end(`${JSON.stringify({ StatusCode: exitCode })}\n`)
    } catch (e) {
      out.end(
        isKind(e, 'cancelled')
          ? ''
          : `${JSON.stringify({ StatusCode: -1, Error: { Message: (e as Error).message } })}\n`,
      )
    }
  })

  // "parent/alias" names a link.
  app.delete<{ Params: { '*': string } }>('/containers/*', async (request, reply) => {
    const q = request.query as Query
    await containers.remove(request.params['*'], {
      force: bool(q, 'force'),
      volumes: bool(q, 'v'),
      link: bool(q, 'link'),
    })
    return reply.code(204).send()
  })

  app.post('/containers/prune', async (request) => {
    const filters = Filters.parse(request.query as Query, ['until', 'label', 'label!'])
    const until = pruneUntil(filters, m.clock.now())
    const deleted: string[] = []
    let reclaimed = 0
    for (const c of containers.list()) {
      if (!['created', 'exited', 'dead'].includes(c.state.status) || c.createdMs > until) continue
      if (!filters.labels('label', c.config.Labels) || !filters.notLabels('label!', c.config.Labels)) continue
      const rw = await unlessTaken(
        containers.size(c.id).then(async (size) => {
          await containers.remove(c.id, { force: false, volumes: false, link: false })
          return size.rw
        }),
      )
      if (rw === null) continue
      deleted.push(c.id)
      reclaimed += rw
    }
    return { ContainersDeleted: deleted.length > 0 ? deleted : null, SpaceReclaimed: reclaimed }
  })

  registerArchive(app, m)

  app.post('/commit', async (request, reply) => {
    const q = request.query as Query
    const repo = text(q, 'repo')
    const id = await containers.commit(text(q, 'container'), {
      reference: repo ? `${repo}${text(q, 'tag') ? `:${text(q, 'tag')}` : ''}` : undefined,
      comment: text(q, 'comment') || undefined,
      author: text(q, 'author') || undefined,
      changes: list(q, 'changes')
        .flatMap((c) => c.split('\n'))
        .filter((c) => c.trim() !== ''),
      pause: bool(q, 'pause', true),
      config:
        request.body && !(request.body instanceof NotJson)
          ? object<ContainerConfig>(request.body, CONTAINER_BODY, 'commit')
          : undefined,
    })
    reply.code(201)
    return { Id: id }
  })
}

function registerArchive(app: FastifyInstance, m: ApiModules): void {
  const { containers } = m.engine
  const stat = (reply: FastifyReply, s: object): void => {
    reply.header('X-Docker-Container-Path-Stat', Buffer.from(JSON.stringify(s)).toString('base64'))
  }
  /** A missing file is told with the container's name as the client wrote it. */
  const inContainer = async <T>(id: string, work: Promise<T>): Promise<T> => {
    try {
      return await work
    } catch (e) {
      if (!(e instanceof ShoalError) || e.code !== 'noSuchPath') throw e
      throw notFound(e.code, `Could not find the file ${e.fields.path} in container ${id}`, e.fields, { cause: e })
    }
  }
  const path = (q: Query): string => {
    const p = text(q, 'path')
    if (p === '') throw invalid('pathMissing', 'missing path: name the file with ?path=')
    if (p.includes('\0')) throw invalid('badPath', 'path: a path cannot have a NUL byte in it')
    return p
  }
  app.head<{ Params: Params }>('/containers/:id/archive', async (request, reply) => {
    const { id } = request.params
    stat(reply, await inContainer(id, containers.statPath(id, path(request.query as Query))))
    return reply.code(200).send()
  })
  app.get<{ Params: Params }>('/containers/:id/archive', async (request, reply) => {
    const { id } = request.params
    const { stat: s, tar } = await inContainer(id, containers.getArchive(id, path(request.query as Query)))
    stat(reply, s)
    reply.type('application/x-tar')
    return reply.send(tar)
  })
  app.put<{ Params: Params }>('/containers/:id/archive', async (request, reply) => {
    const q = request.query as Query
    const { id } = request.params
    const put = containers.putArchive(id, path(q), bodyOf(request), {
      noOverwriteDirNonDir: bool(q, 'noOverwriteDirNonDir'),
      copyUidGid: bool(q, 'copyUIDGID'),
    })
    await inContainer(id, put)
    return reply.code(200).send()
  })
  // The archive's forerunner, up to API 1.23.
  app.post<{ Params: Params }>('/containers/:id/copy', async (request, reply) => {
    const { Resource } = object<{ Resource?: string }>(request.body, { Resource: 'string' }, 'copy')
    if (atLeast(request.apiVersion, '1.24')) return reply.code(404).send()
    if (!Resource) throw invalid('pathMissing', 'Path cannot be empty')
    const { id } = request.params
    const { tar } = await inContainer(id, containers.getArchive(id, Resource))
    reply.type('application/x-tar')
    return reply.send(tar)
  })
}

const summary = (m: ApiModules, c: ContainerView) =>
  containerSummary(c, m.clock.now(), m.engine.images.lineageOf(c.imageReference)[0] ?? null)

/** Summaries with the sizes of writable layers; a container that goes meanwhile is left out. */
export async function sized(m: ApiModules, found: readonly ContainerView[]) {
  const all = await Promise.all(
    found.map(async (c) => {
      try {
        const size = await m.engine.containers.size(c.id)
        return [{ ...summary(m, c), SizeRw: size.rw, SizeRootFs: size.rootFs }]
      } catch (e) {
        if (isKind(e, 'notFound')) return []
        throw e
      }
    }),
  )
  return all.flat()
}

export function size(q: Query): { width: number; height: number } {
  const [height, width] = [int(q, 'h', null), int(q, 'w', null)]
  if (height === null || width === null)
    throw invalid(
      'badParameter',
      'parameters h and w are needed: the height and the width of the terminal in characters',
    )
  for (const n of [height, width])
    if (n < 0 || n > 65535) throw invalid('badParameter', `parameters h and w: ${n} is not between 0 and 65535`)
  return { width, height }
}

/** Null when somebody else removed it, or uses it, since it was listed: a prune leaves it and goes on. */
export const unlessTaken = <T>(removal: Promise<T>): Promise<T | null> =>
  removal.catch((caught: unknown) => {
    if (isKind(caught, 'notFound') || isKind(caught, 'conflict')) return null
    throw caught
  })

export function pruneUntil(filters: Filters, nowMs: number): number {
  const v = filters.values('until')
  if (v.length === 0) return Number.POSITIVE_INFINITY
  if (v.length > 1) throw invalid('badFilter', 'more than one until filter specified')
  const ago = parseDuration(v[0]!)
  return ago !== null ? nowMs - ago / 1e6 : timestamp({ until: v[0] }, 'until', nowMs)!
}

export function logQuery(q: Query, nowMs: number): LogQuery {
  const stdout = bool(q, 'stdout')
  const stderr = bool(q, 'stderr')
  if (!stdout && !stderr) throw invalid('noStream', 'Bad parameters: you must choose at least one stream')
  const tail = text(q, 'tail')
  return {
    stdout,
    stderr,
    follow: bool(q, 'follow'),
    sinceMs: timestamp(q, 'since', nowMs),
    untilMs: timestamp(q, 'until', nowMs),
    // Anything but a number of lines means all of them, as dockerd takes it.
    tail: /^\d+$/.test(tail) ? Number(tail) : null,
  }
}

/** Time and details go before each line, in this order. */
export function decorated(
  e: { time: string; data: Uint8Array; attributes: Readonly<Record<string, string>> },
  o: { timestamps: boolean; details: boolean },
): Uint8Array {
  if (!o.timestamps && !o.details) return e.data
  const attributes = Object.entries(e.attributes)
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([k, v]) => `${encodeURIComponent(k)}=${encodeURIComponent(v)}`)
    .join(',')
  // The file has no zeros at the end; clients count on nine digits.
  const time = e.time.replace(/(\.\d+)?Z$/, (_, fraction = '.') => `${fraction.padEnd(10, '0')}Z`)
  return Buffer.concat([Buffer.from(`${o.timestamps ? `${time} ` : ''}${o.details ? `${attributes} ` : ''}`), e.data])
}

/** Before anything is looked at: a wrong value is refused also where there is nothing to list. */
function checkFilters(m: ApiModules, f: Filters): void {
  f.oneOf('status', ['created', 'restarting', 'running', 'removing', 'paused', 'exited', 'dead'])
  f.oneOf('health', ['none', 'starting', 'healthy', 'unhealthy'])
  f.oneOf('is-task', ['true', 'false'])
  f.each('exited', (v) => /^-?\d+$/.test(v), 'an exit code is a whole number')
  for (const key of ['publish', 'expose']) f.each(key, isPortRange, 'it is <port>[-<port>][/<protocol>]')
  for (const key of ['before', 'since']) for (const v of f.values(key)) m.engine.containers.get(v)
}

function isPortRange(v: string): boolean {
  const [, first, last = first] = /^(\d+)(?:-(\d+))?(?:\/\w+)?$/.exec(v) ?? []
  return first !== undefined && Number(first) <= Number(last) && Number(last) <= 65535
}

function matches(m: ApiModules, f: Filters, c: ContainerView): boolean {
  if (!f.prefix('id', c.id) || !f.exact('status', c.state.status) || !f.exact('exited', String(c.state.exitCode)))
    return false
  if (f.has('exited') && c.state.status !== 'exited') return false
  if (!f.name('name', c.name) && !f.name('name', `/${c.name}`)) return false
  if (!f.labels('label', c.config.Labels) || !f.exact('health', c.state.health?.status ?? 'none')) return false
  if (f.has('is-task') && f.bool('is-task', false) !== isTaskContainer(c)) return false
  if (
    f.has('network') &&
    ![...c.endpoints].some(([name, e]) =>
      f
        .values('network')
        .some((n) => n === name || (e.record ? e.record.networkId.startsWith(n) : e.settings.NetworkID === n)),
    )
  )
    return false
  if (
    f.has('volume') &&
    !c.mounts.some((p) => f.values('volume').some((v) => v === p.name || v === p.destination || v === p.source))
  )
    return false
  if (f.has('ancestor') && !f.values('ancestor').some((a) => isAncestor(m, c, a))) return false
  if (f.has('publish') && !f.values('publish').some((v) => c.ports.some((p) => portMatches(v, p.hostPort, p.protocol))))
    return false
  if (
    f.has('expose') &&
    !f
      .values('expose')
      .some((v) =>
        Object.keys(c.config.ExposedPorts ?? {}).some((e) =>
          portMatches(v, Number(e.split('/')[0]), e.split('/')[1] ?? 'tcp'),
        ),
      )
  )
    return false
  if (f.has('before') && c.createdMs >= m.engine.containers.get(f.values('before')[0]!).createdMs) return false
  if (f.has('since') && c.createdMs <= m.engine.containers.get(f.values('since')[0]!).createdMs) return false
  return true
}

function isAncestor(m: ApiModules, c: ContainerView, wanted: string): boolean {
  const [id] = m.engine.images.lineageOf(wanted)
  return id !== undefined && (c.image === id || m.engine.images.lineageOf(c.image).includes(id))
}

/** "80", "80/udp", "8000-8010/tcp". */
function portMatches(wanted: string, port: number, protocol: string): boolean {
  const [range = '', proto = 'tcp'] = wanted.split('/')
  const [lo, hi = lo] = range.split('-').map(Number)
  return proto === protocol && port >= lo! && port <= hi!
}
