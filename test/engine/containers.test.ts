// Containers on the real shim, layers and networks, in a network namespace of this test's own.
import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'ava'
import { busyboxTar, EngineLab, whyNoEngine } from './support/lab.js'

const reason = whyNoEngine()
if (reason) console.log(`skipped: ${reason}`)
const run = reason ? test.serial.skip : test.serial

let lab: EngineLab
let counter = 0

test.before(async () => {
  if (reason) return
  lab = await EngineLab.open()
  await lab.startDaemon()
  await lab.call('importImage', busyboxTar(lab.root), 'busybox:test', ['CMD ["sh"]', 'ENV FROM=image'])
})
test.after.always(async () => {
  await lab?.close()
})

const rm = (id: string): Promise<unknown> => lab.call('remove', id, { force: true, volumes: true, link: false })
const sh = (script: string, over: object = {}) => ({ Image: 'busybox:test', Cmd: ['sh', '-c', script], ...over })

/** Creates, attaches, starts, waits, removes. */
async function runToEnd(body: object): Promise<{ stdout: string; stderr: string; exitCode: number }> {
  const { id } = await lab.call('create', body, { name: '' })
  const waiting = await lab.call('waitBegin', id, 'next-exit')
  const attachment = await lab.call('attach', id, { stdin: false })
  await lab.call('start', id)
  const output = await lab.call('output', attachment)
  const { exitCode } = await lab.call('waited', waiting)
  await rm(id)
  return { ...output, exitCode }
}

async function started(body: object, name = `t${++counter}`): Promise<string> {
  const { id } = await lab.call('create', body, { name })
  await lab.call('start', id)
  return id
}

/** A shell that has set its trap: a signal that comes before finds none. */
async function trapping(action: string, over: object = {}): Promise<string> {
  const id = await started(sh(`trap "${action}" TERM; echo set; while :; do sleep 0.1; done`, over))
  const log = join(lab.root, 'data/containers', id, `${id}-json.log`)
  while (!readFileSync(log, 'utf8').includes('set')) await new Promise((resolve) => setTimeout(resolve, 10))
  return id
}

run('a client that attached before the start gets every byte, and the exit code is told', async (t) => {
  t.deepEqual(await runToEnd(sh('echo out; echo err >&2; exit 7')), { stdout: 'out\n', stderr: 'err\n', exitCode: 7 })
})

run('clients that attach while a container starts or goes see its end', async (t) => {
  const attachDuring = async (call: Promise<unknown>, id: string): Promise<number[]> => {
    let isOver = false
    const over = call.finally(() => {
      isOver = true
    })
    const attached: number[] = []
    while (!isOver && attached.length < 12)
      attached.push(
        ...(await lab.call('attach', id, {}).then(
          (a) => [a],
          () => [],
        )),
      )
    await over
    return attached
  }
  for (let i = 0; i < 2; i++) {
    const { id } = await lab.call('create', sh('sleep 2; echo late'), { name: '' })
    for (const a of await attachDuring(lab.call('start', id), id)) t.is((await lab.call('output', a)).stdout, 'late\n')
    for (const a of await attachDuring(rm(id), id)) t.is((await lab.call('output', a)).stdout, '')
  }
})

run('typed input reaches the process, and its end closes it', async (t) => {
  const { id } = await lab.call('create', sh('cat; echo done', { OpenStdin: true, StdinOnce: true }), { name: '' })
  const a = await lab.call('attach', id, {})
  await lab.call('start', id)
  await lab.call('write', a, 'hello\n')
  await lab.call('end', a)
  t.like(await lab.call('output', a), { stdout: 'hello\ndone\n' })
  await rm(id)
})

run('detach keys leave a terminal container running, and several clients see the same', async (t) => {
  const { id } = await lab.call('create', sh('read x; echo got $x; sleep 60', { Tty: true, OpenStdin: true }), {
    name: '',
  })
  const [a, b] = [await lab.call('attach', id, {}), await lab.call('attach', id, { stdin: false })]
  await lab.call('start', id)
  await lab.call('write', a, 'word\n')
  const logged = await lab.call('logs', id, { follow: true, tail: null }, 1500).catch(() => [])
  t.regex(logged.map((l: { text: string }) => l.text).join(''), /got word/)
  await lab.call('write', a, '\x10\x11')
  t.true(await lab.call('detached', a))
  t.is((await lab.call('get', id)).state.status, 'running')
  await lab.call('kill', id, 'KILL')
  t.regex((await lab.call('output', b)).stdout, /got word/)
  await rm(id)
})

run('what cannot be run is told in docker words with 127 and 126, and leaves nothing running', async (t) => {
  const refusal = async (cmd: string[]) => {
    const { id } = await lab.call('create', { Image: 'busybox:test', Cmd: cmd }, { name: '' })
    const error = await t.throwsAsync(lab.call('start', id))
    const { state } = await lab.call('get', id)
    await rm(id)
    return { error: error as unknown as { message: string; kind: string; fields: object }, state }
  }
  const missing = await refusal(['nope'])
  t.regex(missing.error.message, /exec: "nope": executable file not found in \$PATH: unknown$/)
  t.like(missing, {
    error: { kind: 'invalid', fields: { exitCode: 127 } },
    state: { status: 'created', exitCode: 127 },
  })
  t.regex((await refusal(['/no/such'])).error.message, /no such file or directory/)
  const denied = await refusal(['/etc/passwd'])
  t.regex(denied.error.message, /permission denied/)
  t.like(denied, { error: { fields: { exitCode: 126 } }, state: { exitCode: 126 } })
})

run('user, groups, directory, variables and host name are as asked', async (t) => {
  const { stdout } = await runToEnd(
    sh('id; pwd; echo $FROM $MINE $HOME; hostname; cat /proc/self/status | grep Cap', {
      User: 'bin',
      WorkingDir: '/made/up',
      Env: ['MINE=1'],
      Hostname: 'named',
      HostConfig: { GroupAdd: ['5'], CapDrop: ['ALL'], CapAdd: ['CHOWN'] },
    }),
  )
  t.regex(stdout, /uid=2\(bin\) gid=2\(bin\) groups=2\(bin\),5,77\(extra\)|groups=2\(bin\),77\(extra\),5/)
  t.regex(stdout, /^\/made\/up$/m)
  t.regex(stdout, /^image 1 \/bin$/m)
  t.regex(stdout, /^named$/m)
  t.regex(stdout, /CapEff:\t0000000000000000/)
  t.regex(stdout, /CapBnd:\t0000000000000001/)
  const { id } = await lab.call('create', sh('true', { User: 'ghost' }), { name: '' })
  t.is(
    (await t.throwsAsync(lab.call('start', id)))!.message,
    'unable to find user ghost: no matching entries in passwd file',
  )
  await rm(id)
})

run('limits are written to the cgroup, and can be changed while it runs', async (t) => {
  const id = await started(sh('sleep 60', { HostConfig: { Memory: 64 * 2 ** 20, PidsLimit: 50, NanoCpus: 5e8 } }))
  const stats = await lab.call('stats', id)
  t.is(stats.memoryLimitBytes, 64 * 2 ** 20)
  t.is(stats.pidsLimit, 50)
  t.true(stats.pidsCurrent >= 1)
  t.true(stats.memoryUsageBytes > 0)
  t.is(stats.networks[0].name, 'eth0')
  await lab.call('update', id, { Memory: 128 * 2 ** 20, PidsLimit: 60 })
  t.like(await lab.call('stats', id), { memoryLimitBytes: 128 * 2 ** 20, pidsLimit: 60 })
  t.is((await lab.call('get', id)).hostConfig.Memory, 128 * 2 ** 20)
  await rm(id)
})

run('the memory limit kills, and the record says so', async (t) => {
  const { id } = await lab.call(
    'create',
    sh('x=$(yes | head -c 100000000); echo $x | wc', {
      HostConfig: { Memory: 16 * 2 ** 20, MemorySwap: 16 * 2 ** 20 },
    }),
    { name: '' },
  )
  const w = await lab.call('waitBegin', id, 'next-exit')
  await lab.call('start', id)
  const { exitCode } = await lab.call('waited', w)
  t.not(exitCode, 0)
  t.true((await lab.call('get', id)).state.oomKilled)
  await rm(id)
})

run('stop asks first and kills after the time-out; kill, pause and restart do as they say', async (t) => {
  const polite = await trapping('echo bye; exit 5')
  await lab.call('stop', polite, { timeoutSeconds: 10 })
  t.like((await lab.call('get', polite)).state, { status: 'exited', exitCode: 5 })
  t.like(await t.throwsAsync(lab.call('stop', polite)), { kind: 'notModified' })
  const deaf = await trapping('')
  t.like(await t.throwsAsync(lab.call('start', deaf)), { kind: 'notModified' })
  await lab.call('pause', deaf)
  t.is((await lab.call('get', deaf)).state.status, 'paused')
  const attach = lab.call('attach', deaf, { stdin: false, stdout: true, stderr: true, logs: false, stream: true })
  await t.throwsAsync(attach, { message: `container ${deaf} is paused, unpause the container before attach` })
  await lab.call('unpause', deaf)
  const before = (await lab.call('get', deaf)).state.pid
  await lab.call('restart', deaf, { timeoutSeconds: 0 })
  const { state } = await lab.call('get', deaf)
  t.is(state.status, 'running')
  t.not(state.pid, before)
  await lab.call('stop', deaf, { timeoutSeconds: 0 })
  t.is((await lab.call('get', deaf)).state.exitCode, 137)
  t.like(await t.throwsAsync(lab.call('kill', deaf, 'TERM')), { kind: 'conflict', code: 'notRunning' })
  await rm(polite)
  await rm(deaf)
})

run('nobody removes a container between the stop and the start of its restarts', async (t) => {
  const id = await trapping('')
  let restarts = 2
  const restart = (): Promise<unknown> => lab.call('restart', id, { timeoutSeconds: 0 }).finally(() => restarts--)
  const both = Promise.all([restart(), restart()])
  while (restarts > 0) {
    const removal = lab.call('remove', id, { force: false, volumes: false, link: false })
    t.like(await t.throwsAsync(removal), { kind: 'conflict' })
  }
  await both
  t.is((await lab.call('get', id)).state.status, 'running')
  await rm(id)
})

run('names are unique, ids may be cut short, and a removed one is unknown', async (t) => {
  const { id } = await lab.call('create', sh('true'), { name: 'unique-name' })
  t.like(await t.throwsAsync(lab.call('create', sh('true'), { name: 'unique-name' })), {
    kind: 'conflict',
    message: `Conflict. The container name "/unique-name" is already in use by container "${id}". You have to remove (or rename) that container to be able to reuse that name.`,
  })
  t.is((await lab.call('get', id.slice(0, 12))).id, id)
  t.regex((await t.throwsAsync(lab.call('rename', id, 'a b')))!.message, /^Error when allocating new name: Invalid/)
  await lab.call('rename', id, 'other-name')
  t.is((await lab.call('get', '/other-name')).id, id)
  await rm(id)
  t.like(await t.throwsAsync(lab.call('start', id)), { kind: 'notFound', message: `No such container: ${id}` })
  t.like(await t.throwsAsync(lab.call('create', { ...sh('true'), Image: 'absent:1' }, { name: '' })), {
    kind: 'notFound',
    code: 'noSuchImage',
    message: 'No such image: absent:1',
  })
})

run('auto-remove takes the container and its anonymous volume, and the waiter for removal is told', async (t) => {
  const { id } = await lab.call(
    'create',
    sh('exit 4', { Volumes: { '/data': {} }, HostConfig: { AutoRemove: true } }),
    { name: '' },
  )
  const volumes = (await lab.call('volumes')).length
  const w = await lab.call('waitBegin', id, 'removed')
  await lab.call('start', id)
  t.is((await lab.call('waited', w)).exitCode, 4)
  t.like(await t.throwsAsync(lab.call('get', id)), { kind: 'notFound' })
  t.is((await lab.call('volumes')).length, volumes - 1)
})

run('a restart policy starts again until its count is used up', async (t) => {
  const { id } = await lab.call(
    'create',
    sh('echo run; exit 3', { HostConfig: { RestartPolicy: { Name: 'on-failure', MaximumRetryCount: 2 } } }),
    { name: '' },
  )
  const w = await lab.call('waitBegin', id, 'removed')
  await lab.call('start', id)
  const lines = await lab.call('logs', id, { follow: true }, 20_000)
  t.is(lines.length, 3)
  t.like(await lab.call('get', id), { restartCount: 2, state: { status: 'exited', exitCode: 3 } })
  await rm(id)
  await lab.call('waited', w)
})

run('the end of a run is told though the policy starts it again, and a kill in between is the last', async (t) => {
  const { id } = await lab.call('create', sh('exit 3', { HostConfig: { RestartPolicy: { Name: 'always' } } }), {
    name: '',
  })
  const w = await lab.call('waitBegin', id, 'next-exit')
  await lab.call('start', id)
  const atEnd = await lab.call('waitBegin', id, 'not-running')
  t.is((await lab.call('waited', w)).exitCode, 3)
  t.is((await lab.call('waited', atEnd)).exitCode, 3)
  // From the third on the pause is long enough to be met.
  const isPausing = async (): Promise<boolean> => {
    const { restartCount, state } = await lab.call('get', id)
    return restartCount >= 3 && state.status === 'restarting'
  }
  while (!(await isPausing()));
  await lab.call('kill', id, 'SIGKILL')
  t.is((await lab.call('get', id)).state.status, 'exited')
  await rm(id)
})

run('a link is to one container and goes with it, whoever has its name later', async (t) => {
  const db = await started(sh('sleep 60'), 'db')
  const { id } = await lab.call('create', sh('cat /etc/hosts; env', { HostConfig: { Links: ['db:base'] } }), {
    name: '',
  })
  await rm(db)
  const next = await started(sh('sleep 60'), 'db')
  t.is((await lab.call('get', id)).hostConfig.Links, null)
  const ended = await lab.call('waitBegin', id, 'next-exit')
  await lab.call('start', id)
  await lab.call('waited', ended)
  t.false((await lab.call('logs', id, { follow: true }, 10_000)).some((l: { text: string }) => /base/i.test(l.text)))
  await rm(next)
  await rm(id)
})

run('exec: output, exit code, user, terminal, and a command that is not there', async (t) => {
  const id = await started(sh('sleep 60'))
  const inspect = async (e: { id: string; attachment: number }) => {
    const output = await lab.call('output', e.attachment)
    return { output, view: await lab.call('execInspect', e.id) }
  }
  const first = await inspect(
    await lab.call(
      'exec',
      id,
      { cmd: ['sh', '-c', 'id -u; echo $V; echo e >&2; exit 9'], env: ['V=x'], user: '2' },
      { tty: false, detachKeys: '' },
    ),
  )
  t.deepEqual(first.output, { stdout: '2\nx\n', stderr: 'e\n' })
  t.like(first.view, { running: false, exitCode: 9 })
  // A stream that ends tells that the exit code is known, also when the process closed its output long before.
  const silent = { cmd: ['sh', '-c', 'exec >&- 2>&-; sleep 0.3; exit 8'] }
  const closed = await inspect(await lab.call('exec', id, silent, { tty: false, detachKeys: '' }))
  t.like(closed.view, { running: false, exitCode: 8 })
  const typed = await lab.call(
    'exec',
    id,
    { cmd: ['sh', '-c', 'read a; echo "<$a>"; stty size'], tty: true, attachStdin: true },
    { tty: true, detachKeys: '', consoleSize: [33, 99] },
  )
  await lab.call('write', typed.attachment, 'in\n')
  const second = await inspect(typed)
  t.regex(second.output.stdout, /33 99/)
  const error = await t.throwsAsync(lab.call('exec', id, { cmd: ['nope'] }, { tty: false, detachKeys: '' }))
  t.like(error, { kind: 'invalid', fields: { exitCode: 127 } })
  t.regex(error!.message, /executable file not found in \$PATH/)
  const table = await lab.call('top', id, '')
  t.true(table.processes.some((p: string[]) => p.at(-1)!.includes('sleep 60')))
  await rm(id)
})

run('logs: the tail, by time, only one stream, and following until the end', async (t) => {
  const { id } = await lab.call(
    'create',
    sh('for i in 1 2 3 4 5; do echo $i; done; echo e >&2; sleep 0.3; echo last'),
    { name: '' },
  )
  await lab.call('start', id)
  const texts = (l: { text: string }[]): string => l.map((e) => e.text.trim()).join(' ')
  t.is(texts(await lab.call('logs', id, { follow: true }, 10_000)), '1 2 3 4 5 e last')
  t.is(texts(await lab.call('logs', id, { tail: 2 }, 5000)), 'e last')
  t.is(texts(await lab.call('logs', id, { tail: 2, stderr: false }, 5000)), '5 last')
  t.is(texts(await lab.call('logs', id, { tail: 0 }, 5000)), '')
  t.is(texts(await lab.call('logs', id, { stdout: false }, 5000)), 'e')
  const { state } = await lab.call('get', id)
  t.is(texts(await lab.call('logs', id, { sinceMs: state.startedAtMs + 200 }, 5000)), 'last')
  t.is(texts(await lab.call('logs', id, { untilMs: state.startedAtMs + 200 }, 5000)), '1 2 3 4 5 e')
  await rm(id)
})

run('a rotating log is followed through all its files without losing a line', async (t) => {
  const { id } = await lab.call(
    'create',
    sh('i=0; while [ $i -lt 3000 ]; do echo line-$i-xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx; i=$((i+1)); done', {
      HostConfig: { LogConfig: { Type: 'json-file', Config: { 'max-size': '100k', 'max-file': '10' } } },
    }),
    { name: '' },
  )
  await lab.call('start', id)
  const lines = await lab.call('logs', id, { follow: true }, 20_000)
  t.is(lines.length, 3000)
  t.true(lines.every((l: { text: string }, i: number) => l.text.startsWith(`line-${i}-`)))
  t.is((await lab.call('logs', id, { tail: 2500 }, 5000)).length, 2500)
  t.true(existsSync(join(lab.root, 'data/containers', id, `${id}-json.log.1`)))
  await rm(id)
})

run('calls that race on one container do what they say, or say that it does not run', async (t) => {
  const { id } = await lab.call('create', sh('exec sleep 600', { StopTimeout: 0 }), { name: 'raced' })
  for (let round = 0; round < 15; round++) {
    await lab.call('start', id).catch(() => {})
    const calls = [
      ['restart', id, { timeoutSeconds: 0 }],
      ['kill', id, 'SIGKILL'],
      ['commit', id, { pause: true, changes: [], config: {} }],
      ['restart', id, { timeoutSeconds: 0 }],
      ['kill', id, 'SIGKILL'],
      ['pause', id],
      ['top', id, ''],
      ['unpause', id],
      ['update', id, { CpuShares: 300 + round }],
    ] as const
    const shift = round % calls.length
    const turned = [...calls.slice(shift), ...calls.slice(0, shift)]
    const ends = await Promise.allSettled(turned.map(([op, ...args]) => lab.call(op, ...args)))
    for (const [index, end] of ends.entries())
      if (end.status === 'rejected') {
        const [op] = turned[index]!
        t.like(end.reason, { kind: 'conflict' }, `${op}: ${end.reason}`)
        t.not(op, 'commit', String(end.reason))
      }
  }
  await rm(id)
})

run('binds, volumes with the image content, volumes-from, tmpfs and a read-only root', async (t) => {
  const dir = join(lab.root, 'bound')
  mkdirSync(dir)
  writeFileSync(join(dir, 'f'), 'from host\n')
  const first = await lab.call(
    'create',
    sh('cat /data/seed; echo more > /data/new', { HostConfig: { Binds: ['vol1:/data'] } }),
    { name: '' },
  )
  await lab.call('start', first.id)
  await lab.call('waited', await lab.call('waitBegin', first.id, 'not-running'))
  const { stdout, stderr } = await runToEnd(
    sh('cat /b/f; cat /data/seed /data/new; touch /b/x; touch /root/x; touch /t/x && grep " /t " /proc/mounts', {
      HostConfig: {
        Binds: [`${dir}:/b:ro`],
        VolumesFrom: [first.id],
        Tmpfs: { '/t': 'size=1m' },
        ReadonlyRootfs: true,
      },
    }),
  )
  t.regex(stdout, /^from host\nseed\nmore\n/)
  t.regex(stdout, /tmpfs \/t tmpfs rw,nosuid,nodev,noexec.*size=1024k/)
  t.regex(stderr, /\/b\/x: Read-only/)
  t.regex(stderr, /\/root\/x: Read-only/)
  await rm(first.id)
  const error = await t.throwsAsync(
    lab.call(
      'create',
      sh('true', { HostConfig: { Mounts: [{ Type: 'bind', Source: '/no/such/dir', Target: '/x' }] } }),
      { name: '' },
    ),
  )
  t.is(error!.message, 'invalid mount config for type "bind": bind source path does not exist: /no/such/dir')
})

run('containers of one network find each other by name; connect and disconnect work while running', async (t) => {
  await lab.call('createNetwork', 'netone')
  const server = await started(sh('sleep 60', { HostConfig: { NetworkMode: 'netone' } }), 'server')
  t.is(
    (await runToEnd(sh('ping -c1 -W2 server >/dev/null && echo reached', { HostConfig: { NetworkMode: 'netone' } })))
      .stdout,
    'reached\n',
  )
  const other = await started(sh('sleep 60'), 'other')
  await lab.call('connect', other, 'netone', { Aliases: ['alias1'] })
  t.deepEqual(Object.keys((await lab.call('get', other)).endpoints).sort(), ['bridge', 'netone'])
  t.is(
    (await runToEnd(sh('ping -c1 -W2 alias1 >/dev/null && echo reached', { HostConfig: { NetworkMode: 'netone' } })))
      .stdout,
    'reached\n',
  )
  await lab.call('disconnect', other, 'netone', false)
  t.deepEqual(Object.keys((await lab.call('get', other)).endpoints), ['bridge'])
  const shared = await runToEnd(
    sh('hostname; ip addr show eth0 | grep -c inet', {
      HostConfig: { NetworkMode: `container:server`, PidMode: 'container:server' },
    }),
  )
  t.is(shared.exitCode, 0)
  t.is((await runToEnd(sh('ip link | grep -c eth0', { HostConfig: { NetworkMode: 'none' } }))).stdout, '0\n')
  await rm(server)
  await rm(other)
})

run(
  'a link on a network of its own is a name there, may come before its container, and is of that network alone',
  async (t) => {
    for (const name of ['linkone', 'linktwo']) await lab.call('createNetwork', name)
    const first = await started(sh('sleep 60', { HostConfig: { NetworkMode: 'linkone' } }), 'first')
    const EndpointsConfig = { linkone: { Links: ['first:Alpha', 'third:later'] } }
    const body = sh('sleep 60', {
      HostConfig: { NetworkMode: 'linkone', Links: ['first:Alpha', 'third:later'] },
      NetworkingConfig: { EndpointsConfig },
    })
    const second = await started(body, 'second')
    const resolves = async (name: string): Promise<boolean> => {
      const cmd = ['ping', '-c1', '-W2', name]
      const exec = await lab.call('exec', second, { cmd }, { tty: false, detachKeys: '' })
      await lab.call('output', exec.attachment)
      return (await lab.call('execInspect', exec.id)).exitCode === 0
    }
    t.true(await resolves('alpha'))
    t.false(await resolves('later'))
    const third = await started(sh('sleep 60', { HostConfig: { NetworkMode: 'linkone' } }), 'third')
    t.true(await resolves('later'))
    await lab.call('connect', first, 'linktwo', null)
    await lab.call('connect', second, 'linktwo', { Links: ['first:beta'] })
    await lab.call('disconnect', first, 'linkone', false)
    t.true(await resolves('beta'))
    t.false(await resolves('alpha'))
    const bad = {
      HostConfig: { NetworkMode: 'linkone' },
      NetworkingConfig: { EndpointsConfig: { linkone: { Links: 'x' } } },
    }
    t.regex((await t.throwsAsync(lab.call('create', sh('true', bad), { name: '' })))!.message, /^bad format for links/)
    for (const id of [first, second, third]) await rm(id)
  },
)

run('a container may be made before its network, and starts once there is one', async (t) => {
  const id = await lab.call('create', sh('sleep 60', { HostConfig: { NetworkMode: 'tocome' } }), { name: '' })
  t.is((await t.throwsAsync(lab.call('start', id.id)))!.message, 'network tocome not found')
  await lab.call('createNetwork', 'tocome')
  await lab.call('start', id.id)
  t.deepEqual(Object.keys((await lab.call('get', id.id)).endpoints), ['tocome'])
  await rm(id.id)
})

run('files go in and out of running and stopped containers', async (t) => {
  const id = await started(sh('mkdir /made; echo x > /made/file; ln -s /made/file /link; sleep 60'))
  for (;;)
    if (
      (await lab.call('exec', id, { cmd: ['test', '-L', '/link'] }, { tty: false, detachKeys: '' }).then(async (e) => {
        await lab.call('output', e.attachment)
        return (await lab.call('execInspect', e.id)).exitCode
      })) === 0
    )
      break
  const tar = join(lab.root, 'out.tar')
  const stat = await lab.call('getArchive', id, '/made', tar)
  t.is(stat.name, 'made')
  t.is(stat.mode, 0o755 + 2 ** 31)
  t.deepEqual(execFileSync('tar', ['-tf', tar], { encoding: 'utf8' }).trim().split('\n'), ['made/', 'made/file'])
  t.like(await lab.call('statPath', id, '/link'), { name: 'link', linkTarget: '/made/file' })
  await lab.call('putArchive', id, '/tmp', tar)
  await lab.call('stop', id, { timeoutSeconds: 0 })
  await lab.call('putArchive', id, '/root', tar)
  await lab.call('exportTo', id, join(lab.root, 'export.tar'))
  const names = execFileSync('tar', ['-tf', join(lab.root, 'export.tar')], { encoding: 'utf8' })
  t.regex(names, /tmp\/made\/file/)
  t.regex(names, /root\/made\/file/)
  const changes = (await lab.call('changes', id)) as { path: string; kind: number }[]
  t.true(changes.some((c) => c.path === '/made/file' && c.kind === 1))
  t.like(await t.throwsAsync(lab.call('statPath', id, '/absent')), { kind: 'notFound' })
  const image = await lab.call('commit', id, {
    reference: 'made:1',
    changes: ['CMD ["cat","/made/file"]'],
    pause: true,
  })
  t.regex(image, /^sha256:/)
  t.is((await runToEnd({ Image: 'made:1' })).stdout, 'x\n')
  await rm(id)
})

run(
  'a container can go on writing while its tree is read from outside, and after it was written to before the start',
  async (t) => {
    const id = await started(sh('sleep 600'))
    const succeeds = async (...cmd: string[]): Promise<boolean> => {
      const e = await lab.call('exec', id, { cmd }, { tty: false, detachKeys: '' })
      await lab.call('output', e.attachment)
      return (await lab.call('execInspect', e.id)).exitCode === 0
    }
    const tar = join(lab.root, 'tree.tar')
    await lab.call('exportTo', id, tar)
    t.true(await succeeds('touch', '/bin/busybox'), 'a file of the image is copied up')
    t.true(await succeeds('rm', '/etc/passwd'))
    await lab.call('stop', id, { timeoutSeconds: 0 })

    const pipe = join(lab.root, 'slow.tar')
    execFileSync('mkfifo', [pipe])
    const put = lab.call('putArchive', id, '/root', pipe)
    const slow = await open(pipe, 'w')
    // The tree is mounted for it by now; the start waits for it.
    for (let i = 0; i < 10; i++) await lab.call('statPath', id, '/root')
    const start = lab.call('start', id)
    await lab.call('getArchive', id, '/bin', tar)
    writeFileSync(join(lab.root, 'given'), 'x')
    await slow.writeFile(execFileSync('tar', ['-C', lab.root, '-c', 'given']))
    await slow.close()
    await put
    await start
    t.true(await succeeds('test', '-s', '/root/given'))
    t.true(await succeeds('touch', '/etc/group'))
    await rm(id)
  },
)

run('health checks decide the status and are events', async (t) => {
  const id = await started(
    sh('sleep 60', {
      Healthcheck: { Test: ['CMD-SHELL', 'test -e /tmp/ok || { echo missing; exit 1; }'], Interval: 50e6, Retries: 2 },
    }),
  )
  const until = async (status: string): Promise<void> => {
    for (;;) if ((await lab.call('get', id)).state.health.status === status) return
  }
  await until('unhealthy')
  t.is((await lab.call('get', id)).state.health.log.at(-1).output, 'missing\n')
  await lab.call('exec', id, { cmd: ['touch', '/tmp/ok'] }, { tty: false, detachKeys: '' })
  await until('healthy')
  const actions = (await lab.call('events'))
    .filter((e: { actorId: string }) => e.actorId === id)
    .map((e: { action: string }) => e.action)
  t.true(actions.includes('health_status: unhealthy') && actions.includes('health_status: healthy'))
  await rm(id)
})

run('a seccomp profile of the user is obeyed', async (t) => {
  const profile = JSON.stringify({
    defaultAction: 'SCMP_ACT_ALLOW',
    syscalls: [{ names: ['mkdir', 'mkdirat'], action: 'SCMP_ACT_ERRNO' }],
  })
  const { stderr } = await runToEnd(sh('mkdir /x', { HostConfig: { SecurityOpt: [`seccomp=${profile}`] } }))
  t.regex(stderr, /mkdir.*Operation not permitted/)
  t.is(
    (await runToEnd(sh('grep Seccomp: /proc/self/status', { HostConfig: { SecurityOpt: ['seccomp=unconfined'] } })))
      .stdout,
    'Seccomp:\t0\n',
  )
  t.is(
    (
      await runToEnd(
        sh('grep -E "Seccomp:|NoNewPrivs" /proc/self/status', { HostConfig: { SecurityOpt: ['no-new-privileges'] } }),
      )
    ).stdout,
    'NoNewPrivs:\t1\nSeccomp:\t2\n',
  )
})

run('shared memory is shared with whom it may be, and limits of a process are set', async (t) => {
  const donor = await started(sh('echo here > /dev/shm/f; sleep 60', { HostConfig: { IpcMode: 'shareable' } }), 'donor')
  const { stdout } = await runToEnd(
    sh('while [ ! -s /dev/shm/f ]; do :; done; cat /dev/shm/f', { HostConfig: { IpcMode: 'container:donor' } }),
  )
  t.is(stdout, 'here\n')
  await rm(donor)
  const closed = await started(sh('sleep 60'), 'closed')
  const { id } = await lab.call('create', sh('true', { HostConfig: { IpcMode: 'container:closed' } }), { name: '' })
  t.regex((await t.throwsAsync(lab.call('start', id)))!.message, /non-shareable IPC/)
  await rm(id)
  await rm(closed)
  const limits = await runToEnd(
    sh('ulimit -n; ulimit -c; ulimit -Hc; grep " /dev/shm " /proc/mounts', {
      HostConfig: {
        ShmSize: 2 ** 20,
        Ulimits: [
          { Name: 'nofile', Soft: 100, Hard: 200 },
          { Name: 'core', Soft: -1, Hard: -1 },
        ],
      },
    }),
  )
  t.regex(limits.stdout, /^100\nunlimited\nunlimited\n.*size=1024k/)
})

run('with --init the program has an init that hands on signals, reaps, and ends as it does', async (t) => {
  const init = { HostConfig: { Init: true } }
  const { stdout, exitCode } = await runToEnd(sh('echo $$; cat /proc/1/comm; (sleep 0 &); exit 6', init))
  t.is(exitCode, 6)
  t.regex(stdout, /^[2-9]\d*\ndocker-init\n$/)
  const id = await trapping('exit 8', init)
  await lab.call('stop', id, { timeoutSeconds: 10 })
  t.is((await lab.call('get', id)).state.exitCode, 8)
  await rm(id)
})

run('a volume is in use as long as a container mounts it, running or not', async (t) => {
  const { id } = await lab.call('create', sh('true', { HostConfig: { Binds: ['kept:/data'] } }), { name: '' })
  t.like(await t.throwsAsync(lab.call('removeVolume', 'kept')), {
    kind: 'conflict',
    message: `remove kept: volume is in use - [${id}]`,
  })
  const ofVolume = (e: { type: string; actorId: string }): boolean => e.type === 'volume' && e.actorId === 'kept'
  t.deepEqual(
    (await lab.call('events')).filter(ofVolume).map((e: { action: string }) => e.action),
    ['create'],
  )
  await rm(id)
  const again = await lab.call('create', sh('true', { HostConfig: { Binds: ['kept:/data'] } }), { name: '' })
  t.is((await lab.call('events')).filter(ofVolume).at(-1).action, 'create')
  t.is((await lab.call('events')).filter(ofVolume).length, 2)
  await rm(again.id)
  await lab.call('removeVolume', 'kept')
  t.false((await lab.call('volumes')).some((v: { name: string }) => v.name === 'kept'))
})

run('the volume of a container that is being made cannot be removed', async (t) => {
  for (let i = 0; i < 5; i++) {
    let isMade = false
    const creation = lab.call('create', sh('true', { HostConfig: { Binds: ['raced:/data'] } }), { name: '' })
    const making = creation.finally(() => {
      isMade = true
    })
    while (!isMade) await lab.call('removeVolume', 'raced').catch(() => {})
    const { id } = await making
    t.true((await lab.call('volumes')).some((v: { name: string }) => v.name === 'raced'))
    await rm(id)
  }
  await lab.call('removeVolume', 'raced')
})

run('the image of a container that is being made cannot be removed', async (t) => {
  for (let made = 0; made < 3; ) {
    await lab.call('importImage', busyboxTar(lab.root), 'raced:1', ['ENV RACED=1'])
    let isOver = false
    const creation = lab.call('create', { Image: 'raced:1', Cmd: ['true'] }, { name: '' })
    const end = Promise.allSettled([creation]).finally(() => {
      isOver = true
    })
    await lab.call('volumes') // the image has been looked for by now
    while (!isOver) await lab.call('removeImage', 'raced:1').catch(() => {})
    const [result] = await end
    if (result.status === 'rejected') {
      t.is(result.reason.code, 'noSuchImage')
      continue
    }
    made++
    t.like(await t.throwsAsync(lab.call('removeImage', 'raced:1')), { kind: 'conflict', code: 'imageInUse' })
    await rm(result.value.id)
    await lab.call('removeImage', 'raced:1')
  }
})

run('an anonymous volume goes with the last container that has it', async (t) => {
  const before = (await lab.call('volumes')).length
  const first = await lab.call('create', sh('true', { Volumes: { '/data': {} } }), { name: '' })
  const second = await lab.call('create', sh('true', { HostConfig: { VolumesFrom: [first.id] } }), { name: '' })
  await rm(first.id)
  t.is((await lab.call('volumes')).length, before + 1)
  await rm(second.id)
  t.is((await lab.call('volumes')).length, before)
})

run('many at once: forty containers run, print and go', async (t) => {
  const outcomes = await Promise.all(
    Array.from(
      { length: 40 },
      async (_, i) => (await runToEnd(sh(`echo ${i}; exit ${i}`))) as { stdout: string; exitCode: number },
    ),
  )
  t.deepEqual(
    outcomes.map((o) => [o.stdout, o.exitCode]),
    outcomes.map((_, i) => [`${i}\n`, i]),
  )
})

run('much output arrives whole at a client that reads, and in the log', async (t) => {
  const { id } = await lab.call('create', sh('head -c 20000000 /dev/zero | tr "\\0" x; echo'), { name: '' })
  const a = await lab.call('attach', id, { stdin: false })
  await lab.call('start', id)
  t.is((await lab.call('output', a)).stdout.length, 20_000_001)
  const lines = (await lab.call('logs', id, { follow: true }, 20_000)) as { text: string }[]
  t.is(lines.map((l) => l.text).join('').length, 20_000_001)
  await rm(id)
})

run('after all this nothing is left running', (t) => {
  t.deepEqual(
    lab.leftovers().filter((l) => !l.includes('/networks')),
    [],
  )
  t.true(readFileSync('/proc/mounts', 'utf8').length > 0)
})
