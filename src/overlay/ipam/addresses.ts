import { forbidden, internal, invalid, unavailable } from '../../common/index.js'
import type { IpamPool, NetworkRecord } from '../contract.js'
import { isDefaultBridge } from '../drivers/bridge-options.js'
import type { RemoteIpam } from '../plugins/remote-ipam.js'
import { AddressPool } from './address-pool.js'
import { addressOfMac, contains, parseCidr, parseIp } from './ip.js'
import { poolsOf } from './subnets.js'

/** Reserved addresses that endpoints are routed to instead of the bridge's, under Docker's names for them. */
export const GATEWAY_OF_ENDPOINTS = { 4: 'DefaultGatewayIPv4', 6: 'DefaultGatewayIPv6' } as const

/** What an endpoint has of one family; all empty where the network has none. */
export interface Lent {
  readonly ip: string
  readonly prefix: number
  readonly gateway: string
}

export interface AddressRequest {
  readonly family: 4 | 6
  readonly endpointId: string
  /** Of whom errors speak. */
  readonly container: string
  readonly wanted: string | undefined
  readonly mac: string
}

const NONE: Lent = { ip: '', prefix: 0, gateway: '' }

/** Who has which address of the networks of this host: pools of our own, and plugins' (RemoteIpam). */
export class Addresses {
  readonly #pools = new Map<string, AddressPool[]>()

  constructor(private readonly remote: RemoteIpam) {}

  /** From here on addresses of the network may be asked for. */
  admit(n: NetworkRecord): void {
    if (n.configOnly || n.ipam.driver !== 'default') return
    const pools = n.ipam.pools.map((p) => {
      const pool = new AddressPool(parseCidr(p.subnet)!, p.range ? parseCidr(p.range) : null)
      for (const taken of [p.gateway!, ...Object.values(p.reserved ?? {})]) pool.allocate(taken)
      return pool
    })
    this.#pools.set(n.id, pools)
  }

  drop(networkId: string): void {
    this.#pools.delete(networkId)
  }

  /** Errors: invalid `addressOutside`, forbidden `addressInUse`, unavailable `noFreeAddress`, a plugin's own. */
  async lend(n: NetworkRecord, r: AddressRequest): Promise<Lent> {
    const pools = poolsOf(n.ipam.pools, r.family)
    const wanted = r.wanted?.split('/')[0] || undefined
    if (n.ipam.driver === 'null' || pools.length === 0) {
      if (wanted !== undefined) throw outside(n, r)
      return NONE
    }
    if (n.ipam.driver !== 'default') return this.#ofPlugin(n, pools, { ...r, wanted })
    return lentIn(n, this.#ofOurs(n, { ...r, wanted }))
  }

  async #ofPlugin(n: NetworkRecord, pools: readonly IpamPool[], r: AddressRequest): Promise<Lent> {
    const ip = r.wanted === undefined ? null : parseIp(r.wanted)
    const pool = pools.find((p) => r.wanted === undefined || (ip && contains(parseCidr(p.subnet)!, ip)))
    if (!pool) throw outside(n, r)
    const got = await this.remote.requestAddress(n, pool, { id: r.endpointId, wanted: r.wanted, mac: r.mac })
    return { ...got, gateway: pool.gateway ?? '' }
  }

  #ofOurs(n: NetworkRecord, r: AddressRequest): string {
    const bits = r.family === 4 ? 32 : 128
    const pools = this.#poolsOf(n.id).filter((p) => p.subnet.bits === bits)
    if (r.wanted !== undefined) {
      for (const pool of pools) {
        const got = pool.allocate(r.wanted)
        if (got.ok) return got.address
        if (got.reason === 'inUse')
          throw forbidden('addressInUse', `Address already in use: ${r.wanted} of network ${n.name}`, {
            network: n.name,
            address: r.wanted,
          })
      }
      throw outside(n, r)
    }
    for (const pool of pools) {
      // On the default network an IPv6 address tells the MAC address, where the block has room for it.
      const byMac =
        r.family === 6 && isDefaultBridge(n) && pool.subnet.prefix <= 80 && r.mac !== ''
          ? pool.allocate(addressOfMac(pool.subnet, r.mac))
          : null
      const got = byMac?.ok ? byMac : pool.allocate()
      if (got.ok) return got.address
    }
    throw unavailable(
      'noFreeAddress',
      `no available IPv${r.family} addresses on this network's address pools: ${n.name} (${n.id}): remove containers or make a larger network`,
      { network: n.name },
    )
  }

  /** Found again after a restart. */
  claim(n: NetworkRecord, address: string): void {
    for (const pool of this.#pools.get(n.id) ?? []) pool.allocate(address)
  }

  /** What a plugin lent goes back with the endpoint's debts. */
  release(networkId: string, address: string): void {
    for (const pool of this.#pools.get(networkId) ?? []) pool.release(address)
  }

  #poolsOf(id: string): readonly AddressPool[] {
    const pools = this.#pools.get(id)
    if (!pools) throw internal('noPool', `network ${id} has no address pool`)
    return pools
  }
}

/** An address of the network with what goes with it. Throws invalid `addressOutside`. */
export function lentIn(n: NetworkRecord, address: string): Lent {
  const ip = parseIp(address)
  for (const p of n.ipam.pools) {
    const block = parseCidr(p.subnet)
    if (ip && block && contains(block, ip))
      return {
        ip: address,
        prefix: block.prefix,
        gateway: p.reserved?.[GATEWAY_OF_ENDPOINTS[ip.bits === 32 ? 4 : 6]] ?? p.gateway ?? '',
      }
  }
  throw invalid('addressOutside', `address ${address} is in no subnet of network ${n.name}`, {
    network: n.name,
    address,
  })
}

const outside = (n: NetworkRecord, r: AddressRequest): Error =>
  invalid(
    'addressOutside',
    `invalid address ${r.wanted}: It does not belong to any of this network's subnets: address ${r.wanted} of ${r.container} is not in a subnet of network ${n.name}`,
    { network: n.name, address: r.wanted },
  )
