// Every command for a swarm that cli.md ranks must, by the stock docker commands 28 and 20.10, with a look at what it did.
import { mkdirSync, rmSync, writeFileSync } from 'node:fs'
import test from 'ava'
import { type Lab, type LabHost, lab, until, webImage } from './support.js'
import { type Client, Walk } from './walk-kit.js'

const scratch = '/tmp/shoal-docker-walk-swarm'

const walk = new Walk()
let l: Lab
let m1: LabHost
let w1: LabHost
let image: string

test.before(async () => {
  mkdirSync(scratch, { recursive: true })
  l = await lab('idws', '10.92.26', 1, 1)
  ;[m1, w1] = l.plan.hosts as [LabHost, LabHost]
  image = await webImage(l, m1)
  await walk.start(l)
})
test.after.always(async () => {
  await walk.stop()
  await l?.down()
  rmSync(scratch, { recursive: true, force: true })
})

const fetch = (h: LabHost, url: string): Promise<string> => l.inNetns(h.netns, ['curl', '-fsS', '-m', '5', url])

walk.step('a swarm from init to leave', async (t, c, w) => {
  t.teardown(async () => {
    for (const x of [w, c]) await x.run(['swarm', 'leave', '--force'])
  })
  t.regex(
    await c.ok('swarm', 'init', '--advertise-addr', m1.address),
    /Swarm initialized: current node \([0-9a-z]{25}\) is now a manager/,
  )
  const token = await c.ok('swarm', 'join-token', '-q', 'worker')
  t.regex(await c.ok('swarm', 'join-token', 'manager'), /docker swarm join --token SWMTKN-1-/)
  t.is(
    await w.ok('swarm', 'join', '--advertise-addr', w1.address, '--token', token, `${m1.address}:2377`),
    'This node joined a swarm as a worker.',
  )
  await until(
    'both are ready',
    20,
    async () =>
      (await c.ok('node', 'ls', '--format', '{{.Hostname}} {{.ManagerStatus}} {{.Status}} {{.Availability}}'))
        .split('\n')
        .sort()
        .join() === 'm1 Leader Ready Active,w1  Ready Active',
  )
  t.is(
    await c.ok('node', 'inspect', '-f', '{{.Description.Hostname}} {{.Spec.Role}} {{.Status.Addr}}', 'w1'),
    `w1 worker ${w1.address}`,
  )
  t.regex(await c.ok('node', 'inspect', '--pretty', 'self'), /Hostname:\s+m1/)

  await c.ok('network', 'create', '-d', 'overlay', 'ov')
  t.regex(await c.ok('network', 'ls', '--format', '{{.Name}} {{.Driver}} {{.Scope}}'), /^ov overlay swarm$/m)
  // Attached: the command waits until the service stands.
  const created = await c.run([
    'service',
    'create',
    '--name',
    'web',
    '--replicas',
    '2',
    '--network',
    'ov',
    '-p',
    '8080:80',
    '--stop-grace-period',
    '1s',
    '--update-monitor',
    '500ms',
    '--update-parallelism',
    '0',
    '--limit-memory',
    '50m',
    image,
  ])
  t.is(created.status, 0, created.stderr)
  t.regex(created.stdout, /onverged/)
  t.is(
    await c.ok('service', 'ls', '--format', '{{.Name}} {{.Mode}} {{.Replicas}} {{.Ports}}'),
    'web replicated 2/2 *:8080->80/tcp',
  )
  t.deepEqual(
    (await c.ok('service', 'ps', '--format', '{{.Name}} {{.Node}} {{.DesiredState}}', 'web')).split('\n').sort(),
    ['web.1 m1 Running', 'web.2 w1 Running'].map((x) => x),
    'one on each host',
  )
  t.is(
    await c.ok('service', 'inspect', '-f', '{{.Spec.Name}} {{.Spec.TaskTemplate.Resources.Limits.MemoryBytes}}', 'web'),
    `web ${50 * 1024 * 1024}`,
  )
  t.regex(await c.ok('service', 'inspect', '--pretty', 'web'), /PublishedPort = 8080/)
  const cid = await w.ok('ps', '-q', '--no-trunc', '--filter', 'label=com.docker.swarm.service.name=web')
  t.is(await w.ok('inspect', '-f', '{{.HostConfig.Memory}}', cid), String(50 * 1024 * 1024))
  for (const h of [m1, w1])
    await until(`${h.name} serves the page`, 10, async () =>
      /It swims/.test(await fetch(h, `http://${h.address}:8080/`)),
    )

  // Attached scale and update come to an end, too.
  const scaled = await c.run(['service', 'scale', 'web=3'], { timeoutMs: 60_000 })
  t.is(scaled.status, 0, `scale: ${scaled.stderr}`)
  t.is(await c.ok('service', 'ls', '--format', '{{.Replicas}}'), '3/3')
  const updated = await c.run(['service', 'update', '--env-add', 'X=1', 'web'], {
    timeoutMs: 90_000,
  })
  t.is(updated.status, 0, `update: ${updated.stderr}`)
  const one = await w.ok('ps', '-q', '--filter', 'label=com.docker.swarm.service.name=web')
  t.is(await w.ok('exec', one.split('\n')[0]!, 'sh', '-c', 'echo $X'), '1')

  // A task runs once: nobody but the swarm starts its container.
  const again = await w.run(['restart', one.split('\n')[0]!])
  t.not(again.status, 0)
  t.regex(again.stderr, /is a task of service web, .*docker service update --force web/)

  // By name: from a task on each host to every task.
  t.regex(await w.ok('exec', one.split('\n')[0]!, 'wget', '-qO-', 'http://web/'), /It swims/)
  await c.ok(
    'service',
    'create',
    '-d',
    '--name',
    'asks',
    '--stop-grace-period',
    '1s',
    '--mode',
    'global',
    '--network',
    'ov',
    image,
    'sh',
    '-c',
    'while :; do wget -qO- http://web/cgi-bin/who; sleep 0.2; done',
  )
  const ips = await w.ok('exec', one.split('\n')[0]!, 'nslookup', 'tasks.web')
  t.is(new Set(ips.match(/Address[^\n]* 10\.0\.\d+\.\d+/g)).size, 3, ips)
  const names = await Promise.all(
    [c, w].map(async (x) =>
      (await x.ok('ps', '-q', '--filter', 'label=com.docker.swarm.service.name=web')).split('\n'),
    ),
  )
  t.is(names.flat().length, 3)
  await until('each host asks and all three answer', 30, async () => {
    const lines = (await c.ok('service', 'logs', 'asks')).split('\n')
    return ['m1', 'w1'].every((h) =>
      names.flat().every((n) => lines.some((x) => x.includes(`@${h} `) && x.includes(n))),
    )
  })
  await c.follow(['service', 'logs', '-f', 'asks'], '@m1', '@w1')
  t.is((await c.ok('service', 'logs', '--tail', '1', 'asks')).split('\n').length, 2, 'one line of each task')
  t.regex(await c.ok('service', 'logs', '-t', '--tail', '1', 'asks'), /^\d{4}-\d\d-\d\dT/)
  t.regex(
    await c.ok('service', 'logs', '--no-resolve', '--no-task-ids', '--no-trunc', '--since', '1h', '-n', '1', 'asks'),
    /^\S+@[0-9a-z]{25} +\| /m,
  )
  t.regex(await c.ok('node', 'ps', 'w1', '--format', '{{.Name}} {{.CurrentState}}'), /^asks\.\S+ Running/m)

  t.not((await c.run(['network', 'rm', 'ov'])).status, 0, 'a network in use stays')
  // Attached, too: it ends when the job is complete.
  const job = await c.run(
    [
      'service',
      'create',
      '--name',
      'job',
      '--mode',
      'replicated-job',
      '--replicas',
      '3',
      '--max-concurrent',
      '2',
    ].concat(image, 'true'),
    { timeoutMs: 60_000 },
  )
  t.is(job.status, 0, job.stderr)
  t.regex(job.stdout, /job complete/)
  t.is(await c.ok('service', 'ls', '--filter', 'name=job', '--format', '{{.Replicas}}'), '0/2 (3/3 completed)')
  t.is(await c.ok('service', 'rm', 'web', 'asks', 'job'), 'web\nasks\njob')
  await until(
    'the tasks are gone',
    30,
    async () => (await c.ok('ps', '-aq')) === '' && (await w.ok('ps', '-aq')) === '',
  )
  await c.ok('network', 'rm', 'ov')
  await w.ok('swarm', 'leave')
  await until('w1 is down', 20, async () =>
    /^w1 Down$/m.test(await c.ok('node', 'ls', '--format', '{{.Hostname}} {{.Status}}')),
  )
  await c.ok('node', 'rm', 'w1')
  t.not((await c.run(['swarm', 'leave'])).status, 0, 'a last manager needs --force')
  await c.ok('swarm', 'leave', '--force')
  t.is(await c.ok('info', '-f', '{{.Swarm.LocalNodeState}}'), 'inactive')
  await w.run(['image', 'rm', '-f', image])
})

/** Until a manager shows this of its nodes: name, manager status, availability. */
const nodesAre = (c: Client, expected: string): Promise<true> =>
  until(expected, 30, async () => {
    const lines = await c.ok('node', 'ls', '--format', '{{.Hostname}} {{.ManagerStatus}} {{.Availability}}')
    return lines.split('\n').sort().join() === expected
  })

walk.step('a locked swarm: roles, secrets, configs, stacks', async (t, c, w) => {
  t.teardown(async () => {
    for (const x of [w, c]) await x.run(['swarm', 'leave', '--force'])
  })
  const made = await c.ok(
    ...['swarm', 'init', '--advertise-addr', m1.address, '--listen-addr', `${m1.address}:2377`, '--autolock'],
    ...['--data-path-addr', m1.address, '--default-addr-pool', '10.55.0.0/16', '--default-addr-pool-mask-length', '26'],
    ...['--task-history-limit', '3', '--availability', 'active'],
  )
  const key = /SWMKEY-1-\S+/.exec(made)![0]
  t.is(await c.ok('swarm', 'unlock-key', '-q'), key)
  const rotated = await c.ok('swarm', 'unlock-key', '-q', '--rotate')
  t.not(rotated, key)
  const token = await c.ok('swarm', 'join-token', '-q', '--rotate', 'worker')
  await w.ok(
    ...['swarm', 'join', '--advertise-addr', w1.address, '--listen-addr', `${w1.address}:2377`],
    ...['--data-path-addr', w1.address, '--availability', 'active', '--token', token, `${m1.address}:2377`],
  )
  await nodesAre(c, 'm1 Leader Active,w1  Active')
  await c.ok('node', 'promote', 'w1')
  await nodesAre(c, 'm1 Leader Active,w1 Reachable Active')
  await c.ok('node', 'demote', 'w1')
  await nodesAre(c, 'm1 Leader Active,w1  Active')
  const flags = ['--label-add', 'zone=a', '--label-add', 'tmp=1', '--availability', 'drain', '--role', 'worker']
  await c.ok('node', 'update', ...flags, 'w1')
  await c.ok('node', 'update', '--label-rm', 'tmp', 'w1')
  t.is(await c.ok('node', 'inspect', '-f', '{{json .Spec.Labels}} {{.Spec.Availability}}', 'w1'), '{"zone":"a"} drain')
  t.is(await c.ok('node', 'ls', '-q', '-f', 'role=worker'), await c.ok('node', 'inspect', '-f', '{{.ID}}', 'w1'))

  writeFileSync(`${scratch}/secret`, 'tiger')
  writeFileSync(`${scratch}/config`, 'a=1')
  for (const [noun, name] of [
    ['secret', 's1'],
    ['config', 'c1'],
  ] as const) {
    await c.ok(noun, 'create', '-l', 'walk=1', name, `${scratch}/${noun}`)
    t.is(await c.ok(noun, 'inspect', '-f', '{{.Spec.Name}} {{.Spec.Labels.walk}}', name), `${name} 1`)
    t.regex(await c.ok(noun, 'inspect', '--pretty', name), new RegExp(`Name:\\s+${name}`))
    t.is(await c.ok(noun, 'ls', '--format', '{{.Name}}', '-f', 'label=walk=1'), name)
    t.regex(await c.ok(noun, 'ls', '-q'), /^[0-9a-z]{25}$/)
  }
  for (const name of ['ov2', 'ov3']) await c.ok('network', 'create', '-d', 'overlay', '--attachable', name)
  await c.ok(
    ...[
      'service',
      'create',
      '-q',
      '-d',
      '--name',
      'app',
      '--mode',
      'replicated',
      '--replicas',
      '1',
      '--network',
      'ov2',
    ],
    ...['--secret', 's1', '--config', 'c1', '--constraint', 'node.role==manager', '-e', 'A=b', '-l', 'walk=1'],
    ...[
      '--entrypoint',
      'sleep',
      '--limit-cpu',
      '0.5',
      '--limit-memory',
      '64m',
      '--reserve-cpu',
      '0.1',
      '--reserve-memory',
      '16m',
    ],
    ...['--mount', 'type=tmpfs,target=/m', '-u', '0', '-w', '/tmp', '--health-cmd', 'true', '--health-interval', '1s'],
    ...['--health-retries', '2', '--health-timeout', '5s', '--restart-condition', 'any', '--restart-delay', '1s'],
    ...[
      '--stop-grace-period',
      '1s',
      '--update-delay',
      '0s',
      '--update-failure-action',
      'pause',
      '--update-parallelism',
      '1',
    ],
    ...[
      '--update-max-failure-ratio',
      '0',
      '--update-monitor',
      '1s',
      '--update-order',
      'stop-first',
      '--with-registry-auth',
    ],
    ...['-p', '8090:80', image, '600'],
  )
  const task = async (): Promise<string> =>
    until('one task runs', 30, async () => {
      const ids = (await c.ok('ps', '-q', '-f', 'label=com.docker.swarm.service.name=app')).split('\n').filter(Boolean)
      return ids.length === 1 ? ids[0]! : null
    })
  const first = await task()
  t.is(await c.ok('exec', first, 'sh', '-c', 'cat /run/secrets/s1 /c1; echo " $A $PWD"'), 'tigera=1 b /tmp')
  for (const [noun, name] of [
    ['secret', 's1'],
    ['config', 'c1'],
  ] as const)
    t.regex((await c.run([noun, 'rm', name])).stderr, /is in use by the following service/)
  const id = await c.ok('service', 'ls', '-q', '-f', 'name=app')
  t.regex(await c.ok('service', 'inspect', '-f', '{{.ID}}', 'app'), new RegExp(`^${id}`))
  t.regex(
    await c.ok('service', 'ps', '-q', '--no-trunc', '--no-resolve', '-f', 'desired-state=running', 'app'),
    /^[0-9a-z]{25}$/,
  )
  t.regex(
    await c.ok('node', 'ps', '--no-resolve', '--no-trunc', '-q', '-f', 'desired-state=running', 'self'),
    /^[0-9a-z]{25}$/,
  )

  await c.ok(
    ...[
      'service',
      'update',
      '-q',
      '-d',
      '--env-add',
      'C=d',
      '--env-rm',
      'A',
      '--label-add',
      'x=y',
      '--label-rm',
      'walk',
    ],
    ...[
      '--secret-rm',
      's1',
      '--config-rm',
      'c1',
      '--mount-add',
      'type=tmpfs,target=/n',
      '--mount-rm',
      '/m',
      '--publish-rm',
      '80',
    ],
    ...[
      '--publish-add',
      '8091:80',
      '--constraint-add',
      'node.labels.none!=1',
      '--constraint-rm',
      'node.labels.none!=1',
    ],
    ...['--args', '601', '--limit-memory', '65m', '--stop-grace-period', '1s', '--force', '--image', image, 'app'],
  )
  const second = await until('the task is replaced', 30, async () => {
    const id = await task()
    return id === first ? null : id
  })
  t.is(
    await c.ok(
      'exec',
      second,
      'sh',
      '-c',
      'echo $A-$C; ls /run/secrets 2>/dev/null; grep -c " /n " /proc/mounts; cat /proc/1/cmdline | tr "\\0" " "',
    ),
    '-d\n1\nsleep 601',
  )
  await c.ok('service', 'rollback', '-q', '-d', 'app')
  const third = await until('the task is replaced again', 30, async () => {
    const id = await task()
    return id === second ? null : id
  })
  t.is(await c.ok('exec', third, 'cat', '/run/secrets/s1'), 'tiger')
  await c.ok(
    ...[
      'service',
      'update',
      '-q',
      '-d',
      '--entrypoint',
      'sleep',
      '--args',
      '602',
      '-u',
      '0',
      '-w',
      '/',
      '--replicas',
      '1',
    ],
    ...['--network-rm', 'ov2', '--network-add', 'ov3', '--secret-rm', 's1', '--secret-add', 'source=s1,target=again'],
    ...[
      '--config-rm',
      'c1',
      '--config-add',
      'source=c1,target=/again',
      '--health-cmd',
      'true',
      '--health-interval',
      '2s',
    ],
    ...[
      '--health-retries',
      '3',
      '--health-timeout',
      '4s',
      '--limit-cpu',
      '0.4',
      '--reserve-cpu',
      '0.2',
      '--reserve-memory',
      '17m',
    ],
    ...[
      '--restart-condition',
      'on-failure',
      '--restart-delay',
      '2s',
      '--update-delay',
      '0s',
      '--update-failure-action',
      'continue',
    ],
    ...[
      '--update-max-failure-ratio',
      '0.5',
      '--update-monitor',
      '2s',
      '--update-order',
      'start-first',
      '--update-parallelism',
      '2',
    ],
    ...['--with-registry-auth', 'app'],
  )
  const fourth = await until('the task is replaced a third time', 30, async () => {
    const id = await task()
    return id === third ? null : id
  })
  t.is(await c.ok('exec', fourth, 'sh', '-c', 'cat /run/secrets/again /again; echo " $PWD"'), 'tigera=1 /')
  const { Spec } = JSON.parse(await c.ok('service', 'inspect', 'app'))[0]
  t.like(Spec.UpdateConfig, {
    Parallelism: 2,
    FailureAction: 'continue',
    Monitor: 2e9,
    MaxFailureRatio: 0.5,
    Order: 'start-first',
  })
  t.like(Spec.TaskTemplate.RestartPolicy, { Condition: 'on-failure', Delay: 2e9 })
  t.is(Spec.TaskTemplate.Resources.Limits.NanoCPUs, 4e8)
  await c.ok('service', 'update', '-q', '-d', '--rollback', 'app')
  t.is(await c.ok('service', 'scale', '-d', 'app=0'), 'app scaled to 0')
  await c.ok('service', 'rm', 'app')
  await until('its secret may go', 10, async () => (await c.run(['secret', 'rm', 's1'])).status === 0)
  await c.ok('config', 'rm', 'c1')

  const only = (flag: string): string[] => (c.isNew ? [flag] : [])
  const file = (replicas: number, more = ''): string => {
    writeFileSync(
      `${scratch}/stack.yml`,
      `version: "3.7"\nservices:\n  web:\n    image: ${image}\n    stop_grace_period: 1s\n    deploy: {replicas: ${replicas}, placement: {constraints: [node.role==manager]}}\n${more}`,
    )
    return `${scratch}/stack.yml`
  }
  const extra = `  extra:\n    image: ${image}\n    command: sleep 600\n    stop_grace_period: 1s\n    deploy: {replicas: 0}\n`
  await c.ok(
    'stack',
    'deploy',
    ...only('-d'),
    ...only('-q'),
    '--resolve-image',
    'never',
    '--with-registry-auth',
    '-c',
    file(2, extra),
    'st',
  )
  const replicas = (expected: string): Promise<true> =>
    until(
      expected,
      30,
      async () =>
        (await c.ok('stack', 'services', '--format', '{{.Name}} {{.Replicas}}', '-f', 'name=st_web', 'st')) ===
        expected,
    )
  await replicas('st_web 2/2')
  t.is(await c.ok('stack', 'ls', '--format', '{{.Name}} {{.Services}}'), 'st 2')
  const ps = (): Promise<string> =>
    c.ok('stack', 'ps', '-q', '--no-trunc', '--no-resolve', '-f', 'desired-state=running', '--format', '{{.ID}}', 'st')
  const before = (await ps()).split('\n').sort()
  t.is(before.length, 2)
  // Again, without the second service and with a third task: the two that run are not touched.
  await c.ok('stack', 'deploy', '--prune', '--resolve-image', 'never', '-c', file(3), 'st')
  await replicas('st_web 3/3')
  const after = (await ps()).split('\n')
  t.true(before.every((id) => after.includes(id)))
  t.regex(await c.ok('stack', 'services', '-q', 'st'), /^[0-9a-z]+$/, 'the other is gone')
  await c.ok('stack', 'rm', ...only('-d'), 'st')
  await until(
    'the stack is gone',
    30,
    async () => (await c.ok('ps', '-aq')) === '' && (await c.ok('network', 'ls', '-q', '-f', 'name=st_default')) === '',
  )
  await c.ok('network', 'rm', 'ov2', 'ov3')

  // Locked after a restart, until somebody brings the key.
  await l.killDaemon(m1)
  await l.startDaemon(m1)
  t.regex((await c.run(['node', 'ls'])).stderr, /Swarm is encrypted and needs to be unlocked/)
  t.not((await c.run(['swarm', 'unlock'], { input: `${key}\n` })).status, 0, 'the old key opens nothing')
  t.like(await c.run(['swarm', 'unlock'], { input: `${rotated}\n` }), { status: 0 })
  await until('the manager leads again', 30, async () => (await c.run(['node', 'ls'])).status === 0)
  await c.ok('swarm', 'update', '--autolock=false', '--task-history-limit', '4')
  t.is(
    await c.ok(
      'info',
      '-f',
      '{{.Swarm.Cluster.Spec.Orchestration.TaskHistoryRetentionLimit}} {{.Swarm.Cluster.Spec.EncryptionConfig.AutoLockManagers}}',
    ),
    '4 false',
  )
  await c.ok('node', 'rm', '-f', 'w1')
  await w.run(['swarm', 'leave', '-f']) // it may know already that it is out
  await c.ok('swarm', 'init', '--force-new-cluster', '--advertise-addr', m1.address)
  await nodesAre(c, 'm1 Leader Active')
  await c.ok('swarm', 'leave', '--force')
  await w.run(['image', 'rm', '-f', image])
})

walk.checkRows((row) => /^(swarm|node|service|stack|secret|config) /.test(row))
walk.checkAnswers(200)
