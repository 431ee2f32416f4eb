import test from 'ava'
import {
  encodeFrame,
  encodeJson,
  FrameError,
  FrameReader,
  MAX_PAYLOAD_BYTES,
} from '../../../src/runtime/container/frames.js'

const read = (reader: FrameReader, bytes: Buffer): string[] =>
  [...reader.push(bytes)].map((f) => `${f.type}:${f.payload.toString('latin1')}`)

test('frames cut at every possible place come out whole and in order', (t) => {
  const wire = Buffer.concat([
    encodeJson({ event: 'eof' }),
    encodeFrame('o', Buffer.from('out')),
    encodeFrame('e', Buffer.alloc(0)),
    encodeFrame('o', Buffer.alloc(300, 'x')),
  ])
  const whole = read(new FrameReader(), wire)
  t.is(whole.length, 4)
  t.is(whole[0], 'J:{"event":"eof"}')
  t.is(whole[2], 'e:')
  for (let cut = 1; cut < wire.length; cut++) {
    const reader = new FrameReader()
    t.deepEqual([...read(reader, wire.subarray(0, cut)), ...read(reader, wire.subarray(cut))], whole, `cut at ${cut}`)
  }
  const reader = new FrameReader()
  t.deepEqual(
    [...wire].flatMap((byte) => read(reader, Buffer.from([byte]))),
    whole,
    'byte by byte',
  )
})

test('an unknown type or a payload beyond the limit ends the stream', (t) => {
  t.throws(() => read(new FrameReader(), Buffer.from([0, 0, 0, 0, 0x5a])), { instanceOf: FrameError })
  const long = Buffer.alloc(5)
  long.writeUInt32BE(MAX_PAYLOAD_BYTES + 1)
  long[4] = 0x6f
  t.throws(() => read(new FrameReader(), long), { instanceOf: FrameError })
})
