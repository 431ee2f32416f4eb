import { execFile } from 'node:child_process'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { invalid } from '../common/index.js'
import { cgroupMounts } from '../runtime/index.js'

const run = promisify(execFile)

/** Output of ps that is read, bytes. */
const MAX_OUTPUT_BYTES = 16 * 1024 * 1024

/** Every process of a cgroup, children's included, as this host numbers them. */
export async function cgroupPids(cgroup: string): Promise<ReadonlySet<number>> {
  for (const mount of await cgroupMounts()) {
    if (mount.version === 1 && !mount.controllers.includes('pids') && !mount.controllers.includes('memory')) continue
    try {
      const text = await readFile(join(mount.path, cgroup, 'cgroup.procs'), 'utf8')
      const pids = text.split('\n').filter(Boolean).map(Number)
      if (pids.length > 0) return new Set(pids)
    } catch (caught) {
      // Gone, before it was opened (ENOENT) or after (ENODEV).
      if (!['ENOENT', 'ENODEV'].includes((caught as NodeJS.ErrnoException).code ?? '')) throw caught
    }
  }
  return new Set()
}

/** `docker top`: the host's ps, with the user's options, cut down to the container's processes. */
export async function processTable(
  cgroup: string,
  psArgs: string,
): Promise<{ readonly titles: readonly string[]; readonly processes: readonly (readonly string[])[] }> {
  const args = psArgs.trim() === '' ? ['-ef'] : psArgs.trim().split(/\s+/)
  const [pids, output] = await Promise.all([cgroupPids(cgroup), ps(args)])
  return parseProcessTable(output, pids)
}

async function ps(args: readonly string[]): Promise<string> {
  try {
    return (await run('ps', args, { maxBuffer: MAX_OUTPUT_BYTES })).stdout
  } catch (cause) {
    const { stderr, message } = cause as { stderr?: string; message: string }
    throw invalid('psFailed', `error running ps: ${stderr?.trim() || message}`, { args }, { cause })
  }
}

/** Needs a PID column; the last column takes the rest of the line. */
export function parseProcessTable(
  output: string,
  pids: ReadonlySet<number>,
): { readonly titles: readonly string[]; readonly processes: readonly (readonly string[])[] } {
  const [header = '', ...rows] = output.split('\n').filter((line) => line.trim() !== '')
  const titles = header.trim().split(/\s+/)
  const pidColumn = titles.indexOf('PID')
  if (pidColumn < 0) throw invalid('noPidColumn', "Couldn't find PID field in ps output")
  const processes = rows
    .map((row) => {
      const fields = row.trim().split(/\s+/)
      return [...fields.slice(0, titles.length - 1), fields.slice(titles.length - 1).join(' ')]
    })
    .filter((fields) => pids.has(Number(fields[pidColumn])))
  return { titles, processes }
}
