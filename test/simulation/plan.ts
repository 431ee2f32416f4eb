/** What a simulation is asked for, what may go wrong in it, and what it tells at the end. */

export const TICK_MS = 100
export const ELECTION_TICKS = 10
export const ELECTION_MS = TICK_MS * ELECTION_TICKS

export const FAULT_KINDS = [
  'drop',
  'duplicate',
  'late',
  'partition',
  'oneWay',
  'bridge',
  'flapping',
  'crash',
  'power',
  'pause',
  'slowDisk',
  'ioError',
  'fullDisk',
  'bitFlip',
  'clockRate',
  'clockJump',
  'join',
  'remove',
  'transfer',
  'rotateKey',
] as const
export type FaultKind = (typeof FAULT_KINDS)[number]

/** Bugs put in on purpose, to see that the checkers find them. */
export const PLANTS = [
  'lyingDisk',
  'readWithoutBarrier',
  'changedEntry',
  'grantedVote',
  'acknowledgedAhead',
  'committedAhead',
  'skippedEntry',
  'lostSnapshotPiece',
  'forgottenWrite',
] as const
export type Plant = (typeof PLANTS)[number]

export interface SimulationOptions {
  readonly plant?: Plant
  /** Absent: half of the kinds, drawn. */
  readonly faults?: readonly FaultKind[]
  readonly seed: number
  readonly steps: number
  /** Absent: 3 or 5, drawn. */
  readonly members?: number
  readonly trace?: (line: string) => void
}

export interface SimulationResult {
  readonly seed: number
  readonly members: number
  readonly faults: readonly FaultKind[]
  readonly steps: number
  readonly virtualMs: number
  readonly acknowledged: number
  readonly unknown: number
  readonly reads: number
  readonly terms: number
  readonly snapshotsInstalled: number
  readonly damageFound: number
  /** Of all that happened: the same seed gives the same. */
  readonly hash: number
}
