// Writes through gRPC: one unary call each, or all on one stream. A service of the benchmark's own in front of the leader's
// proposals, so that the same way is measured as etcd's Put takes: client process, TLS, gRPC, proposal, answer.
import { callUnary, dialGrpc, openBidi, serviceDefinition, unary } from '../../build/src/common/grpc/index.js'
import { systemClock } from '../../build/src/common/index.js'

const bytes = { encode: (b) => b, decode: (b) => b }
const method = (name, stream) => ({
  path: `/shoal.bench.Api/${name}`,
  requestStream: stream,
  responseStream: stream,
  request: bytes,
  response: bytes,
})
const Api = { Put: method('Put', false), Puts: method('Puts', true) }
const NUMBER_BYTES = 4

/** `put(value)` resolves when the value is applied. On the stream each value begins with a number, which is the answer. */
export const addApi = (server, put) =>
  server.addService(serviceDefinition(Api), {
    Put: unary(async (value) => {
      await put(value)
      return Buffer.alloc(0)
    }),
    Puts: (call) => {
      call.on('data', (value) => {
        put(value).then(
          () => call.write(Buffer.from(value.subarray(0, NUMBER_BYTES))),
          (e) => call.destroy(e),
        )
      })
      call.on('end', () => call.end())
      call.on('error', () => {})
    },
  })

const percentile = (sorted, p) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * p))] ?? Number.NaN

/** A closed loop of `clients` writes, over as many connections as etcd's loop has (at most four), or on one stream. */
export async function loadApi({ address, identity, clients, warmupMs, ms, size, stream }) {
  const connections = Array.from({ length: stream ? 1 : Math.min(clients, 4) }, () => dialGrpc({ address, identity }))
  const waiting = new Map()
  const puts = stream ? openBidi(connections[0], Api.Puts) : null
  puts?.on('data', (number) => {
    const n = number.readUInt32BE()
    waiting.get(n)()
    waiting.delete(n)
  })
  let sequence = 0
  const put = (lane) => {
    const value = Buffer.alloc(size, 'x')
    if (puts === null) return callUnary(connections[lane % connections.length], Api.Put, value, { deadlineMs: 10_000 })
    const n = sequence++
    value.writeUInt32BE(n)
    return new Promise((resolve) => {
      waiting.set(n, resolve)
      puts.write(value)
    })
  }
  const latencies = []
  let measuring = false
  let stopping = false
  const lane = async (n) => {
    while (!stopping) {
      const at = performance.now()
      await put(n)
      if (measuring) latencies.push(performance.now() - at)
    }
  }
  const lanes = Array.from({ length: clients }, (_, n) => lane(n))
  await systemClock.sleep(warmupMs)
  const begun = performance.now()
  measuring = true
  await systemClock.sleep(ms)
  measuring = false
  const seconds = (performance.now() - begun) / 1000
  stopping = true
  await Promise.all(lanes)
  puts?.end()
  for (const c of connections) c.close()
  latencies.sort((a, b) => a - b)
  return {
    perSecond: latencies.length / seconds,
    p10: percentile(latencies, 0.1),
    p50: percentile(latencies, 0.5),
    p99: percentile(latencies, 0.99),
  }
}
