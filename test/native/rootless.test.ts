// shoal-runtime in the hands of a user who is not root: what he may do, and what he is told where he may not.
import { chmodSync, chownSync, copyFileSync, existsSync, mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { canRun, exec, execDetached, type Json, type Output } from './kit.js'
import { run, runtime, runtimeKit, sh } from './runtime-kit.js'

/** A user of every distribution, who owns nothing here. */
const UID = 1
const kit = runtimeKit('rootless')
let program = ''
let runDir = ''

test.before(() => {
  if (!canRun) return
  chmodSync(kit.base, 0o755)
  // The checkout may lie where only root gets.
  program = join(kit.base, 'shoal-runtime')
  copyFileSync(runtime, program)
  runDir = join(kit.base, 'run')
  mkdirSync(runDir)
  chownSync(runDir, UID, UID)
})

const as = (...command: string[]): [string, string[]] => [
  'setpriv',
  ['--reuid', String(UID), '--regid', String(UID), '--clear-groups', ...command],
]
const env = (): NodeJS.ProcessEnv => ({ ...process.env, XDG_RUNTIME_DIR: runDir })
const call = (...args: string[]): Promise<Output> => exec(...as(program, ...args), { env: env() })

/** What `spec --rootless` makes, with a script. */
const rootless = (script: string, change: (c: Json) => void = () => {}): Json =>
  sh(script, (c) => {
    delete c['linux'].resources
    c['linux'].namespaces = ['mount', 'pid', 'ipc', 'uts', 'network', 'user'].map((type) => ({ type }))
    c['linux'].uidMappings = [{ containerID: 0, hostID: UID, size: 1 }]
    c['linux'].gidMappings = [{ containerID: 0, hostID: UID, size: 1 }]
    for (const m of c['mounts']) m.options = m.options?.filter((o: string) => o !== 'gid=5') // not mapped
    change(c)
  })

/** A bundle that names no cgroup. */
function bundle(config: Json): ReturnType<typeof kit.bundle> {
  const b = kit.bundle(config)
  if (config['linux'].cgroupsPath === b.cgroup) delete config['linux'].cgroupsPath
  writeFileSync(join(b.dir, 'config.json'), JSON.stringify(config))
  return b
}

async function output(config: Json): Promise<Output> {
  const b = bundle(config)
  return call('run', '--bundle', b.dir, b.id)
}

run('a user without rights has a container of his own: root inside, himself outside', async (t) => {
  const script =
    'id -u; tr -s " " < /proc/self/uid_map; hostname; head -c 2 /dev/zero | wc -c; mkdir /dev/shm/x && echo made; exit 7'
  for (const change of [
    () => {},
    // Without a user namespace in the document he gets one, and without a network namespace the host's /sys.
    (c: Json) => {
      c['linux'].namespaces = c['linux'].namespaces.filter((n: Json) => !['user', 'network'].includes(n['type']))
      delete c['linux'].uidMappings
      delete c['linux'].gidMappings
    },
  ]) {
    const r = await output(rootless(script, change))
    t.deepEqual([r.code, r.stdout], [7, `0\n 0 ${UID} 1\nbox\n2\nmade\n`], r.stderr)
  }
})

run('his containers are listed, entered, killed and deleted like others, and leave nothing', async (t) => {
  const b = bundle(rootless('sleep 1000'))
  const [file, args] = as('env', `XDG_RUNTIME_DIR=${runDir}`, program, 'run', '--detach', '--bundle', b.dir, b.id)
  const started = await execDetached(file, args, join(kit.base, 'errors'))
  t.is(started.code, 0, started.stderr)
  t.true(existsSync(join(runDir, 'shoal-runtime', b.id)))
  t.is((await call('list', '-q')).stdout, `${b.id}\n`)
  const r = await call('exec', b.id, '/bin/sh', '-c', 'id -u; hostname; exit 3')
  t.deepEqual([r.code, r.stdout], [3, '0\nbox\n'], r.stderr)
  t.is((await call('kill', '--all', b.id, 'KILL')).code, 0)
  for (let n = 0; JSON.parse((await call('state', b.id)).stdout)['status'] !== 'stopped' && n < 500; n++);
  t.is((await call('delete', b.id)).code, 0)
  t.false(existsSync(join(runDir, 'shoal-runtime', b.id)))
})

run('limits and cgroups that he may not set are refused, not left out', async (t) => {
  for (const change of [
    (c: Json) => (c['linux'].resources = { pids: { limit: 10 } }),
    (c: Json) => (c['linux'].cgroupsPath = `/native-rootless-${process.pid}`),
  ]) {
    const r = await output(rootless('true', change))
    t.is(r.code, 1)
    t.regex(r.stderr, /cannot make the cgroup .*: Permission denied/)
  }
})

const withMaps = canRun && existsSync('/usr/bin/newuidmap') ? run : test.skip
withMaps('more ids than his own are what /etc/subuid allows him', async (t) => {
  const config = rootless('id -u; tr -s " " < /proc/self/uid_map', (c) => {
    for (const k of ['uidMappings', 'gidMappings'])
      c['linux'][k] = [
        { containerID: 0, hostID: UID, size: 1 },
        { containerID: 1, hostID: 200000, size: 10 },
      ]
    c['process'].user = { uid: 5, gid: 5, additionalGids: [6] }
  })
  const refused = await output(config)
  t.is(refused.code, 1)
  t.regex(refused.stderr, /newuidmap does not allow the id map: see \/etc\/subuid/)
  const b = bundle(config)
  const list = join(kit.base, 'subid')
  writeFileSync(list, 'daemon:200000:10\n')
  const [file, args] = as(program, 'run', '--bundle', b.dir, b.id)
  const mounts = `mount --bind ${list} /etc/subuid && mount --bind ${list} /etc/subgid && exec "$@"`
  const r = await exec('unshare', ['-m', 'sh', '-c', mounts, 'sh', file, ...args], { env: env() })
  t.deepEqual([r.code, r.stdout], [0, `5\n 0 ${UID} 1\n 1 200000 10\n`], r.stderr)
})
