import type { ContainerState, HealthcheckConfig, HealthStatus } from './types.js'

const NS_PER_MS = 1e6

/** A health check with docker's defaults filled in; times in ms. */
export interface HealthPlan {
  /** What to run in the container. */
  readonly command: readonly string[]
  readonly intervalMs: number
  readonly timeoutMs: number
  readonly startPeriodMs: number
  readonly startIntervalMs: number
  readonly retries: number
}

export type ProbeResult = NonNullable<ContainerState['health']>['log'][number]

export interface HealthState {
  readonly status: HealthStatus
  readonly failingStreak: number
  /** The last five, oldest first. */
  readonly log: readonly ProbeResult[]
}

export const INITIAL_HEALTH: HealthState = { status: 'starting', failingStreak: 0, log: [] }
const KEPT_RESULTS = 5

/** Null when there is none, or it was switched off (`NONE`). */
export function healthPlan(
  config: HealthcheckConfig | null | undefined,
  shell: readonly string[] | null,
): HealthPlan | null {
  const [kind, ...rest] = config?.Test ?? []
  if (!kind || kind === 'NONE') return null
  const command = kind === 'CMD' ? rest : kind === 'CMD-SHELL' ? [...(shell ?? ['/bin/sh', '-c']), rest[0] ?? ''] : null
  if (!command || command.length === 0) return null
  const ms = (ns: number | undefined, fallback: number): number => (ns && ns > 0 ? ns / NS_PER_MS : fallback)
  return {
    command,
    intervalMs: ms(config!.Interval, 30_000),
    timeoutMs: ms(config!.Timeout, 30_000),
    startPeriodMs: ms(config!.StartPeriod, 0),
    startIntervalMs: ms(config!.StartInterval, 5_000),
    retries: config!.Retries || 3,
  }
}

/** The state after a probe. Failures of the start period do not count until the container was healthy once. */
export function afterProbe(
  state: HealthState,
  result: ProbeResult,
  plan: HealthPlan,
  sinceStartMs: number,
): HealthState {
  const log = [...state.log, result].slice(-KEPT_RESULTS)
  if (result.exitCode === 0) return { status: 'healthy', failingStreak: 0, log }
  if (state.status === 'starting' && sinceStartMs < plan.startPeriodMs) return { ...state, log }
  const failingStreak = state.failingStreak + 1
  return { status: failingStreak >= plan.retries ? 'unhealthy' : state.status, failingStreak, log }
}

/** How long to wait before the next probe. */
export const nextProbeMs = (state: HealthState, plan: HealthPlan, sinceStartMs: number): number =>
  state.status === 'starting' && sinceStartMs < plan.startPeriodMs
    ? Math.min(plan.startIntervalMs, plan.intervalMs)
    : plan.intervalMs
