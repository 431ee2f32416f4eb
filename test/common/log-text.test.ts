import test from 'ava'
import { colourLine, textLine } from '../../src/common/log-text.js'

test('a line is key=value pairs; values are in quotes where they need them', (t) => {
  const fields = { path: '/a/b-1', text: 'two words\n"x"', list: ['a'], n: 3, absent: undefined }
  t.is(
    textLine('2026-01-02T03:04:05.006Z', 'warn', 'disk is full', fields),
    'time="2026-01-02T03:04:05.006Z" level=warning msg="disk is full" path=/a/b-1 text="two words\\n\\"x\\"" list="[\\"a\\"]" n=3\n',
  )
  t.is(textLine('t', 'info', '', {}), 'time=t level=info msg=""\n')
})

test('at a terminal the level is coloured', (t) => {
  t.is(colourLine('t', 'info', 'it runs', { ms: 1 }), '\x1b[36mINFO\x1b[0m[t] it runs ms=1\n')
  t.is(colourLine('t', 'debug', 'x', {}), '\x1b[37mDEBU\x1b[0m[t] x\n')
})
