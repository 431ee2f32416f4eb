import { createSocket, type Socket as DatagramSocket } from 'node:dgram'
import { closeSync } from 'node:fs'
import { createServer, type Server, type Socket } from 'node:net'
import type { OverlayContext } from '../context.js'
import { Forwarder, frame } from './forwarder.js'
import { answerLocally, type NameTable } from './names.js'
import { encodeResponse, parseQuery, RCODE } from './packet.js'

/** Where containers send their questions, and the port behind it that they are led to (networking: one port per namespace). */
export const DNS_ADDRESS = '127.0.0.11'
export const DNS_PORT = 40053

/** Open TCP connections of one sandbox; more are closed at once. */
const MAX_CONNECTIONS = 32
/** A TCP connection without a question is closed after this, ms. */
const TCP_IDLE_MS = 10_000

/** What a sandbox's server needs to know, asked anew for each question. */
export interface ResolverView {
  tables(): readonly NameTable[]
  servers(): Promise<readonly string[]>
}

/**
 * The name server of one sandbox. Its sockets were opened inside the sandbox's namespace, so whoever asks is known by
 * the socket, and answers depend on the sandbox's networks.
 */
export class SandboxResolver {
  #udp: DatagramSocket | null = null
  #tcp: Server | null = null
  readonly #connections = new Set<Socket>()
  readonly #forwarder: Forwarder
  #pending = 0

  constructor(
    private readonly ctx: OverlayContext,
    private readonly view: ResolverView,
  ) {
    this.#forwarder = new Forwarder(ctx)
  }

  /** Opens the sockets in the namespace; throws the addon's error when the port is taken there. */
  async open(netns: string): Promise<void> {
    const at = { address: DNS_ADDRESS, port: DNS_PORT }
    const udpFd = await this.ctx.native.netSocket(netns, { protocol: 'udp', ...at })
    let tcpFd: number
    try {
      tcpFd = await this.ctx.native.netSocket(netns, { protocol: 'tcp', listen: true, reuseAddress: true, ...at })
    } catch (e) {
      closeSync(udpFd)
      throw e
    }
    const udp = createSocket('udp4')
    udp.on('error', (e) => this.ctx.log.warn('name server socket failed', { netns, error: String(e) }))
    udp.on('message', (m, from) => {
      void this.#answer(m, 'udp').then((answer) => {
        if (answer && this.#udp) udp.send(answer, from.port, from.address)
      })
    })
    const tcp = createServer((s) => this.#serve(s))
    tcp.on('error', (e) => this.ctx.log.warn('name server socket failed', { netns, error: String(e) }))
    await Promise.all([
      new Promise<void>((resolve) => udp.bind({ fd: udpFd }, resolve)),
      new Promise<void>((resolve) => tcp.listen({ fd: tcpFd }, resolve)),
    ])
    this.#udp = udp
    this.#tcp = tcp
  }

  close(): void {
    this.#udp?.close()
    this.#udp = null
    this.#tcp?.close()
    this.#tcp = null
    for (const c of this.#connections) c.destroy()
  }

  #serve(socket: Socket): void {
    if (this.#connections.size >= MAX_CONNECTIONS) {
      socket.destroy()
      return
    }
    this.#connections.add(socket)
    let got = Buffer.alloc(0)
    socket.setTimeout(TCP_IDLE_MS, () => socket.destroy())
    socket.on('error', () => socket.destroy()) // the client went away
    socket.on('close', () => this.#connections.delete(socket))
    socket.on('data', (d) => {
      got = Buffer.concat([got, d])
      while (got.length >= 2 && got.length >= got.readUInt16BE(0) + 2) {
        const end = got.readUInt16BE(0) + 2
        const message = Uint8Array.from(got.subarray(2, end))
        got = got.subarray(end)
        void this.#answer(message, 'tcp').then((answer) => {
          if (answer && !socket.destroyed) socket.write(frame(answer))
        })
      }
    })
  }

  /** null: not worth an answer. Never throws. */
  async #answer(message: Uint8Array, way: 'udp' | 'tcp'): Promise<Uint8Array | null> {
    const q = parseQuery(message)
    if (!q) return null
    const limit = way === 'udp' ? q.udpSize : 65535
    const { options, rng } = this.ctx
    const local = answerLocally(this.view.tables(), q.question, options.dnsTtlSeconds, rng)
    if (local) return encodeResponse(q, local.rcode, local.answers, limit)
    if (this.#pending >= options.dnsForwardLimit) return encodeResponse(q, RCODE.refused, [], limit)
    this.#pending++
    try {
      const servers = await this.view.servers()
      if (servers.length === 0) return encodeResponse(q, RCODE.nameError, [], limit)
      const answer = await this.#forwarder.forward(message, servers, way)
      return answer ?? encodeResponse(q, RCODE.serverFailure, [], limit)
    } catch (e) {
      this.ctx.log.debug('a question could not be passed on', { name: q.question.name, error: String(e) })
      return encodeResponse(q, RCODE.serverFailure, [], limit)
    } finally {
      this.#pending--
    }
  }
}
