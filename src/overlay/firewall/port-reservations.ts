import { closeSync } from 'node:fs'
import { conflict, internal, invalid, unavailable } from '../../common/index.js'
import type { PortPublication } from '../contract.js'
import { formatIp, isV6, parseIp } from '../ipam/ip.js'
import { hasErrno, type NetNative } from '../native.js'

/** Ports that "any port" is chosen from, both ends included. */
export const DYNAMIC_PORTS = { first: 32768, last: 60999 }

/** Ports of one range that are tried at most before giving up. */
const MAX_TRIES = 4096

interface Held {
  readonly owner: string
  readonly fd: number | null
}

/** How ports are held. */
export interface Holding {
  /** "All addresses" are those of IPv6 too. */
  readonly ipv6: boolean
  /** Somebody takes connections from the socket of a port on that address (Relays). */
  readonly isServed: (hostIp: string) => boolean
}

/**
 * Holds a published port by a bound socket of this process, so that no other program takes it, and so that one that is
 * taken is refused with words. Such a socket never gets a connection: nftables leads them away before, unless it is one whose
 * connections the relay takes.
 */
export class PortReservations {
  readonly #held = new Map<string, Held>()
  /** Next dynamic port, so that a port is not handed out again right after it was given back. */
  #cursor = DYNAMIC_PORTS.first

  constructor(private readonly native: Pick<NetNative, 'netSocket'>) {}

  /** All or none. Resolves with the ports as bound; `hostIp` "" becomes "0.0.0.0" and "::". Errors: portInUse, invalid. */
  async reserve(owner: string, ports: readonly PortPublication[], how = UNSERVED): Promise<PortPublication[]> {
    const done = new Map<PortPublication, PortPublication[]>()
    try {
      for (const p of ports.toSorted((a, b) => choices(a) - choices(b))) {
        const hostIps = normalAddresses(p, how.ipv6)
        const hostPort = await this.#one({ owner, how, p, hostIps })
        done.set(
          p,
          hostIps.map((hostIp) => ({ containerPort: p.containerPort, protocol: p.protocol, hostIp, hostPort })),
        )
      }
      return ports.flatMap((p) => done.get(p)!)
    } catch (e) {
      this.release(owner, [...done.values()].flat())
      throw e
    }
  }

  release(owner: string, ports: readonly PortPublication[]): void {
    for (const p of ports) {
      const key = keyOf(p.protocol, p.hostIp, p.hostPort)
      const held = this.#held.get(key)
      if (held?.owner !== owner) continue
      if (held.fd !== null) closeSync(held.fd)
      this.#held.delete(key)
    }
  }

  /** The socket that holds a port, null where none can. */
  descriptor(p: PortPublication): number | null {
    return this.#held.get(keyOf(p.protocol, p.hostIp, p.hostPort))?.fd ?? null
  }

  async #one(wish: Wish): Promise<number> {
    const { p, hostIps } = wish
    if (p.hostPort !== 0) {
      const last = p.hostPortEnd ?? p.hostPort
      let refusal: unknown = null
      for (let port = p.hostPort; port <= last && port < p.hostPort + MAX_TRIES; port++) {
        try {
          await this.#bindAll(wish, port)
          return port
        } catch (e) {
          refusal = e
        }
      }
      throw refusal
    }
    const count = DYNAMIC_PORTS.last - DYNAMIC_PORTS.first + 1
    for (let i = 0; i < MAX_TRIES; i++) {
      const port = this.#cursor
      this.#cursor = DYNAMIC_PORTS.first + ((port - DYNAMIC_PORTS.first + 1) % count)
      if (hostIps.some((hostIp) => this.#held.has(keyOf(p.protocol, hostIp, port)))) continue
      try {
        await this.#bindAll(wish, port)
        return port
      } catch (e) {
        if (!(e instanceof Error) || (e as { code?: unknown }).code !== 'portInUse') throw e
      }
    }
    throw unavailable(
      'noFreePort',
      `no free ${p.protocol} port on ${hostIps.join(' and ')} among ${MAX_TRIES} tried of ${DYNAMIC_PORTS.first}-${DYNAMIC_PORTS.last}: name a port or free some`,
      { hostIps, protocol: p.protocol },
    )
  }

  /** One port number on all the addresses. */
  async #bindAll({ owner, how, p, hostIps }: Wish, port: number): Promise<void> {
    const bound: PortPublication[] = []
    try {
      for (const hostIp of hostIps) {
        await this.#bind(owner, { ...p, hostIp, hostPort: port }, how.isServed(hostIp))
        bound.push({ ...p, hostIp, hostPort: port })
      }
    } catch (e) {
      this.release(owner, bound)
      throw e
    }
  }

  async #bind(owner: string, p: PortPublication, isServed: boolean): Promise<void> {
    const { hostIp, hostPort: port } = p
    const key = keyOf(p.protocol, hostIp, port)
    if (this.#held.has(key)) throw portInUse(hostIp, port, p.protocol)
    this.#held.set(key, { owner, fd: null }) // taken from here on, also while the system call is under way
    const socket = { protocol: p.protocol, address: hostIp, port }
    const listening = { ...socket, listen: true, reuseAddress: true }
    try {
      let fd: number
      try {
        // Bound without SO_REUSEADDR and not listening: nobody else can bind it, and strays get a reset.
        fd = await this.native.netSocket(null, isServed && p.protocol === 'tcp' ? listening : socket)
      } catch (e) {
        if (p.protocol === 'udp' || !hasErrno(e, 'EADDRINUSE')) throw e
        // Perhaps only connections of a past server in TIME_WAIT: a listener would be refused like any other.
        fd = await this.native.netSocket(null, listening)
      }
      this.#held.set(key, { owner, fd })
    } catch (e) {
      // A kernel without SCTP has no listener that could be in the way.
      if (p.protocol === 'sctp' && hasErrno(e, 'EPROTONOSUPPORT', 'ESOCKTNOSUPPORT')) return
      this.#held.delete(key)
      if (hasErrno(e, 'EADDRINUSE')) throw portInUse(hostIp, port, p.protocol)
      if (hasErrno(e, 'EADDRNOTAVAIL'))
        throw invalid(
          'noSuchHostAddress',
          `cannot publish on ${socketText(hostIp, port)}: this host has no address ${hostIp}`,
          {
            hostIp,
          },
        )
      throw internal(
        'portReservation',
        `cannot bind ${socketText(hostIp, port)}/${p.protocol}`,
        { hostIp, port },
        { cause: e },
      )
    }
  }
}

/** How many ports would do. Who has the fewest is served first, so that nobody takes the one port of another. */
const choices = (p: PortPublication): number =>
  p.hostPort === 0 ? Number.MAX_SAFE_INTEGER : (p.hostPortEnd ?? p.hostPort) - p.hostPort

const keyOf = (protocol: string, hostIp: string, port: number): string => `${protocol}/${hostIp}/${port}`

interface Wish {
  readonly owner: string
  readonly how: Holding
  readonly p: PortPublication
  readonly hostIps: readonly string[]
}

const UNSERVED: Holding = { ipv6: false, isServed: () => false }

const socketText = (ip: string, port: number): string => (isV6(ip) ? `[${ip}]:${port}` : `${ip}:${port}`)

function normalAddresses(p: PortPublication, withIpv6: boolean): string[] {
  const ip = parseIp(p.hostIp)
  if (p.hostIp !== '' && ip === null)
    throw invalid('publishAddress', `cannot publish on "${p.hostIp}": give an address of this host, or none for all`, {
      hostIp: p.hostIp,
    })
  if (p.hostPort < 0 || p.hostPort > 65535 || p.containerPort < 1 || p.containerPort > 65535)
    throw invalid('portNumber', `cannot publish ${p.hostPort}:${p.containerPort}: ports are 1 to 65535`, {})
  if (ip !== null) return [formatIp(ip)]
  return withIpv6 ? ['0.0.0.0', '::'] : ['0.0.0.0']
}

const portInUse = (hostIp: string, port: number, protocol: string) =>
  conflict(
    'portInUse',
    `Bind for ${socketText(hostIp, port)} failed: port is already allocated: ${protocol} ${port} is in use on this host, choose another or stop what holds it`,
    { hostIp, hostPort: port, protocol },
  )
