import { createServer, type IncomingMessage, type Server, ServerResponse } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import type { Socket } from 'node:net'
import type { Duplex, Readable } from 'node:stream'
import Fastify, { type FastifyInstance, type FastifyReply, type FastifyRequest } from 'fastify'
import { invalid } from '../common/index.js'
import { guardRoutes } from './authorization.js'
import { NotJson } from './body.js'
import { API_VERSION, type ApiModules, MIN_API_VERSION } from './contract.js'
import { errorBody, explainFull, httpStatus } from './errors.js'
import { goJsonError } from './json-error.js'
import { registerBuild } from './routes/build.js'
import { registerContainers } from './routes/containers.js'
import { registerExec } from './routes/exec.js'
import { registerImages } from './routes/images.js'
import { registerNetworks } from './routes/networks.js'
import { registerPlugins } from './routes/plugins.js'
import { registerServices } from './routes/services.js'
import { registerSwarm } from './routes/swarm.js'
import { registerSystem } from './routes/system.js'
import { registerVolumes } from './routes/volumes.js'
import { atLeast } from './streams.js'

declare module 'fastify' {
  interface FastifyRequest {
    /** Version in the path, or the newest. */
    apiVersion: string
  }
}

/** What the connection handler adds to a request that asked for an upgrade: Node hands body and rest over in `head`. */
interface UpgradedMessage extends IncomingMessage {
  upgradeBody?: Buffer
  isUpgraded?: boolean
}

const JSON_TYPE = 'application/json'
const MAX_JSON_BYTES = 16 * 1024 * 1024
const VERSION_PREFIX = /^\/v(\d+\.\d+)(?=\/|$)/
/** A container named by a link, "parent/alias", before a verb. */
const LINK_NAME = /^(\/containers\/[^/?]+)\/([^/?]+)(?=\/(?!ws\b)[a-z]+(?:\?|$))/

/** One route table; any number of listeners (unix sockets, TCP, TLS) in front of it. */
export interface Api {
  listener(tls?: { readonly key: string; readonly cert: string; readonly ca: string | null }): Server
  close(): Promise<void>
}

export async function createApi(modules: ApiModules): Promise<Api> {
  let handler: ((req: IncomingMessage, res: ServerResponse) => void) | null = null
  const app = Fastify({
    logger: false,
    exposeHeadRoutes: false,
    // A path that is no path: Fastify would answer in a form of its own.
    frameworkErrors: (error, request, reply) => {
      stamp(modules, reply as FastifyReply)
      ;(reply as FastifyReply)
        .code(400)
        .type(JSON_TYPE)
        .send({ message: `malformed path ${request.url.slice(0, 200)}: ${error.message}` })
    },
    routerOptions: { maxParamLength: 4096, ignoreTrailingSlash: false },
    rewriteUrl: (req) => {
      const m = VERSION_PREFIX.exec(req.url ?? '/')
      const path = m ? req.url!.slice(m[0].length) || '/' : (req.url ?? '/')
      return path.replace(LINK_NAME, '$1%2F$2')
    },
    serverFactory: (h) => {
      handler = h as typeof handler
      return createServer()
    },
  })
  app.decorateRequest('apiVersion', API_VERSION)
  readBodies(app)
  app.addHook('onRequest', async (request, reply) => {
    stamp(modules, reply)
    const m = VERSION_PREFIX.exec(request.originalUrl)
    if (m) {
      const v = m[1]!
      if (!atLeast(v, MIN_API_VERSION)) {
        request.apiVersion = v
        throw invalid(
          'versionTooOld',
          `client version ${v} is too old. Minimum supported API version is ${MIN_API_VERSION}, please upgrade your client to a newer version`,
        )
      }
      if (!atLeast(API_VERSION, v))
        throw invalid(
          'versionTooNew',
          `client version ${v} is too new. Maximum supported API version is ${API_VERSION}`,
        )
      request.apiVersion = v
    }
  })
  // Clients compare types and short answers to the letter: Fastify adds a charset that JSON does not have, and has not
  // the end of line that dockerd's JSON has.
  app.addHook('onSend', async (_request, reply, payload) => {
    if (reply.getHeader('content-type') === 'application/json; charset=utf-8') reply.header('content-type', JSON_TYPE)
    const isJson = reply.getHeader('content-type') === JSON_TYPE
    return isJson && typeof payload === 'string' && payload !== '' ? `${payload}\n` : payload
  })
  // What is left of a body that was refused half-way; nothing after it on the connection would be read otherwise.
  app.addHook('onResponse', async (request) => {
    if (!request.raw.readableEnded) request.raw.unpipe().resume()
  })
  guardRoutes(app, modules.authorizers)
  app.decorate('explained', (caught: unknown) => explainFull(caught, modules.facts.dataRoot))
  app.setErrorHandler((caught, request, reply) => {
    const error = app.explained(caught)
    const status = httpStatus(error)
    // A client that went in the middle of its request is no failure of ours.
    if (status >= 500 && status !== 503 && !request.raw.destroyed)
      modules.logger.error('request failed', {
        method: request.method,
        url: request.originalUrl,
        error: String((error as Error).stack ?? error),
      })
    else
      modules.logger.debug('request refused', {
        method: request.method,
        url: request.originalUrl,
        status,
        message: (error as Error).message,
      })
    if (reply.raw.headersSent) {
      reply.raw.destroy()
      return
    }
    if (status === 304) reply.code(304).send()
    else sendError(request, reply, status === 499 ? 500 : status, errorBody(error).message)
  })
  app.setNotFoundHandler((request, reply) => sendError(request, reply, 404, 'page not found'))
  registerSystem(app, modules)
  registerContainers(app, modules)
  registerExec(app, modules)
  registerImages(app, modules)
  registerBuild(app, modules)
  registerNetworks(app, modules)
  registerVolumes(app, modules)
  registerPlugins(app, modules)
  registerSwarm(app, modules)
  registerServices(app, modules)
  await app.ready()

  const servers = new Set<Server>()
  // Hijacked connections are no longer the server's own, and would keep it from closing.
  const sockets = new Set<Socket>()
  return {
    listener(tls) {
      const options = { requestTimeout: 0, headersTimeout: 60_000, keepAliveTimeout: 60_000, maxHeaderSize: 64 * 1024 }
      // A client that has no more to say (`docker run` without -i) closes its half and goes on reading: under TLS as well,
      // where Node would otherwise answer with the end of its own half.
      const server = tls
        ? (createTlsServer({
            ...options,
            allowHalfOpen: true,
            key: tls.key,
            cert: tls.cert,
            ...(tls.ca ? { ca: tls.ca, requestCert: true, rejectUnauthorized: true } : {}),
            minVersion: 'TLSv1.2',
          }) as unknown as Server)
        : createServer(options)
      server.on('request', handler!)
      server.on('upgrade', (req: UpgradedMessage, socket: Duplex, head: Buffer) => {
        // Node has taken its own listener away: a client that goes before its answer must not end the daemon.
        socket.on('error', () => socket.destroy())
        collectBody(req, socket, head).then(
          () => {
            const res = new ServerResponse(req)
            res.shouldKeepAlive = false
            res.assignSocket(req.socket)
            res.once('finish', () => socket.end())
            handler!(req, res)
          },
          () => socket.destroy(),
        )
      })
      server.on('clientError', (_e, socket) => {
        if (socket.writable)
          socket.end(
            'HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Type: application/json\r\n\r\n{"message":"malformed HTTP request"}\n',
          )
        else socket.destroy()
      })
      server.on('connection', (socket: Socket) => {
        sockets.add(socket)
        socket.once('close', () => sockets.delete(socket))
      })
      servers.add(server)
      return server
    },
    async close() {
      await Promise.all(
        [...servers].map(
          (s) =>
            new Promise<void>((resolve) => {
              s.close(() => resolve())
              s.closeAllConnections()
              for (const socket of sockets) socket.destroy()
            }),
        ),
      )
      await app.close()
    },
  }
}

/** Errors were plain text before API 1.24. */
function sendError(request: FastifyRequest, reply: FastifyReply, status: number, message: string): void {
  reply.code(status)
  if (atLeast(request.apiVersion, '1.24')) reply.type(JSON_TYPE).send({ message })
  else reply.type('text/plain; charset=utf-8').send(`${message}\n`)
}

function stamp(modules: ApiModules, reply: FastifyReply): void {
  reply.header('Api-Version', API_VERSION)
  reply.header('Docker-Experimental', String(modules.facts.experimental))
  reply.header('Ostype', 'linux')
  if (modules.facts.corsHeader) {
    reply.header('Access-Control-Allow-Origin', modules.facts.corsHeader)
    reply.header(
      'Access-Control-Allow-Headers',
      'Origin, X-Requested-With, Content-Type, Accept, X-Registry-Auth, X-Registry-Config',
    )
    reply.header('Access-Control-Allow-Methods', 'HEAD, GET, POST, DELETE, PUT, OPTIONS')
  }
  reply.header('Server', `Shoal/${modules.facts.version} (linux)`)
}

/** JSON bodies are read and parsed; every other body stays a stream on request.raw. */
function readBodies(app: FastifyInstance): void {
  app.removeAllContentTypeParsers()
  type Done = (error: Error | null, body?: unknown) => void
  const parse = (request: FastifyRequest, payload: Readable, done: Done): void => {
    readJson(request, payload).then(
      (v) => done(null, v),
      (e) => done(e as Error),
    )
  }
  app.addContentTypeParser(['application/json', 'text/json'], parse)
  app.addContentTypeParser('*', (request: FastifyRequest, payload, done) => {
    // Up to API 1.21 the type of this one was not looked at.
    if (!atLeast(request.apiVersion, '1.22') && /^\/exec\/[^/]+\/start$/.test(request.url))
      parse(request, payload, done)
    else done(null, new NotJson(request.headers['content-type'] ?? ''))
  })
}

async function readJson(request: FastifyRequest, payload: Readable): Promise<unknown> {
  let body = (request.raw as UpgradedMessage).upgradeBody
  if (!body) {
    const parts: Buffer[] = []
    let size = 0
    for await (const b of payload.iterator({ destroyOnReturn: false })) {
      size += b.length
      if (size > MAX_JSON_BYTES) throw invalid('bodyTooLarge', `request body is larger than ${MAX_JSON_BYTES} bytes`)
      parts.push(b)
    }
    body = Buffer.concat(parts)
  }
  if (body.length === 0) return undefined
  request.bodyBytes = body
  try {
    return JSON.parse(body.toString('utf8'))
  } catch (e) {
    throw invalid('badJson', `invalid JSON: ${goJsonError(body.toString('utf8'), (e as Error).message)}`)
  }
}

/** Reads exactly Content-Length bytes, or chunked-free nothing, off an upgrade request. */
async function collectBody(req: UpgradedMessage, socket: Duplex, head: Buffer): Promise<void> {
  const length = Number(req.headers['content-length'] ?? 0)
  if (!Number.isInteger(length) || length < 0 || length > MAX_JSON_BYTES) throw new Error('bad content-length')
  let have = head
  while (have.length < length) {
    const more = await new Promise<Buffer>((resolve, reject) => {
      const onData = (b: Buffer): void => {
        socket.off('close', onClose)
        socket.off('end', onClose)
        socket.pause()
        resolve(b)
      }
      const onClose = (): void => reject(new Error('closed'))
      socket.once('data', onData)
      socket.once('close', onClose)
      // Half-closed before the body was whole: nothing more can come.
      socket.once('end', onClose)
      socket.resume()
    })
    have = Buffer.concat([have, more])
  }
  req.upgradeBody = have.subarray(0, length)
  req.isUpgraded = true
  // At once: a socket with nothing to read ends as soon as the client has closed its half, and takes nothing back then.
  if (have.length > length) socket.unshift(have.subarray(length))
}
