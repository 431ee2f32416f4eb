import { readConfig } from './config-file.js'

export const HUB = 'https://index.docker.io/v1/'

/** The registry of a reference: its first part where that looks like a host. */
export function registryOf(reference: string): string {
  const first = reference.split('/')[0]!
  return reference.includes('/') && (/[.:]/.test(first) || first === 'localhost') ? first : HUB
}

/** Who one is at a registry, as the API wants it; null when nobody logged in. */
export function credentials(registry: string): Record<string, string> | null {
  const known = readConfig().auths?.[registry]
  if (!known?.auth && !known?.identitytoken) return null
  const [username = '', ...password] = Buffer.from(known.auth ?? '', 'base64')
    .toString('utf8')
    .split(':')
  return {
    username,
    password: password.join(':'),
    serveraddress: registry,
    ...(known.identitytoken ? { identitytoken: known.identitytoken } : {}),
  }
}

/** X-Registry-Auth from the configuration's `auths`; an empty object when nothing is known. */
export function registryAuthHeader(reference: string): Record<string, string> {
  return {
    'X-Registry-Auth': Buffer.from(JSON.stringify(credentials(registryOf(reference)) ?? {})).toString('base64url'),
  }
}

/** X-Registry-Config: who one is at every registry that one logged in to. */
export function registryConfigHeader(): Record<string, string> {
  const known = Object.keys(readConfig().auths ?? {})
  const all = Object.fromEntries(
    known.flatMap((registry) => {
      const own = credentials(registry)
      return own ? [[registry, own]] : []
    }),
  )
  return { 'X-Registry-Config': Buffer.from(JSON.stringify(all)).toString('base64url') }
}
