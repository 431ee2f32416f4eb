import { invalid, newHexId, unavailable } from '../../common/index.js'
import type { ClusterSide } from '../cluster-side.js'
import type { OverlayContext } from '../context.js'
import type { JoinRequest, NetworkRecord } from '../contract.js'
import type { Attachment, NetworkDriver } from '../drivers/driver.js'
import { addressesOf } from '../drivers/interface.js'
import { type Lent, lentIn } from '../ipam/addresses.js'
import { contains, macOf, parseCidr, parseIp } from '../ipam/ip.js'
import type { LocalNetworks } from '../local-networks.js'
import { isNativeError } from '../native.js'
import type { PluginDebts } from '../plugins/debts.js'
import { hasNames } from './discovery.js'
import { dnsNamesOf, nextInterface } from './gateway.js'
import type { Live } from './live.js'

/** Chooses an interface's name; Docker's own word for it. */
const IFNAME_OPTION = 'com.docker.network.endpoint.ifname'
const LINK_LOCAL = [parseCidr('169.254.0.0/16')!, parseCidr('fe80::/10')!]

export interface EndpointsModules {
  readonly local: LocalNetworks
  readonly cluster: ClusterSide
  readonly debts: PluginDebts
  save(s: Live): Promise<void>
  /** The names of the network are no longer what they were. */
  changed(networkId: string): void
}

/** The endpoints of sandboxes: their addresses and interfaces, made and undone. Each is on disk before the kernel knows of it. */
export class Endpoints {
  /** Links on their way out. */
  readonly #going = new Set<Promise<void>>()

  constructor(
    private readonly ctx: OverlayContext,
    private readonly m: EndpointsModules,
  ) {}

  /** Links that are still being removed. */
  async settled(): Promise<void> {
    await Promise.all(this.#going)
  }

  async attach(s: Live, network: NetworkRecord, request: JoinRequest, hidden: boolean): Promise<Attachment> {
    const driver = this.driver(network)
    const interfaceName = driver ? (request.driverOptions?.[IFNAME_OPTION] ?? nextInterface(s.attachments)) : ''
    if (interfaceName.length > 15)
      throw invalid('interfaceName', `interface name "${interfaceName}": at most 15 characters`)
    const linkLocalAddresses = driver ? (request.linkLocalAddresses ?? []) : []
    for (const address of linkLocalAddresses) checkLinkLocal(address)
    const endpointId = newHexId()
    const isRemote = driver === this.m.local.remote
    let addresses: Addressed
    try {
      addresses = driver ? await this.#lend(s, network, endpointId, request) : UNADDRESSED
    } catch (e) {
      await this.m.debts.release(endpointId)
      throw e
    }
    const { v4, v6, mac } = addresses
    const aliases = request.aliases ?? []
    let attachment: Attachment = {
      driver: network.driver,
      hostLink: driver && network.driver !== 'macvlan' && !isRemote ? `veth${endpointId.slice(0, 10)}` : '',
      gatewayPriority: request.gatewayPriority ?? 0,
      ...(request.links ? { links: lowerCased(request.links) } : {}),
      ...(linkLocalAddresses.length > 0 ? { linkLocalAddresses } : {}),
      hidden,
      record: {
        networkId: network.id,
        endpointId,
        sandboxId: s.spec.id,
        name: s.spec.name,
        macAddress: mac,
        ipv4Address: v4.ip,
        ipv4PrefixLength: v4.prefix,
        gateway: network.internal || isRemote ? '' : v4.gateway,
        ipv6Address: v6.ip,
        ipv6PrefixLength: v6.prefix,
        ipv6Gateway: network.internal || isRemote ? '' : v6.gateway,
        aliases,
        dnsNames: hidden || !hasNames(network) ? [] : dnsNamesOf(s.spec, aliases),
        interfaceName,
      },
    }
    s.attachments = [...s.attachments, attachment]
    await this.m.save(s)
    try {
      const made = await driver?.attach(network, attachment, s.netns!)
      if (made) attachment = await this.become(s, attachment, made)
    } catch (e) {
      await this.detach(s, attachment)
      if (!isNativeError(e)) throw e
      throw unavailable(
        'endpointSetup',
        `cannot connect ${s.spec.name} to network ${network.name}: ${e.message}`,
        { sandbox: s.spec.id, network: network.name },
        { cause: e },
      )
    }
    this.m.changed(network.id)
    return attachment
  }

  /** What its driver has made of it. */
  async become(s: Live, from: Attachment, to: Attachment): Promise<Attachment> {
    if (from === to) return from
    s.attachments = s.attachments.map((x) => (x === from ? to : x))
    await this.m.save(s)
    return to
  }

  async detach(s: Live, a: Attachment): Promise<void> {
    await this.#takeDown(s, a)
    await this.#free(a)
    s.attachments = s.attachments.filter((x) => x !== a)
    await this.m.save(s)
  }

  /**
   * Of a sandbox that goes: the kernel takes ten milliseconds and more to remove a link, and nobody waits for that where the
   * endpoint can be muted first. A link that a crash leaves is removed at the next start.
   */
  async letGo(s: Live, a: Attachment): Promise<void> {
    const network = this.networkOrNull(a.record.networkId)
    const driver = network && this.driver(network)
    if (
      driver?.mute &&
      (await driver.mute(a, s.netns!).then(
        () => true,
        () => false,
      ))
    ) {
      const going: Promise<void> = this.#takeDown(s, a)
        .catch((e) => this.ctx.log.error('a link could not be removed', { link: a.hostLink, error: String(e) }))
        .finally(() => this.#going.delete(going))
      this.#going.add(going)
    } else await this.#takeDown(s, a)
    await this.#free(a)
  }

  async #takeDown(s: Live, a: Attachment): Promise<void> {
    const network = this.networkOrNull(a.record.networkId)
    if (network) await this.driver(network)?.detach(network, a, s.netns!)
    else if (a.hostLink !== '')
      await this.ctx.native.netLink(null, [{ op: 'linkDel', name: a.hostLink, tolerate: ['ENODEV'] }])
  }

  async #free(a: Attachment): Promise<void> {
    const { networkId, endpointId } = a.record
    for (const { address } of addressesOf(a)) this.m.local.addresses.release(networkId, address)
    this.m.changed(networkId)
    await this.m.debts.release(endpointId)
  }

  /** After a restart. */
  claim(s: Live): void {
    for (const a of s.attachments) {
      const n = this.m.local.get(a.record.networkId)
      if (n) for (const { address } of addressesOf(a)) this.m.local.addresses.claim(n, address)
    }
  }

  async #lend(s: Live, n: NetworkRecord, endpointId: string, r: JoinRequest): Promise<Addressed> {
    if (n.driver === 'overlay') {
      const wanted = r.ipv4Address?.split('/')[0]
      if (!wanted)
        throw invalid('addressMissing', `network ${n.name} belongs to the cluster: its managers choose addresses`, {
          network: n.name,
        })
      return { v4: lentIn(n, wanted), v6: NOTHING, mac: macOf(wanted) }
    }
    const { addresses } = this.m.local
    const about = { endpointId, container: s.spec.name }
    const given = r.macAddress ?? ''
    const v4 = await addresses.lend(n, { ...about, family: 4, wanted: r.ipv4Address, mac: given })
    // A plugin chooses the MAC address itself, unless the user does.
    const random = `02:42:${endpointId.slice(0, 8).replace(/..(?=.)/g, '$&:')}`
    const made = this.driver(n) === this.m.local.remote ? '' : v4.ip === '' ? random : macOf(v4.ip)
    const mac = (given || made).toLowerCase()
    try {
      const v6 = await addresses.lend(n, { ...about, family: 6, wanted: n.ipv6 ? r.ipv6Address : '', mac })
      return { v4, v6, mac }
    } catch (e) {
      if (v4.ip !== '') addresses.release(n.id, v4.ip)
      throw e
    }
  }

  /** null for host and none: nothing to make. */
  driver(n: NetworkRecord): NetworkDriver | null {
    return n.driver === 'overlay' ? this.m.cluster.driver : this.m.local.driver(n)
  }

  networkOrNull(id: string): NetworkRecord | null {
    return this.m.local.get(id) ?? this.m.cluster.get(id)
  }
}

interface Addressed {
  readonly v4: Lent
  readonly v6: Lent
  readonly mac: string
}

const NOTHING: Lent = { ip: '', prefix: 0, gateway: '' }
const UNADDRESSED: Addressed = { v4: NOTHING, v6: NOTHING, mac: '' }

function checkLinkLocal(address: string): void {
  const ip = parseIp(address)
  if (!ip || !LINK_LOCAL.some((block) => contains(block, ip)))
    throw invalid('linkLocalAddress', `invalid link local IP address: ${address}: use 169.254.0.0/16 or fe80::/10`, {
      address,
    })
}

const lowerCased = (links: Readonly<Record<string, string>>): Record<string, string> =>
  Object.fromEntries(Object.entries(links).map((pair) => pair.map((name) => name.toLowerCase())))
