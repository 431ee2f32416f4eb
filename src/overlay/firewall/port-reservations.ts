import { closeSync } from 'node:fs'
import { conflict, internal, invalid, unavailable } from '../../common/index.js'
import type { PortPublication } from '../contract.js'
import { parseIpv4 } from '../ipam/ipv4.js'
import { hasErrno, type NetNative } from '../native.js'

/** Ports that "any port" is chosen from, both ends included. */
export const DYNAMIC_PORTS = { first: 32768, last: 60999 }

/** Ports of one range that are tried at most before giving up. */
const MAX_TRIES = 4096

interface Held {
  readonly owner: string
  readonly fd: number | null
}

/**
 * Holds a published port by a bound socket of this process, so that no other program takes it, and so that one that is
 * taken is refused with words. The socket itself never gets a connection: nftables leads them away before.
 */
export class PortReservations {
  readonly #held = new Map<string, Held>()
  /** Next dynamic port, so that a port is not handed out again right after it was given back. */
  #cursor = DYNAMIC_PORTS.first

  constructor(private readonly native: Pick<NetNative, 'netSocket'>) {}

  /** All or none. Resolves with the ports as bound; `hostIp` "" becomes "0.0.0.0". Errors: portInUse, invalid. */
  async reserve(owner: string, ports: readonly PortPublication[]): Promise<PortPublication[]> {
    const done = new Map<PortPublication, PortPublication>()
    try {
      for (const p of ports.toSorted((a, b) => choices(a) - choices(b))) {
        const hostIp = normalAddress(p)
        const hostPort = await this.#one(owner, p, hostIp)
        done.set(p, { containerPort: p.containerPort, protocol: p.protocol, hostIp, hostPort })
      }
      return ports.map((p) => done.get(p)!)
    } catch (e) {
      this.release([...done.values()])
      throw e
    }
  }

  release(ports: readonly PortPublication[]): void {
    for (const p of ports) {
      const key = keyOf(p.protocol, p.hostIp, p.hostPort)
      const held = this.#held.get(key)
      if (held?.fd != null) closeSync(held.fd)
      this.#held.delete(key)
    }
  }

  async #one(owner: string, p: PortPublication, hostIp: string): Promise<number> {
    if (p.hostPort !== 0) {
      const last = p.hostPortEnd ?? p.hostPort
      let refusal: unknown = null
      for (let port = p.hostPort; port <= last && port < p.hostPort + MAX_TRIES; port++) {
        try {
          await this.#bind(owner, p, hostIp, port)
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
      if (this.#held.has(keyOf(p.protocol, hostIp, port))) continue
      try {
        await this.#bind(owner, p, hostIp, port)
        return port
      } catch (e) {
        if (!(e instanceof Error) || (e as { code?: unknown }).code !== 'portInUse') throw e
      }
    }
    throw unavailable(
      'noFreePort',
      `no free ${p.protocol} port on ${hostIp} among ${MAX_TRIES} tried of ${DYNAMIC_PORTS.first}-${DYNAMIC_PORTS.last}: name a port or free some`,
      { hostIp, protocol: p.protocol },
    )
  }

  async #bind(owner: string, p: PortPublication, hostIp: string, port: number): Promise<void> {
    const key = keyOf(p.protocol, hostIp, port)
    if (this.#held.has(key)) throw portInUse(hostIp, port, p.protocol)
    this.#held.set(key, { owner, fd: null }) // taken from here on, also while the system call is under way
    const socket = { protocol: p.protocol, address: hostIp, port }
    try {
      let fd: number
      try {
        // Bound without SO_REUSEADDR and not listening: nobody else can bind it, and strays get a reset.
        fd = await this.native.netSocket(null, socket)
      } catch (e) {
        if (p.protocol === 'udp' || !hasErrno(e, 'EADDRINUSE')) throw e
        // Perhaps only connections of a past server in TIME_WAIT: a listener would be refused like any other.
        fd = await this.native.netSocket(null, { ...socket, listen: true, reuseAddress: true })
      }
      this.#held.set(key, { owner, fd })
    } catch (e) {
      // A kernel without SCTP has no listener that could be in the way.
      if (p.protocol === 'sctp' && hasErrno(e, 'EPROTONOSUPPORT', 'ESOCKTNOSUPPORT')) return
      this.#held.delete(key)
      if (hasErrno(e, 'EADDRINUSE')) throw portInUse(hostIp, port, p.protocol)
      if (hasErrno(e, 'EADDRNOTAVAIL'))
        throw invalid('noSuchHostAddress', `cannot publish on ${hostIp}:${port}: this host has no address ${hostIp}`, {
          hostIp,
        })
      throw internal('portReservation', `cannot bind ${hostIp}:${port}/${p.protocol}`, { hostIp, port }, { cause: e })
    }
  }
}

/** How many ports would do. Who has the fewest is served first, so that nobody takes the one port of another. */
const choices = (p: PortPublication): number =>
  p.hostPort === 0 ? Number.MAX_SAFE_INTEGER : (p.hostPortEnd ?? p.hostPort) - p.hostPort

const keyOf = (protocol: string, hostIp: string, port: number): string => `${protocol}/${hostIp}/${port}`

function normalAddress(p: PortPublication): string {
  const ip = p.hostIp === '' ? '0.0.0.0' : p.hostIp
  if (parseIpv4(ip) === null)
    throw invalid('publishAddress', `cannot publish on "${ip}": give an IPv4 address of this host, or none for all`, {
      hostIp: ip,
    })
  if (p.hostPort < 0 || p.hostPort > 65535 || p.containerPort < 1 || p.containerPort > 65535)
    throw invalid('portNumber', `cannot publish ${p.hostPort}:${p.containerPort}: ports are 1 to 65535`, {})
  return ip
}

const portInUse = (hostIp: string, port: number, protocol: string) =>
  conflict(
    'portInUse',
    `Bind for ${hostIp}:${port} failed: port is already allocated: ${protocol} ${port} is in use on this host, choose another or stop what holds it`,
    { hostIp, hostPort: port, protocol },
  )
