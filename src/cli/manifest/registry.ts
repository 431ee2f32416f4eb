import { Exit } from '../command.js'
import { credentials, HUB } from '../registry-auth.js'

/** docker.io's names are served elsewhere. */
const HUB_HOST = 'registry-1.docker.io'
const ACCEPT = [
  'application/vnd.docker.distribution.manifest.v2+json',
  'application/vnd.docker.distribution.manifest.list.v2+json',
  'application/vnd.oci.image.manifest.v1+json',
  'application/vnd.oci.image.index.v1+json',
].join(', ')
const ANSWER_MS = 60_000

const isLoopback = (domain: string): boolean => /^(localhost|127\.[\d.]+|\[::1\])(:\d+)?$/.test(domain)

/** One registry, as far as manifests need it; the engine is not asked (distribution-spec v1.1). */
export class Registry {
  readonly #host: string
  readonly #schemes: readonly string[]
  #authorization: string | null = null

  constructor(
    readonly domain: string,
    insecure: boolean,
  ) {
    this.#host = domain === 'docker.io' ? HUB_HOST : domain
    this.#schemes = insecure || isLoopback(domain) ? ['https', 'http'] : ['https']
  }

  async manifest(path: string, reference: string): Promise<{ bytes: Buffer; mediaType: string }> {
    const r = await this.#call('GET', `/v2/${path}/manifests/${reference}`, [200], `repository:${path}:pull`, {
      Accept: ACCEPT,
    })
    return {
      bytes: Buffer.from(await r.arrayBuffer()),
      mediaType: (r.headers.get('content-type') ?? '').split(';')[0]!,
    }
  }

  async blob(path: string, digest: string): Promise<Buffer> {
    const r = await this.#call('GET', `/v2/${path}/blobs/${digest}`, [200], `repository:${path}:pull`)
    return Buffer.from(await r.arrayBuffer())
  }

  /** Takes a blob over from another repository of this registry; throws where it will not. */
  async mount(path: string, digest: string, from: string): Promise<void> {
    const has = await this.#call('HEAD', `/v2/${path}/blobs/${digest}`, [200, 404], this.#push(path))
    if (has.status === 200) return
    const query = new URLSearchParams({ mount: digest, from })
    await this.#call(
      'POST',
      `/v2/${path}/blobs/uploads/?${query}`,
      [201],
      `${this.#push(path)} repository:${from}:pull`,
      { 'Content-Length': '0' },
    )
  }

  async put(path: string, reference: string, bytes: Buffer, mediaType: string): Promise<void> {
    await this.#call(
      'PUT',
      `/v2/${path}/manifests/${reference}`,
      [200, 201, 202],
      this.#push(path),
      { 'Content-Type': mediaType },
      bytes,
    )
  }

  #push(path: string): string {
    return `repository:${path}:pull,push`
  }

  async #call(
    method: string,
    path: string,
    expect: readonly number[],
    scope: string,
    headers: Record<string, string> = {},
    body?: Buffer,
  ): Promise<Response> {
    let r = await this.#send(method, path, headers, body)
    if (r.status === 401) {
      this.#authorization = await this.#authorize(r.headers.get('www-authenticate') ?? '', scope)
      if (this.#authorization) r = await this.#send(method, path, headers, body)
    }
    if (expect.includes(r.status)) return r
    const text = await r.text()
    let said = text.trim().slice(0, 200) || `status ${r.status}`
    try {
      const [first] = (JSON.parse(text) as { errors?: { message?: string }[] }).errors ?? []
      if (first?.message) said = first.message
    } catch {
      // Not every answer is JSON: what it says is told as it is.
    }
    throw new Exit(
      1,
      r.status === 404 ? `no such manifest: ${this.domain}${path.replace('/v2', '')}` : `${this.domain}: ${said}`,
    )
  }

  async #send(method: string, path: string, headers: Record<string, string>, body?: Buffer): Promise<Response> {
    let last: unknown
    for (const scheme of this.#schemes) {
      try {
        return await fetch(`${scheme}://${this.#host}${path}`, {
          method,
          headers: { ...headers, ...(this.#authorization ? { Authorization: this.#authorization } : {}) },
          ...(body ? { body: new Uint8Array(body) } : {}),
          signal: AbortSignal.timeout(ANSWER_MS),
        })
      } catch (e) {
        last = e
      }
    }
    const cause = (last as { cause?: Error }).cause
    throw new Exit(1, `cannot reach the registry ${this.domain}: ${cause?.message ?? (last as Error).message}`)
  }

  /** Answers a challenge (RFC 7235): basic, or a token of the service that it names. Null: nothing to show. */
  async #authorize(challenge: string, scope: string): Promise<string | null> {
    const known = credentials(this.domain === 'docker.io' ? HUB : this.domain)
    const basic = known?.username
      ? `Basic ${Buffer.from(`${known.username}:${known.password}`).toString('base64')}`
      : null
    if (!/^bearer /i.test(challenge)) return basic
    const field = (name: string): string => new RegExp(`${name}="([^"]*)"`).exec(challenge)?.[1] ?? ''
    const url = new URL(field('realm'))
    if (field('service')) url.searchParams.set('service', field('service'))
    for (const s of scope.split(/ (?=repository:)/)) url.searchParams.append('scope', s)
    const r = await fetch(url, {
      headers: basic ? { Authorization: basic } : {},
      signal: AbortSignal.timeout(ANSWER_MS),
    })
    if (!r.ok)
      throw new Exit(
        1,
        `unauthorized: ${this.domain} gave no token (${r.status}); log in with shoal login ${this.domain}`,
      )
    const answer = (await r.json()) as { token?: string; access_token?: string }
    return `Bearer ${answer.token ?? answer.access_token ?? ''}`
  }
}
