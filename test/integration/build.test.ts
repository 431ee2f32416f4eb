// Builds by the API and the stock commands through a real daemon: hostile contexts, what copies keep, what is undone.
import { execFileSync, spawn } from 'node:child_process'
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import test, { type ExecutionContext } from 'ava'
import { type Header, pack } from 'tar-stream'
import { call, clock, DOCKERS, docker, type Lab, type LabHost, lab, ok, until, webImage } from './support.js'
import { difference, traces } from './traces.js'

let l: Lab
let h: LabHost
let image: string
let scratch: string
let server: ReturnType<typeof spawn> | undefined

const PORT = '18418'
const SERVED = `http://127.0.0.1:${PORT}`

test.before(async () => {
  scratch = mkdtempSync(join(tmpdir(), 'shoal-build-'))
  l = await lab('ibd', '10.92.30', 1, 0)
  h = l.plan.hosts[0] as LabHost
  image = await webImage(l, h)
  // Files of `scratch` on the host's own loopback.
  server = spawn(
    'nsenter',
    [`--net=/run/netns/${h.netns}`, 'python3', '-m', 'http.server', PORT, '--bind', '127.0.0.1'],
    { cwd: scratch, stdio: 'ignore' },
  )
  await until('the files are served', 20, async () => l.inNetns(h.netns, ['curl', '-fs', SERVED]).catch(() => false))
})
test.after.always(async () => {
  server?.kill('SIGKILL')
  await l?.down()
  rmSync(scratch, { recursive: true, force: true })
})

type Entry = Partial<Header> & { readonly name: string; readonly text?: string | Buffer }

async function tarOf(...entries: readonly Entry[]): Promise<Buffer> {
  const tar = pack()
  for (const { text, ...header } of entries) tar.entry({ mode: 0o644, ...header }, text ?? '')
  tar.finalize()
  const parts: Buffer[] = []
  for await (const part of tar) parts.push(part as Buffer)
  return Buffer.concat(parts)
}

const dockerfile = (...lines: string[]): Entry => ({ name: 'Dockerfile', text: [`FROM ${image}`, ...lines].join('\n') })

interface Built {
  readonly status: number
  /** All `stream` texts. */
  readonly said: string
  /** Of the stream or of the answer. */
  readonly error: string
  readonly id: string
}

/** POST /build with a tar; never throws for what the builder says. */
async function build(tar: Buffer | null, query = ''): Promise<Built> {
  const path = `/v1.41/build?${query}`
  const answer = await new Promise<{ status: number; text: string }>((resolve, reject) => {
    const p = spawn('curl', [
      ...['-gsS', '--unix-socket', h.socket, '-X', 'POST', '-w', '\n%{http_code}', `http://x${path}`],
      ...(tar ? ['-H', 'Content-Type: application/x-tar', '--data-binary', '@-'] : []),
    ])
    let text = ''
    p.stdout.on('data', (b) => {
      text += b
    })
    p.on('error', reject)
    p.on('close', () => {
      const at = text.lastIndexOf('\n')
      resolve({ status: Number(text.slice(at + 1)), text: text.slice(0, at) })
    })
    p.stdin.on('error', () => {})
    p.stdin.end(tar ?? '')
  })
  if (answer.status !== 200)
    return { status: answer.status, said: '', error: (JSON.parse(answer.text) as { message: string }).message, id: '' }
  const messages = answer.text
    .split('\r\n')
    .filter((x) => x !== '')
    .map((x) => JSON.parse(x) as { stream?: string; error?: string; aux?: { ID: string } })
  return {
    status: 200,
    said: messages.map((m) => m.stream ?? '').join(''),
    error: messages.find((m) => m.error)?.error ?? '',
    id: messages.findLast((m) => m.aux)?.aux?.ID ?? '',
  }
}

/** What a shell says in a container of the image. */
const inside = (id: string, command: string): Promise<string> => ok(h, 'run', '--rm', id, 'sh', '-c', command)

/** Nothing but images may be there after it. */
async function leavesNothing(t: ExecutionContext, fn: () => Promise<void>): Promise<void> {
  const before = traces(h)
  await fn()
  let left: string[] = []
  await until('the host is as it was', 15, async () => {
    // What an earlier test removed may have been swept meanwhile.
    left = difference(before, traces(h)).filter((line) => !line.startsWith('gone: '))
    return left.length === 0
  }).catch(() => {})
  t.deepEqual(left, [])
  t.deepEqual(readdirSync(join(h.dataRoot, 'tmp')), [])
}

test.serial('a context that leads out of itself stays inside, and nothing of it is left', async (t) => {
  await leavesNothing(t, async () => {
    const target = join(scratch, 'outside')
    writeFileSync(target, 'host')
    const up = await build(await tarOf(dockerfile('COPY escape /'), { name: '../../escape', text: 'x' }))
    t.is(await inside(up.id, 'cat /escape'), 'x')
    const hard = await build(
      await tarOf(dockerfile('COPY . /'), { name: 'a', type: 'link', linkname: '../../../../etc/passwd' }),
    )
    t.is(hard.status, 400, hard.said)
    t.regex(hard.error, /^Error processing tar file: .*outside of the tree/)
    // Links are followed inside of the context only.
    const links: Entry[] = [
      { name: 'host', type: 'symlink', linkname: target },
      { name: 'up', type: 'symlink', linkname: '../../../../..' },
    ]
    for (const source of ['host', `up${target}`]) {
      const r = await build(await tarOf(dockerfile(`COPY ${source} /copied`), ...links))
      t.regex(r.error, /^COPY failed: file not found in build context or excluded by \.dockerignore: stat /)
    }
    const linked = await build(await tarOf(dockerfile('COPY . /ctx/'), ...links))
    t.is(await inside(linked.id, 'readlink /ctx/host'), target)
    const dockerfileLink = await build(await tarOf({ name: 'Dockerfile', type: 'symlink', linkname: target }))
    t.regex(dockerfileLink.error, /^Cannot locate specified Dockerfile: Dockerfile$/)
    // A link of the image leads into the image.
    const into = await build(
      await tarOf(dockerfile('RUN ln -s /../../../../tmp/shoal-escape /l', 'COPY f /l/'), { name: 'f', text: 'x' }),
    )
    t.is(await inside(into.id, 'cat /tmp/shoal-escape/f'), 'x')
    t.false(existsSync('/tmp/shoal-escape'))
  })
})

test.serial('what is no context is refused before anything is said', async (t) => {
  const cases: [Buffer | null, string, number, RegExp][] = [
    [Buffer.from('no tar at all, but some text'), '', 400, /^Error processing tar file: /],
    [await tarOf({ name: 'x', text: '' }), '', 400, /^Cannot locate specified Dockerfile: Dockerfile$/],
    [await tarOf({ name: 'Dockerfile', text: '' }), '', 400, /^the Dockerfile \(Dockerfile\) cannot be empty$/],
    [await tarOf(dockerfile('FOO')), '', 400, /^dockerfile parse error line 2: unknown instruction: FOO$/],
    [await tarOf(dockerfile()), 't=UPPER', 400, /^invalid reference format/],
    [await tarOf(dockerfile()), 'target=none', 400, /^failed to reach build target none in Dockerfile$/],
    [await tarOf(dockerfile()), 'squash=1', 400, /^squash is only supported with experimental mode$/],
    [await tarOf(dockerfile()), 'isolation=hyperv', 400, /^Unsupported isolation: "hyperv"$/],
    [await tarOf(dockerfile()), 'securityopt=x', 400, /does not support setting security options on build$/],
    [await tarOf(dockerfile()), 'buildargs=[', 400, /^error reading build args: /],
    [await tarOf(dockerfile()), 'memory=x', 400, /^parameter memory: "x" is not a whole number$/],
    [await tarOf(dockerfile()), 'platform=no/such/thing/at-all', 400, /is not a platform/],
    [await tarOf(dockerfile()), 'version=2', 501, /does not speak BuildKit/],
    [null, 'remote=client-session', 400, /^experimental session with v1 builder is no longer supported/],
    [null, 'remote=ftp://x', 400, /could not be recognized as URL$/],
  ]
  await leavesNothing(t, async () => {
    for (const [tar, query, status, message] of cases) {
      const r = await build(tar, query)
      t.is(r.status, status, `${query}: ${r.error}`)
      t.regex(r.error, message)
    }
  })
})

test.serial('copies keep modes, links and times; owners are root, or who is named', async (t) => {
  const mtime = new Date('2001-02-03T04:05:06Z')
  const tree: Entry[] = [
    { name: 'd/', type: 'directory', mode: 0o700, uid: 5, gid: 6, mtime },
    { name: 'd/tool', text: '#!', mode: 0o4755, uid: 5, gid: 6, mtime },
    { name: 'd/link', type: 'symlink', linkname: 'tool', mtime },
    { name: 'd/sub/', type: 'directory', mode: 0o1777, uid: 5, gid: 6, mtime },
    { name: 'd/sub/deep', text: 'deep', mode: 0o600, uid: 5, gid: 6, mtime },
    { name: 'a.txt', text: 'a' },
    { name: 'b.txt', text: 'b' },
    { name: 'c.md', text: 'c' },
  ]
  const r = await build(
    await tarOf(
      dockerfile(
        'RUN mkdir -p /etc && echo "me:x:77:88::/:/bin/sh" > /etc/passwd && echo "us:x:99:" > /etc/group && mkdir /there && chown 1:1 /there',
        'WORKDIR /w',
        'COPY d /all',
        'COPY --chown=me:us d /named/',
        'COPY --chown=3 d there/',
        'COPY --chown=me:us d /there',
        'COPY *.txt many/',
        'COPY a.txt renamed',
      ),
      ...tree,
    ),
  )
  t.is(r.error, '')
  const stat = (paths: string): Promise<string> => inside(r.id, `stat -c '%n %a %u:%g %Y' ${paths}`)
  t.is(
    await stat('/all/tool /all/sub /all/sub/deep'),
    [
      `/all/tool 4755 0:0 ${mtime.getTime() / 1000}`,
      `/all/sub 1777 0:0 ${mtime.getTime() / 1000}`,
      `/all/sub/deep 600 0:0 ${mtime.getTime() / 1000}`,
    ].join('\n'),
  )
  t.regex(await stat('/all'), /^\/all 755 0:0 /)
  t.is(await inside(r.id, 'readlink /all/link'), 'tool')
  t.regex(await stat('/named'), /^\/named 755 77:99 /)
  t.regex(await stat('/named/sub/deep'), /^\/named\/sub\/deep 600 77:99 /)
  t.regex(await stat('/w/there/tool'), /^\/w\/there\/tool 4755 3:3 /)
  t.regex(await stat('/there'), /^\/there 755 1:1 /)
  t.is(await inside(r.id, 'ls /w/many; cat /w/renamed'), 'a.txt\nb.txt\na')
  const failures: [string, RegExp][] = [
    [
      'COPY *.txt /many',
      /^When using COPY with more than one source file, the destination must be a directory and end with a \/$/,
    ],
    ['COPY --chown=nobody-here a.txt /', /can't find uid for user nobody-here: /],
    ['COPY *.none /', /^COPY failed: no source files were specified$/],
    ['COPY http://x/y /', /^COPY failed: source can't be a URL for COPY$/],
    ['COPY --from=5 a.txt /', /^invalid from flag value 5: index out of bounds$/],
    ['COPY --chmod=1 a.txt /', /^the --chmod option requires BuildKit\./],
    ['RUN --mount=type=tmpfs,target=/x true', /^the --mount option requires BuildKit\./],
    ['COPY d /bin/sh', /failed to copy files: /],
    ['VOLUME /bin/sh', /file exists \/bin\/sh$/],
  ]
  for (const [line, message] of failures) t.regex((await build(await tarOf(dockerfile(line), ...tree))).error, message)
})

test.serial('archives and remote files are added, in their ways', async (t) => {
  const inner = await tarOf({ name: 'in/file', text: 'packed', uid: 7, gid: 8 })
  writeFileSync(join(scratch, 'remote.tar'), inner)
  utimesSync(join(scratch, 'remote.tar'), 981173106, 981173106)
  const lines = [
    'ADD plain.tar /plain',
    'ADD packed.tgz /packed/',
    'ADD text.gz /text.gz',
    `ADD ${SERVED}/remote.tar /remote/`,
    `ADD ${SERVED}/remote.tar /renamed`,
  ]
  const r = await build(
    await tarOf(
      dockerfile(...lines),
      ...[
        { name: 'plain.tar', text: inner },
        { name: 'packed.tgz', text: gzipSync(inner) },
        { name: 'text.gz', text: gzipSync('only text') },
      ],
    ),
  )
  t.is(r.error, '')
  t.is(await inside(r.id, 'cat /plain/in/file /packed/in/file; stat -c %u:%g /plain/in/file'), 'packedpacked7:8')
  t.is(await inside(r.id, 'zcat < /text.gz'), 'only text')
  t.is(await inside(r.id, "stat -c '%a %Y' /remote/remote.tar; cmp /remote/remote.tar /renamed"), '600 981173106')
  t.regex(
    (await build(await tarOf(dockerfile(`ADD ${SERVED}/none /`)))).error,
    /^ADD failed: failed to GET .* with status 404 /,
  )
  t.regex((await build(await tarOf(dockerfile(`ADD ${SERVED}/ /x/`)))).error, /cannot determine filename for source/)
})

test.serial('the cache knows contents, not times, and ends at the first change', async (t) => {
  const tar = (text: string, mtime: Date): Promise<Buffer> =>
    tarOf(dockerfile('COPY f /f', 'RUN echo $RANDOM$RANDOM > /r', 'ENV A=b'), { name: 'f', text, mtime })
  const first = await build(await tar('one', new Date(1e12)))
  const same = await build(await tar('one', new Date(1.1e12)))
  t.is(same.id, first.id)
  t.is(same.said.match(/Using cache/g)?.length, 3)
  const other = await build(await tar('two', new Date(1e12)))
  t.not(other.id, first.id)
  t.is(other.said.match(/Using cache/g), null)
  const without = await build(await tar('one', new Date(1e12)), 'nocache=1')
  t.not(without.id, first.id)
  // An image that came from elsewhere has no parents here: its history is gone through.
  await call(h.socket, 'POST', `/images/${first.id}/tag?repo=${encodeURIComponent(`${l.plan.registry}/cached`)}&tag=1`)
  await ok(h, 'push', `${l.plan.registry}/cached:1`)
  await ok(h, 'rmi', '-f', `${l.plan.registry}/cached:1`)
  await ok(h, 'image', 'prune', '-f')
  await ok(h, 'pull', `${l.plan.registry}/cached:1`)
  const cacheFrom = `cachefrom=${encodeURIComponent(JSON.stringify([`${l.plan.registry}/cached:1`]))}`
  const pulled = await build(await tar('one', new Date(1e12)), cacheFrom)
  t.is(pulled.said.match(/Using cache/g)?.length, 3, pulled.said)
  t.is(pulled.id, first.id)
})

test.serial('stages, triggers and arguments make the image that is asked for', async (t) => {
  const r = await build(
    await tarOf({
      name: 'Dockerfile',
      text: [
        'ARG BASE=none',
        `FROM $BASE AS tools`,
        'ONBUILD RUN echo triggered > /trigger',
        'RUN echo from-tools > /t',
        'FROM tools',
        'ARG BASE',
        'RUN test "$BASE" != "" && test "$https_proxy" = secret',
        'FROM scratch AS last',
        'COPY --from=tools / /',
        'COPY --from=1 /trigger /trigger',
        `COPY --from=${image} /bin/busybox /other`,
        'ENV PATH=/bin',
      ].join('\n'),
    }),
    `buildargs=${encodeURIComponent(JSON.stringify({ BASE: image, https_proxy: 'secret', NOBODY: 'x' }))}&labels=${encodeURIComponent('{"l":"$BASE"}')}`,
  )
  t.is(r.error, '')
  t.regex(r.said, /# Executing 1 build trigger\n/)
  t.regex(r.said, /\[Warning\] One or more build-args \[NOBODY\] were not consumed\n/)
  t.is(await inside(r.id, 'cat /t /trigger; cmp /bin/busybox /other'), 'from-tools\ntriggered')
  const shown = JSON.parse(await ok(h, 'image', 'inspect', r.id)) as { Config: { Labels: object } }[]
  t.deepEqual(shown[0]!.Config.Labels, { l: '$BASE' })
  t.notRegex(await ok(h, 'history', '--no-trunc', r.id), /secret/)
})

test.serial('a build whose client goes is cancelled: its container is killed and removed', async (t) => {
  await leavesNothing(t, async () => {
    const dir = join(scratch, 'endless')
    mkdirSync(dir)
    writeFileSync(join(dir, 'Dockerfile'), `FROM ${image}\nRUN echo begun; sleep 1000`)
    const p = spawn(DOCKERS.at(-1)!, ['build', dir], {
      env: { ...process.env, DOCKER_HOST: `unix://${h.socket}`, DOCKER_CONFIG: '/nonexistent', DOCKER_BUILDKIT: '0' },
    })
    let out = ''
    p.stdout.on('data', (b) => {
      out += b
    })
    await until('the step runs', 30, async () => out.includes('begun'))
    p.kill('SIGKILL')
    await until('no container is there', 20, async () => (await ok(h, 'ps', '-aq')) === '')
  })
  await leavesNothing(t, async () => {
    const running = build(await tarOf(dockerfile('RUN sleep 1000')), 'buildid=mine')
    await until('the step runs', 30, async () => (await ok(h, 'ps', '-q')) !== '')
    await call(h.socket, 'POST', '/build/cancel?id=mine')
    t.regex((await running).error, /^build cancelled$/)
    t.is(await ok(h, 'ps', '-aq'), '')
  })
})

test.serial(
  'a daemon that is killed during a build leaves what a killed run would, and goes on from its images',
  async (t) => {
    const before = traces(h)
    const tar = await tarOf(dockerfile('RUN echo done > /done', 'COPY Dockerfile /d', 'RUN sleep 1000'))
    const running = build(tar).catch(() => null)
    await until('the last step runs', 30, async () => /sleep 1000/.test(await ok(h, 'ps', '--no-trunc')))
    t.is(readdirSync(join(h.dataRoot, 'tmp')).length, 1)
    await l.killDaemon(h)
    await running
    await l.startDaemon(h)
    t.deepEqual(readdirSync(join(h.dataRoot, 'tmp')), [])
    await ok(h, 'rm', '-f', await ok(h, 'ps', '-aq'))
    await until('the host is as it was', 15, async () => difference(before, traces(h)).length === 0)
    t.is(
      (await build(await tarOf(dockerfile('RUN echo done > /done', 'COPY Dockerfile /d2')))).said.match(/Using cache/g)
        ?.length,
      1,
    )
  },
)

test.serial('a git repository and its directory are contexts', async (t) => {
  const repo = join(scratch, 'repo')
  mkdirSync(join(repo, 'sub'), { recursive: true })
  writeFileSync(join(repo, 'sub/Dockerfile'), `FROM ${image}\nCOPY . /src/`)
  writeFileSync(join(repo, 'sub/file'), 'from git')
  symlinkSync('/etc/passwd', join(repo, 'sub/passwd'))
  const git = (...args: string[]): string =>
    execFileSync('git', ['-c', 'user.name=a', '-c', 'user.email=a@b', ...args], { cwd: repo, encoding: 'utf8' })
  git('init', '-q', '-b', 'trunk')
  git('add', '.')
  git('commit', '-q', '-m', 'x')
  execFileSync('git', ['clone', '-q', '--bare', repo, `${repo}.git`])
  execFileSync('git', ['update-server-info'], { cwd: `${repo}.git` })
  const p = spawn('ip', ['netns', 'exec', h.netns, 'python3', '-m', 'http.server', '18418', '--bind', '127.0.0.1'], {
    cwd: scratch,
  })
  t.teardown(() => p.kill('SIGKILL'))
  await until('the server answers', 20, async () =>
    l.inNetns(h.netns, ['curl', '-fs', 'http://127.0.0.1:18418/repo.git/info/refs']).catch(() => false),
  )
  const url = encodeURIComponent(`${SERVED}/repo.git#trunk:sub`)
  const r = await build(null, `remote=${url}`)
  t.is(r.error, '')
  t.is(await inside(r.id, 'cat /src/file; readlink /src/passwd'), 'from git/etc/passwd')
  t.regex((await build(null, `remote=${encodeURIComponent(`${SERVED}/repo.git#none`)}`)).error, /^error fetching: /)
  writeFileSync(join(scratch, 'Plain'), `FROM ${image}\nRUN echo plain > /plain`)
  const plain = await build(null, `remote=${encodeURIComponent(`${SERVED}/Plain`)}`)
  t.is(await inside(plain.id, 'cat /plain'), 'plain')
  writeFileSync(join(scratch, 'context.tar'), await tarOf(dockerfile('COPY f /f'), { name: 'f', text: 'f' }))
  const tarred = await build(null, `remote=${encodeURIComponent(`${SERVED}/context.tar`)}`)
  t.is(await inside(tarred.id, 'cat /f'), 'f')
})

for (const path of DOCKERS)
  test.serial(`a large context and much output go through ${path}`, async (t) => {
    const dir = mkdtempSync(join(scratch, 'large-'))
    const begun = clock.monotonic()
    writeFileSync(join(dir, 'big'), Buffer.alloc(64 * 1024 * 1024, 'x'))
    writeFileSync(
      join(dir, 'Dockerfile'),
      `FROM ${image}\nENV BY=${path}\nCOPY big /big\nRUN yes | head -n 200000; wc -c < /big`,
    )
    const r = await docker(h, ['build', dir], { docker: path })
    t.is(r.status, 0, r.stderr)
    t.true(r.stdout.split('\n').filter((x) => x === 'y').length >= 200_000)
    t.regex(r.stdout, /^67108864$/m)
    t.log(`${Math.round(clock.monotonic() - begun)} ms`)
  })

test('a stream that stops half-way is no context', async (t) => {
  const whole = await tarOf(dockerfile('COPY f /'), { name: 'f', text: 'x'.repeat(100_000) })
  const r = await build(whole.subarray(0, 60_000))
  t.is(r.status, 400)
  t.regex(r.error, /^Error processing tar file: /)
})
