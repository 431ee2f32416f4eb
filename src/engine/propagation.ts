import { readFile, realpath } from 'node:fs/promises'
import { invalid } from '../common/index.js'
import type { WantedMount } from './mount-spec.js'
import type { MountRecord } from './record.js'

interface HostMount {
  readonly point: string
  /** Its peer group passes mounts on to others, or takes them from others (mount_namespaces(7)). */
  readonly isShared: boolean
  readonly isSlave: boolean
}

/** /proc/self/mountinfo; a blank in a path is written \040 there (proc(5)). */
export function parseMounts(mountinfo: string): HostMount[] {
  return mountinfo
    .split('\n')
    .filter(Boolean)
    .map((line) => {
      const fields = line.split(' ')
      const optional = fields.slice(6, fields.indexOf('-'))
      return {
        point: fields[4]!.replace(/\\([0-7]{3})/g, (_, octal: string) =>
          String.fromCharCode(Number.parseInt(octal, 8)),
        ),
        isShared: optional.some((o) => o.startsWith('shared:')),
        isSlave: optional.some((o) => o.startsWith('master:')),
      }
    })
}

const isAbove = (point: string, path: string): boolean =>
  point === '/' || path === point || path.startsWith(`${point}/`)

/** A bind of the data root, of something in it, or of a directory that it is in. */
const holdsDataRoot = (dataRoot: string, source: string): boolean =>
  isAbove(source, dataRoot) || isAbove(dataRoot, source)

/**
 * How a bind is mounted when nobody said. What the daemon unmounts below its data root must go from containers that see
 * it as well, else it would be held for as long as they live. @throws invalid `holdsDataRoot` with docker's sentence.
 */
export function bindPropagation(dataRoot: string, { source, propagation }: WantedMount): string {
  if (!holdsDataRoot(dataRoot, source)) return propagation || 'rprivate'
  if (['', 'rslave', 'rshared'].includes(propagation)) return propagation || 'rslave'
  throw invalid(
    'holdsDataRoot',
    `invalid mount config: must use either propagation mode "rslave" or "rshared" when mount source is within the daemon root, daemon root: "${dataRoot}", bind mount source: "${source}", propagation: "${propagation}"`,
    { source },
  )
}

/** The default for the data root is a wish: where the host's mount passes nothing on, it is private. */
export async function usablePropagation(dataRoot: string, mount: MountRecord): Promise<string> {
  try {
    await checkPropagation(mount)
    return mount.propagation
  } catch (caught) {
    if (mount.propagation === 'rslave' && holdsDataRoot(dataRoot, mount.source)) return 'rprivate'
    throw caught
  }
}

/**
 * A bind can share mounts with the host, or take them over, only from where the host's own mount does so.
 * @throws invalid `notShared` with docker's sentence.
 */
async function checkPropagation(mount: MountRecord): Promise<void> {
  const wantsShared = mount.propagation === 'shared' || mount.propagation === 'rshared'
  const wantsSlave = mount.propagation === 'slave' || mount.propagation === 'rslave'
  if (!wantsShared && !wantsSlave) return
  const path = await realpath(mount.source)
  const mounts = parseMounts(await readFile('/proc/self/mountinfo', 'utf8')).filter((m) => isAbove(m.point, path))
  // The longest, and of several at one place the last: it covers the others.
  const own = mounts.reduce<HostMount | null>((a, b) => (a && a.point.length > b.point.length ? a : b), null)
  if (own?.isShared || (wantsSlave && own?.isSlave)) return
  throw invalid(
    'notShared',
    `path ${mount.source} is mounted on ${own?.point ?? '/'} but it is not a shared${wantsSlave ? ' or slave' : ''} mount`,
    { source: mount.source },
  )
}
