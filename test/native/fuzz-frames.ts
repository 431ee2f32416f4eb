// Hostile clients of a shim: frames that are nearly right, cut, too long, out of order, of ops that contradict each other.
import { connect, type Socket } from 'node:net'
import { join } from 'node:path'
import { random } from './bpf.js'
import { deadline, type Json, type TestContainer } from './kit.js'

const ops = ['hello', 'start', 'attach', 'exec', 'execStart', 'resize', 'signal', 'pause', 'resume', 'update', 'closeLog', 'subscribe', 'fly', ''] // biome-ignore format: a list

function frame(type: number, body: Buffer): Buffer {
  const head = Buffer.alloc(5)
  head.writeUInt32BE(body.length, 0)
  head[4] = type
  return Buffer.concat([head, body])
}

/** One client's whole life as bytes. `mortal`: also what ends the container. */
export function hostileBytes(seed: number, mortal: boolean): Buffer {
  const r = random(seed)
  const pick = <T>(list: readonly T[]): T => list[r(list.length)]!
  const value = (): unknown =>
    pick<unknown>([
      0,
      1,
      -1,
      9,
      15,
      19,
      65,
      2 ** 31,
      1e300,
      '',
      'x',
      'e1',
      'e2',
      true,
      false,
      null,
      [],
      {},
      [1],
      'a'.repeat(300),
      { memory: { limit: 1 << 26 } },
      '\u0001\uffff',
    ])
  const request = (): Json => {
    const op = pick(mortal ? [...ops, 'delete'] : ops)
    const q: Json = { id: r(5) ? r(100) : value(), op: r(20) ? op : value() }
    for (const key of [
      'version',
      'exec',
      'stdin',
      'stdout',
      'stderr',
      'tty',
      'width',
      'height',
      'resources',
      'all',
      'force',
      'cgroup',
    ])
      if (r(3) === 0) q[key] = r(2) ? value() : true
    if (op === 'exec' || r(10) === 0)
      q['process'] = r(4)
        ? {
            args: [pick(['/bin/true', '/bin/cat', '/nothing', ''])],
            cwd: pick(['/', '/tmp', 'x']),
            env: [value()],
            user: { uid: r(3), gid: value() },
          }
        : value()
    if (op === 'signal' || r(10) === 0) q['signal'] = mortal ? value() : pick([0, -1, 18, 28, 65, 'x'])
    if (!mortal) q['exec'] = pick(['e1', 'e2', 'e3'])
    return q
  }
  const parts: Buffer[] = []
  if (r(4)) parts.push(frame(74, Buffer.from('{"id":0,"op":"hello","version":1}')))
  for (let n = r(12) + 1; n > 0; n--) {
    const body: Buffer = Buffer.from(
      r(6)
        ? JSON.stringify(request())
        : pick(['', '{', '[]', 'null', '"x"', '{"op":"hello"', '\0', '{"a":{"a":'.repeat(200), '[[['.repeat(2000)]),
    )
    if (r(5) === 0 && body.length) body[r(body.length)] = r(256)
    const whole = frame(r(6) ? 74 : pick([105, 105, 111, 0, 255]), body)
    if (r(25) === 0) whole.writeUInt32BE(pick([0xffffffff, 1 << 20, (1 << 20) + 1, body.length + 1, 0]), 0)
    parts.push(r(15) === 0 ? whole.subarray(0, r(whole.length)) : whole)
  }
  return Buffer.concat(parts)
}

/** Lets one client do its worst: in one piece or bytewise, reading or not, leaving in time or at once. */
export function attack(c: TestContainer, seed: number, mortal: boolean): Promise<void> {
  const r = random(seed ^ 0x5f5f)
  const bytes = hostileBytes(seed, mortal)
  return deadline(
    new Promise<void>((resolve) => {
      const socket: Socket = connect(join(c.dir, 'shim.sock'))
      socket.on('error', () => resolve())
      socket.on('close', () => resolve())
      if (r(3)) socket.on('data', () => {})
      const cut = r(bytes.length + 1)
      socket.write(bytes.subarray(0, cut), () => {
        socket.write(bytes.subarray(cut), () => {
          if (r(2)) socket.destroy()
          else socket.end()
          resolve()
        })
      })
    }),
    `client ${seed}`,
  )
}
