import type { Clock } from '../../common/index.js'
import type { Logger } from '../../common/log.js'

export interface ContainerRuntimeOptions {
  /** Holds `containers/<id>/`, the run directories (docs/native.md). */
  readonly execRoot: string
  /** Absolute path of the shoal-shim program. */
  readonly shimPath: string
}

/** What this room needs of the addon (docs/native.md, "The addon's process calls"). */
export interface ProcessCalls {
  spawnShim(call: {
    readonly path: string
    readonly args: readonly string[]
    readonly cwd: string
    readonly logFd: number
  }): { readonly pid: number; readonly statusFd: number }
  pidfdWait(pid: number, startTicks: number): Promise<unknown>
}

export interface ContainerRuntimeModules {
  readonly clock: Clock
  readonly logger: Logger
  readonly native: ProcessCalls
}

/** A shim that does not come to `created` in this time is given up. Mounts of slow volumes are in it. */
export const CREATE_TIMEOUT_MS = 120_000
/** A request that the shim answers from memory or with a few system calls. */
export const REQUEST_TIMEOUT_MS = 10_000
/** `start`, `exec` and `update`, which may wait for memory reclaim or a slow disk. */
export const SLOW_REQUEST_TIMEOUT_MS = 60_000
/** How long a shim that was told to delete may take before it is killed. */
export const DELETE_TIMEOUT_MS = 10_000
/** Output held for one attached client before its connection is no longer read; the shim then holds its own 1 MiB. */
export const OUTPUT_HIGH_WATER_BYTES = 256 * 1024
/** Tries to reach a living shim again after its connection broke. */
export const RECONNECT_ATTEMPTS = 5
export const RECONNECT_DELAY_MS = 50
/** How long connecting waits while the shim's socket does not exist yet (it is bound before `created`). */
export const MAX_STATUS_LINE_BYTES = 64 * 1024
