// shoal-init as pid 1 of real containers.
import { rmdirSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { nativeDirectory } from '../../src/runtime/index.js'
import {
  canRun,
  cgroupFolders,
  exec,
  type Json,
  makeConfig,
  makeDir,
  makeImage,
  removeDir,
  TestContainer,
} from './kit.js'

const run = canRun ? test.serial : test.skip
const initPath = join(nativeDirectory, 'shoal-init')
let base = ''
let image = ''

test.before(() => {
  if (!canRun) return
  base = makeDir('init')
  image = makeImage(join(base, 'image'))
})

test.after.always(async () => {
  if (!canRun) return
  for (const folder of cgroupFolders(`/native-test-${process.pid}`)) rmdirSync(folder)
  await removeDir(base)
})

const container = (args: string[], shim: Json = {}): TestContainer =>
  new TestContainer(base, image, makeConfig(args), { initPath, ...shim })

run('with an init, ps shows it as pid 1 under the name that Docker gives it', async (t) => {
  const c = container(['ps', '-o', 'pid,args'])
  t.is((await c.run())['exitCode'], 0)
  t.regex(c.log('stdout'), /^\s+1 \/sbin\/docker-init -- ps -o pid,args$/m)
  t.regex(c.log('stdout'), /^\s+2 ps -o pid,args$/m)
})

run('the init ends as its program does, by status and by signal', async (t) => {
  t.is((await container(['/bin/sh', '-c', 'exit 7']).run())['exitCode'], 7)
  t.is((await container(['/bin/sh', '-c', 'kill -KILL $$']).run())['exitCode'], 137)
  const missing = container(['/bin/nothing'])
  t.is((await missing.run())['exitCode'], 127)
  t.regex(missing.log('stderr'), /cannot run \/bin\/nothing: No such file/)
  t.is((await container(['/etc/passwd']).run())['exitCode'], 126)
})

run('signals reach the program, which may answer them in its own way', async (t) => {
  const c = container([
    '/bin/sh',
    '-c',
    'trap "echo term; exit 5" TERM; trap "echo usr1" USR1; echo ready; while :; do sleep 0.05; done',
  ])
  await c.start()
  const s = await c.connect()
  await s.ask({ op: 'attach', stdout: true, stderr: true })
  await s.ask({ op: 'subscribe' })
  await s.until(() => s.stdout.includes('ready') || c.log().includes('ready'), 'the program')
  await s.ask({ op: 'signal', signal: 10 })
  await s.until(() => s.stdout.includes('usr1'), 'SIGUSR1 in the program')
  await s.ask({ op: 'signal', signal: 15 })
  t.is((await s.event('exit'))['exitCode'], 5)
  await c.ended()
  t.regex(c.log('stdout'), /term/)
  s.close()
})

run('orphans are buried: no zombie stays', async (t) => {
  // The inner shells end before their children, which then belong to pid 1.
  const c = container([
    '/bin/sh',
    '-c',
    'for i in 1 2 3 4 5; do sh -c "sleep 0.05 & exit 0"; done; for i in $(seq 200); do [ "$(ps -o stat,comm | grep -c sleep)" = 0 ] && break; sleep 0.05; done; ps -o stat,comm',
  ])
  t.is((await c.run())['exitCode'], 0)
  t.notRegex(c.log('stdout'), /^Z/m)
  t.notRegex(c.log('stdout'), /sleep/)
})

run('at a terminal, the program is in the foreground and gets Ctrl-C', async (t) => {
  const c = container(
    ['/bin/sh', '-c', 'trap "echo interrupted; exit 9" INT; echo ready; while :; do sleep 0.05; done'],
    { tty: true },
  )
  await c.start()
  const s = await c.connect()
  await s.ask({ op: 'attach', stdin: true, stdout: true, stderr: true })
  await s.ask({ op: 'subscribe' })
  await s.until(() => s.stdout.includes('ready') || c.log().includes('ready'), 'the program')
  s.send('i', '\x03')
  t.is((await s.event('exit'))['exitCode'], 9)
  await c.ended()
  t.regex(c.log(), /interrupted/)
  s.close()
})

test('without a program, usage and status 2', async (t) => {
  const r = await exec(initPath, ['--'])
  t.is(r.code, 2)
  t.regex(r.stderr, /usage: shoal-init/)
})
