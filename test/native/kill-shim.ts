// SIGKILL at every system call of a shim's life: to the shim, to what it starts, and to the daemon in front of it.
import { spawn } from 'node:child_process'
import { existsSync, mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { nullLogger, ShoalError, systemClock } from '../../src/common/index.js'
import {
  type ContainerRuntime,
  createContainerRuntime,
  type LaunchSpec,
  type LiveContainer,
  native,
} from '../../src/runtime/index.js'
import { type Kill, killArguments, nextId, reported, stepThrough } from './kill-stages.js'
import { bin, cgroupFolders, deadline, eventually, makeConfig, makeImage, traces } from './kit.js'

/** `init`: the container's first process; `exec`: a process added to it; `daemon`: whoever started the shim. */
export type Victim = 'shim' | 'init' | 'exec' | 'daemon'
/** In the order in which a shim makes its processes: what kill-at counts. */
const counted: Record<Victim, number> = { shim: 0, init: 1, exec: 2, daemon: 0 }

/** The daemon's half, with a shim that may be killed on its way. */
function runtimeIn(execRoot: string, kill?: Kill): ContainerRuntime {
  const addon = native()
  const spawnShim: typeof addon.spawnShim = (call) =>
    addon.spawnShim(
      kill ? { ...call, path: bin('kill-at'), args: [...killArguments(kill), call.path, ...call.args] } : call,
    )
  return createContainerRuntime(
    { execRoot, shimPath: bin('shoal-shim') },
    { clock: systemClock, logger: nullLogger, native: { spawnShim, pidfdWait: addon.pidfdWait } },
  )
}

export function launchOf(base: string, id: string, image: string): LaunchSpec {
  const dir = join(base, 'layers', id)
  for (const d of ['root', 'diff', 'work']) mkdirSync(join(dir, d), { recursive: true })
  const spec = makeConfig(['/bin/sleep', '1000'], (c) => {
    c['root'].path = join(dir, 'root')
  })
  return {
    id,
    spec: spec as unknown as LaunchSpec['spec'],
    rootfs: { lower: [image], upper: join(dir, 'diff'), work: join(dir, 'work') },
    tty: false,
    stdin: false,
    stdinOnce: false,
    log: null,
    cgroup: `/native-kill-${id}`,
    seccomp: null,
    initPath: null,
    runtime: null,
  }
}

async function execIn(live: LiveContainer, args: string[]): Promise<number> {
  const process = { ...makeConfig(args)['process'], terminal: false }
  const handle = await live.exec({ id: `e${nextId()}`, process, tty: false, stdin: false })
  await handle.start()
  return deadline(handle.exited, 'the end of an exec process')
}

/** Tells each stage before it begins. */
async function walk(runtime: ContainerRuntime, launch: LaunchSpec, enter: (stage: string) => void): Promise<void> {
  enter('create')
  const live = await runtime.create(launch)
  enter('start')
  await live.start()
  enter('exec')
  await execIn(live, ['/bin/true'])
  enter('delete')
  await runtime.delete(launch.id)
  enter('end')
}

/** The daemon's life in a process of its own (kill-daemon.ts), which the shim's n-th call ends. */
async function walkElsewhere(
  execRoot: string,
  base: string,
  image: string,
  id: string,
  n: number,
  report: string,
): Promise<string> {
  const program = fileURLToPath(new URL('./kill-daemon.js', import.meta.url))
  const child = spawn(process.execPath, [program, execRoot, base, image, id, String(n), report], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  let said = ''
  child.stdout.on('data', (d) => {
    said += d
  })
  const end = await deadline(
    new Promise<string>((resolve) => child.once('close', (code, signal) => resolve(signal ?? String(code)))),
    'the end of the daemon',
  )
  if (end !== '0' && end !== 'SIGKILL') throw new Error(`the daemon of round ${n} ended with ${end}`)
  return said.trim().split('\n').at(-1)!
}

/** For kill-daemon.ts. */
export const walkAsDaemon = (execRoot: string, launch: LaunchSpec, n: number, report: string): Promise<void> =>
  walk(runtimeIn(execRoot, { which: 0, whom: String(process.pid), n, report }), launch, console.log)

/**
 * Goes through a container's life, killed at the n-th call, for n in steps. After each kill the daemon, or its successor, deletes the
 * container: nothing may be left, and a neighbour must not have noticed. A container whose daemon was killed must be as it was.
 */
export async function killShimAtEachCall(base: string, victim: Victim, step: number): Promise<number> {
  const execRoot = join(base, 'run')
  const image = join(base, 'image')
  mkdirSync(base, { recursive: true })
  makeImage(image)
  // A pending wait does not keep Node alive.
  const alive = setInterval(() => {}, 1000)
  const own = runtimeIn(execRoot)
  const guard = await own.create(launchOf(base, nextId(), image))
  await guard.start()
  try {
    return await stepThrough(step, async (n) => {
      const id = nextId()
      const launch = launchOf(base, id, image)
      const report = join(base, `report-${id}`)
      const where = `${victim} killed at call ${n}`
      let next = own
      let stage = ''
      if (victim === 'daemon') {
        stage = await walkElsewhere(execRoot, base, image, id, n, report)
        next = runtimeIn(execRoot)
      } else {
        next = runtimeIn(execRoot, { which: counted[victim], whom: 'self', n, report })
        const enter = (s: string): void => {
          stage = s
        }
        // That a stage fails because a process of it was killed is what this is for.
        await deadline(walk(next, launch, enter), `the walk with the ${where}`).catch((caught) => {
          if (n === 0 || !(caught instanceof ShoalError)) throw caught
        })
      }
      const outcome = await reported(report)
      if (victim === 'daemon' && ['start', 'exec'].includes(stage)) {
        const found = await next.adopt(id)
        if (!found || !('start' in found)) throw new Error(`${where} in ${stage}: the container is gone`)
        // From wherever the daemon had come to, it goes on.
        await found.start().catch((caught) => {
          if (!/already/.test(String(caught))) throw caught
        })
        const code = await execIn(found, ['/bin/true'])
        if (code !== 0) throw new Error(`${where} in ${stage}: the adopted container answers an exec with ${code}`)
      }
      await next.delete(id)
      await eventually(
        () => traces(id).length === 0,
        `${where} in ${stage}: the end of what it had started (${traces(id).join(', ')})`,
      )
      const left = [...cgroupFolders(launch.cgroup), ...[join(execRoot, 'containers', id)].filter(existsSync)]
      if (left.length) throw new Error(`${where} in ${stage}, left behind: ${left.join(' ')}`)
      const code = await execIn(guard, ['/bin/true'])
      if (code !== 0) throw new Error(`${where}: the neighbour answers with ${code}`)
      return outcome
    })
  } finally {
    await own.delete(guard.id)
    clearInterval(alive)
  }
}
