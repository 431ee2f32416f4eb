import { BlockList, isIP } from 'node:net'
import type { Readable } from 'node:stream'
import { Agent, type Dispatcher, request } from 'undici'
import { connectionFailure, ShoalError } from '../../common/index.js'
import type { RegistryAuth } from '../contract.js'
import { basicHeader, credentialsOf, parseChallenges } from './auth.js'
import { secureContextOf } from './certificates.js'
import { statusError, statusOf, statusText } from './errors.js'

export interface TransportOptions {
  readonly insecureRegistries: readonly string[]
  readonly certsDirs: readonly string[]
  readonly idleTimeoutMs: number
  readonly now: () => number
}

export interface RegistryRequest {
  readonly method: 'GET' | 'HEAD' | 'POST' | 'PUT' | 'PATCH' | 'DELETE'
  /** Path from /v2/, or an absolute URL that the registry gave. */
  readonly path: string
  readonly headers?: Readonly<Record<string, string>>
  /** Made anew for each try: a stream can be sent once. */
  readonly body?: () => Uint8Array | Readable
  readonly expect: readonly number[]
  readonly scope: string
  /** Asks a token server for an identity token too, which then stands for the password. */
  readonly isLogin?: boolean
  readonly signal?: AbortSignal
}

export interface RegistryResponse {
  readonly status: number
  readonly headers: Readonly<Record<string, string | string[] | undefined>>
  readonly body: Dispatcher.ResponseData['body']
  /** After redirects. */
  readonly url: string
}

const REDIRECTS_MAX = 5
/** As dockerd: whoever waits at a terminal should hear of a host that is not there. */
const CONNECT_TIMEOUT_MS = 15_000
/** Error bodies are for people. */
const ERROR_BODY_BYTES_MAX = 64 * 1024

export const headerOf = (r: RegistryResponse, name: string): string | null => {
  const v = r.headers[name]
  return v === undefined ? null : typeof v === 'string' ? v : (v[0] ?? null)
}

/** Loopback, and what the operator listed: names with or without port, or IPv4 ranges. */
export function isInsecure(host: string, listed: readonly string[]): boolean {
  const name = host.replace(/:\d+$/, '').replace(/^\[|\]$/g, '')
  const ranges = new BlockList()
  ranges.addSubnet('127.0.0.0', 8)
  ranges.addAddress('::1', 'ipv6')
  if (name === 'localhost') return true
  for (const entry of listed) {
    if (entry === host || entry === name) return true
    const cidr = /^(\d+\.\d+\.\d+\.\d+)\/(\d+)$/.exec(entry)
    if (cidr) ranges.addSubnet(cidr[1]!, Number(cidr[2]))
  }
  const family = isIP(name)
  return family !== 0 && ranges.check(name, family === 6 ? 'ipv6' : 'ipv4')
}

/** Reads at most `limit` bytes; leaving the loop gives the connection up. */
export async function readBody(body: AsyncIterable<Uint8Array>, limit: number): Promise<Buffer> {
  const chunks: Uint8Array[] = []
  let size = 0
  for await (const chunk of body) {
    size += chunk.length
    if (size > limit)
      throw new ShoalError('invalid', 'bodyTooLarge', `the registry's answer is longer than ${limit} bytes`)
    chunks.push(chunk)
  }
  return Buffer.concat(chunks)
}

/**
 * One registry: finds out whether it speaks TLS, answers its challenges, follows its redirects. One is made for each pull or
 * push, so credentials of one caller never serve another.
 */
export class Transport {
  readonly #agent: Agent
  readonly #insecure: boolean
  #base: string | null
  /** Authorization header by scope. */
  readonly #tokens = new Map<string, { header: string; untilMs: number }>()
  #basic: string | null = null
  #identity = ''
  readonly #userAgent: string

  /** `endpoint` is a host ("localhost:5000") or a base URL (a mirror). */
  constructor(
    endpoint: string,
    private readonly auth: RegistryAuth | undefined,
    private readonly options: TransportOptions,
  ) {
    const url = /^https?:\/\//.test(endpoint) ? new URL(endpoint) : null
    const host = url?.host ?? endpoint
    this.host = host
    this.#userAgent = userAgent(auth?.userAgent)
    this.#base = url ? url.href.replace(/\/$/, '') : null
    this.#insecure = isInsecure(host, options.insecureRegistries)
    this.#agent = new Agent({
      headersTimeout: options.idleTimeoutMs,
      bodyTimeout: options.idleTimeoutMs,
      connect: {
        timeout: Math.min(options.idleTimeoutMs, CONNECT_TIMEOUT_MS),
        rejectUnauthorized: !this.#insecure,
        secureContext: secureContextOf(host, options.certsDirs),
      },
    })
  }

  readonly host: string

  async close(): Promise<void> {
    // destroy, not close: an answer that nobody reads to its end would be waited for.
    await this.#agent.destroy()
  }

  /** Throws registryUnreachable, registryBroken, registryStatus or noCredentials. */
  async send(r: RegistryRequest): Promise<RegistryResponse> {
    const base = this.#base ?? (await this.#discover(r.signal))
    const url = /^https?:\/\//.test(r.path) ? r.path : `${base}${r.path}`
    let response = await this.#once(r, url, this.#authorization(r.scope))
    if (response.status === 401) {
      const challenge = response.headers['www-authenticate']
      const body = (await readBody(response.body, ERROR_BODY_BYTES_MAX)).toString('utf8')
      const header = await this.#answer(challenge, r, body, url)
      response = await this.#once(r, url, header)
    }
    if (r.expect.includes(response.status)) return response
    const text = (await readBody(response.body, ERROR_BODY_BYTES_MAX)).toString('utf8')
    throw statusError(r.method, url, response.status, text)
  }

  /**
   * Whether the registry takes the credentials; gives the identity token that it wants from now on, or nothing.
   * Throws unauthorized `loginRefused`, and what `send` throws.
   */
  async login(signal?: AbortSignal): Promise<string> {
    const url = `${this.#base ?? (await this.#discover(signal))}/v2/`
    try {
      const r = await this.send({
        method: 'GET',
        path: '/v2/',
        expect: [200],
        scope: '',
        isLogin: true,
        ...(signal && { signal }),
      })
      await r.body.dump()
      return this.#identity
    } catch (e) {
      const status = statusOf(e)
      if (status === null) throw e
      const message =
        (e as ShoalError).fields.url === url
          ? `login attempt to ${url} failed with status: ${statusText(status)}`
          : `Get "${url}": ${(e as Error).message}`
      throw new ShoalError(status === 401 ? 'unauthorized' : 'internal', 'loginRefused', message, {}, { cause: e })
    }
  }

  /** Docker's order: TLS first; plain HTTP only for insecure registries and only when TLS fails. */
  async #discover(signal?: AbortSignal): Promise<string> {
    const host = this.host === 'docker.io' ? 'registry-1.docker.io' : this.host
    const schemes = this.#insecure ? ['https', 'http'] : ['https']
    let failure: unknown
    for (const scheme of schemes) {
      try {
        const url = `${scheme}://${host}/v2/`
        const response = await this.#raw('GET', url, {}, undefined, signal)
        await response.body.dump()
        this.#base = `${scheme}://${host}`
        return this.#base
      } catch (e) {
        if (signal?.aborted) throw e
        failure = e
      }
    }
    throw failure
  }

  #authorization(scope: string): string | null {
    if (this.#basic) return this.#basic
    const token = this.#tokens.get(scope)
    return token && token.untilMs > this.options.now() ? token.header : null
  }

  async #answer(header: string | string[] | undefined, r: RegistryRequest, body: string, url: string): Promise<string> {
    const challenges = parseChallenges(header)
    const bearer = challenges.find((c) => c.scheme === 'bearer')
    if (this.auth?.registrytoken && bearer) return `Bearer ${this.auth.registrytoken}`
    if (bearer) return this.#fetchToken(bearer.parameters, r)
    const credentials = credentialsOf(this.auth)
    if (challenges.some((c) => c.scheme === 'basic')) {
      if (!credentials)
        throw new ShoalError(
          // Not unauthorized: on that clients ask for a password and try again, which dockerd does not make them do.
          'internal',
          'noCredentials',
          `${titled(r.method)} "${url}": no basic auth credentials`,
          { host: this.host },
        )
      // Once refused, the same credentials are not offered again.
      if (this.#basic) throw statusError(r.method, url, 401, body)
      this.#basic = basicHeader(credentials)
      return this.#basic
    }
    throw statusError(r.method, url, 401, body)
  }

  /** distribution's token specification: GET with Basic, or OAuth2 POST with an identity token. */
  async #fetchToken(p: Readonly<Record<string, string>>, { scope, isLogin, signal }: RegistryRequest): Promise<string> {
    let realm: URL
    try {
      realm = new URL(p.realm ?? '')
    } catch (cause) {
      throw new ShoalError(
        'unavailable',
        'badChallenge',
        `the registry ${this.host} asks for a token from "${p.realm}", which is no URL`,
        {},
        { cause },
      )
    }
    const credentials = credentialsOf(this.auth)
    const identity = this.auth?.identitytoken
    let response: RegistryResponse
    if (identity) {
      const form = new URLSearchParams({
        grant_type: 'refresh_token',
        refresh_token: identity,
        client_id: 'shoal',
        service: p.service ?? '',
        scope,
      })
      response = await this.#raw(
        'POST',
        realm.href,
        { 'content-type': 'application/x-www-form-urlencoded' },
        Buffer.from(form.toString()),
        signal,
      )
    } else {
      if (p.service) realm.searchParams.set('service', p.service)
      for (const one of scope.split(' ').filter(Boolean)) realm.searchParams.append('scope', one)
      if (credentials) realm.searchParams.set('account', credentials.username)
      if (isLogin) realm.searchParams.set('offline_token', 'true')
      if (isLogin) realm.searchParams.set('client_id', 'shoal')
      response = await this.#raw(
        'GET',
        realm.href,
        credentials ? { authorization: basicHeader(credentials) } : {},
        undefined,
        signal,
      )
    }
    const text = (await readBody(response.body, 1024 * 1024)).toString('utf8')
    if (response.status !== 200) throw statusError('GET', realm.href, response.status, text)
    let doc: { token?: unknown; access_token?: unknown; refresh_token?: unknown; expires_in?: unknown }
    try {
      doc = JSON.parse(text) as typeof doc
    } catch (cause) {
      throw new ShoalError(
        'unavailable',
        'badToken',
        `unable to decode token response: the answer of ${realm.host} is no JSON`,
        {},
        { cause },
      )
    }
    const token = doc.token ?? doc.access_token
    if (typeof token !== 'string' || token === '')
      throw new ShoalError('unavailable', 'badToken', 'authorization server did not include a token in the response', {
        realm: realm.href,
      })
    if (typeof doc.refresh_token === 'string') this.#identity = doc.refresh_token
    // The specification's minimum is 60 s; ask anew a little before it ends.
    const seconds = typeof doc.expires_in === 'number' && doc.expires_in >= 60 ? doc.expires_in : 60
    const header = `Bearer ${token}`
    this.#tokens.set(scope, { header, untilMs: this.options.now() + (seconds - 10) * 1000 })
    return header
  }

  async #once(r: RegistryRequest, url: string, authorization: string | null): Promise<RegistryResponse> {
    let at = url
    for (let hop = 0; ; hop++) {
      // Credentials are for the registry, never for the store that it sends us to.
      const own = new URL(at).host === new URL(url).host
      const headers = { ...r.headers, ...(authorization && own ? { authorization } : {}) }
      const response = await this.#raw(r.method, at, headers, r.body?.(), r.signal)
      const location = headerOf(response, 'location')
      if (![301, 302, 303, 307, 308].includes(response.status) || !location || r.expect.includes(response.status))
        return response
      await response.body.dump()
      if (hop === REDIRECTS_MAX)
        throw new ShoalError('unavailable', 'registryBroken', `${url} redirects more than ${REDIRECTS_MAX} times`)
      at = new URL(location, at).href
    }
  }

  async #raw(
    method: RegistryRequest['method'],
    url: string,
    headers: Readonly<Record<string, string>>,
    body: Uint8Array | Readable | undefined,
    signal: AbortSignal | undefined,
  ): Promise<RegistryResponse> {
    try {
      const r = await request(url, {
        method,
        headers: { 'user-agent': this.#userAgent, ...headers },
        body: body ?? null,
        dispatcher: this.#agent,
        ...(signal && { signal }),
      })
      return { status: r.statusCode, headers: r.headers, body: r.body, url }
    } catch (cause) {
      if (signal?.aborted) throw cause
      throw new ShoalError(
        'unavailable',
        'registryUnreachable',
        `${titled(method)} "${url}": ${connectionFailure(cause)}`,
        { host: this.host },
        { cause },
      )
    }
  }
}

/** As dockerd's, which registries and proxies before them look at: the engine, then who asked it. */
const userAgent = (client: string | undefined): string =>
  `docker/20.10 shoal os/linux${client ? ` UpstreamClient(${client.replace(/[;()\\]/g, '\\$&')})` : ''}`

/** Go's http client writes `Get "https://...": reason`; users search for that. */
const titled = (method: string): string => method[0]! + method.slice(1).toLowerCase()
