import { spawn } from 'node:child_process'
import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import test from 'ava'
import {
  clock,
  type Lab,
  type LabHost,
  lab,
  nodes,
  ok,
  type Result,
  running,
  swarm,
  tasks,
  until,
  webImage,
} from './support.js'

const SHOAL = join(dirname(fileURLToPath(import.meta.url)), '../../../bin/shoal')

let l: Lab
let dir: string
test.before(async () => {
  l = await lab('ibk', '10.92.12', 3, 1)
  dir = mkdtempSync(join(tmpdir(), 'backup-test-'))
})
test.after.always(async () => {
  await l.down()
  rmSync(dir, { recursive: true, force: true })
})

function shoal(h: LabHost, args: readonly string[], input = ''): Promise<Result> {
  return new Promise((resolve, reject) => {
    const p = spawn(SHOAL, args, { env: { ...process.env, DOCKER_HOST: `unix://${h.socket}` }, timeout: 60_000 })
    let [stdout, stderr] = ['', '']
    p.stdout.on('data', (b) => {
      stdout += b
    })
    p.stderr.on('data', (b) => {
      stderr += b
    })
    p.on('error', reject)
    p.on('close', (code) => resolve({ status: code ?? 1, stdout, stderr }))
    p.stdin.end(input)
  })
}

const states = async (h: LabHost): Promise<string[]> =>
  (await nodes(h)).map((n) => `${n.Description.Hostname} ${n.Status.State} ${n.ManagerStatus?.Leader ? 'leads' : ''}`)

test.serial(
  'a swarm is saved while it works and restored on another host: state, secrets and workers come back',
  async (t) => {
    t.timeout(240_000)
    const [m1, m2, m3, w1] = l.plan.hosts as readonly [LabHost, LabHost, LabHost, LabHost]
    const group = { plan: { hosts: [m1, m2, w1] } }
    await swarm(group)
    const image = await webImage(l, m1)
    const secret = join(dir, 'secret')
    writeFileSync(secret, 'whispered words')
    await ok(m1, 'secret', 'create', 'quiet', secret)
    await ok(m1, 'node', 'update', '--label-add', 'rack=7', 'w1')
    await ok(
      m1,
      ...['service', 'create', '-d', '--name', 'web', '--no-resolve-image', '--secret', 'quiet'],
      ...['--constraint', 'node.role==worker', '--replicas', '2', image],
    )
    const before = await running(m1, 'web', 2, 60)
    const token = await ok(m1, 'swarm', 'join-token', '-q', 'worker')

    // On a manager that follows, into a file that others could read.
    const file = join(dir, 'swarm.backup')
    writeFileSync(file, 'old')
    chmodSync(file, 0o644)
    const saved = await shoal(m2, ['swarm', 'backup', file])
    t.is(saved.status, 0, saved.stderr)
    t.is(statSync(file).mode & 0o777, 0o600)
    t.false(existsSync(`${file}.tmp`))
    await ok(m1, 'service', 'create', '-d', '--name', 'later', '--replicas', '0', '--no-resolve-image', image)

    // Refusals change nothing.
    const bad = join(dir, 'bad.backup')
    const whole = readFileSync(file)
    for (const [what, bytes, words] of [
      [
        'a flipped bit',
        Buffer.from(whole).fill(whole[whole.length >> 1]! ^ 1, whole.length >> 1, (whole.length >> 1) + 1),
        /the backup is damaged: chunk \d+ does not match/,
      ],
      ['cut short', whole.subarray(0, whole.length - 5), /the backup is damaged: .*cut short/],
      ['empty', Buffer.alloc(0), /is no backup of a swarm/],
      ['something else', Buffer.from('hello\nworld\n'), /is no backup of a swarm/],
    ] as const) {
      writeFileSync(bad, bytes)
      const refused = await shoal(m3, ['swarm', 'restore', '--advertise-addr', m3.address, bad])
      t.is(refused.status, 1, what)
      t.regex(refused.stderr, words, what)
      t.is(refused.stderr.trim().split('\n').length, 1, refused.stderr)
    }
    t.is(await ok(m3, 'info', '--format', '{{.Swarm.LocalNodeState}}'), 'inactive')
    t.false(existsSync(join(m3.dataRoot, 'swarm.restore')))
    t.regex((await shoal(m3, ['swarm', 'backup', join(dir, 'no')])).stderr, /not a swarm manager/)
    t.false(existsSync(join(dir, 'no')))
    t.regex((await shoal(m1, ['swarm', 'restore', file])).stderr, /already part of a swarm.*--force/)
    t.is((await nodes(m1)).length, 3)

    // The old managers are gone for good; the third host takes over under the address of the first.
    for (const h of [m1, m2]) await l.kill(h)
    const restored = await shoal(m3, [
      'swarm',
      'restore',
      '--advertise-addr',
      m3.address,
      '--listen-addr',
      `${m3.address}:2377`,
      file,
    ])
    t.is(restored.status, 0, restored.stderr)
    t.regex(restored.stdout, /Swarm restored: current node \(\w{25}\)/)
    t.is(await ok(m3, 'service', 'ls', '--format', '{{.Name}}'), 'web')
    t.is(await ok(m3, 'secret', 'ls', '--format', '{{.Name}}'), 'quiet')
    t.is(await ok(m3, 'swarm', 'join-token', '-q', 'worker'), token)
    await until('nodes that are gone are shown as down', 60, async () => {
      const all = await states(m3)
      return (
        all.includes('m1 down ') &&
        all.includes('m2 down ') &&
        all.includes('w1 down ') &&
        all.includes('m3 ready leads')
      )
    })
    t.is(await ok(m3, 'node', 'inspect', '-f', '{{.Spec.Labels.rack}}', 'w1'), '7')
    // The worker knows none of its managers any more: it joins anew, and gets work and the secret.
    await ok(w1, 'swarm', 'leave', '--force')
    await ok(w1, 'swarm', 'join', '--advertise-addr', w1.address, '--token', token, `${m3.address}:2377`)
    await running(m3, 'web', 2, 60)
    const cid = (await ok(w1, 'ps', '-q', '--filter', 'label=com.docker.swarm.service.name=web')).split('\n')[0]!
    t.is(await ok(w1, 'exec', cid, 'cat', '/run/secrets/quiet'), 'whispered words')
    t.true((await tasks(m3, 'web')).length >= before.length)
    await ok(m3, 'service', 'scale', '-d', 'web=3')
    await running(m3, 'web', 3, 60)

    // And once more by force, on a manager of a swarm: under the address that its worker knows, which comes back by itself.
    const again = join(dir, 'again.backup')
    t.is((await shoal(m3, ['swarm', 'backup', again])).status, 0)
    const pids = (await running(m3, 'web', 3, 60)).map((x) => x.Status.ContainerStatus!.PID).sort()
    const forced = await shoal(m3, ['swarm', 'restore', '-f', '--advertise-addr', m3.address, again])
    t.is(forced.status, 0, forced.stderr)
    await until('the worker is back', 60, async () => (await states(m3)).filter((x) => x === 'w1 ready ').length === 1)
    t.deepEqual((await running(m3, 'web', 3, 60)).map((x) => x.Status.ContainerStatus!.PID).sort(), pids)
  },
)

test.serial(
  'a daemon killed at any moment of a restore holds either nothing or the whole swarm afterwards',
  async (t) => {
    t.timeout(300_000)
    const [, , m3] = l.plan.hosts as readonly [LabHost, LabHost, LabHost]
    const file = join(dir, 'again.backup')
    await ok(m3, 'swarm', 'leave', '--force')
    const seen = new Set<string>()
    for (let ms = 0; ms < 400 || !seen.has('active'); ms += 45) {
      t.true(ms < 5000, 'a restore comes to its end')
      const restoring = shoal(m3, ['swarm', 'restore', '--advertise-addr', m3.address, file])
      // From when the command has reached the daemon.
      await until(
        'the restore begins or ended',
        20,
        async () =>
          existsSync(join(m3.dataRoot, 'swarm.restore')) || existsSync(join(m3.dataRoot, 'swarm', 'node.json')),
      )
      await clock.sleep(ms)
      await l.killDaemon(m3)
      await restoring
      await l.startDaemon(m3)
      const state = await ok(m3, 'info', '--format', '{{.Swarm.LocalNodeState}} {{.Swarm.Error}}')
      t.regex(state, /^(inactive|active)$/)
      t.false(existsSync(join(m3.dataRoot, 'swarm.restore')))
      seen.add(state.trim())
      if (state.startsWith('active')) {
        t.is(await until('it answers', 30, () => ok(m3, 'service', 'ls', '--format', '{{.Name}}')), 'web')
        await ok(m3, 'swarm', 'leave', '--force')
      }
    }
    t.true(seen.has('active'))
  },
)

test.serial('a backup of locked managers is restored with their unlock key, and stays locked', async (t) => {
  t.timeout(120_000)
  const [, , m3] = l.plan.hosts as readonly [LabHost, LabHost, LabHost]
  await ok(m3, 'swarm', 'init', '--autolock', '--advertise-addr', m3.address)
  const key = await ok(m3, 'swarm', 'unlock-key', '-q')
  const file = join(dir, 'locked.backup')
  t.is((await shoal(m3, ['swarm', 'backup', file])).status, 0)
  await ok(m3, 'swarm', 'leave', '--force')
  const restore = (input: string): Promise<Result> =>
    shoal(m3, ['swarm', 'restore', '--advertise-addr', m3.address, file], input)
  t.regex((await restore('\n')).stderr, /the backup is locked and no unlock key was given/)
  t.regex((await restore(`${key.slice(0, -3)}aaa\n`)).stderr, /unlock key|invalid/)
  t.is(await ok(m3, 'info', '--format', '{{.Swarm.LocalNodeState}}'), 'inactive')
  const done = await restore(`${key}\n`)
  t.is(done.status, 0, done.stderr)
  t.is(await ok(m3, 'swarm', 'unlock-key', '-q'), key)
  await l.killDaemon(m3)
  await l.startDaemon(m3)
  t.is(await ok(m3, 'info', '--format', '{{.Swarm.LocalNodeState}}'), 'locked')
})
