import { posix } from 'node:path'
import { invalid } from '../common/index.js'
import type { ContainerConfig, HostConfig, MountSpec } from './types.js'

/** One wanted mount, from whichever of the four places it was written in. */
export interface WantedMount {
  readonly type: 'bind' | 'volume' | 'tmpfs'
  /** Path on the host, or the volume's name ("" = anonymous). */
  readonly source: string
  /** Goes with the last container that has it, when that is removed with its volumes. */
  readonly isAnonymous: boolean
  readonly destination: string
  readonly rw: boolean
  /** As written, for inspect. */
  readonly mode: string
  /** Of a bind; "" leaves it to the engine. */
  readonly propagation: string
  readonly recursive: boolean
  /** Copy the image's content into a new volume. */
  readonly copy: boolean
  /** Make the source directory of a bind when it is absent: `-v` does, `--mount` does not. */
  readonly createSource: boolean
  readonly driver: string
  readonly labels: Readonly<Record<string, string>>
  readonly driverOptions: Readonly<Record<string, string>>
  readonly subpath: string
  readonly options: readonly string[]
}

const PROPAGATIONS = ['shared', 'rshared', 'slave', 'rslave', 'private', 'rprivate']
const CONSISTENCIES = ['cached', 'delegated', 'consistent']
/** Of each of these a mount has one at most. */
const EXCLUSIVE_MODES = [['rw', 'ro'], ['z', 'Z'], PROPAGATIONS, ['nocopy'], CONSISTENCIES]
const MODES = EXCLUSIVE_MODES.flat()
const NAME = /^[a-zA-Z0-9][a-zA-Z0-9_.-]+$/

const plain = (type: WantedMount['type'], source: string, destination: string): WantedMount => ({
  type,
  source,
  isAnonymous: type === 'volume' && source === '',
  destination,
  rw: true,
  mode: '',
  propagation: '',
  recursive: true,
  copy: type === 'volume',
  createSource: false,
  driver: '',
  labels: {},
  driverOptions: {},
  subpath: '',
  options: [],
})

const refuse = (message: string, fields: Record<string, unknown>): never => {
  throw invalid('invalidMount', message, fields)
}

const invalidVolumeName = (name: string): string =>
  name.length === 1
    ? `create ${name}: volume name is too short, names should be at least two alphanumeric characters`
    : `create ${name}: "${name}" includes invalid characters for a local volume name, only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, use absolute path`

function checkDestination(destination: string, whole: string): string {
  if (!destination.startsWith('/'))
    refuse(
      `invalid volume specification: '${whole}': invalid mount path: '${destination}' mount path must be absolute`,
      {
        mount: whole,
      },
    )
  const clean = posix.normalize(destination).replace(/(.)\/$/, '$1')
  if (clean === '/')
    refuse(`invalid volume specification: '${whole}': invalid specification: destination can't be '/'`, {
      mount: whole,
    })
  return clean
}

/** "ro,rslave": known words, of one kind one at most. */
function isMode(text: string): boolean {
  const words = text.split(',')
  return (
    words.every((w) => MODES.includes(w)) &&
    EXCLUSIVE_MODES.every((kind) => words.filter((w) => kind.includes(w)).length <= 1)
  )
}

/** "src:dst[:mode]" or "dst" of `-v`. @throws invalid `invalidMount`. */
export function parseBind(text: string, volumeDriver: string): WantedMount {
  const bad = (why: string): never => refuse(`invalid volume specification: '${text}'${why}`, { mount: text })
  const parts = text.split(':')
  if (parts.length > 3 || parts.some((p) => p === '')) bad('')
  // "/data:ro" says nothing of where it is to come from.
  if (parts.length === 2 && isMode(parts[1]!)) bad('')
  const [source, destination, mode = ''] = parts.length === 1 ? ['', parts[0]!] : (parts as [string, string, string?])
  if (mode && !isMode(mode)) refuse(`invalid mode: ${mode}`, { mount: text })
  const type = source.startsWith('/') ? 'bind' : 'volume'
  if (type === 'volume' && source !== '' && !NAME.test(source)) refuse(invalidVolumeName(source), { mount: text })
  const words = mode.split(',')
  const propagation = words.find((w) => PROPAGATIONS.includes(w))
  const badConfig = (field: string): never =>
    bad(`: invalid mount config for type "${type}": field ${field} must not be specified`)
  if (propagation && type === 'volume') badConfig('BindOptions')
  if (words.includes('nocopy') && type === 'bind') badConfig('VolumeOptions')
  const mount = plain(type, source, checkDestination(destination, text))
  return {
    ...mount,
    rw: !words.includes('ro'),
    copy: mount.copy && !words.includes('nocopy'),
    propagation: propagation ?? mount.propagation,
    mode: mode || (type === 'volume' ? 'z' : ''),
    createSource: type === 'bind',
    driver: type === 'volume' ? volumeDriver : '',
  }
}

/** One entry of HostConfig.Mounts (`--mount`). @throws invalid `invalidMount`. */
export function fromMountSpec(spec: MountSpec): WantedMount {
  const bad = (why: string): never =>
    refuse(`invalid mount config for type "${spec.Type ?? ''}": ${why}`, { target: spec.Target })
  if (!spec.Target) bad('field Target must not be empty')
  const destination = spec.Target.startsWith('/')
    ? posix.normalize(spec.Target).replace(/(.)\/$/, '$1')
    : bad(`invalid mount path: '${spec.Target}' mount path must be absolute`)
  if (destination === '/') bad("invalid specification: destination can't be '/'")
  switch (spec.Type) {
    case 'bind': {
      if (spec.VolumeOptions) bad('field VolumeOptions must not be specified')
      if (spec.TmpfsOptions) bad('field TmpfsOptions must not be specified')
      if (!spec.Source) bad('field Source must not be empty')
      if (!spec.Source!.startsWith('/')) bad(`invalid mount path: '${spec.Source}' mount path must be absolute`)
      const propagation = spec.BindOptions?.Propagation ?? ''
      if (propagation && !PROPAGATIONS.includes(propagation)) bad(`invalid propagation mode: ${propagation}`)
      return {
        ...plain('bind', posix.normalize(spec.Source!), destination),
        rw: !spec.ReadOnly,
        propagation,
        recursive: !spec.BindOptions?.NonRecursive,
        createSource: spec.BindOptions?.CreateMountpoint === true,
      }
    }
    case 'volume': {
      if (spec.BindOptions) bad('field BindOptions must not be specified')
      if (spec.TmpfsOptions) bad('field TmpfsOptions must not be specified')
      if (spec.Source && !NAME.test(spec.Source)) bad(invalidVolumeName(spec.Source))
      if (spec.ReadOnly && !spec.Source) bad('must not set ReadOnly mode when using anonymous volumes')
      const subpath = spec.VolumeOptions?.Subpath ?? ''
      if (subpath && (subpath.startsWith('/') || posix.normalize(subpath).startsWith('..')))
        bad('subpath must be a relative path within the volume')
      return {
        ...plain('volume', spec.Source ?? '', destination),
        rw: !spec.ReadOnly,
        mode: 'z',
        copy: !spec.VolumeOptions?.NoCopy && !subpath,
        driver: spec.VolumeOptions?.DriverConfig?.Name ?? '',
        driverOptions: spec.VolumeOptions?.DriverConfig?.Options ?? {},
        labels: spec.VolumeOptions?.Labels ?? {},
        subpath,
      }
    }
    case 'tmpfs': {
      if (spec.BindOptions) bad('field BindOptions must not be specified')
      if (spec.VolumeOptions) bad('field VolumeOptions must not be specified')
      if (spec.Source) bad('field Source must not be specified')
      const { SizeBytes, Mode, Options } = spec.TmpfsOptions ?? {}
      return {
        ...plain('tmpfs', '', destination),
        rw: !spec.ReadOnly,
        options: [
          ...(SizeBytes ? [`size=${SizeBytes}`] : []),
          ...(Mode ? [`mode=${Mode.toString(8)}`] : []),
          ...(Options ?? []).map((o) => o.join('=')),
        ],
      }
    }
    default:
      return bad('mount type unknown')
  }
}

/** "id[:ro|rw]" of `--volumes-from`. */
export function parseVolumesFrom(text: string): { readonly container: string; readonly rw: boolean | null } {
  const [container = '', mode] = text.split(':')
  if (!container || (mode !== undefined && !['ro', 'rw', 'z', 'Z', 'ro,z', 'rw,z'].includes(mode)))
    refuse(`invalid mode: ${mode ?? ''} in volumes-from "${text}"`, { volumesFrom: text })
  return { container, rw: mode === undefined ? null : !mode.startsWith('ro') }
}

/**
 * All wanted mounts, one a destination. Two of the user's own for one place are refused; his win over those of another
 * container, and those over the image's volumes.
 */
export function wantedMounts(
  config: ContainerConfig,
  host: HostConfig,
  fromOthers: readonly WantedMount[],
): readonly WantedMount[] {
  const byDestination = new Map<string, WantedMount>()
  for (const mount of fromOthers) byDestination.set(mount.destination, mount)
  const own = [
    ...(host.Binds ?? []).map((b) => parseBind(b, host.VolumeDriver ?? '')),
    ...(host.Mounts ?? []).map(fromMountSpec),
    ...Object.entries(host.Tmpfs ?? {}).map(
      ([target, options]): WantedMount => ({
        ...plain('tmpfs', '', checkDestination(target, target)),
        options: options.split(',').filter(Boolean),
      }),
    ),
  ]
  const seen = new Set<string>()
  for (const mount of own) {
    if (seen.has(mount.destination))
      refuse(`Duplicate mount point: ${mount.destination}`, { target: mount.destination })
    seen.add(mount.destination)
    byDestination.set(mount.destination, mount)
  }
  for (const target of Object.keys(config.Volumes ?? {})) {
    // Of an image's too: VOLUME may name a place without its first slash.
    const destination = checkDestination(posix.join('/', target), target)
    if (!byDestination.has(destination))
      byDestination.set(destination, { ...plain('volume', '', destination), driver: host.VolumeDriver ?? '' })
  }
  return [...byDestination.values()]
}
