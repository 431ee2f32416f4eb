/** A broken invariant of the core: a bug, or storage that lost what it had promised. The process must end. */
export class CoreAssertionError extends Error {
  override readonly name = 'CoreAssertionError'
}

/** For conditions whose message costs nothing to build; hot paths test first and call `fail`. */
export function assert(condition: unknown, message: string): asserts condition {
  if (!condition) fail(message)
}

export function fail(message: string): never {
  throw new CoreAssertionError(message)
}
