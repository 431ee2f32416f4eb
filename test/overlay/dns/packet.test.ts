import test from 'ava'
import { seededRng } from '../../../src/common/index.js'
import { answerLocally, NameTableBuilder } from '../../../src/overlay/dns/names.js'
import {
  answersQuery,
  encodeResponse,
  parseQuery,
  RCODE,
  readName,
  TYPE,
  withId,
  writeName,
} from '../../../src/overlay/dns/packet.js'

function query(name: string, type: number = TYPE.A, edns = 0): Uint8Array {
  const opt = edns ? [0, 0, TYPE.OPT, edns >> 8, edns & 255, 0, 0, 0, 0, 0, 0] : []
  return Uint8Array.from([
    0x12,
    0x34,
    1,
    0,
    0,
    1,
    0,
    0,
    0,
    0,
    0,
    edns ? 1 : 0,
    ...writeName(name),
    0,
    type,
    0,
    1,
    ...opt,
  ])
}

test('a query is read with its name in lower case, its type, and what the client takes', (t) => {
  t.like(parseQuery(query('Web.Example')), {
    id: 0x1234,
    recursionDesired: true,
    question: { name: 'web.example', type: 1, class: 1 },
    udpSize: 512,
    hasEdns: false,
  })
  t.like(parseQuery(query('web', TYPE.AAAA, 1232)), { udpSize: 1232, hasEdns: true, question: { type: 28 } })
})

test('what is no question is not answered', (t) => {
  const q = query('web')
  t.is(parseQuery(q.subarray(0, 11)), null)
  t.is(parseQuery(q.subarray(0, q.length - 1)), null)
  t.is(parseQuery(Uint8Array.from(q, (b, i) => (i === 2 ? b | 0x80 : b))), null, 'an answer')
  t.is(parseQuery(Uint8Array.from(q, (b, i) => (i === 5 ? 2 : b))), null, 'two questions')
  t.is(readName(Uint8Array.from([0xc0, 0]), 0), null, 'a pointer to itself')
  t.is(readName(Uint8Array.from([1, 97, 0xc0, 0]), 2)?.name, undefined)
})

test('bytes of any kind neither throw nor hang', (t) => {
  const rng = seededRng(11)
  for (let i = 0; i < 20_000; i++) {
    const b = Uint8Array.from({ length: Math.floor(rng.random() * 60) }, () => Math.floor(rng.random() * 256))
    if (b.length > 5 && rng.random() < 0.8) b.set([1, 0, 0, 1], 2)
    const q = parseQuery(b)
    if (q) encodeResponse(q, 0, [], 512)
    answersQuery(b, query('web'))
  }
  t.pass()
})

test('an answer that does not fit is cut and says so', (t) => {
  const q = parseQuery(query('web'))!
  const answers = Array.from({ length: 100 }, (_, i) => ({ type: TYPE.A, ttl: 2, data: Uint8Array.of(10, 0, 0, i) }))
  const small = encodeResponse(q, RCODE.ok, answers, q.udpSize)
  t.true(small.length <= 512)
  t.is(small[2]! & 2, 2)
  const all = encodeResponse(q, RCODE.ok, answers, 65535)
  t.is(all[2]! & 2, 0)
  t.is((all[6]! << 8) | all[7]!, 100)
})

test('an upstream answer counts only with the same id and question', (t) => {
  const sent = query('web.example')
  const reply = Uint8Array.from(query('WEB.example'), (b, i) => (i === 2 ? b | 0x80 : b))
  t.true(answersQuery(reply, sent))
  t.false(answersQuery(withId(reply, 7), sent))
  t.false(
    answersQuery(
      Uint8Array.from(query('other'), (b, i) => (i === 2 ? b | 0x80 : b)),
      sent,
    ),
  )
  t.false(answersQuery(sent, sent))
})

test('names are answered by the first network that knows them; others are not ours', (t) => {
  const rng = seededRng(1)
  const front = new NameTableBuilder('front')
  front.add('Web', '10.0.0.2')
  front.add('web', '10.0.0.3')
  front.declare('idle')
  front.reverse('10.0.0.2', 'web')
  const back = new NameTableBuilder('back')
  back.add('web', '10.9.0.9')
  back.add('db', '10.9.0.4')
  const tables = [front.build(), back.build()]
  const ask = (name: string, type: number = TYPE.A) => answerLocally(tables, { name, type, class: 1 }, 2, rng)
  const ips = (name: string) =>
    ask(name)
      ?.answers.map((a) => [...a.data].join('.'))
      .sort()
  t.deepEqual(ips('web'), ['10.0.0.2', '10.0.0.3'])
  t.deepEqual(ips('web.back'), ['10.9.0.9'])
  t.deepEqual(ips('db'), ['10.9.0.4'])
  t.deepEqual(ips('idle'), [])
  t.deepEqual(ask('web', TYPE.AAAA), { rcode: 0, answers: [] })
  t.is(ask('unknown'), null)
  t.is(ask('web.front.example'), null)
  t.is(ask('2.0.0.10.in-addr.arpa', TYPE.PTR)?.answers.length, 1)
  t.is(ask('9.9.9.9.in-addr.arpa', TYPE.PTR), null)
  const linked = answerLocally(
    [
      { ...front.build(), links: { store: 'db' } },
      { ...back.build(), links: { store: 'db', web: 'nobody' } },
    ],
    { name: 'store', type: TYPE.A, class: 1 },
    2,
    rng,
  )
  t.is(linked?.answers.length, 1, 'a name that the asker alone has, on the second network')
  const only = [{ ...back.build(), links: { web: 'nobody' } }]
  t.is(answerLocally(only, { name: 'web', type: TYPE.A, class: 1 }, 2, rng), null)
  const first = new Set(Array.from({ length: 50 }, () => [...ask('web')!.answers[0]!.data].join('.')))
  t.is(first.size, 2, 'the order changes')
})
