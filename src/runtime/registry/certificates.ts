import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { createSecureContext, rootCertificates, type SecureContext } from 'node:tls'
import { invalid } from '../../common/index.js'

/** Where distributions keep the system's authorities in one file; the places that Go, and so dockerd, knows, in its order. */
const SYSTEM_FILES = [
  '/etc/ssl/certs/ca-certificates.crt',
  '/etc/pki/tls/certs/ca-bundle.crt',
  '/etc/ssl/ca-bundle.pem',
  '/etc/pki/tls/cacert.pem',
  '/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem',
  '/etc/ssl/cert.pem',
]

/** The file of the authorities that the operator trusts (update-ca-certificates): SSL_CERT_FILE, else the first that is there; null: none. */
export function systemAuthorities(env: NodeJS.ProcessEnv = process.env, files = SYSTEM_FILES): string | null {
  return [...(env.SSL_CERT_FILE ? [env.SSL_CERT_FILE] : []), ...files].find((f) => existsSync(f)) ?? null
}

const read = (path: string): string => readFileSync(path, 'utf8')

/** Node's own list stands in where the system has no file. */
const authoritiesIn = (file: string | null): readonly string[] => (file === null ? rootCertificates : [read(file)])

let known: { readonly stamp: string; readonly context: SecureContext } | null = null

/** Reading some 140 certificates takes tens of milliseconds, so the context is kept until its file changes. */
function systemContext(file: string | null): SecureContext {
  const stamp = file === null ? '' : `${file} ${statSync(file).mtimeMs}`
  if (known?.stamp !== stamp) known = { stamp, context: createSecureContext({ ca: [...authoritiesIn(file)] }) }
  return known.context
}

/**
 * What TLS with `host` trusts and shows. As dockerd: in the directory of the registry's name, *.crt are authorities beside the
 * system's, *.cert with its *.key is shown to the registry. The first of `dirs` that has such a directory counts.
 * Throws invalid `missingKey`.
 */
export function secureContextOf(host: string, dirs: readonly string[], system = systemAuthorities()): SecureContext {
  const dir = dirs.map((d) => join(d, host)).find((d) => existsSync(d))
  if (dir === undefined) return systemContext(system)
  const names = readdirSync(dir).sort()
  const authorities = names.filter((n) => n.endsWith('.crt')).map((n) => read(join(dir, n)))
  const client = names.find((n) => n.endsWith('.cert'))
  const key = client?.replace(/\.cert$/, '.key')
  if (key && !names.includes(key))
    throw invalid(
      'missingKey',
      `missing key ${key} for client certificate ${client}. Note that CA certificates should use the extension .crt`,
      { dir },
    )
  return createSecureContext({
    ca: [...authoritiesIn(system), ...authorities],
    ...(client && key ? { cert: read(join(dir, client)), key: read(join(dir, key)) } : {}),
  })
}
