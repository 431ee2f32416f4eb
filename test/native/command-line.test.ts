// shoal-runtime's flags and refusals, one by one: what crun's users pass, and what must be said when it makes no sense.
import { spawn } from 'node:child_process'
import { closeSync, existsSync, mkdirSync, openSync, readFileSync, writeFileSync } from 'node:fs'
import { hostname } from 'node:os'
import { join } from 'node:path'
import { cgroupFolders, controllerMount, eventually, type Json, traces } from './kit.js'
import { run, runtime, runtimeKit, sh } from './runtime-kit.js'

const kit = runtimeKit('cl')
const { bundle, call, quietly, started } = kit

/** What a document must not be able to ask for, and what the refusal names. */
const refused: [string, (c: Json) => void, RegExp][] = [
  ['a host name without a uts namespace', (c) => without(c, 'uts'), /hostname 'box' would rename the host/],
  ['a domain name without a uts namespace', (c) => { without(c, 'uts'); delete c['hostname']; c['domainname'] = 'd.example' }, /domainname 'd.example' would rename/],
  ['no ociVersion', (c) => delete c['ociVersion'], /ociVersion ''/],
  ['an ociVersion of the future', (c) => (c['ociVersion'] = '2.0.0'), /ociVersion '2.0.0'/],
  ['a limit given twice', (c) => (c['process'].rlimits = [1, 2].map((n) => ({ type: 'RLIMIT_CORE', soft: n, hard: n }))), /RLIMIT_CORE is given twice/],
  ['an unknown limit', (c) => (c['process'].rlimits = [{ type: 'RLIMIT_NOPE', soft: 1, hard: 1 }]), /unknown limit 'RLIMIT_NOPE'/],
  ['the host name as a sysctl', (c) => (c['linux'].sysctl = { 'kernel.hostname': 'other' }), /kernel.hostname is not taken/],
  ['two names for one container', (c) => { c['linux'].sysctl = { 'kernel.domainname': 'a' }; c['domainname'] = 'b' }, /kernel.domainname and the field domainname/],
  ['a sysctl with an empty part', (c) => (c['linux'].sysctl = { 'net/..//kernel/sysrq': '1' }), /contains an invalid path/],
  ['a sysctl that leads elsewhere', (c) => (c['linux'].sysctl = { 'net/../kernel/sysrq': '1' }), /contains an invalid path/],
  ['an absolute sysctl', (c) => (c['linux'].sysctl = { '/net/ipv4/ip_forward': '1' }), /contains an invalid path/],
  ['resctrl', (c) => (c['linux'].intelRdt = { closID: 'x' }), /intelRdt/],
  ['a namespace given twice', (c) => c['linux'].namespaces.push({ type: 'pid' }), /'pid' is given twice/],
  ['a relative working directory', (c) => (c['process'].cwd = 'tmp'), /'tmp' is not an absolute path/],
  ['no command', (c) => (c['process'].args = []), /no command/],
  ['no process', (c) => delete c['process'], /no process/],
  ['no root', (c) => delete c['root'], /no root.path/],
  ['a sysctl of the host', (c) => (c['linux'].sysctl = { 'kernel.panic': '1' }), /kernel.panic does not belong/],
  ['time offsets without their namespace', (c) => (c['linux'].timeOffsets = { boottime: { secs: 1 } }), /timeOffsets needs a new time namespace/],
  ['a controller that is not there', (c) => (c['linux'].resources.rdma = { mlx5_1: { hcaHandles: 1 } }), /no 'rdma' controller/],
  ['a device rule of an unknown type', (c) => (c['linux'].resources.devices = [{ allow: true, type: 'p', access: 'rw' }]), /unknown device type 'p' in a rule/],
  ['a user that stands for "leave it as it is"', (c) => (c['process'].user.uid = 2 ** 32 - 1), /process.user.uid must be a number from 0 to/],
  ['a user beyond 32 bits, which would be root', (c) => (c['process'].user.uid = 2 ** 32), /process.user.uid must be a number/],
  ['a negative group', (c) => (c['process'].user.gid = -1), /process.user.gid must be a number/],
  ['an additional group in words', (c) => (c['process'].user.additionalGids = ['wheel']), /additionalGids must be a number/],
  ['no_new_privs in another form than true', (c) => (c['process'].noNewPrivileges = 'true'), /noNewPrivileges must be true or false/],
  ['a read-only root in a number', (c) => (c['root'].readonly = 1), /root.readonly must be true or false/],
  ['masked paths in one string', (c) => (c['linux'].maskedPaths = '/proc/keys'), /maskedPaths must be a list/],
  ['the root cgroup', (c) => (c['linux'].cgroupsPath = '.'), /cgroup path '\/\.' must be/],
  ['the root cgroup, written long', (c) => (c['linux'].cgroupsPath = '//./'), /cgroup path '\/\/\.\/' must be/],
  ['a cgroup outside', (c) => (c['linux'].cgroupsPath = '/a/../..'), /cgroup path/],
  ['a file name that is a path', (c) => (c['linux'].resources.unified = { '../cgroup.procs': '1' }), /is not a file name|needs cgroup v2/],
] // biome-ignore format: a table

function without(c: Json, type: string): void {
  c['linux'].namespaces = c['linux'].namespaces.filter((n: Json) => n['type'] !== type)
}

for (const [what, change, message] of refused)
  run(`refused with a reason: ${what}`, async (t) => {
    const before = hostname()
    const r = await kit.run(sh('true', change))
    t.is(r.code, 1)
    t.regex(r.stderr, message)
    t.is(hostname(), before)
    t.deepEqual(
      [traces(r.id), cgroupFolders(`/native-cl-${r.id}`), existsSync(join(kit.base, 'state', r.id))],
      [[], [], false],
    )
  })

run('what does not fit a container state is refused, and changes nothing', async (t) => {
  const b = bundle(sh('sleep 1000'))
  t.is((await quietly('create', '--bundle', b.dir, b.id)).code, 0)
  const again = await call('create', '--bundle', b.dir, b.id)
  t.regex(again.stderr, /exists already/)
  t.is((await quietly('start', b.id)).code, 0)
  const refusals: [string[], RegExp][] = [
    [['start', b.id], /is running, not created/],
    [['delete', b.id], /is running: stop it first/],
    [['resume', b.id], /is running, not paused/],
    [['kill', b.id, 'SIGNOPE'], /unknown signal 'SIGNOPE'/],
    [['update', '--memory', '12x', b.id], /--memory is '12x'/],
    [['exec', '--user', 'root', b.id, 'true'], /--user 'root'/],
    [['exec', '--user', '4294967295', b.id, 'true'], /process.user.uid must be a number/],
    [['exec', '--user', '1:2:3', b.id, 'true'], /--user '1:2:3'/],
    [['exec', '--preserve-fds', 'x', b.id, 'true'], /--preserve-fds is 'x'/],
    [['exec', '--apparmor', 'some-profile', b.id, 'true'], /some-profile/],
    [['exec', '--process-label', 'some:label', b.id, 'true'], /some:label/],
    [['state', `${b.id}x`], /does not exist/],
    [['delete', '../x'], /invalid container ID '..\/x'/],
    [['--log-format', 'xml', 'state', b.id], /--log-format 'xml'/],
  ]
  for (const [args, message] of refusals) {
    const r = await call(...args)
    t.is(r.code, args[0] === 'exec' ? 255 : 1, args.join(' '))
    t.regex(r.stderr, message, args.join(' '))
  }
  t.is((await call('exec', b.id, '/bin/echo', 'well')).stdout, 'well\n')
  t.is((await call('pause', b.id)).code, 0)
  t.regex((await call('exec', b.id, '/bin/true')).stderr, /cannot exec in a paused container/)
  const later = call('exec', '--ignore-paused', b.id, '/bin/echo', 'later')
  t.is((await call('resume', b.id)).code, 0)
  t.is((await later).stdout, 'later\n')
  t.is((await call('kill', b.id, '0')).code, 0)
  t.is((await call('kill', b.id, 'KILL')).code, 0)
  for (let n = 0; JSON.parse((await call('state', b.id)).stdout)['status'] !== 'stopped' && n < 500; n++);
  for (const args of [
    ['kill', b.id, 'KILL'],
    ['start', b.id],
    ['exec', b.id, 'true'],
    ['pause', b.id],
  ])
    t.is((await call(...args)).code, args[0] === 'exec' ? 255 : 1, args.join(' '))
  t.is((await call('delete', b.id)).code, 0)
  t.is((await call('delete', b.id)).code, 1)
  t.is((await call('delete', '--force', b.id)).code, 0)
})

run('state and list say what crun and runc say', async (t) => {
  const id = await started()
  const state = JSON.parse((await call('state', id)).stdout) as Json
  t.deepEqual(Object.keys(state), ['ociVersion', 'id', 'pid', 'status', 'bundle', 'rootfs', 'created', 'owner'])
  t.like(state, { id, status: 'running', bundle: join(kit.base, id), rootfs: kit.image, owner: 'root' })
  t.true(state['pid'] > 1 && Math.abs(Date.parse(state['created']) - Date.now()) < 600_000)
  const listed = (JSON.parse((await call('list', '--format', 'json')).stdout) as Json[]).find((c) => c['id'] === id)!
  t.deepEqual(listed, state)
  t.regex(
    (await call('list')).stdout,
    new RegExp(
      `^ID +PID +STATUS +BUNDLE +CREATED +OWNER\\n(.*\\n)*${id} +${state['pid']} +running +${join(kit.base, id)} `,
    ),
  )
  t.true((await call('list', '-q')).stdout.split('\n').includes(id))
  t.deepEqual(JSON.parse((await call('ps', '--format', 'json', id)).stdout).includes(state['pid']), true)
  t.regex((await call('ps', id)).stdout, new RegExp(`^PID\\n(\\d+\\n)*${state['pid']}\\n`))
  await call('delete', '--force', id)
})

run('kill and delete take a regular expression', async (t) => {
  const ids = [await started(undefined, 'r'), await started(undefined, 'r'), await started(undefined, 's')]
  const expression = `^cl${process.pid}r[0-9]+$`
  t.regex((await call('delete', '--regex', '(')).stderr, /is not a regular expression/)
  t.is((await call('delete', '--regex', expression)).code, 1) // they run
  t.is((await call('kill', '--regex', expression, 'KILL')).code, 0)
  t.is((await call('delete', '--force', '--regex', expression)).code, 0)
  const second = await started(undefined, 'a')
  t.deepEqual((await call('list', '-q')).stdout.split('\n').filter(Boolean), [second, ids[2]!])
  for (const id of [ids[2]!, second]) t.is((await call('delete', '--force', id)).code, 0)
})

run('descriptors and sockets of a service manager are handed on', async (t) => {
  const file = join(kit.base, 'handed')
  writeFileSync(file, 'through descriptor 3')
  for (const [args, env] of [
    [['--preserve-fds', '1'], {}],
    [[], { LISTEN_FDS: '1', LISTEN_PID: '1' }],
  ] as const) {
    const fd = openSync(file, 'r')
    const b = bundle(sh('cat <&3; echo; echo "$LISTEN_FDS $LISTEN_PID"; ls /proc/self/fd | wc -l'))
    const out = join(b.dir, 'out')
    const outFd = openSync(out, 'w')
    const child = spawn(runtime, ['--root', join(kit.base, 'state'), 'run', '--bundle', b.dir, ...args, b.id], {
      stdio: ['ignore', outFd, outFd, fd],
      env: { ...process.env, ...env },
    })
    t.is(await new Promise((resolve) => child.once('exit', resolve)), 0)
    closeSync(outFd)
    closeSync(fd)
    t.is(readFileSync(out, 'utf8'), `through descriptor 3\n${'LISTEN_FDS' in env ? '1 1' : ' '}\n5\n`)
  }
  const b = bundle(sh('true'))
  t.regex((await call('run', '--bundle', b.dir, '--preserve-fds', '-1', b.id)).stderr, /--preserve-fds is '-1'/)
})

run('exec takes its flags: user, environment, directory, capabilities, terminal, document', async (t) => {
  const id = await started()
  const say = async (...args: string[]): Promise<string> => (await call('exec', ...args)).stdout
  t.is(await say('--user', '7:8', id, '/bin/id'), 'uid=7 gid=8\n')
  t.is(await say('--user', '7', id, '/bin/sh', '-c', 'id -u; id -g'), '7\n0\n')
  t.is(await say('--env', 'A=1', '-e', 'B=2', id, '/bin/sh', '-c', 'echo $A$B'), '12\n')
  t.is(await say('--cwd', '/tmp', id, '/bin/sh', '-c', 'pwd'), '/tmp\n')
  t.regex(await say('--no-new-privs', id, '/bin/grep', 'NoNewPrivs', '/proc/self/status'), /1$/m)
  t.regex(
    await say('--cap', 'CAP_SYS_ADMIN', id, '/bin/grep', 'CapEff', '/proc/self/status'),
    /^CapEff:\t00000000a8.*|^CapEff:.*2[0-9a-f]{5}/m,
  )
  for (const tty of ['--tty', '--tty=true', '-t'])
    t.regex(await say(tty, id, '/bin/sh', '-c', 'test -t 0 && echo terminal'), /^terminal/)
  t.is(await say('--tty=false', id, '/bin/sh', '-c', 'test -t 0 || echo none'), 'none\n')
  const document = join(kit.base, 'process.json')
  writeFileSync(
    document,
    JSON.stringify({
      args: ['/bin/sh', '-c', 'echo $X; exit 9'],
      env: ['X=of the document'],
      cwd: '/',
      user: { uid: 3, gid: 3 },
    }),
  )
  const r = await call('exec', '--process', document, id)
  t.deepEqual([r.code, r.stdout], [9, 'of the document\n'])
  for (const program of ['/not/there', '/etc/passwd']) t.is((await call('exec', id, program)).code, 255)
  t.is(await say('-u', '7:8', '--additional-gids', '9', '-g', '10', id, '/bin/id', '-G'), '8 9 10\n')
  const { path, v2 } = controllerMount('memory')
  mkdirSync(join(path, `native-cl-${id}`, 'sub'))
  const group = v2 ? /^0::\/sub$/m : /:memory:\/sub$/m
  t.regex(await say('--cgroup', 'memory:sub', id, '/bin/cat', '/proc/self/cgroup'), group)
  for (const outside of ['..', '/../x', 'memory:sub/../../x'])
    t.regex((await call('exec', '--cgroup', outside, id, '/bin/true')).stderr, /is not a sub cgroup path/)
  t.regex((await call('exec', '--cgroup', 'cpu,whaaat:/', id, '/bin/true')).stderr, /unknown controller whaaat/)
  t.is((await call('update', '--memory', '50M', id)).code, 0)
  t.regex((await call('events', '--stats', id)).stdout, /"limit":52428800\}/)
  t.regex((await call('events', '--interval', '1x', id)).stderr, /--interval must be a duration/)
  const events = spawn(runtime, ['--root', join(kit.base, 'state'), 'events', '--interval', '1ms', id])
  let seen = 0
  events.stdout.on('data', (d: Buffer) => (seen += d.toString().split('\n').length - 1))
  await eventually(() => seen > 4, 'five events')
  events.kill()
  const pidFile = join(kit.base, 'exec.pid')
  t.is((await quietly('exec', '--detach', '--pid-file', pidFile, id, '/bin/sleep', '1000')).code, 0)
  t.regex(readFileSync(`/proc/${readFileSync(pidFile, 'utf8')}/cmdline`, 'utf8'), /sleep/)
  await call('delete', '--force', id)
})

run('help, version, features, spec and logs', async (t) => {
  for (const verb of [
    'create',
    'run',
    'start',
    'state',
    'kill',
    'delete',
    'exec',
    'pause',
    'resume',
    'update',
    'ps',
    'events',
    'list',
    'spec',
    'features',
  ]) {
    const r = await call(verb, '--help')
    t.is(r.code, 0, verb)
    t.regex(r.stdout, new RegExp(`^  ${verb}\\b`, 'm'))
  }
  for (const flag of ['--version', '-v'])
    t.regex((await call(flag)).stdout, /^shoal-runtime version \S+\nspec: 1\.2\.0\n/)
  const features = JSON.parse((await call('features')).stdout) as Json
  t.deepEqual(features['hooks'], [
    'prestart',
    'createRuntime',
    'createContainer',
    'startContainer',
    'poststart',
    'poststop',
  ])
  t.true(
    features['linux'].namespaces.includes('user') &&
      features['linux'].seccomp.enabled &&
      features['mountOptions'].includes('rro'),
  )
  const file = join(kit.base, 'spec.json')
  t.is((await call('spec', '--file', file)).code, 0)
  const spec = JSON.parse(readFileSync(file, 'utf8')) as Json
  t.is(spec['ociVersion'], '1.0.2')
  const unified = existsSync('/sys/fs/cgroup/cgroup.controllers')
  t.is(
    (spec['linux'].namespaces as Json[]).some((n) => n['type'] === 'cgroup'),
    unified,
  )
  t.regex((await call('spec', '--file', file)).stderr, /cannot write .*spec\.json: File exists/)
  const log = join(kit.base, 'log')
  await call('--log', `file:${log}`, '--log-format', 'json', 'state', 'missing')
  const line = JSON.parse(readFileSync(log, 'utf8')) as Json
  t.like(line, { level: 'error' })
  t.regex(line['msg'], /'missing' does not exist/)
  const systemd = await call('--systemd-cgroup', 'state', 'x')
  t.is(systemd.code, 1)
  t.regex(systemd.stderr, /--systemd-cgroup/)
  t.is(systemd.stderr.trim().split('\n').length, 1)
})
