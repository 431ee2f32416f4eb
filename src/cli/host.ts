import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { invalid } from '../common/errors.js'

export const DEFAULT_HOST = 'unix:///var/run/shoal/shoal.sock'

export interface Target {
  /** unix://..., tcp://... */
  readonly host: string
  readonly tls: { readonly ca: string; readonly cert: string; readonly key: string } | null
}

const configDir = (): string => process.env.DOCKER_CONFIG ?? join(homedir(), '.docker')

/** -H, then SHOAL_HOST, DOCKER_HOST, then the context by flag, DOCKER_CONTEXT or the configuration file, then the default socket. */
export function resolveTarget(flags: {
  readonly host?: string
  readonly context?: string
  readonly tlsverify?: boolean
}): Target {
  const fromEnv = process.env.SHOAL_HOST || process.env.DOCKER_HOST
  const host = flags.host ?? (flags.context ? undefined : fromEnv)
  if (host) return { host, tls: tlsFiles(host, flags.tlsverify) }
  const context = flags.context ?? process.env.DOCKER_CONTEXT ?? currentContext()
  if (!context || context === 'default') return { host: DEFAULT_HOST, tls: null }
  return contextTarget(context)
}

function currentContext(): string | undefined {
  try {
    return (JSON.parse(readFileSync(join(configDir(), 'config.json'), 'utf8')) as { currentContext?: string })
      .currentContext
  } catch {
    return undefined // No configuration file, or none that can be read: the default context.
  }
}

function contextTarget(name: string): Target {
  const id = createHash('sha256').update(name).digest('hex')
  const file = join(configDir(), 'contexts/meta', id, 'meta.json')
  let endpoint: { Host?: string } | undefined
  try {
    endpoint = (JSON.parse(readFileSync(file, 'utf8')) as { Endpoints?: { docker?: { Host?: string } } }).Endpoints
      ?.docker
  } catch {
    throw invalid('noSuchContext', `context "${name}": context not found: open ${file}: no such file or directory`)
  }
  if (!endpoint?.Host) throw invalid('badContext', `context "${name}" names no Docker endpoint`)
  const tlsDir = join(configDir(), 'contexts/tls', id, 'docker')
  try {
    const read = (f: string): string => readFileSync(join(tlsDir, f), 'utf8')
    return { host: endpoint.Host, tls: { ca: read('ca.pem'), cert: read('cert.pem'), key: read('key.pem') } }
  } catch {
    return { host: endpoint.Host, tls: null } // A context without TLS material.
  }
}

function tlsFiles(host: string, asked: boolean | undefined): Target['tls'] {
  if (!host.startsWith('tcp://') || !(asked || process.env.DOCKER_TLS_VERIFY)) return null
  const dir = process.env.DOCKER_CERT_PATH ?? configDir()
  const read = (f: string): string => readFileSync(join(dir, f), 'utf8')
  return { ca: read('ca.pem'), cert: read('cert.pem'), key: read('key.pem') }
}
