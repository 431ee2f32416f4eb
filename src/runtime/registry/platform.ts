import { invalid } from '../../common/index.js'
import type { ImagePlatform } from '../contract.js'
import { hostPlatform } from './media-types.js'

/**
 * OS/ARCH[/VARIANT], one of the two alone, or OCI's JSON form; undefined for "".
 *
 * @throws invalid `badPlatform`
 */
export function parsePlatform(v: string): ImagePlatform | undefined {
  if (v === '') return undefined
  if (v.startsWith('{')) {
    try {
      const p = JSON.parse(v) as ImagePlatform
      if (p.os && p.architecture) return p
    } catch {
      // Falls through to the error below: neither form.
    }
    throw invalid('badPlatform', `"${v}" is not a platform; use OS/ARCH[/VARIANT], e.g. linux/amd64`)
  }
  const [os, architecture, variant, ...more] = v.split('/')
  if (architecture === undefined) return lonePart(v)
  if (!os || !architecture || more.length > 0)
    throw invalid('badPlatform', `"${v}" is not a platform; use OS/ARCH[/VARIANT], e.g. linux/amd64`)
  return variant ? { os, architecture, variant } : { os, architecture }
}

const ARCHITECTURES: Readonly<Record<string, string>> = {
  '386': '386',
  aarch64: 'arm64',
  amd64: 'amd64',
  arm: 'arm',
  arm64: 'arm64',
  armhf: 'arm',
  i386: '386',
  mips64le: 'mips64le',
  ppc64le: 'ppc64le',
  riscv64: 'riscv64',
  s390x: 's390x',
  x86_64: 'amd64',
}

/** An operating system or an architecture alone; what is left out is the host's. */
function lonePart(v: string): ImagePlatform {
  const { os, architecture } = hostPlatform()
  if (v === 'linux') return { os: v, architecture }
  const known = ARCHITECTURES[v.toLowerCase()]
  if (known) return { os, architecture: known }
  throw invalid('badPlatform', `"${v}": unknown operating system or architecture: invalid argument`)
}
