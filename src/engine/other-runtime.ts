import { accessSync, constants } from 'node:fs'
import { chmod, mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { invalid } from '../common/index.js'
import type { EngineOptions } from './contract.js'

/** Names of the shim's own runtime: Shoal's, and those under which clients of Docker know the standard one. */
export const BUILT_IN_RUNTIMES: readonly string[] = [
  'shoal',
  'runc',
  'io.containerd.runc.v2',
  'io.containerd.runtime.v1.linux',
]

/** The configuration may have changed since the container was created. */
export function checkRuntime(name: string, options: EngineOptions): void {
  if (!BUILT_IN_RUNTIMES.includes(name) && !(name in options.runtimes))
    throw invalid('noSuchRuntime', `Unknown runtime specified ${name}`, { runtime: name })
}

/** What the shim executes for a container of this runtime; null: its own library. */
export async function runtimeProgram(name: string, options: EngineOptions): Promise<string | null> {
  checkRuntime(name, options)
  const runtime = options.runtimes[name]
  if (!runtime) return null
  const program = findProgram(runtime.path)
  const args = runtime.runtimeArgs ?? []
  return args.length === 0 ? program : wrapper(name, [program, ...args], options)
}

function findProgram(path: string): string {
  const candidates = path.includes('/') ? [path] : (process.env.PATH ?? '').split(':').map((dir) => join(dir, path))
  let error: unknown
  for (const candidate of candidates)
    try {
      accessSync(candidate, constants.X_OK)
      return candidate
    } catch (e) {
      error = e
    }
  const why = !path.includes('/')
    ? 'executable file not found in $PATH'
    : (error as NodeJS.ErrnoException).code === 'EACCES'
      ? 'permission denied'
      : 'no such file or directory'
  throw invalid('runtimeProgram', `cannot run the runtime ${path}: ${why}`, { path }, { cause: error })
}

const quoted = (word: string): string => `'${word.replaceAll("'", "'\\''")}'`

/** The shim puts its own arguments right after the program's name. */
async function wrapper(name: string, command: readonly string[], options: EngineOptions): Promise<string> {
  const dir = join(options.execRoot, 'runtimes')
  await mkdir(dir, { recursive: true, mode: 0o700 })
  const path = join(dir, encodeURIComponent(name))
  await writeFile(path, `#!/bin/sh\nexec ${command.map(quoted).join(' ')} "$@"\n`)
  await chmod(path, 0o700)
  return path
}
