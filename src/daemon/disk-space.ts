import { statfs } from 'node:fs/promises'
import { dirname } from 'node:path'
import { type ShoalError, unavailable } from '../common/index.js'
import type { Logger } from '../common/log.js'
import { FREE_BYTES_FLOOR } from '../raft/index.js'

const mebibytes = (bytes: number): string => `${Math.floor(bytes / 2 ** 20)} MiB`

/** Bytes that may still be written at `path`, or at the nearest directory above it that exists. */
export async function freeBytesAt(path: string): Promise<number> {
  try {
    const s = await statfs(path)
    return s.bavail * s.bsize
  } catch (e) {
    if ((e as NodeJS.ErrnoException).code !== 'ENOENT' || dirname(path) === path) throw e
    return freeBytesAt(dirname(path))
  }
}

/** Throws unavailable `diskFull`: a manager whose log has less room than this takes no writes. */
export async function requireLogSpace(dir: string): Promise<void> {
  const free = await freeBytesAt(dir)
  if (free < FREE_BYTES_FLOOR) throw diskFull(dir, free)
}

export const hasLogSpace = async (dir: string): Promise<boolean> => (await freeBytesAt(dir)) >= FREE_BYTES_FLOOR

const diskFull = (dir: string, free: number): ShoalError =>
  unavailable(
    'diskFull',
    `no space left on device: a manager's log needs ${mebibytes(FREE_BYTES_FLOOR)} at ${dir} and ${mebibytes(free)} are free; free space there, or start shoald with a --data-root on a larger disk`,
    { dir, freeBytes: free, neededBytes: FREE_BYTES_FLOOR },
  )

/** What a manager says while it waits for space. */
export async function waitsForSpace(dir: string): Promise<string> {
  const free = await freeBytesAt(dir)
  return `no space left on device: this manager's log at ${dir} could not be written (${mebibytes(free)} free, ${mebibytes(FREE_BYTES_FLOOR)} needed); free space there, and the manager starts again by itself`
}

/** Less than this, and next to nothing can be written. */
const FULL_BYTES = 1 << 20

/** One warning, as the daemon starts. */
export async function warnWhenFull(dataRoot: string, logger: Logger): Promise<void> {
  const freeBytes = await freeBytesAt(dataRoot)
  if (freeBytes < FULL_BYTES)
    logger.warn(
      'the disk of the data root is full: containers can be listed, stopped and removed, images removed; what needs space fails until some is free (shoal system prune, or remove what is not needed)',
      { dataRoot, freeBytes },
    )
}
