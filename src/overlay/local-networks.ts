import { join } from 'node:path'
import {
  conflict,
  forbidden,
  internal,
  invalid,
  newHexId,
  notFound,
  unavailable,
  unimplemented,
} from '../common/index.js'
import type { OverlayContext } from './context.js'
import type { IpamPool, LocalNetworkSpec, NetworkRecord } from './contract.js'
import { BridgeDriver } from './drivers/bridge.js'
import { BRIDGE_OPTION, bridgeName, bridgeState, DEFAULT_BRIDGE, EGRESS_NETWORK } from './drivers/bridge-options.js'
import { isOfShoal } from './drivers/link-alias.js'
import { MacvlanDriver, parentOf } from './drivers/macvlan.js'
import type { HostFirewall } from './firewall/host-firewall.js'
import { AddressPool, chooseSubnet } from './ipam/address-pool.js'
import { type Cidr, contains, formatCidr, formatIpv4, overlaps, parseCidr, parseIpv4 } from './ipam/ipv4.js'
import { RecordStore } from './record-store.js'

export const PREDEFINED = ['bridge', 'host', 'none']

// As libnetwork: what is not blank. Names are in no path and no rule; control characters would spoil lists.
const NAME = /^(?=.*\S)\P{Cc}{1,255}$/u

export interface CreatedAs {
  /** Other networks may have its name too. */
  readonly sameName?: boolean
  /** Its id in the cluster, each node of which has a network of its own for it. */
  readonly clusterId?: string
}

/** The reserved address that endpoints are routed to instead of the bridge's, under Docker's name for it. */
export const GATEWAY_OF_ENDPOINTS = 'DefaultGatewayIPv4'

/** The networks of this host only: their records on disk, their bridges, their address pools. */
export class LocalNetworks {
  readonly #records = new Map<string, NetworkRecord>()
  readonly #pools = new Map<string, AddressPool>()
  readonly #store: RecordStore<NetworkRecord>
  readonly bridge: BridgeDriver
  readonly macvlan: MacvlanDriver

  /** `clusterSubnets`: blocks that the cluster's networks use, to be left alone. */
  constructor(
    private readonly ctx: OverlayContext,
    private readonly firewall: HostFirewall,
    private readonly clusterSubnets: () => readonly string[],
  ) {
    this.#store = new RecordStore(join(ctx.options.root, 'local'), true, ctx.log)
    this.bridge = new BridgeDriver(ctx)
    this.macvlan = new MacvlanDriver(ctx)
  }

  /** Loads the records, makes the predefined networks, and puts every bridge back that is missing. */
  async start(): Promise<void> {
    for (const [id, record] of await this.#store.load()) this.#admit(id, record)
    for (const name of ['host', 'none'])
      if (!this.byName(name)) {
        const record = this.#plain(name)
        await this.#store.put(record.id, record)
        this.#admit(record.id, record)
      }
    await this.#ensureDefault()
    for (const n of this.#records.values()) await this.#realize(n, false)
  }

  list(): NetworkRecord[] {
    return [...this.#records.values()]
  }

  get(id: string): NetworkRecord | null {
    return this.#records.get(id) ?? null
  }

  byName(name: string): NetworkRecord | null {
    for (const n of this.#records.values()) if (n.name === name) return n
    return null
  }

  pool(id: string): AddressPool {
    const pool = this.#pools.get(id)
    if (!pool) throw internal('noPool', `network ${id} has no address pool`)
    return pool
  }

  /** The whole creation is undone when its last step fails. */
  create(spec: LocalNetworkSpec, as: CreatedAs = {}): Promise<NetworkRecord> {
    return this.ctx.locks.run('local-networks', () => this.#create(spec, as))
  }

  /** `inUse`: how many endpoints it has; asked under the lock. */
  remove(id: string, inUse: () => number): Promise<void> {
    return this.ctx.locks.run('local-networks', async () => {
      const n = this.#records.get(id)
      if (!n) throw notFound('noSuchNetwork', `no network ${id}`, { network: id })
      if (PREDEFINED.includes(n.name))
        throw forbidden('predefinedNetwork', `network ${n.name} exists on every host and cannot be removed`, {
          network: n.name,
        })
      const count = inUse()
      if (count > 0)
        throw forbidden(
          'networkInUse',
          `network ${n.name} has ${count} active endpoint${count > 1 ? 's' : ''}: disconnect or remove its containers first`,
          { network: n.name, endpoints: count },
        )
      const user = this.list().find((o) => o.configFrom === n.name)
      if (user)
        throw forbidden(
          'networkInUse',
          `network ${n.name} is the configuration of network ${user.name}: remove that first`,
        )
      // The record goes first: a crash between the two leaves a bridge that the next start removes.
      // Nobody joins it from here on.
      this.#records.delete(id)
      try {
        await this.#store.delete(id)
      } catch (caught) {
        this.#records.set(id, n)
        throw caught
      }
      this.#pools.delete(id)
      if (n.driver !== 'bridge' || n.configOnly) return
      this.firewall.dropBridge(bridgeName(n))
      await this.firewall.apply()
      await this.bridge.destroy(n)
    })
  }

  async #create(given: LocalNetworkSpec, as: CreatedAs): Promise<NetworkRecord> {
    if (!NAME.test(given.name))
      throw invalid('networkName', `network name "${given.name}": use 1 to 255 characters, not only spaces`)
    if (PREDEFINED.includes(given.name))
      throw forbidden('predefinedNetwork', `network ${given.name} exists on every host: choose another name`)
    if (!as.sameName && this.byName(given.name))
      throw conflict('networkNameInUse', `network with name ${given.name} already exists`, { network: given.name })
    const spec = this.#configured(given)
    if (spec.driver === 'host' || spec.driver === 'null' || spec.driver === 'none')
      throw forbidden('singleInstance', `only one network of driver "${spec.driver}" can exist: use the one that does`)
    if (spec.driver !== 'bridge' && spec.driver !== 'macvlan')
      throw notFound(
        'noSuchNetworkDriver',
        `network driver "${spec.driver}" not found: local networks are bridge or macvlan`,
        {
          driver: spec.driver,
        },
      )
    if (spec.ipv6 || spec.ipam.pools.some((p) => p.subnet.includes(':')))
      throw unimplemented('ipv6Network', `network ${spec.name}: IPv6 networks are not supported; leave ipv6 off`)
    if (spec.ipam.driver !== '' && spec.ipam.driver !== 'default')
      throw notFound('noSuchIpamDriver', `IPAM driver "${spec.ipam.driver}" not found: only "default" exists`)
    const source = spec.options[BRIDGE_OPTION.sourceAddress]
    if (source && parseIpv4(source) === null)
      throw invalid('hostAddress', `network ${spec.name}: ${BRIDGE_OPTION.sourceAddress}=${source} is no IPv4 address`)
    if (spec.driver === 'macvlan' && !spec.options.parent)
      throw invalid('noParent', `network ${spec.name}: macvlan needs the option parent=INTERFACE`)

    const id = as.clusterId ?? newHexId()
    const record: NetworkRecord = {
      ...spec,
      id,
      scope: as.clusterId ? 'swarm' : 'local',
      createdMs: this.ctx.clock.now(),
      ingress: false,
      driverState: {},
      ipam: { ...spec.ipam, driver: 'default', pools: spec.configOnly ? spec.ipam.pools : [await this.#plan(spec)] },
    }
    this.#checkBridgeName(record)
    await this.#store.put(id, record)
    this.#admit(id, record)
    try {
      await this.#realize(record, true)
      await this.firewall.apply()
    } catch (e) {
      await this.#undo(record)
      throw e
    }
    return record
  }

  async #undo(n: NetworkRecord): Promise<void> {
    this.#records.delete(n.id)
    this.#pools.delete(n.id)
    await this.#store.delete(n.id)
    if (n.driver !== 'bridge' || n.configOnly) return
    this.firewall.dropBridge(bridgeName(n))
    try {
      await this.firewall.apply()
      await this.bridge.destroy(n)
    } catch (e) {
      this.ctx.log.warn('cannot take back a network that failed', { network: n.name, error: String(e) })
    }
  }

  /** Puts the settings of a config-only network under the given ones. */
  #configured(spec: LocalNetworkSpec): LocalNetworkSpec {
    if (spec.configFrom === null || spec.configFrom === '') return spec
    const base = this.byName(spec.configFrom)
    if (!base?.configOnly)
      throw notFound('noSuchConfigNetwork', `no config-only network ${spec.configFrom} on this host`, {
        network: spec.configFrom,
      })
    return {
      ...spec,
      internal: base.internal,
      ipv6: base.ipv6,
      ipam: base.ipam,
      options: { ...base.options, ...spec.options },
    }
  }

  /** The network's pool with subnet and gateway decided. */
  async #plan(spec: LocalNetworkSpec): Promise<IpamPool> {
    if (spec.ipam.pools.length > 1)
      throw invalid('severalSubnets', `network ${spec.name}: a ${spec.driver} network has one IPv4 subnet`)
    const given = spec.ipam.pools[0]
    if (!given?.subnet)
      return this.#complete(spec.name, {
        ...given,
        isAutomatic: true,
        ...(await this.#freeBlock(spec.name, spec.options[BRIDGE_OPTION.name])),
      })
    const pool = this.#complete(spec.name, given)
    const block = parseCidr(pool.subnet)!
    for (const n of this.#records.values())
      for (const p of n.configOnly ? [] : n.ipam.pools)
        if (overlaps(block, parseCidr(p.subnet)!))
          throw forbidden(
            'subnetOverlap',
            `Pool overlaps with other one on this address space: subnet ${pool.subnet} of network ${spec.name} overlaps ${p.subnet} of network ${n.name}: choose another`,
            { subnet: pool.subnet, network: n.name },
          )
    return pool
  }

  #complete(network: string, given: IpamPool): IpamPool {
    const bad = (field: string, value: string, wanted: string) =>
      invalid('ipam', `network ${network}: ${field} ${value} is not ${wanted}`, { [field]: value })
    const block = parseCidr(given.subnet)
    if (!block) throw bad('subnet', given.subnet, 'a CIDR such as 172.20.0.0/16')
    if (block.prefix > 30) throw bad('subnet', given.subnet, 'large enough: /30 or wider')
    const inside = (ip: string): boolean => {
      const n = parseIpv4(ip)
      return n !== null && contains(block, n)
    }
    const range = given.range ? parseCidr(given.range) : null
    if (given.range && (!range || !overlaps(block, range) || range.prefix < block.prefix))
      throw bad('ip-range', given.range, `inside ${given.subnet}`)
    const gateway = given.gateway || formatIpv4((range ?? block).base + 1)
    if (!inside(gateway)) throw bad('gateway', gateway, `inside ${given.subnet}`)
    for (const [name, ip] of Object.entries(given.reserved ?? {}))
      if (!inside(ip)) throw bad(`aux-address ${name}`, ip, `inside ${given.subnet}`)
    return { ...given, subnet: formatCidr(block), gateway }
  }

  /** What a bridge of ours has already, from another data root's time; otherwise a free subnet. */
  async #freeBlock(network: string, bridge = ''): Promise<IpamPool> {
    const left =
      bridge === EGRESS_NETWORK
        ? (await this.ctx.native.netAddresses(null)).find((a) => a.dev === bridge && parseIpv4(a.address) !== null)
        : undefined
    const block = left ? parseCidr(`${left.address}/${left.prefix}`) : null
    if (!left || !block || this.list().some((n) => n.ipam.pools.some((p) => overlaps(block, parseCidr(p.subnet)!))))
      return { subnet: await this.#freeSubnet(network) }
    return { subnet: formatCidr(block), gateway: left.address }
  }

  async #freeSubnet(network: string): Promise<string> {
    const { defaultAddressPools, ingressLink } = this.ctx.options
    const used: Cidr[] = []
    const add = (text: string): void => {
      const c = parseCidr(text)
      if (c && c.prefix > 0) used.push(c)
    }
    add(ingressLink)
    for (const n of this.#records.values()) for (const p of n.ipam.pools) add(p.subnet)
    for (const s of this.clusterSubnets()) add(s)
    // What the host already reaches: a subnet on top of it would cut it off.
    for (const r of await this.ctx.native.netRoutes(null)) add(r.to)
    for (const a of await this.ctx.native.netAddresses(null)) add(`${a.address}/${a.prefix}`)
    const subnet = chooseSubnet(defaultAddressPools, used)
    if (!subnet)
      throw unavailable(
        'noFreeSubnet',
        `no free subnet for network ${network}: all blocks of default-address-pool are in use; remove networks, add pools, or give --subnet`,
        { network },
      )
    return subnet
  }

  #checkBridgeName(record: NetworkRecord): void {
    if (record.driver !== 'bridge' || record.configOnly) return
    const name = bridgeName(record)
    if (name.length > 15 || /[\s/]/.test(name))
      throw invalid(
        'bridgeName',
        `bridge name "${name}" of network ${record.name}: at most 15 characters, no space or slash`,
      )
    const other = this.list().find((n) => n.driver === 'bridge' && !n.configOnly && bridgeName(n) === name)
    if (other)
      throw conflict('bridgeNameInUse', `bridge ${name} already belongs to network ${other.name}: choose another name`)
  }

  #admit(id: string, n: NetworkRecord): void {
    this.#records.set(id, n)
    const p = n.ipam.pools[0]
    if (!p || n.configOnly) return
    const pool = new AddressPool(parseCidr(p.subnet)!, p.range ? parseCidr(p.range) : null)
    for (const taken of [p.gateway!, ...Object.values(p.reserved ?? {})]) pool.allocate(taken)
    this.#pools.set(id, pool)
  }

  /** `isNew`: what is missing refuses the creation; at a later start it is only reported. */
  async #realize(n: NetworkRecord, isNew: boolean): Promise<void> {
    if (n.configOnly) return
    if (n.driver === 'macvlan') {
      try {
        await this.macvlan.ensure(n)
      } catch (e) {
        if (isNew) throw e
        this.ctx.log.warn('parent of a macvlan network is missing', {
          network: n.name,
          parent: parentOf(n),
          error: String(e),
        })
      }
    }
    if (n.driver !== 'bridge') return
    this.firewall.setBridge(bridgeState(n))
    await this.bridge.ensure(n)
  }

  #plain(name: string): NetworkRecord {
    return {
      id: newHexId(),
      name,
      driver: name === 'none' ? 'null' : name,
      scope: 'local',
      createdMs: this.ctx.clock.now(),
      ingress: false,
      driverState: {},
      internal: false,
      attachable: false,
      ipv6: false,
      ipam: { driver: 'default', options: {}, pools: [] },
      options: {},
      labels: {},
      configOnly: false,
      configFrom: null,
    }
  }

  /** The default network as the settings want it now: a change of them takes effect at the next start. */
  async #ensureDefault(): Promise<void> {
    const old = this.byName('bridge')
    const wanted = this.ctx.options.bridge === 'none' ? null : await this.#defaultBridge(old)
    if (!wanted) await this.#dropLeftBridge()
    if (JSON.stringify(wanted) === JSON.stringify(old)) return
    const place = (n: NetworkRecord): string =>
      JSON.stringify([bridgeName(n), n.ipam.pools[0]!.subnet, n.ipam.pools[0]!.gateway])
    if (old && (!wanted || place(wanted) !== place(old))) await this.bridge.destroy(old)
    if (!wanted) {
      await this.#store.delete(old!.id)
      this.#records.delete(old!.id)
      this.#pools.delete(old!.id)
      return
    }
    await this.#store.put(wanted.id, wanted)
    this.#admit(wanted.id, wanted)
  }

  async #defaultBridge(old: NetworkRecord | null): Promise<NetworkRecord> {
    const { bridge, icc, masquerade, mtu, publishAddress, fixedCidr, defaultGateway } = this.ctx.options
    const name = bridge || (await this.#defaultName(old))
    const pool = this.#complete('bridge', {
      ...(await this.#defaultBlock(name, old && bridgeName(old) === name ? old : null)),
      ...(fixedCidr ? { range: formatCidr(parseCidr(fixedCidr)!) } : {}),
      ...(defaultGateway ? { reserved: { [GATEWAY_OF_ENDPOINTS]: defaultGateway } } : {}),
    })
    return {
      ...(old ?? this.#plain('bridge')),
      ipam: { driver: 'default', options: {}, pools: [pool] },
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

  /** The usual one, unless another engine on this host had it first. */
  async #defaultName(old: NetworkRecord | null): Promise<string> {
    const spare = `${this.ctx.options.instance}0`
    if (old && [DEFAULT_BRIDGE, spare].includes(bridgeName(old))) return bridgeName(old)
    const link = (await this.ctx.native.netLinks(null)).find((l) => l.name === DEFAULT_BRIDGE)
    return link && !isOfShoal(this.ctx, link.alias) ? spare : DEFAULT_BRIDGE
  }

  /** Without a default network, the bridge that an earlier daemon left for it goes, unless it is in use. */
  async #dropLeftBridge(): Promise<void> {
    const links = await this.ctx.native.netLinks(null)
    const link = links.find((l) => l.name === DEFAULT_BRIDGE)
    if (link && isOfShoal(this.ctx, link.alias) && !links.some((l) => l.master === DEFAULT_BRIDGE))
      await this.ctx.native.netLink(null, [{ op: 'linkDel', name: DEFAULT_BRIDGE, tolerate: ['ENODEV'] }])
  }

  /** Subnet and gateway: of the existing bridge that is named, of bip, as they were, or a free one. */
  async #defaultBlock(name: string, old: NetworkRecord | null): Promise<IpamPool> {
    const { bip, bridge, fixedCidr } = this.ctx.options
    if (bridge !== '') return this.#blockOf(bridge, fixedCidr)
    if (bip) return { subnet: formatCidr(parseCidr(bip)!), gateway: bip.split('/')[0]! }
    const pool = old?.ipam.pools[0]
    // Without a record, one that an earlier daemon left keeps its address instead of getting another beside it.
    return pool ? { subnet: pool.subnet, gateway: pool.gateway! } : this.#addressOf(name, null)
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
      const block = a.dev === bridge ? parseCidr(`${a.address}/${a.prefix}`) : null
      return block ? [{ gateway: a.address, block }] : []
    })
    const chosen = own.find((a) => range && overlaps(a.block, range)) ?? own[0]
    return chosen
      ? { subnet: formatCidr(chosen.block), gateway: chosen.gateway }
      : { subnet: await this.#freeSubnet('bridge') }
  }
}
