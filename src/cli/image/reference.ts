/** "host:5000/a/b:tag" in its two parts. */
export function splitTag(reference: string): { repository: string; tag: string } {
  const i = reference.lastIndexOf(':')
  return i > reference.lastIndexOf('/')
    ? { repository: reference.slice(0, i), tag: reference.slice(i + 1) }
    : { repository: reference, tag: '' }
}

/** A reference as people write it: without docker.io and library. */
export const familiarName = (reference: string): string =>
  reference.replace(/^docker\.io\//, '').replace(/^library\//, '')

/** What pull says at its end: the whole name. */
export function familiar(reference: string): string {
  const first = reference.split('/')[0]!
  const hasHost = reference.includes('/') && (/[.:]/.test(first) || first === 'localhost')
  if (hasHost) return reference
  return `docker.io/${reference.includes('/') ? '' : 'library/'}${reference}`
}
