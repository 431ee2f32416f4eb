import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net'
import test, { type ExecutionContext } from 'ava'
import {
  Empty,
  Raft,
  type RaftFrame,
  type RaftFrameAck,
  type RaftMember,
  RaftMessage,
  type SnapshotChunk,
} from '#proto'
import {
  callUnary,
  dialGrpc,
  type GrpcServer,
  listenGrpc,
  openClientStream,
  serviceDefinition,
  type TlsIdentity,
} from '../../../src/common/grpc/index.js'
import { type Clock, nullLogger, type ShoalError, systemClock, systemRng } from '../../../src/common/index.js'
import { type Message, makeMessage } from '../../../src/raft/core/index.js'
import {
  createRaftHub,
  type IncomingSnapshot,
  type OutgoingSnapshot,
  type RaftHub,
  type RaftInbox,
  type RaftTransport,
  raftHandlers,
  type SnapshotDescription,
} from '../../../src/raft/index.js'
import { SNAPSHOT_BYTES_PER_S } from '../../../src/raft/options.js'
import { sendSnapshot } from '../../../src/raft/transport/snapshot-transfer.js'
import { TestCa } from '../node/certificates.js'
import { until } from '../node/lab.js'

/** One end: a server, its hub, and an inbox that remembers. */
class End {
  hub!: RaftHub
  server!: GrpcServer
  transport!: RaftTransport
  member!: RaftMember
  readonly got: Message[] = []
  readonly unreachable: number[] = []
  toldRemoved = 0
  readonly snapshots: {
    message: Message
    described: SnapshotDescription
    data: Buffer[]
    end: 'open' | 'finished' | 'aborted'
  }[] = []
  refuseSnapshots = false

  constructor(
    readonly raftId: number,
    readonly nodeId: string,
    public identity: TlsIdentity,
  ) {}

  /** `announced`: where others are told to dial it, for the port that it listens on. */
  async open(announced = async (port: number): Promise<string> => `127.0.0.1:${port}`): Promise<this> {
    this.hub = createRaftHub({ identity: () => this.identity, clock: systemClock, rng: systemRng, logger: nullLogger })
    this.server = await listenGrpc({
      host: '127.0.0.1',
      port: 0,
      identity: this.identity,
      register: (s) => s.addService(serviceDefinition(Raft), raftHandlers(this.hub)),
    })
    this.member = { raftId: this.raftId, nodeId: this.nodeId, address: await announced(this.server.port) }
    const inbox: RaftInbox = {
      receive: (m) => void this.got.push(...m),
      unreachable: (id) => void this.unreachable.push(id),
      removed: () => void this.toldRemoved++,
      receiveSnapshot: async (message, described): Promise<IncomingSnapshot> => {
        const s = { message, described, data: [] as Buffer[], end: 'open' as 'open' | 'finished' | 'aborted' }
        this.snapshots.push(s)
        return {
          write: async (p) => void s.data.push(Buffer.from(p)),
          finish: async () => {
            if (this.refuseSnapshots) throw new Error('no room')
            s.end = 'finished'
          },
          abort: async () => {
            s.end = 'aborted'
          },
        }
      },
    }
    this.transport = this.hub.transport(this.member, inbox)
    return this
  }

  async close(): Promise<void> {
    await this.transport.close()
    await this.server.close(0)
  }
}

/** A TCP relay that can swallow everything both ways, as a host does that lost its power: no reset, no end. */
class Cable {
  readonly #ends = new Set<Socket>()
  #pulled = false
  private constructor(
    private readonly server: Server,
    readonly address: string,
  ) {}

  static async to(port: number): Promise<Cable> {
    const server = createServer()
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    const cable = new Cable(server, `127.0.0.1:${(server.address() as AddressInfo).port}`)
    server.on('connection', (near) => {
      const far = connect(port, '127.0.0.1')
      for (const [from, to] of [
        [near, far],
        [far, near],
      ] as const) {
        cable.#ends.add(from)
        from.on('data', (d) => {
          if (!cable.#pulled) to.write(d)
        })
        from.on('error', () => to.destroy())
        from.on('close', () => {
          cable.#ends.delete(from)
          to.destroy()
        })
      }
    })
    return cable
  }

  pull(): void {
    this.#pulled = true
  }

  /** What was swallowed is gone, so the old connections are useless. */
  plug(): void {
    this.#pulled = false
    for (const s of this.#ends) s.destroy()
  }

  async close(): Promise<void> {
    for (const s of this.#ends) s.destroy()
    await new Promise((resolve) => this.server.close(resolve))
  }
}

async function withPair(t: ExecutionContext, run: (a: End, b: End, ca: TestCa) => Promise<void>): Promise<void> {
  t.timeout(60_000)
  const ca = await TestCa.create('cluster-one')
  const a = await new End(11, 'node-a', await ca.issue('node-a')).open()
  const b = await new End(22, 'node-b', await ca.issue('node-b')).open()
  try {
    a.transport.setMembers([a.member, b.member], [])
    b.transport.setMembers([a.member, b.member], [])
    await run(a, b, ca)
  } finally {
    await a.close()
    await b.close()
  }
}

const app = (from: number, to: number, index: number, bytes = 10): Message =>
  makeMessage({
    type: 'MsgApp',
    from,
    to,
    term: 3,
    logTerm: 2,
    index,
    commit: index,
    entries: [{ term: 3, index: index + 1, type: 'normal', data: Buffer.alloc(bytes, index) }],
  })

/** The stream's end as a stranger with `identity` sees it after one frame. */
function oneFrame(to: End, identity: TlsIdentity | null, frame: RaftFrame): Promise<RaftFrameAck | ShoalError> {
  const client = dialGrpc({ address: to.member.address, identity })
  return new Promise<RaftFrameAck | ShoalError>((resolve) => {
    const s = openClientStream(client, Raft.Stream, (e, ack?: RaftFrameAck) => {
      client.close()
      resolve(e ?? ack!)
    })
    s.on('error', () => {})
    s.write(frame)
  })
}

test.serial('messages arrive complete and in order, several to a frame', (t) =>
  withPair(t, async (a, b) => {
    const sent = Array.from({ length: 500 }, (_, i) => app(11, 22, i))
    for (let i = 0; i < sent.length; i += 50) a.transport.send(sent.slice(i, i + 50))
    await until('all arrived', () => b.got.length === sent.length)
    const plain = (m: Message) => ({
      ...m,
      context: [...m.context],
      entries: m.entries.map((e) => ({ ...e, data: [...e.data] })),
    })
    t.deepEqual(b.got.map(plain), sent.map(plain))
    await until('each reaches the other', () => a.transport.reachable(22) && b.transport.reachable(11))
    t.true(a.transport.reachable(11))
    t.false(a.transport.reachable(99))
  }),
)

test.serial('heartbeats and votes overtake appends, and a full queue drops and reports', (t) =>
  withPair(t, async (a, b) => {
    await until('connected', () => a.transport.reachable(22))
    const big = Array.from({ length: 40 }, (_, i) => app(11, 22, i, 1_000_000))
    for (const m of big) a.transport.send([m])
    a.transport.send([makeMessage({ type: 'MsgHeartbeat', from: 11, to: 22, term: 3 })])
    t.true(a.unreachable.includes(22), 'more than 16 MiB do not wait')
    await until('the heartbeat came', () => b.got.some((m) => m.type === 'MsgHeartbeat'))
    const before = b.got.findIndex((m) => m.type === 'MsgHeartbeat')
    await until('the rest came', () => b.got.length >= 10)
    t.true(before < 8, `the heartbeat came after ${before} appends`)
  }),
)

test.serial('only managers of the same cluster may speak, and only as themselves', (t) =>
  withPair(t, async (a, b, ca) => {
    const beat = (from: number, to = 22): RaftFrame => ({
      messages: [RaftMessage.create({ type: 8, from, to, term: 3 })],
      sender: null,
    })
    const code = async (identity: TlsIdentity | null, frame: RaftFrame): Promise<string> => {
      const r = await oneFrame(b, identity, frame)
      return 'code' in r ? r.code : `removed ${r.removed}`
    }
    t.is(await code(null, beat(11)), 'noCertificate')
    t.is(await code(await ca.issue('node-a', 'worker'), beat(11)), 'notManager')
    t.is(await code(await ca.issue('node-a', 'manager', 'cluster-two'), beat(11)), 'foreignCluster')
    t.is(await code(await ca.issue('node-c'), beat(11)), 'foreignMember')
    t.is(await code(a.identity, beat(33)), 'foreignMember')
    const liar = { messages: [], sender: { raftId: 33, nodeId: 'node-z', address: 'x:1' } }
    t.is(await code(await ca.issue('node-c'), liar), 'foreignNode')
    // What a removed member once asked is not taken for its bearer's: that one is still a member.
    b.transport.setMembers([a.member, b.member], [33])
    t.is(await code(a.identity, { ...beat(33), sender: a.member }), 'foreignMember')
    b.transport.setMembers([b.member], [11])
    t.is(await code(a.identity, { ...beat(11), sender: a.member }), 'removed true')
    t.is(b.got.length, 0)
    for (const identity of [null, await ca.issue('w', 'worker')]) {
      const client = dialGrpc({ address: b.member.address, identity })
      await t.throwsAsync(callUnary(client, Raft.Health, Empty.create(), { deadlineMs: 3000 }))
      await t.throwsAsync(
        callUnary(client, Raft.Join, { nodeId: 'w', address: '127.0.0.1:1', incarnation: '' }, { deadlineMs: 3000 }),
      )
      await t.throwsAsync(callUnary(client, Raft.Leave, { nodeId: 'node-a' }, { deadlineMs: 3000 }))
      client.close()
    }
  }),
)

test.serial('messages to another recipient and orders that a member only gives itself are dropped', (t) =>
  withPair(t, async (a, b) => {
    const client = dialGrpc({ address: b.member.address, identity: a.identity })
    const s = openClientStream(client, Raft.Stream, () => {})
    s.on('error', () => {})
    s.write({
      sender: a.member,
      messages: [
        RaftMessage.create({ type: 8, from: 11, to: 77, term: 3 }),
        RaftMessage.create({ type: 0, from: 11, to: 22, term: 3 }),
        RaftMessage.create({ type: 2, from: 11, to: 22, term: 3 }),
        RaftMessage.create({ type: 7, from: 11, to: 22, term: 3 }),
        RaftMessage.create({ type: 20, from: 11, to: 22, term: 3 }),
        RaftMessage.create({ type: 99, from: 11, to: 22, term: 3 }),
        RaftMessage.create({ type: 8, from: 11, to: 22, term: 4 }),
      ],
    })
    await until('the good one came', () => b.got.length > 0)
    t.deepEqual(
      b.got.map((m) => [m.type, m.term]),
      [['MsgHeartbeat', 4]],
    )
    s.cancel()
    client.close()
  }),
)

test.serial('a member that our log does not name yet is answered at the address it gives', (t) =>
  withPair(t, async (a, b) => {
    b.transport.setMembers([b.member], [])
    a.transport.send([app(11, 22, 1)])
    await until('it came', () => b.got.length === 1)
    b.transport.send([makeMessage({ type: 'MsgAppResp', from: 22, to: 11, term: 3, index: 2 })])
    await until('the answer came', () => a.got.length === 1)
    t.is(a.got[0]!.index, 2)
  }),
)

test.serial('a removed sender is told so', (t) =>
  withPair(t, async (a, b) => {
    b.transport.setMembers([b.member], [11])
    a.transport.send([app(11, 22, 1)])
    await until('it was told', () => a.toldRemoved > 0)
    t.is(b.got.length, 0)
  }),
)

test.serial('a member that was removed before it began, and only listens, is told so', (t) =>
  withPair(t, async (a, b) => {
    await a.transport.close()
    b.transport.setMembers([b.member], [11])
    const late = await new End(11, 'node-a', a.identity).open()
    try {
      late.transport.setMembers([late.member, b.member], [])
      await until('it was told', () => late.toldRemoved > 0)
      t.is(b.got.length, 0)
    } finally {
      await late.close()
    }
  }),
)

test.serial('a renewed certificate and a restarted peer are dialled again', (t) =>
  withPair(t, async (a, b, ca) => {
    a.transport.send([app(11, 22, 1)])
    await until('connected', () => b.got.length === 1)
    // Streams under the old certificate end at once when the renewed one is seen.
    a.identity = await ca.issue('node-a')
    await until('goes on under the new certificate', () => {
      a.transport.send([app(11, 22, 2)])
      return b.got.length > 3
    })
    await until('reachable', () => a.transport.reachable(22))
    await b.transport.close()
    await until('found unreachable', () => !a.transport.reachable(22))
    const again = await new End(22, 'node-b', b.identity).open()
    try {
      a.transport.setMembers([a.member, again.member], [])
      again.transport.setMembers([a.member, again.member], [])
      await until('goes on at the new address', () => {
        a.transport.send([app(11, 22, 3)])
        return again.got.length > 0
      })
      t.true(a.unreachable.includes(22))
    } finally {
      await again.close()
    }
  }),
)

test.serial('a host that is switched off is unreachable within seconds, and reachable when it is back', (t) =>
  withPair(t, async (a, b) => {
    await b.transport.close()
    let cable!: Cable
    const behind = await new End(22, 'node-b', b.identity).open(async (port) => {
      cable = await Cable.to(port)
      return cable.address
    })
    try {
      a.transport.setMembers([a.member, behind.member], [])
      await until('reachable', () => a.transport.reachable(22))
      t.false(a.transport.reachable(33), 'nobody of that id')
      cable.pull()
      const pulled = performance.now()
      await until('unreachable', () => !a.transport.reachable(22))
      t.true(performance.now() - pulled > 500, 'a short silence is none')
      cable.plug()
      await until('reachable again', () => a.transport.reachable(22))
    } finally {
      await behind.close()
      await cable.close()
    }
  }),
)

test.serial('a node that answers but runs no member is not reachable, nor is a removed member', (t) =>
  withPair(t, async (a, b) => {
    await until('reachable', () => a.transport.reachable(22) && b.transport.reachable(11))
    a.transport.setMembers([a.member], [22])
    t.false(a.transport.reachable(22), 'at once, although its connection lingers')
    await a.transport.close()
    await until('found out', () => !b.transport.reachable(11))
    const client = dialGrpc({ address: a.member.address, identity: b.identity })
    await t.notThrowsAsync(callUnary(client, Raft.Health, Empty.create(), { deadlineMs: 5000 }))
    client.close()
    t.false(b.transport.reachable(11))
    const until3 = performance.now() + 3000
    while (performance.now() < until3) {
      t.false(b.transport.reachable(11), 'the answered health check does not count')
      await systemClock.sleep(5)
    }
  }),
)

test.serial('a member that announces another address is answered there, until the log has one', (t) =>
  withPair(t, async (a, b, ca) => {
    const moved = await new End(11, 'node-a', await ca.issue('node-a')).open()
    try {
      await a.transport.close()
      moved.transport.setMembers([a.member, b.member], [])
      moved.transport.send([app(11, 22, 1)])
      await until('it came', () => b.got.length === 1)
      b.transport.send([makeMessage({ type: 'MsgAppResp', from: 22, to: 11, term: 3, index: 2 })])
      await until('answered at the new address', () => moved.got.length === 1)
      b.transport.setMembers([a.member, b.member], [])
      b.transport.send([makeMessage({ type: 'MsgAppResp', from: 22, to: 11, term: 3, index: 3 })])
      await until('the old entry of the log does not bring back the old address', () => moved.got.length === 2)
      const liar = {
        messages: [RaftMessage.create({ type: 8, from: 11, to: 22, term: 3 })],
        sender: { raftId: 11, nodeId: 'node-c', address: '127.0.0.1:1' },
      }
      t.is(((await oneFrame(b, await ca.issue('node-c'), liar)) as ShoalError).code, 'foreignMember')
      b.transport.send([makeMessage({ type: 'MsgAppResp', from: 22, to: 11, term: 3, index: 4 })])
      await until('nor does another node', () => moved.got.length === 3)
    } finally {
      await moved.close()
    }
  }),
)

test.serial('a snapshot arrives whole, cut into chunks, with all that describes it', (t) =>
  withPair(t, async (a, b) => {
    const data = Buffer.alloc(5_300_000)
    for (let i = 0; i < data.length; i += 4) data.writeUInt32LE(i, i)
    const meta = {
      index: 50,
      term: 3,
      confState: { voters: [11, 22], votersOutgoing: [], learners: [5], learnersNext: [], autoLeave: false },
    }
    const snapshot: OutgoingSnapshot = {
      meta,
      membership: { members: [a.member, b.member], removed: [9] },
      size: data.length,
      sha256: 'ab'.repeat(32),
      pieces: async function* () {
        for (let i = 0; i < data.length; i += 3_000_000) yield data.subarray(i, i + 3_000_000)
      },
      isUrgent: () => false,
    }
    const message = makeMessage({
      type: 'MsgSnap',
      from: 11,
      to: 22,
      term: 4,
      snapshot: { ...meta, data: new Uint8Array(0) },
    })
    await a.transport.sendSnapshot(message, snapshot, new AbortController().signal)
    const [got] = b.snapshots
    t.is(got!.end, 'finished')
    t.true(Buffer.concat(got!.data).equals(data))
    t.true(got!.data.every((d) => d.length <= 1024 * 1024))
    t.deepEqual(got!.described, { meta, membership: snapshot.membership, size: data.length, sha256: snapshot.sha256 })
    t.deepEqual(got!.message.snapshot!.confState, meta.confState)
    t.is(got!.message.term, 4)

    b.refuseSnapshots = true
    await t.throwsAsync(a.transport.sendSnapshot(message, snapshot, new AbortController().signal), {
      message: /no room/,
    })
    b.refuseSnapshots = false
    const abort = new AbortController()
    const endless: OutgoingSnapshot = {
      ...snapshot,
      pieces: async function* () {
        for (let i = 0; ; i++) {
          if (i === 3) {
            await until('some arrived', () => b.snapshots.length === 3 && b.snapshots[2]!.data.length > 0)
            abort.abort(new Error('enough'))
          }
          yield Buffer.alloc(1000)
        }
      },
    }
    await t.throwsAsync(a.transport.sendSnapshot(message, endless, abort.signal), { message: /enough/ })
    await until('the receiver threw the half away', () => b.snapshots.at(-1)!.end === 'aborted')
    t.is(b.snapshots.filter((s) => s.end === 'finished').length, 1)
  }),
)

test.serial('a snapshot is sent at its pace, and what a slow network costs is not made up for in haste', (t) =>
  withPair(t, async (a, b) => {
    const seconds = 0.4
    const size = seconds * SNAPSHOT_BYTES_PER_S
    const meta = {
      index: 50,
      term: 3,
      confState: { voters: [11, 22], votersOutgoing: [], learners: [], learnersNext: [], autoLeave: false },
    }
    /** Milliseconds that it waited, by a clock that stands still but for that, and for `networkMs` at each look. */
    const waited = async (networkMs: number, isUrgent = false): Promise<number> => {
      let now = 0
      let slept = 0
      const clock: Clock = {
        ...systemClock,
        monotonic: () => {
          now += networkMs
          return now
        },
        sleep: async (ms) => {
          slept += ms
          now += ms
        },
      }
      const snapshot: OutgoingSnapshot = {
        meta,
        membership: { members: [a.member, b.member], removed: [] },
        size,
        sha256: 'ab'.repeat(32),
        pieces: async function* () {
          for (let sent = 0; sent < size; sent += 100_000) yield Buffer.alloc(Math.min(100_000, size - sent))
        },
        isUrgent: () => isUrgent,
      }
      const message = makeMessage({
        ...{ type: 'MsgSnap', from: 11, to: 22, term: 4 },
        snapshot: { ...meta, data: new Uint8Array(0) },
      })
      const { signal } = new AbortController()
      await sendSnapshot({ to: b.member, identity: a.identity, clock, message, snapshot, signal })
      return slept
    }
    const ms = await waited(0)
    t.true(Math.abs(ms - seconds * 1000) < 1, `${ms} ms`)
    t.is(await waited(1000), 0)
    t.is(await waited(0, true), 0, 'others wait for it')
    t.is(b.snapshots.filter((s) => s.end === 'finished').length, 3)
  }),
)

test.serial('a snapshot transfer in the wrong order or by the wrong node is refused', (t) =>
  withPair(t, async (a, b, ca) => {
    const meta = { index: 5, term: 1, confState: null }
    const header = { from: 11, to: 22, term: 2, meta, membership: null, size: 3, sha256: new Uint8Array(32) }
    const send = (identity: TlsIdentity, chunks: SnapshotChunk[]): Promise<string> =>
      new Promise((resolve) => {
        const client = dialGrpc({ address: b.member.address, identity })
        const s = openClientStream(client, Raft.Snapshot, (e) => {
          client.close()
          resolve(e?.code ?? 'taken')
        })
        s.on('error', () => {})
        for (const c of chunks) s.write(c)
        s.end()
      })
    const chunk = (sequence: number): SnapshotChunk => ({ header: null, sequence, data: Buffer.from('x') })
    const first: SnapshotChunk = { header, sequence: 0, data: new Uint8Array(0) }
    t.is(await send(a.identity, []), 'emptySnapshot')
    t.is(await send(a.identity, [chunk(1)]), 'noSnapshotHeader')
    t.is(await send(a.identity, [first, chunk(1), chunk(3)]), 'snapshotOutOfOrder')
    t.is(await send(a.identity, [{ ...first, header: { ...header, to: 1 } }]), 'wrongRecipient')
    t.is(await send(await ca.issue('node-c'), [first]), 'foreignMember')
    t.is(await send(a.identity, [first, chunk(1)]), 'taken')
    t.is(b.snapshots.filter((s) => s.end === 'finished').length, 1)
  }),
)
