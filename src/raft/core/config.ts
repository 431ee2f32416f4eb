import type { CoreConfig } from './types.js'
import { NONE } from './types.js'

/** Thrown for settings that make no sense; `field` is the one to change. */
export class CoreConfigError extends Error {
  override readonly name = 'CoreConfigError'
  constructor(
    readonly field: keyof CoreConfig,
    message: string,
  ) {
    super(`raft config: ${field}: ${message}`)
  }
}

export function checkConfig(c: CoreConfig): void {
  const refuse = (field: keyof CoreConfig, message: string): never => {
    throw new CoreConfigError(field, message)
  }
  const whole = (field: keyof CoreConfig, min: number): void => {
    const value = c[field]
    if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < min)
      refuse(field, `must be a whole number of at least ${min}, is ${String(value)}`)
  }
  whole('id', NONE + 1)
  whole('heartbeatTick', 1)
  whole('electionTick', 1)
  if (c.electionTick <= c.heartbeatTick)
    refuse('electionTick', `must be above heartbeatTick ${c.heartbeatTick}, is ${c.electionTick}`)
  whole('applied', 0)
  whole('maxSizePerMsg', 0)
  whole('maxCommittedSizePerReady', 0)
  whole('maxUncommittedEntriesSize', 0)
  whole('maxInflightMsgs', 1)
  whole('maxInflightBytes', 0)
  if (c.maxInflightBytes !== 0 && c.maxInflightBytes < c.maxSizePerMsg)
    refuse('maxInflightBytes', `must be 0 or at least maxSizePerMsg ${c.maxSizePerMsg}, is ${c.maxInflightBytes}`)
  if (c.readOnlyOption === 'leaseBased' && !c.checkQuorum)
    refuse('readOnlyOption', 'leaseBased needs checkQuorum, without which a deposed leader keeps its lease for ever')
}
