import type { Clock, Logger, Rng } from '../common/index.js'
import type { KeyedLock } from './keyed-lock.js'
import type { NetNative } from './native.js'
import type { OverlayOptions } from './options.js'

export interface OverlayModules {
  readonly clock: Clock
  readonly rng: Rng
  readonly logger: Logger
}

/** What every part of the room is handed. */
export interface OverlayContext {
  readonly options: OverlayOptions
  readonly native: NetNative
  readonly clock: Clock
  readonly rng: Rng
  readonly log: Logger
  readonly locks: KeyedLock
  /** The kernel has IPv6: it must be told to keep quiet in namespaces that have no IPv6 network. */
  readonly kernelIpv6: boolean
}
