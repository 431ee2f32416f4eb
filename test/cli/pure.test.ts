// What the command decides by itself: flags, templates, tables, bodies of requests.
import test from 'ava'
import { filters, labels, sizeOrUnlimited, unsigned, whole } from '../../src/cli/command.js'
import { type ContainerFlags, containerFlags, createBody, parseMount, ports } from '../../src/cli/container/body.js'
import { splitReference } from '../../src/cli/container/copy.js'
import { portsText } from '../../src/cli/container/ls.js'
import { startStatus } from '../../src/cli/container/run.js'
import { timestamp } from '../../src/cli/container/session.js'
import { statsRow } from '../../src/cli/container/stats.js'
import { Command, checkArguments, readFlags, UsageError } from '../../src/cli/flags.js'
import { align, formatList } from '../../src/cli/format/table.js'
import { compile } from '../../src/cli/format/template.js'
import { binarySize, humanSize, parseDuration, parseSize } from '../../src/cli/format/units.js'
import { familiar, splitTag } from '../../src/cli/image/reference.js'
import { createFlags, createSpec, parsePort, updateFlags, updateSpec, words } from '../../src/cli/service/flags.js'
import { parseFileReference } from '../../src/cli/service/references.js'
import { detachBytes, detachWatch } from '../../src/cli/streams.js'
import { humanDuration } from '../../src/common/duration.js'
import { goDuration } from '../../src/common/index.js'

function line(): Command {
  const c = new Command('shoal').command('try')
  return c
    .option('-d, --detach', '')
    .option('-i, --interactive', '')
    .option('-t, --tty', '')
    .option('--sig-proxy', '', true)
    .option('--no-trunc', '')
    .option('-p, --publish <ports>', '', (v: string, all: string[] = []) => [...all, v])
    .option('-n, --number <n>', '', whole)
    .option('--name <name>', '', '') as Command
}
const read = (...argv: string[]) => {
  const c = line()
  const r = readFlags(c, argv)
  return { ...r, flags: c.opts() }
}
const refusal = (run: () => unknown): UsageError => {
  try {
    run()
  } catch (e) {
    if (e instanceof UsageError) return e
    throw e
  }
  throw new Error('it was accepted')
}

test('a boolean flag never takes the next word', (t) => {
  t.like(read('-d', 'image'), { rest: ['image'], flags: { detach: true } })
  t.like(read('--detach', 'false'), { rest: ['false'], flags: { detach: true } })
})

test('a boolean flag takes a value after =, in all of pflag’s spellings', (t) => {
  for (const off of ['--detach=false', '-d=false', '--detach=0', '--detach=F']) t.is(read(off).flags.detach, false, off)
  for (const on of ['--detach=true', '-d=1', '--detach=T']) t.is(read(on).flags.detach, true, on)
  t.is(read('--sig-proxy=false').flags.sigProxy, false)
  t.is(read().flags.sigProxy, true)
  t.is(read('--no-trunc').flags.trunc, false)
  t.is(read('--no-trunc=false').flags.trunc, true)
  t.is(read('--detach', '--detach=false').flags.detach, false)
})

test('short flags combine, and the last may take a value', (t) => {
  t.like(read('-itd', 'x').flags, { interactive: true, tty: true, detach: true })
  t.deepEqual(read('-dp80:80', '-p', '81:81', '-p=82:82').flags.publish, ['80:80', '81:81', '82:82'])
  t.like(read('-itn', '5').flags, { interactive: true, tty: true, number: 5 })
})

test('flags stand anywhere, unless the command ends them at its first argument', (t) => {
  t.like(read('a', '-d', 'b'), { rest: ['a', 'b'], flags: { detach: true } })
  t.deepEqual(read('-d', '--', '-t').rest, ['-t'])
  const c = line().stopAtFirstArgument('IMAGE')
  t.deepEqual(readFlags(c, ['-d', 'image', 'sh', '-c', 'x', '--help']), {
    rest: ['image', 'sh', '-c', 'x', '--help'],
    help: false,
  })
})

test('wrong flags are told in docker’s words with status 125', (t) => {
  const told = (...argv: string[]): string => {
    const e = refusal(() => read(...argv))
    t.is(e.status, 125)
    return e.message.split('\n')[0]!
  }
  t.is(told('--foo=1'), 'unknown flag: --foo')
  t.is(told('-dz'), "unknown shorthand flag: 'z' in -dz")
  t.is(told('--name'), 'flag needs an argument: --name')
  t.is(told('-dp'), "flag needs an argument: 'p' in -dp")
  t.is(
    told('--tty=maybe'),
    'invalid argument "maybe" for "-t, --tty" flag: strconv.ParseBool: parsing "maybe": invalid syntax',
  )
  t.is(told('-n', 'x'), 'invalid argument "x" for "-n, --number" flag: strconv.ParseInt: parsing "x": invalid syntax')
})

test('too few and too many arguments are told with status 1', (t) => {
  const check = (declare: (c: Command) => unknown, given: number): string => {
    const c = new Command('shoal').command('verb')
    declare(c)
    return refusal(() => checkArguments(c, given)).message.split('\n')[0]!
  }
  t.is(
    check((c) => c.argument('<a...>'), 0),
    "shoal: 'shoal verb' requires at least 1 argument",
  )
  t.is(
    check((c) => c.argument('<a>').argument('<b>'), 1),
    "shoal: 'shoal verb' requires 2 arguments",
  )
  t.is(
    check((c) => c.argument('[a]'), 2),
    "shoal: 'shoal verb' requires at most 1 argument",
  )
  t.is(
    check(() => {}, 1),
    "shoal: 'shoal verb' accepts no arguments",
  )
  t.is(
    check((c) => c.argument('<a>').argument('[b]'), 3),
    "shoal: 'shoal verb' requires at least 1 and at most 2 arguments",
  )
})

test('templates: fields, pipes, blocks and docker’s functions', (t) => {
  const v = { A: 1, B: 'x,y', L: [1, 2], M: { b: 2, a: 'q' }, E: null, F: false, Id: 'abc' }
  const is = (template: string, expected: string): void => {
    t.is(compile(template)(v), expected, template)
  }
  is('{{.A}} {{.B}}', '1 x,y')
  is('{{json .L}} {{json .M.a}}', '[1,2] "q"')
  is('{{range $i, $x := .L}}{{if $i}},{{end}}{{$x}}{{end}}', '1,2')
  is('{{range $k, $v := .M}}{{$k}}={{$v}};{{end}}', 'a=q;b=2;')
  is('{{with .M}}{{.a}}{{else}}none{{end}}', 'q')
  is('{{if and .A (eq .M.a "q")}}yes{{else if .F}}f{{else}}no{{end}}', 'yes')
  is('{{join (split .B ",") "-"}} {{upper .B}} {{len .L}} {{index .M "b"}} {{index .L 1}}', 'x-y X,Y 2 2 2')
  is('{{printf "%-4s|%3d|%q" .M.a .A .B}}', 'q   |  1|"x,y"')
  is('{{.M}} {{.L}} {{.Missing}} {{.E}}', 'map[a:q b:2] [1 2] <no value> <nil>')
  is('a {{- .A -}} b', 'a1b')
  is('{{.ID}}', 'abc')
  t.throws(() => compile('{{nosuch .A}}'), { message: /function "nosuch" not defined/ })
  t.throws(() => compile('{{if .A}}'), { message: /template parsing error/ })
  t.throws(() => compile('{{.M.none.x}}', { strict: true })(v), { message: /map has no entry for key "none"/ })
})

test('lists: aligned tables, templates, json with sorted keys, labels', (t) => {
  const f = { columns: { ID: 'ID', Name: 'NAME' }, shown: ['ID', 'Name'], id: 'ID', quiet: false }
  const rows = [{ Name: '<none>', ID: 'a', ...labels({ z: '1', 'a.b': '2' }) }]
  t.is(formatList(rows, { ...f, format: '' }), 'ID        NAME\na         <none>\n')
  t.is(formatList(rows, { ...f, format: '', quiet: true }), 'a\n')
  t.is(formatList(rows, { ...f, format: 'json' }), '{"ID":"a","Labels":"a.b=2,z=1","Name":"\\u003cnone\\u003e"}\n')
  t.is(formatList(rows, { ...f, format: '{{.Name}}\\t{{.Label "a.b"}}' }), '<none>\t2\n')
  t.is(formatList(rows, { ...f, format: 'table {{.Label "a.b_c"}}\t{{.ID}}' }), 'b c       ID\n          a\n')
  t.throws(() => formatList(rows, { ...f, format: '{{.Nope}}' }), { message: /can't evaluate field Nope/ })
  t.is(align(['CONTAINER ID\tX', 'a\tb']), 'CONTAINER ID   X\na              b\n')
})

test('sizes, durations and times are read and written as docker does', (t) => {
  t.is(humanSize(1_981_953, 3), '1.98MB')
  t.is(humanSize(1_981_953), '1.982MB')
  t.is(binarySize(64 * 1024 * 1024), '64MiB')
  t.is(parseSize('1.5g'), 1.5 * 1024 ** 3)
  t.is(parseSize('64MiB'), 64 * 1024 ** 2)
  t.is(parseSize('x'), null)
  t.is(sizeOrUnlimited('-1'), -1)
  t.throws(() => unsigned('-1'))
  t.is(parseDuration('1m30s'), 90e9)
  t.is(parseDuration('5'), null)
  t.is(humanDuration(59_000), '59 seconds')
  t.is(humanDuration(3_600_000 * 47), '47 hours')
  t.is(goDuration(5_400e9), '1h30m0s')
  t.is(goDuration(1_500e6), '1.5s')
  t.is(timestamp('1700000000.5'), '1700000000.5')
  t.is(timestamp('1m30s', 100_000), '10.000000000')
  t.is(timestamp('2013-01-02T13:23:37.25Z'), '1357133017.250000000')
  t.throws(() => timestamp('yesterday'), { message: /failed to parse/ })
})

test('published ports become bindings; ranges pair up', (t) => {
  t.deepEqual(ports(['127.0.0.1:8080-8081:80-81/udp', '[::1]:53:53', '443'], ['9']), {
    exposed: { '9/tcp': {}, '80/udp': {}, '81/udp': {}, '53/tcp': {}, '443/tcp': {} },
    bindings: {
      '80/udp': [{ HostIp: '127.0.0.1', HostPort: '8080' }],
      '81/udp': [{ HostIp: '127.0.0.1', HostPort: '8081' }],
      '53/tcp': [{ HostIp: '::1', HostPort: '53' }],
      '443/tcp': [{ HostIp: '', HostPort: '' }],
    },
  })
  t.deepEqual(ports(['8000-8010:80'], []).bindings['80/tcp'], [{ HostIp: '', HostPort: '8000-8010' }])
  t.throws(() => ports(['99999:1'], []), { message: 'invalid hostPort: 99999' })
  t.throws(() => ports(['80-82:80-81'], []), { message: /invalid ranges/ })
  t.throws(() => ports(['80:80/icmp'], []), { message: 'invalid proto: icmp' })
})

test('ports of a listed container are joined where the host’s are the same', (t) => {
  const port = (PrivatePort: number, PublicPort?: number, IP?: string, Type = 'tcp') => ({
    PrivatePort,
    Type,
    ...(PublicPort ? { PublicPort } : {}),
    ...(IP ? { IP } : {}),
  })
  t.is(
    portsText([port(80, 8080, '0.0.0.0'), port(9001, 9001, '0.0.0.0', 'udp'), port(9000, 9000, '0.0.0.0', 'udp')]),
    '0.0.0.0:9000-9001->9000-9001/udp, 0.0.0.0:8080->80/tcp',
  )
  t.is(portsText([port(80), port(81), port(443, 443, '::')]), '80-81/tcp, [::]:443->443/tcp')
})

test('mounts become the API’s objects', (t) => {
  t.deepEqual(parseMount('type=bind,src=/a,dst=/b,readonly,bind-propagation=rslave'), {
    Type: 'bind',
    Source: '/a',
    Target: '/b',
    ReadOnly: true,
    BindOptions: { Propagation: 'rslave' },
  })
  t.deepEqual(parseMount('type=tmpfs,target=/t,tmpfs-size=1m,tmpfs-mode=1777'), {
    Type: 'tmpfs',
    Target: '/t',
    TmpfsOptions: { SizeBytes: 1048576, Mode: 0o1777 },
  })
  t.deepEqual(parseMount('src=v,dst=/v,volume-driver=d,volume-opt=o=a=b,volume-label=k=v'), {
    Type: 'volume',
    Source: 'v',
    Target: '/v',
    VolumeOptions: { DriverConfig: { Name: 'd', Options: { o: 'a=b' } }, Labels: { k: 'v' } },
  })
  t.throws(() => parseMount('foo'), { message: "invalid field 'foo' must be a key=value pair" })
  t.throws(() => parseMount('type=bind,src=/a'), { message: 'target is required' })
})

test('flags of run become the body of create', (t) => {
  const c = containerFlags(new Command('run')).stopAtFirstArgument('IMAGE')
  const { rest } = readFlags(c, [
    ...['-it', '--rm', '-e', 'A=b', '-m', '64m', '--memory-swap', '-1', '--cpus', '.5', '--restart', 'on-failure:3'],
    ...['--network', 'name=n,alias=x,ip=10.0.0.9', '--ulimit', 'nofile=1:2', '--init=false', '-v', '/a:/b', '-v', '/c'],
    ...['--entrypoint', '', '--device', '/dev/null:/dev/x:r', 'image', 'sh', '-c', 'x'],
  ])
  const body = createBody(rest[0]!, rest.slice(1), c.opts() as ContainerFlags, {
    stdin: true,
    stdout: true,
    stderr: true,
  })
  t.like(body, {
    Image: 'image',
    Cmd: ['sh', '-c', 'x'],
    Entrypoint: [''],
    Env: ['A=b'],
    Tty: true,
    OpenStdin: true,
    StdinOnce: true,
    Volumes: { '/c': {} },
    HostConfig: {
      AutoRemove: true,
      Binds: ['/a:/b'],
      Memory: 64 * 1024 * 1024,
      MemorySwap: -1,
      NanoCpus: 5e8,
      Init: false,
      NetworkMode: 'n',
      RestartPolicy: { Name: 'on-failure', MaximumRetryCount: 3 },
      Ulimits: [{ Name: 'nofile', Soft: 1, Hard: 2 }],
      Devices: [{ PathOnHost: '/dev/null', PathInContainer: '/dev/x', CgroupPermissions: 'r' }],
    },
    NetworkingConfig: { EndpointsConfig: { n: { Aliases: ['x'], IPAMConfig: { IPv4Address: '10.0.0.9' } } } },
  })
})

const serviceSpec = (...argv: string[]) => {
  const c = createFlags(new Command('create'))
  readFlags(c, argv)
  return createSpec('image', ['arg'], c.opts())
}

test('flags of service create become a specification', (t) => {
  t.like(
    serviceSpec(
      ...['--name', 'web', '--replicas', '3', '-p', '8080:80', '-p', 'target=53,published=53,protocol=udp,mode=host'],
      ...['-e', 'A=b', '--constraint', 'node.role==manager', '--limit-cpu', '.5', '--update-parallelism', '2', '--tty'],
      ...[
        '--placement-pref',
        'spread=node.labels.dc',
        '--host',
        'h:1.2.3.4',
        '--stop-grace-period',
        '3s',
        '--init=false',
      ],
    ),
    {
      Name: 'web',
      Mode: { Replicated: { Replicas: 3 } },
      TaskTemplate: {
        ContainerSpec: {
          Image: 'image',
          Args: ['arg'],
          Env: ['A=b'],
          TTY: true,
          Init: false,
          Hosts: ['1.2.3.4 h'],
          StopGracePeriod: 3e9,
        },
        Placement: {
          Constraints: ['node.role==manager'],
          Preferences: [{ Spread: { SpreadDescriptor: 'node.labels.dc' } }],
        },
        Resources: { Limits: { NanoCPUs: 5e8 } },
      },
      UpdateConfig: { Parallelism: 2 },
      EndpointSpec: {
        Ports: [
          { Protocol: 'tcp', TargetPort: 80, PublishedPort: 8080, PublishMode: 'ingress' },
          { Protocol: 'udp', TargetPort: 53, PublishedPort: 53, PublishMode: 'host' },
        ],
      },
    },
  )
  t.throws(() => serviceSpec('--mode', 'global', '--replicas', '2'), { message: /replicas can only be used/ })
  t.throws(() => serviceSpec('--mode', 'x'), { message: /Unknown mode: x/ })
  t.throws(() => parsePort('0x'), { message: /invalid containerPort/ })
})

test('flags of service update change what they name and nothing else', (t) => {
  const old = serviceSpec(
    '-e',
    'A=1',
    '-e',
    'B=2',
    '-l',
    'x=y',
    '-p',
    '80:80',
    '--constraint',
    'a==b',
    '--replicas',
    '2',
  )
  const c = updateFlags(new Command('update'))
  readFlags(c, [
    ...['--env-add', 'A=9', '--env-rm', 'B', '--label-add', 'q=r', '--label-rm', 'x', '--publish-rm', '80'],
    ...['--publish-add', '81:81', '--constraint-rm', 'a==b', '--replicas', '5', '--force', '--args', 'sh -c "a b"'],
  ])
  const before = structuredClone(old)
  const now = updateSpec(old, c.opts())
  t.deepEqual(old, before, 'what was read is not changed')
  t.like(now, {
    Labels: { q: 'r' },
    Mode: { Replicated: { Replicas: 5 } },
    TaskTemplate: {
      ForceUpdate: 1,
      ContainerSpec: { Image: 'image', Env: ['A=9'], Args: ['sh', '-c', 'a b'] },
      Placement: { Constraints: [] },
    },
    EndpointSpec: { Ports: [{ Protocol: 'tcp', TargetPort: 81, PublishedPort: 81, PublishMode: 'ingress' }] },
  })
})

test('networks that stand beside the template are changed like those in it', (t) => {
  const c = updateFlags(new Command('update'))
  readFlags(c, ['--network-add', 'c', '--network-rm', 'a'])
  const now = updateSpec({ TaskTemplate: {}, Networks: [{ Target: 'a' }, { Target: 'b' }] }, c.opts())
  t.deepEqual(now, { TaskTemplate: { Networks: [{ Target: 'b' }, { Target: 'c' }] } })
})

test('secrets and configs are referred to by name or in full', (t) => {
  t.deepEqual(parseFileReference('s', 'secret'), { source: 's', file: { Name: 's', UID: '0', GID: '0', Mode: 0o444 } })
  t.deepEqual(parseFileReference('source=c,target=/etc/c,uid=1,mode=0400', 'config'), {
    source: 'c',
    file: { Name: '/etc/c', UID: '1', GID: '0', Mode: 0o400 },
  })
  t.throws(() => parseFileReference('target=x', 'secret'), { message: /source is required/ })
})

test('detach keys: split sequences are found, other keys pass', (t) => {
  t.deepEqual(detachBytes('ctrl-p,ctrl-q'), [16, 17])
  t.throws(() => detachBytes('ctrl-p,foo'), { message: /invalid detach keys/ })
  const watch = detachWatch([16, 17])
  t.deepEqual(watch(Buffer.from('a\u0010')), { pass: Buffer.from('a'), detached: false })
  t.deepEqual(watch(Buffer.from('b\u0010')), { pass: Buffer.from('\u0010b'), detached: false })
  t.deepEqual(watch(Buffer.from('\u0011')), { pass: Buffer.alloc(0), detached: true })
})

test('references, filters, statuses and words', (t) => {
  t.deepEqual(splitTag('h:5000/a/b:1'), { repository: 'h:5000/a/b', tag: '1' })
  t.deepEqual(splitTag('h:5000/a'), { repository: 'h:5000/a', tag: '' })
  t.is(familiar('busybox:1'), 'docker.io/library/busybox:1')
  t.is(familiar('localhost/x:1'), 'localhost/x:1')
  t.deepEqual(splitReference('c:/x:y'), { container: 'c', path: '/x:y' })
  t.is(splitReference('./a:b'), null)
  t.is(splitReference('file'), null)
  t.deepEqual(filters(['label=a=b', 'label=c', 'name=x']), { label: ['a=b', 'c'], name: ['x'] })
  t.is(startStatus('exec: "x": executable file not found in $PATH'), 127)
  t.is(startStatus('exec: "/etc": is a directory'), 126)
  t.is(startStatus('port is already allocated'), 125)
  t.deepEqual(words(`a "b c" 'd e'`), ['a', 'b c', 'd e'])
})

test('a sample of stats becomes a row', (t) => {
  const cpu = (total: number, system: number) => ({
    cpu_usage: { total_usage: total },
    system_cpu_usage: system,
    online_cpus: 2,
  })
  const row = statsRow(
    {
      id: 'a'.repeat(64),
      name: '/web',
      cpu_stats: cpu(200, 2000),
      precpu_stats: cpu(100, 1000),
      memory_stats: { usage: 3 * 1024 * 1024, limit: 8 * 1024 * 1024, stats: { inactive_file: 1024 * 1024 } },
      networks: { eth0: { rx_bytes: 1000, tx_bytes: 0 } },
      blkio_stats: { io_service_bytes_recursive: null },
      pids_stats: { current: 3 },
    },
    'web',
    true,
  )
  t.like(row, {
    CPUPerc: '20.00%',
    MemUsage: '2MiB / 8MiB',
    MemPerc: '25.00%',
    NetIO: '1kB / 0B',
    BlockIO: '0B / 0B',
    PIDs: '3',
    Name: 'web',
    ID: 'aaaaaaaaaaaa',
  })
})
