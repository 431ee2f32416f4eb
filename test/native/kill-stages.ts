// SIGKILL at every system call: kill-at (native/fuzz/kill-at.c) counts the calls of one process and kills at the n-th.
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { bin, cgroupFolders, eventually, exec, execDetached, type Json, makeConfig, makeImage, traces } from './kit.js'

/** Who is killed: a command of shoal-runtime, or (`init`) the container's first process, from its clone to the end of its program. */
export type Verb = 'create' | 'start' | 'exec' | 'delete' | 'init'

let count = 0
export const nextId = (): string => `k${process.pid}x${++count}`

/** Which process is counted, whom the signal hits ("self" or a process id), the call, and where kill-at says what became of it. */
export interface Kill {
  readonly which: number
  readonly whom: string
  readonly n: number
  readonly report: string
}

export const killArguments = (k: Kill): string[] => [String(k.which), k.whom, String(k.n), k.report]

/** What kill-at reports: the number of calls of a process that was left alone, or the call at which it killed. */
export async function reported(report: string): Promise<{ calls: number } | { killedAt: number }> {
  await eventually(() => existsSync(report), 'the report of kill-at')
  const text = readFileSync(report, 'utf8')
  rmSync(report)
  const call = text.match(/^killed (\d+)$/m)
  return call ? { killedAt: Number(call[1]) } : { calls: Number(text) }
}

/** Kills nothing in round 0, which counts the calls, then at call 1, 1 + step, ... until the process ends before. Gives the number of kills. */
export async function stepThrough(
  step: number,
  round: (n: number) => Promise<{ calls: number } | { killedAt: number }>,
): Promise<number> {
  const first = await round(0)
  if (!('calls' in first)) throw new Error('kill-at killed in the round that only counts')
  let kills = 0
  for (let n = 1; n <= first.calls; n += step) if ('killedAt' in (await round(n))) kills++
  return kills
}

/** After each kill a container that was running must still answer, and `delete --force` must clean everything. */
export async function killAtEachCall(base: string, verb: Verb, step: number): Promise<number> {
  const runtime = bin('shoal-runtime')
  const state = ['--root', join(base, 'state')]
  const errors = join(base, 'stderr')
  const image = join(base, 'rootfs')
  mkdirSync(base, { recursive: true })
  makeImage(image)
  const config: Json = makeConfig(verb === 'init' ? ['/bin/true'] : ['/bin/sleep', '1000'], (c) => {
    c['root'].path = image
  })
  const must = async (...args: string[]): Promise<void> => {
    const r = await execDetached(runtime, [...state, ...args], errors)
    if (r.code !== 0) throw new Error(`${args[0]}: ${r.stderr}`)
  }
  return stepThrough(step, async (n) => {
    const id = nextId()
    const cgroup = `/native-kill-${id}`
    const where = `killed at call ${n} of ${verb}`
    config['linux'].cgroupsPath = cgroup
    const dir = join(base, id)
    mkdirSync(dir)
    writeFileSync(join(dir, 'config.json'), JSON.stringify(config))
    if (verb !== 'create' && verb !== 'init') await must('create', '--bundle', dir, id)
    if (verb === 'exec' || verb === 'delete') await must('start', id)
    const args = {
      create: ['create', '--bundle', dir, id],
      init: ['run', '--bundle', dir, id],
      start: ['start', id],
      exec: ['exec', id, '/bin/true'],
      delete: ['delete', '--force', id],
    }[verb]
    const report = join(dir, 'report')
    const kill = killArguments({ which: verb === 'init' ? 1 : 0, whom: 'self', n, report })
    const killed = await execDetached(bin('kill-at'), [...kill, runtime, ...state, ...args], errors)
    if (n === 0 && killed.code !== 0) throw new Error(`${verb}: ${killed.stderr}`)
    const outcome = await reported(report)
    if (verb === 'exec') {
      const after = await exec(runtime, [...state, 'exec', id, '/bin/echo', 'well'])
      if (after.stdout !== 'well\n') throw new Error(`${where}, the container no longer answers: ${after.stderr}`)
      // What the killed command had made goes by itself: only the container's process stays.
      const folder = cgroupFolders(cgroup).find((f) => f.includes('/pids/')) ?? cgroupFolders(cgroup)[0]!
      const inside = (): string[] => readFileSync(join(folder, 'cgroup.procs'), 'utf8').split('\n').filter(Boolean)
      await eventually(() => inside().length === 1, `${where}: the end of its process`)
    }
    const deleted = await exec(runtime, [...state, 'delete', '--force', id])
    if (deleted.code !== 0) throw new Error(`${where}, delete --force fails: ${deleted.stderr}`)
    await eventually(() => traces(cgroup).length === 0, `${where}: the end of its processes`)
    const left = [...cgroupFolders(cgroup), ...(existsSync(join(base, 'state', id)) ? [`state of ${id}`] : [])]
    if (left.length) throw new Error(`${where}, left behind: ${left.join(' ')}`)
    return outcome
  })
}
