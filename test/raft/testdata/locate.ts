import { existsSync, realpathSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

/** From build/test/raft/testdata. */
const root = realpathSync(join(dirname(fileURLToPath(import.meta.url)), '../../../..'))

/** The data files lie outside the repository, beside its checkout; null if they are not there. */
export function locateTestdata(): string | null {
  const shared = process.env.SHOAL_SHARED ?? join(root, '../shared')
  const folder = join(shared, 'raft-testdata')
  return existsSync(folder) ? folder : null
}
