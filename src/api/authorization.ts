import { X509Certificate } from 'node:crypto'
import type { TLSSocket } from 'node:tls'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { forbidden, internal, ShoalError } from '../common/index.js'
import { errorBody, httpStatus } from './errors.js'

declare module 'fastify' {
  interface FastifyRequest {
    /** What the plugins were asked before it was let in; null: none was, or its answer has been judged. */
    question: Question | null
    /** The bytes of a JSON body. */
    bodyBytes: Buffer | null
  }
}

/** An authorization plugin (docker's "Access authorization plugin"): is asked before a request is served, and before it is answered. */
export interface Authorizer {
  readonly name: string
  call(method: string, question: object): Promise<Record<string, unknown>>
}

const ASK_REQUEST = 'AuthZPlugin.AuthZReq'
const ASK_RESPONSE = 'AuthZPlugin.AuthZRes'
/** As dockerd: larger bodies are not shown. */
const BODY_BYTES_MAX = 1024 * 1024

type Question = Readonly<Record<string, unknown>>

/** All routes that are registered after this ask the chain. One that cannot be asked is one that refuses. */
export function guardRoutes(app: FastifyInstance, chain: () => readonly Authorizer[]): void {
  app.decorateRequest('question', null)
  app.decorateRequest('bodyBytes', null)
  app.addHook('preHandler', async (request) => {
    const authorizers = chain()
    if (authorizers.length === 0) return
    const question = requestQuestion(request)
    await ask(authorizers, ASK_REQUEST, question)
    request.question = question
  })
  app.addHook('onSend', async (request, reply, payload) => {
    const { question } = request
    request.question = null
    if (!question) return payload
    try {
      await ask(chain(), ASK_RESPONSE, responseQuestion(question, reply, payload))
      return payload
    } catch (e) {
      // An error of the request's own comes first.
      if (reply.statusCode >= 400) return payload
      if (isStream(payload)) payload.destroy()
      const refusal = ShoalError.from(e)
      reply.code(httpStatus(refusal)).type('application/json').removeHeader('content-length')
      return `${JSON.stringify(errorBody(refusal))}\n`
    }
  })
  // A stream has gone out already; the plugins are told.
  app.addHook('onResponse', async (request, reply) => {
    if (request.question)
      await ask(chain(), ASK_RESPONSE, responseQuestion(request.question, reply, null)).catch(() => {})
  })
}

async function ask(chain: readonly Authorizer[], method: string, question: Question): Promise<void> {
  for (const { name, call } of chain) {
    const answer = await call(method, question).catch((e: unknown) => {
      throw internal(
        'authorizationFailed',
        `plugin ${name} failed with error: ${(e as Error).message}`,
        {},
        { cause: e },
      )
    })
    if (answer.Allow !== true)
      throw forbidden('authorizationDenied', `authorization denied by plugin ${name}: ${String(answer.Msg ?? '')}`)
  }
}

function requestQuestion(request: FastifyRequest): Question {
  return {
    ...peerOf(request),
    RequestMethod: request.method,
    RequestUri: request.originalUrl,
    ...shownBody('RequestBody', request, request.headers['content-type'], request.bodyBytes),
    RequestHeaders: shownHeaders(request.headers),
  }
}

const responseQuestion = (question: Question, reply: FastifyReply, payload: unknown): Question => ({
  ...question,
  ResponseStatusCode: reply.statusCode,
  ...shownBody('ResponseBody', reply.request, String(reply.getHeader('content-type') ?? ''), payload),
  ResponseHeaders: shownHeaders(reply.getHeaders()),
})

/** JSON only, and nothing of /auth: there are passwords in it. */
function shownBody(field: string, request: FastifyRequest, type: string | undefined, body: unknown): object {
  const isShown = (type ?? '').split(';')[0]!.trim() === 'application/json' && !request.url.startsWith('/auth')
  if (!isShown || (typeof body !== 'string' && !Buffer.isBuffer(body))) return {}
  const bytes = Buffer.from(body as string)
  return bytes.length === 0 || bytes.length > BODY_BYTES_MAX ? {} : { [field]: bytes.toString('base64') }
}

const shownHeaders = (headers: Readonly<Record<string, unknown>>): Record<string, string> =>
  Object.fromEntries(
    Object.entries(headers)
      .filter(([name, value]) => value !== undefined && !/auth|x-registry/i.test(name))
      .map(([name, value]) => [canonical(name), String(Array.isArray(value) ? value[0] : value)]),
  )

/** content-type → Content-Type: plugins look names up as Go's servers write them. */
const canonical = (name: string): string => name.replace(/(^|-)[a-z]/g, (c) => c.toUpperCase())

/** Who holds the certificate that the connection was let in with. */
function peerOf(request: FastifyRequest): object {
  const certificates: string[] = []
  let at = (request.raw.socket as Partial<TLSSocket>).getPeerCertificate?.(true)
  const { CN } = at?.subject ?? {}
  while (at?.raw) {
    // As the protocol has bytes: PEM in base64.
    certificates.push(Buffer.from(new X509Certificate(at.raw).toString()).toString('base64'))
    at = at.issuerCertificate === at ? undefined : at.issuerCertificate
  }
  return certificates.length === 0
    ? {}
    : { User: String(CN ?? ''), UserAuthNMethod: 'TLS', RequestPeerCertificates: certificates }
}

const isStream = (payload: unknown): payload is { destroy(): void } =>
  payload !== null && typeof payload === 'object' && 'destroy' in payload && typeof payload.destroy === 'function'
