// A shim under hostile clients, sampled; `npm run soak -- protocol-fuzz` does more, with sanitizers.
import { readFileSync, rmdirSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { attack } from './fuzz-frames.js'
import { canRun, cgroupFolders, makeConfig, makeDir, makeImage, removeDir, TestContainer, traces } from './kit.js'

const run = canRun ? test.serial : test.skip
let base = ''

test.before(() => {
  if (canRun) base = makeDir('frames')
})
test.after.always(async () => {
  if (!canRun) return
  for (const folder of cgroupFolders(`/native-test-${process.pid}`)) rmdirSync(folder)
  await removeDir(base)
})

run('hostile clients neither end nor hang a shim, and its container is not harmed', async (t) => {
  const image = makeImage(join(base, 'image'))
  const c = new TestContainer(
    base,
    image,
    makeConfig(['/bin/sh', '-c', 'trap "" CONT WINCH; while :; do echo tick; sleep 0.1; done']),
    { stdin: true },
  )
  await c.start()
  for (let seed = 1; seed <= 300; seed += 4) {
    await Promise.all([0, 1, 2, 3].map((k) => attack(c, seed + k, false)))
    ;(await c.connect()).close() // all that they sent is dealt with by now
  }
  const s = await c.connect()
  await s.ask({ op: 'resume' }) // one of them may have left it paused
  t.is((await s.ask({ op: 'hello', version: 1 }))['status'], 'running', readFileSync(join(c.dir, 'shim.log'), 'utf8'))
  await s.ask({ op: 'attach', stdout: true })
  await s.until(() => s.stdout.includes('tick\n'), 'output')
  t.true((await s.ask({ op: 'delete', force: true }))['ok'])
  await c.ended()
  t.deepEqual([traces(c.id), cgroupFolders(c.cgroup)], [[], []])
  s.close()
})

run('exec in a paused container is refused, and does not hang the shim', async (t) => {
  const image = makeImage(join(base, 'image2'))
  const c = new TestContainer(base, image, makeConfig(['/bin/sleep', '1000']))
  await c.start()
  const s = await c.connect()
  const process = { args: ['/bin/true'], cwd: '/', user: { uid: 0, gid: 0 } }
  t.true((await s.ask({ op: 'exec', exec: 'a', process }))['ok'])
  t.true((await s.ask({ op: 'pause' }))['ok'])
  t.is((await s.ask({ op: 'exec', exec: 'b', process }))['error'].code, 'EBUSY')
  t.is((await s.ask({ op: 'execStart', exec: 'a' }))['error'].code, 'EBUSY')
  t.true((await s.ask({ op: 'resume' }))['ok'])
  await s.ask({ op: 'subscribe' })
  t.true((await s.ask({ op: 'execStart', exec: 'a' }))['ok'])
  t.is((await s.event('execExit'))['exitCode'], 0)
  t.true((await s.ask({ op: 'delete', force: true }))['ok'])
  await c.ended()
  s.close()
})
