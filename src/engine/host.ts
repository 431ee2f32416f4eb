import { existsSync, lstatSync, readFileSync, type Stats } from 'node:fs'
import { readdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { invalid } from '../common/index.js'
import { parseCapabilityMask } from './spec/capabilities.js'
import type { SpecDevice } from './spec/index.js'
import type { DeviceNumber } from './spec/resources.js'
import type { DeviceMapping } from './types.js'

/** What this machine and this daemon's place on it allow. */
export interface HostFacts {
  readonly cgroupVersion: 1 | 2
  /** /dev/mqueue is there to be shared. */
  readonly hasMqueue: boolean
  /** The capabilities this daemon may hand on. */
  readonly boundingCapabilities: readonly string[]
}

/** Once, when the engine is made. */
export function readHostFacts(): HostFacts {
  const status = readFileSync('/proc/self/status', 'utf8')
  return {
    hasMqueue: existsSync('/dev/mqueue'),
    cgroupVersion: existsSync('/sys/fs/cgroup/cgroup.controllers') ? 2 : 1,
    boundingCapabilities: parseCapabilityMask(/^CapBnd:\s*([0-9a-f]+)$/m.exec(status)![1]!),
  }
}

/** dev_t as Linux's user space packs it (makedev(3)). */
const numbers = (rdev: number): { major: number; minor: number } => {
  const dev = BigInt(rdev)
  return {
    major: Number(((dev >> 8n) & 0xfffn) | ((dev >> 32n) & ~0xfffn)),
    minor: Number((dev & 0xffn) | ((dev >> 12n) & 0xffffff00n)),
  }
}

const deviceOf = (stats: Stats): DeviceNumber | null =>
  stats.isCharacterDevice()
    ? { type: 'c', ...numbers(stats.rdev) }
    : stats.isBlockDevice()
      ? { type: 'b', ...numbers(stats.rdev) }
      : null

/** For blkio rules. @throws invalid `noSuchDevice`. */
export function deviceNumber(path: string): DeviceNumber {
  let device: DeviceNumber | null = null
  try {
    device = deviceOf(lstatSync(path))
  } catch {
    // Said below: to the user it is the same whether it is absent or no device.
  }
  if (!device) throw invalid('noSuchDevice', `${path} is not a device of this host`, { path })
  return device
}

function specDevice(path: string, stats: Stats, access: string): SpecDevice | null {
  const device = deviceOf(stats)
  return device && { path, ...device, fileMode: stats.mode & 0o7777, uid: stats.uid, gid: stats.gid, access }
}

/** `--device`: one node, or all below a directory. @throws invalid `noSuchDevice` with docker's sentence. */
export async function mappedDevices(mapping: DeviceMapping): Promise<readonly SpecDevice[]> {
  const from = mapping.PathOnHost
  const to = mapping.PathInContainer || from
  const access = mapping.CgroupPermissions || 'rwm'
  let stats: Stats
  try {
    stats = await stat(from)
  } catch (cause) {
    throw invalid(
      'noSuchDevice',
      `error gathering device information while adding custom device "${from}": no such file or directory`,
      { path: from },
      { cause },
    )
  }
  if (stats.isDirectory()) {
    const below = await devicesBelow(from, to, access)
    if (below.length > 0) return below
  }
  const device = specDevice(to, stats, access)
  if (!device)
    throw invalid(
      'noSuchDevice',
      `error gathering device information while adding custom device "${from}": not a device node`,
      {
        path: from,
      },
    )
  return [device]
}

/** Names below /dev that a container makes for itself. */
const OWN_NAMES = new Set(['pts', 'shm', 'fd', 'mqueue', 'console', '.lxc', '.lxd-mounts', '.udev'])

/** Every device of the host, for a privileged container. */
export const hostDevices = (): Promise<readonly SpecDevice[]> => devicesBelow('/dev', '/dev', 'rwm')

async function devicesBelow(from: string, to: string, access: string): Promise<SpecDevice[]> {
  const found: SpecDevice[] = []
  for (const entry of await readdir(from, { withFileTypes: true })) {
    if (OWN_NAMES.has(entry.name)) continue
    const path = join(from, entry.name)
    try {
      if (entry.isDirectory()) found.push(...(await devicesBelow(path, join(to, entry.name), access)))
      else if (entry.isCharacterDevice() || entry.isBlockDevice()) {
        const device = specDevice(join(to, entry.name), await stat(path), access)
        if (device) found.push(device)
      }
    } catch (caught) {
      if ((caught as NodeJS.ErrnoException).code !== 'ENOENT') throw caught // unplugged meanwhile
    }
  }
  return found
}
