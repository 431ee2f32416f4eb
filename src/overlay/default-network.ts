import { invalid } from '../common/index.js'
import type { OverlayContext } from './context.js'
import type { IpamPool, NetworkRecord } from './contract.js'
import { BRIDGE_OPTION, bridgeName, DEFAULT_BRIDGE } from './drivers/bridge-options.js'
import { isOfShoal } from './drivers/link-alias.js'
import { GATEWAY_OF_ENDPOINTS } from './ipam/addresses.js'
import { formatCidr, isIpv4, overlaps, parseCidr } from './ipam/ip.js'
import { completePool, poolsOf, type Subnets } from './ipam/subnets.js'

/** The network "bridge" as the settings want it. */
export class DefaultNetwork {
  constructor(
    private readonly ctx: OverlayContext,
    private readonly subnets: Subnets,
  ) {}

  /** `old`: as it was at the last start; `plain`: a record of that name with nothing in it. */
  async wanted(old: NetworkRecord | null, plain: () => NetworkRecord): Promise<NetworkRecord> {
    const { bridge, icc, masquerade, mtu, publishAddress, fixedCidr, defaultGateway, ipv6 } = this.ctx.options
    const name = bridge || (await this.#usualName(old))
    const pool = completePool('bridge', {
      ...(await this.#block(name, old && bridgeName(old) === name ? old : null)),
      ...(fixedCidr ? { range: formatCidr(parseCidr(fixedCidr)!) } : {}),
      ...(defaultGateway ? { reserved: { [GATEWAY_OF_ENDPOINTS[4]]: defaultGateway } } : {}),
    })
    return {
      ...(old ?? plain()),
      ipv6,
      ipam: { driver: 'default', options: {}, pools: [pool, ...(ipv6 ? [await this.#block6(old)] : [])] },
      options: {
        [BRIDGE_OPTION.isDefault]: 'true',
        [BRIDGE_OPTION.icc]: String(icc),
        [BRIDGE_OPTION.masquerade]: String(masquerade),
        [BRIDGE_OPTION.hostBinding]: publishAddress || '0.0.0.0',
        [BRIDGE_OPTION.name]: name,
        [BRIDGE_OPTION.mtu]: String(mtu),
      },
    }
  }

  /** Without a default network, the bridge that an earlier daemon left for it goes, unless it is in use. */
  async dropLeftBridge(): Promise<void> {
    const links = await this.ctx.native.netLinks(null)
    const link = links.find((l) => l.name === DEFAULT_BRIDGE)
    if (link && isOfShoal(this.ctx, link.alias) && !links.some((l) => l.master === DEFAULT_BRIDGE))
      await this.ctx.native.netLink(null, [{ op: 'linkDel', name: DEFAULT_BRIDGE, tolerate: ['ENODEV'] }])
  }

  /** The usual one, unless another engine on this host had it first. */
  async #usualName(old: NetworkRecord | null): Promise<string> {
    const spare = `${this.ctx.options.instance}0`
    if (old && [DEFAULT_BRIDGE, spare].includes(bridgeName(old))) return bridgeName(old)
    const link = (await this.ctx.native.netLinks(null)).find((l) => l.name === DEFAULT_BRIDGE)
    return link && !isOfShoal(this.ctx, link.alias) ? spare : DEFAULT_BRIDGE
  }

  /** Subnet and gateway: of the existing bridge that is named, of bip, as they were, or a free one. */
  async #block(name: string, old: NetworkRecord | null): Promise<IpamPool> {
    const { bip, bridge, fixedCidr } = this.ctx.options
    if (bridge !== '') return this.#blockOf(bridge, fixedCidr)
    if (bip) return { subnet: formatCidr(parseCidr(bip)!), gateway: bip.split('/')[0]! }
    const pool = old && poolsOf(old.ipam.pools, 4)[0]
    // Without a record, one that an earlier daemon left keeps its address instead of getting another beside it.
    return pool ? { subnet: pool.subnet, gateway: pool.gateway! } : this.#addressOf(name, null)
  }

  async #block6(old: NetworkRecord | null): Promise<IpamPool> {
    const { fixedCidr6, defaultGateway6 } = this.ctx.options
    const before = old && poolsOf(old.ipam.pools, 6)[0]?.subnet
    return completePool('bridge', {
      subnet: fixedCidr6 ?? before ?? (await this.subnets.free('bridge', 6)),
      ...(defaultGateway6 ? { reserved: { [GATEWAY_OF_ENDPOINTS[6]]: defaultGateway6 } } : {}),
    })
  }

  /** The address of a bridge that the user made; with several, the one that the containers' range lies around. */
  async #blockOf(bridge: string, fixedCidr: string | null): Promise<IpamPool> {
    if (!(await this.ctx.native.netLinks(null)).some((l) => l.name === bridge))
      throw invalid('noSuchBridge', `bridge "${bridge}" does not exist: make it, or leave --bridge off`, { bridge })
    return this.#addressOf(bridge, fixedCidr)
  }

  async #addressOf(bridge: string, fixedCidr: string | null): Promise<IpamPool> {
    const range = fixedCidr ? parseCidr(fixedCidr) : null
    const own = (await this.ctx.native.netAddresses(null)).flatMap((a) => {
      const block = a.dev === bridge && isIpv4(a.address) ? parseCidr(`${a.address}/${a.prefix}`) : null
      return block ? [{ gateway: a.address, block }] : []
    })
    const chosen = own.find((a) => range && overlaps(a.block, range)) ?? own[0]
    return chosen
      ? { subnet: formatCidr(chosen.block), gateway: chosen.gateway }
      : { subnet: await this.subnets.free('bridge', 4) }
  }
}
