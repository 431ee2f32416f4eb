import { STATUS_CODES } from 'node:http'
import { type ErrorKind, ShoalError } from '../../common/index.js'

/** One entry of a registry's error body (distribution-spec, Error Codes). */
export interface RegistryFault {
  readonly code: string
  readonly message: string
}

export function parseFaults(body: string): RegistryFault[] {
  try {
    const doc = JSON.parse(body) as { errors?: unknown; details?: unknown }
    if (Array.isArray(doc.errors))
      return doc.errors
        .filter((e): e is Record<string, unknown> => typeof e === 'object' && e !== null)
        .map((e) => ({ code: String(anyCase(e, 'code') ?? 'UNKNOWN'), message: String(anyCase(e, 'message') ?? '') }))
    if (typeof doc.details === 'string') return [{ code: 'UNAUTHORIZED', message: doc.details }]
  } catch {
    // Not JSON: a proxy's page. The status tells enough.
  }
  return []
}

/** Docker's own parser does not mind the case of names, so registries have got away with any. */
const anyCase = (e: Readonly<Record<string, unknown>>, name: string): unknown =>
  Object.entries(e).find(([key]) => key.toLowerCase() === name)?.[1]

/** "manifest unknown: manifest unknown": the code in words, then the message, as docker's client prints it. */
export const faultText = (f: RegistryFault): string =>
  `${f.code.toLowerCase().replaceAll('_', ' ')}: ${f.message || 'unknown error'}`

const KIND_BY_STATUS: Readonly<Record<number, ErrorKind>> = {
  400: 'invalid',
  401: 'unauthorized',
  403: 'forbidden',
  404: 'notFound',
  416: 'invalid',
  429: 'unavailable',
}

export const statusText = (status: number): string => `${status} ${STATUS_CODES[status] ?? ''}`.trimEnd()

/** Docker's sentence for an answer without faults that can be read. */
function unreadable(status: number, body: string): string {
  if (status < 400 || status >= 500) return `received unexpected HTTP status: ${statusText(status)}`
  let reason = 'no error details found in HTTP response body'
  try {
    JSON.parse(body)
  } catch (e) {
    reason = (e as Error).message
  }
  return `error parsing HTTP ${status} response body: ${reason}: ${JSON.stringify(body)}`
}

/** An answer that was none of those hoped for. fields: status, faults, url, method. */
export function statusError(method: string, url: string, status: number, body: string): ShoalError {
  const told = parseFaults(body)
  const faults =
    told.length === 0 && status === 401 ? [{ code: 'UNAUTHORIZED', message: 'authentication required' }] : told
  return new ShoalError(
    KIND_BY_STATUS[status] ?? (status >= 500 ? 'unavailable' : 'internal'),
    'registryStatus',
    faults.length > 0 ? faults.map(faultText).join(', ') : unreadable(status, body),
    { status, faults, url, method },
  )
}

export const statusOf = (e: unknown): number | null =>
  e instanceof ShoalError && e.code === 'registryStatus' ? (e.fields.status as number) : null

export const faultsOf = (e: unknown): readonly RegistryFault[] =>
  e instanceof ShoalError && e.code === 'registryStatus' ? (e.fields.faults as RegistryFault[]) : []

/** The connection was not made in time: another try would only take as long again. */
export const isSilent = (e: unknown): boolean =>
  e instanceof ShoalError && (e.cause as { code?: unknown } | undefined)?.code === 'UND_ERR_CONNECT_TIMEOUT'

/** Worth another try: the network, the registry's own trouble, or too many requests. */
export function isTransient(e: unknown): boolean {
  if (!(e instanceof ShoalError)) return false
  if (e.code === 'registryUnreachable' || e.code === 'registryBroken') return true
  const status = statusOf(e)
  return status !== null && (status >= 500 || status === 429 || status === 408)
}
