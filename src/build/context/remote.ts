import { basename } from 'node:path'
import { Readable } from 'node:stream'
import { connectionFailure, type ErrorKind, ShoalError } from '../../common/index.js'

/** A file that a server sends. */
export interface RemoteFile {
  readonly contentType: string
  /** By the URL or the server's word; "": neither tells one. */
  readonly name: string
  /** Milliseconds since 1970; 0 when the server does not tell. */
  readonly modifiedMs: number
  /** Bytes, or null when the server does not tell. */
  readonly size: number | null
  readonly body: Readable
}

const KINDS: Readonly<Record<number, ErrorKind>> = {
  400: 'invalid',
  401: 'unauthorized',
  403: 'forbidden',
  404: 'notFound',
}
/** Of an error's body, in its message. */
const REASON_LENGTH_MAX = 1000

/** @throws `downloadFailed` with what the server or the network says. */
export async function getRemote(url: string, signal: AbortSignal): Promise<RemoteFile> {
  let answer: Response
  try {
    answer = await fetch(url, { signal })
  } catch (cause) {
    if (signal.aborted) throw signal.reason
    const why = connectionFailure((cause as Error).cause ?? cause)
    throw new ShoalError('internal', 'downloadFailed', `Get ${JSON.stringify(url)}: ${why}`, { url }, { cause })
  }
  if (!answer.ok || !answer.body) {
    const reason = (await answer.text()).trim().slice(0, REASON_LENGTH_MAX)
    throw new ShoalError(
      KINDS[answer.status] ?? 'internal',
      'downloadFailed',
      `failed to GET ${url} with status ${answer.status} ${answer.statusText}: ${reason}`,
      { url, status: answer.status },
    )
  }
  const modifiedMs = Date.parse(answer.headers.get('last-modified') ?? '')
  const length = answer.headers.get('content-length')
  return {
    contentType: answer.headers.get('content-type') ?? '',
    name: nameOf(new URL(url).pathname) || nameOf(dispositionName(answer.headers.get('content-disposition') ?? '')),
    modifiedMs: Number.isNaN(modifiedMs) ? 0 : modifiedMs,
    size: length === null ? null : Number(length),
    body: Readable.fromWeb(answer.body as never),
  }
}

function nameOf(path: string): string {
  if (path === '' || path.endsWith('/')) return ''
  let plain = path
  try {
    plain = decodeURIComponent(path)
  } catch {
    // No escapes after all: the name as it stands.
  }
  return basename(plain)
}

/** RFC 6266: filename="..." or filename=token. */
const dispositionName = (header: string): string => {
  const [, quoted, token] = /filename=(?:"([^"]*)"|([^;\s]+))/i.exec(header) ?? []
  return quoted ?? token ?? ''
}

/** Bytes that are looked at to tell text from an archive. */
const PREAMBLE_BYTES = 100
const ACCEPTED = /application\/(?:(?:x-)?tar|octet-stream|(?:x-)?(?:gzip|bzip2?|xz))|text\/plain/

/** Text: no byte that text does not have (as browsers tell it; WHATWG MIME Sniffing §7.1). */
const isText = (bytes: Uint8Array): boolean =>
  bytes.every((b) => b > 0x1f || [0x09, 0x0a, 0x0c, 0x0d, 0x1b].includes(b))

/**
 * Whether a remote context is a Dockerfile alone; else it is an archive. The body is handed on whole.
 *
 * @throws `badContext` for an empty answer and for types that are neither.
 */
export async function sniff(
  file: RemoteFile,
  url: string,
): Promise<{ isText: boolean; body: AsyncIterable<Uint8Array> }> {
  const bad = (why: string): Error =>
    new ShoalError('internal', 'badContext', `error detecting content type for remote ${url}: ${why}`, { url })
  const chunks = file.body[Symbol.asyncIterator]()
  let head: Buffer = Buffer.alloc(0)
  while (head.length < PREAMBLE_BYTES) {
    const next = await chunks.next()
    if (next.done) break
    head = Buffer.concat([head, next.value as Buffer])
  }
  if (head.length === 0) throw bad('empty response')
  const told = file.contentType
  const isUnsure = told === '' || told === 'application/octet-stream'
  const type = isUnsure ? (isText(head.subarray(0, PREAMBLE_BYTES)) ? 'text/plain' : 'application/octet-stream') : told
  const accepted = ACCEPTED.exec(type)?.[0]
  if (!accepted) throw bad(`unsupported Content-Type ${JSON.stringify(told)}`)
  return {
    isText: accepted === 'text/plain',
    body: (async function* () {
      yield head
      for (let next = await chunks.next(); !next.done; next = await chunks.next()) yield next.value as Buffer
    })(),
  }
}
