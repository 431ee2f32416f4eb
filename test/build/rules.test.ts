// biome-ignore-all lint/suspicious/noTemplateCurlyInString: Dockerfiles have such variables too
// What a build decides without doing anything: variables, ignored files, arguments, configurations, cache keys, documents.
import test from 'ava'
import { BuildArgs } from '../../src/build/build-args.js'
import { cachedChild, leadsTo, nextInHistory, sameStep } from '../../src/build/cache.js'
import {
  argv,
  baseConfig,
  commented,
  type Describing,
  describe,
  nextWorkdir,
  type StageState,
} from '../../src/build/config.js'
import { isGitUrl, readGitUrl } from '../../src/build/context/git.js'
import { destinationOf, sourcesDigest } from '../../src/build/copy.js'
import { environment, expandWord, expandWords } from '../../src/build/dockerfile/expand.js'
import { parseDockerfile } from '../../src/build/dockerfile/parse.js'
import { stepDocument } from '../../src/build/document.js'
import { authFor } from '../../src/build/images.js'
import { squashedDocument } from '../../src/build/squash.js'
import { StageResults } from '../../src/build/stages.js'
import { hasWildcards, isIgnored, matchesPattern, readIgnoreFile } from '../../src/common/index.js'
import type { Image, ImageConfig } from '../../src/runtime/index.js'

const refusal = (fn: () => unknown): string => {
  try {
    fn()
  } catch (e) {
    return (e as Error).message
  }
  return ''
}

const ENV = new Map([
  ['A', 'a'],
  ['EMPTY', ''],
  ['LIST', '80 443'],
  ['ü', 'umlaut'],
])

test('variables are replaced as a shell does', (t) => {
  const cases: [string, string][] = [
    ['$A', 'a'],
    ['${A}b', 'ab'],
    ['$Ab', ''],
    ['$A-b', 'a-b'],
    ['\\$A', '$A'],
    ["'$A'", '$A'],
    ['"$A"', 'a'],
    ['"\\$A \\" \\x"', '$A " \\x'],
    ['${NONE:-x$A}', 'xa'],
    ['${EMPTY:-x}', 'x'],
    ['${A:-x}', 'a'],
    ['${A:+x}', 'x'],
    ['${NONE:+x}', ''],
    ['${EMPTY:+x}', ''],
    ['${A?no}', 'a'],
    ['${EMPTY?no}', ''],
    ['${NONE:-"a b"}', 'a b'],
    ['${NONE:-${A:-z}}', 'a'],
    ['$', '$'],
    ['a$', 'a$'],
    ['$ü', 'umlaut'],
    ['$1x', 'x'],
    ['\\', ''],
    ['a\\b', 'ab'],
    ['a  b', 'a  b'],
  ]
  for (const [text, value] of cases) t.is(expandWord(text, ENV, '\\'), value, text)
  t.is(expandWord('`$A \\$A', ENV, '`'), '$A \\a')
})

test('a substitution that is none is refused with its text', (t) => {
  const cases: [string, string][] = [
    ['${}', 'syntax error: bad substitution'],
    ['${A', "missing ':' in substitution"],
    ['${A:-x', "syntax error: missing '}'"],
    ['${A:=x}', 'unsupported modifier (=) in substitution'],
    ['${NONE:?gone}', 'NONE: gone'],
    ['${NONE?}', 'NONE: is not allowed to be unset'],
    ['${EMPTY:?}', 'EMPTY: is not allowed to be empty'],
    ["'a", 'unexpected end of statement while looking for matching single-quote'],
    ['"a', 'unexpected end of statement while looking for matching double-quote'],
  ]
  for (const [text, why] of cases)
    t.is(
      refusal(() => expandWord(text, ENV, '\\')),
      `failed to process ${JSON.stringify(text)}: ${why}`,
      text,
    )
})

test('blanks of a variable divide words, quoted ones do not', (t) => {
  t.deepEqual(expandWords('$LIST', ENV, '\\'), ['80', '443'])
  t.deepEqual(expandWords('"$LIST" x', ENV, '\\'), ['80 443', 'x'])
  t.deepEqual(expandWords('a\\ b', ENV, '\\'), ['a b'])
  t.deepEqual(expandWords('$NONE', ENV, '\\'), [])
})

test('an ignore file leaves out what its last fitting pattern says', (t) => {
  t.deepEqual(readIgnoreFile('\ufeff# no\n\n a/ \n/b\n!./c\n./d/../e\n*.md\n'), ['a', 'b', '!c', 'e', '*.md'])
  const cases: [string[], string, boolean][] = [
    [['a'], 'a/b', true],
    [['a/b'], 'a', false],
    [['*.md'], 'x.md', true],
    [['*.md'], 'd/x.md', false],
    [['**/*.md'], 'd/e/x.md', true],
    [['**/*.md'], 'x.md', true],
    [['**'], 'a/b', true],
    [['a/**'], 'a/b', true],
    [['*', '!keep'], 'keep', false],
    [['*', '!keep', 'keep'], 'keep', true],
    [['a', '!a/b'], 'a/b/c', false],
    [['a?c'], 'abc', true],
    [['a?c'], 'a/c', false],
    [['[a-c]x'], 'bx', true],
    [['[^a]x'], 'ax', false],
    [['a.c'], 'abc', false],
    [['\\*'], '*', true],
  ]
  for (const [patterns, path, ignored] of cases) t.is(isIgnored(path, patterns), ignored, `${patterns} ${path}`)
  t.regex(
    refusal(() => isIgnored('a', ['[a'])),
    /syntax error in pattern/,
  )
})

test('wildcards of COPY stay within a name', (t) => {
  t.deepEqual(['a', 'a*', 'a?', '[a]', 'a\\*', 'a\\**'].map(hasWildcards), [false, true, true, true, false, true])
  const cases: [string, string, boolean][] = [
    ['*.txt', 'a.txt', true],
    ['*.txt', 'd/a.txt', false],
    ['d/*', 'd/a', true],
    ['f[1-3]', 'f2', true],
    ['f[^1]', 'f1', false],
    ['a\\*', 'a*', true],
    ['a\\*', 'ab', false],
    ['[', '[', false],
    ['a+', 'a+', true],
    ['[a', 'a', false],
    ['a\\', 'a', false],
    ['[\\]]', ']', true],
    ['[a-]', '-', true],
  ]
  for (const [pattern, path, fits] of cases) t.is(matchesPattern(pattern, path), fits, `${pattern} ${path}`)
})

test('no pattern and no line takes long', (t) => {
  const begun = performance.now()
  t.false(matchesPattern(`${'*a'.repeat(100)}b`, 'a'.repeat(255)))
  t.false(isIgnored(`${'a/'.repeat(500)}c`, [`${'**/a'.repeat(1)}/${'**/'.repeat(50)}b`, `${'*a'.repeat(100)}b`]))
  parseDockerfile(`FROM a\nRUN x${' '.repeat(60_000)}y\n#${' '.repeat(60_000)}z`, 'D')
  t.log(`${Math.round(performance.now() - begun)} ms`)
})

test("arguments: the request's value wins, defaults of before FROM count where ARG names them", (t) => {
  const args = BuildArgs.of({ GIVEN: 'g', NONE: null, HTTP_PROXY: 'p', UNUSED: 'x' })
  args.declareGlobal('VERSION', '1')
  t.deepEqual(
    [...args.globalValues()],
    [
      ['VERSION', '1'],
      ['HTTP_PROXY', 'p'],
    ],
  )
  const stage = args.forStage()
  t.deepEqual([...stage.values().keys()], ['HTTP_PROXY'])
  stage.declare('VERSION', null)
  stage.declare('GIVEN', 'default')
  stage.declare('NONE', null)
  stage.declare('OWN', 'o')
  t.deepEqual(Object.fromEntries(stage.values()), { VERSION: '1', GIVEN: 'g', OWN: 'o', HTTP_PROXY: 'p' })
  t.deepEqual(stage.beside(environment(['GIVEN=env', 'HTTP_PROXY='])), ['VERSION=1', 'OWN=o'])
  t.false(stage.isRemembered('HTTP_PROXY'))
  t.true(stage.isRemembered('GIVEN'))
  stage.declare('HTTP_PROXY', null)
  t.true(stage.isRemembered('HTTP_PROXY'))
  t.deepEqual(args.unused(), ['UNUSED'])
  const odd = args.forStage()
  odd.declare('constructor', null)
  t.false(odd.values().has('constructor'))
  t.deepEqual([...args.forStage().values().keys()], ['HTTP_PROXY'])
})

const fresh = (config: Partial<StageState['config']> = {}): StageState => ({
  config: { ...baseConfig(null), ...config },
  author: '',
  hasOwnCommand: false,
})
const after = (state: StageState, ...lines: string[]) => {
  const comments: string[] = []
  for (const s of parseDockerfile(['FROM a', ...lines].join('\n'), 'D').stages[0]!.steps) {
    const done = describe(state, s as Describing, s.kind === 'expose' ? s.ports : [])
    state = done.state
    comments.push(done.note ?? done.comment)
  }
  return { state, config: state.config, comments }
}

test('a base image without a PATH gets one', (t) => {
  t.deepEqual(baseConfig(null).Env, ['PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'])
  t.deepEqual(baseConfig({ Env: ['PATH=/x'] }).Env, ['PATH=/x'])
})

test('steps that describe change the configuration and say so in their comment', (t) => {
  const { config, state, comments } = after(
    fresh({ Env: ['A=1'] }),
    'ENV B=2 A=3',
    'LABEL x=y',
    'MAINTAINER me',
    'EXPOSE 8000-8001/udp 80',
    'VOLUME /v /w',
    'USER u',
    'STOPSIGNAL 9',
    'SHELL ["bash", "-c"]',
    'CMD run',
    'ONBUILD RUN x',
    'HEALTHCHECK --interval=5s --retries=3 CMD probe',
  )
  t.like(config, {
    Env: ['A=3', 'B=2'],
    Labels: { x: 'y' },
    User: 'u',
    StopSignal: '9',
    Shell: ['bash', '-c'],
    Cmd: ['bash', '-c', 'run'],
    OnBuild: ['RUN x'],
  })
  t.is(state.author, 'me')
  t.deepEqual(Object.keys(config.ExposedPorts ?? {}).sort(), ['80/tcp', '8000/udp', '8001/udp'])
  t.deepEqual(Object.keys(config.Volumes ?? {}), ['/v', '/w'])
  t.deepEqual(comments, [
    'ENV B=2 A=3',
    'LABEL x=y',
    'MAINTAINER me',
    'EXPOSE 80 8000-8001/udp',
    'VOLUME [/v /w]',
    'USER u',
    'STOPSIGNAL 9',
    'SHELL [bash -c]',
    'CMD ["bash" "-c" "run"]',
    'ONBUILD RUN x',
    'HEALTHCHECK &{["CMD-SHELL" "probe"] "5s" "0s" "0s" \'\\x03\'}',
  ])
})

test('an entrypoint drops the inherited command, not one of its own stage', (t) => {
  t.is(after(fresh({ Cmd: ['base'] }), 'ENTRYPOINT ["e"]').config.Cmd, null)
  t.deepEqual(after(fresh(), 'CMD ["c"]', 'ENTRYPOINT ["e"]').config.Cmd, ['c'])
  t.is(after(fresh(), 'ENTRYPOINT []').config.Entrypoint, null)
  t.deepEqual(after(fresh({ Healthcheck: { Test: ['CMD', 'a'] } }), 'HEALTHCHECK NONE').comments, [
    'Note: overriding previous HEALTHCHECK: [CMD a]\n',
  ])
})

test('ports that are none are refused', (t) => {
  for (const port of ['a', '80-70', '70000', '80/foo'])
    t.not(
      refusal(() => after(fresh(), `EXPOSE ${port}`)),
      '',
      port,
    )
})

test('comments and shell forms use the stage shell', (t) => {
  const config = { ...baseConfig(null), Shell: ['sh', '-x'] }
  t.deepEqual(commented(config, 'ENV a=b', 'two words').Cmd, ['sh', '-x', '#(nop) ', 'ENV a=b'])
  t.deepEqual(commented(baseConfig(null), 'COPY x in y ', 'one word').Cmd, ['/bin/sh', '-c', '#(nop) COPY x in y '])
  t.deepEqual(argv({ words: ['a'], isShell: false }, config), ['a'])
  t.is(nextWorkdir('/a', 'b/../c/'), '/a/c')
  t.is(nextWorkdir('', '.'), '/')
  t.is(nextWorkdir('', 'b'), '/b')
  t.is(nextWorkdir('/a', '/x/'), '/x/')
})

test('two steps are the same when their containers were to do the same', (t) => {
  const a = { Cmd: ['x'], Env: ['A=1'], Labels: { l: '1' }, Volumes: { '/v': {} }, User: '' }
  t.true(sameStep(a, { ...a, Hostname: 'h', Image: 'i', WorkingDir: '/other' }))
  const others: object[] = [
    { Cmd: ['y'] },
    { Cmd: ['x', 'y'] },
    { Env: ['A=2'] },
    { Labels: { l: '2' } },
    { Labels: { m: '1' } },
    { Volumes: { '/w': {} } },
    { User: 'u' },
    { Entrypoint: ['e'] },
    { ExposedPorts: { '1/tcp': {} } },
    { OpenStdin: true },
  ]
  for (const o of others) t.false(sameStep(a, { ...a, ...o }), JSON.stringify(o))
})

const layers = (...diff_ids: string[]) => ({ type: 'layers' as const, diff_ids })
const image = (id: string, createdMs: number, config: object): Image =>
  ({ id, createdMs, config: { rootfs: layers(), ...config } }) as unknown as Image

test('the newest child that the step made is taken', (t) => {
  const step = { ...baseConfig(null), Cmd: ['c'] }
  const made = { container_config: step }
  t.is(cachedChild([image('a', 1, made), image('b', 2, made), image('c', 3, {})], step)?.id, 'b')
  t.is(cachedChild([image('a', 1, { container_config: { ...step, Cmd: ['d'] } })], step), null)
  t.true(leadsTo('b', ['a', 'b']))
  t.false(leadsTo('a', ['a', 'b']))
})

test('an image without parents is gone through by its history', (t) => {
  const step = (text: string) => ({ ...baseConfig(null), Cmd: ['sh', text] })
  const base: ImageConfig = {
    os: 'linux',
    architecture: 'amd64',
    rootfs: layers('l0'),
    history: [{ created: '1', created_by: 'base' }],
  }
  const target: ImageConfig = {
    ...base,
    rootfs: layers('l0', 'l1'),
    history: [
      ...base.history!,
      { created: '2', created_by: 'sh a' },
      { created: '3', created_by: 'sh b', empty_layer: true },
    ],
  }
  t.deepEqual(nextInHistory(target, base, step('a')), { isLast: false, layers: 2 })
  t.is(nextInHistory(target, base, step('b')), null)
  const second = { ...target, history: target.history!.slice(0, 2) }
  t.deepEqual(nextInHistory(target, second, step('b')), { isLast: true, layers: 2 })
  t.is(nextInHistory(target, target, step('c')), null)
  t.is(nextInHistory(target, { ...base, rootfs: layers('other') }, step('a')), null)
  t.is(nextInHistory(target, { ...base, history: [{ created: '9', created_by: 'base' }] }, step('a')), null)
  t.deepEqual(nextInHistory(target, null, { ...baseConfig(null), Cmd: ['base'] }), { isLast: false, layers: 1 })
})

test("a step's document goes on from its parent's", (t) => {
  const config = { ...baseConfig(null), Cmd: ['run'] }
  const o = {
    parent: null,
    platform: { os: 'linux', architecture: 'amd64' },
    config,
    container: commented(config, 'CMD x', 'two words'),
    containerId: 'c',
    image: '',
    author: 'me',
    created: '2020-01-01T00:00:00Z',
  }
  const first = stepDocument(o, null)
  t.like(first, { author: 'me', os: 'linux', container: 'c', rootfs: layers() })
  t.deepEqual(first.history, [
    { created: o.created, author: 'me', created_by: '/bin/sh -c #(nop)  CMD x', empty_layer: true },
  ])
  const second = stepDocument({ ...o, parent: first, image: 'sha256:1', author: '' }, 'sha256:d')
  t.deepEqual(second.rootfs.diff_ids, ['sha256:d'])
  t.is(second.history?.length, 2)
  t.false('empty_layer' in second.history![1]!)
  t.is(second.container_config?.Image, 'sha256:1')
})

test('a squashed image keeps its history, with one layer above its base', (t) => {
  const base: ImageConfig = {
    os: 'linux',
    architecture: 'amd64',
    rootfs: layers('l0'),
    history: [{ created_by: 'base' }],
  }
  const image = {
    ...base,
    rootfs: layers('l0', 'l1', 'l2'),
    history: [...base.history!, { created_by: 'a' }, { created_by: 'b' }],
  }
  const o = { diffId: 'merged', comment: 'merge', created: 'now' }
  const squashed = squashedDocument(image, base, o)
  t.deepEqual(squashed.rootfs.diff_ids, ['l0', 'merged'])
  t.deepEqual(squashed.history, [
    { created_by: 'base' },
    { created_by: 'a', empty_layer: true },
    { created_by: 'b', empty_layer: true },
    { created: 'now', comment: 'merge' },
  ])
  t.deepEqual(squashedDocument(image, null, { ...o, diffId: null }).rootfs.diff_ids, [])
})

test('stages are found by name and number, images by everything else', (t) => {
  const stages = new StageResults()
  stages.add('one', null)
  stages.add('', image('i', 1, {}))
  t.is(stages.find('ONE')?.image, null)
  t.is(stages.find('1')?.image?.id, 'i')
  t.is(stages.find('busybox'), null)
  t.is(
    refusal(() => stages.find('2')),
    'refers to current build stage',
  )
  t.is(
    refusal(() => stages.find('3')),
    'index out of bounds',
  )
  t.is(
    refusal(() => stages.find('-1')),
    'index out of bounds',
  )
  t.is(
    refusal(() => stages.add('one', null)),
    'one stage name already used',
  )
})

test('destinations are below the working directory and keep their slash', (t) => {
  t.is(destinationOf('/w', 'a'), '/w/a')
  t.is(destinationOf('/w', 'a/'), '/w/a/')
  t.is(destinationOf('', '.'), '/')
  t.is(destinationOf('/w', '/x/'), '/x/')
  t.is(destinationOf('/w', './'), '/w/')
})

test('one source is known by its own digest, several by all of theirs', (t) => {
  const item = (digest: string) => ({ root: '', path: '', name: '', isDirectory: false, digest, isRemote: false })
  t.is(sourcesDigest([item('file:1')]), 'file:1')
  t.regex(sourcesDigest([item('file:1'), item('dir:2')]), /^multi:[0-9a-f]{64}$/)
  t.not(sourcesDigest([item('a'), item('b')]), sourcesDigest([item('b'), item('a')]))
})

test('git URLs are told from others and taken apart', (t) => {
  for (const url of ['git://h/r', 'https://h/r.git', 'http://h/r.git#x:y', 'github.com/a/b', 'git@h:a/b'])
    t.true(isGitUrl(url), url)
  for (const url of ['https://h/r', 'http://h/r.git.tar', 'https://h/r.git#']) t.false(isGitUrl(url), url)
  t.deepEqual(readGitUrl('github.com/a/b'), { remote: 'https://github.com/a/b', ref: 'master', directory: '' })
  t.deepEqual(readGitUrl('https://h/r.git#v1:sub/dir'), { remote: 'https://h/r.git', ref: 'v1', directory: 'sub/dir' })
  t.deepEqual(readGitUrl('git@h:a/b#:d'), { remote: 'git@h:a/b', ref: 'master', directory: 'd' })
  t.is(
    refusal(() => readGitUrl('git://h/r#--upload-pack=x')),
    'invalid refspec: --upload-pack=x',
  )
})

test("credentials are those of the image's registry", (t) => {
  const auths = {
    'https://index.docker.io/v1/': { username: 'hub' },
    'https://r.example:5000/v2/': { username: 'own' },
    'plain.example': { username: 'plain' },
  }
  t.is(authFor('busybox', auths).username, 'hub')
  t.is(authFor('r.example:5000/a/b:1', auths).username, 'own')
  t.is(authFor('plain.example/a', auths).username, 'plain')
  t.deepEqual(authFor('else.example/a', auths), {})
})
