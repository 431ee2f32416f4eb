import { createSocket } from 'node:dgram'
import { connect, isIPv6 } from 'node:net'
import { intBetween } from '../../common/index.js'
import type { OverlayContext } from '../context.js'
import { answersQuery, withId } from './packet.js'

/** Largest DNS message over TCP. */
const MAX_TCP_MESSAGE = 65535

/** Asks upstream servers, from the host's own network, one after another until one answers. */
export class Forwarder {
  constructor(private readonly ctx: Pick<OverlayContext, 'clock' | 'rng' | 'options'>) {}

  /** null: no server answered. The answer carries the query's own id. */
  async forward(query: Uint8Array, servers: readonly string[], way: 'udp' | 'tcp'): Promise<Uint8Array | null> {
    const id = (query[0]! << 8) | query[1]!
    for (const server of servers) {
      const sent = withId(query, intBetween(this.ctx.rng, 0, 65535))
      const answer = await (way === 'udp' ? this.#udp(sent, server) : this.#tcp(sent, server))
      if (answer) return withId(answer, id)
    }
    return null
  }

  #udp(sent: Uint8Array, server: string): Promise<Uint8Array | null> {
    return new Promise((resolve) => {
      const socket = createSocket(isIPv6(server) ? 'udp6' : 'udp4')
      let done = false
      const finish = (answer: Uint8Array | null): void => {
        if (done) return
        done = true
        timer.cancel()
        socket.close()
        resolve(answer)
      }
      const timer = this.ctx.clock.after(this.ctx.options.dnsForwardTimeoutMs, () => finish(null))
      // Refused or unreachable: the next server is asked.
      socket.on('error', () => finish(null))
      socket.on('message', (m) => {
        if (answersQuery(m, sent)) finish(m)
      })
      // Not as connect's callback: that is called with the error where there is no way to the server.
      socket.on('connect', () => {
        if (!done) socket.send(sent)
      })
      socket.connect(53, server)
    })
  }

  #tcp(sent: Uint8Array, server: string): Promise<Uint8Array | null> {
    return new Promise((resolve) => {
      const socket = connect(53, server)
      let got = Buffer.alloc(0)
      const finish = (answer: Uint8Array | null): void => {
        timer.cancel()
        socket.destroy()
        resolve(answer)
      }
      const timer = this.ctx.clock.after(this.ctx.options.dnsForwardTimeoutMs, () => finish(null))
      socket.on('error', () => finish(null))
      socket.on('close', () => finish(null))
      socket.on('connect', () => socket.write(frame(sent)))
      socket.on('data', (d) => {
        got = Buffer.concat([got, d])
        if (got.length > MAX_TCP_MESSAGE + 2) return finish(null)
        if (got.length < 2 || got.length < got.readUInt16BE(0) + 2) return
        const m = got.subarray(2, got.readUInt16BE(0) + 2)
        finish(answersQuery(m, sent) ? m : null)
      })
    })
  }
}

/** A message as TCP carries it: length first. */
export function frame(message: Uint8Array): Buffer {
  const out = Buffer.alloc(message.length + 2)
  out.writeUInt16BE(message.length, 0)
  out.set(message, 2)
  return out
}
