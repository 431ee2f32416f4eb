import { invalid } from '../../common/index.js'
import type { Digest } from '../contract.js'

/** A name of an image, as docker's distribution library takes it apart. Absent parts are null. */
export interface Reference {
  /** Registry: "docker.io", "localhost:5000". */
  readonly domain: string
  /** "library/busybox" */
  readonly path: string
  readonly tag: string | null
  readonly digest: Digest | null
}

const HUB = 'docker.io'
const ALPHANUMERIC = '[a-z0-9]+'
const SEPARATOR = '(?:[._]|__|[-]+)'
const COMPONENT = `${ALPHANUMERIC}(?:${SEPARATOR}${ALPHANUMERIC})*`
const DOMAIN_LABEL = '(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])'
const DOMAIN = new RegExp(`^(?:${DOMAIN_LABEL}(?:\\.${DOMAIN_LABEL})*|\\[[a-fA-F0-9:]+\\])(?::[0-9]+)?$`)
const PATH = new RegExp(`^${COMPONENT}(?:/${COMPONENT})*$`)
const TAG = /^\w[\w.-]{0,127}$/
const DIGEST = /^sha256:[0-9a-f]{64}$/
const NAME_LENGTH_MAX = 255

const bad = (text: string, why: string): Error =>
  invalid('badReference', `invalid reference format${why ? `: ${why}` : ''}`, { reference: text })

function splitDomain(name: string): { domain: string; path: string } {
  const slash = name.indexOf('/')
  const first = slash < 0 ? '' : name.slice(0, slash)
  const isDomain = /[.:]/.test(first) || first === 'localhost' || first.toLowerCase() !== first
  let domain = slash >= 0 && isDomain ? first : HUB
  let path = slash >= 0 && isDomain ? name.slice(slash + 1) : name
  if (domain === 'index.docker.io') domain = HUB
  if (domain === HUB && !path.includes('/')) path = `library/${path}`
  return { domain, path }
}

/** Takes familiar names ("busybox", "me/app:1", "localhost:5000/x@sha256:..."). Throws badReference with docker's text. */
export function parseReference(text: string): Reference {
  if (/^[0-9a-f]{64}$/.test(text))
    throw invalid('badReference', `invalid repository name (${text}), cannot specify 64-byte hexadecimal strings`, {
      reference: text,
    })
  let rest = text
  let digest: Digest | null = null
  const at = rest.indexOf('@')
  if (at >= 0) {
    digest = rest.slice(at + 1)
    rest = rest.slice(0, at)
    if (!DIGEST.test(digest)) throw bad(text, /^\w+:/.test(digest) ? 'unsupported or malformed digest' : '')
  }
  let tag: string | null = null
  const colon = rest.lastIndexOf(':')
  if (colon > rest.lastIndexOf('/')) {
    tag = rest.slice(colon + 1)
    rest = rest.slice(0, colon)
    if (!TAG.test(tag)) throw bad(text, '')
  }
  const { domain, path } = splitDomain(rest)
  if (path.toLowerCase() !== path) throw bad(text, `repository name (${path}) must be lowercase`)
  if (rest === '' || !PATH.test(path) || !DOMAIN.test(domain)) throw bad(text, '')
  if (`${domain}/${path}`.length > NAME_LENGTH_MAX)
    throw bad(text, `repository name must not be more than ${NAME_LENGTH_MAX} characters`)
  return { domain, path, tag, digest }
}

/** Adds ":latest" when neither tag nor digest is there. */
export const withDefaultTag = (r: Reference): Reference => (r.tag || r.digest ? r : { ...r, tag: 'latest' })

/** "docker.io/library/busybox" */
export const repositoryOf = (r: Reference): string => `${r.domain}/${r.path}`

/** As docker shows it: "busybox", "me/app", "localhost:5000/x". */
export function familiarName(r: Reference): string {
  if (r.domain !== HUB) return `${r.domain}/${r.path}`
  return r.path.startsWith('library/') && !r.path.slice(8).includes('/') ? r.path.slice(8) : r.path
}

const suffix = (r: Reference): string => `${r.tag ? `:${r.tag}` : ''}${r.digest ? `@${r.digest}` : ''}`

export const familiarString = (r: Reference): string => familiarName(r) + suffix(r)

/** The key of the reference database. A digest beats a tag: docker ignores the tag of name:tag@digest. */
export const canonicalString = (r: Reference): string =>
  repositoryOf(r) + (r.digest ? `@${r.digest}` : r.tag ? `:${r.tag}` : '')
