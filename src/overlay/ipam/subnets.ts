import { createHash } from 'node:crypto'
import { forbidden, invalid, unavailable } from '../../common/index.js'
import type { OverlayContext } from '../context.js'
import type { IpamPool, LocalNetworkSpec, NetworkRecord } from '../contract.js'
import { BRIDGE_OPTION, EGRESS_NETWORK } from '../drivers/bridge-options.js'
import { chooseSubnet } from './address-pool.js'
import {
  addressAt,
  type Cidr,
  contains,
  formatCidr,
  formatIp,
  isIpv4,
  isV6,
  overlaps,
  parseCidr,
  parseIp,
} from './ip.js'

type Family = 4 | 6

/** Which blocks networks of this host get: given ones are checked, others cut from the pools around all that is in use. */
export class Subnets {
  /** `inUse`: networks that are there or being made or removed; `clusterSubnets`: blocks that the cluster's networks use. */
  constructor(
    private readonly ctx: OverlayContext,
    private readonly inUse: () => readonly NetworkRecord[],
    private readonly clusterSubnets: () => readonly string[],
  ) {}

  /** The network's pools with subnets and gateways decided, those of IPv4 first. */
  async plan(spec: LocalNetworkSpec): Promise<IpamPool[]> {
    const pools = [...(await this.#family(spec, 4)), ...(spec.ipv6 ? await this.#family(spec, 6) : [])]
    this.admit(spec, pools)
    return pools
  }

  async #family(spec: LocalNetworkSpec, family: Family): Promise<IpamPool[]> {
    const given = poolsOf(spec.ipam.pools, family)
    if (given.length > 0) return given.map((p) => completePool(spec.name, p))
    const block =
      family === 4
        ? await this.#freeBlock(spec.name, spec.options[BRIDGE_OPTION.name])
        : { subnet: await this.free(spec.name, 6) }
    return [completePool(spec.name, { isAutomatic: true, ...block })]
  }

  /** Refuses pools that overlap each other or those of another network. */
  admit(spec: LocalNetworkSpec, pools: readonly IpamPool[]): void {
    const others = this.inUse().flatMap((n) => (keepsBlocks(n) ? n.ipam.pools.map((p) => ({ ...p, of: n.name })) : []))
    pools.forEach((pool, i) => {
      const block = parseCidr(pool.subnet)!
      const own = pools.slice(0, i).map((p) => ({ ...p, of: spec.name }))
      const hit = [...own, ...others].find((p) => overlaps(block, parseCidr(p.subnet)!))
      if (hit)
        throw forbidden(
          'subnetOverlap',
          `Pool overlaps with other one on this address space: subnet ${pool.subnet} of network ${spec.name} overlaps ${hit.subnet} of network ${hit.of}: choose another`,
          { subnet: pool.subnet, network: hit.of },
        )
    })
  }

  /** What a bridge of ours has already, from another data root's time; otherwise a free subnet. */
  async #freeBlock(network: string, bridge = ''): Promise<Pick<IpamPool, 'subnet' | 'gateway'>> {
    const left =
      bridge === EGRESS_NETWORK
        ? (await this.ctx.native.netAddresses(null)).find((a) => a.dev === bridge && isIpv4(a.address))
        : undefined
    const block = left ? parseCidr(`${left.address}/${left.prefix}`) : null
    if (!left || !block || this.inUse().some((n) => n.ipam.pools.some((p) => overlaps(block, parseCidr(p.subnet)!))))
      return { subnet: await this.free(network, 4) }
    return { subnet: formatCidr(block), gateway: left.address }
  }

  async free(network: string, family: Family): Promise<string> {
    const { defaultAddressPools, ingressLink, uniqueLocalSeed } = this.ctx.options
    const used: Cidr[] = []
    const add = (text: string): void => {
      const c = parseCidr(text)
      if (c && c.prefix > 0) used.push(c)
    }
    add(ingressLink)
    for (const n of this.inUse()) for (const p of n.ipam.pools) add(p.subnet)
    for (const s of this.clusterSubnets()) add(s)
    // What the host already reaches: a subnet on top of it would cut it off.
    for (const r of await this.ctx.native.netRoutes(null)) add(r.to)
    for (const a of await this.ctx.native.netAddresses(null)) add(`${a.address}/${a.prefix}`)
    const pools = defaultAddressPools.filter((p) => isV6(p.base) === (family === 6))
    const subnet = chooseSubnet(
      family === 6 && pools.length === 0 ? [{ base: uniqueLocalBlock(uniqueLocalSeed), size: 64 }] : pools,
      used,
    )
    if (!subnet)
      throw unavailable(
        'noFreeSubnet',
        `could not find an available, non-overlapping IPv${family} address pool among the defaults to assign to the network: no free subnet for network ${network}: all blocks of default-address-pool are in use; remove networks, add pools, or give --subnet`,
        { network },
      )
    return subnet
  }
}

export const poolsOf = (pools: readonly IpamPool[], family: Family): IpamPool[] =>
  pools.filter((p) => isV6(p.subnet) === (family === 6))

/** Config-only networks use no addresses, and the null IPAM driver's block is everything. */
const keepsBlocks = (n: NetworkRecord): boolean => !n.configOnly && n.ipam.driver !== 'null'

/** fdXX:XXXX:XXXX::/48 (RFC 4193), always the same for one seed. */
function uniqueLocalBlock(seed: string): string {
  const hex = createHash('sha256').update(seed).digest('hex').slice(0, 10)
  return `${formatIp({ bits: 128, value: BigInt(`0xfd${hex}`) << 80n })}/48`
}

/** The block as it is written, its gateway chosen; throws what is wrong with it. */
export function completePool(network: string, given: IpamPool): IpamPool {
  const bad = (field: string, value: string, wanted: string) =>
    invalid('ipam', `network ${network}: ${field} ${value} is not ${wanted}`, { [field]: value })
  const block = parseCidr(given.subnet)
  if (!block) throw bad('subnet', given.subnet, 'a CIDR such as 172.20.0.0/16')
  if (block.bits - block.prefix < 2) throw bad('subnet', given.subnet, `large enough: /${block.bits - 2} or wider`)
  const inside = (text: string): boolean => {
    const ip = parseIp(text)
    return ip !== null && contains(block, ip)
  }
  const range = given.range ? parseCidr(given.range) : null
  if (given.range && (!range || !overlaps(block, range) || range.prefix < block.prefix))
    throw bad('ip-range', given.range, `inside ${given.subnet}`)
  const gateway = given.gateway || addressAt(range ?? block, 1)
  if (!inside(gateway)) throw bad('gateway', gateway, `inside ${given.subnet}`)
  for (const [name, ip] of Object.entries(given.reserved ?? {}))
    if (!inside(ip)) throw bad(`aux-address ${name}`, ip, `inside ${given.subnet}`)
  return { ...given, subnet: formatCidr(block), gateway: formatIp(parseIp(gateway)!) }
}
