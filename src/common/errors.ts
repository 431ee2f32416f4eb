import { getSystemErrorMap } from 'node:util'

/** What an error *is*; the API and gRPC edges translate it once each (api/: HTTP status, common/grpc: gRPC status). */
export type ErrorKind =
  | 'notFound'
  | 'invalid'
  | 'conflict'
  | 'unavailable'
  | 'forbidden'
  | 'unauthorized'
  | 'unimplemented'
  | 'notModified'
  | 'cancelled'
  | 'internal'

/**
 * The one error class that crosses rooms. `code` is the room's own, stable word for the mishap ("nameInUse"); `fields`
 * carry its data. The message names what was tried, the value and the remedy; nobody branches on its text.
 */
export class ShoalError extends Error {
  override readonly name = 'ShoalError'
  constructor(
    readonly kind: ErrorKind,
    readonly code: string,
    message: string,
    readonly fields: Readonly<Record<string, unknown>> = {},
    options?: { cause?: unknown },
  ) {
    super(message, options)
  }

  /** Turns anything caught into a ShoalError; what is none yet becomes kind internal with the original as its cause. */
  static from(caught: unknown): ShoalError {
    if (caught instanceof ShoalError) return caught
    if (caught instanceof Error) {
      if (caught.name === 'AbortError')
        return new ShoalError('cancelled', 'aborted', caught.message, {}, { cause: caught })
      return new ShoalError('internal', 'internal', caught.message, {}, { cause: caught })
    }
    return new ShoalError('internal', 'internal', String(caught))
  }
}

const of =
  (kind: ErrorKind) =>
  (
    code: string,
    message: string,
    fields?: Readonly<Record<string, unknown>>,
    options?: { cause?: unknown },
  ): ShoalError =>
    new ShoalError(kind, code, message, fields, options)

export const notFound = of('notFound')
export const invalid = of('invalid')
export const conflict = of('conflict')
export const unavailable = of('unavailable')
export const forbidden = of('forbidden')
export const unauthorized = of('unauthorized')
export const unimplemented = of('unimplemented')
export const internal = of('internal')

export const isKind = (caught: unknown, kind: ErrorKind): boolean =>
  caught instanceof ShoalError && caught.kind === kind

/** Ends the process on a broken invariant: going on would spread the damage, and the supervisor restarts us clean. */
export function invariant(condition: unknown, message: string): asserts condition {
  if (!condition) throw new InvariantError(message)
}

/** Never caught on purpose: the daemon's uncaughtException handler logs it and exits. */
export class InvariantError extends Error {
  override readonly name = 'InvariantError'
}

/** Why no connection came about, in the words of Go's clients, which users search for: "dial tcp ADDRESS: connect: connection refused". */
export function connectionFailure(caught: unknown): string {
  const { syscall, hostname, address, port, errno, code, message } = caught as NodeJS.ErrnoException &
    Partial<Record<'hostname' | 'address' | 'port', string>>
  const reason = getSystemErrorMap().get(errno ?? 0)?.[1] ?? message
  if (syscall === 'getaddrinfo')
    return `dial tcp: lookup ${hostname}: ${code === 'ENOTFOUND' ? 'no such host' : reason}`
  if (syscall === 'connect') return `dial tcp ${address}:${port}: connect: ${reason}`
  return message || code || String(caught)
}

/** Did a write fail for want of space or quota? LevelDB's errors have no code, only the system's words. */
export function isOutOfSpace(caught: unknown): boolean {
  for (let e = caught; e instanceof Error; e = e.cause) {
    const { code } = e as NodeJS.ErrnoException
    if (code === 'ENOSPC' || code === 'EDQUOT' || code === 'diskFull') return true
    if (/No space left on device|Disk quota exceeded/i.test(e.message)) return true
  }
  return false
}
