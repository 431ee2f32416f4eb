import { readFileSync } from 'node:fs'
import { homedir } from 'node:os'
import { join } from 'node:path'

const HUB = 'https://index.docker.io/v1/'

/** The registry of a reference: its first part where that looks like a host. */
export function registryOf(reference: string): string {
  const first = reference.split('/')[0]!
  return reference.includes('/') && (/[.:]/.test(first) || first === 'localhost') ? first : HUB
}

/** X-Registry-Auth from the docker configuration's `auths`; `e30=` (an empty object) when nothing is known. */
export function registryAuthHeader(reference: string): Record<string, string> {
  const registry = registryOf(reference)
  let auth: object = {}
  try {
    const file = join(process.env.DOCKER_CONFIG ?? join(homedir(), '.docker'), 'config.json')
    const known = (
      JSON.parse(readFileSync(file, 'utf8')) as { auths?: Record<string, { auth?: string; identitytoken?: string }> }
    ).auths?.[registry]
    if (known?.auth) {
      const [username = '', ...password] = Buffer.from(known.auth, 'base64').toString('utf8').split(':')
      auth = {
        username,
        password: password.join(':'),
        serveraddress: registry,
        ...(known.identitytoken ? { identitytoken: known.identitytoken } : {}),
      }
    }
  } catch {
    // No configuration file: nobody logged in.
  }
  return { 'X-Registry-Auth': Buffer.from(JSON.stringify(auth)).toString('base64url') }
}
