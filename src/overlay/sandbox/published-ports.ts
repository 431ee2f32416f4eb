import type { OverlayContext } from '../context.js'
import type { NetworkRecord, PortPublication } from '../contract.js'
import { BRIDGE_OPTION } from '../drivers/bridge-options.js'
import type { Attachment } from '../drivers/driver.js'
import type { HostFirewall, Target } from '../firewall/host-firewall.js'
import { NO_TARGET } from '../firewall/host-firewall.js'
import type { Holding, PortReservations } from '../firewall/port-reservations.js'
import { type Leg, Relays } from '../firewall/relays.js'
import { isV6 } from '../ipam/ip.js'
import { chooseGateway, chooseIpv6Gateway } from './gateway.js'
import { waysOf } from './links.js'
import type { Live } from './live.js'

export interface PublishedPortsModules {
  readonly firewall: HostFirewall
  readonly reservations: PortReservations
  networkOf(id: string): NetworkRecord | null
}

const ANY = ['', '0.0.0.0', '::']

/**
 * Ports of sandboxes on the host: held by sockets, led by rules, and what rules cannot lead carried by relays. With them goes
 * what links open.
 */
export class PublishedPorts {
  readonly #relays: Relays

  constructor(
    private readonly ctx: OverlayContext,
    private readonly m: PublishedPortsModules,
  ) {
    this.#relays = new Relays(ctx)
  }

  stop(sandboxes: Iterable<Live>): void {
    this.#relays.stop()
    for (const s of sandboxes) this.m.reservations.release(s.spec.id, s.ports)
  }

  /** The attachment by which its ports are reached; a plugin publishes those that lead to its own. */
  way(s: Live): Attachment | null {
    const choice = chooseGateway(s.attachments, this.m.networkOf)
    return choice.by === 'attachment' ? choice.attachment : (s.attachments.find((a) => a.hidden) ?? null)
  }

  /** Replaces the ports; `save` makes the sandbox's new state durable. All or none. */
  async replace(s: Live, wanted: readonly PortPublication[], save: () => Promise<void>): Promise<void> {
    const id = s.spec.id
    const { ports: before, published } = s
    const standard = this.#standardAddress(s)
    const asked = wanted.map((p) => (p.hostIp === '' ? { ...p, hostIp: standard } : p))
    const kept = before.filter((p) => asked.some((a) => answers(p, a)))
    const dropped = before.filter((p) => !kept.includes(p))
    const added = await this.m.reservations.reserve(
      id,
      asked.filter((a) => !kept.some((p) => answers(p, a))),
      this.#holding(s),
    )
    s.ports = [...kept, ...added]
    s.published = { wanted, by: this.way(s)?.record.endpointId ?? null }
    try {
      await this.forward(s)
      await save()
    } catch (e) {
      s.ports = before
      s.published = published
      this.lead(s)
      this.m.reservations.release(id, added)
      throw e
    }
    this.m.reservations.release(id, dropped)
    await this.#forgetFlows([...added, ...dropped])
  }

  /**
   * The sandbox's endpoints are others. As with dockerd, a port that was not asked for by its number is another one when it
   * leads to another endpoint.
   */
  async follow(s: Live, save: () => Promise<void>): Promise<void> {
    const by = this.way(s)?.record.endpointId ?? null
    if (by === null || !s.published || s.published.by === by) await this.forward(s)
    else await this.replace(s, s.published.wanted, save)
  }

  /** Resolves when the kernel leads the ports to where they belong now. */
  async forward(s: Live): Promise<void> {
    this.lead(s)
    await this.m.firewall.apply()
  }

  /** As `forward`, but for the kernel, which hears of it with the next `apply`. */
  lead(s: Live): void {
    const target = this.#target(s)
    this.m.firewall.setForwards(s.spec.id, s.ports, target)
    this.m.firewall.setWays(s.spec.id, waysOf(s, this.m.networkOf))
    this.#relays.set(s.spec.id, this.#legs(s.ports, target))
  }

  async release(s: Live): Promise<void> {
    const { id } = s.spec
    if (s.ports.length === 0 && !s.spec.links?.length) return
    this.m.firewall.setForwards(id, [], NO_TARGET)
    this.m.firewall.setWays(id, [])
    this.#relays.set(id, [])
    await this.m.firewall.apply()
    this.m.reservations.release(id, s.ports)
    await this.#forgetFlows(s.ports)
    s.ports = []
  }

  /** After a restart: held again. */
  async resume(s: Live): Promise<void> {
    for (const p of s.ports) {
      try {
        await this.m.reservations.reserve(s.spec.id, [p], this.#holding(s))
      } catch (e) {
        this.ctx.log.warn('a published port was taken while the daemon was down', {
          sandbox: s.spec.id,
          port: p,
          error: String(e),
        })
      }
    }
  }

  /** Without a relay only a container with IPv6 can be reached by it. */
  #holding(s: Live): Holding {
    const hasRelay = this.ctx.options.relay !== null
    return {
      ipv6: this.ctx.kernelIpv6 && (hasRelay || this.#target(s).v6 !== ''),
      isServed: (hostIp) => hasRelay && this.#needsRelay(hostIp),
    }
  }

  #needsRelay(hostIp: string): boolean {
    return isV6(hostIp) || !this.ctx.options.packetRules
  }

  #legs(ports: readonly PortPublication[], target: Target): Leg[] {
    if (this.ctx.options.relay === null) return []
    return ports.flatMap((p): Leg[] => {
      const targetIp = isV6(p.hostIp) ? target.v6 || target.v4 : target.v4
      const fd = this.m.reservations.descriptor(p)
      if (!this.#needsRelay(p.hostIp) || p.protocol === 'sctp' || targetIp === '' || fd === null) return []
      return [{ protocol: p.protocol, fd, targetIp, targetPort: p.containerPort }]
    })
  }

  /** Where ports without an address are published: the network's own setting, else the daemon's. */
  #standardAddress(s: Live): string {
    const choice = chooseGateway(s.attachments, this.m.networkOf)
    const network = choice.by === 'attachment' ? this.m.networkOf(choice.attachment.record.networkId) : null
    const own = network?.options[BRIDGE_OPTION.hostBinding] ?? ''
    return own === '' || own === '0.0.0.0' ? this.ctx.options.publishAddress : own
  }

  /** The addresses that published ports lead to: of the endpoints with the default routes, when those are on a bridge. */
  #target(s: Live): Target {
    const v4 = this.way(s)
    const v6 = chooseIpv6Gateway(s.attachments, this.m.networkOf)
    return {
      v4: v4?.driver === 'bridge' ? v4.record.ipv4Address : '',
      v6: v6?.driver === 'bridge' ? v6.record.ipv6Address : '',
    }
  }

  /** A UDP sender from before would go on to the old place: its entry in the connection table decides. */
  async #forgetFlows(ports: readonly PortPublication[]): Promise<void> {
    for (const p of ports)
      if (p.protocol === 'udp')
        await this.ctx.native.netConntrackDelete(null, { protocol: 'udp', originalDestinationPort: p.hostPort })
  }
}

/** Is the bound port what was asked for? */
const answers = (bound: PortPublication, asked: PortPublication): boolean =>
  bound.protocol === asked.protocol &&
  bound.containerPort === asked.containerPort &&
  bound.hostPort === asked.hostPort &&
  (bound.hostIp === asked.hostIp || (asked.hostIp === '' && ANY.includes(bound.hostIp)))
