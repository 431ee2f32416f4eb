import type { ExecutionContext } from 'ava'

/** Ends a test that cannot run here. In CI only a missing kernel feature is a good reason. */
export function skip(t: ExecutionContext, reason: string): void {
  t.log(`SKIPPED: ${t.title}: ${reason}`)
  t.pass()
}

export const missingKernelFeature = (t: ExecutionContext, feature: string): void =>
  skip(t, `missing kernel feature: ${feature}`)
