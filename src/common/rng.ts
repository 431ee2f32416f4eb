/** The only source of chance where no secrecy is needed: timeouts, jitter, spreading. Secrets come from node:crypto. */
export interface Rng {
  /** Uniform in [0, 1). */
  random(): number
}

export const systemRng: Rng = { random: () => Math.random() }

/** xoshiro128** seeded by splitmix32: the same seed gives the same sequence on every machine. */
export function seededRng(seed: number): Rng {
  let s = seed >>> 0
  const next32 = (): number => {
    s = (s + 0x9e3779b9) >>> 0
    let z = s
    z = Math.imul(z ^ (z >>> 16), 0x21f0aaad)
    z = Math.imul(z ^ (z >>> 15), 0x735a2d97)
    return (z ^ (z >>> 15)) >>> 0
  }
  let a = next32()
  let b = next32()
  let c = next32()
  let d = next32()
  return {
    random() {
      const m = Math.imul(b, 5)
      const r = Math.imul((m << 7) | (m >>> 25), 9) >>> 0
      const t = b << 9
      c ^= a
      d ^= b
      b ^= c
      a ^= d
      c ^= t
      d = (d << 11) | (d >>> 21)
      return r / 0x1_0000_0000
    },
  }
}

/** A whole number in [min, max]. */
export const intBetween = (rng: Rng, min: number, max: number): number =>
  min + Math.floor(rng.random() * (max - min + 1))
