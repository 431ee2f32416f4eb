// A host whose data root is full: the daemon starts, and what frees space works.
import { execFileSync } from 'node:child_process'
import { mkdirSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { dirname, join } from 'node:path'
import test from 'ava'
import { docker, type Lab, type LabHost, lab, ok, until, webImage } from './support.js'

let l: Lab
let h: LabHost

test.before(async () => {
  l = await lab('ifr', '10.92.14', 1, 0)
  h = l.plan.hosts[0] as LabHost
  await l.killDaemon(h)
  rmSync(h.dataRoot, { recursive: true, force: true })
  mkdirSync(h.dataRoot, { mode: 0o710 })
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=120m,mode=0710', 'small', h.dataRoot])
  await l.startDaemon(h)
})
test.after.always(() => l.down())

const filler = (): string => join(h.dataRoot, 'filler')

/** Not a byte is left. */
function fill(): void {
  try {
    execFileSync('dd', ['if=/dev/zero', `of=${filler()}`, 'bs=4k', 'oflag=append', 'conv=notrunc'], { stdio: 'ignore' })
  } catch {
    // Full, as wanted.
  }
}

const logged = (words: string): number => readFileSync(h.log, 'utf8').split(words).length - 1
const names = async (): Promise<string[]> =>
  (await ok(h, 'ps', '-a', '--format', '{{.Names}} {{.State}}')).split('\n').sort()
const directories = (): string[] =>
  readdirSync(join(h.dataRoot, 'containers')).concat(readdirSync(join(h.dataRoot, 'image/containers')))

test.serial('on a full disk the daemon starts, lists, stops and removes, and refuses what needs space', async (t) => {
  t.timeout(240_000)
  const image = await webImage(l, h)
  const second = `${image}-b`
  await ok(h, 'tag', image, second)
  await ok(h, 'volume', 'create', 'v1')
  await ok(h, 'network', 'create', 'n1')
  const sleep = ['sh', '-c', 'trap "exit 3" TERM; while :; do sleep 0.1; done']
  await ok(h, 'run', '-d', '--name', 'lives', '--network', 'n1', image, ...sleep)
  await ok(h, 'run', '-d', '--name', 'policy', '--restart', 'always', image, ...sleep)
  for (const name of ['made-a', 'made-b', 'made-c']) await ok(h, 'create', '--name', name, image, 'true')
  await ok(h, 'run', '--name', 'big', image, 'dd', 'if=/dev/zero', 'of=/big', 'bs=1M', 'count=12')
  const before = await names()

  // Twice: what the first start took up for itself, the second does not find.
  for (const round of [1, 2]) {
    await l.killDaemon(h)
    rmSync(join(h.dataRoot, 'image/images.db.reserve'), { force: round === 2 })
    rmSync(join(h.dataRoot, 'engine.reserve'), { force: round === 2 })
    fill()
    await l.startDaemon(h)
    t.deepEqual(await names(), before)
  }
  t.is(logged('the disk of the data root is full'), 2)
  t.is(await ok(h, 'images', '-q').then((x) => new Set(x.split('\n')).size), 1)

  fill()
  const refused = await docker(h, ['run', '--name', 'new', image, 'true'])
  t.not(refused.status, 0)
  t.regex(refused.stderr, /no space left on device at \/.*; free space there: remove containers/i)
  t.true(refused.stderr.includes(h.dataRoot), refused.stderr)
  t.deepEqual(await names(), before)
  for (const args of [
    ['volume', 'create', 'v2'],
    ['network', 'create', 'n2'],
  ]) {
    fill()
    const { status, stderr } = await docker(h, args)
    t.not(status, 0, args.join(' '))
    t.regex(stderr, /no space left on device at \//i)
  }
  t.is(await ok(h, 'volume', 'ls', '-q'), 'v1')
  t.false((await ok(h, 'network', 'ls', '--format', '{{.Name}}')).split('\n').includes('n2'))

  fill()
  await ok(h, 'stop', 'lives')
  t.is(await ok(h, 'inspect', '-f', '{{.State.Status}} {{.State.ExitCode}}', 'lives'), 'exited 3')
  // Nothing is put aside any more: an empty container makes no room for the removal of its record, a large one does.
  fill()
  t.regex((await docker(h, ['rm', 'made-a'])).stderr, /no space left on device at \/.*; free space there/)
  t.deepEqual(
    await names(),
    before
      .map((x) => x.replace('lives running', 'lives exited'))
      .filter((x) => !x.startsWith('made-a'))
      .concat('made-a dead')
      .sort(),
  )
  await ok(h, 'rm', 'big')
  await ok(h, 'rm', 'made-a')
  await ok(h, 'rm', '-f', 'policy')
  await ok(h, 'volume', 'rm', 'v1')
  await ok(h, 'rmi', second)
  fill()
  await ok(h, 'container', 'prune', '-f')
  await ok(h, 'network', 'rm', 'n1')
  fill()
  await ok(h, 'rmi', image)
  await ok(h, 'system', 'prune', '-af', '--volumes')

  // Nothing that was acknowledged comes back, and nothing half-written stays.
  await l.killDaemon(h)
  fill()
  await l.startDaemon(h)
  t.is(await ok(h, 'ps', '-aq'), '')
  t.is(await ok(h, 'images', '-aq'), '')
  t.is(await ok(h, 'volume', 'ls', '-q'), '')
  t.false(
    (await ok(h, 'network', 'ls', '--format', '{{.Name}}')).split('\n').some((x) => x.startsWith('n') && x !== 'none'),
  )
  await until('directories of containers are gone', 10, async () => directories().length === 0)
  t.deepEqual(readdirSync(join(h.dataRoot, 'volumes')), [])

  rmSync(filler())
  await webImage(l, h)
  t.is(await ok(h, 'run', '--rm', image, 'echo', 'again'), 'again')
  await ok(h, 'volume', 'create', 'v3')
  t.true(readdirSync(dirname(filler())).includes('engine.reserve'))
})
