// What users and tests of crun and runc rely on beyond the specification: words in messages, what is forgiven, what exec inherits.
import { spawn } from 'node:child_process'
import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readFileSync,
  readlinkSync,
  rmdirSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { canRun, controllerMount, eventually, exec, type Json, seccompAgent } from './kit.js'
import { run, runtime, runtimeKit, sh } from './runtime-kit.js'

const kit = runtimeKit('cu')
const { bundle, call, output, quietly, started } = kit

run('an id that cannot be one is called invalid, and one that begins with a dot is none', async (t) => {
  const b = bundle(sh('true'))
  for (const id of ['.', '..', '.foo', 'foo bar', 'foo/bar', '']) {
    const r = await call('run', '--bundle', b.dir, id)
    t.is(r.code, 1, id)
    t.regex(r.stderr, /invalid container ID '.*invalid character/, id)
  }
})

run('a terminal without a foreground names the option that it wants', async (t) => {
  const b = bundle(
    sh('true', (c) => {
      c['process'].terminal = true
    }),
  )
  const r = await call('run', '--detach', '--bundle', b.dir, b.id)
  t.is(r.code, 1)
  t.regex(r.stderr, /use --console-socket/)
})

run('--log takes the kinds that crun has, and no others', async (t) => {
  const file = join(kit.base, 'log')
  for (const log of [file, `file:${file}`]) {
    writeFileSync(file, '')
    t.is((await call('--log', log, 'state', 'missing')).code, 1)
    t.regex(readFileSync(file, 'utf8'), /level=error msg="container 'missing' does not exist/)
  }
  for (const log of ['syslog:x', 'journald:x'])
    t.regex((await call('--log', log, 'state', 'missing')).stderr, /'missing' does not exist/)
  t.regex((await call('--log', 'invalid:/path', 'list')).stderr, /--log 'invalid:\/path'/)
  t.false(existsSync('invalid:/path') || existsSync('syslog:x'))
})

run(
  'descriptors that the caller did not open are not preserved, and nothing of the runtime takes their place',
  async (t) => {
    const file = join(kit.base, 'preserved')
    writeFileSync(file, 'of the caller')
    const fd = openSync(file, 'r')
    const b = bundle(sh('ls /proc/self/fd | tr "\\n" " "; cat <&5'))
    const out = openSync(join(b.dir, 'out'), 'w')
    const child = spawn(runtime, ['--root', kit.state, 'run', '--bundle', b.dir, '--preserve-fds', '60', b.id], {
      stdio: ['ignore', out, out, 'ignore', 'ignore', fd],
    })
    t.is(await new Promise((resolve) => child.once('exit', resolve)), 0)
    closeSync(out)
    closeSync(fd)
    // 3 is ls's own.
    t.is(readFileSync(join(b.dir, 'out'), 'utf8'), '0 1 2 3 5 of the caller')
    const none = await exec(runtime, ['--root', kit.state, 'run', '--bundle', b.dir, b.id], {
      env: { ...process.env, LISTEN_FDS: '1' },
    })
    t.deepEqual([none.code, none.stdout], [1, '0 1 2 3 ']) // there is no descriptor 5
  },
)

run('capabilities that do not exist are left out with a warning', async (t) => {
  const r = await output('grep Cap /proc/self/status | sort -u | cut -f2 | uniq', (c) => {
    for (const set of Object.keys(c['process'].capabilities))
      c['process'].capabilities[set] = ['CAP_UNKNOWN', 'UNKNOWN_CAP']
  })
  t.deepEqual([r.code, r.stdout], [0, '0000000000000000\n'])
  t.regex(r.stderr, /unknown capability 'UNKNOWN' is left out/)
})

run(
  "without process.capabilities there are none, as with crun and runc; a process document has the container's",
  async (t) => {
    const sets = 'grep Cap /proc/self/status | cut -f2 | tr "\\n" " "'
    const none = '0000000000000000'
    t.is((await output(sets, (c) => delete c['process'].capabilities)).stdout, `${none} `.repeat(5))
    const id = await started((c) => {
      c['process'].capabilities = { bounding: ['CAP_KILL'], effective: ['CAP_KILL'], permitted: ['CAP_KILL'] }
    })
    const document = join(kit.base, 'no-capabilities.json')
    writeFileSync(document, JSON.stringify({ args: ['/bin/sh', '-c', sets], cwd: '/', env: ['PATH=/bin'] }))
    const kill = '0000000000000020'
    t.is((await call('exec', '--process', document, id)).stdout, `${none} ${kill} ${kill} ${kill} ${none} `)
    await call('delete', '--force', id)
  },
)

run('exec: what its flags say goes before what the container has, and no_new_privs is the flag alone', async (t) => {
  const id = await started((c) => {
    c['process'].capabilities = {}
    c['process'].noNewPrivileges = true
    c['process'].env = ['PATH=/bin', 'A=1']
  })
  const say = async (...args: string[]): Promise<string> => (await call('exec', ...args)).stdout
  t.is(await say('--env', 'A=2', '-e', 'A=3', id, '/bin/env'), 'PATH=/bin\nA=3\nHOME=/root\n')
  const caps = (cap: string): Promise<string> =>
    say('-c', cap, id, '/bin/sh', '-c', 'grep Cap /proc/self/status | cut -f2 | tr "\\n" " "')
  const none = '0000000000000000'
  const admin = '0000000000200000'
  t.is(await caps('CAP_SYS_ADMIN'), `${none} ${admin} ${admin} ${admin} ${none} `)
  t.is(await caps('CAP_UNKNOWN'), `${none} `.repeat(5))
  const privileges = ['/bin/grep', 'NoNewPrivs', '/proc/self/status']
  t.is(await say(id, ...privileges), 'NoNewPrivs:\t0\n')
  t.is(await say('--no-new-privs', id, ...privileges), 'NoNewPrivs:\t1\n')
  await call('delete', '--force', id)
})

run('exec: execCPUAffinity of the document and of the container', async (t) => {
  const mine = /^Cpus_allowed_list:\t(\d+)/m.exec(readFileSync('/proc/self/status', 'utf8'))![1]!
  const allowed = ['/bin/grep', 'Cpus_allowed_list', '/proc/self/status']
  const id = await started((c) => {
    c['process'].execCPUAffinity = { final: mine }
  })
  t.is((await call('exec', id, ...allowed)).stdout, `Cpus_allowed_list:\t${mine}\n`)
  const document = join(kit.base, 'affinity.json')
  for (const [affinity, message] of [
    [{ initial: mine }, null],
    [{ initial: 'x' }, /execCPUAffinity.initial 'x'/],
    [{ final: '1-' }, /execCPUAffinity.final '1-'/],
  ] as const) {
    writeFileSync(
      document,
      JSON.stringify({ args: allowed, cwd: '/', user: { uid: 0, gid: 0 }, execCPUAffinity: affinity }),
    )
    const r = await call('exec', '--process', document, id)
    if (message) t.regex(r.stderr, message)
    else t.is(r.stdout, `Cpus_allowed_list:\t${mine}\n`)
  }
  await call('delete', '--force', id)
})

run('the domain name may be given twice when both say the same', async (t) => {
  const r = await output('cat /proc/sys/kernel/domainname', (c) => {
    c['domainname'] = 'd.example'
    c['linux'].sysctl = { 'kernel.domainname': 'd.example' }
  })
  t.deepEqual([r.code, r.stdout], [0, 'd.example\n'])
})

const shell = (script: string): Json => ({ path: '/bin/busybox', args: ['sh', '-c', script] })

run("hooks: the runtime's environment unless they have one, /dev/stdin, and files for their output", async (t) => {
  const file = (name: string): string => join(kit.base, `hook-${name}`)
  const b = bundle(
    sh('true', (c) => {
      c['annotations'] = { 'run.oci.hooks.stdout': file('out'), 'run.oci.hooks.stderr': file('err') }
      c['hooks'] = {
        prestart: [shell('echo "out $MARK"'), shell('echo err >&2'), { ...shell('echo "own $MARK$A"'), env: ['A=1'] }],
        createContainer: [shell('cat /dev/stdin; [ -e ./bin/busybox ] || exit 4')],
        startContainer: [{ path: '/bin/sh', args: ['sh', '-c', 'cat /dev/stdin > /dev/null || exit 3'] }],
      }
    }),
  )
  const r = await exec(runtime, ['--root', kit.state, 'run', '--bundle', b.dir, b.id], {
    env: { MARK: 'seen' },
  })
  t.is(r.code, 0, r.stderr)
  const lines = readFileSync(file('out'), 'utf8').split('\n')
  t.deepEqual(lines.slice(0, 2), ['out seen', 'own 1'])
  t.like(JSON.parse(lines[2]!), { status: 'created', id: b.id, bundle: b.dir })
  t.is(readFileSync(file('err'), 'utf8'), 'err\n')
})

run('a poststart hook that fails stops and deletes the container', async (t) => {
  const log = join(kit.base, 'poststart')
  const change = (c: Json): void => {
    c['hooks'] = { poststart: [{ path: '/bin/false' }], poststop: [shell(`echo stopped >> ${log}`)] }
  }
  const r = await output('sleep 1000', change)
  t.is(r.code, 1)
  t.regex(r.stderr, /poststart hook failed with exit code 1: \/bin\/false/)
  const b = bundle(sh('sleep 1000', change))
  t.is((await quietly('create', '--bundle', b.dir, b.id)).code, 0)
  t.is((await call('start', b.id)).code, 1)
  for (const id of [r.id, b.id]) t.regex((await call('state', id)).stderr, /does not exist/)
  t.is(readFileSync(log, 'utf8'), 'stopped\nstopped\n')
})

run('poststop hooks all run, also where one fails and where a createRuntime hook ended the creation', async (t) => {
  const log = join(kit.base, 'poststop')
  const stop = [{ path: '/bin/false' }, shell(`echo stopped >> ${log}`)]
  const ended = await output('true', (c) => {
    c['hooks'] = { poststop: stop }
  })
  t.is(ended.code, 0)
  t.regex(ended.stderr, /poststop hook failed with exit code 1/)
  for (const create of [{ path: '/bin/false' }, { path: '/bin/sleep', args: ['sleep', '100'], timeout: 1 }]) {
    const b = bundle(
      sh('true', (c) => {
        c['hooks'] = { createRuntime: [create], poststop: stop }
      }),
    )
    t.is((await call('create', '--bundle', b.dir, b.id)).code, 1)
    t.regex((await call('state', b.id)).stderr, /does not exist/)
  }
  t.is(readFileSync(log, 'utf8'), 'stopped\n'.repeat(3))
})

run('a bundle that is named through a link is told to hooks by that name', async (t) => {
  const b = bundle(
    sh('true', (c) => {
      c['hooks'] = { prestart: [shell(`cat > ${join(kit.base, 'linked-state')}`)] }
    }),
  )
  const link = join(kit.base, 'link')
  symlinkSync(b.dir, link)
  t.is((await call('run', '--bundle', link, b.id)).code, 0)
  t.is((JSON.parse(readFileSync(join(kit.base, 'linked-state'), 'utf8')) as Json)['bundle'], link)
})

run("a user namespace without maps has root, who is the runtime's user, and nobody else", async (t) => {
  const r = await output('cat /proc/self/uid_map /proc/self/gid_map | tr -s " "', (c) => {
    c['linux'].namespaces.push({ type: 'user' })
    for (const m of c['mounts']) m.options = m.options?.filter((o: string) => o !== 'gid=5') // not mapped
  })
  t.deepEqual([r.code, r.stdout], [0, ' 0 0 1\n 0 0 1\n'], r.stderr)
})

run('a user namespace that is given by its path is joined, and the others belong to it', async (t) => {
  const id = await started((c) => {
    c['linux'].namespaces.push({ type: 'user' })
    for (const k of ['uidMappings', 'gidMappings']) c['linux'][k] = [{ containerID: 0, hostID: 100000, size: 65536 }]
  })
  const { pid } = JSON.parse((await call('state', id)).stdout) as { pid: number }
  const r = await output('tr -s " " < /proc/self/uid_map; ip link set lo down && echo ours', (c) => {
    c['linux'].namespaces.push({ type: 'user', path: `/proc/${pid}/ns/user` })
    for (const set of ['bounding', 'effective', 'permitted']) c['process'].capabilities[set].push('CAP_NET_ADMIN')
  })
  t.deepEqual([r.code, r.stdout], [0, ' 0 100000 65536\nours\n'], r.stderr)
  await call('delete', '--force', id)
})

run('the loopback interface of a new network namespace is up', async (t) => {
  t.is((await output('ping -c 1 -W 5 127.0.0.1 > /dev/null && echo up')).stdout, 'up\n')
})

run('run.oci.keep_original_groups keeps the groups that the runtime has', async (t) => {
  for (const [value, groups] of [
    [undefined, ''],
    ['0', ''],
    ['1', '71 72'],
  ] as const) {
    const b = bundle(
      sh('grep Groups /proc/self/status | cut -f2', (c) => {
        if (value) c['annotations'] = { 'run.oci.keep_original_groups': value }
      }),
    )
    const command = [runtime, '--root', join(kit.base, 'state'), 'run', '--bundle', b.dir, b.id]
    t.is((await exec('setpriv', ['--groups', '71,72', ...command])).stdout.trim(), groups)
  }
})

run("run.oci.pidfd_receiver gets a descriptor of the container's process", async (t) => {
  const path = join(kit.base, 'pidfd.sock')
  // Python, because Node receives no descriptors.
  const receiver = spawn('python3', [
    '-c',
    `import socket
s = socket.socket(socket.AF_UNIX); s.bind(${JSON.stringify(path)}); s.listen(1); print('ready', flush=True)
data, fds, _, _ = socket.recv_fds(s.accept()[0], 200, 4)
print(data.decode(), [l for l in open(f'/proc/self/fdinfo/{fds[0]}') if l.startswith('Pid:')][0].split()[1], len(fds))`,
  ])
  let said = ''
  receiver.stdout.on('data', (d) => {
    said += d
  })
  await eventually(() => said.includes('ready'), 'the receiver listens')
  const id = await started((c) => {
    c['annotations'] = { 'run.oci.pidfd_receiver': path }
  })
  await eventually(() => said.split('\n').length === 3, 'the receiver has the descriptor')
  t.is(said, `ready\n${id} ${JSON.parse((await call('state', id)).stdout)['pid']} 1\n`)
  await call('delete', '--force', id)
})

run('the receiver of a seccomp listener is told the pid by which the runtime knows the process', async (t) => {
  const listenerPath = join(kit.base, 'seccomp.sock')
  const agent = await seccompAgent(listenerPath)
  t.teardown(agent.stop)
  const id = await started((c) => {
    c['linux'].seccomp = { defaultAction: 'SCMP_ACT_ALLOW', listenerPath, listenerMetadata: 'mine' }
  })
  t.teardown(() => call('delete', '--force', id))
  const pid = JSON.parse((await call('state', id)).stdout)['pid'] as number
  t.is((await quietly('exec', '--detach', id, '/bin/sleep', '1000')).code, 0)
  await eventually(() => agent.told.length === 2, 'both descriptors')
  const [first, second] = agent.told as [Json, Json]
  t.like(first, { ociVersion: '0.2.0', fds: ['seccompFd'], pid, metadata: 'mine' })
  t.like(first['state'], { id, pid, status: 'creating' })
  t.like(second['state'], { id, pid, status: 'running' })
  t.is(readFileSync(`/proc/${second['pid']}/cmdline`, 'utf8'), '/bin/sleep\x001000\x00')
})

run('SCHED_DEADLINE: what is wrong with its three times is said', async (t) => {
  const ms = 1_000_000
  const wrong: [Json, RegExp][] = [
    [{ deadline: 20 * ms }, /`SCHED_DEADLINE` requires `runtime`/],
    [{ runtime: 10 * ms }, /requires `deadline`/],
    [{ runtime: 0, deadline: 20 * ms }, /runtime must be greater than 0/],
    [{ runtime: 30 * ms, deadline: 20 * ms }, /runtime \(30000000\) must be <= deadline \(20000000\)/],
    [{ runtime: 10 * ms, deadline: 30 * ms, period: 20 * ms }, /deadline \(30000000\) must be <= period/],
    [{ runtime: 1023, deadline: 20 * ms }, /runtime \(1023\) must be between 1024 and/],
    [{ runtime: 2 ** 63, deadline: 2 ** 63 }, /must be between 1024 and/],
  ]
  for (const [times, message] of wrong) {
    const r = await output('true', (c) => {
      c['process'].scheduler = { policy: 'SCHED_DEADLINE', ...times }
    })
    t.is(r.code, 1)
    t.regex(r.stderr, message)
  }
})

const numa = canRun && existsSync('/proc/self/numa_maps') ? run : test.skip
numa('linux.memoryPolicy holds in the container and in exec', async (t) => {
  const policies: [Json, string][] = [
    [{ mode: 'MPOL_DEFAULT' }, 'default'],
    [{ mode: 'MPOL_LOCAL' }, 'local'],
    [{ mode: 'MPOL_BIND', nodes: '0' }, 'bind:0'],
    [{ mode: 'MPOL_PREFERRED', nodes: '0-0', flags: ['MPOL_F_STATIC_NODES'] }, 'prefer=static:0'],
    [{ mode: 'MPOL_INTERLEAVE', nodes: '0' }, 'interleave:0'],
  ]
  for (const [policy, shown] of policies) {
    const r = await output('cut -d" " -f2 /proc/self/numa_maps | sort -u', (c) => {
      c['linux'].memoryPolicy = policy
    })
    t.deepEqual([r.code, r.stdout], [0, `${shown}\n`], r.stderr)
  }
  const wrong: [Json, RegExp][] = [
    [{}, /unknown memory policy ''/],
    [{ mode: 'NOPE' }, /unknown memory policy 'NOPE'/],
    [{ mode: 'MPOL_PREFERRED', flags: ['NOPE'] }, /unknown memory policy flag 'NOPE'/],
    [{ mode: 'MPOL_PREFERRED', nodes: 'bad' }, /nodes 'bad' is not a list/],
    [{ mode: 'MPOL_PREFERRED', nodes: '10284838' }, /nodes '10284838' is not a list/],
    [{ mode: 'MPOL_INTERLEAVE' }, /MPOL_INTERLEAVE on nodes '': Invalid argument/],
  ]
  for (const [policy, message] of wrong) {
    const r = await output('true', (c) => {
      c['linux'].memoryPolicy = policy
    })
    t.is(r.code, 1)
    t.regex(r.stderr, message)
  }
  const id = await started((c) => {
    c['linux'].memoryPolicy = { mode: 'MPOL_LOCAL' }
  })
  t.is((await call('exec', id, '/bin/sh', '-c', 'cut -d" " -f2 /proc/self/numa_maps | sort -u')).stdout, 'local\n')
  await call('delete', '--force', id)
})

const freezer = '/sys/fs/cgroup/freezer'
const onV1 = canRun && existsSync(join(freezer, 'tasks')) ? run : test.skip
onV1('delete --force ends a process that somebody has frozen in another group', async (t) => {
  const id = await started()
  const other = join(freezer, `native-cu-other-${process.pid}`)
  mkdirSync(other)
  writeFileSync(join(other, 'tasks'), String(JSON.parse((await call('state', id)).stdout)['pid']))
  writeFileSync(join(other, 'freezer.state'), 'FROZEN')
  const r = await call('delete', '--force', id)
  writeFileSync(join(other, 'freezer.state'), 'THAWED')
  t.deepEqual([r.code, r.stderr], [0, ''])
  rmdirSync(other)
})

run('src-nofollow, dest-nofollow and copy-symlink: the links themselves, not what they name', async (t) => {
  const file = join(kit.base, 'linked-file')
  const link = join(kit.base, 'a-link')
  const broken = join(kit.base, 'broken-link')
  writeFileSync(file, 'inside')
  symlinkSync(file, link)
  symlinkSync('nowhere', broken)
  symlinkSync('points/nowhere', join(kit.image, 'place'))
  const mount =
    (source: string, destination: string, ...options: string[]) =>
    (c: Json): void => {
      c['mounts'].push({ type: 'bind', source, destination, options: ['bind', ...options] })
    }
  const cases: [string, (c: Json) => void, string][] = [
    ['cat /place', mount(link, '/place', 'dest-nofollow'), 'inside'],
    ['cat /place', mount(file, '/place', 'dest-nofollow', 'src-nofollow'), 'inside'],
    ['readlink /place', mount(link, '/place', 'dest-nofollow', 'src-nofollow'), `${file}\n`],
    ['readlink /a/new/link', mount(broken, '/a/new/link', 'copy-symlink'), 'nowhere\n'],
    ['readlink /a/new/link', mount(broken, '/a/new/link', 'copy-symlink'), 'nowhere\n'], // it is there by now
    ['cat /copied', mount(file, '/copied', 'copy-symlink'), 'inside'],
  ]
  for (const users of [false, true])
    for (const [script, change, expected] of cases) {
      const r = await output(script, (c) => {
        c['root'].readonly = false
        if (users) {
          c['linux'].namespaces.push({ type: 'user' })
          for (const k of ['uidMappings', 'gidMappings']) c['linux'][k] = [{ containerID: 0, hostID: 0, size: 65536 }]
        }
        change(c)
      })
      t.deepEqual([r.code, r.stdout], [0, expected], `${script} ${r.stderr}`)
    }
  t.is(readlinkSync(join(kit.image, 'place')), 'points/nowhere')
  const other = await output('true', mount(link, '/a/new/link', 'copy-symlink'))
  t.regex(other.stderr, /cannot make the link \/a\/new\/link to .*: File exists/)
  const covered = await output('true', mount(link, '/proc/self', 'dest-nofollow', 'src-nofollow'))
  t.regex(covered.stderr, /\/proc\/self lies inside \/proc/)
})

run(
  'devices in a user namespace have the type, owner and mode that the bundle says, wherever the host has its own',
  async (t) => {
    const maps =
      (hostID: number) =>
      (c: Json): void => {
        c['linux'].namespaces.push({ type: 'user' })
        for (const k of ['uidMappings', 'gidMappings']) c['linux'][k] = [{ containerID: 0, hostID, size: 65536 }]
        c['linux'].devices = [
          { path: '/dev/mine', type: 'c', major: 1, minor: 5, uid: 10, gid: 11, fileMode: 0o157 },
          { path: '/dev/pipe', type: 'p', uid: 0, gid: 0, fileMode: 0o600 },
          { path: '/dev/null', type: 'c', major: 1, minor: 3, uid: 7, gid: 8, fileMode: 0o640 },
        ]
      }
    const r = await output(
      'cd /dev; stat -c "%A %u %g %t,%T" mine null pipe; head -c 3 mine | wc -c; mount | grep -c "on / "',
      maps(0),
    )
    t.deepEqual(
      [r.code, r.stdout],
      [0, 'c--xr-xrwx 10 11 1,5\ncrw-r----- 7 8 1,3\nprw------- 0 0 0,0\n3\n1\n'],
      r.stderr,
    )
  },
)

run("the state folder tells where the standard streams lead, as crun's does", async (t) => {
  const id = await started()
  const status = JSON.parse(readFileSync(join(kit.base, 'state', id, 'status'), 'utf8')) as Json
  t.deepEqual(JSON.parse(status['external_descriptors']), ['/dev/null', '/dev/null', join(kit.base, 'stderr')])
  await call('delete', '--force', id)
})

run(
  'mounts add and remove: a folder of the host and a tmpfs in a running container, with a user namespace too',
  async (t) => {
    const folder = join(kit.base, 'added')
    mkdirSync(folder)
    writeFileSync(join(folder, 'file'), 'of the host')
    const list = join(kit.base, 'mounts.json')
    writeFileSync(
      list,
      JSON.stringify([
        { destination: '/tmp/folder', type: 'bind', source: folder, options: ['bind', 'ro'] },
        { destination: '/tmp/memory', type: 'tmpfs', source: 'tmpfs' },
      ]),
    )
    for (const users of [false, true]) {
      const id = await started((c) => {
        c['mounts'].push({ destination: '/tmp', type: 'tmpfs', source: 'tmpfs' })
        if (!users) return
        c['linux'].namespaces.push({ type: 'user' })
        for (const k of ['uidMappings', 'gidMappings']) c['linux'][k] = [{ containerID: 0, hostID: 0, size: 65536 }]
      })
      const seen = async (): Promise<string> =>
        (await call('exec', id, '/bin/sh', '-c', 'cat /tmp/folder/file 2>&1; echo; mount | grep -c /tmp/')).stdout
      const added = await call('mounts', 'add', id, list)
      t.is(added.code, 0, added.stderr)
      t.is(await seen(), 'of the host\n2\n')
      t.is((await call('mounts', 'remove', id, list)).code, 0)
      t.regex(await seen(), /No such file or directory\n\n0\n$/)
      t.regex((await call('mounts', 'remove', id, list)).stderr, /cannot unmount \/tmp\/folder/)
      await call('delete', '--force', id)
    }
    t.is((await call('mounts', 'move', 'x', list)).code, 1)
  },
)

run('SCMP_ACT_NOTIFY without an agent to ask is refused', async (t) => {
  const r = await output('true', (c) => {
    c['linux'].seccomp = {
      defaultAction: 'SCMP_ACT_ALLOW',
      syscalls: [{ names: ['mkdir'], action: 'SCMP_ACT_NOTIFY' }],
    }
  })
  t.regex(r.stderr, /name the agent's socket in listenerPath/)
})

run("startContainer hooks have the program's rights: its user and its filter", async (t) => {
  const r = await output('true', (c) => {
    c['process'].user = { uid: 1000, gid: 1000 }
    // Docker's profile has clone3 fail like this.
    const deny = (name: string, errnoRet: number): Json => ({ names: [name], action: 'SCMP_ACT_ERRNO', errnoRet })
    c['linux'].seccomp = { defaultAction: 'SCMP_ACT_ALLOW', syscalls: [deny('mkdir', 100), deny('clone3', 38)] }
    c['hooks'] = { startContainer: [{ path: '/bin/sh', args: ['sh', '-c', 'id -u; mkdir /dev/shm/x'] }] }
  })
  t.is(r.stdout, '1000\n')
  t.regex(r.stderr, /Network is down\n.*startContainer hook failed/)
})

run('--no-pivot leaves no whole proc behind that would allow another one with nothing masked', async (t) => {
  const b = bundle(sh('unshare -mrpf sh -c "mount -t proc none /proc && echo mounted"'))
  const r = await call('run', '--no-pivot', '--bundle', b.dir, b.id)
  t.is(r.stdout, '')
  t.regex(r.stderr, /permission denied/)
})

run('a frozen cgroup is refused and left as it is, one with other processes is warned of', async (t) => {
  const b = bundle(sh('true'))
  const { path, v2 } = controllerMount('freezer')
  const group = join(path, `native-cu-${b.id}`)
  mkdirSync(group)
  writeFileSync(join(group, v2 ? 'cgroup.freeze' : 'freezer.state'), v2 ? '1' : 'FROZEN')
  t.regex((await call('run', '--bundle', b.dir, b.id)).stderr, /cgroup unexpectedly frozen/)
  t.true(existsSync(group))
  rmdirSync(group)
  const first = await started()
  const second = bundle(sh('true', (c) => delete c['linux'].resources))
  const config = JSON.parse(readFileSync(join(second.dir, 'config.json'), 'utf8')) as Json
  config['linux'].cgroupsPath = `/native-cu-${first}`
  writeFileSync(join(second.dir, 'config.json'), JSON.stringify(config))
  t.regex((await call('run', '--bundle', second.dir, second.id)).stderr, /cgroup is not empty: 1 process/)
  t.is(JSON.parse((await call('state', first)).stdout)['status'], 'stopped')
  await call('delete', '--force', first)
  // A creation that fails ends nobody else.
  const third = await started()
  for (const change of [
    (c: Json) => (c['mounts'] = [{ destination: '/x', type: 'bind', source: '/not/there' }]),
    (c: Json) => (c['process'].args = ['/not/there']),
    (c: Json) => (c['process'].rlimits = [{ type: 'RLIMIT_NOPE' }]),
  ]) {
    const failing = bundle(
      sh('true', (c) => {
        delete c['linux'].resources
        c['linux'].cgroupsPath = `/native-cu-${third}`
        change(c)
      }),
    )
    t.is((await call('run', '--bundle', failing.dir, failing.id)).code, 1)
  }
  t.is((await call('exec', third, '/bin/echo', 'well')).stdout, 'well\n')
  await call('delete', '--force', third)
})

run('a service manager is told when the container is ready, and which process it then has to watch', async (t) => {
  const say =
    'import socket, sys\ns = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\nfor m in sys.argv[2:]: s.sendto(m.encode(), sys.argv[1])'
  for (const detach of [[], ['--detach']]) {
    const manager = join(kit.base, `manager${detach.length}`)
    const listener = spawn('python3', [
      '-c',
      `import socket
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); s.bind(${JSON.stringify(manager)}); print('ready', flush=True)
while True: print(s.recv(1000).decode(), flush=True)`,
    ])
    t.teardown(() => listener.kill())
    let said = ''
    listener.stdout.on('data', (d) => {
      said += d
    })
    await eventually(() => said !== '', 'the manager listens')
    const b = bundle(sh('sleep 1000'))
    const args = ['--root', kit.state, 'run', ...detach, '--bundle', b.dir, b.id]
    const child = spawn(runtime, args, { stdio: 'ignore', env: { ...process.env, NOTIFY_SOCKET: manager } })
    const ended = new Promise((resolve) => child.once('exit', resolve))
    const state = join(kit.base, 'state', b.id)
    await eventually(() => existsSync(join(state, 'config.json')), 'the container')
    const seen = await call('exec', b.id, '/bin/sh', '-c', 'test -S "$NOTIFY_SOCKET" && echo "$NOTIFY_SOCKET"')
    t.is(seen.stdout, `${manager}/notify\n`, seen.stderr)
    t.is(
      (await exec('python3', ['-c', say, join(state, 'notify/notify'), 'STATUS=wait', 'MAINPID=1\nREADY=1'])).code,
      0,
    )
    const { pid } = JSON.parse((await call('state', b.id)).stdout) as Json
    const expected = detach.length ? `ready\nREADY=1\nMAINPID=${pid}\n` : 'ready\nREADY=1\n'
    await eventually(() => said.length >= expected.length, 'the message')
    if (detach.length) t.is(await ended, 0)
    t.is(said, expected)
    t.is((await call('delete', '--force', b.id)).code, 0)
    await ended
    t.false(existsSync(state))
  }
})
