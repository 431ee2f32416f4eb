import { existsSync, readdirSync } from 'node:fs'
import { join } from 'node:path'

export { existsSync }

/** Files below `dir` whose path matches, sorted. */
export function globSync(dir, pattern) {
  if (!existsSync(dir)) return []
  return readdirSync(dir, { recursive: true, withFileTypes: true })
    .filter((e) => e.isFile())
    .map((e) => join(e.parentPath, e.name))
    .filter((f) => pattern.test(f))
    .sort()
}
