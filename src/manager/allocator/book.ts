import type { Cluster, IPAMConfig, Network, Node, PortConfig, Service, Task } from '#proto'
import { IPAMOptions, PublishMode } from '#proto'
import { AddressPool } from './address-pool.js'
import { parseCidr } from './cidr.js'
import { SubnetPool } from './subnet-pool.js'

/** VXLAN ids of overlays: Swarm's lowest, and the highest that 24 bits hold. */
const VNI_MIN = 4096
const VNI_MAX = 2 ** 24 - 1
/** Published ports that the allocator chooses from. */
export const PORT_MIN = 30_000
export const PORT_MAX = 32_767
/** Bounds of a node's ingress index (it is used in packet marks). */
const INDEX_MAX = 65_000

export const VNI_OPTION = 'com.docker.network.driver.overlay.vxlanid_list'
/** Clients are told how addresses are lent: the one after the last. */
const SERIAL_OPTION = 'com.docker.network.ipam.serial'
const DEFAULT_POOL = ['10.0.0.0/8']
const DEFAULT_SUBNET_BITS = 24

export type Outcome<T> = { readonly ok: true; readonly value: T } | { readonly ok: false; readonly reason: string }
const no = (reason: string): { readonly ok: false; readonly reason: string } => ({ ok: false, reason })
const yes = <T>(value: T): Outcome<T> => ({ ok: true, value })

interface LentNetwork {
  readonly name: string
  readonly pools: readonly AddressPool[]
  readonly subnets: readonly string[]
  readonly vnis: readonly number[]
}

/**
 * What is lent in the cluster: VNIs, subnets, addresses, ports, node indexes. It does no I/O and knows no store: it is filled from
 * objects, so any manager that has applied the same log has the same book, and nothing is lent twice.
 */
export class AllocationBook {
  readonly #networks = new Map<string, LentNetwork>()
  readonly #subnets = new SubnetPool()
  readonly #vnis = new Set<number>()
  /** Owner (task or service) → network and CIDR of each address it has. */
  readonly #addresses = new Map<string, Map<string, string>>()
  /** "protocol/port" → service. */
  readonly #ports = new Map<string, string>()
  readonly #portsOfService = new Map<string, Set<string>>()
  readonly #indexes = new Map<string, number>()
  readonly #indexesUsed = new Set<number>()
  #nextVni = VNI_MIN
  #nextPort = PORT_MIN

  constructor() {
    this.#subnets.configure(DEFAULT_POOL, DEFAULT_SUBNET_BITS)
  }

  // ---------------------------------------------------------------- what the store says

  noteCluster(cluster: Cluster): void {
    this.#subnets.configure(
      cluster.defaultAddressPool.length > 0 ? cluster.defaultAddressPool : DEFAULT_POOL,
      cluster.subnetSize || DEFAULT_SUBNET_BITS,
    )
  }

  hasNetwork(id: string): boolean {
    return this.#networks.has(id)
  }

  /** Idempotent; a network without driver state has nothing yet. */
  noteNetwork(network: Network): void {
    if (network.driverState === null || this.#networks.has(network.id)) return
    const configs = network.ipam?.configs.filter((c) => parseCidr(c.subnet) !== null) ?? []
    for (const c of configs) this.#subnets.use(c.subnet)
    for (const vni of network.vnis) this.#vnis.add(vni)
    this.#networks.set(network.id, {
      name: nameOf(network),
      pools: configs.map((c) => new AddressPool(c)),
      subnets: configs.map((c) => c.subnet),
      vnis: network.vnis,
    })
  }

  forgetNetwork(id: string): void {
    const network = this.#networks.get(id)
    if (network === undefined) return
    for (const subnet of network.subnets) this.#subnets.release(subnet)
    for (const vni of network.vnis) this.#vnis.delete(vni)
    this.#networks.delete(id)
  }

  /**
   * Makes the owner have exactly these addresses, as the store says. The store's word wins: returns the owners from whom one was
   * taken, whose own writes must not happen any more.
   */
  setAddresses(owner: string, wanted: readonly (readonly [networkId: string, address: string])[]): readonly string[] {
    this.releaseAddresses(owner)
    const losers: string[] = []
    for (const [networkId, address] of wanted) {
      if (this.#claim(owner, networkId, address)) continue
      const pool = this.#networks.get(networkId)?.pools.find((p) => p.contains(address))
      const loser = pool?.ownerOf(address) ?? null
      if (loser === null) continue
      this.#give(loser, networkId, address)
      losers.push(loser)
      this.#claim(owner, networkId, address)
    }
    return losers
  }

  /** Returns whether anything became free. */
  releaseAddresses(owner: string): boolean {
    const held = this.#addresses.get(owner)
    if (held === undefined) return false
    this.#addresses.delete(owner)
    for (const [address, networkId] of held)
      for (const pool of this.#networks.get(networkId)?.pools ?? []) pool.release(address, owner)
    return held.size > 0
  }

  setPorts(serviceId: string, ports: readonly PortConfig[]): void {
    this.releasePorts(serviceId)
    for (const p of ports)
      if (p.publishMode === PublishMode.INGRESS && p.publishedPort !== 0) this.#lendPort(serviceId, portKey(p))
  }

  releasePorts(serviceId: string): void {
    for (const key of this.#portsOfService.get(serviceId) ?? [])
      if (this.#ports.get(key) === serviceId) this.#ports.delete(key)
    this.#portsOfService.delete(serviceId)
  }

  noteNode(node: Node): void {
    if (node.ingressIndex === 0) return
    const present = this.#indexes.get(node.id)
    if (present !== undefined) this.#indexesUsed.delete(present)
    this.#indexes.set(node.id, node.ingressIndex)
    this.#indexesUsed.add(node.ingressIndex)
  }

  forgetNode(id: string): void {
    const index = this.#indexes.get(id)
    if (index === undefined) return
    this.#indexes.delete(id)
    this.#indexesUsed.delete(index)
  }

  // ---------------------------------------------------------------- lending

  /** Subnets, gateways and VNIs for an overlay. On a refusal nothing was taken. */
  takeNetwork(network: Network, isOverlay: boolean): Outcome<Network> {
    const spec = network.spec
    const driver = spec?.driverConfig
    const wanted = spec?.ipam?.configs ?? []
    if (!isOverlay)
      return yes({
        ...network,
        driverState: { name: driver?.name ?? '', options: driver?.options ?? {} },
        ipam: spec?.ipam ?? IPAMOptions.create(),
      })
    const hasV4 = wanted.some((c) => c.subnet === '' || parseCidr(c.subnet)?.family === 4)
    const asked: readonly IPAMConfig[] = hasV4
      ? wanted
      : [{ subnet: '', range: '', gateway: '', reserved: {} }, ...wanted]
    const configs: IPAMConfig[] = []
    const vnis: number[] = []
    const undo = (reason: string): Outcome<Network> => {
      for (const c of configs) this.#subnets.release(c.subnet)
      for (const vni of vnis) this.#vnis.delete(vni)
      return no(reason)
    }
    const askedVnis = (driver?.options[VNI_OPTION] ?? '')
      .split(',')
      .filter((v) => /^\d+$/.test(v))
      .map(Number)
    for (const config of asked) {
      let subnet: string | null = config.subnet
      if (subnet === '') {
        subnet = this.#subnets.take()
        if (subnet === null)
          return undo(`no free subnet for network ${nameOf(network)}: the default address pools are used up`)
      } else {
        if (parseCidr(subnet) === null) return undo(`subnet ${subnet} of network ${nameOf(network)} is malformed`)
        if (!this.#subnets.isFree(subnet))
          return undo(`subnet ${subnet} of network ${nameOf(network)} overlaps with another network of the cluster`)
        this.#subnets.use(subnet)
      }
      const allocated = { ...config, subnet }
      configs.push({ ...allocated, gateway: new AddressPool(allocated).gateway })
      const vni = this.#takeVni(askedVnis[vnis.length])
      if (vni === null) return undo(`no free VXLAN id for network ${nameOf(network)}`)
      vnis.push(vni)
    }
    return yes({
      ...network,
      driverState: {
        name: driver?.name || 'overlay',
        options: { ...(driver?.options ?? {}), [VNI_OPTION]: vnis.join(',') },
      },
      ipam: {
        driver: {
          name: spec?.ipam?.driver?.name || 'default',
          options: { ...spec?.ipam?.driver?.options, [SERIAL_OPTION]: 'true' },
        },
        configs,
      },
      vnis,
    })
  }

  /** Gives back what takeNetwork took for a write that did not happen. */
  returnNetwork(network: Network): void {
    for (const c of network.ipam?.configs ?? []) this.#subnets.release(c.subnet)
    for (const vni of network.vnis) this.#vnis.delete(vni)
  }

  /** One address of each family that the network has. On a refusal nothing was taken. */
  takeAddresses(owner: string, networkId: string, asked: readonly string[] = []): Outcome<readonly string[]> {
    const network = this.#networks.get(networkId)
    if (network === undefined) return no(`network ${networkId} has no addresses yet`)
    const taken: string[] = []
    const undo = (reason: string): Outcome<readonly string[]> => {
      for (const address of taken) this.#give(owner, networkId, address)
      return no(reason)
    }
    for (const address of asked) {
      const pool = network.pools.find((p) => p.contains(address))
      if (pool === undefined) return undo(`address ${address} is not in a subnet of network ${network.name}`)
      const cidr = `${address.split('/')[0]}/${pool.subnet.bits}`
      if (!this.#claim(owner, networkId, cidr)) return undo(`address ${address} is in use in network ${network.name}`)
      taken.push(cidr)
    }
    for (const family of [4, 6] as const) {
      const pools = network.pools.filter((p) => p.subnet.family === family)
      if (pools.length === 0 || taken.some((a) => pools.some((p) => p.contains(a)))) continue
      const address = firstOf(pools, (p) => p.take(owner))
      if (address === null) {
        const used = pools.reduce((sum, p) => sum + p.usage.used, 0)
        const total = pools.reduce((sum, p) => sum + p.usage.total, 0)
        return undo(`no free address in network ${network.name} (${used} of ${total} in use)`)
      }
      this.#record(owner, networkId, address)
      taken.push(address)
    }
    return yes(taken)
  }

  giveAddress(owner: string, networkId: string, address: string): void {
    this.#give(owner, networkId, address)
  }

  /** The ports as published: fixed ones are checked, others keep what they had or get a free one. All or none. */
  takePorts(service: Service): Outcome<PortConfig[]> {
    const asked = service.spec?.endpoint?.ports ?? []
    const had = service.endpoint?.ports ?? []
    const before = [...(this.#portsOfService.get(service.id) ?? [])]
    this.releasePorts(service.id)
    const undo = (reason: string): Outcome<PortConfig[]> => {
      this.releasePorts(service.id)
      for (const key of before) this.#lendPort(service.id, key)
      return no(reason)
    }
    const ports: PortConfig[] = []
    // Fixed ports first: a chosen one must not sit on a port that the same service asks for by number.
    for (const p of asked)
      if (p.publishMode === PublishMode.INGRESS && p.publishedPort !== 0) {
        const owner = this.#ports.get(portKey(p))
        if (owner !== undefined) return undo(`port ${p.publishedPort} is already in use by service ${owner}`)
        this.#lendPort(service.id, portKey(p))
      }
    for (const p of asked) {
      if (p.publishMode !== PublishMode.INGRESS || p.publishedPort !== 0) {
        ports.push(p)
        continue
      }
      const kept = had.find(
        (h) =>
          h.publishMode === PublishMode.INGRESS &&
          h.protocol === p.protocol &&
          h.targetPort === p.targetPort &&
          h.name === p.name &&
          h.publishedPort >= PORT_MIN &&
          h.publishedPort <= PORT_MAX &&
          !this.#ports.has(portKey(h)),
      )
      const publishedPort = kept?.publishedPort ?? this.#freePort(p)
      if (publishedPort === null) return undo(`no free port between ${PORT_MIN} and ${PORT_MAX}`)
      const port = { ...p, publishedPort }
      this.#lendPort(service.id, portKey(port))
      ports.push(port)
    }
    return yes(ports)
  }

  takeIndex(nodeId: string): number | null {
    const present = this.#indexes.get(nodeId)
    if (present !== undefined) return present
    for (let index = 1; index <= INDEX_MAX; index++) {
      if (this.#indexesUsed.has(index)) continue
      this.#indexes.set(nodeId, index)
      this.#indexesUsed.add(index)
      return index
    }
    return null
  }

  // ---------------------------------------------------------------- inside

  #claim(owner: string, networkId: string, address: string): boolean {
    const pool = this.#networks.get(networkId)?.pools.find((p) => p.contains(address))
    // An address of a network that is gone already binds nobody.
    if (pool === undefined) return true
    if (!pool.claim(address, owner)) return false
    this.#record(owner, networkId, address)
    return true
  }

  #record(owner: string, networkId: string, address: string): void {
    const held = this.#addresses.get(owner)
    if (held) held.set(address, networkId)
    else this.#addresses.set(owner, new Map([[address, networkId]]))
  }

  #give(owner: string, networkId: string, address: string): void {
    for (const pool of this.#networks.get(networkId)?.pools ?? []) pool.release(address, owner)
    const held = this.#addresses.get(owner)
    held?.delete(address)
    if (held?.size === 0) this.#addresses.delete(owner)
  }

  #takeVni(asked: number | undefined): number | null {
    if (asked !== undefined && asked <= VNI_MAX && !this.#vnis.has(asked)) {
      this.#vnis.add(asked)
      return asked
    }
    for (let i = VNI_MIN; i <= VNI_MAX; i++) {
      const vni = this.#nextVni
      this.#nextVni = vni >= VNI_MAX ? VNI_MIN : vni + 1
      if (this.#vnis.has(vni)) continue
      this.#vnis.add(vni)
      return vni
    }
    return null
  }

  #lendPort(serviceId: string, key: string): void {
    this.#ports.set(key, serviceId)
    const keys = this.#portsOfService.get(serviceId)
    if (keys) keys.add(key)
    else this.#portsOfService.set(serviceId, new Set([key]))
  }

  #freePort(port: PortConfig): number | null {
    for (let i = PORT_MIN; i <= PORT_MAX; i++) {
      const publishedPort = this.#nextPort
      this.#nextPort = publishedPort >= PORT_MAX ? PORT_MIN : publishedPort + 1
      if (!this.#ports.has(portKey({ ...port, publishedPort }))) return publishedPort
    }
    return null
  }
}

const portKey = (p: PortConfig): string => `${p.protocol}/${p.publishedPort}`
export const nameOf = (network: Network): string => network.spec?.annotations?.name || network.id
const firstOf = <T, R>(items: readonly T[], fn: (item: T) => R | null): R | null => {
  for (const item of items) {
    const result = fn(item)
    if (result !== null) return result
  }
  return null
}

/** Addresses that a task has, by network. */
export const addressesOf = (task: Task): readonly (readonly [string, string])[] =>
  task.networks.flatMap((a) => a.addresses.map((address) => [a.network?.id ?? '', address] as const))
