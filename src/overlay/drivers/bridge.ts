import { unavailable } from '../../common/index.js'
import type { OverlayContext } from '../context.js'
import type { NetworkRecord } from '../contract.js'
import { macOf, parseCidr } from '../ipam/ipv4.js'
import { bridgeName, isInterConnected, mtuOf } from './bridge-options.js'
import type { Attachment, NetworkDriver } from './driver.js'
import { linkAlias } from './link-alias.js'

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
      // A MAC of its own: a bridge without one takes and changes to the lowest of its ports'.
      await this.ctx.native.netLink(null, [
        { op: 'linkAdd', name, kind: 'bridge', mtu, mac: macOf(pool.gateway!), tolerate: ['EEXIST'] },
        { op: 'linkSet', name, up: true, alias: linkAlias(this.ctx, `br:${n.id.slice(0, 12)}`) },
        { op: 'addrAdd', dev: name, address: pool.gateway!, prefix, tolerate: ['EEXIST'] },
      ])
      await this.ctx.native.netSysctl(null, {
        [`net.ipv4.conf.${name.replaceAll('.', '/')}.route_localnet`]: '1',
      })
    } catch (e) {
      throw unavailable(
        'bridgeSetup',
        `cannot set up bridge ${name} of network ${n.name}: ${(e as Error).message}`,
        { network: n.name, bridge: name },
        { cause: e },
      )
    }
  }

  /** Addresses and other links on the bridge go with it. */
  async destroy(n: NetworkRecord): Promise<void> {
    await this.ctx.native.netLink(null, [{ op: 'linkDel', name: bridgeName(n), tolerate: ['ENODEV'] }])
  }

  async attach(n: NetworkRecord, a: Attachment, netns: string): Promise<void> {
    const mtu = mtuOf(n, this.ctx.options.mtu)
    const e = a.record
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
    ])
    try {
      await this.ctx.native.netLink(null, [
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

  async detach(_n: NetworkRecord, a: Attachment): Promise<void> {
    await this.ctx.native.netLink(null, [{ op: 'linkDel', name: a.hostLink, tolerate: ['ENODEV'] }])
  }
}
