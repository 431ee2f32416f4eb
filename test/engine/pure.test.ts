// The engine's decisions, without any container.
import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync, symlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'ava'
import { createBodyOf } from '../../src/api/convert/older.js'
import { parseTimestamp } from '../../src/api/query.js'
import { decorated } from '../../src/api/routes/containers.js'
import { millisOf } from '../../src/common/index.js'
import { DetachFilter, parseDetachKeys } from '../../src/engine/detach-keys.js'
import { neededFirst, shutdownSeconds } from '../../src/engine/engine.js'
import { afterProbe, healthPlan, INITIAL_HEALTH, nextProbeMs } from '../../src/engine/health-state.js'
import { resolveInRoot } from '../../src/engine/in-root.js'
import type { EngineOptions } from '../../src/engine/index.js'
import { plainLink } from '../../src/engine/links.js'
import { parseTime } from '../../src/engine/logs/entry.js'
import { mergeConfig } from '../../src/engine/merge-config.js'
import { parseBind, wantedMounts } from '../../src/engine/mount-spec.js'
import { runtimeProgram } from '../../src/engine/other-runtime.js'
import { applySettings, defaultSettings, parsePluginConfig } from '../../src/engine/plugins/config.js'
import { publications } from '../../src/engine/ports.js'
import { bindPropagation, parseMounts } from '../../src/engine/propagation.js'
import { decideRestart, startsWithDaemon } from '../../src/engine/restart-policy.js'
import { parseSecurity } from '../../src/engine/security.js'
import { parseSignal } from '../../src/engine/signals.js'
import { parseBlkio, parseIoStat, parseProcStat } from '../../src/engine/stats/parse.js'
import { parseProcessTable } from '../../src/engine/top.js'
import { checkConfig, checkName, withDefaults } from '../../src/engine/validate.js'

test('an own entrypoint drops the image command, an own command keeps the image entrypoint', (t) => {
  const image = { Entrypoint: ['/entry'], Cmd: ['a'], Env: ['A=1', 'B=2'], Labels: { x: '1' }, WorkingDir: '/w/' }
  t.like(mergeConfig({ Entrypoint: ['/mine'] }, image), { Entrypoint: ['/mine'], Cmd: null })
  t.like(mergeConfig({ Cmd: ['b'] }, image), { Entrypoint: ['/entry'], Cmd: ['b'] })
  t.like(mergeConfig({}, image), { Entrypoint: ['/entry'], Cmd: ['a'], WorkingDir: '/w' })
  t.deepEqual(mergeConfig({ Env: ['B=3', 'C'] }, image).Env, ['B=3', 'C', 'A=1'])
  t.is(mergeConfig({ Entrypoint: [''], Cmd: ['b'] }, image).Entrypoint, null)
  t.deepEqual(mergeConfig({ Entrypoint: [] }, image).Cmd, ['a'])
})

test('what a health check leaves out or gives as nothing is not shown', (t) => {
  const given = JSON.parse('{"Test":["CMD","/bin/true"],"Interval":0,"StartPeriod":null}')
  t.deepEqual(mergeConfig({ Healthcheck: given }).Healthcheck, { Test: ['CMD', '/bin/true'] })
  const image = { Healthcheck: { Test: ['NONE'], Retries: 2 } }
  t.deepEqual(mergeConfig({ Healthcheck: given }, image).Healthcheck, { Test: ['CMD', '/bin/true'], Retries: 2 })
})

test('what others need starts first, and a ring does not stop it', (t) => {
  const needs: Record<string, string[]> = { web: ['db', 'cache'], db: ['disk'], a: ['b'], b: ['a'], cache: [] }
  const order = neededFirst(['web', 'cache', 'a', 'b', 'db'], (one) => needs[one] ?? [])
  t.deepEqual([...order].sort(), ['a', 'b', 'cache', 'db', 'web'])
  t.true(order.indexOf('db') < order.indexOf('web') && order.indexOf('cache') < order.indexOf('web'))
})

test('restarts back off from 100 ms to a minute, and begin anew after ten good seconds', (t) => {
  const ask = (o: Partial<Parameters<typeof decideRestart>[0]>) =>
    decideRestart({
      policy: { name: 'always', maximumRetryCount: 0 },
      exitCode: 1,
      restartCount: 0,
      isStopWanted: false,
      ranMs: 5,
      lastDelayMs: 0,
      ...o,
    })
  t.deepEqual(ask({}), { restart: true, delayMs: 100 })
  t.deepEqual(ask({ lastDelayMs: 100 }), { restart: true, delayMs: 200 })
  t.deepEqual(ask({ lastDelayMs: 51_200 }), { restart: true, delayMs: 60_000 })
  t.deepEqual(ask({ lastDelayMs: 51_200, ranMs: 10_000 }), { restart: true, delayMs: 100 })
  t.deepEqual(ask({ isStopWanted: true }), { restart: false })
  const onFailure = { name: 'on-failure', maximumRetryCount: 2 }
  t.deepEqual(ask({ policy: onFailure, exitCode: 0 }), { restart: false })
  t.true(ask({ policy: onFailure, restartCount: 1 }).restart)
  t.deepEqual(ask({ policy: onFailure, restartCount: 2 }), { restart: false })
})

test('with the daemon come back: always, and unless-stopped when nobody stopped it', (t) => {
  const comes = (name: string, hasBeenManuallyStopped: boolean, hasBeenStartedBefore = true): boolean =>
    startsWithDaemon({ policy: { name, maximumRetryCount: 0 }, hasBeenManuallyStopped, hasBeenStartedBefore })
  t.deepEqual(
    [comes('always', true), comes('unless-stopped', true), comes('unless-stopped', false)],
    [true, false, true],
  )
  t.deepEqual([comes('no', false), comes('on-failure', false), comes('always', false, false)], [false, false, false])
})

test('a container that the daemon ends has its own time-out, and never more than the daemon', (t) => {
  t.deepEqual([shutdownSeconds(10, 15), shutdownSeconds(30, 15), shutdownSeconds(-1, 15)], [10, 15, 15])
  t.deepEqual([shutdownSeconds(10, -1), shutdownSeconds(-1, -1), shutdownSeconds(10, 0)], [10, -1, 0])
})

test('detach keys are found across writes, and a broken beginning of them is passed on', (t) => {
  const filter = new DetachFilter(parseDetachKeys(''))
  const push = (s: string) => {
    const { pass, detached } = filter.push(Buffer.from(s, 'latin1'))
    return [Buffer.from(pass).toString('latin1'), detached]
  }
  t.deepEqual(push('ab\x10'), ['ab', false])
  t.deepEqual(push('c'), ['\x10c', false])
  t.deepEqual(push('\x10\x10\x11x'), ['\x10', true])
  t.deepEqual([...parseDetachKeys('a,ctrl-[,ctrl-@')], [97, 27, 0])
  for (const bad of ['ctrl-1', 'ctrl-A,a'])
    t.throws(() => parseDetachKeys(bad), { message: `Invalid detach keys (${bad}) provided` })
})

test('signals by name, number and distance from the real-time ends', (t) => {
  t.is(parseSignal('SIGTERM'), 15)
  t.is(parseSignal('hup'), 1)
  t.is(parseSignal('9'), 9)
  t.is(parseSignal('RTMIN+3'), 37)
  t.is(parseSignal('SIGRTMAX-1'), 63)
  for (const bad of ['', 'FOO', '0', '65', 'RTMAX+1']) t.throws(() => parseSignal(bad), undefined, bad)
})

test('ports: bindings, ranges, and all exposed ones not bound', (t) => {
  t.deepEqual(
    publications(
      { ExposedPorts: { '80/tcp': {}, '53/udp': {} } },
      { PortBindings: { '80/tcp': [{ HostIp: '127.0.0.1', HostPort: '8080' }] }, PublishAllPorts: true },
    ),
    [
      { containerPort: 80, protocol: 'tcp', hostIp: '127.0.0.1', hostPort: 8080 },
      { containerPort: 53, protocol: 'udp', hostIp: '', hostPort: 0 },
    ],
  )
  t.deepEqual(publications({}, { PortBindings: { '80': [{ HostPort: '8000-8005' }] } })[0], {
    containerPort: 80,
    protocol: 'tcp',
    hostIp: '',
    hostPort: 8000,
    hostPortEnd: 8005,
  })
  t.throws(() => publications({}, { PortBindings: { '99999/tcp': [] } }))
})

test('binds are told from volumes, and one place has one mount', (t) => {
  t.like(parseBind('/src:/dst:ro,rslave', ''), { type: 'bind', rw: false, propagation: 'rslave', createSource: true })
  t.like(parseBind('name:/dst:nocopy', ''), { type: 'volume', source: 'name', copy: false, mode: 'nocopy' })
  t.like(parseBind('/data', ''), { type: 'volume', source: '', destination: '/data' })
  for (const bad of [
    'a:b',
    '/a:/b:zz',
    '/a:/',
    'x/y:/b',
    '::',
    '/a:/b:ro:rw',
    'v:/b:shared',
    '/a:/b:ro,rw',
    '/a:/b:slave,shared',
    '/a:/b:nocopy',
    '/data:ro',
  ])
    t.throws(() => parseBind(bad, ''), undefined, bad)
  t.throws(() => wantedMounts({}, { Binds: ['/a:/x'], Tmpfs: { '/x': '' } }, []), {
    message: 'Duplicate mount point: /x',
  })
  t.deepEqual(
    wantedMounts({ Volumes: { '/x': {}, '/y': {} } }, { Binds: ['/a:/x'] }, []).map((m) => [m.type, m.destination]),
    [
      ['bind', '/x'],
      ['volume', '/y'],
    ],
  )
})

test('whether a mount of the host is shared is read from mountinfo, blanks in its path too', (t) => {
  const line = (point: string, optional: string): string => `22 1 0:5 / ${point} rw ${optional}- ext4 /dev/vda rw\n`
  t.deepEqual(parseMounts(line('/', '') + line('/a\\040b', 'shared:3 master:1 ') + line('/c', 'master:7 ')), [
    { point: '/', isShared: false, isSlave: false },
    { point: '/a b', isShared: true, isSlave: true },
    { point: '/c', isShared: false, isSlave: true },
  ])
})

test('a bind that holds the data root takes part in what is unmounted there', (t) => {
  const of = (bind: string): string => bindPropagation('/var/lib/shoal', parseBind(bind, ''))
  t.is(of('/srv:/x'), 'rprivate')
  t.is(of('/var/lib/shoal2:/x:private'), 'private')
  for (const source of ['/', '/var/lib', '/var/lib/shoal', '/var/lib/shoal/volumes']) {
    t.is(of(`${source}:/x`), 'rslave')
    t.is(of(`${source}:/x:rshared`), 'rshared')
    t.throws(() => of(`${source}:/x:private`), { message: /must use either propagation mode "rslave" or "rshared"/ })
  }
})

test('health: failures count after the start period, a success ends it', (t) => {
  const plan = healthPlan({ Test: ['CMD-SHELL', 'x'], Retries: 2, StartPeriod: 60e9, Interval: 10e9 }, null)!
  t.deepEqual(plan.command, ['/bin/sh', '-c', 'x'])
  t.is(healthPlan({ Test: ['NONE'] }, null), null)
  const bad = { startMs: 0, endMs: 1, exitCode: 1, output: '' }
  let state = afterProbe(INITIAL_HEALTH, bad, plan, 1000)
  t.like(state, { status: 'starting', failingStreak: 0 })
  t.is(nextProbeMs(state, plan, 1000), 5000)
  state = afterProbe(state, { ...bad, exitCode: 0 }, plan, 2000)
  t.like(state, { status: 'healthy', failingStreak: 0 })
  state = afterProbe(state, bad, plan, 3000)
  t.like(state, { status: 'healthy', failingStreak: 1 })
  state = afterProbe(state, bad, plan, 4000)
  t.like(state, { status: 'unhealthy', failingStreak: 2 })
  for (let i = 0; i < 9; i++) state = afterProbe(state, bad, plan, 5000)
  t.is(state.log.length, 5)
})

test("what a container does not say comes from the daemon's settings", (t) => {
  const defaults = { shmBytes: 5, ipcMode: 'shareable', cgroupnsMode: 'host', network: 'none' }
  const with_ = (host: object, version: 1 | 2 = 2): object =>
    withDefaults(host, { ...options, logDriver: 'none', logOptions: {}, defaults }, version)
  t.like(with_({}), { ShmSize: 5, IpcMode: 'shareable', CgroupnsMode: 'host', NetworkMode: 'none' })
  t.like(with_({ NetworkMode: 'bridge' }), { NetworkMode: 'none' }, 'there is no bridge')
  t.like(with_({ ShmSize: 6, IpcMode: 'private', CgroupnsMode: 'private', NetworkMode: 'x' }), {
    ShmSize: 6,
    IpcMode: 'private',
    CgroupnsMode: 'private',
    NetworkMode: 'x',
  })
  const plain = (host: object, version: 1 | 2): object =>
    withDefaults(host, { ...options, logDriver: 'none', logOptions: {} }, version)
  t.like(plain({}, 1), { CgroupnsMode: 'host', ShmSize: 64 << 20, NetworkMode: 'bridge' })
  t.like(plain({ Privileged: true }, 2), { CgroupnsMode: 'private' })
  t.true(parseSecurity({}, { noNewPrivileges: true }).noNewPrivileges)
  t.false(parseSecurity({ SecurityOpt: ['no-new-privileges=false'] }, { noNewPrivileges: true }).noNewPrivileges)
  t.is(parseSecurity({}, { seccomp: 'unconfined' }).seccomp, 'unconfined')
  t.is(parseSecurity({ SecurityOpt: ['seccomp=builtin'] }, { seccomp: 'unconfined' }).seccomp, 'default')
})

test('a runtime is found at each start, with its arguments, or refused', async (t) => {
  const execRoot = mkdtempSync(join(tmpdir(), 'shoal-runtimes-'))
  t.teardown(() => rmSync(execRoot, { recursive: true }))
  const o = {
    ...options,
    execRoot,
    runtimes: {
      sh: { path: 'sh' },
      args: { path: '/bin/echo', runtimeArgs: ["it's", '--debug'] },
      gone: { path: '/gone' },
    },
  }
  t.is(await runtimeProgram('runc', o), null)
  t.regex((await runtimeProgram('sh', o))!, /^\/.*\/sh$/)
  t.is(execFileSync((await runtimeProgram('args', o))!, ['x'], { encoding: 'utf8' }), "it's --debug x\n")
  await t.throwsAsync(runtimeProgram('gone', o), { message: /\/gone: no such file or directory/ })
  await t.throwsAsync(runtimeProgram('unknown', o), { message: 'Unknown runtime specified unknown' })
})

const options = { defaultRuntime: 'shoal', runtimes: {} } as unknown as EngineOptions
test('mistakes in a configuration are refused with docker sentences', (t) => {
  const refused = (config: object, host: object): string =>
    t.throws(() => checkConfig(config, host, options), undefined, JSON.stringify([config, host]))!.message
  t.is(refused({}, { Memory: 1024 }), 'Minimum memory limit allowed is 6MB')
  t.is(refused({}, { CpuShares: 1 }), 'the minimum allowed cpu-shares is 2')
  t.is(refused({}, { CpuShares: 1e6 }), 'the maximum allowed cpu-shares is 262144')
  for (const NetworkMode of ['container:x', 'host'])
    t.is(
      refused({ MacAddress: '02:00:00:00:00:01' }, { NetworkMode }),
      'conflicting options: mac-address and the network mode',
    )
  t.is(refused({}, { MemoryReservation: 1024 }), 'Minimum memory reservation allowed is 6MB')
  t.is(refused({}, { KernelMemory: 1024 }), 'Minimum kernel memory limit allowed is 6MB')
  t.is(refused({}, { CpusetMems: '3-' }), 'Invalid value 3- for cpuset mems: invalid format: 3-')
  t.is(
    refused({}, { RestartPolicy: { Name: 'always', MaximumRetryCount: 2 } }),
    "maximum retry count cannot be used with restart policy 'always'",
  )
  t.is(
    refused({}, { RestartPolicy: { Name: 'on-failure', MaximumRetryCount: -2 } }),
    'maximum retry count cannot be negative',
  )
  t.is(refused({}, { PortBindings: { '80/tcp': [{ HostPort: 'aa80' }] } }), 'invalid port specification: "aa80"')
  t.is(refused({}, { ExtraHosts: ['name'] }), 'bad format for add-host: "name"')
  t.is(refused({}, { ExtraHosts: ['name:b'] }), 'invalid IP address in add-host: "b"')
  t.notThrows(() => checkConfig({}, { ExtraHosts: ['a:host-gateway', 'b:::1', 'c:10.0.0.1'] }, options))
  t.is(refused({}, { Runtime: 'none' }), 'Unknown runtime specified none')
  for (const NetworkMode of ['container', 'container:'])
    t.is(refused({}, { NetworkMode }), 'Invalid network mode: invalid container format container:<name|id>')
  t.notThrows(() => checkConfig({}, { LogConfig: { Type: 'json-file', Config: { 'max-file': '3' } } }, options))
  t.is(refused({}, { CgroupnsMode: 'x' }), 'invalid cgroup namespace mode: x')
  for (const env of ['', '=x']) t.is(refused({ Env: [env] }, {}), `invalid environment variable: ${env}`)
  t.is(refused({ WorkingDir: 'x' }, {}), "the working directory 'x' is invalid, it needs to be an absolute path")
  t.is(refused({}, { CapAdd: ['nope'] }), 'invalid CapAdd: unknown capability: "CAP_NOPE"')
  t.regex(refused({}, { RestartPolicy: { Name: 'sometimes' } }), /^invalid restart policy 'sometimes'/)
  t.is(
    refused({}, { AutoRemove: true, RestartPolicy: { Name: 'always' } }),
    "can't create 'AutoRemove' container with restart policy",
  )
  t.regex(refused({}, { LogConfig: { Type: 'gelf' } }), /no log driver named 'gelf'/)
  t.is(
    refused({}, { NanoCpus: 1e9, CpuQuota: 5000 }),
    'Conflicting options: Nano CPUs and CPU Quota cannot both be set',
  )
  t.regex(refused({ StopSignal: 'SIGX' }, {}), /^Invalid signal: SIGX$/)
  t.regex(refused({}, { CpusetCpus: '9999' }), /^Requested CPUs are not available - requested 9999, available: \d/)
  t.is(refused({}, { CpusetCpus: 'a-b' }), 'Invalid value a-b for cpuset cpus: invalid format: a-b')
  t.is(refused({}, { Isolation: 'hyperv' }), `Invalid isolation: "hyperv" - linux only supports 'default'`)
  t.is(
    refused({}, { DeviceRequests: [{ Driver: '', Capabilities: [['gpu']] }] }),
    'could not select device driver "" with capabilities: [[gpu]]',
  )
  t.regex(refused({}, { StorageOpt: { size: '1G' } }), /--storage-opt is not supported/)
  t.is(
    refused({}, { BlkioDeviceReadBps: [{ Rate: 1 }] }),
    'BlkioDeviceReadBps: Path must be the absolute path of a device, not missing',
  )
  t.regex(
    refused({ ExposedPorts: { '80/tcp': {} } }, { NetworkMode: 'container:x' }),
    /port exposing and the container type network mode/,
  )
  t.notThrows(
    () => checkConfig({ ExposedPorts: { '80/tcp': {} } }, { NetworkMode: 'container:x' }, options, {}),
    'ports that the image exposes are no conflict',
  )
  t.is(checkName('/abc'), 'abc')
  for (const bad of ['a', '-ab', 'a/b', '']) t.throws(() => checkName(bad), { code: 'invalidName' } as never, bad)
})

test('links are told apart from how inspect shows them, and older clients have other defaults', (t) => {
  for (const link of ['db:sql', '/db:/app/sql', 'db:/sql']) t.is(plainLink(link), 'db:sql')
  const ipc = (version: string) => createBodyOf({ HostConfig: {} }, version).HostConfig?.IpcMode
  t.is(ipc('1.39'), 'shareable')
  t.is(ipc('1.40'), undefined)
  t.is(
    decorated({ time: '2026-01-02T03:04:05.25Z', data: Buffer.from('x'), attributes: {} }, SHOWN).toString(),
    '2026-01-02T03:04:05.250000000Z x',
  )
  t.is(
    decorated({ time: '2026-01-02T03:04:05Z', data: Buffer.from('x'), attributes: {} }, SHOWN).toString(),
    '2026-01-02T03:04:05.000000000Z x',
  )
})
const SHOWN = { timestamps: true, details: false }

test('times of log lines keep their nanoseconds', (t) => {
  t.is(parseTime('1970-01-01T00:00:01.5Z'), 1500)
  t.true(Math.abs(parseTime('1970-01-01T00:00:00.000000123Z') - 0.000123) < 1e-9)
  t.is(parseTime('1970-01-01T01:00:00+01:00'), 0)
  t.true(Number.isNaN(parseTime('yesterday')))
})

test('a moment is one number, told as a log line, as a query of seconds and as a date', (t) => {
  for (let k = 0; k < 2000; k++) {
    const seconds = 1_700_000_000 + k * 7919
    const nanos = (k * 123_456_789) % 1_000_000_000
    const date = `${new Date(seconds * 1000).toISOString().slice(0, 19)}.${String(nanos).padStart(9, '0')}Z`
    const logged = parseTime(date)
    t.is(parseTimestamp(`${seconds}.${String(nanos).padStart(9, '0')}`, 0, 'since'), logged, date)
    t.is(parseTimestamp(date, 0, 'since'), logged, date)
    t.is(millisOf(seconds, nanos), logged, date)
  }
})

test('counters of both cgroup versions and of /proc/stat', (t) => {
  t.deepEqual(parseIoStat('8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n'), [
    { major: 8, minor: 0, op: 'read', bytes: 1, ops: 3 },
    { major: 8, minor: 0, op: 'write', bytes: 2, ops: 4 },
  ])
  t.deepEqual(parseBlkio('8:0 Read 10\nTotal 10\n', '8:0 Read 2\nTotal 2\n'), [
    { major: 8, minor: 0, op: 'read', bytes: 10, ops: 2 },
  ])
  t.deepEqual(parseProcStat('cpu  1 2 3 4 5 6 7 8 9 9\ncpu0 1 1\ncpu1 1 1\nintr 5\n'), {
    systemNs: 28e7,
    onlineCpus: 2,
  })
})

test('a process table is cut down to the container, the command kept whole', (t) => {
  const table = 'UID          PID CMD\nroot           1 init\nroot          22 sh -c  sleep 5\n'
  t.deepEqual(parseProcessTable(table, new Set([22])), {
    titles: ['UID', 'PID', 'CMD'],
    processes: [['root', '22', 'sh -c sleep 5']],
  })
  t.throws(() => parseProcessTable('A B\n1 2\n', new Set()), { message: "Couldn't find PID field in ps output" })
})

test('a path is resolved inside the root, and what cannot be resolved is told without where the root is', async (t) => {
  const root = mkdtempSync(join(tmpdir(), 'shoal-root-'))
  t.teardown(() => rmSync(root, { recursive: true }))
  symlinkSync('../../../etc', join(root, 'out'))
  symlinkSync('loop', join(root, 'loop'))
  t.is(await resolveInRoot(root, 'out/passwd'), join(root, 'etc/passwd'))
  t.is(await resolveInRoot(root, 'loop', false), join(root, 'loop'))
  for (const [path, code] of [
    ['loop', 'tooManyLinks'],
    ['é'.repeat(128), 'nameTooLong'],
  ] as const) {
    const error = await t.throwsAsync(resolveInRoot(root, path))
    t.like(error, { kind: 'invalid', code })
    t.false(error!.message.includes(root))
  }
})

test('a mount or device of a plugin can be set only where its configuration has one', (t) => {
  const config = parsePluginConfig(
    Buffer.from(
      JSON.stringify({
        Mounts: [
          { Name: 'm1', Source: '/a', Settable: ['source'] },
          { Name: 'm2', Settable: ['source'] },
        ],
        Linux: { Devices: [{ Name: 'd', Settable: ['path'] }] },
      }),
    ),
  )
  const set = (change: string) => applySettings(config, defaultSettings(config), [change])
  t.is(set('m1.source=/b').Mounts[0]!.Source, '/b')
  t.throws(() => set('m2.source=/b'), { message: 'Plugin config has no mount source: m2' })
  t.throws(() => set('d.path=/dev/x'), { message: 'Plugin config has no device path: d' })
})
