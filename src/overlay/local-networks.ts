import { join } from 'node:path'
import { conflict, forbidden, invalid, newHexId, notFound } from '../common/index.js'
import type { OverlayContext } from './context.js'
import type { IpamPool, LocalNetworkSpec, NetworkRecord } from './contract.js'
import { DefaultNetwork } from './default-network.js'
import { BridgeDriver } from './drivers/bridge.js'
import { BRIDGE_OPTION, bridgeName, bridgeState } from './drivers/bridge-options.js'
import type { NetworkDriver } from './drivers/driver.js'
import { MacvlanDriver, parentOf } from './drivers/macvlan.js'
import { RemoteDriver } from './drivers/remote.js'
import type { HostFirewall } from './firewall/host-firewall.js'
import { Addresses } from './ipam/addresses.js'
import { isIpv4 } from './ipam/ip.js'
import { poolsOf, Subnets } from './ipam/subnets.js'
import type { PluginCalls } from './plugins/calls.js'
import type { PluginDebts } from './plugins/debts.js'
import { RemoteIpam } from './plugins/remote-ipam.js'
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

const BUILT_IN = ['bridge', 'macvlan']
const OWN_IPAM = ['default', 'null']

export interface LocalNetworksModules {
  readonly firewall: HostFirewall
  readonly calls: PluginCalls
  readonly debts: PluginDebts
  /** Blocks that the cluster's networks use, to be left alone. */
  clusterSubnets(): readonly string[]
}

/** The networks of this host only: their records on disk, their drivers, their addresses. */
export class LocalNetworks {
  readonly #records = new Map<string, NetworkRecord>()
  /** Being made or removed, perhaps by a plugin that takes its time: their names and blocks are not free. */
  readonly #changing = new Map<string, NetworkRecord>()
  readonly #store: RecordStore<NetworkRecord>
  readonly #subnets: Subnets
  readonly #ipam: RemoteIpam
  readonly #default: DefaultNetwork
  readonly addresses: Addresses
  readonly bridge: BridgeDriver
  readonly macvlan: MacvlanDriver
  readonly remote: RemoteDriver

  constructor(
    private readonly ctx: OverlayContext,
    private readonly m: LocalNetworksModules,
  ) {
    this.#store = new RecordStore(join(ctx.options.root, 'local'), true, ctx.log)
    this.#subnets = new Subnets(ctx, () => [...this.#records.values(), ...this.#changing.values()], m.clusterSubnets)
    this.#ipam = new RemoteIpam(m.calls, m.debts)
    this.#default = new DefaultNetwork(ctx, this.#subnets)
    this.addresses = new Addresses(this.#ipam)
    this.bridge = new BridgeDriver(ctx)
    this.macvlan = new MacvlanDriver(ctx)
    this.remote = new RemoteDriver(ctx, m.calls, m.debts)
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

  /** null for host and none: nothing to make. */
  driver(n: NetworkRecord): NetworkDriver | null {
    if (n.driver === 'bridge') return this.bridge
    if (n.driver === 'macvlan') return this.macvlan
    return PREDEFINED.includes(n.name) ? null : this.remote
  }

  /** Plugins that there are networks of. */
  networkPlugins(): ReadonlySet<string> {
    return new Set(this.list().flatMap((n) => (!n.configOnly && this.driver(n) === this.remote ? [n.driver] : [])))
  }

  /**
   * In the background, once plugins may be asked: those that forget with us are told again what they lent. `addressesOf`: of
   * the network's endpoints.
   */
  async replay(addressesOf: (id: string) => readonly string[]): Promise<void> {
    for (const n of this.list()) {
      if (n.configOnly || OWN_IPAM.includes(n.ipam.driver)) continue
      await this.#ipam.replay(n, addressesOf(n.id)).catch((error: unknown) =>
        this.ctx.log.warn('an IPAM plugin was not told again what it lent', {
          network: n.name,
          error: String(error),
        }),
      )
    }
  }

  /** The whole creation is undone when its last step fails. */
  async create(given: LocalNetworkSpec, as: CreatedAs = {}): Promise<NetworkRecord> {
    const id = as.clusterId ?? newHexId()
    try {
      const record = await this.#claim(id, given, as)
      if (!record.configOnly && this.driver(record) === this.remote) await this.remote.createNetwork(record)
      return await this.#locked(() => this.#add(record))
    } catch (e) {
      await this.m.debts.release(id)
      throw e
    } finally {
      this.#changing.delete(id)
    }
  }

  /** The record of a network to be, whose name and blocks nobody else can take from here on. */
  async #claim(id: string, given: LocalNetworkSpec, as: CreatedAs): Promise<NetworkRecord> {
    const spec = this.#checked(given, as)
    // Plugins are asked outside the lock: one that hangs is in nobody else's way.
    const lent = spec.configOnly || OWN_IPAM.includes(spec.ipam.driver) ? null : await this.#ipam.requestPools(spec, id)
    return this.#locked(async () => {
      this.#checked(given, as)
      const record: NetworkRecord = {
        ...spec,
        id,
        scope: as.clusterId ? 'swarm' : 'local',
        createdMs: this.ctx.clock.now(),
        ingress: false,
        driverState: {},
        ipam: {
          ...spec.ipam,
          pools: await this.#pools(spec, lent),
          ...(spec.ipv6 || spec.configOnly ? {} : { idlePools: poolsOf(spec.ipam.pools, 6) }),
        },
      }
      this.#checkBridgeName(record)
      this.#changing.set(id, record)
      return record
    })
  }

  async #pools(spec: LocalNetworkSpec, lent: readonly IpamPool[] | null): Promise<readonly IpamPool[]> {
    if (spec.configOnly) return spec.ipam.pools
    if (spec.ipam.driver === 'null') return [{ subnet: '0.0.0.0/0' }, ...(spec.ipv6 ? [{ subnet: '::/0' }] : [])]
    if (!lent) return this.#subnets.plan(spec)
    if (BUILT_IN.includes(spec.driver)) this.#subnets.admit(spec, lent)
    return lent
  }

  #locked<T>(work: () => Promise<T>): Promise<T> {
    return this.ctx.locks.run('local-networks', work)
  }

  /** `inUse`: how many endpoints it has; asked under the lock. */
  async remove(id: string, inUse: () => number): Promise<void> {
    const n = await this.#locked(() => this.#withdraw(id, inUse))
    try {
      // A plugin that does not let go of it keeps it.
      await this.remote.deleteNetwork(n).catch((caught: unknown) =>
        this.#locked(async () => {
          await this.#store.put(id, n)
          this.#records.set(id, n)
          throw caught
        }),
      )
      this.addresses.drop(id)
      if (n.driver === 'bridge' && !n.configOnly) await this.#locked(() => this.#destroyBridge(n))
    } finally {
      this.#changing.delete(id)
    }
    await this.m.debts.release(id)
  }

  /** The record goes first: nobody joins it from here on, and what a crash leaves of it the next start removes. */
  async #withdraw(id: string, inUse: () => number): Promise<NetworkRecord> {
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
    this.#records.delete(id)
    this.#changing.set(id, n)
    try {
      await this.#store.delete(id)
    } catch (caught) {
      this.#records.set(id, n)
      this.#changing.delete(id)
      throw caught
    }
    return n
  }

  async #destroyBridge(n: NetworkRecord): Promise<void> {
    this.m.firewall.dropBridge(bridgeName(n))
    await this.m.firewall.apply()
    await this.bridge.destroy(n)
  }

  /** What can be told of a wish without asking anybody; with the settings that it takes from a config-only network. */
  #checked(given: LocalNetworkSpec, as: CreatedAs): LocalNetworkSpec {
    if (!NAME.test(given.name))
      throw invalid('networkName', `network name "${given.name}": use 1 to 255 characters, not only spaces`)
    if (PREDEFINED.includes(given.name))
      throw forbidden('predefinedNetwork', `network ${given.name} exists on every host: choose another name`)
    if (!as.sameName && [...this.list(), ...this.#changing.values()].some((n) => n.name === given.name))
      throw conflict('networkNameInUse', `network with name ${given.name} already exists`, { network: given.name })
    const configured = this.#configured(given)
    const spec = { ...configured, ipam: { ...configured.ipam, driver: configured.ipam.driver || 'default' } }
    if (spec.driver === 'host' || spec.driver === 'null' || spec.driver === 'none')
      throw forbidden('singleInstance', `only one network of driver "${spec.driver}" can exist: use the one that does`)
    if (spec.driver === 'bridge') checkBridge(spec)
    if (spec.driver === 'macvlan' && !spec.configOnly && !spec.options.parent)
      throw invalid('noParent', `network ${spec.name}: macvlan needs the option parent=INTERFACE`)
    return spec
  }

  async #add(record: NetworkRecord): Promise<NetworkRecord> {
    await this.#store.put(record.id, record)
    try {
      await this.#realize(record, true)
      await this.m.firewall.apply()
    } catch (e) {
      await this.#undo(record)
      throw e
    }
    // From here on it is found, and joined: what an endpoint needs of it is there.
    this.#admit(record.id, record)
    return record
  }

  async #undo(n: NetworkRecord): Promise<void> {
    await this.#store.delete(n.id)
    if (n.driver !== 'bridge' || n.configOnly) return
    try {
      await this.#destroyBridge(n)
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

  #checkBridgeName(record: NetworkRecord): void {
    if (record.driver !== 'bridge' || record.configOnly) return
    const name = bridgeName(record)
    if (name.length > 15 || /[\s/]/.test(name))
      throw invalid(
        'bridgeName',
        `bridge name "${name}" of network ${record.name}: at most 15 characters, no space or slash`,
      )
    const all = [...this.list(), ...this.#changing.values()]
    const other = all.find((n) => n.driver === 'bridge' && !n.configOnly && bridgeName(n) === name)
    if (other)
      throw conflict('bridgeNameInUse', `bridge ${name} already belongs to network ${other.name}: choose another name`)
  }

  #admit(id: string, n: NetworkRecord): void {
    this.#records.set(id, n)
    this.addresses.admit(n)
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
    this.m.firewall.setBridge(bridgeState(n))
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
    const isWanted = this.ctx.options.bridge !== 'none'
    const wanted = isWanted ? await this.#default.wanted(old, () => this.#plain('bridge')) : null
    if (!wanted) await this.#default.dropLeftBridge()
    if (JSON.stringify(wanted) === JSON.stringify(old)) return
    const place = (n: NetworkRecord): string =>
      JSON.stringify([bridgeName(n), n.ipam.pools.map((p) => [p.subnet, p.gateway])])
    if (old && (!wanted || place(wanted) !== place(old))) await this.bridge.destroy(old)
    if (!wanted) {
      await this.#store.delete(old!.id)
      this.#records.delete(old!.id)
      this.addresses.drop(old!.id)
      return
    }
    await this.#store.put(wanted.id, wanted)
    this.#admit(wanted.id, wanted)
  }
}

/** A bridge has one subnet of each family, and a gateway in it. */
function checkBridge(spec: LocalNetworkSpec): void {
  const source = spec.options[BRIDGE_OPTION.sourceAddress]
  if (source && !isIpv4(source))
    throw invalid('hostAddress', `network ${spec.name}: ${BRIDGE_OPTION.sourceAddress}=${source} is no IPv4 address`)
  for (const family of [4, 6] as const)
    if (poolsOf(spec.ipam.pools, family).length > 1)
      throw invalid('severalSubnets', `network ${spec.name}: a bridge network has one IPv${family} subnet`)
  if (spec.ipam.driver === 'null' && !spec.configOnly)
    throw invalid('noGateway', `network ${spec.name}: a bridge needs addresses, which IPAM driver "null" has none of`)
}
