import { lstat, readlink } from 'node:fs/promises'
import { join, posix } from 'node:path'
import { invalid } from '../common/index.js'

/** As the kernel's limit for one look-up (path_resolution(7)). */
const MAX_LINKS = 40

/**
 * Where `path` lies when `root` is "/": links are followed inside the root and never out of it. The part that does not
 * exist is taken as it is. With `followLast` false a link at the very end is kept.
 *
 * @throws invalid `tooManyLinks`, `nameTooLong`.
 */
export const resolveInRoot = async (root: string, path: string, followLast = true): Promise<string> =>
  join(root, await resolveLinks(path, (inside) => join(root, inside), followLast))

/** The same where a tree is put together from several places: `placeOf` tells where an absolute path without links lies. */
export async function resolveLinks(
  path: string,
  placeOf: (inside: string) => string,
  followLast: boolean,
): Promise<string> {
  const todo = posix.normalize(`/${path}`).split('/').filter(Boolean)
  let at: string[] = []
  let links = 0
  while (todo.length > 0) {
    const name = todo.shift()!
    if (name === '..') {
      at.pop()
      continue
    }
    if (name === '.') continue
    const here = placeOf(posix.join('/', ...at, name))
    let target: string | null = null
    if (todo.length > 0 || followLast)
      try {
        if ((await lstat(here)).isSymbolicLink()) target = await readlink(here)
      } catch (caught) {
        const { code = '' } = caught as NodeJS.ErrnoException
        if (code === 'ENAMETOOLONG')
          throw invalid('nameTooLong', `${path}: file name too long`, { path }, { cause: caught })
        if (!['ENOENT', 'ENOTDIR'].includes(code)) throw caught
      }
    if (target === null) {
      at.push(name)
      continue
    }
    if (++links > MAX_LINKS) throw invalid('tooManyLinks', `${path}: more than ${MAX_LINKS} symbolic links`, { path })
    if (target.startsWith('/')) at = []
    todo.unshift(...target.split('/').filter(Boolean))
  }
  return posix.join('/', ...at)
}
