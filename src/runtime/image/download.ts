import { Readable } from 'node:stream'
import { connectionFailure, internal, invalid, notFound } from '../../common/index.js'

/**
 * The file at a URL, read by this host: redirects are followed, "http://" may be left out.
 *
 * @throws invalid `badUrl`; `downloadFailed`: notFound when the server answers 404, internal for all else.
 */
export async function download(source: string, signal: AbortSignal): Promise<Readable> {
  const text = /^https?:\/\//.test(source) ? source : `http://${source}`
  if (!URL.canParse(text))
    throw invalid('badUrl', `"${source}" is not a URL: use http://HOST/FILE, or - for the body of the request`)
  const url = new URL(text)
  let answer: Response
  try {
    answer = await fetch(url, { signal })
  } catch (cause) {
    const why = connectionFailure((cause as Error).cause ?? cause)
    throw internal('downloadFailed', `Get "${url}": ${why}`, { url: source }, { cause })
  }
  if (answer.ok && answer.body) return Readable.fromWeb(answer.body as never)
  await answer.body?.cancel()
  const refuse = answer.status === 404 ? notFound : internal
  throw refuse('downloadFailed', `Get "${url}": HTTP status ${answer.status}`, { url: source })
}
