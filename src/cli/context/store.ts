import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { configDir } from '../config-file.js'

/** meta.json of a context, as the docker command keeps it. */
export interface ContextMeta {
  Name: string
  Metadata: { Description?: string }
  Endpoints: { docker?: { Host?: string; SkipTLSVerify?: boolean } }
}

/** A context's two folders are named by the digest of its name. */
export function contextDirs(name: string): { meta: string; tls: string } {
  const id = createHash('sha256').update(name).digest('hex')
  return { meta: join(configDir(), 'contexts/meta', id), tls: join(configDir(), 'contexts/tls', id) }
}

export const hasContext = (name: string): boolean => existsSync(join(contextDirs(name).meta, 'meta.json'))

export function readContext(name: string): ContextMeta {
  const file = join(contextDirs(name).meta, 'meta.json')
  try {
    return JSON.parse(readFileSync(file, 'utf8')) as ContextMeta
  } catch (e) {
    if ((e as NodeJS.ErrnoException).code !== 'ENOENT')
      throw new Error(`context "${name}": ${file}: ${(e as Error).message}`)
    throw new Error(`context "${name}": context not found: open ${file}: no such file or directory`)
  }
}

export function allContexts(): ContextMeta[] {
  const top = join(configDir(), 'contexts/meta')
  const ids = existsSync(top) ? readdirSync(top) : []
  return ids
    .map((id) => JSON.parse(readFileSync(join(top, id, 'meta.json'), 'utf8')) as ContextMeta)
    .sort((a, b) => (a.Name < b.Name ? -1 : 1))
}

/** tls: file name → content. */
export function writeContext(meta: ContextMeta, tls?: Readonly<Record<string, Buffer>>): void {
  const dirs = contextDirs(meta.Name)
  mkdirSync(dirs.meta, { recursive: true, mode: 0o755 })
  writeFileSync(join(dirs.meta, 'meta.json'), JSON.stringify(meta))
  if (!tls) return
  rmSync(dirs.tls, { recursive: true, force: true })
  if (Object.keys(tls).length === 0) return
  mkdirSync(join(dirs.tls, 'docker'), { recursive: true, mode: 0o700 })
  for (const [f, content] of Object.entries(tls)) writeFileSync(join(dirs.tls, 'docker', f), content, { mode: 0o600 })
}

export function removeContext(name: string): void {
  const dirs = contextDirs(name)
  rmSync(dirs.meta, { recursive: true, force: true })
  rmSync(dirs.tls, { recursive: true, force: true })
}
