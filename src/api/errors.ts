import { type ErrorKind, isOutOfSpace, ShoalError, unavailable } from '../common/index.js'

const STATUS: Record<ErrorKind, number> = {
  notFound: 404,
  invalid: 400,
  conflict: 409,
  unavailable: 503,
  forbidden: 403,
  unauthorized: 401,
  unimplemented: 501,
  notModified: 304,
  cancelled: 499,
  internal: 500,
}

/**
 * An update of an object that was changed meanwhile. Docker has no status of its own for it: its store's error comes
 * through as an unknown one, and clients that try again (docker-py, the compose plugin, Terraform) look for this text.
 */
const OUT_OF_SEQUENCE = 'rpc error: code = Unknown desc = update out of sequence'
const isOutOfSequence = (caught: unknown): boolean => caught instanceof ShoalError && caught.code === 'outOfSequence'

/** The one place where an error becomes an HTTP status. */
export function httpStatus(caught: unknown): number {
  if (isOutOfSequence(caught)) return 500
  if (caught instanceof ShoalError) return STATUS[caught.kind]
  const status = (caught as { statusCode?: unknown })?.statusCode
  // A media type that cannot be read is any bad request to dockerd's clients.
  if (status === 415) return 400
  return typeof status === 'number' && status >= 400 ? status : 500
}

/** Body of every error answer of the Engine API. */
export const errorBody = (caught: unknown): { message: string } => ({
  message: isOutOfSequence(caught) ? OUT_OF_SEQUENCE : caught instanceof Error ? caught.message : String(caught),
})

declare module 'fastify' {
  interface FastifyInstance {
    /** What was caught, as the client is told it: `explainFull` for this daemon's data root. */
    explained(caught: unknown): unknown
  }
}

/** An error for want of space says where it is wanted, and what to do; others stay as they are. */
export function explainFull(caught: unknown, dataRoot: string): unknown {
  if (!isOutOfSpace(caught) || (caught instanceof ShoalError && caught.code === 'diskFull')) return caught
  const path = pathOf(caught) ?? dataRoot
  const message = chainOf(caught).find((e) => /space|quota/i.test(e.message))?.message ?? (caught as Error).message
  return unavailable(
    'diskFull',
    `no space left on device at ${path}: ${message}; free space there: remove containers, images and volumes that are not needed (docker system prune), or enlarge the disk`,
    { path },
    { cause: caught },
  )
}

function pathOf(caught: unknown): string | null {
  for (const e of chainOf(caught)) {
    const path = e instanceof ShoalError ? e.fields.path : (e as NodeJS.ErrnoException).path
    if (typeof path === 'string' && path.startsWith('/')) return path
  }
  return null
}

/** An error and its causes. */
const chainOf = (caught: unknown): Error[] => (caught instanceof Error ? [caught, ...chainOf(caught.cause)] : [])
