import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { configDir, readConfig } from './config-file.js'
import { contextDirs, readContext } from './context/store.js'

export const DEFAULT_HOST = 'unix:///var/run/shoal/shoal.sock'

export interface Target {
  /** unix://..., tcp://... */
  readonly host: string
  readonly tls: { readonly ca: string; readonly cert: string; readonly key: string } | null
}

/** The global flags that choose the engine. */
export interface HostFlags {
  readonly host?: string
  readonly context?: string
  readonly tls?: boolean
  readonly tlsverify?: boolean
  readonly tlscacert?: string
  readonly tlscert?: string
  readonly tlskey?: string
}

const hostFromEnvironment = (): string | undefined => process.env.SHOAL_HOST || process.env.DOCKER_HOST || undefined

/** Which context the flags, the environment and the configuration choose; "default" also when a host overrides it. */
export function contextName(flags: HostFlags): string {
  if (flags.host) return 'default'
  if (flags.context) return flags.context
  if (hostFromEnvironment()) return 'default'
  return process.env.DOCKER_CONTEXT || readConfig().currentContext || 'default'
}

/** -H, then the context by flag, then SHOAL_HOST, DOCKER_HOST, then DOCKER_CONTEXT or the configuration file, then the default socket. */
export function resolveTarget(flags: HostFlags): Target {
  const name = contextName(flags)
  if (name === 'default') return defaultTarget(flags)
  const host = readContext(name).Endpoints.docker?.Host
  if (!host)
    throw new Error(`context "${name}" names no Docker endpoint: give it one with shoal context update --docker`)
  const dir = join(contextDirs(name).tls, 'docker')
  try {
    const read = (f: string): string => readFileSync(join(dir, f), 'utf8')
    return { host, tls: { ca: read('ca.pem'), cert: read('cert.pem'), key: read('key.pem') } }
  } catch {
    return { host, tls: null } // A context without TLS material.
  }
}

export function defaultTarget(flags: HostFlags): Target {
  const host = flags.host ?? hostFromEnvironment() ?? DEFAULT_HOST
  const wanted = flags.tls || flags.tlsverify || process.env.DOCKER_TLS_VERIFY
  if (!wanted || !/^(tcp|https):\/\//.test(host)) return { host, tls: null }
  const dir = process.env.DOCKER_CERT_PATH ?? configDir()
  const read = (given: string | undefined, f: string): string => readFileSync(given ?? join(dir, f), 'utf8')
  return {
    host,
    tls: {
      ca: read(flags.tlscacert, 'ca.pem'),
      cert: read(flags.tlscert, 'cert.pem'),
      key: read(flags.tlskey, 'key.pem'),
    },
  }
}
