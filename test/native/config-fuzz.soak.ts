// npm run soak -- config-fuzz [ROUNDS=2000] [SEED=1]: config.json documents with values exchanged at random, run by shoal-runtime built with
// AddressSanitizer and UndefinedBehaviorSanitizer (make -C native sanitized). A report of a sanitizer, an end by a signal, a refusal
// without a reason, and anything left behind is a failure. What would reach the host by the wish of whoever wrote the document (its root,
// sources of binds, hooks, the cgroup's path) is left as it is.
import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { nativeDirectory } from '../../src/runtime/index.js'
import { random } from './bpf.js'
import { generated } from './bundles.js'
import {
  canRun,
  cgroupFolders,
  eventually,
  exec,
  type Json,
  makeConfig,
  makeDir,
  makeImage,
  removeDir,
  traces,
} from './kit.js'

const [rounds = 2000, first = 1] = process.argv.slice(2).map(Number)
const runtime = join(nativeDirectory, process.env['SHOAL_TEST_RUNTIME'] ?? 'shoal-runtime-san')
if (!canRun) throw new Error('config-fuzz needs root and busybox')
execFileSync('make', ['-s', '-C', 'native', 'sanitized'], { stdio: 'inherit' })

const words = ['', '/', '.', '..', '/proc', '/proc/self/exe', '/dev/null', '../../../etc', 'a'.repeat(300), 'CAP_SYS_ADMIN', 'RLIMIT_CORE', 'user', 'time', 'bind', 'ro', 'rro',
  'tmpfs', 'SCMP_ACT_NOTIFY', 'SCMP_ACT_ERRNO', 'SCMP_CMP_EQ', 'openat', 'max', '%n%s', 'é\u{1f600}', '-1', '0'] // biome-ignore format: a list
const values: unknown[] = [
  null,
  true,
  false,
  0,
  1,
  -1,
  2 ** 31,
  2 ** 53,
  -(2 ** 53),
  1e300,
  0.5,
  [],
  {},
  [[]],
  [null],
  { a: {} },
]
/** Places that are not touched, from the root of the document. */
const fixed =
  /^\.(root\.path|hooks|process\.args|linux\.cgroupsPath|ociVersion)|^\.mounts\.\d+\.source|^\.process\.rlimits\.\d+\.type/

interface Place {
  readonly holder: Json
  readonly key: string
}

function places(value: unknown, path: string, found: Place[]): Place[] {
  if (typeof value === 'object' && value !== null)
    for (const key of Object.keys(value)) {
      const at = `${path}.${key}`
      if (fixed.test(at)) continue
      // A list or an object with something fixed in it is not exchanged as a whole.
      if (!/^\.(root|process|linux|mounts|mounts\.\d+|process\.rlimits|process\.rlimits\.\d+)$/.test(at))
        found.push({ holder: value as Json, key })
      places((value as Json)[key], at, found)
    }
  return found
}

function mutate(config: Json, r: (n: number) => number): void {
  for (let n = r(4) + 1; n > 0; n--) {
    const all = places(config, '', [])
    const { holder, key } = all[r(all.length)]!
    const kind = r(5)
    if (kind === 0 && Array.isArray(holder)) holder.splice(Number(key), 1)
    else if (kind === 0) delete holder[key]
    else if (kind === 1) holder[key] = words[r(words.length)]
    else if (kind === 2 && Array.isArray(holder)) holder.push(structuredClone(holder[key as unknown as number]))
    else if (kind === 3) holder[key] = structuredClone(all[r(all.length)]!.holder)
    else holder[key] = structuredClone(values[r(values.length)])
  }
}

const base = makeDir('config-fuzz')
const image = makeImage(join(base, 'image'))
let ran = 0
try {
  for (let seed = first; seed < first + rounds; seed++) {
    const id = `cf${process.pid}x${seed}`
    const dir = join(base, id)
    mkdirSync(dir)
    const config = makeConfig(['/bin/true'])
    generated(seed)(config, dir)
    delete config['hooks']
    config['root'].path = image
    config['linux'].cgroupsPath = `/native-${id}`
    mutate(config, random(seed + 7919))
    writeFileSync(join(dir, 'config.json'), JSON.stringify(config))
    const call = (...args: string[]): ReturnType<typeof exec> =>
      exec('unshare', ['-m', runtime, '--root', join(base, 'state'), ...args], {
        env: { ...process.env, ASAN_OPTIONS: 'detect_leaks=0:exitcode=99' },
      })
    const r = await call('run', '--bundle', dir, id)
    const deleted = await call('delete', '--force', id)
    const wrong = (what: string): never => {
      throw new Error(`seed ${seed}: ${what}\n${r.code} ${r.stderr}\n${deleted.stderr}\n${JSON.stringify(config)}`)
    }
    if (/Sanitizer|runtime error/.test(r.stderr + deleted.stderr)) wrong('a sanitizer has found something')
    // 128 + a signal is the program's own end, by the filter or a limit of its document.
    if (r.code === 128 || r.code === 99) wrong('the runtime did not come to its end')
    if (r.code === 1 && r.stderr.trim() === '') wrong('refused without a word')
    if (deleted.code !== 0) wrong('delete --force fails')
    if (r.code === 0) ran++
    await eventually(
      () => traces(id).length === 0,
      `seed ${seed}: the end of what it started (${traces(id).join(', ')})`,
    )
    if (cgroupFolders(`/native-${id}`).length || existsSync(join(base, 'state', id))) wrong('something is left behind')
    await removeDir(dir)
  }
} finally {
  await removeDir(base)
}
console.log(`${rounds} documents, ${ran} of them ran, nothing failed`)
