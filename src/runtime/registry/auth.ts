import type { RegistryAuth } from '../contract.js'

export interface Challenge {
  readonly scheme: 'basic' | 'bearer'
  readonly parameters: Readonly<Record<string, string>>
}

/** RFC 9110 §11.6.1: several challenges may stand in one header. Schemes we do not know are left out. */
export function parseChallenges(headers: string | readonly string[] | undefined): Challenge[] {
  const found: Challenge[] = []
  for (const header of headers === undefined ? [] : typeof headers === 'string' ? [headers] : headers) {
    const scanner = /([A-Za-z][\w-]*)\s+((?:[\w-]+\s*=\s*(?:"(?:[^"\\]|\\.)*"|[^",\s]+)\s*,?\s*)*)/g
    for (const [, scheme, list] of header.matchAll(scanner)) {
      const name = scheme!.toLowerCase()
      if (name !== 'basic' && name !== 'bearer') continue
      const parameters: Record<string, string> = {}
      for (const [, key, quoted, plain] of list!.matchAll(/([\w-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^",\s]+))/g))
        parameters[key!.toLowerCase()] = quoted !== undefined ? quoted.replace(/\\(.)/g, '$1') : plain!
      found.push({ scheme: name, parameters })
    }
  }
  return found
}

/** `auth` is base64 of user:password, as docker's config file keeps it; explicit fields win. */
export function credentialsOf(auth: RegistryAuth | undefined): { username: string; password: string } | null {
  if (!auth) return null
  if (auth.username) return { username: auth.username, password: auth.password ?? '' }
  if (!auth.auth) return null
  const text = Buffer.from(auth.auth, 'base64').toString('utf8')
  const colon = text.indexOf(':')
  return colon < 0 ? null : { username: text.slice(0, colon), password: text.slice(colon + 1) }
}

export const basicHeader = (c: { username: string; password: string }): string =>
  `Basic ${Buffer.from(`${c.username}:${c.password}`).toString('base64')}`
