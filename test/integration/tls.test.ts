// The Engine API over TCP with TLS, by the stock docker commands: who has a certificate of the CA gets in, nobody else.
import { execFileSync, spawn, spawnSync } from 'node:child_process'
import { X509Certificate } from 'node:crypto'
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'ava'
import { SHOALD } from '../../src/lab/index.js'
import { clock, DOCKERS, Lab, type LabHost, ok, type Result, webImage } from './support.js'

const dir = mkdtempSync(join(tmpdir(), 'shoal-tls-'))
const certs = join(dir, 'certs')
const make = (...args: string[]): Result => {
  const r = spawnSync(process.execPath, ['certs/make.mjs', ...args], { encoding: 'utf8' })
  return { status: r.status ?? 1, stdout: r.stdout, stderr: r.stderr }
}

let l: Lab
let h: LabHost
let image: string

test.before(async () => {
  const made = make('--out', certs, '--host', '10.92.24.11')
  if (made.status !== 0) throw new Error(made.stderr)
  const tls = (ca: string): string[] => [
    '--tlscacert',
    join(certs, ca),
    '--tlscert',
    join(certs, 'server/cert.pem'),
    '--tlskey',
    join(certs, 'server/key.pem'),
  ]
  l = await Lab.up(
    {
      name: 'tlsapi',
      subnet: '10.92.24',
      managers: 1,
      workers: 0,
      engine: SHOALD,
      engineFlags: ['--host', 'tcp://0.0.0.0', '--tlsverify', ...tls('server/ca.pem')],
    },
    clock,
    () => {},
  )
  h = l.plan.hosts[0]!
  image = await webImage(l, h)
})
test.after.always(async () => {
  await l?.down()
  rmSync(dir, { recursive: true, force: true })
})

/** In the host's network namespace, with the environment that people set. */
function over(
  path: string,
  args: readonly string[],
  options: { input?: string; env?: NodeJS.ProcessEnv; host?: string } = {},
): Promise<Result> {
  return new Promise((resolve, reject) => {
    const p = spawn('nsenter', [`--net=/run/netns/${h.netns}`, path, ...args], {
      env: {
        PATH: process.env.PATH,
        HOME: dir,
        TERM: 'dumb',
        DOCKER_HOST: options.host ?? 'tcp://10.92.24.11:2376',
        DOCKER_CONFIG: '/nonexistent',
        ...(options.env ?? { DOCKER_TLS_VERIFY: '1', DOCKER_CERT_PATH: join(certs, 'client') }),
      },
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
    p.stdin.on('error', () => {})
    p.stdin.end(options.input)
  })
}

for (const path of DOCKERS)
  test.serial(`${path}: run, exec, attach, logs, cp, events and load work over TLS`, async (t) => {
    const done = async (args: readonly string[], input?: string): Promise<string> => {
      const r = await over(path, args, input === undefined ? {} : { input })
      t.is(r.status, 0, `${args.join(' ')}: ${r.stderr}`)
      return r.stdout.trim()
    }
    t.is(await done(['run', '--rm', image, 'echo', 'over tls']), 'over tls')
    t.is(await done(['run', '-i', '--rm', image, 'sh', '-c', 'cat; echo end'], 'typed\n'), 'typed\nend')
    const big = 'x'.repeat(3_000_000)
    t.is((await done(['run', '-i', '--rm', image, 'wc', '-c'], big)).trim(), String(big.length))
    t.is((await over(path, ['run', '--rm', image, 'sh', '-c', 'exit 7'])).status, 7)
    await done(['run', '-d', '--name', 'cc', image, 'sleep', '600'])
    t.is(await done(['exec', '-i', 'cc', 'tr', 'a-z', 'A-Z'], 'shout'), 'SHOUT')
    writeFileSync(join(dir, 'file'), 'copied')
    await done(['cp', join(dir, 'file'), 'cc:/file'])
    t.is(await done(['exec', 'cc', 'cat', '/file']), 'copied')
    await done(['rm', '-f', 'cc'])
    // Attached before it is started: the connection is taken over while the process waits for its input.
    await done(['create', '-i', '--name', 'att', image, 'cat'])
    t.is(await done(['start', '-ai', 'att'], 'through'), 'through')
    t.is(await done(['logs', 'att']), 'through')
    await done(['rm', 'att'])
    t.regex(
      await done([
        'events',
        '--since',
        '1',
        '--until',
        String(Date.now() / 1000),
        '-f',
        'event=die',
        '--format',
        '{{.Type}}',
      ]),
      /container/,
    )
    t.is(await done(['tag', image, 'copy:1']), '')
    t.is(await done(['save', '-o', join(dir, 'i.tar'), 'copy:1']), '')
    await done(['rmi', 'copy:1'])
    t.regex(await done(['load', '-i', join(dir, 'i.tar')]), /Loaded image: copy:1/)
    await done(['rmi', 'copy:1'])
  })

test.serial('without a certificate, with one of another CA, or without TLS nobody gets in', async (t) => {
  const path = DOCKERS[0]!
  const other = join(dir, 'other')
  t.is(make('--out', other).status, 0)
  const none = await over(path, ['ps'], { env: { DOCKER_TLS: '1', DOCKER_CERT_PATH: join(dir, 'empty') } })
  t.not(none.status, 0)
  const foreign = await over(
    path,
    [
      '--tls',
      '--tlscacert',
      join(certs, 'client/ca.pem'),
      '--tlscert',
      join(other, 'client/cert.pem'),
      '--tlskey',
      join(other, 'client/key.pem'),
      'ps',
    ],
    { env: {} },
  )
  t.not(foreign.status, 0)
  t.regex(foreign.stderr, /tls: |certificate|EOF|reset/)
  const plain = await over(path, ['ps'], { env: {} })
  t.not(plain.status, 0)
  // The client checks as well: a server of another CA is not spoken to.
  const wrongServer = await over(path, ['ps'], {
    env: { DOCKER_TLS_VERIFY: '1', DOCKER_CERT_PATH: join(other, 'client') },
  })
  t.regex(wrongServer.stderr, /unknown authority|certificate/)
  const log = readFileSync(h.log, 'utf8')
  t.notRegex(log, /level=fatal|uncaught/)
  t.is(await ok(h, 'ps', '-q'), '')
})

test.serial('shoal speaks over TLS too', async (t) => {
  const r = await over(join(process.cwd(), 'bin/shoal'), ['run', '-i', '--rm', image, 'cat'], { input: 'by shoal' })
  t.is(r.status, 0, r.stderr)
  t.is(r.stdout, 'by shoal')
})

test('the bundle has a CA, server names, client keys that only the owner reads, and a second client', (t) => {
  const cert = new X509Certificate(readFileSync(join(certs, 'server/cert.pem')))
  const ca = new X509Certificate(readFileSync(join(certs, 'ca/ca.pem')))
  t.true(ca.ca)
  t.true(cert.checkIssued(ca) && cert.verify(ca.publicKey))
  t.regex(cert.subjectAltName ?? '', /IP Address:10\.92\.24\.11/)
  t.is(statSync(join(certs, 'client/key.pem')).mode & 0o777, 0o600)
  t.is(statSync(join(certs, 'ca/ca-key.pem')).mode & 0o777, 0o600)
  t.regex(make('--out', certs).stderr, /exist already/)
  t.is(make('--out', certs, '--client', 'ann', '--password', 'pw').status, 0)
  const info = execFileSync(
    'openssl',
    ['pkcs12', '-in', join(certs, 'ann/ann.p12'), '-passin', 'pass:pw', '-nokeys', '-legacy'],
    { encoding: 'utf8' },
  )
  t.regex(info, /CN ?= ?ann/)
  t.regex(make('--out', certs, '--days', 'x').stderr, /--days "x": use a whole number/)
  t.regex(make('--out', join(dir, 'n'), '--host', 'a b').stderr, /--host "a b": neither an address nor a host name/)
  t.false(existsSync(join(dir, 'n')))
})
