// Three etcd members on loopback and a closed loop of Puts to their leader, by raw gRPC over node:http2.
import { spawn, spawnSync } from 'node:child_process'
import { mkdirSync, openSync, readFileSync } from 'node:fs'
import { connect } from 'node:http2'
import { join } from 'node:path'

const BASE_PORT = 23900

const varint = (n) => {
  const b = []
  let rest = n
  for (; rest > 127; rest = Math.floor(rest / 128)) b.push((rest & 127) | 128)
  b.push(rest)
  return Buffer.from(b)
}
const field = (number, bytes) => Buffer.concat([varint((number << 3) | 2), varint(bytes.length), bytes])

/** [field number, value] of a message: integers and bytes are all that Status has. */
function fields(bytes) {
  const out = []
  let at = 0
  const read = () => {
    let value = 0n
    for (let shift = 0n; ; shift += 7n) {
      const b = bytes[at++]
      value |= BigInt(b & 127) << shift
      if (b < 128) return value
    }
  }
  while (at < bytes.length) {
    const tag = Number(read())
    if ((tag & 7) === 0) out.push([tag >> 3, read()])
    else {
      const length = Number(read())
      out.push([tag >> 3, bytes.subarray(at, at + length)])
      at += length
    }
  }
  return out
}

function call(session, path, message) {
  return new Promise((resolve, reject) => {
    const head = Buffer.alloc(5)
    head.writeUInt32BE(message.length, 1)
    const s = session.request({ ':method': 'POST', ':path': path, 'content-type': 'application/grpc', te: 'trailers' })
    const body = []
    let status = null
    const seen = (h) => {
      if (h['grpc-status'] !== undefined) status = `${h['grpc-status']} ${h['grpc-message'] ?? ''}`
    }
    s.on('response', seen)
    s.on('trailers', seen)
    s.on('data', (d) => body.push(d))
    s.on('error', reject)
    s.on('close', () =>
      status?.startsWith('0')
        ? resolve(Buffer.concat(body).subarray(5))
        : reject(new Error(`${path}: grpc-status ${status}`)),
    )
    s.end(Buffer.concat([head, message]))
  })
}

const cpuSeconds = (pid) => {
  const f = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1].split(' ')
  return (Number(f[11]) + Number(f[12])) / 100
}
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms))
const percentile = (sorted, p) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * p))] ?? Number.NaN

export const etcdVersion = () => spawnSync('etcd', ['--version'], { encoding: 'utf8' }).stdout?.split('\n')[0] || null

export async function startEtcd(dir) {
  const cluster = [0, 1, 2].map((i) => `m${i}=http://127.0.0.1:${BASE_PORT + 2 * i + 1}`).join(',')
  const children = [0, 1, 2].map((i) => {
    const data = join(dir, `etcd${i}`)
    mkdirSync(data, { recursive: true, mode: 0o700 })
    const client = `http://127.0.0.1:${BASE_PORT + 2 * i}`
    const peer = `http://127.0.0.1:${BASE_PORT + 2 * i + 1}`
    const log = openSync(join(dir, `etcd${i}.log`), 'w')
    return spawn(
      'etcd',
      [
        ...['--name', `m${i}`, '--data-dir', data, '--listen-client-urls', client, '--advertise-client-urls', client],
        ...['--listen-peer-urls', peer, '--initial-advertise-peer-urls', peer, '--initial-cluster', cluster],
        ...['--initial-cluster-token', `bench${process.pid}`, '--logger', 'zap', '--log-level', 'warn'],
      ],
      { stdio: ['ignore', log, log] },
    )
  })
  const status = async (i) => {
    const s = connect(`http://127.0.0.1:${BASE_PORT + 2 * i}`)
    s.on('error', () => {})
    try {
      const f = fields(await call(s, '/etcdserverpb.Maintenance/Status', Buffer.alloc(0)))
      const own = fields(f.find(([n]) => n === 1)[1]).find(([n]) => n === 2)?.[1] ?? 0n
      return { own, leader: f.find(([n]) => n === 4)?.[1] ?? 0n }
    } finally {
      s.close()
    }
  }
  let leader = -1
  for (let tries = 0; tries < 100 && leader < 0; tries++) {
    await sleep(200)
    for (let i = 0; i < 3; i++)
      try {
        const s = await status(i)
        if (s.leader !== 0n && s.leader === s.own) leader = i
      } catch {
        // Not up yet; asked again until the tries are used up.
      }
  }
  const stop = async () => {
    for (const c of children) {
      if (c.exitCode !== null) continue
      const gone = new Promise((resolve) => c.once('exit', resolve))
      c.kill('SIGTERM')
      await Promise.race([gone, sleep(5000)])
      if (c.exitCode === null && c.signalCode === null) c.kill('SIGKILL')
    }
  }
  if (leader < 0) {
    await stop()
    throw new Error(`etcd has no leader after 20 s; its logs are in ${dir}`)
  }
  return {
    stop,
    async load({ clients, warmupMs, ms, bytes }) {
      const sessions = Array.from({ length: Math.min(clients, 4) }, () =>
        connect(`http://127.0.0.1:${BASE_PORT + 2 * leader}`),
      )
      for (const s of sessions) s.setMaxListeners(0)
      const value = Buffer.alloc(bytes, 'x')
      const latencies = []
      let measuring = false
      let stopping = false
      let sequence = 0
      const lane = async (n) => {
        while (!stopping) {
          const key = Buffer.from(`k/${(sequence++ % 100_000).toString().padStart(8, '0')}`)
          const at = performance.now()
          await call(
            sessions[n % sessions.length],
            '/etcdserverpb.KV/Put',
            Buffer.concat([field(1, key), field(2, value)]),
          )
          if (measuring) latencies.push(performance.now() - at)
        }
      }
      const lanes = Array.from({ length: clients }, (_, n) => lane(n))
      await sleep(warmupMs)
      const cpu = children.reduce((sum, c) => sum + cpuSeconds(c.pid), 0)
      const begun = performance.now()
      measuring = true
      await sleep(ms)
      measuring = false
      const seconds = (performance.now() - begun) / 1000
      const used = children.reduce((sum, c) => sum + cpuSeconds(c.pid), 0) - cpu
      stopping = true
      await Promise.all(lanes)
      for (const s of sessions) s.close()
      latencies.sort((a, b) => a - b)
      return {
        perSecond: latencies.length / seconds,
        p10: percentile(latencies, 0.1),
        p50: percentile(latencies, 0.5),
        p99: percentile(latencies, 0.99),
        cpuPerThousand: (used / latencies.length) * 1000,
      }
    },
  }
}
