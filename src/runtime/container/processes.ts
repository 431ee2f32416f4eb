import { readdir, readFile } from 'node:fs/promises'

/** Field 22 of /proc/PID/stat, or null when there is no such process (or only its zombie). */
export async function startTicksOf(pid: number): Promise<number | null> {
  if (pid <= 0) return null
  let stat: string
  try {
    stat = await readFile(`/proc/${pid}/stat`, 'latin1')
  } catch {
    return null // ENOENT or ESRCH: it is gone
  }
  // The second field is the name in parentheses and may hold anything, closing parentheses too.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  if (fields[0] === 'Z' || fields[0] === 'X') return null
  return Number(fields[19])
}

export async function isAlive(pid: number, startTicks: number): Promise<boolean> {
  return (await startTicksOf(pid)) === startTicks
}

/**
 * Processes whose command line ends in `lastArgument`. Finds a shim that a killed daemon had started but whose state was
 * not on disk yet; reads all of /proc, so it is for recovery only.
 */
export async function findByLastArgument(lastArgument: string): Promise<readonly number[]> {
  const found: number[] = []
  for (const name of await readdir('/proc')) {
    if (!/^\d+$/.test(name)) continue
    try {
      const args = (await readFile(`/proc/${name}/cmdline`, 'utf8')).split('\0')
      if (args.length > 2 && args[args.length - 2] === lastArgument) found.push(Number(name))
    } catch {
      // It ended while we looked.
    }
  }
  return found
}

/** Sends a signal; false when the process is gone. The caller has checked whose pid it is. */
export function sendSignal(pid: number, signal: number): boolean {
  try {
    process.kill(pid, signal)
    return true
  } catch (caught) {
    if ((caught as NodeJS.ErrnoException).code === 'ESRCH') return false
    throw caught
  }
}
