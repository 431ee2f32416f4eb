import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { conflict, forbidden, invalid, newHexId, notFound, unavailable } from '../common/index.js'
import type { ClusterSide } from './cluster-side.js'
import type { OverlayContext } from './context.js'
import type {
  EndpointRecord,
  InterfaceStats,
  JoinRequest,
  NetworkRecord,
  PortPublication,
  Sandbox,
  SandboxLink,
  SandboxSpec,
} from './contract.js'
import { BRIDGE_OPTION } from './drivers/bridge-options.js'
import type { Attachment, NetworkDriver } from './drivers/driver.js'
import type { HostFirewall } from './firewall/host-firewall.js'
import type { OpenWay } from './firewall/host-table.js'
import type { PortReservations } from './firewall/port-reservations.js'
import { contains, macOf, parseCidr, parseIpv4 } from './ipam/ipv4.js'
import { GATEWAY_OF_ENDPOINTS, type LocalNetworks } from './local-networks.js'
import { hasErrno, isNativeError } from './native.js'
import { RecordStore } from './record-store.js'
import { Discovery, hasNames } from './sandbox/discovery.js'
import { chooseGateway, dnsNamesOf, nextInterface } from './sandbox/gateway.js'
import { type Live, ownsNetns, type SandboxRecord } from './sandbox/live.js'
import { SandboxFiles } from './sandbox/sandbox-files.js'

/** Chooses an interface's name; Docker's own word for it. */
const IFNAME_OPTION = 'com.docker.network.endpoint.ifname'

const NOT_SERVED = { resolver: null, table: null, namesInFile: null }

/** Network namespaces of containers, their endpoints, published ports, names. All changes of one run in order. */
export class Sandboxes {
  readonly #live = new Map<string, Live>()
  readonly #store: RecordStore<SandboxRecord>
  readonly #files: SandboxFiles
  readonly #discovery: Discovery
  readonly #netnsDir: string
  /** Links on their way out. */
  readonly #going = new Set<Promise<void>>()

  constructor(
    private readonly ctx: OverlayContext,
    private readonly local: LocalNetworks,
    private readonly cluster: ClusterSide,
    private readonly firewall: HostFirewall,
    private readonly reservations: PortReservations,
  ) {
    this.#store = new RecordStore(join(ctx.options.runDir, 'sandboxes'), false, ctx.log)
    this.#files = new SandboxFiles(ctx)
    this.#discovery = new Discovery(ctx, {
      cluster,
      files: this.#files,
      networkOf: (id) => this.#networkOrNull(id),
      attachmentsOf: (id) => this.attachmentsOf(id),
    })
    this.#netnsDir = join(ctx.options.runDir, 'netns')
  }

  // ------------------------------------------------------------ start, stop

  /** Takes the sandboxes of `keep` up again as they are; the others are taken down. Networks must be there. */
  async start(keep: ReadonlySet<string>): Promise<void> {
    await mkdir(this.#netnsDir, { recursive: true, mode: 0o700 })
    for (const [id, record] of await this.#store.load()) this.#live.set(id, { ...record, ...NOT_SERVED })
    const dead: string[] = []
    for (const [id, s] of this.#live) {
      const alive =
        keep.has(id) && (s.netns === null || typeof s.spec.mode === 'object' || (await this.#isBound(s.netns)))
      if (!alive) {
        dead.push(id)
        continue
      }
      this.#claimAddresses(s)
      // All at once, before anything is written: a port of a live container is never missing from the table.
      this.firewall.setForwards(id, s.ports, this.#target(s))
      this.firewall.setWays(id, this.#ways(s))
    }
    for (const id of dead) await this.delete(id)
    await Promise.all([...this.#live.values()].map((s) => this.#resume(s)))
    await this.firewall.apply()
  }

  /** Closes this process's sockets; namespaces, links and tables stay. */
  async stop(): Promise<void> {
    await Promise.all(this.#going)
    for (const s of this.#live.values()) {
      s.resolver?.close()
      this.reservations.release(s.ports)
    }
  }

  /** Files in the namespace folder that belong to a sandbox, and outer links of endpoints: all else there is a leftover. */
  belongings(): { readonly netns: ReadonlySet<string>; readonly links: ReadonlySet<string> } {
    const all = [...this.#live.values()]
    return {
      netns: new Set(all.flatMap((s) => (s.netns ? [s.netns] : []))),
      links: new Set(all.flatMap((s) => s.attachments.map((a) => a.hostLink))),
    }
  }

  // ------------------------------------------------------------ what the engine calls

  create(spec: SandboxSpec): Promise<Sandbox> {
    if (!/^[a-zA-Z0-9_-]{1,128}$/.test(spec.id))
      throw invalid('sandboxId', `sandbox id "${spec.id}": use letters, digits, _ and -`)
    return this.#locked(spec.id, async () => {
      if (this.#live.has(spec.id))
        throw conflict('sandboxExists', `sandbox ${spec.id} already exists: delete it first`, { sandbox: spec.id })
      const shared = typeof spec.mode === 'object' ? this.#get(spec.mode.shareWith) : null
      const own = spec.mode === 'private' || spec.mode === 'none' ? join(this.#netnsDir, spec.id) : null
      const live: Live = {
        spec,
        netns: shared ? shared.netns : own,
        attachments: [],
        ports: [],
        ...NOT_SERVED,
      }
      // On disk first: a namespace made just before a crash is then found and removed.
      await this.#save(live)
      try {
        const steps = await Promise.allSettled([
          own ? this.ctx.native.netnsCreate(own, this.#birthSysctls(spec)) : null,
          shared ? this.#files.copyFrom(spec, shared.spec) : this.#files.writeAll(spec, false, this.#hostGateway()),
        ])
        for (const step of steps) if (step.status === 'rejected') throw step.reason
        live.namesInFile = false
      } catch (e) {
        if (own) await this.ctx.native.netnsDelete(own)
        await this.#store.delete(spec.id)
        if (!isNativeError(e)) throw e
        const sysctl = e.stage.startsWith('sysctl ') ? e.stage.slice('sysctl '.length) : null
        if (sysctl !== null && Object.hasOwn(spec.sysctls, sysctl))
          throw invalid(
            'badSysctl',
            `cannot set sysctl ${sysctl} to "${spec.sysctls[sysctl]}": ${e.code === 'ENOENT' ? 'this kernel has no such setting' : `the kernel does not take this value (${e.code})`}`,
          )
        throw unavailable(
          'sandboxSetup',
          `cannot make the network namespace of ${spec.name}: ${e.message}`,
          {},
          { cause: e },
        )
      }
      this.#live.set(spec.id, live)
      return this.#view(live)
    })
  }

  find(id: string): Sandbox | null {
    const s = this.#live.get(id)
    return s ? this.#view(s) : null
  }

  join(id: string, networkId: string, request: JoinRequest): Promise<EndpointRecord> {
    return this.#locked(id, async () => {
      const s = this.#get(id)
      const network = this.#network(networkId)
      this.#checkJoin(s, network)
      const attachment = await this.#attach(s, network, request, false)
      try {
        await this.#settle(s)
        if (attachment.record.ipv4Address !== '')
          await this.#files.editHosts(s.spec, [], [attachment.record.ipv4Address])
      } catch (e) {
        await this.#detach(s, attachment)
        await this.#settle(s)
        throw e
      }
      return attachment.record
    })
  }

  leave(id: string, networkId: string): Promise<void> {
    return this.#locked(id, async () => {
      const s = this.#get(id)
      const attachment = s.attachments.find((a) => a.record.networkId === networkId && !a.hidden)
      if (!attachment)
        throw notFound('notConnected', `container ${s.spec.name} is not connected to network ${networkId}`, {
          sandbox: id,
          network: networkId,
        })
      await this.#detach(s, attachment)
      await this.cluster.left(networkId)
      await this.#settle(s)
      if (attachment.record.ipv4Address !== '') await this.#files.editHosts(s.spec, [attachment.record.ipv4Address], [])
    })
  }

  publish(id: string, wanted: readonly PortPublication[]): Promise<readonly PortPublication[]> {
    return this.#locked(id, async () => {
      const s = this.#get(id)
      if (s.spec.mode === 'host' || s.spec.mode === 'none') return []
      const standard = this.#standardAddress(s)
      const asked = wanted.map((p) => (p.hostIp === '' ? { ...p, hostIp: standard } : p))
      const same = (a: PortPublication, b: PortPublication): boolean =>
        a.protocol === b.protocol &&
        a.containerPort === b.containerPort &&
        a.hostPort === b.hostPort &&
        (a.hostIp || '0.0.0.0') === (b.hostIp || '0.0.0.0')
      const kept = s.ports.filter((p) => asked.some((a) => same(a, p)))
      const dropped = s.ports.filter((p) => !kept.includes(p))
      const added = await this.reservations.reserve(
        id,
        asked.filter((a) => !kept.some((k) => same(a, k))),
      )
      const before = s.ports
      s.ports = [...kept, ...added]
      try {
        await this.#forward(s)
        await this.#save(s)
      } catch (e) {
        s.ports = before
        this.reservations.release(added)
        this.firewall.setForwards(id, before, this.#target(s))
        throw e
      }
      this.reservations.release(dropped)
      await this.#forgetFlows([...added, ...dropped])
      return s.ports
    })
  }

  setLinks(id: string, links: readonly SandboxLink[]): Promise<void> {
    return this.#locked(id, async () => {
      const s = this.#get(id)
      const before = s.spec.links ?? []
      if (JSON.stringify(before) === JSON.stringify(links)) return
      s.spec = { ...s.spec, links }
      await this.#save(s)
      await this.#forward(s)
      await this.#files.exchangeLinks(s.spec, before, links)
    })
  }

  delete(id: string): Promise<void> {
    return this.#locked(id, async () => {
      const s = this.#live.get(id)
      if (!s) return
      // Each step can be done again: a deletion that failed half-way is repeated by the next call or start.
      this.#discovery.close(s)
      if (s.spec.links?.length) {
        this.firewall.setWays(id, [])
        await this.firewall.apply()
      }
      if (s.ports.length > 0) {
        this.firewall.setForwards(id, [], null)
        await this.firewall.apply()
        this.reservations.release(s.ports)
        await this.#forgetFlows(s.ports)
        s.ports = []
      }
      const left = s.attachments
      for (const a of left) await this.#letGo(s, a)
      s.attachments = []
      for (const a of left) await this.cluster.left(a.record.networkId)
      if (ownsNetns(s)) await this.ctx.native.netnsDelete(s.netns!)
      await this.#store.delete(id)
      this.#live.delete(id)
    })
  }

  async stats(id: string): Promise<readonly InterfaceStats[]> {
    const s = this.#get(id)
    if (s.netns === null) return []
    const links = await this.ctx.native.netLinks(s.netns)
    return links
      .filter((l) => l.name !== 'lo')
      .map(({ name, rxBytes, rxPackets, rxErrors, rxDropped, txBytes, txPackets, txErrors, txDropped }) => ({
        name,
        rxBytes,
        rxPackets,
        rxErrors,
        rxDropped,
        txBytes,
        txPackets,
        txErrors,
        txDropped,
      }))
  }

  rename(id: string, name: string): Promise<void> {
    return this.#locked(id, async () => {
      const s = this.#get(id)
      s.spec = { ...s.spec, name }
      s.attachments = s.attachments.map((a) => ({
        ...a,
        record: {
          ...a.record,
          name,
          dnsNames: this.#dnsNames(s.spec, this.#network(a.record.networkId), a.record.aliases),
        },
      }))
      for (const a of s.attachments) this.#discovery.forget(a.record.networkId)
      await this.#save(s)
    })
  }

  endpoints(networkId: string): EndpointRecord[] {
    return this.attachmentsOf(networkId).map((a) => a.record)
  }

  // ------------------------------------------------------------ what the cluster's side calls

  attachmentsOf(networkId: string): readonly Attachment[] {
    return [...this.#live.values()].flatMap((s) => s.attachments.filter((a) => a.record.networkId === networkId))
  }

  /** The network's services or names changed; resolves when every sandbox on it has the new ones. */
  async networkChanged(networkId: string, died: readonly string[], revived: readonly string[]): Promise<void> {
    this.#discovery.forget(networkId)
    const on = [...this.#live.values()].filter((s) => s.attachments.some((a) => a.record.networkId === networkId))
    // One broken sandbox must not keep the others from the news.
    const results = await Promise.allSettled(
      on.map(async (s) => {
        try {
          await this.#discovery.balance(s, died, revived)
          if (died.length > 0 && s.netns)
            await this.ctx.native.netConntrackDelete(s.netns, { protocol: 'udp', replySources: died })
        } catch (e) {
          // Its namespace is gone, and so is whatever could use the table.
          if (hasErrno(e, 'ENOENT', 'EINVAL') && !(await this.#isBound(s.netns!))) return
          throw e
        }
      }),
    )
    for (const r of results) if (r.status === 'rejected') throw r.reason
  }

  /** Takes every sandbox off a network that ceases to exist. */
  async dropNetwork(networkId: string): Promise<void> {
    for (const s of [...this.#live.values()])
      if (s.attachments.some((a) => a.record.networkId === networkId && !a.hidden))
        await this.leave(s.spec.id, networkId)
    this.#discovery.forget(networkId)
  }

  // ------------------------------------------------------------ attach, detach

  #checkJoin(s: Live, network: NetworkRecord): void {
    const fields = { sandbox: s.spec.id, network: network.name }
    if (typeof s.spec.mode === 'object')
      throw forbidden(
        'sharedSandbox',
        `container ${s.spec.name} uses another container's network: connect that one`,
        fields,
      )
    if (network.configOnly)
      throw forbidden('configOnlyNetwork', `network ${network.name} is config-only: containers cannot join it`, fields)
    if (s.attachments.some((a) => a.record.networkId === network.id && !a.hidden))
      throw forbidden(
        'alreadyConnected',
        `container ${s.spec.name} is already connected to network ${network.name}`,
        fields,
      )
    const wants = network.driver === 'host' ? 'host' : network.driver === 'null' ? 'none' : 'private'
    if (s.spec.mode !== wants)
      throw forbidden(
        'networkMode',
        `container ${s.spec.name} runs with network mode ${JSON.stringify(s.spec.mode)}: it cannot join ${network.driver} network ${network.name}`,
        fields,
      )
  }

  async #attach(s: Live, network: NetworkRecord, request: JoinRequest, hidden: boolean): Promise<Attachment> {
    const driver = this.#driver(network)
    const address = driver ? this.#address(s, network, request) : null
    const endpointId = newHexId()
    const interfaceName = driver ? (request.driverOptions?.[IFNAME_OPTION] ?? nextInterface(s.attachments)) : ''
    if (interfaceName.length > 15)
      throw invalid('interfaceName', `interface name "${interfaceName}": at most 15 characters`)
    const aliases = request.aliases ?? []
    const mac = address ? (network.driver !== 'overlay' && request.macAddress) || macOf(address.ip) : ''
    const attachment: Attachment = {
      driver: network.driver,
      hostLink: driver && network.driver !== 'macvlan' ? `veth${endpointId.slice(0, 10)}` : '',
      gatewayPriority: request.gatewayPriority ?? 0,
      ...(request.links ? { links: lowerCased(request.links) } : {}),
      hidden,
      record: {
        networkId: network.id,
        endpointId,
        sandboxId: s.spec.id,
        name: s.spec.name,
        macAddress: mac,
        ipv4Address: address?.ip ?? '',
        ipv4PrefixLength: address?.prefix ?? 0,
        gateway: network.internal ? '' : (address?.gateway ?? ''),
        ipv6Address: '',
        ipv6PrefixLength: 0,
        ipv6Gateway: '',
        aliases,
        dnsNames: hidden ? [] : this.#dnsNames(s.spec, network, aliases),
        interfaceName,
      },
    }
    s.attachments = [...s.attachments, attachment]
    await this.#save(s)
    try {
      await driver?.attach(network, attachment, s.netns!)
    } catch (e) {
      await this.#detach(s, attachment)
      if (!(e instanceof Error) || !('syscall' in e)) throw e
      throw unavailable(
        'endpointSetup',
        `cannot connect ${s.spec.name} to network ${network.name}: ${e.message}`,
        { sandbox: s.spec.id, network: network.name },
        { cause: e },
      )
    }
    this.#discovery.forget(network.id)
    return attachment
  }

  async #detach(s: Live, a: Attachment): Promise<void> {
    await this.#takeDown(s, a)
    this.#free(a)
    s.attachments = s.attachments.filter((x) => x !== a)
    await this.#save(s)
  }

  /**
   * Of a sandbox that goes: the kernel takes ten milliseconds and more to remove a link, and nobody waits for that where the
   * endpoint can be muted first. A link that a crash leaves is removed at the next start.
   */
  async #letGo(s: Live, a: Attachment): Promise<void> {
    const network = this.#networkOrNull(a.record.networkId)
    const driver = network && this.#driver(network)
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
    this.#free(a)
  }

  async #takeDown(s: Live, a: Attachment): Promise<void> {
    const network = this.#networkOrNull(a.record.networkId)
    if (network) await this.#driver(network)?.detach(network, a, s.netns!)
    else if (a.hostLink !== '')
      await this.ctx.native.netLink(null, [{ op: 'linkDel', name: a.hostLink, tolerate: ['ENODEV'] }])
  }

  #free(a: Attachment): void {
    const network = this.#networkOrNull(a.record.networkId)
    if (network && network.driver !== 'overlay' && a.record.ipv4Address !== '')
      this.local.pool(network.id).release(a.record.ipv4Address)
    this.#discovery.forget(a.record.networkId)
  }

  #address(s: Live, n: NetworkRecord, r: JoinRequest): { ip: string; prefix: number; gateway: string } {
    const fields = { network: n.name, address: r.ipv4Address }
    const place = (ip: string): { ip: string; prefix: number; gateway: string } => {
      for (const p of n.ipam.pools) {
        const block = parseCidr(p.subnet)
        if (block && contains(block, parseIpv4(ip) ?? -1))
          return { ip, prefix: block.prefix, gateway: p.reserved?.[GATEWAY_OF_ENDPOINTS] ?? p.gateway ?? '' }
      }
      throw invalid('addressOutside', `address ${ip} is in no subnet of network ${n.name}`, fields)
    }
    const wanted = r.ipv4Address?.split('/')[0] || undefined
    if (n.driver === 'overlay') {
      if (wanted === undefined)
        throw invalid(
          'addressMissing',
          `network ${n.name} belongs to the cluster: its managers choose addresses`,
          fields,
        )
      return place(wanted)
    }
    const got = this.local.pool(n.id).allocate(wanted)
    if (got.ok) return place(got.address)
    if (got.reason === 'exhausted')
      throw unavailable(
        'noFreeAddress',
        `no available IPv4 addresses on this network's address pools: ${n.name} (${n.id}): remove containers or make a larger network`,
        {
          network: n.name,
        },
      )
    if (got.reason === 'outside')
      throw invalid(
        'addressOutside',
        `address ${wanted} of ${s.spec.name} is not in a subnet of network ${n.name}`,
        fields,
      )
    throw conflict('addressInUse', `address ${wanted} is already in use in network ${n.name}`, fields)
  }

  /** null for host and none: nothing to make. */
  #driver(n: NetworkRecord): NetworkDriver | null {
    if (n.driver === 'overlay') return this.cluster.driver
    if (n.driver === 'bridge') return this.local.bridge
    return n.driver === 'macvlan' ? this.local.macvlan : null
  }

  // ------------------------------------------------------------ what follows from a sandbox's attachments

  /** Default route, way out, name server, virtual addresses, published ports: all as the attachments want it. */
  async #settle(s: Live): Promise<void> {
    if (s.spec.mode !== 'private') return
    const choice = chooseGateway(s.attachments, (id) => this.#networkOrNull(id))
    let egress = s.attachments.find((a) => a.hidden)
    if (choice.by === 'egress') egress ??= await this.#attach(s, await this.cluster.egress(), {}, true)
    else if (egress) {
      await this.#detach(s, egress)
      egress = undefined
    }
    const gateway = choice.by === 'attachment' ? choice.attachment : egress
    const route = this.ctx.native.netLink(s.netns, [
      gateway
        ? { op: 'routeReplace', to: 'default', via: gateway.record.gateway, dev: gateway.record.interfaceName }
        : { op: 'routeDel', to: 'default', tolerate: ['ESRCH'] },
    ])
    const steps = await Promise.allSettled([route, this.#discovery.settle(s)])
    for (const step of steps) if (step.status === 'rejected') throw step.reason
    if (s.ports.length > 0 || s.spec.links?.length) await this.#forward(s)
  }

  async #forward(s: Live): Promise<void> {
    this.firewall.setForwards(s.spec.id, s.ports, this.#target(s))
    this.firewall.setWays(s.spec.id, this.#ways(s))
    await this.firewall.apply()
  }

  /** From its own address on a bridge to those that it is linked to there. */
  #ways(s: Live): OpenWay[] {
    return s.attachments.flatMap(({ record: { networkId, ipv4Address } }) => {
      const network = this.#networkOrNull(networkId)
      if (network?.driver !== 'bridge' || ipv4Address === '') return []
      const block = parseCidr(network.ipam.pools[0]!.subnet)!
      return (s.spec.links ?? [])
        .filter(({ address }) => contains(block, parseIpv4(address) ?? -1))
        .flatMap(({ address, ports }) => ports.map((p) => ({ ...p, fromIp: ipv4Address, toIp: address })))
    })
  }

  /** Where ports without an address are published: the network's own setting, else the daemon's. */
  #standardAddress(s: Live): string {
    const choice = chooseGateway(s.attachments, (id) => this.#networkOrNull(id))
    const network = choice.by === 'attachment' ? this.#networkOrNull(choice.attachment.record.networkId) : null
    const own = network?.options[BRIDGE_OPTION.hostBinding] ?? ''
    return own === '' || own === '0.0.0.0' ? this.ctx.options.publishAddress : own
  }

  /** The address that published ports lead to: of the endpoint with the default route, when that is on a bridge. */
  #target(s: Live): string | null {
    const choice = chooseGateway(s.attachments, (id) => this.#networkOrNull(id))
    const a = choice.by === 'attachment' ? choice.attachment : s.attachments.find((x) => x.hidden)
    return a && a.driver === 'bridge' ? a.record.ipv4Address : null
  }

  /** A UDP sender from before would go on to the old place: its entry in the connection table decides. */
  async #forgetFlows(ports: readonly PortPublication[]): Promise<void> {
    for (const p of ports)
      if (p.protocol === 'udp')
        await this.ctx.native.netConntrackDelete(null, { protocol: 'udp', originalDestinationPort: p.hostPort })
  }

  // ------------------------------------------------------------ after a restart of the daemon

  #claimAddresses(s: Live): void {
    for (const a of s.attachments) {
      const n = this.local.get(a.record.networkId)
      if (n && a.record.ipv4Address !== '') this.local.pool(n.id).allocate(a.record.ipv4Address)
    }
  }

  /** What lived in the old process: sockets, reserved ports, knowledge of the tables. */
  async #resume(s: Live): Promise<void> {
    const id = s.spec.id
    for (const p of s.ports) {
      try {
        await this.reservations.reserve(id, [p])
      } catch (e) {
        this.ctx.log.warn('a published port was taken while the daemon was down', {
          sandbox: id,
          port: p,
          error: String(e),
        })
      }
    }
    try {
      if (s.spec.mode === 'private') await this.#settle(s)
    } catch (e) {
      this.ctx.log.error('a sandbox could not be taken up in full', { sandbox: id, error: String(e) })
    }
  }

  async #isBound(netns: string): Promise<boolean> {
    try {
      await this.ctx.native.netLinks(netns)
      return true
    } catch (e) {
      if (hasErrno(e, 'ENOENT', 'EINVAL')) return false // no file, or one that nothing is bound to: the machine was restarted
      throw e
    }
  }

  // ------------------------------------------------------------ small things

  #locked<T>(id: string, work: () => Promise<T>): Promise<T> {
    return this.ctx.locks.run(`sandbox:${id}`, work)
  }

  #get(id: string): Live {
    const s = this.#live.get(id)
    if (!s) throw notFound('noSuchSandbox', `no network sandbox ${id}`, { sandbox: id })
    return s
  }

  #networkOrNull(id: string): NetworkRecord | null {
    return this.local.get(id) ?? this.cluster.get(id)
  }

  #network(id: string): NetworkRecord {
    const n = this.#networkOrNull(id)
    if (!n) throw notFound('noSuchNetwork', `no network ${id}`, { network: id })
    return n
  }

  #dnsNames(spec: SandboxSpec, n: NetworkRecord, aliases: readonly string[]): string[] {
    return hasNames(n) ? dnsNamesOf(spec, aliases) : []
  }

  #hostGateway(): string {
    return this.ctx.options.hostGateway ?? this.local.byName('bridge')?.ipam.pools[0]?.gateway ?? ''
  }

  #birthSysctls(spec: SandboxSpec): Record<string, string> {
    const own = Object.entries(spec.sysctls).filter(([k]) => k.startsWith('net.'))
    return {
      // Loopback keeps ::1; links made later get no address of their own accord.
      ...(this.ctx.kernelIpv6 ? { 'net.ipv6.conf.default.disable_ipv6': '1' } : {}),
      // Containers may bind low ports and ping without privileges, as Docker's do.
      'net.ipv4.ip_unprivileged_port_start': '0',
      'net.ipv4.ping_group_range': '0 2147483647',
      ...Object.fromEntries(own),
    }
  }

  async #save(s: Live): Promise<void> {
    const { spec, netns, attachments, ports } = s
    await this.#store.put(spec.id, { spec, netns, attachments, ports })
  }

  #view(s: Live): Sandbox {
    return {
      id: s.spec.id,
      netnsPath: s.netns,
      endpoints: s.attachments.filter((a) => !a.hidden).map((a) => a.record),
      ports: s.ports,
    }
  }
}

const lowerCased = (links: Readonly<Record<string, string>>): Record<string, string> =>
  Object.fromEntries(Object.entries(links).map((pair) => pair.map((name) => name.toLowerCase())))
