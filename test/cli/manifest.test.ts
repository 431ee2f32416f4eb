// Manifest lists through a registry, by docker and by shoal: the same list comes about.
import { spawn } from 'node:child_process'
import { existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'ava'
import { type Lab, type LabHost, lab, ok, type Result, webImage } from '../integration/support.js'

const DOCKER = '/usr/local/bin/docker'
const SHOAL = join(process.cwd(), 'bin/shoal')
const dir = mkdtempSync(join(tmpdir(), 'shoal-manifest-'))
let l: Lab
let h: LabHost
let repo: string

test.before(async () => {
  l = await lab('mani', '10.92.27', 1, 0)
  h = l.plan.hosts[0]!
  const image = await webImage(l, h)
  repo = l.plan.registry
  for (const name of ['one', 'two']) {
    await ok(h, 'tag', image, `${repo}/${name}:1`)
    await ok(h, 'push', '-q', `${repo}/${name}:1`)
  }
})
test.after.always(async () => {
  await l?.down()
  rmSync(dir, { recursive: true, force: true })
})

function run(path: string, ...args: string[]): Promise<Result> {
  return new Promise((resolve, reject) => {
    const p = spawn('nsenter', [`--net=/run/netns/${h.netns}`, path, ...args], {
      env: { ...process.env, DOCKER_CONFIG: join(dir, path === SHOAL ? 'shoal' : 'docker') },
      timeout: 60_000,
    })
    let [stdout, stderr] = ['', '']
    p.stdout.on('data', (b) => {
      stdout += b
    })
    p.stderr.on('data', (b) => {
      stderr += b
    })
    p.on('error', reject)
    p.on('close', (code) => resolve({ status: code ?? 1, stdout, stderr }))
  })
}

test.serial('lists are created, annotated, pushed and read back', async (t) => {
  const clients = [SHOAL, ...(existsSync(DOCKER) ? [DOCKER] : [])]
  const lists: unknown[] = []
  for (const [i, path] of clients.entries()) {
    const list = `${repo}/list${i}:1`
    const must = async (...args: string[]): Promise<string> => {
      const r = await run(path, 'manifest', ...args)
      if (r.status !== 0) throw new Error(`${path} manifest ${args.join(' ')}: ${r.stderr}`)
      return r.stdout
    }
    t.is(await must('create', '--insecure', list, `${repo}/one:1`), `Created manifest list ${list}\n`)
    t.not((await run(path, 'manifest', 'create', '--insecure', list, `${repo}/two:1`)).status, 0, 'no --amend')
    await must('create', '--insecure', '--amend', list, `${repo}/two:1`)
    await must('annotate', '--arch', 'arm64', '--variant', 'v8', '--os', 'linux', list, `${repo}/two:1`)
    t.not((await run(path, 'manifest', 'annotate', list, `${repo}/three:1`)).status, 0)
    const local = JSON.parse(await must('inspect', list)) as { manifests: { platform: object }[] }
    t.deepEqual(
      local.manifests.map((m) => m.platform),
      [
        { architecture: 'amd64', os: 'linux' },
        { architecture: 'arm64', os: 'linux', variant: 'v8' },
      ],
    )
    t.regex(await must('push', '--insecure', '-p', list), /sha256:[0-9a-f]{64}\n$/)
    lists.push(JSON.parse(await must('inspect', '--insecure', list)))
    t.is(JSON.parse(await must('inspect', '--insecure', '-v', list)).length, 2)
    t.not((await run(path, 'manifest', 'rm', list)).status, 0, 'purged')
  }
  for (const other of lists.slice(1)) t.deepEqual(other, lists[0])
  t.deepEqual(readdirSync(join(dir, 'shoal/manifests')), [])
  // The engine takes its platform out of it.
  t.regex(await ok(h, 'pull', `${repo}/list0:1`), /Status: /)
})

test.serial('what is wrong is told in one line', async (t) => {
  const rows: [string[], RegExp][] = [
    [['inspect', '--insecure', `${repo}/one:none`], /manifest unknown|no such manifest/i],
    [['inspect', `${repo}/one:1`], /cannot reach the registry/],
    [['create', '--insecure', `${repo}/l:1`, `${repo}/list0:1`], /is a manifest list/],
    [['push', `${repo}/l:1`], /No such manifest/],
    [['rm', `${repo}/l:1`], /No such manifest/],
    [['inspect', 'BAD REF'], /invalid reference format/],
  ]
  for (const [args, expected] of rows) {
    const r = await run(SHOAL, 'manifest', ...args)
    t.is(r.status, 1, args.join(' '))
    t.regex(r.stderr, expected)
  }
  t.deepEqual(readdirSync(join(dir, 'shoal/manifests')), [])
})
