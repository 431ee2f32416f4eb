import { mkdir, open, readFile, rename, rm } from 'node:fs/promises'
import { dirname, join } from 'node:path'

/** Replaces a file so that after a crash either the old or the new content is there, whole; durable when resolved. */
export async function writeDurable(path: string, data: string | Uint8Array, mode = 0o600): Promise<void> {
  await mkdir(dirname(path), { recursive: true, mode: 0o700 })
  const tmp = `${path}.tmp`
  const f = await open(tmp, 'w', mode)
  try {
    await f.writeFile(data)
    await f.sync()
  } finally {
    await f.close()
  }
  await rename(tmp, path)
  await syncDirectory(dirname(path))
}

export async function syncDirectory(path: string): Promise<void> {
  const d = await open(path, 'r')
  try {
    await d.sync()
  } finally {
    await d.close()
  }
}

export async function readIfPresent(path: string): Promise<string | null> {
  try {
    return await readFile(path, 'utf8')
  } catch (e) {
    if ((e as NodeJS.ErrnoException).code === 'ENOENT') return null
    throw e
  }
}

export const removeTree = (...parts: string[]): Promise<void> => rm(join(...parts), { recursive: true, force: true })
