// The default filter against the reference profile: resolved for many capability sets, both must allow the same.
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { defaultSeccompProfile, native } from '../../src/runtime/index.js'
import { checkout, defaultCaps, type Json } from './kit.js'

const shared =
  process.env['SHOAL_SHARED'] ?? ['../shared', '../../shared'].map((p) => join(checkout, p)).find(existsSync) ?? ''
const file = join(shared, 'spec/seccomp/docker-default.json')
const withReference = existsSync(file) ? test : test.skip

/** One line for each call and condition, so that grouping and order do not matter. */
function facts(rules: Json[]): string[] {
  return [
    ...new Set(
      rules.flatMap((r) =>
        (r['names'] as string[]).map((n) =>
          JSON.stringify([
            n,
            r['action'],
            r['errnoRet'] ?? null,
            (r['args'] ?? []).map((a: Json) => [a['index'], a['op'], a['value'], a['valueTwo'] ?? 0]),
          ]),
        ),
      ),
    ),
  ].sort()
}

/** The reference's conditions, written here once more and independently of the C compiler. */
function resolve(profile: Json, caps: string[], arch: string): Json[] {
  return (profile['syscalls'] as Json[]).filter((r) => {
    const { includes = {}, excludes = {} } = r as { includes?: Json; excludes?: Json }
    if (!(includes['caps'] ?? []).every((c: string) => caps.includes(c))) return false
    if (includes['arches']?.length && !includes['arches'].includes(arch)) return false
    if ((excludes['caps'] ?? []).some((c: string) => caps.includes(c))) return false
    return !(excludes['arches'] ?? []).includes(arch)
  })
}

const goNames: Record<string, string> = {
  x64: 'amd64',
  arm64: 'arm64',
  s390x: 's390x',
  riscv64: 'riscv64',
  ppc64: 'ppc64le',
}
const single = [
  'DAC_READ_SEARCH',
  'SYS_ADMIN',
  'SYS_BOOT',
  'SYS_CHROOT',
  'SYS_MODULE',
  'SYS_PACCT',
  'SYS_PTRACE',
  'SYS_RAWIO',
  'SYS_TIME',
  'SYS_TTY_CONFIG',
  'SYS_NICE',
  'SYSLOG',
  'BPF',
  'PERFMON',
]

for (const [machine, go] of Object.entries(goNames))
  withReference(`the default profile allows what the reference does, for every capability (${machine})`, (t) => {
    const reference = JSON.parse(readFileSync(file, 'utf8')) as Json
    for (const caps of [[], defaultCaps, ...single.map((c) => [`CAP_${c}`]), single.map((c) => `CAP_${c}`)]) {
      const ours = defaultSeccompProfile(caps, machine)
      t.is(ours.defaultAction, reference['defaultAction'])
      t.is(ours.defaultErrnoRet, reference['defaultErrnoRet'])
      t.deepEqual(facts(ours.syscalls as unknown as Json[]), facts(resolve(reference, caps, go)), caps.join(' '))
    }
  })

withReference('both forms compile to the same program', async (t) => {
  const reference = readFileSync(file, 'utf8')
  const a = await native().seccompCompile(reference, defaultCaps)
  const b = await native().seccompCompile(JSON.stringify(defaultSeccompProfile(defaultCaps)), [])
  t.is(a.length % 8, 0)
  t.deepEqual(Buffer.from(a), Buffer.from(b))
})

test('a profile that cannot be read is an error with its reason', async (t) => {
  await t.throwsAsync(native().seccompCompile('{', []), { code: 'EINVAL', message: /not valid JSON/ })
  await t.throwsAsync(
    native().seccompCompile('{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"action":"SCMP_ACT_ERRNO"}]}', []),
    { message: /no names/ },
  )
  await t.throwsAsync(native().seccompCompile('{"defaultAction":"SCMP_ACT_ALLOW"}', [], 'z80'), {
    message: /unknown architecture 'z80'/,
  })
})
