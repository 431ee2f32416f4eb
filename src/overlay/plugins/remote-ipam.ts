import { internal } from '../../common/index.js'
import type { IpamPool, LocalNetworkSpec, NetworkRecord } from '../contract.js'
import { contains, formatIp, isV6, parseCidr, parseIp } from '../ipam/ip.js'
import { poolsOf } from '../ipam/subnets.js'
import type { PluginCall, PluginCalls } from './calls.js'
import type { PluginDebts } from './debts.js'

/** docs: "IPAM driver", the remote protocol of libnetwork. */
const IPAM_DRIVER = 'IpamDriver'
const GATEWAY = 'com.docker.network.gateway'
const ADDRESS_TYPE = 'RequestAddressType'
const MAC_ADDRESS = 'com.docker.network.endpoint.macaddress'

/** An address and its prefix length. */
export interface PluginAddress {
  readonly ip: string
  readonly prefix: number
}

interface Capabilities {
  readonly needsMac: boolean
  /** It forgets with the daemon, and wants to be asked again for all that it lent. */
  readonly needsReplay: boolean
}

const text = (value: unknown): string => (typeof value === 'string' ? value : '')

/** Pools and addresses that plugins keep. Everything that one lends is owed at once (debts.ts). */
export class RemoteIpam {
  constructor(
    private readonly calls: PluginCalls,
    private readonly debts: PluginDebts,
  ) {}

  /** The network's pools, their gateways and reserved addresses. On failure what was lent stays owed by `owner`. */
  async requestPools(spec: LocalNetworkSpec, owner: string): Promise<IpamPool[]> {
    const plugin = spec.ipam.driver
    const spaces = await this.calls.ask(call(plugin, 'GetDefaultAddressSpaces', {}))
    const space = text(spaces.LocalDefaultAddressSpace)
    const given = [4, ...(spec.ipv6 ? [6] : [])].flatMap((family) => {
      const pools = poolsOf(spec.ipam.pools, family as 4 | 6)
      return (pools.length > 0 ? pools : [{ subnet: '', isAutomatic: true }]).map((pool) => ({
        pool,
        v6: family === 6,
      }))
    })
    const out: IpamPool[] = []
    for (const { pool, v6 } of given) out.push(await this.#requestPool({ spec, owner, space, v6 }, pool))
    return out
  }

  async #requestPool(
    of: { readonly spec: LocalNetworkSpec; readonly owner: string; readonly space: string; readonly v6: boolean },
    given: IpamPool,
  ): Promise<IpamPool> {
    const { spec, owner } = of
    const plugin = spec.ipam.driver
    const answer = await this.calls.ask(
      call(plugin, 'RequestPool', {
        AddressSpace: of.space,
        Pool: given.subnet,
        SubPool: given.range ?? '',
        Options: spec.ipam.options,
        V6: of.v6,
      }),
    )
    const poolId = text(answer.PoolID)
    await this.debts.add(owner, call(plugin, 'ReleasePool', { PoolID: poolId }))
    const subnet = text(answer.Pool)
    if (!parseCidr(subnet) || isV6(subnet) !== of.v6) throw bad(plugin, 'RequestPool', 'Pool', subnet)
    const lent = (answer.Data as Record<string, unknown> | null | undefined)?.[GATEWAY]
    let gateway = parseCidr(text(lent))?.address
    const request = (address: string, options: Record<string, string>): Promise<PluginAddress> =>
      this.#requestAddress({ plugin, poolId, owner }, address, options)
    if (given.gateway || !gateway)
      gateway = parseIp((await request(given.gateway ?? '', { [ADDRESS_TYPE]: GATEWAY })).ip)!
    for (const address of Object.values(given.reserved ?? {})) await request(address, {})
    return { ...given, subnet, gateway: formatIp(gateway), poolId }
  }

  /** An address of `pool` for an endpoint, which then owes it. */
  async requestAddress(
    n: NetworkRecord,
    pool: IpamPool,
    endpoint: { readonly id: string; readonly wanted: string | undefined; readonly mac: string },
  ): Promise<PluginAddress> {
    const plugin = n.ipam.driver
    const { needsMac } = await this.#capabilities(plugin)
    return this.#requestAddress(
      { plugin, poolId: pool.poolId ?? '', owner: endpoint.id },
      endpoint.wanted ?? '',
      needsMac && endpoint.mac !== '' ? { [MAC_ADDRESS]: endpoint.mac } : {},
    )
  }

  async #requestAddress(
    at: { readonly plugin: string; readonly poolId: string; readonly owner: string },
    address: string,
    options: Readonly<Record<string, string>>,
  ): Promise<PluginAddress> {
    const { plugin, poolId, owner } = at
    const ask = call(plugin, 'RequestAddress', { PoolID: poolId, Address: address, Options: options })
    const release = (ip: string): PluginCall => call(plugin, 'ReleaseAddress', { PoolID: poolId, Address: ip })
    // One that is asked for by name is owed from before the question on; another can only be named once it is known.
    const answer = await (address === '' ? this.calls.ask(ask) : this.debts.askOwing(owner, ask, release(address)))
    const got = parseCidr(text(answer.Address))
    if (!got) throw bad(plugin, 'RequestAddress', 'Address', text(answer.Address))
    const ip = formatIp(got.address)
    if (address === '') await this.debts.add(owner, release(ip))
    return { ip, prefix: got.prefix }
  }

  /** After a start of the daemon: a plugin that says so is told again what it has lent. */
  async replay(n: NetworkRecord, addresses: readonly string[]): Promise<void> {
    const plugin = n.ipam.driver
    if (!(await this.#capabilities(plugin)).needsReplay) return
    const { LocalDefaultAddressSpace } = await this.calls.ask(call(plugin, 'GetDefaultAddressSpaces', {}))
    for (const pool of n.ipam.pools) {
      await this.calls.ask(
        call(plugin, 'RequestPool', {
          AddressSpace: text(LocalDefaultAddressSpace),
          Pool: pool.subnet,
          SubPool: pool.range ?? '',
          Options: n.ipam.options,
          V6: isV6(pool.subnet),
        }),
      )
      const block = parseCidr(pool.subnet)!
      const again = (address: string, options: Record<string, string>) =>
        this.calls.ask(
          call(plugin, 'RequestAddress', { PoolID: pool.poolId ?? '', Address: address, Options: options }),
        )
      if (pool.gateway) await again(pool.gateway, { [ADDRESS_TYPE]: GATEWAY })
      for (const address of Object.values(pool.reserved ?? {})) await again(address, {})
      for (const address of addresses) if (contains(block, parseIp(address)!)) await again(address, {})
    }
  }

  /** A plugin that has no such method can do neither. */
  async #capabilities(plugin: string): Promise<Capabilities> {
    const answer = await this.calls.askIfAble(call(plugin, 'GetCapabilities', {}))
    return { needsMac: answer?.RequiresMACAddress === true, needsReplay: answer?.RequiresRequestReplay === true }
  }
}

const call = (plugin: string, method: string, body: object): PluginCall => ({
  plugin,
  method: `${IPAM_DRIVER}.${method}`,
  body,
})

const bad = (plugin: string, method: string, field: string, value: string): Error =>
  internal('pluginBroken', `plugin "${plugin}" answers ${method} with the ${field} "${value}", which is none`, {
    plugin,
  })
