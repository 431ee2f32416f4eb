import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { conflict, forbidden, invalid, notFound, unavailable } from '../common/index.js'
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
import type { Attachment } from './drivers/driver.js'
import type { HostFirewall } from './firewall/host-firewall.js'
import type { PortReservations } from './firewall/port-reservations.js'
import type { LocalNetworks } from './local-networks.js'
import { hasErrno, isNativeError, type LinkOperation } from './native.js'
import type { PluginDebts } from './plugins/debts.js'
import { RecordStore } from './record-store.js'
import { Discovery, hasNames } from './sandbox/discovery.js'
import { Endpoints } from './sandbox/endpoints.js'
import { chooseGateway, chooseIpv6Gateway, dnsNamesOf } from './sandbox/gateway.js'
import { type Live, ownsNetns, type SandboxRecord } from './sandbox/live.js'
import { PublishedPorts } from './sandbox/published-ports.js'
import { SandboxFiles } from './sandbox/sandbox-files.js'

const NOT_SERVED = { resolver: null, table: null, namesInFile: null }

/** Network namespaces of containers, their endpoints, published ports, names. All changes of one run in order. */
export class Sandboxes {
  readonly #live = new Map<string, Live>()
  readonly #store: RecordStore<SandboxRecord>
  readonly #files: SandboxFiles
  readonly #discovery: Discovery
  readonly #netnsDir: string
  readonly #endpoints: Endpoints
  readonly #ports: PublishedPorts

  constructor(
    private readonly ctx: OverlayContext,
    private readonly local: LocalNetworks,
    private readonly cluster: ClusterSide,
    private readonly firewall: HostFirewall,
    reservations: PortReservations,
    debts: PluginDebts,
  ) {
    this.#store = new RecordStore(join(ctx.options.runDir, 'sandboxes'), false, ctx.log)
    this.#files = new SandboxFiles(ctx)
    this.#discovery = new Discovery(ctx, {
      cluster,
      files: this.#files,
      networkOf: (id) => this.#networkOrNull(id),
      attachmentsOf: (id) => this.attachmentsOf(id),
    })
    this.#endpoints = new Endpoints(ctx, {
      local,
      cluster,
      debts,
      save: (s) => this.#save(s),
      changed: (id) => this.#discovery.forget(id),
    })
    this.#ports = new PublishedPorts(ctx, { firewall, reservations, networkOf: (id) => this.#networkOrNull(id) })
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
      this.#endpoints.claim(s)
      // All at once, before anything is written: a port of a live container is never missing from the table.
      this.#ports.lead(s)
    }
    for (const id of dead) await this.delete(id)
    await Promise.all([...this.#live.values()].map((s) => this.#resume(s)))
    await this.firewall.apply()
  }

  /** Closes this process's sockets; namespaces, links and tables stay. */
  async stop(): Promise<void> {
    await this.#endpoints.settled()
    for (const s of this.#live.values()) s.resolver?.close()
    this.#ports.stop(this.#live.values())
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
        const sysctl = e.stage?.startsWith('sysctl ') ? e.stage.slice('sysctl '.length) : null
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
      const { record } = await this.#endpoints.attach(s, network, request, false)
      try {
        await this.#settle(s)
        if (shownIn(record).length > 0) await this.#files.editHosts(s.spec, [], shownIn(record))
      } catch (e) {
        await this.#endpoints.detach(s, s.attachments.find((a) => a.record.endpointId === record.endpointId)!)
        await this.#settle(s)
        throw e
      }
      return record
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
      await this.#endpoints.detach(s, attachment)
      await this.cluster.left(networkId)
      await this.#settle(s)
      const shown = shownIn(attachment.record)
      if (shown.length > 0) await this.#files.editHosts(s.spec, shown, [])
    })
  }

  publish(id: string, wanted: readonly PortPublication[]): Promise<readonly PortPublication[]> {
    return this.#locked(id, async () => {
      const s = this.#get(id)
      if (s.spec.mode === 'host' || s.spec.mode === 'none') return []
      if (this.#ports.way(s)?.remote) {
        // The plugin's to publish.
        s.ports = wanted
        await this.#save(s)
        await this.#program(s)
      } else await this.#ports.replace(s, wanted, () => this.#save(s))
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
      await this.#ports.forward(s)
      await this.#files.exchangeLinks(s.spec, before, links)
    })
  }

  delete(id: string): Promise<void> {
    return this.#locked(id, async () => {
      const s = this.#live.get(id)
      if (!s) return
      // Each step can be done again: a deletion that failed half-way is repeated by the next call or start.
      this.#discovery.close(s)
      await this.#ports.release(s)
      const left = s.attachments
      for (const a of left) await this.#endpoints.letGo(s, a)
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
          dnsNames: hasNames(this.#network(a.record.networkId)) ? dnsNamesOf(s.spec, a.record.aliases) : [],
        },
      }))
      for (const a of s.attachments) this.#discovery.forget(a.record.networkId)
      await this.#save(s)
    })
  }

  endpointIds(): string[] {
    return [...this.#live.values()].flatMap((s) => s.attachments.map((a) => a.record.endpointId))
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

  // ------------------------------------------------------------ what follows from a sandbox's attachments

  /** Default route, way out, name server, virtual addresses, published ports: all as the attachments want it. */
  async #settle(s: Live): Promise<void> {
    if (s.spec.mode !== 'private') return
    const choice = chooseGateway(s.attachments, (id) => this.#networkOrNull(id))
    let egress = s.attachments.find((a) => a.hidden)
    if (choice.by === 'egress') egress ??= await this.#endpoints.attach(s, await this.cluster.egress(), {}, true)
    else if (egress) {
      await this.#endpoints.detach(s, egress)
      egress = undefined
    }
    const gateway = choice.by === 'attachment' ? choice.attachment : egress
    const gateway6 = chooseIpv6Gateway(s.attachments, (id) => this.#networkOrNull(id))
    // Without a gateway of IPv6 there is no route to take away: it went with its interface.
    const routes: LinkOperation[] = [
      gateway
        ? { op: 'routeReplace', to: 'default', via: gateway.record.gateway, dev: gateway.record.interfaceName }
        : { op: 'routeDel', to: 'default', tolerate: ['ESRCH'] },
      ...(gateway6 ? [defaultIpv6Route(gateway6)] : []),
    ]
    const steps = await Promise.allSettled([this.ctx.native.netLink(s.netns, routes), this.#discovery.settle(s)])
    for (const step of steps) if (step.status === 'rejected') throw step.reason
    await this.#program(s)
    if (s.ports.length > 0 || s.spec.links?.length) await this.#ports.follow(s, () => this.#save(s))
  }

  /** The plugin whose endpoint has the default route publishes the ports; others that did let go of them. */
  async #program(s: Live): Promise<void> {
    const way = this.#ports.way(s)
    for (const a of s.attachments) {
      if (!a.remote || (a !== way && a.remote.programmed === undefined)) continue
      const n = this.#network(a.record.networkId)
      const { remote } = this.local
      await this.#endpoints.become(s, a, await (a === way ? remote.program(n, a, s.ports) : remote.unprogram(n, a)))
    }
  }

  // ------------------------------------------------------------ after a restart of the daemon

  /** What lived in the old process: sockets, reserved ports, knowledge of the tables. */
  async #resume(s: Live): Promise<void> {
    await this.#ports.resume(s)
    try {
      if (s.spec.mode === 'private') await this.#settle(s)
    } catch (e) {
      this.ctx.log.error('a sandbox could not be taken up in full', { sandbox: s.spec.id, error: String(e) })
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

  #hostGateway(): string {
    return this.ctx.options.hostGateway ?? this.local.byName('bridge')?.ipam.pools[0]?.gateway ?? ''
  }

  #birthSysctls(spec: SandboxSpec): Record<string, string> {
    const own = Object.entries(spec.sysctls).filter(([k]) => k.startsWith('net.'))
    return {
      // Loopback keeps ::1; links made later get no address of their own accord, but on networks with IPv6.
      ...(this.ctx.kernelIpv6 ? { 'net.ipv6.conf.default.disable_ipv6': '1' } : {}),
      // Containers may bind low ports and ping without privileges, as Docker's do.
      'net.ipv4.ip_unprivileged_port_start': '0',
      'net.ipv4.ping_group_range': '0 2147483647',
      ...Object.fromEntries(own),
    }
  }

  async #save(s: Live): Promise<void> {
    const { spec, netns, attachments, ports, published } = s
    await this.#store.put(spec.id, { spec, netns, attachments, ports, published })
  }

  #view(s: Live): Sandbox {
    return {
      id: s.spec.id,
      netnsPath: s.netns,
      endpoints: s.attachments.filter((a) => !a.hidden).map((a) => a.record),
      // Ports that a plugin chooses are known to it alone.
      ports: s.ports.filter((p) => p.hostPort !== 0),
    }
  }
}

/** What the hosts file says of an endpoint. */
const shownIn = (e: EndpointRecord): string[] => [e.ipv4Address, e.ipv6Address].filter((a) => a !== '')

const defaultIpv6Route = ({ record }: Attachment): LinkOperation => ({
  op: 'routeReplace',
  to: '::/0',
  via: record.ipv6Gateway,
  dev: record.interfaceName,
})
