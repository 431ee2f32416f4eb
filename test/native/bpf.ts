// An interpreter of classic BPF as seccomp uses it, and random profiles: what the filter compiler is checked with.
import { readFileSync } from 'node:fs'
import type { Json } from './kit.js'

export const token: Record<string, number> = {
  x86_64: 0xc000003e,
  x86: 0x40000003,
  aarch64: 0xc00000b7,
  arm: 0x40000028,
  ppc64le: 0xc0000015,
  riscv64: 0xc00000f3,
}

export interface Call {
  arch: number
  nr: number
  args: bigint[]
}

/** A program as words: code, jt, jf, k of each instruction. */
export function decode(bytes: Uint8Array): Uint32Array {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const words = new Uint32Array(bytes.byteLength / 2)
  for (let i = 0; i < bytes.byteLength / 8; i++) {
    words[4 * i] = view.getUint16(8 * i, true)
    words[4 * i + 1] = view.getUint8(8 * i + 2)
    words[4 * i + 2] = view.getUint8(8 * i + 3)
    words[4 * i + 3] = view.getUint32(8 * i + 4, true)
  }
  return words
}

/** The action, whether an argument was looked at, and how many instructions ran. Throws where the kernel would refuse the program. */
export function run(program: Uint32Array, call: Call): { action: number; args: boolean; steps: number } {
  const length = program.length / 4
  let a = 0
  let args = false
  let steps = 0
  for (let pc = 0; pc < length; pc++) {
    steps++
    const k = program[4 * pc + 3]!
    const branch = (yes: boolean): void => {
      pc += program[4 * pc + (yes ? 1 : 2)]!
    }
    switch (program[4 * pc]) {
      case 0x20: // ld [k]
        if (k === 0) a = call.nr
        else if (k === 4) a = call.arch
        else if (k >= 16 && k < 64 && k % 4 === 0) {
          args = true
          const value = call.args[(k - 16) >> 3]!
          a = Number(k % 8 ? value >> 32n : value & 0xffffffffn)
        } else throw new Error(`load from ${k}`)
        break
      case 0x54: // and
        a = (a & k) >>> 0
        break
      case 0x05: // ja
        pc += k
        break
      case 0x15: // jeq
        branch(a === k)
        break
      case 0x25: // jgt
        branch(a > k)
        break
      case 0x35: // jge
        branch(a >= k)
        break
      case 0x45: // jset
        branch((a & k) !== 0)
        break
      case 0x06: // ret
        return { action: k, args, steps }
      default:
        throw new Error(`instruction ${program[4 * pc]} at ${pc}`)
    }
  }
  throw new Error('the program runs past its end')
}

/** The names that libseccomp of this machine knows. */
export function knownNames(header = '/usr/include/seccomp-syscalls.h'): string[] {
  return [...new Set([...readFileSync(header, 'utf8').matchAll(/^#define __SNR_(\w+)/gm)].map((m) => m[1]!))]
}

/** mulberry32: a seed gives the same row always. */
export function random(seed: number): (below: number) => number {
  let s = seed >>> 0
  return (below) => {
    s = (s + 0x6d2b79f5) >>> 0
    let t = Math.imul(s ^ (s >>> 15), s | 1)
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61)
    return ((t ^ (t >>> 14)) >>> 0) % below
  }
}

const actions = ['ALLOW', 'ERRNO', 'KILL', 'KILL_PROCESS', 'KILL_THREAD', 'LOG', 'TRACE', 'TRAP', 'NOTIFY']
/** As text: JSON numbers above 2^53 must not pass through a double. */
const values = ['0', '1', '2', '5', '38', '40', '255', '65536', '2114060288', '2147483648', '4294967295', '4294967296', '4294967301',
  '21474836480', '9223372036854775807', '9223372036854775808', '18446744073709551615', '18446744069414584320'] // biome-ignore format: a list

/** Architectures that a machine's profiles name beside its own. */
const families: string[][] = [
  ['x86_64', 'X86_64', 'X86', 'X32'],
  ['x86_64', 'X86_64', 'X86'],
  ['x86_64', 'X86_64'],
  ['x86_64', 'X32'],
  ['aarch64', 'AARCH64', 'ARM'],
  ['riscv64'],
  ['ppc64le', 'PPC64LE'],
]

export interface RandomProfile {
  /** JSON text: may hold integers of 64 bits. */
  text: string
  machine: string
  /** What arguments are worth trying. */
  values: bigint[]
  rules: RandomRule[]
}

export interface RandomRule {
  names: string[]
  action: number
  args: { index: number; op: string; value: bigint; two: bigint }[]
}

const operations: Record<string, (x: bigint, a: bigint, b: bigint) => boolean> = {
  NE: (x, a) => x !== a,
  LT: (x, a) => x < a,
  LE: (x, a) => x <= a,
  EQ: (x, a) => x === a,
  GE: (x, a) => x >= a,
  GT: (x, a) => x > a,
  MASKED_EQ: (x, a, b) => (x & a) === b,
}

/** Whether these conditions hold, by the words of the specification. */
export function holds(conditions: RandomRule['args'], args: readonly bigint[], bits: number): boolean {
  const cut = (v: bigint): bigint => BigInt.asUintN(bits, v)
  return conditions.every((c) => operations[c.op]!(cut(args[c.index]!), cut(c.value), cut(c.two)))
}

export const operators = Object.keys(operations)

function actionCode(a: Json): number {
  const data = (a['errnoRet'] as number | undefined) ?? 1
  const codes: Record<string, number> = {
    ALLOW: 0x7fff0000,
    ERRNO: 0x50000 + data,
    KILL: 0,
    KILL_PROCESS: 0x80000000,
    KILL_THREAD: 0,
    LOG: 0x7ffc0000,
    TRACE: 0x7ff00000 + data,
    TRAP: 0x30000,
    NOTIFY: 0x7fc00000,
  }
  return codes[(a['action'] as string).slice(9)]!
}

/** `chains`: how many conditional rules may name one call; libseccomp forgets alternatives when there are several (see the test). */
export function randomProfile(seed: number, names: readonly string[], chains = 1): RandomProfile {
  const r = random(seed)
  const pick = <T>(list: readonly T[]): T => list[r(list.length)]!
  const action = (): Json => {
    const name = pick(actions)
    return { action: `SCMP_ACT_${name}`, ...(r(3) ? {} : { errnoRet: r(200) }) }
  }
  const family = pick(families)
  const used = new Map<string, number>()
  const seen: string[] = []
  const rules: string[] = []
  const plain: RandomRule[] = []
  const dflt = action()
  for (let i = r(12) + 1; i > 0; i--) {
    const args: string[] = []
    const conditions: RandomRule['args'] = []
    if (r(2))
      for (let k = r(3) + 1; k > 0; k--) {
        const op = pick(operators)
        let value = pick(values)
        let two = pick(values)
        // A mask of nothing always holds: libseccomp takes that rule for one without the condition.
        if (op === 'MASKED_EQ' && value === '0') value = '255'
        // Bits of the value outside the mask: nothing can equal it; libseccomp drops the bits.
        if (op === 'MASKED_EQ') two = String(BigInt(two) & BigInt(value))
        seen.push(value, two)
        const index = r(6)
        conditions.push({ index, op, value: BigInt(value), two: BigInt(two) })
        args.push(`{"index":${index},"op":"SCMP_CMP_${op}","value":${value},"valueTwo":${two}}`)
      }
    // Two conditions on one argument are two rules.
    const indexes = args.map((a) => a.slice(0, 10))
    const weight = new Set(indexes).size < indexes.length ? args.length : 1
    const list = Array.from({ length: args.length ? r(4) + 1 : r(2) ? r(150) + 1 : r(8) + 1 }, () =>
      pick(names),
    ).filter((n) => {
      if (!args.length) return true
      if ((used.get(n) ?? 0) + weight > chains) return false
      used.set(n, (used.get(n) ?? 0) + weight)
      return true
    })
    if (!list.length) continue
    const then = action()
    plain.push({ names: list, action: actionCode(then), args: conditions })
    rules.push(
      JSON.stringify({ names: list, ...then }).replace(/}$/, args.length ? `,"args":[${args.join(',')}]}` : '}'),
    )
  }
  const { action: defaultAction, errnoRet } = dflt
  const text = `{"defaultAction":"${defaultAction}"${errnoRet === undefined ? '' : `,"defaultErrnoRet":${errnoRet}`},"architectures":${JSON.stringify(
    family.slice(1).map((a) => `SCMP_ARCH_${a}`),
  )},"syscalls":[${rules.join(',')}]}`
  const all = new Set<bigint>([0n, 1n, (1n << 64n) - 1n])
  for (const v of seen)
    for (const d of [0n, 1n, -1n, 1n << 32n, -(1n << 32n)]) all.add(BigInt.asUintN(64, BigInt(v) + d))
  return { text, machine: family[0]!, values: [...all], rules: plain }
}

export interface Difference {
  call: Call
  a: number
  b: number
}

/**
 * Runs two programs over every number of every architecture that either may know (and some that none does), with many arguments where
 * one of them looks at arguments.
 */
export function compare(
  a: Uint8Array,
  b: Uint8Array,
  args: bigint[],
  seed = 1,
  machine = 'x86_64',
): { calls: number; different: Difference[] } {
  const pa = decode(a)
  const pb = decode(b)
  const r = random(seed)
  const different: Difference[] = []
  let calls = 0
  const one = (call: Call): boolean => {
    calls++
    const x = run(pa, call)
    const y = run(pb, call)
    if (x.action !== y.action) different.push({ call, a: x.action, b: y.action })
    return x.args || y.args
  }
  const numbers: number[] = []
  for (let n = 0; n < 520; n++) numbers.push(n)
  for (const arch of [...Object.values(token), 0, 0xc0000016]) {
    const all = [...numbers, 0x3fffffff, 0x7fffffff, 0x80000000, 0xfffffffe, 0xffffffff]
    if (arch === token['arm']) for (let n = 0; n < 8; n++) all.push(0xf0000 + n)
    if (arch === token['x86_64'] && machine === 'x86_64') for (let n = 0; n < 560; n++) all.push(0x40000000 + n)
    for (const nr of all)
      if (one({ arch, nr, args: Array.from({ length: 6 }, () => args[r(args.length)]!) }))
        for (let i = 0; i < 40; i++) one({ arch, nr, args: Array.from({ length: 6 }, () => args[r(args.length)]!) })
  }
  return { calls, different }
}
