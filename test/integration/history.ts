/** What clients of the cluster saw of some registers, and whether one register each could have shown it. */

export type Operation =
  | {
      readonly kind: 'write'
      readonly key: string
      /** Used once. */
      readonly value: string
      /** Version that the write replaces; the engine refuses it if the register has another by then. */
      readonly base: number
      /** `maybe`: no answer, or one that does not say whether it happened. */
      readonly outcome: 'acknowledged' | 'refused' | 'maybe'
      readonly begun: number
      readonly ended: number
    }
  | {
      readonly kind: 'read'
      readonly key: string
      readonly value: string
      readonly version: number
      readonly begun: number
      readonly ended: number
    }

export interface Findings {
  readonly lost: readonly string[]
  readonly stale: readonly string[]
  /** One version with two values, two writes on one base, or a refused write that happened. */
  readonly torn: readonly string[]
}

/**
 * Every write names the version that it replaces, so the versions that reads show are the order of effect, and a write
 * that took effect was read by whoever wrote next. A read that shows less than what had ended before it began is stale.
 * `last`: value of each key at the end, when nothing runs any more. Times are of one monotonic clock.
 */
export function checkHistory(history: readonly Operation[], last: ReadonlyMap<string, string>): Findings {
  const lost: string[] = []
  const stale: string[] = []
  const torn: string[] = []
  for (const key of new Set(history.map((o) => o.key))) {
    const own = history.filter((o) => o.key === key)
    const versionOf = new Map<string, number>()
    const valueAt = new Map<number, string>()
    for (const o of own) {
      if (o.kind !== 'read') continue
      const known = valueAt.get(o.version)
      if (known !== undefined && known !== o.value)
        torn.push(`${key} version ${o.version} is both ${known} and ${o.value}`)
      valueAt.set(o.version, o.value)
      const before = versionOf.get(o.value)
      // Other fields of the object may change its version; the first one is the write's.
      if (before === undefined || o.version < before) versionOf.set(o.value, o.version)
    }
    /** What an ended operation proves: from then on nobody may see less. */
    const proofs: { readonly at: number; readonly version: number }[] = []
    const tookEffect = new Map<number, string>()
    for (const o of own) {
      if (o.kind === 'read') {
        proofs.push({ at: o.ended, version: o.version })
        continue
      }
      const version = versionOf.get(o.value)
      const happened = version !== undefined || last.get(key) === o.value
      if (o.outcome === 'acknowledged') {
        if (!happened) lost.push(`${key} = ${o.value}, acknowledged at ${o.ended.toFixed(0)} ms, was never seen again`)
        proofs.push({ at: o.ended, version: version ?? o.base + 1 })
      }
      if (o.outcome === 'refused' && happened) torn.push(`${key} = ${o.value} was refused, yet it is there`)
      if (happened) {
        const rival = tookEffect.get(o.base)
        if (rival !== undefined) torn.push(`${key}: ${rival} and ${o.value} both replaced version ${o.base}`)
        tookEffect.set(o.base, o.value)
        if (version !== undefined && version <= o.base)
          torn.push(`${key} = ${o.value} has version ${version} but replaced ${o.base}`)
      }
    }
    proofs.sort((a, b) => a.at - b.at)
    const floors: number[] = []
    for (const p of proofs) floors.push(Math.max(p.version, floors[floors.length - 1] ?? 0))
    for (const o of own) {
      if (o.kind !== 'read') continue
      const floor = floors[endedBefore(proofs, o.begun) - 1] ?? 0
      if (o.version < floor)
        stale.push(
          `${key}: a read from ${o.begun.toFixed(0)} to ${o.ended.toFixed(0)} ms gave version ${o.version}, ${floor} was seen before`,
        )
    }
  }
  return { lost, stale, torn }
}

/** How many of the sorted proofs were there before `time`. */
function endedBefore(proofs: readonly { readonly at: number }[], time: number): number {
  let lo = 0
  let hi = proofs.length
  while (lo < hi) {
    const mid = (lo + hi) >> 1
    if (proofs[mid]!.at < time) lo = mid + 1
    else hi = mid
  }
  return lo
}
