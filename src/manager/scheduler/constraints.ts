import { BlockList, isIP } from 'node:net'
import type { Node } from '#proto'
import { NodeRole } from '#proto'

export interface Constraint {
  readonly key: string
  readonly isEqual: boolean
  readonly value: string
}

/** `key==value` or `key!=value`; null when it is neither. Spaces around the parts do not count. */
export function parseConstraint(text: string): Constraint | null {
  const m = /^\s*([A-Za-z0-9_.\-/]+)\s*(==|!=)\s*(.*?)\s*$/.exec(text)
  return m && m[3] !== '' ? { key: m[1]!, isEqual: m[2] === '==', value: m[3]! } : null
}

/** Parsed once: the same few strings come back for each task of a service. Bounded by being emptied. */
const parsed = new Map<string, Constraint | null>()
const PARSED_MAX = 4_096

function parseCached(text: string): Constraint | null {
  let constraint = parsed.get(text)
  if (constraint === undefined) {
    if (parsed.size >= PARSED_MAX) parsed.clear()
    constraint = parseConstraint(text)
    parsed.set(text, constraint)
  }
  return constraint
}

/** All must hold. Values compare without regard to case; a label that is not there equals "". */
export function matchesConstraints(constraints: readonly string[], node: Node): boolean {
  for (const text of constraints) {
    const constraint = parseCached(text)
    // Control refuses constraints that do not parse; one that got here all the same fits no node.
    if (constraint === null || !matches(constraint, node)) return false
  }
  return true
}

const NODE_LABEL = 'node.labels.'
const ENGINE_LABEL = 'engine.labels.'

function matches({ key, isEqual, value }: Constraint, node: Node): boolean {
  // Key words compare without regard to case, the label's own name exactly.
  const word = key.toLowerCase()
  if (word.startsWith(NODE_LABEL))
    return compare(node.spec?.annotations?.labels[key.slice(NODE_LABEL.length)] ?? '', value) === isEqual
  if (word.startsWith(ENGINE_LABEL))
    return compare(node.description?.engineLabels[key.slice(ENGINE_LABEL.length)] ?? '', value) === isEqual
  switch (word) {
    case 'node.id':
      return compare(node.id, value) === isEqual
    case 'node.hostname':
      return compare(node.description?.hostname ?? '', value) === isEqual
    case 'node.ip':
      return isAddressIn(node.status?.address ?? '', value) === isEqual
    case 'node.role':
      return compare(node.role === NodeRole.MANAGER ? 'manager' : 'worker', value) === isEqual
    case 'node.platform.os':
      return compare(node.description?.platform?.os ?? '', value) === isEqual
    case 'node.platform.arch':
      return (normalArch(node.description?.platform?.architecture ?? '') === normalArch(value)) === isEqual
    default:
      return false
  }
}

const compare = (a: string, b: string): boolean => a.toLowerCase() === b.toLowerCase()

/** The value is an address or a CIDR; the address may carry a port or brackets. */
function isAddressIn(address: string, value: string): boolean {
  const plain = address.replace(/^\[(.*)\](:\d+)?$/, '$1').replace(/^(\d+\.\d+\.\d+\.\d+):\d+$/, '$1')
  const [base = '', prefix] = value.split('/')
  const family = isIP(base) === 6 ? 'ipv6' : 'ipv4'
  if (isIP(base) === 0 || isIP(plain) === 0) return false
  const bits = prefix === undefined ? (family === 'ipv6' ? 128 : 32) : Number(prefix)
  if (!Number.isInteger(bits) || bits < 0 || bits > (family === 'ipv6' ? 128 : 32)) return false
  const list = new BlockList()
  list.addSubnet(base, bits, family)
  return list.check(plain, isIP(plain) === 6 ? 'ipv6' : 'ipv4')
}

const ARCHITECTURES: Readonly<Record<string, string>> = {
  x86_64: 'amd64',
  'x86-64': 'amd64',
  aarch64: 'arm64',
  armhf: 'arm',
  armel: 'arm',
  i386: '386',
  i686: '386',
}

/** The kernel's and Go's names of one architecture compare equal. */
export const normalArch = (arch: string): string => ARCHITECTURES[arch.toLowerCase()] ?? arch.toLowerCase()
