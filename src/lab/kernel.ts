import { execFile, spawn } from 'node:child_process'
import { existsSync, readdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs'
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { type Clock, ShoalError } from '../common/index.js'

const execFileP = promisify(execFile)

/** Runs a program to its end; its standard error is the error's message. */
export async function run(command: string, ...args: string[]): Promise<string> {
  try {
    const { stdout } = await execFileP(command, args, { maxBuffer: 64 * 1024 * 1024 })
    return stdout
  } catch (e) {
    const stderr = (e as { stderr?: string }).stderr?.trim()
    throw new ShoalError('internal', 'commandFailed', `${command} ${args.join(' ')}: ${stderr || (e as Error).message}`)
  }
}

export const ip = (...args: string[]): Promise<string> => run('ip', ...args)

export const netnsPath = (name: string): string => `/run/netns/${name}`
export const netnsExists = (name: string): boolean => existsSync(netnsPath(name))

/** Under npm, PATH begins with node_modules/.bin, where a package brings an nft of another kind. */
const SYSTEM_PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'

/** Loads a ruleset into a namespace. */
export async function nft(netns: string, rules: string): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    const p = spawn('nsenter', [`--net=${netnsPath(netns)}`, 'nft', '-f', '-'], {
      stdio: ['pipe', 'ignore', 'pipe'],
      env: { PATH: SYSTEM_PATH },
    })
    let err = ''
    p.stderr.on('data', (b) => {
      err += b
    })
    p.on('error', reject)
    p.on('exit', (code) =>
      code === 0 ? resolve() : reject(new ShoalError('internal', 'nftFailed', `nft in ${netns}: ${err.trim()}`)),
    )
    p.stdin.end(rules)
  })
}

/** Mounts whose target is at or below `prefix`, deepest first. */
export function mountsBelow(prefix: string): string[] {
  return readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .map((l) => l.split(' ')[4]?.replace(/\\040/g, ' ') ?? '')
    .filter((m) => m === prefix || m.startsWith(`${prefix}/`))
    .sort((a, b) => b.length - a.length)
}

export async function unmountBelow(prefix: string): Promise<void> {
  for (const m of mountsBelow(prefix)) await run('umount', '-l', m).catch(() => {}) // gone already with its parent
}

// ------------------------------------------------------------------------------------------------ control groups

/** Mount points of the controllers a host's processes may be in: every v1 hierarchy and the v2 one. */
export function cgroupRoots(): string[] {
  return readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .filter((l) => / - cgroup2? /.test(l))
    .map((l) => l.split(' ')[4]!)
}

/** The hierarchy by which a lab holds its processes together: v2 alone, or v1's pids. */
function holder(): string {
  const roots = cgroupRoots()
  return roots.find((r) => /\/pids$/.test(r)) ?? roots.find((r) => r === '/sys/fs/cgroup') ?? roots[0]!
}

export async function holdIn(cgroup: string, pid: number): Promise<void> {
  const dir = join(holder(), cgroup)
  await mkdir(dir, { recursive: true })
  writeFileSync(join(dir, 'cgroup.procs'), String(pid))
}

export function processesIn(cgroup: string): number[] {
  const pids = new Set<number>()
  for (const root of cgroupRoots()) {
    const walk = (dir: string): void => {
      try {
        for (const p of readFileSync(join(dir, 'cgroup.procs'), 'utf8').split('\n')) if (p) pids.add(Number(p))
        for (const e of readdirSync(dir, { withFileTypes: true })) if (e.isDirectory()) walk(join(dir, e.name))
      } catch {
        // The group vanished while we looked: nothing of it is left to be found.
      }
    }
    walk(join(root, cgroup))
  }
  return [...pids]
}

/** SIGKILL until nothing is left; frozen groups are thawed, since a frozen v1 process ignores even that. */
export async function killAll(cgroup: string, clock: Clock): Promise<void> {
  const deadline = clock.monotonic() + 20_000
  for (;;) {
    const pids = processesIn(cgroup)
    if (pids.length === 0) return
    if (clock.monotonic() > deadline)
      throw new ShoalError('internal', 'cannotKill', `processes ${pids.join(', ')} of ${cgroup} do not die`)
    thaw(cgroup)
    for (const pid of pids) {
      try {
        process.kill(pid, 'SIGKILL')
      } catch {
        // Gone by itself.
      }
    }
    await clock.sleep(20)
  }
}

function thaw(cgroup: string): void {
  for (const root of cgroupRoots()) {
    const walk = (dir: string): void => {
      try {
        for (const e of readdirSync(dir, { withFileTypes: true })) if (e.isDirectory()) walk(join(dir, e.name))
        for (const [file, value] of [
          ['freezer.state', 'THAWED'],
          ['cgroup.freeze', '0'],
        ] as const) {
          if (existsSync(join(dir, file))) writeFileSync(join(dir, file), value)
        }
      } catch {
        // As above; a root group has no such file.
      }
    }
    if (existsSync(join(root, cgroup))) walk(join(root, cgroup))
  }
}

/** Removes empty groups, deepest first; one that is still busy stays for the next try. */
export async function removeCgroup(cgroup: string, clock: Clock): Promise<void> {
  for (const root of cgroupRoots()) {
    const walk = (dir: string): void => {
      try {
        for (const e of readdirSync(dir, { withFileTypes: true })) if (e.isDirectory()) walk(join(dir, e.name))
        rmdirSync(dir)
      } catch {
        // Busy or gone; looked at again below.
      }
    }
    for (let i = 0; i < 50 && existsSync(join(root, cgroup)); i++) {
      walk(join(root, cgroup))
      if (existsSync(join(root, cgroup))) await clock.sleep(20)
    }
  }
}

/** Field 22 of /proc/PID/stat, or null when there is no such process: tells a reused pid apart. */
export function startTicks(pid: number): number | null {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
    return fields[0] === 'Z' ? null : Number(fields[19])
  } catch {
    return null
  }
}
