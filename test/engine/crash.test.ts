// The daemon is killed, stopped and started again under its containers.
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { seededRng } from '../../src/common/index.js'
import { busyboxTar, EngineLab, whyNoEngine } from './support/lab.js'

const reason = whyNoEngine()
if (reason) console.log(`skipped: ${reason}`)
const run = reason ? test.serial.skip : test.serial

const sh = (script: string, over: object = {}) => ({ Image: 'busybox:test', Cmd: ['sh', '-c', script], ...over })

async function open(): Promise<EngineLab> {
  const lab = await EngineLab.open()
  await lab.startDaemon()
  await lab.call('importImage', busyboxTar(lab.root), 'busybox:test', [])
  return lab
}

async function started(lab: EngineLab, body: object, name: string): Promise<string> {
  const { id } = await lab.call('create', body, { name })
  await lab.call('start', id)
  return id
}

/** A zombie is dead: it only waits for whoever it was given to. */
function alive(pid: number): boolean {
  try {
    return !/\) [ZX] /.test(readFileSync(`/proc/${pid}/stat`, 'latin1'))
  } catch {
    return false
  }
}

/** Waits for a condition that the kernel brings about, without an event to wait for. */
async function until(what: string, condition: () => boolean | Promise<boolean>): Promise<void> {
  const deadline = performance.now() + 20_000
  while (!(await condition())) {
    if (performance.now() > deadline) throw new Error(`not within 20 s: ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
}

run('a killed daemon touches no container, and the next one adopts it with its streams, limits and end', async (t) => {
  const lab = await open()
  t.teardown(() => lab.close())
  const id = await started(
    lab,
    sh('i=0; trap "echo ended; exit 9" TERM; while :; do echo $i; i=$((i+1)); sleep 0.05; done', {
      HostConfig: { PortBindings: { '80/tcp': [{ HostPort: '8080' }] } },
    }),
    'survivor',
  )
  const before = await lab.call('get', id)
  const paused = await started(lab, sh('sleep 600'), 'paused')
  await lab.call('pause', paused)
  await lab.killDaemon()
  t.true(alive(before.state.pid))
  await lab.startDaemon()
  const after = await lab.call('get', 'survivor')
  t.is((await lab.call('get', paused)).state.status, 'paused')
  await lab.call('unpause', paused)
  t.like(after, { id, state: { status: 'running', pid: before.state.pid, startedAtMs: before.state.startedAtMs } })
  t.deepEqual(after.endpoints, before.endpoints)
  t.deepEqual(after.ports, before.ports)
  const e = await lab.call('exec', id, { cmd: ['echo', 'again'] }, { tty: false, detachKeys: '' })
  t.like(await lab.call('output', e.attachment), { stdout: 'again\n' })
  await lab.call('stop', id, { timeoutSeconds: 10 })
  t.like((await lab.call('get', id)).state, { status: 'exited', exitCode: 9 })
  const lines = (await lab.call('logs', id, {}, 5000)).map((l: { text: string }) => l.text.trim())
  t.is(lines.at(-1), 'ended')
  t.deepEqual(
    lines.slice(0, -1),
    lines.slice(0, -1).map((_: string, i: number) => String(i)),
    'no line was lost',
  )
})

run('what ended while no daemon was there is adopted with its exit code, by its policy', async (t) => {
  const lab = await open()
  t.teardown(() => lab.close())
  const script = (then: string): string => `while [ ! -e /go/go ]; do sleep 0.05; done; ${then}`
  const bind = { Binds: [`${lab.root}/go:/go`] }
  const plain = await started(lab, sh(script('echo last; exit 3'), { HostConfig: bind }), 'plain')
  const removed = await started(lab, sh(script('exit 0'), { HostConfig: { ...bind, AutoRemove: true } }), 'removed')
  const again = await started(
    lab,
    sh(script('[ -e /tmp/second ] && sleep 60; touch /tmp/second; exit 1'), {
      HostConfig: { ...bind, RestartPolicy: { Name: 'on-failure' } },
    }),
    'again',
  )
  const pids = await Promise.all([plain, removed, again].map(async (id) => (await lab.call('get', id)).state.pid))
  await lab.killDaemon()
  const { writeFileSync } = await import('node:fs')
  const endedAfterMs = Date.now()
  writeFileSync(join(lab.root, 'go/go'), '')
  await until('all ended', () => pids.every((pid) => !alive(pid)))
  await lab.startDaemon()
  const { state } = await lab.call('get', plain)
  t.like(state, { status: 'exited', exitCode: 3, pid: 0 })
  t.true(state.finishedAtMs >= endedAfterMs - 50 && state.finishedAtMs <= Date.now())
  t.is((await lab.call('logs', plain, {}, 5000)).at(-1).text, 'last\n')
  await until('removed', () =>
    lab.call('get', removed).then(
      () => false,
      () => true,
    ),
  )
  await until('restarted', async () => (await lab.call('get', again)).state.status === 'running')
  t.is((await lab.call('get', again)).restartCount, 1)
})

run('a daemon that stops ends containers in order, and its return starts those whose policy says so', async (t) => {
  const lab = await open()
  t.teardown(() => lab.close())
  const body = (policy: string, Links: string[] = []) =>
    sh('trap "exit 0" TERM; while :; do sleep 0.1; done', { HostConfig: { RestartPolicy: { Name: policy }, Links } })
  const ids: Record<string, string> = {}
  for (const name of ['no', 'always', 'unless-stopped']) ids[name] = await started(lab, body(name), `p-${name}`)
  ids.linked = await started(lab, body('always', ['p-always:db']), 'a-linked')
  ids.stopped = await started(lab, body('unless-stopped'), 'p-stopped')
  ids.alwaysStopped = await started(lab, body('always'), 'p-always-stopped')
  await lab.call('stop', ids.stopped, {})
  await lab.call('stop', ids.alwaysStopped, {})
  await lab.stopDaemon()
  t.deepEqual(lab.leftovers(), [])
  await lab.startDaemon()
  const status = async (name: string): Promise<string> => (await lab.call('get', ids[name])).state.status
  for (const name of ['always', 'unless-stopped', 'alwaysStopped', 'linked'])
    t.is(await status(name), 'running', `${name}: the start waits for it`)
  t.is(await status('no'), 'exited')
  t.is(await status('stopped'), 'exited')
})

run('a daemon that stops ends what is being started, and one that is deaf after its own time-out', async (t) => {
  t.timeout(120_000)
  const lab = await open()
  t.teardown(() => lab.close())
  const deaf = await started(lab, sh('trap "" TERM; while :; do sleep 0.1; done'), 'deaf')
  const { id } = await lab.call('create', sh('while :; do sleep 0.1; done', { StopTimeout: 0 }), { name: 'late' })
  const starting = lab.call('start', id).catch(() => {})
  await lab.stopDaemon()
  await starting
  t.deepEqual(lab.leftovers(), [])
  await lab.startDaemon()
  t.is((await lab.call('get', deaf)).state.exitCode, 137)
  t.not((await lab.call('get', id)).state.status, 'running')
})

run('with live-restore a stop of the daemon leaves containers running', async (t) => {
  const lab = await open()
  t.teardown(() => lab.close())
  const id = await started(lab, sh('sleep 600'), 'stays')
  const { pid } = (await lab.call('get', id)).state
  await lab.killDaemon()
  await lab.startDaemon({ liveRestore: true })
  await lab.stopDaemon()
  t.true(alive(pid))
  await lab.startDaemon()
  t.is((await lab.call('get', id)).state.pid, pid)
})

run('killed at random moments of a busy time, the next daemon makes records and kernel agree', async (t) => {
  const lab = await open()
  t.teardown(() => lab.close())
  const seed = Number(process.env.ENGINE_TEST_SEED ?? 7)
  const rounds = Number(process.env.ENGINE_TEST_KILLS ?? 6)
  t.log(`seed ${seed}, ${rounds} kills`)
  const rng = seededRng(seed)
  const pick = <T>(list: readonly T[]): T => list[Math.floor(rng.random() * list.length)]!
  const guard = await started(lab, sh('while :; do sleep 0.1; done'), 'guard')
  const guardPid = (await lab.call('get', guard)).state.pid
  for (let round = 0; round < rounds; round++) {
    const ignore = (): void => {} // the daemon dies under these calls, or they meet each other
    const one = async (i: number): Promise<void> => {
      const body = sh(pick(['exit 3', 'sleep 0.05', 'while :; do sleep 1; done']), {
        HostConfig: { AutoRemove: rng.random() < 0.3 },
        ...(rng.random() < 0.3 ? { Volumes: { '/data': {} } } : {}),
      })
      const { id } = await lab.call('create', body, { name: `r${round}-${i}` })
      await lab.call('start', id)
      const next = pick(['stop', 'kill', 'restart', 'remove', 'nothing'])
      if (next === 'stop') await lab.call('stop', id, { timeoutSeconds: 0 })
      else if (next === 'kill') await lab.call('kill', id, 'KILL')
      else if (next === 'restart') await lab.call('restart', id, { timeoutSeconds: 0 })
      else if (next === 'remove') await lab.call('remove', id, { force: true, volumes: true, link: false })
    }
    const work = Array.from({ length: 4 }, (_, i) => one(i).catch(ignore))
    await new Promise((resolve) => setTimeout(resolve, 10 + rng.random() * 500))
    await lab.killDaemon()
    await Promise.all(work)
    await lab.startDaemon()
    await agree(t, lab, `seed ${seed}, round ${round}`)
    t.is((await lab.call('get', guard)).state.pid, guardPid)
    t.true(alive(guardPid))
  }
})

run('a shim that is killed takes its container with it: the end is recorded and nothing stays', async (t) => {
  const lab = await open()
  t.teardown(() => lab.close())
  const shimOf = (): number =>
    Number(
      lab
        .leftovers()
        .find((l) => l.startsWith('shim '))!
        .slice(5),
    )
  const id = await started(lab, sh('sleep 600 & sleep 600'), 'orphan')
  const { pid } = (await lab.call('get', id)).state
  const waiting = await lab.call('waitBegin', id, 'next-exit')
  process.kill(shimOf(), 'SIGKILL')
  t.like(await lab.call('waited', waiting), { exitCode: 137 })
  t.regex((await lab.call('get', id)).state.error, /shim ended without leaving an exit record/)
  t.false(alive(pid))
  await until('nothing is left', () => lab.leftovers().length === 0)
  // The same while no daemon is there.
  await lab.call('start', id)
  const again = (await lab.call('get', id)).state.pid
  await lab.killDaemon()
  process.kill(shimOf(), 'SIGKILL')
  await lab.startDaemon()
  t.like((await lab.call('get', id)).state, { status: 'exited', exitCode: 137 })
  await until('its process is gone', () => !alive(again))
  await until('nothing is left', () => lab.leftovers().length === 0)
})

run('many clients that work against each other leave records and kernel in agreement', async (t) => {
  const lab = await open()
  t.teardown(() => lab.close())
  const rng = seededRng(Number(process.env.ENGINE_TEST_SEED ?? 7))
  const pick = <T>(list: readonly T[]): T => list[Math.floor(rng.random() * list.length)]!
  const names = ['aa', 'bb', 'cc']
  const refused = new Set<string>()
  const act = async (): Promise<void> => {
    const name = pick(names)
    const force = { force: rng.random() < 0.5, volumes: true, link: false }
    const policy = pick(['no', 'always'])
    const body = sh(pick(['exit 1', 'sleep 0.02', 'while :; do sleep 1; done']), {
      HostConfig: { RestartPolicy: { Name: policy }, AutoRemove: policy === 'no' && rng.random() < 0.3 },
    })
    const calls: [string, ...unknown[]][] = [
      ['create', body, { name }],
      ['start', name],
      ['stop', name, { timeoutSeconds: 0 }],
      ['restart', name, { timeoutSeconds: 0 }],
      ['kill', name, 'KILL'],
      ['pause', name],
      ['unpause', name],
      ['remove', name, force],
      ['rename', name, pick(names)],
      ['update', name, { RestartPolicy: { Name: 'no' } }],
      ['exec', name, { cmd: ['true'] }, null],
      ['connect', name, 'none', null],
    ]
    const [method, ...args] = pick(calls)
    await lab.call(method, ...args).catch((e: { kind?: string; message: string }) => {
      // Only refusals that say what is the matter: nothing internal may come of two clients that meet.
      if (e.kind === 'internal' || !e.kind) refused.add(`${method}: ${e.message}`)
    })
  }
  const client = async (): Promise<void> => {
    for (let i = 0; i < 25; i++) await act()
  }
  await Promise.all(Array.from({ length: 8 }, client))
  t.deepEqual([...refused], [])
  for (const c of await lab.call('list'))
    await lab.call('remove', c.id, { force: true, volumes: true, link: false }).catch(() => {})
  await until('all are removed', async () => (await lab.call('list')).length === 0)
  await until('nothing is left', () => lab.leftovers().length === 0)
  await lab.killDaemon()
  await lab.startDaemon()
  t.deepEqual(await lab.call('list'), [], 'no record came back')
})

/** ps, shims, cgroups, mounts and directories tell the same story. */
async function agree(t: import('ava').ExecutionContext, lab: EngineLab, where: string): Promise<void> {
  type View = { id: string; name: string; state: { status: string; pid: number } }
  let problems: string[] = []
  const look = async (): Promise<boolean> => {
    problems = []
    const views: View[] = await lab.call('list')
    const running = new Set(views.filter((v) => v.state.status === 'running').map((v) => v.id))
    const known = new Set(views.map((v) => v.id))
    for (const v of views) {
      if (v.state.status === 'running' && !alive(v.state.pid)) problems.push(`${v.name} is said to run and does not`)
      if (v.state.status === 'removing' || v.state.status === 'restarting')
        problems.push(`${v.name} is ${v.state.status}`)
    }
    const left = lab.leftovers()
    const shims = left.filter((l) => l.startsWith('shim '))
    if (shims.length !== running.size) problems.push(`${shims.length} shims, ${running.size} running`)
    for (const l of left.filter((l) => l.startsWith('/sys/'))) if (!running.has(l.slice(-64))) problems.push(l)
    const mounts = left.filter((l) => l.startsWith('mount '))
    if (mounts.length !== running.size) problems.push(`${mounts.join(', ')} for ${running.size} running`)
    for (const dir of ['run/containers', 'data/containers', 'data/images/containers'])
      if (existsSync(join(lab.root, dir)))
        for (const id of readdirSync(join(lab.root, dir)))
          if (!(dir === 'run/containers' ? running : known).has(id)) problems.push(`${dir}/${id}`)
    return problems.length === 0
  }
  try {
    await until(`agreement (${where})`, look)
    t.pass()
  } catch {
    t.fail(`${where}: ${problems.join('; ')}`)
  }
}
