import { readdir, readFile } from 'node:fs/promises'
import { unavailable } from '../../common/index.js'
import type { OverlayContext } from '../context.js'
import type { NetworkRecord } from '../contract.js'
import { isV6, macOf, parseCidr } from '../ipam/ip.js'
import type { LinkOperation, LinkState } from '../native.js'
import { BRIDGE_OPTION, bridgeName, DEFAULT_BRIDGE, EGRESS_NETWORK, isInterConnected, mtuOf } from './bridge-options.js'
import type { Attachment, NetworkDriver } from './driver.js'
import { addressesOf, bringUp, ipv6Sysctls } from './interface.js'
import { isOfShoal, linkAlias } from './link-alias.js'

/** Every bridge with IPv6 has it, as Docker's do. */
const LINK_LOCAL = { address: 'fe80::1', prefix: 64 }

/** A Linux bridge on the host; each endpoint is a veth pair between it and the sandbox. */
export class BridgeDriver implements NetworkDriver {
  constructor(private readonly ctx: OverlayContext) {}

  /** Idempotent: also repairs a bridge that lost its address or went down. */
  async ensure(n: NetworkRecord): Promise<void> {
    const name = bridgeName(n)
    const mtu = mtuOf(n, this.ctx.options.mtu)
    try {
      const foreign = await this.#foreign(n)
      if (foreign) return await this.#useForeign(n, foreign)
      // A MAC of its own: a bridge without one takes and changes to the lowest of its ports'.
      await this.ctx.native.netLink(null, [
        { op: 'linkAdd', name, kind: 'bridge', mtu, mac: macOf(n.ipam.pools[0]!.gateway!), tolerate: ['EEXIST'] },
        { op: 'linkSet', name, up: true, alias: linkAlias(this.ctx, `br:${n.id.slice(0, 12)}`) },
      ])
      await this.#setUp(n)
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
    await this.ctx.native.netLink(null, [{ op: 'linkSet', name: bridgeName(n), mac, up: true }])
    await this.#setUp(n)
  }

  /**
   * The gateways' addresses. Ports published on 127.0.0.1 lead here by route_localnet; the guard in the host's table closes
   * 127.0.0.0/8 to the outside. No container is believed to be a router. Where endpoints of the default network, the only one with
   * links, do not reach each other the host answers for all, at once, so that what goes between them meets that table.
   */
  async #setUp(n: NetworkRecord): Promise<void> {
    const name = bridgeName(n)
    const own = n.ipam.pools.map((p) => ({ address: p.gateway!, prefix: parseCidr(p.subnet)!.prefix }))
    const hasIpv6 = this.ctx.kernelIpv6 && own.some((a) => isV6(a.address))
    const proc = name.replaceAll('.', '/')
    await this.ctx.native.netSysctl(null, {
      [`net.ipv4.conf.${proc}.route_localnet`]: '1',
      ...(isInterConnected(n) || n.name !== 'bridge'
        ? {}
        : { [`net.ipv4.conf.${proc}.proxy_arp_pvlan`]: '1', [`net.ipv4.neigh.${proc}.proxy_delay`]: '0' }),
      ...(this.ctx.kernelIpv6 ? { [`net.ipv6.conf.${proc}.accept_ra`]: '0' } : {}),
      ...(hasIpv6 ? ipv6Sysctls(name, false) : {}),
    })
    if (hasIpv6 && this.ctx.options.forwarding) await forwardIpv6(this.ctx)
    await this.ctx.native.netLink(
      null,
      [...own, ...(hasIpv6 ? [LINK_LOCAL] : [])].map(
        (a): LinkOperation => ({ op: 'addrAdd', dev: name, ...a, tolerate: ['EEXIST'] }),
      ),
    )
  }

  async attach(n: NetworkRecord, a: Attachment, netns: string): Promise<Attachment> {
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
      await bringUp(this.ctx, a, netns)
      return a
    } catch (error) {
      await this.detach(n, a)
      throw error
    }
  }

  async mute(a: Attachment, netns: string): Promise<void> {
    await this.ctx.native.netLink(
      netns,
      addressesOf(a).map(
        (x): LinkOperation => ({
          op: 'addrDel',
          dev: a.record.interfaceName,
          ...x,
          tolerate: ['EADDRNOTAVAIL', 'ENODEV'],
        }),
      ),
    )
  }

  async detach(_n: NetworkRecord, a: Attachment): Promise<void> {
    await this.ctx.native.netLink(null, [{ op: 'linkDel', name: a.hostLink, tolerate: ['ENODEV'] }])
  }
}

const IPV6_INTERFACES = '/proc/sys/net/ipv6/conf'

/**
 * The kernel forgets the routers that it has heard of as soon as it forwards itself, unless an interface says that it wants to
 * hear them nevertheless: a host that has its own way out from there keeps it.
 */
async function forwardIpv6(ctx: OverlayContext): Promise<void> {
  if ((await readFile(`${IPV6_INTERFACES}/all/forwarding`, 'utf8')).trim() === '1') return
  const listening: Record<string, string> = {}
  for (const dev of await readdir(IPV6_INTERFACES)) {
    const accepts = await readFile(`${IPV6_INTERFACES}/${dev}/accept_ra`, 'utf8').catch(() => '') // it went meanwhile
    if (accepts.trim() === '1') listening[`net.ipv6.conf.${dev.replaceAll('.', '/')}.accept_ra`] = '2'
  }
  await ctx.native.netSysctl(null, {
    ...listening,
    'net.ipv6.conf.default.forwarding': '1',
    'net.ipv6.conf.all.forwarding': '1',
  })
}
