// SIGKILL at every system call of a command: strace counts them and kills the command at the n-th.
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { bin, cgroupFolders, eventually, exec, execDetached, makeConfig, makeImage, traces } from './kit.js'

export const strace = ['/usr/bin/strace', '/usr/local/bin/strace'].find(existsSync)
/** `init`: not the command is killed but the first process of the container, on its way from clone to the end of its program. */
export type Verb = 'create' | 'exec' | 'delete' | 'init'

let count = 0

/**
 * Kills the command `verb` at its second system call (the first one is its start), then at the one `step` further on, and so on to its
 * last. After each kill a container that was running must still answer, and `delete --force` must clean everything. Returns the number
 * of kills.
 */
export async function killAtEachCall(base: string, verb: Verb, step: number): Promise<number> {
  const runtime = bin('shoal-runtime')
  const state = ['--root', join(base, 'state')]
  const errors = join(base, 'stderr')
  const image = join(base, 'rootfs')
  mkdirSync(base, { recursive: true })
  makeImage(image)
  const config = makeConfig(verb === 'init' ? ['/bin/true'] : ['/bin/sleep', '1000'], (c) => {
    c['root'].path = image
  })
  // Round 0 kills nothing and writes down the calls; strace counts each kind of call for itself.
  let calls: string[] = ['']
  let kills = 0
  for (let n = 0; n < calls.length; n += n === 0 ? 1 : step) {
    const id = `k${process.pid}x${++count}`
    const cgroup = `/native-kill-${id}`
    config['linux'].cgroupsPath = cgroup
    const dir = join(base, id)
    mkdirSync(dir)
    writeFileSync(join(dir, 'config.json'), JSON.stringify(config))
    const create = ['create', '--bundle', dir, id]
    if (verb === 'exec' || verb === 'delete') {
      const made = await execDetached(runtime, [...state, ...create], errors)
      if (made.code !== 0) throw new Error(`create: ${made.stderr}`)
      const started = await execDetached(runtime, [...state, 'start', id], errors)
      if (started.code !== 0) throw new Error(`start: ${started.stderr}`)
    }
    const args = {
      create,
      init: ['run', '--bundle', dir, id],
      exec: ['exec', id, '/bin/true'],
      delete: ['delete', '--force', id],
    }[verb]
    const trace = join(base, 'trace')
    const which = calls.slice(0, n + 1).filter((c) => c === calls[n]).length
    const inject =
      n === 0
        ? ['-e', 'trace=all']
        : ['-e', `trace=${calls[n]}`, '-e', `inject=${calls[n]}:signal=SIGKILL:when=${which}`]
    const killed = await execDetached(
      strace!,
      [...(verb === 'init' ? ['-f'] : []), '-qq', '-o', trace, ...inject, runtime, ...state, ...args],
      errors,
    )
    if (n === 0) {
      if (killed.code !== 0) throw new Error(`${verb}: ${killed.stderr}`)
      const lines = readFileSync(trace, 'utf8')
        .split('\n')
        .map((l) => l.match(/^(?:(\d+) +)?([a-z]\w*)\(/))
      calls = lines.flatMap((m) => (m && (verb !== 'init' || m[1] !== lines[0]![1]) ? [m[2]!] : []))
    }
    if (verb === 'exec') {
      const after = await exec(runtime, [...state, 'exec', id, '/bin/echo', 'well'])
      if (after.stdout !== 'well\n')
        throw new Error(`killed at call ${n} (${calls[n]}) of exec, the container no longer answers: ${after.stderr}`)
      // What the killed command had made goes by itself: only the container's process stays.
      const folder = cgroupFolders(cgroup).find((f) => f.includes('/pids/')) ?? cgroupFolders(cgroup)[0]!
      const inside = (): string[] => readFileSync(join(folder, 'cgroup.procs'), 'utf8').split('\n').filter(Boolean)
      await eventually(() => inside().length === 1, `killed at call ${n} (${calls[n]}) of exec: the end of its process`)
    }
    const deleted = await exec(runtime, [...state, 'delete', '--force', id])
    if (deleted.code !== 0)
      throw new Error(`killed at call ${n} (${calls[n]}) of ${verb}, delete --force fails: ${deleted.stderr}`)
    await eventually(
      () => traces(cgroup).length === 0,
      `killed at call ${n} (${calls[n]}) of ${verb}: the end of its processes`,
    )
    const left = [...cgroupFolders(cgroup), ...(existsSync(join(base, 'state', id)) ? [`state of ${id}`] : [])]
    if (left.length) throw new Error(`killed at call ${n} (${calls[n]}) of ${verb}, left behind: ${left.join(' ')}`)
    if (killed.code !== 0) kills++
  }
  return kills
}
