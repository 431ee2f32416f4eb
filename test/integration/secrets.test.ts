import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { docker, type LabHost, lab, nodes, ok, running, swarm, tasks, until, webImage } from './support.js'

const SECRET = 'hunter2-is-on-no-disk'

/** Files below a directory that have a text in them. */
function filesWith(dir: string, text: string): string[] {
  return readdirSync(dir, { withFileTypes: true }).flatMap((entry) => {
    const path = join(dir, entry.name)
    if (entry.isDirectory()) return filesWith(path, text)
    if (!entry.isFile()) return []
    try {
      return readFileSync(path).includes(text) ? [path] : []
    } catch (e) {
      // What runs may remove its files while we look.
      if ((e as NodeJS.ErrnoException).code === 'ENOENT') return []
      throw e
    }
  })
}

test.serial('secrets and configs reach their tasks in memory only, and go with them', async (t) => {
  t.timeout(300_000)
  const l = await lab('ise', '10.92.5', 1, 1)
  try {
    const [m1, w1] = l.plan.hosts as [LabHost, LabHost]
    await swarm(l)
    const image = await webImage(l, m1)
    const create = async (kind: string, name: string, input: string, ...flags: string[]): Promise<void> => {
      const r = await docker(m1, [kind, 'create', ...flags, name, '-'], { input })
      t.is(r.status, 0, r.stderr)
    }
    await create('secret', 'password', SECRET)
    await create('config', 'greeting', 'hello {{.Service.Name}}\n', '--template-driver', 'golang')
    await create('config', 'plain', 'as {{it}} is\n')
    await ok(
      m1,
      ...['service', 'create', '-d', '--name', 'vault', '--constraint', 'node.role==worker'],
      ...['--secret', 'password', '--secret', 'source=password,target=other,uid=1234,gid=4321,mode=0440'],
      ...['--secret', 'source=password,target=/etc/deep/down'],
      ...['--config', 'greeting', '--config', 'source=plain,target=/etc/plain.conf,mode=0400'],
      ...['--env', 'WHO={{.Service.Name}}.{{.Task.Slot}}@{{.Node.Hostname}}', '--hostname', 'h-{{.Task.Slot}}'],
      ...['--stop-grace-period', '1s', image, 'sleep', '12346'],
    )
    const [task] = await running(m1, 'vault', 1, 60)
    const id = task!.Status.ContainerStatus!.ContainerID
    const inside = (...command: string[]): Promise<string> => ok(w1, 'exec', id, ...command)
    t.is(await inside('cat', '/run/secrets/password'), SECRET)
    t.is(await inside('cat', '/etc/deep/down'), SECRET)
    t.is(await inside('stat', '-c', '%u:%g %a', '/run/secrets/password'), '0:0 444')
    t.is(await inside('stat', '-c', '%u:%g %a', '/run/secrets/other'), '1234:4321 440')
    t.is(await inside('cat', '/greeting'), 'hello vault')
    t.is(await inside('cat', '/etc/plain.conf'), 'as {{it}} is')
    t.is(await inside('stat', '-c', '%a', '/etc/plain.conf'), '400')
    t.is(await inside('sh', '-c', 'echo $WHO $(hostname)'), `vault.1@${await hostname(m1, task!.NodeID)} h-1`)
    const mounts = (await inside('cat', '/proc/mounts')).split('\n')
    for (const path of [
      '/run/secrets/password',
      '/run/secrets/other',
      '/etc/deep/down',
      '/greeting',
      '/etc/plain.conf',
    ])
      t.regex(mounts.find((line) => line.split(' ')[1] === path) ?? '', /^tmpfs \S+ tmpfs ro,/, path)
    t.not((await docker(w1, ['exec', id, 'sh', '-c', 'echo x > /run/secrets/password'])).status, 0)
    for (const h of l.plan.hosts) t.deepEqual(filesWith(h.dataRoot, SECRET), [], `on ${h.name}'s disk`)

    // A killed daemon leaves the files as they are, and the next one does not take them away. (Its task may be replaced
    // meanwhile, on a machine that takes longer to start a daemon than the managers wait.)
    await l.killDaemon(w1)
    await l.startDaemon(w1)
    t.is(await inside('cat', '/run/secrets/password'), SECRET)
    await until('the worker is back', 60, async () => (await nodes(m1)).every((n) => n.Status.State === 'ready'))
    const [old] = await running(m1, 'vault', 1, 60)

    // Rotation: the task is replaced, and the old one's files go.
    await create('secret', 'password2', 'changed')
    await ok(
      m1,
      ...[
        'service',
        'update',
        '-d',
        '--secret-rm',
        'password',
        '--secret-add',
        'source=password2,target=password',
        'vault',
      ],
    )
    const fresh = await until('the replacement runs', 60, async () => {
      const now = (await tasks(m1, 'vault')).filter((x) => x.DesiredState === 'running' && x.Status.State === 'running')
      return now.length === 1 && now[0]!.ID !== old!.ID ? now[0]! : null
    })
    t.is(await ok(w1, 'exec', fresh.Status.ContainerStatus!.ContainerID, 'cat', '/run/secrets/password'), 'changed')
    await until(
      'only the new task has files',
      30,
      async () => readdirSync(join(w1.execRoot, 'tasks')).join() === fresh.ID,
    )
    t.regex((await docker(m1, ['secret', 'rm', 'password2'])).stderr, /in use by the following service: vault/)

    await ok(m1, 'service', 'rm', 'vault')
    await until('no files are left', 30, async () => readdirSync(join(w1.execRoot, 'tasks')).length === 0)
    t.false(readFileSync('/proc/self/mounts', 'utf8').includes(join(w1.execRoot, 'tasks')))
    await ok(m1, 'secret', 'rm', 'password', 'password2')
  } finally {
    await l.down()
  }
})

const hostname = async (m: LabHost, nodeId: string): Promise<string> =>
  (await nodes(m)).find((n) => n.ID === nodeId)!.Description.Hostname
