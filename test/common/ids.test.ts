import test from 'ava'
import { newHexId, newObjectId, seededRng, shortId } from '../../src/common/index.js'

test('object ids have 25 characters of base 36 and do not repeat', (t) => {
  const ids = new Set(Array.from({ length: 1000 }, newObjectId))
  t.is(ids.size, 1000)
  for (const id of ids) t.regex(id, /^[a-z0-9]{25}$/)
})

test('a container id has 64 hexadecimal digits, of which 12 are shown', (t) => {
  const id = newHexId()
  t.regex(id, /^[0-9a-f]{64}$/)
  t.is(shortId(id), id.slice(0, 12))
  t.is(shortId(`sha256:${id}`), id.slice(0, 12))
})

test('a seeded random source gives the same sequence again, in [0, 1)', (t) => {
  const a = seededRng(7)
  const b = seededRng(7)
  for (let i = 0; i < 1000; i++) {
    const x = a.random()
    t.is(x, b.random())
    t.true(x >= 0 && x < 1)
  }
})
