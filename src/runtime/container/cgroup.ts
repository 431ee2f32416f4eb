import { existsSync } from 'node:fs'
import { readdir, readFile, rmdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Clock } from '../../common/index.js'
import { sendSignal } from './processes.js'

export interface CgroupMount {
  readonly version: 1 | 2
  readonly path: string
  /** v1: the controllers of the hierarchy, or its name ("name=systemd"). */
  readonly controllers: readonly string[]
}

let known: Promise<readonly CgroupMount[]> | null = null

/** Every cgroup hierarchy that is mounted here. Read once: they are mounted before any daemon starts. */
export function cgroupMounts(): Promise<readonly CgroupMount[]> {
  known ??= readCgroupMounts()
  return known
}

/** From /proc/self/mountinfo (proc(5)). */
async function readCgroupMounts(): Promise<readonly CgroupMount[]> {
  const mounts: CgroupMount[] = []
  for (const line of (await readFile('/proc/self/mountinfo', 'utf8')).split('\n')) {
    const [left, right] = line.split(' - ')
    if (!left || !right) continue
    const path = left.split(' ')[4]!
    const [type, , options] = right.split(' ')
    if (type === 'cgroup2') mounts.push({ version: 2, path, controllers: [] })
    else if (type === 'cgroup')
      mounts.push({
        version: 1,
        path,
        controllers: (options ?? '').split(',').filter((o) => o !== 'rw' && o !== 'ro' && o !== 'xattr'),
      })
  }
  return mounts
}

const isGone = (caught: unknown): boolean => ['ENOENT', 'ENODEV'].includes((caught as NodeJS.ErrnoException).code ?? '')

/**
 * Kills everything in a cgroup and removes it in all hierarchies: for a container whose shim was killed and could not do
 * it. `path` is below each hierarchy's mount. Gives up (and throws) when processes do not die within `timeoutMs`.
 */
export async function destroyCgroup(clock: Clock, path: string, timeoutMs: number): Promise<void> {
  const deadline = clock.monotonic() + timeoutMs
  // After an ordinary end the shim has removed it everywhere: then this is one look a hierarchy.
  const dirs = (await cgroupMounts()).map((mount) => join(mount.path, path)).filter((dir) => existsSync(dir))
  for (const dir of dirs) {
    for (;;) {
      const killed = await killAll(dir)
      if (killed === 0 && (await removeTree(dir))) break
      if (clock.monotonic() > deadline)
        throw new Error(`cgroup ${dir} still has processes or children after ${timeoutMs} ms of killing`)
      // A killed process leaves its cgroup a little later; the kernel offers nothing to wait on for v1.
      await clock.sleep(5)
    }
  }
}

/** Removes a group that holds nothing any more, in all hierarchies; one in use, or never made, stays as it is. */
export async function removeEmptyCgroup(path: string): Promise<void> {
  for (const mount of await cgroupMounts()) {
    const dir = join(mount.path, path)
    if (dir === mount.path) continue
    try {
      await rmdir(dir)
    } catch (caught) {
      const code = (caught as NodeJS.ErrnoException).code ?? ''
      if (!isGone(caught) && !['EBUSY', 'ENOTEMPTY', 'EINVAL'].includes(code)) throw caught
    }
  }
}

async function killAll(dir: string): Promise<number> {
  let killed = 0
  for (const sub of await treeOf(dir)) {
    try {
      await writeFile(join(sub, 'freezer.state'), 'THAWED') // of those below, the container may have frozen some itself
    } catch {
      // Not the freezer's hierarchy. (In v2 a frozen process dies of SIGKILL all the same.)
    }
    let pids: string
    try {
      pids = await readFile(join(sub, 'cgroup.procs'), 'utf8')
    } catch {
      continue // removed meanwhile
    }
    for (const pid of pids.split('\n').filter(Boolean).map(Number)) if (pid > 0 && sendSignal(pid, 9)) killed++
  }
  return killed
}

/** A directory and all below it, deepest last. */
async function treeOf(dir: string): Promise<string[]> {
  try {
    const below = (await readdir(dir, { withFileTypes: true })).filter((e) => e.isDirectory())
    return [dir, ...(await Promise.all(below.map((e) => treeOf(join(dir, e.name))))).flat()]
  } catch (caught) {
    if (isGone(caught)) return []
    throw caught
  }
}

async function removeTree(dir: string): Promise<boolean> {
  for (const sub of (await treeOf(dir)).reverse()) {
    try {
      await rmdir(sub)
    } catch (caught) {
      if (!isGone(caught)) return false
    }
  }
  return true
}
