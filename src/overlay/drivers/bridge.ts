import { unavailable } from '../../common/index.js'
import type { OverlayContext } from '../context.js'
import type { NetworkRecord } from '../contract.js'
import { macOf, parseCidr } from '../ipam/ipv4.js'
import type { LinkState } from '../native.js'
import { BRIDGE_OPTION, bridgeName, DEFAULT_BRIDGE, EGRESS_NETWORK, isInterConnected, mtuOf } from './bridge-options.js'
import type { Attachment, NetworkDriver } from './driver.js'
import { isOfShoal, linkAlias } from './link-alias.js'

/** A Linux bridge on the host; each endpoint is a veth pair between it and the sandbox. */
export class BridgeDriver implements NetworkDriver {
  constructor(private readonly ctx: OverlayContext) {}

  /** Idempotent: also repairs a bridge that lost its address or went down. */
  async ensure(n: NetworkRecord): Promise<void> {
    const name = bridgeName(n)
    const pool = n.ipam.pools[0]!
    const prefix = parseCidr(pool.subnet)!.prefix
    const mtu = mtuOf(n, this.ctx.options.mtu)
    try {
      const foreign = await this.#foreign(n)
      if (foreign) return await this.#useForeign(n, foreign)
      // A MAC of its own: a bridge without one takes and changes to the lowest of its ports'.
      await this.ctx.native.netLink(null, [
        { op: 'linkAdd', name, kind: 'bridge', mtu, mac: macOf(pool.gateway!), tolerate: ['EEXIST'] },
        { op: 'linkSet', name, up: true, alias: linkAlias(this.ctx, `br:${n.id.slice(0, 12)}`) },
        { op: 'addrAdd', dev: name, address: pool.gateway!, prefix, tolerate: ['EEXIST'] },
      ])
      await this.#setSysctls(n)
    } catch (e) {
      throw unavailable(
        'bridgeSetup',
        `cannot set up bridge ${name} of network ${n.name}: ${(e as Error).message}`,
        { network: n.name, bridge: name },
        { cause: e },
      )
    }
  }

  /** Addresses go with it. A bridge that somebody else made stays. */
  async destroy(n: NetworkRecord): Promise<void> {
    if (await this.#foreign(n)) return
    await this.ctx.native.netLink(null, [{ op: 'linkDel', name: bridgeName(n), tolerate: ['ENODEV'] }])
  }

  /** The user named a link that is there already and does not carry our mark. */
  async #foreign(n: NetworkRecord): Promise<LinkState | null> {
    const name = n.options[BRIDGE_OPTION.name]
    // Our own name is ours also without the mark: a crash may have come before it was set.
    if (name === undefined || name.startsWith(this.ctx.options.instance)) return null
    const link = (await this.ctx.native.netLinks(null)).find((l) => l.name === name)
    if (link === undefined) return null
    const isStandard = name === DEFAULT_BRIDGE || name === EGRESS_NETWORK
    const isOurs = isStandard ? isOfShoal(this.ctx, link.alias) : link.alias.startsWith(linkAlias(this.ctx, ''))
    return isOurs ? null : link
  }

  /**
   * A bridge named by the user that exists already: gets the gateway's address if it lacks it, and keeps the MAC that it has. It
   * would change it with its ports, and others would go on sending to one that is gone until they ask again.
   */
  async #useForeign(n: NetworkRecord, { mac }: LinkState): Promise<void> {
    const name = bridgeName(n)
    const pool = n.ipam.pools[0]!
    const prefix = parseCidr(pool.subnet)!.prefix
    await this.ctx.native.netLink(null, [
      { op: 'addrAdd', dev: name, address: pool.gateway!, prefix, tolerate: ['EEXIST'] },
      { op: 'linkSet', name, mac, up: true },
    ])
    await this.#setSysctls(n)
  }

  /**
   * Ports published on 127.0.0.1 lead here; the guard in the host's table closes 127.0.0.0/8 to the outside. Where endpoints of
   * the default network, the only one with links, do not reach each other the host answers for all, at once, so that what goes
   * between them meets that table.
   */
  #setSysctls(n: NetworkRecord): Promise<void> {
    const dev = bridgeName(n).replaceAll('.', '/')
    return this.ctx.native.netSysctl(null, {
      [`net.ipv4.conf.${dev}.route_localnet`]: '1',
      ...(isInterConnected(n) || n.name !== 'bridge'
        ? {}
        : { [`net.ipv4.conf.${dev}.proxy_arp_pvlan`]: '1', [`net.ipv4.neigh.${dev}.proxy_delay`]: '0' }),
    })
  }

  async attach(n: NetworkRecord, a: Attachment, netns: string): Promise<void> {
    const mtu = mtuOf(n, this.ctx.options.mtu)
    const e = a.record
    try {
      await this.ctx.native.netLink(null, [
        {
          op: 'linkAdd',
          name: a.hostLink,
          kind: 'veth',
          mtu,
          peerName: e.interfaceName,
          peerMac: e.macAddress,
          peerMtu: mtu,
          peerNetns: netns,
        },
        {
          op: 'linkSet',
          name: a.hostLink,
          master: bridgeName(n),
          up: true,
          alias: linkAlias(this.ctx, `ep:${e.endpointId.slice(0, 12)}`),
        },
        // Hairpin: a container reaches itself through its published port also where bridged frames pass by netfilter.
        { op: 'bridgePort', name: a.hostLink, hairpin: true, isolated: !isInterConnected(n) },
      ])
      await this.ctx.native.netLink(netns, [
        { op: 'addrAdd', dev: e.interfaceName, address: e.ipv4Address, prefix: e.ipv4PrefixLength },
        { op: 'linkSet', name: e.interfaceName, up: true },
      ])
    } catch (error) {
      await this.detach(n, a)
      throw error
    }
  }

  async mute(a: Attachment, netns: string): Promise<void> {
    const { interfaceName, ipv4Address, ipv4PrefixLength } = a.record
    await this.ctx.native.netLink(netns, [
      {
        op: 'addrDel',
        dev: interfaceName,
        address: ipv4Address,
        prefix: ipv4PrefixLength,
        tolerate: ['EADDRNOTAVAIL', 'ENODEV'],
      },
    ])
  }

  async detach(_n: NetworkRecord, a: Attachment): Promise<void> {
    await this.ctx.native.netLink(null, [{ op: 'linkDel', name: a.hostLink, tolerate: ['ENODEV'] }])
  }
}
