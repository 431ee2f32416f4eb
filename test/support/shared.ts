import { existsSync, realpathSync } from 'node:fs'
import { join } from 'node:path'
import type { ExecutionContext } from 'ava'
import { skip } from './skip.js'

/** Reference data that is no part of the project: SHOAL_SHARED, or the folder `shared` beside the checkout. */
export function sharedDir(...parts: string[]): string | null {
  const root = process.env.SHOAL_SHARED ?? join(realpathSync(process.cwd()), '..', 'shared')
  const path = join(root, ...parts)
  return existsSync(path) ? path : null
}

/** The path, or null after the test was skipped with a line; in CI a missing folder fails the test. */
export function needShared(t: ExecutionContext, ...parts: string[]): string | null {
  const path = sharedDir(...parts)
  if (path) return path
  if (process.env.CI) t.fail(`reference data ${join('shared', ...parts)} is missing; set SHOAL_SHARED`)
  else skip(t, `reference data ${join('shared', ...parts)} is not here`)
  return null
}
