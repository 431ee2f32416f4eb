// Settings from flags and file: conflicts, mistakes, and what a reload may change.
import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import test from 'ava'
import { type DaemonOptions, parseOptions } from '../../src/daemon/options.js'
import { planReload } from '../../src/daemon/reload.js'

const dir = mkdtempSync(join(tmpdir(), 'shoal-options-'))
test.after.always(() => rmSync(dir, { recursive: true, force: true }))

let files = 0
function file(content: unknown): string {
  const path = join(dir, `${++files}.json`)
  writeFileSync(path, typeof content === 'string' ? content : JSON.stringify(content))
  return path
}
const parse = (content: unknown, ...flags: string[]): DaemonOptions =>
  parseOptions(['--config-file', file(content), ...flags], '1.0').options
const mistakes = (content: unknown, ...flags: string[]): string => {
  try {
    parse(content, ...flags)
  } catch (e) {
    return (e as Error).message
  }
  return ''
}

/** Flags that name a bundle. */
function tlsFiles(): string[] {
  const out = mkdtempSync(join(dir, 'certs-'))
  execFileSync(process.execPath, [fileURLToPath(new URL('../../../certs/make.mjs', import.meta.url)), '--out', out])
  return ['ca', 'cert', 'key'].flatMap((n) => [`--tls${n === 'ca' ? 'cacert' : n}`, join(out, 'server', `${n}.pem`)])
}

test('TLS files that cannot work are told before anything is started', (t) => {
  const own = tlsFiles()
  const other = tlsFiles()
  const at = (files: string[], n: number, path: string): string[] => files.with(2 * n + 1, path)
  t.is(mistakes({}, '--tlsverify', ...own), '')
  t.regex(mistakes({}, '--tlsverify', ...at(own, 2, other[5]!)), /Could not load X509 key pair .*: key values mismatch/)
  t.regex(mistakes({}, '--tlsverify', ...at(own, 1, '/etc/passwd')), /Could not load X509 key pair .*: no start line/)
  t.regex(mistakes({}, '--tlsverify', ...at(own, 1, '/none')), /key pair .*: tlscert \/none: there is no such file/)
  t.regex(mistakes({}, '--tlsverify', ...at(own, 0, '/etc/passwd')), /could not read CA certificate "\/etc\/passwd"/)
})

test('flags, file and defaults are put together', (t) => {
  const o = parse(
    {
      labels: ['a=b'],
      'log-opts': { 'max-size': '5m' },
      'default-ulimits': { nofile: { Soft: 1, Hard: 2 } },
      debug: true,
    },
    '--shutdown-timeout',
    '7',
  )
  t.like(o, {
    labels: ['a=b'],
    logOptions: { 'max-size': '5m' },
    defaultUlimits: [{ Name: 'nofile', Soft: 1, Hard: 2 }],
    logLevel: 'debug',
    shutdownTimeoutSeconds: 7,
    hosts: ['unix:///var/run/shoal/shoal.sock'],
  })
  t.is(parse('').logDriver, 'json-file', 'an empty file is an empty object')
})

test('a directive in both places is refused, lists as well', (t) => {
  const text = mistakes(
    { debug: true, labels: ['c=d'], runtimes: { x: { path: '/x' } }, hosts: ['unix:///a'] },
    '--debug',
    '--label',
    'a=b',
    '--add-runtime',
    'y=/y',
    '-H',
    'unix:///b',
  )
  t.regex(text, /specified both as a flag and in the configuration file: /)
  t.regex(text, /debug: \(from flag: true, from file: true\)/)
  t.regex(text, /labels: \(from flag: \[a=b\], from file: \[c=d\]\)/)
  t.regex(text, /runtimes: \(from flag: {"y":{"path":"\/y"}}, from file: {"x":{"path":"\/x"}}\)/)
  t.regex(text, /hosts: \(from flag: \[unix:\/\/\/b\], from file: \[unix:\/\/\/a\]\)/)
})

test('all mistakes of a file and of the flags are named at once', (t) => {
  const text = mistakes(
    {
      nonsense: 1,
      debug: 'yes',
      labels: ['novalue'],
      'log-level': 'loud',
      'registry-mirrors': ['ftp://x'],
      'insecure-registries': ['http://r:5000'],
      dns: ['not-an-address'],
      mtu: 5,
      'log-driver': 'gelf',
      'default-runtime': 'fast',
      hosts: ['tcp://0.0.0.0', 'ftp://x', 'unix://relative'],
      tlsverify: true,
    },
    '--bip',
    '10.0.0.1',
    '--group',
    'no-such-group-here',
  )
  for (const expected of [
    /"nonsense" doesn't match any configuration option/,
    /debug must be boolean, not yes/,
    /log-level must be equal to one of the allowed values \(debug, .*\), not loud/,
    /label "novalue": use KEY=VALUE/,
    /registry mirror "ftp:\/\/x"/,
    /insecure registry "http:\/\/r:5000": use HOST\[:PORT\]/,
    /dns "not-an-address" is no IP address/,
    /mtu 5: use 68 to 65535/,
    /no log driver named 'gelf' is registered/,
    /default runtime "fast" is not known/,
    /--host "ftp:\/\/x": use unix:/,
    /--host "unix:\/\/relative": the path must be absolute/,
    /bip "10.0.0.1": use ADDRESS\/BITS/,
    /group "no-such-group-here": there is no such group/,
    /Could not load X509 key pair \(cert: "", key: ""\): tlscert is needed with TLS; tlskey .*; tlscacert .*; make a bundle/,
  ])
    t.regex(text, expected)
  t.notRegex(text, /0\.0\.0\.0/, 'with TLS the port need not be named')
  t.regex(text, /^the configuration has 15 mistakes:\n/)
})

test('flags are written and read as those of dockerd', (t) => {
  t.like(
    parse(
      {},
      '-b=none',
      '-D=true',
      '--icc=false',
      '--no-new-privileges',
      '--default-shm-size',
      '1.5m',
      '--oom-score-adjust',
      '-500',
    ),
    {
      bridge: 'none',
      debug: true,
      icc: false,
      noNewPrivileges: true,
      defaultShmBytes: 1536 * 1024,
      oomScoreAdjust: -500,
    },
  )
  t.deepEqual(parse({}, '-H=unix:///a', '--host', 'unix:///a').hosts, ['unix:///a'], 'one socket, named twice')
  const files = tlsFiles()
  t.like(parse({}, '--tlsverify', ...files), { tls: true, tlsVerify: true, hosts: ['tcp://localhost:2376'] })
  t.like(parse({}, '--tlsverify=false', ...files), { tls: true, tlsVerify: false })
  t.like(parse({}, '--graph', '/old'), { dataRoot: '/old' })
  t.is(parse({ graph: '/old' }).dataRoot, '/old')
  t.like(parse({ 'default-shm-size': '64M', 'max-concurrent-downloads': null, labels: ['a=b', 'a=b'] }), {
    defaultShmBytes: 64 << 20,
    maxConcurrentDownloads: 3,
    labels: ['a=b'],
  })
  t.like(parse({ runtimes: { vm: { path: 'vm', runtimeArgs: ['--debug'] } }, 'default-runtime': 'runc' }).runtimes, {
    vm: { path: 'vm', runtimeArgs: ['--debug'] },
  })
  t.throws(() => parse({}, '--icc=maybe'), { message: /use true or false/ })
})

test('a setting without effect is told, one whose lack would mislead is refused', (t) => {
  t.deepEqual(parse({ features: { buildkit: true } }, '--containerd-namespace', 'x').warnings, [
    'containerd-namespace is accepted without effect: Shoal runs containers itself, without containerd',
    'features is accepted without effect: no feature can be switched',
  ])
  t.deepEqual(parse({}).warnings, [])
  t.regex(mistakes({ 'userns-remap': 'default' }), /^userns-remap is not supported: /)
  t.deepEqual(parse({}, '--authorization-plugin', 'x').authorizationPlugins, ['x'])
  t.regex(mistakes({ 'storage-opts': ['overlay2.size=1G'] }), /^storage-opts is not supported: /)
  t.deepEqual(parse({ 'userland-proxy-path': '/x' }).warnings.length, 1)
})

test('values that cannot work are refused', (t) => {
  for (const [content, expected] of [
    [{ bridge: 'b', bip: '10.0.0.1/8' }, /bridge and bip cannot be given together/],
    [{ iptables: false, icc: false }, /iptables=false and icc=false/],
    [{ runtimes: { runc: { path: '/x' } } }, /^runtime name 'runc' is reserved$/],
    [{ 'default-ipc-mode': 'host' }, /default IPC mode "host" is not supported/],
    [{ 'default-cgroupns-mode': 'x' }, /cgroup namespace mode "x" is invalid/],
    [{ 'exec-opts': ['native.cgroupdriver=systemd'] }, /exec-opt "native.cgroupdriver=systemd" is not supported/],
    [{ 'seccomp-profile': '/nowhere' }, /seccomp-profile \/nowhere: ENOENT/],
    [{ 'max-download-attempts': 0 }, /max-download-attempts 0: use 1 to 100/],
    [{ 'default-shm-size': 'big' }, /default-shm-size "big": use a size/],
    [{ 'fixed-cidr-v6': '10.0.0.0/8' }, /fixed-cidr-v6 "10.0.0.0\/8": use ADDRESS\/BITS/],
    [{ 'fixed-cidr-v6': 'fd00::/127' }, /fixed-cidr-v6/],
    [{ 'default-gateway-v6': '10.0.0.1' }, /default-gateway-v6 "10.0.0.1" is no IPv6 address/],
    [{ 'default-address-pools': [{ base: 'fd00::/64', size: 48 }] }, /default address pool fd00::\/64 of size 48/],
    [{ ip: 'x', 'host-gateway-ip': 'y' }, /ip "x" is no IP address\n.*host-gateway-ip "y"/],
  ] as const)
    t.regex(mistakes(content), expected)
  const six = { ipv6: true, 'fixed-cidr-v6': 'fd00:1::/64', 'default-gateway-v6': 'fd00:1::9', ip: '::1' }
  t.is(mistakes({ ...six, 'default-address-pools': [{ base: 'fd00::/48', size: 64 }] }), '')
})

test('TCP without TLS must name its port', (t) => {
  t.regex(
    mistakes({}, '-H', 'tcp://127.0.0.1'),
    /^--host "tcp:\/\/127.0.0.1": without TLS the port must be named \(tcp:\/\/127.0.0.1:2375\)/,
  )
  t.is(mistakes({}, '-H', 'tcp://127.0.0.1:2375'), '')
})

test('a file that is no JSON object, or is not there though named, is one mistake', (t) => {
  t.regex(mistakes('{"debug": tru}'), /^the configuration file .* is not valid JSON: /)
  t.regex(mistakes('[]'), /must hold a JSON object/)
  t.throws(() => parseOptions(['--config-file', join(dir, 'none')], '1'), {
    message: /unable to read the configuration file .*none/,
  })
})

test('a reload takes over what may change and names what needs a restart', (t) => {
  const now = parse({ labels: ['a=b'] })
  const next = parse({
    labels: ['c=d'],
    debug: true,
    'live-restore': true,
    'registry-mirrors': ['https://m'],
    'data-root': '/elsewhere',
    mtu: 1400,
    'default-shm-size': '1M',
    'max-concurrent-uploads': 9,
  })
  const plan = planReload(now, next)
  t.deepEqual([...plan.changed].sort(), [
    'debug',
    'default-shm-size',
    'labels',
    'live-restore',
    'log-level',
    'max-concurrent-uploads',
    'registry-mirrors',
  ])
  t.deepEqual([...plan.needRestart].sort(), ['dataRoot', 'mtu'])
  t.like(plan.options, { labels: ['c=d'], debug: true, liveRestore: true, dataRoot: now.dataRoot, mtu: 0 })
  t.like(plan.attributes, { labels: '["c=d"]', debug: 'true', 'live-restore': 'true', 'shutdown-timeout': '15' })
  t.deepEqual(planReload(now, now).changed, [])
})
