import type { Clock, Logger, Rng } from '../common/index.js'
import type { KeyedLock } from './keyed-lock.js'
import type { NetNative } from './native.js'
import type { OverlayOptions } from './options.js'
import type { NetworkPlugins } from './plugins/calls.js'

export interface OverlayModules {
  readonly clock: Clock
  readonly rng: Rng
  readonly logger: Logger
  /** Where drivers that are not built in are found; absent: nowhere. */
  readonly plugins?: NetworkPlugins
}

/** What every part of the room is handed. */
export interface OverlayContext {
  readonly options: OverlayOptions
  readonly native: NetNative
  readonly clock: Clock
  readonly rng: Rng
  readonly log: Logger
  readonly locks: KeyedLock
  /** The kernel has IPv6: it must be told to keep quiet on interfaces of networks without. */
  readonly kernelIpv6: boolean
}
