/** Back-off between restarts, ms. */
export const RESTART_DELAY_MIN_MS = 100
export const RESTART_DELAY_MAX_MS = 60_000
/** Between tries to start what waits for something outside the container, ms at most. */
export const WAIT_DELAY_MAX_MS = 5000
/** A container that ran this long is well again: its next restart waits the minimum. */
export const RESTART_RESET_AFTER_MS = 10_000

export interface RestartPolicy {
  readonly name: string
  /** on-failure only; 0 = no limit. */
  readonly maximumRetryCount: number
}

export type RestartDecision = { readonly restart: false } | { readonly restart: true; readonly delayMs: number }

/** After the process ended by itself. `lastDelayMs` is what the previous restart waited, 0 for none. */
export function decideRestart(options: {
  readonly policy: RestartPolicy
  readonly exitCode: number
  /** Restarts in a row so far. */
  readonly restartCount: number
  /** stop, kill or the daemon's own end: never restarted now. */
  readonly isStopWanted: boolean
  readonly ranMs: number
  readonly lastDelayMs: number
}): RestartDecision {
  const { policy, exitCode, restartCount } = options
  if (options.isStopWanted) return { restart: false }
  const wants =
    policy.name === 'always' ||
    policy.name === 'unless-stopped' ||
    (policy.name === 'on-failure' &&
      exitCode !== 0 &&
      (policy.maximumRetryCount <= 0 || restartCount < policy.maximumRetryCount))
  if (!wants) return { restart: false }
  const isWell = options.ranMs >= RESTART_RESET_AFTER_MS || options.lastDelayMs === 0
  return {
    restart: true,
    delayMs: isWell ? RESTART_DELAY_MIN_MS : Math.min(options.lastDelayMs * 2, RESTART_DELAY_MAX_MS),
  }
}

/** When the daemon comes up and finds the container stopped. */
export function startsWithDaemon(options: {
  readonly policy: RestartPolicy
  readonly hasBeenStartedBefore: boolean
  readonly hasBeenManuallyStopped: boolean
}): boolean {
  if (!options.hasBeenStartedBefore) return false
  if (options.policy.name === 'always') return true
  return options.policy.name === 'unless-stopped' && !options.hasBeenManuallyStopped
}
