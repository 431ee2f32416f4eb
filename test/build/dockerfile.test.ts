// Dockerfiles as text: lines, words, instructions, stages. What is refused is refused in dockerd's words.
import test from 'ava'
import { goDuration, goDurationText, goQuote, goQuoteRune } from '../../src/build/dockerfile/go-text.js'
import { logicalLines } from '../../src/build/dockerfile/lines.js'
import { parseDockerfile, parseTrigger, planStages } from '../../src/build/dockerfile/parse.js'
import { jsonList, quotedWords, splitCommand } from '../../src/build/dockerfile/words.js'

const texts = (file: string): string[] => logicalLines(file).lines.map((l) => l.text)
const parse = (...lines: string[]) => parseDockerfile(lines.join('\n'), 'Dockerfile')
/** The one instruction behind a FROM. */
const step = (line: string) => parse('FROM a', line).stages[0]!.steps[0]!
const refusal = (fn: () => unknown): string => {
  try {
    fn()
  } catch (e) {
    return (e as Error).message
  }
  return ''
}

test('comments, empty lines and continuations make one line an instruction', (t) => {
  t.deepEqual(texts('FROM a\n\n# no\n  RUN b \\\n   c\n'), ['FROM a', 'RUN b    c'])
  t.deepEqual(texts('RUN a \\\n# in between\n  # and again\n b'), ['RUN a  b'])
  t.deepEqual(texts('RUN a \\  \t\nb'), ['RUN a b'])
  t.deepEqual(texts('RUN a \\\\\nRUN b'), ['RUN a \\\\', 'RUN b'])
  t.deepEqual(texts('\\\nRUN a'), ['RUN a'])
  t.deepEqual(texts('RUN a \\'), ['RUN a '])
  t.deepEqual(texts('RUN a\r\nRUN b\r\n'), ['RUN a', 'RUN b'])
  t.deepEqual(texts('\ufeffFROM a'), ['FROM a'])
  t.deepEqual(
    logicalLines('FROM a\nRUN x \\\n y\nRUN z').lines.map((l) => [l.first, l.last]),
    [
      [1, 1],
      [2, 3],
      [4, 4],
    ],
  )
})

test('an empty line in a continued one is warned of', (t) => {
  t.deepEqual(logicalLines('RUN a \\\n\n b').warnings, [
    '[WARNING]: Empty continuation line found in:\n    RUN a  b',
    '[WARNING]: Empty continuation lines will become errors in a future release.',
  ])
  t.deepEqual(logicalLines('RUN a \\\n b').warnings, [])
})

test('the escape directive counts before everything else, once, and only for two characters', (t) => {
  t.deepEqual(texts('# escape=`\nRUN a `\nb'), ['RUN a b'])
  t.deepEqual(texts('# syntax=x/y\n#Escape = `\nRUN a `\nb'), ['RUN a b'])
  t.deepEqual(texts('# said\n# escape=`\nRUN a \\\nb'), ['RUN a b'])
  t.is(logicalLines('FROM a\n# escape=`').escapeWith, '\\')
  t.is(
    refusal(() => logicalLines('# escape=\\\n# escape=`\nFROM a')),
    'only one escape parser directive can be used',
  )
  t.is(
    refusal(() => logicalLines('# escape=x\nFROM a')),
    "invalid escape token 'x' does not match ` or \\",
  )
})

test('flags stand before the arguments and may be quoted', (t) => {
  const cases: [string, ReturnType<typeof splitCommand>][] = [
    ['COPY --from=x --chown="a b" s d', { command: 'copy', flags: ['--from=x', '--chown=a b'], rest: 's d' }],
    ['RUN -- --x', { command: 'run', flags: [], rest: '--x' }],
    ['RUN a --x', { command: 'run', flags: [], rest: 'a --x' }],
    ['RUN --a\\ b c', { command: 'run', flags: ['--a b'], rest: 'c' }],
    ['RUN', { command: 'run', flags: [], rest: '' }],
    ['RUN - x', { command: 'run', flags: [], rest: '- x' }],
  ]
  for (const [line, split] of cases) t.deepEqual(splitCommand(line), split, line)
})

test('words keep their quotes and escapes', (t) => {
  const cases: [string, string[]][] = [
    ['a=1  b="2 3"', ['a=1', 'b="2 3"']],
    ["a='1 \\' b", ["a='1 \\'", 'b']],
    ['a=1\\ 2 b', ['a=1\\ 2', 'b']],
    ['a="\\" x" b', ['a="\\" x"', 'b']],
    ['a=b\\', ['a=b']],
    ['""', ['""']],
    ['', []],
  ]
  for (const [text, words] of cases) t.deepEqual(quotedWords(text, '\\'), words, text)
})

test('a JSON list is one of strings; anything else that is no JSON is the shell form', (t) => {
  t.deepEqual(jsonList('["a", "b"]'), ['a', 'b'])
  t.deepEqual(jsonList(' [] '), [])
  t.deepEqual(jsonList('["a"] && rest'), ['a'])
  t.is(jsonList('[ "a" '), null)
  t.is(jsonList("['a']"), null)
  t.is(jsonList('echo'), null)
  t.is(jsonList('[ -f x ] && y'), null)
  for (const bad of ['["a", 1]', '[null]', '[["a"]]'])
    t.is(
      refusal(() => jsonList(bad)),
      'when using JSON array syntax, arrays must be comprised of strings only',
      bad,
    )
})

test('every instruction is read with its flags and forms', (t) => {
  t.like(step('RUN echo  hi'), { kind: 'run', line: { words: ['echo  hi'], isShell: true }, flags: [] })
  t.like(step('RUN ["a", "b"]'), { line: { words: ['a', 'b'], isShell: false } })
  t.like(step('RUN --mount=type=tmpfs a'), { flags: ['mount'] })
  t.like(step('CMD []'), { kind: 'cmd', line: { words: [], isShell: false } })
  t.like(step('entrypoint x'), { kind: 'entrypoint', line: { words: ['x'], isShell: true } })
  t.deepEqual(step('COPY --from=x --chown=1:2 a b c/'), {
    kind: 'copy',
    code: 'COPY --from=x --chown=1:2 a b c/',
    sources: ['a', 'b'],
    destination: 'c/',
    chown: '1:2',
    chmod: '',
    from: 'x',
  })
  t.like(step('ADD ["a b", "c"]'), { kind: 'add', sources: ['a b'], destination: 'c' })
  t.like(step('ENV a=1 b="x y"'), {
    kind: 'env',
    pairs: [
      { name: 'a', value: '1' },
      { name: 'b', value: '"x y"' },
    ],
  })
  t.like(step('ENV a b  c'), { pairs: [{ name: 'a', value: 'b  c' }] })
  t.like(step('LABEL "a b"=c'), { kind: 'label', pairs: [{ name: '"a b"', value: 'c' }], isLiteral: false })
  t.like(step('ARG a b=1 c='), {
    kind: 'arg',
    args: [
      { name: 'a', value: null },
      { name: 'b', value: '1' },
      { name: 'c', value: '' },
    ],
  })
  t.like(step('EXPOSE 9 80/tcp'), { kind: 'expose', ports: ['80/tcp', '9'] })
  t.like(step('VOLUME a b'), { kind: 'volume', paths: ['a', 'b'] })
  t.like(step('VOLUME ["a b"]'), { paths: ['a b'] })
  t.like(step('USER me'), { kind: 'user', value: 'me' })
  t.like(step('WORKDIR a b'), { kind: 'workdir', value: 'a b' })
  t.like(step('STOPSIGNAL 9'), { kind: 'stopsignal', value: '9' })
  t.like(step('MAINTAINER a <b>'), { kind: 'maintainer', value: 'a <b>' })
  t.like(step('SHELL ["sh", "-x"]'), { kind: 'shell', words: ['sh', '-x'] })
  t.like(step('onbuild  RUN x'), { kind: 'onbuild', trigger: 'RUN x' })
  t.like(step('HEALTHCHECK NONE'), { kind: 'healthcheck', health: { Test: ['NONE'] } })
  t.deepEqual(
    (step('HEALTHCHECK --interval=1m30s --timeout=500ms --start-period=1h --retries=3 CMD a b') as { health: object })
      .health,
    { Test: ['CMD-SHELL', 'a b'], Interval: 90e9, Timeout: 5e8, StartPeriod: 3600e9, Retries: 3 },
  )
  t.like(step('HEALTHCHECK CMD ["a"]'), { health: { Test: ['CMD', 'a'] } })
})

test('what an instruction cannot be is refused with its line', (t) => {
  const cases: [string, string][] = [
    ['COPY a', 'COPY requires at least two arguments, but only one was provided. Destination could not be determined'],
    ['ADD', 'ADD requires at least two arguments, but only one was provided. Destination could not be determined'],
    ['COPY --bad=x a b', 'Unknown flag: bad'],
    ['ADD --from=x a b', 'Unknown flag: from'],
    ['COPY --from=x --from=y a b', 'Duplicate flag specified: from'],
    ['COPY --from a b', 'Missing a value on flag: from'],
    ['CMD --x a', 'Unknown flag: x'],
    ['ENV', 'ENV requires at least one argument'],
    ['ENV =x', 'ENV names can not be blank'],
    ['LABEL', 'LABEL requires at least one argument'],
    ['ARG', 'ARG requires at least one argument'],
    ['ARG =x', 'ARG names can not be blank'],
    ['EXPOSE', 'EXPOSE requires at least one argument'],
    ['USER', 'USER requires exactly one argument'],
    ['WORKDIR', 'WORKDIR requires exactly one argument'],
    ['VOLUME', 'VOLUME requires at least one argument'],
    ['VOLUME [""]', 'VOLUME specified can not be an empty string'],
    ['STOPSIGNAL', 'STOPSIGNAL requires exactly one argument'],
    ['SHELL []', 'SHELL requires at least one argument'],
    ['SHELL sh -c', 'SHELL requires the arguments to be in JSON form'],
    ['ONBUILD', 'ONBUILD requires at least one argument'],
    ['ONBUILD ONBUILD RUN x', "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"],
    ['ONBUILD from x', "FROM isn't allowed as an ONBUILD trigger"],
    ['ONBUILD maintainer x', "MAINTAINER isn't allowed as an ONBUILD trigger"],
    ['HEALTHCHECK', 'HEALTHCHECK requires at least one argument'],
    ['HEALTHCHECK NONE x', 'HEALTHCHECK NONE takes no arguments'],
    ['HEALTHCHECK FOO', 'Unknown type "FOO" in HEALTHCHECK (try CMD)'],
    ['HEALTHCHECK CMD', 'Missing command after HEALTHCHECK CMD'],
    ['HEALTHCHECK --interval=1 CMD x', 'time: missing unit in duration "1"'],
    ['HEALTHCHECK --timeout=1us CMD x', 'Interval "timeout" cannot be less than 1ms'],
    ['HEALTHCHECK --retries=0 CMD x', '--retries must be at least 1 (not 0)'],
    ['HEALTHCHECK --retries=a CMD x', 'strconv.ParseInt: parsing "a": invalid syntax'],
    ['FROM a b', 'FROM requires either one or three arguments'],
    ['FROM a as 1b', 'invalid name for build stage: "1b", name can\'t start with a number or contain symbols'],
    ['FOO bar', 'unknown instruction: FOO'],
  ]
  for (const [line, message] of cases)
    t.is(
      refusal(() => parse('FROM a', '', line)),
      `dockerfile parse error line 3: ${message}`,
      line,
    )
})

test('a file that cannot be taken apart is refused by its name', (t) => {
  t.is(
    refusal(() => parse('')),
    'the Dockerfile (Dockerfile) cannot be empty',
  )
  t.is(
    refusal(() => parse('# nothing')),
    'failed to parse Dockerfile: file with no instructions',
  )
  t.is(
    refusal(() => parse('FROM a', 'ENV x')),
    'failed to parse Dockerfile: ENV must have two arguments',
  )
  t.is(
    refusal(() => parse('FROM a', 'ENV a=1 b')),
    'failed to parse Dockerfile: Syntax error - can\'t find = in "b". Must be of the form: name=value',
  )
  t.is(
    refusal(() => parse('FROM a', 'ONBUILD LABEL x')),
    'failed to parse Dockerfile: LABEL must have two arguments',
  )
  t.is(
    refusal(() => parse('RUN x')),
    'no build stage in current context',
  )
  t.regex(
    refusal(() => parse(`FROM ${'a'.repeat(65536)}`)),
    /line greater than max allowed size of 65535$/,
  )
})

test('stages begin with FROM; arguments before the first stand apart', (t) => {
  const file = parse('ARG v=1', 'FROM a:$v AS One', 'RUN x', 'from --platform=linux/arm64 b', 'ARG w')
  t.deepEqual(
    file.globals.map((g) => g.code),
    ['ARG v=1'],
  )
  t.like(file.stages[0]!.from, { image: 'a:$v', name: 'one', platform: '' })
  t.like(file.stages[1]!.from, { image: 'b', name: '', platform: 'linux/arm64' })
  t.deepEqual(
    file.stages.map((s) => s.steps.length),
    [1, 1],
  )
})

test('the target ends the plan, and labels of the request are its last steps', (t) => {
  const file = parse('FROM a AS one', 'FROM b AS two', 'FROM c')
  const plan = planStages(file, { target: 'TWO', labels: { z: '1', a: '$x' } })
  t.deepEqual(
    plan.map((s) => s.from.image),
    ['a', 'b'],
  )
  t.deepEqual(
    plan[1]!.steps.map((s) => [s.code, s.kind === 'label' && s.isLiteral]),
    [
      ['LABEL a=$x', true],
      ['LABEL z=1', true],
    ],
  )
  t.is(planStages(file, { target: '', labels: {} }).length, 3)
  t.is(
    refusal(() => planStages(file, { target: 'x', labels: {} })),
    'failed to reach build target x in Dockerfile',
  )
})

test('a trigger is one instruction', (t) => {
  t.like(parseTrigger('RUN x'), { kind: 'run' })
  t.is(
    refusal(() => parseTrigger('RUN x\nRUN y')),
    'onbuild trigger should be a single expression',
  )
})

test('texts are quoted and durations written as Go does', (t) => {
  t.is(goQuote('a"b\\\n\t\x01é\u200b'), '"a\\"b\\\\\\n\\t\\x01é\\u200b"')
  t.is(goQuoteRune(0), "'\\x00'")
  t.is(goQuoteRune(3), "'\\x03'")
  const nanos = (text: string) => {
    const d = goDuration(text)
    return 'nanos' in d ? d.nanos : d.error
  }
  t.is(nanos('1h2m3.5s'), 3723.5e9)
  t.is(nanos('-1s'), -1e9)
  t.is(nanos('.5ms'), 5e5)
  t.is(nanos('0'), 0)
  t.is(nanos(''), 'time: invalid duration ""')
  t.is(nanos('1x'), 'time: unknown unit "x" in duration "1x"')
  t.deepEqual([0, 5e8, 30e9, 90e9, 3600e9, 1.5e9].map(goDurationText), [
    '0s',
    '500ms',
    '30s',
    '1m30s',
    '1h0m0s',
    '1.5s',
  ])
})
