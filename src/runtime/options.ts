import { tmpdir } from 'node:os'
import { isAbsolute } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Clock, Logger, Rng } from '../common/index.js'
import { invalid } from '../common/index.js'

/** What images and layers need to know. Only `root` has no default. */
export interface ImageOptions {
  /** Absolute directory of our own; made when absent. */
  readonly root: string
  /** Directory in memory: see RecordDatabase. Default the system's for temporary files. */
  readonly scratchDir?: string
  /** Registries ("host", "host:port", or a CIDR of IPv4) spoken to without certificate checks, or without TLS. Loopback always is. */
  readonly insecureRegistries?: readonly string[]
  /** Base addresses asked before Docker Hub, in order. */
  readonly mirrors?: readonly string[]
  /** Directories with HOST/{*.crt,*.cert,*.key} as docker's /etc/docker/certs.d has them; the first that knows the host counts. */
  readonly certsDirs?: readonly string[]
  /** Absolute path of shoal-layer; the default is where the build puts it. */
  readonly layerTool?: string
  /** Layers downloaded at one time, over all pulls; docker's default. Range 1-64. */
  readonly downloadsMax?: number
  /** Layers uploaded at one time; docker's default. Range 1-64. */
  readonly uploadsMax?: number
  /** Tries without a byte of progress before a transfer is given up. Range 1-100. */
  readonly attemptsMax?: number
  /** An upload is sent in pieces of this size, so that a break costs one piece. */
  readonly uploadChunkBytes?: number
  /** A registry that sends nothing for so long has broken the connection. */
  readonly idleTimeoutMs?: number
  /** A layer that unpacks to more is refused (a gzip bomb). Default 256 GiB. */
  readonly layerBytesMax?: number
  /** Entries of one layer's tar. Default 10 million. */
  readonly layerEntriesMax?: number
  /** Parts of broken downloads are kept so long for a later pull. Default a day. */
  readonly partialKeepMs?: number
}

export type ResolvedImageOptions = Required<ImageOptions>

export interface RuntimeModules {
  readonly clock: Clock
  readonly rng: Rng
  readonly logger: Logger
}

export const defaultLayerTool = (): string => fileURLToPath(new URL('../../native/shoal-layer', import.meta.url))

/** Throws code badOptions naming the option. */
export function resolveImageOptions(options: ImageOptions): ResolvedImageOptions {
  const r: ResolvedImageOptions = {
    root: options.root,
    scratchDir: options.scratchDir ?? tmpdir(),
    insecureRegistries: options.insecureRegistries ?? [],
    mirrors: options.mirrors ?? [],
    certsDirs: options.certsDirs ?? [],
    layerTool: options.layerTool ?? defaultLayerTool(),
    downloadsMax: options.downloadsMax ?? 3,
    uploadsMax: options.uploadsMax ?? 5,
    attemptsMax: options.attemptsMax ?? 5,
    uploadChunkBytes: options.uploadChunkBytes ?? 64 * 1024 * 1024,
    idleTimeoutMs: options.idleTimeoutMs ?? 60_000,
    layerBytesMax: options.layerBytesMax ?? 256 * 2 ** 30,
    layerEntriesMax: options.layerEntriesMax ?? 10_000_000,
    partialKeepMs: options.partialKeepMs ?? 24 * 3600 * 1000,
  }
  if (!isAbsolute(r.root)) throw invalid('badOptions', `the image root must be an absolute path, not "${r.root}"`)
  const ranges: [keyof ResolvedImageOptions, number, number][] = [
    ['downloadsMax', 1, 64],
    ['uploadsMax', 1, 64],
    ['attemptsMax', 1, 100],
    ['uploadChunkBytes', 1024, Number.MAX_SAFE_INTEGER],
    ['idleTimeoutMs', 100, 3_600_000],
    ['layerBytesMax', 1, Number.MAX_SAFE_INTEGER],
    ['layerEntriesMax', 1, Number.MAX_SAFE_INTEGER],
    ['partialKeepMs', 0, Number.MAX_SAFE_INTEGER],
  ]
  for (const [name, min, max] of ranges) {
    const value = r[name] as number
    if (!Number.isSafeInteger(value) || value < min || value > max)
      throw invalid('badOptions', `${name} is ${value}; it must be a whole number from ${min} to ${max}`)
  }
  for (const m of r.mirrors)
    if (!/^https?:\/\/[^/]/.test(m))
      throw invalid('badOptions', `the registry mirror "${m}" must be an http or https URL`)
  return r
}
