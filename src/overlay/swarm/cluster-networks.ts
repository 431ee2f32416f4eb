import { mkdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import type { ClusterMembers, Network, NetworkUpdate } from '#proto'
import { conflict, forbidden, invalid, notFound, unimplemented } from '../../common/index.js'
import type { BalancedService } from '../balancer/container-table.js'
import type { ClusterSide } from '../cluster-side.js'
import type { OverlayContext } from '../context.js'
import type { LocalNetworkSpec, NetworkRecord } from '../contract.js'
import type { NameTableBuilder } from '../dns/names.js'
import { BRIDGE_OPTION, EGRESS_NETWORK, mtuOf } from '../drivers/bridge-options.js'
import type { Attachment, NetworkDriver } from '../drivers/driver.js'
import { gateways, ingressPlan, meshPorts, RETURN_PRIORITY, RETURN_TABLE } from '../ingress/ingress-plan.js'
import type { IngressMesh } from '../ingress/mesh.js'
import { isIpv4 } from '../ipam/ip.js'
import { type CreatedAs, PREDEFINED } from '../local-networks.js'
import { hasErrno } from '../native.js'
import { RecordStore } from '../record-store.js'
import { forwardingPlan } from './forwarding-plan.js'
import {
  addNames,
  applyUpdate,
  balancedServices,
  isEncrypted,
  isNodeLocal,
  localSpecOf,
  type NetworkState,
  recordOf,
  segmentOf,
  segmentsOf,
} from './network-state.js'
import { OverlaySandbox, VXLAN_OVERHEAD, type Wire } from './overlay-sandbox.js'

/** The IANA port of VXLAN, until the managers have said another. */
const DEFAULT_DATA_PATH_PORT = 4789

interface Self {
  readonly nodeId: string
  readonly dataPathAddress: string
}

/** What the sandboxes' side offers in return. */
export interface SandboxSide {
  attachmentsOf(networkId: string): readonly Attachment[]
  networkChanged(networkId: string, died: readonly string[], revived: readonly string[]): Promise<void>
  dropNetwork(networkId: string): Promise<void>
}

/** Creates and removes the hidden bridge; the local networks' side. */
export interface LocalSide {
  byName(name: string): NetworkRecord | null
  get(id: string): NetworkRecord | null
  create(spec: LocalNetworkSpec, as?: CreatedAs): Promise<NetworkRecord>
  remove(id: string, inUse: () => number): Promise<void>
}

interface Entry {
  state: NetworkState
  record: NetworkRecord
  sandbox: OverlaySandbox | null
  wire: Wire | null
  /** The managers need us on it no more; it goes when its last container has left. */
  withdrawn: boolean
  /** Made once for each state: sandboxes tell by identity whether anything changed. */
  balanced: { readonly of: NetworkState; readonly services: readonly BalancedService[] } | null
  /** Local endpoints by id: their addresses have no entry that leads elsewhere. */
  readonly locals: Map<string, string>
}

interface SavedNetwork {
  readonly state: NetworkState
  readonly wire: Wire | null
  readonly withdrawn: boolean
}

/**
 * The cluster's networks on this node. Managers push state; it is on disk before the kernel has it, and is served as it
 * is while no manager answers. All work on one network runs in order.
 */
export class ClusterNetworks implements ClusterSide {
  readonly #entries = new Map<string, Entry>()
  readonly #store: RecordStore<SavedNetwork>
  readonly #facts: RecordStore<unknown>
  readonly #gateways
  #self: Self | null = null
  #members: ClusterMembers = { members: [], dataPathPort: 0 }
  #sandboxes: SandboxSide | null = null
  #egress: Promise<NetworkRecord> | null = null
  /** Local endpoints are counted; before, a network without any may only look unused. */
  #resumed = false

  readonly driver: NetworkDriver = {
    attach: async (n, a, netns) => {
      await this.#attach(n, a, netns)
      return a
    },
    detach: (n, a, netns) => this.#detach(n, a, netns),
  }

  constructor(
    private readonly ctx: OverlayContext,
    private readonly local: LocalSide,
    private readonly mesh: IngressMesh,
  ) {
    this.#store = new RecordStore(join(ctx.options.root, 'cluster', 'networks'), false, ctx.log)
    this.#facts = new RecordStore(join(ctx.options.root, 'cluster', 'node'), true, ctx.log)
    this.#gateways = gateways(ctx.options.ingressGateways)
  }

  // ------------------------------------------------------------ start, stop

  /** Reads what the managers said last; touches nothing. */
  async load(sandboxes: SandboxSide): Promise<void> {
    this.#sandboxes = sandboxes
    await mkdir(join(this.ctx.options.root, 'cluster'), { recursive: true, mode: 0o700 })
    const facts = await this.#facts.load()
    this.#self = (facts.get('self') as Self | undefined) ?? null
    this.#members = (facts.get('members') as ClusterMembers | undefined) ?? this.#members
    const networks = await this.#store.load()
    for (const [id, saved] of this.#self ? networks : [])
      this.#entries.set(id, this.#entry(saved.state, saved.wire, saved.withdrawn))
  }

  /** Brings the kernel to the loaded state. Sandboxes must have been taken up. A network that fails is reported. */
  async resume(): Promise<void> {
    this.#resumed = true
    if (!this.#self) {
      await this.mesh.destroy()
      await this.mesh.removeTable()
      return
    }
    // The table is written with the ports in it: what the last process published goes on without a gap.
    this.mesh.setMembers(this.#memberAddresses(), this.#port())
    for (const e of this.#entries.values()) {
      for (const a of isNodeLocal(e.record) ? [] : this.#sandboxes!.attachmentsOf(e.record.id))
        e.locals.set(a.record.endpointId, a.record.ipv4Address)
      try {
        await this.#locked(e, () => (e.withdrawn && !this.#isUsed(e) ? this.#forget(e) : this.#realize(e, [], [])))
      } catch (error) {
        this.ctx.log.error('a cluster network could not be taken up', { network: e.record.name, error: String(error) })
      }
    }
    await this.mesh.apply()
  }

  /** `keep`: containers live on without the daemon, and so must their networks; otherwise nothing stays in the kernel. */
  async stop(keep: boolean): Promise<void> {
    this.mesh.stop()
    if (keep) return
    for (const e of this.#entries.values()) {
      try {
        await this.#locked(e, async () => {
          await e.sandbox?.destroy()
          e.sandbox = null
        })
      } catch (error) {
        this.ctx.log.warn('a cluster network was left in the kernel', { network: e.record.name, error: String(error) })
      }
    }
    await this.mesh.destroy()
    await this.mesh.removeTable()
  }

  /** Paths of namespaces and names of links that are in use: all else of ours is a leftover. */
  belongings(): { readonly netns: readonly string[]; readonly links: readonly string[] } {
    return {
      netns: [...this.#entries.values()].map((e) => this.#path(e.state.network.id)),
      links: this.#self ? [this.mesh.link] : [],
    }
  }

  // ------------------------------------------------------------ ClusterSide

  list(): readonly NetworkRecord[] {
    return [...this.#entries.values()].map((e) => e.record).filter((n) => !isNodeLocal(n))
  }

  get(id: string): NetworkRecord | null {
    const n = this.#entries.get(id)?.record
    return n && !isNodeLocal(n) ? n : null
  }

  names(networkId: string, into: NameTableBuilder): void {
    const e = this.#entries.get(networkId)
    if (e && !e.record.ingress) addNames(e.state, into)
  }

  services(networkId: string): readonly BalancedService[] {
    const e = this.#entries.get(networkId)
    if (!e || e.record.ingress) return NONE
    if (e.balanced?.of !== e.state) e.balanced = { of: e.state, services: balancedServices(e.state) }
    return e.balanced.services
  }

  egress(): Promise<NetworkRecord> {
    const name = EGRESS_NETWORK
    const existing = this.local.byName(name)
    if (existing) return Promise.resolve(existing)
    this.#egress ??= this.local
      .create({
        name,
        driver: 'bridge',
        internal: false,
        attachable: false,
        ipv6: false,
        ipam: { driver: 'default', options: {}, pools: [] },
        // Containers of different cluster networks share it: they must not meet there.
        options: { [BRIDGE_OPTION.name]: name, [BRIDGE_OPTION.icc]: 'false', [BRIDGE_OPTION.masquerade]: 'true' },
        labels: {},
        configOnly: false,
        configFrom: null,
      })
      .finally(() => {
        this.#egress = null
      })
    return this.#egress
  }

  async left(networkId: string): Promise<void> {
    const e = this.#entries.get(networkId)
    if (e && isNodeLocal(e.record)) await this.#locked(e, () => this.#forgetUnwanted(e))
  }

  // ------------------------------------------------------------ NetworkService

  async clusterJoined(self: Self): Promise<void> {
    const known = this.#self
    if (known && known.nodeId !== self.nodeId) await this.clusterLeft()
    this.#self = { nodeId: self.nodeId, dataPathAddress: self.dataPathAddress }
    await this.#facts.put('self', this.#self)
    if (known?.nodeId === self.nodeId && known.dataPathAddress !== self.dataPathAddress) await this.#realizeAll()
    this.mesh.setMembers(this.#memberAddresses(), this.#port())
    await this.mesh.apply()
  }

  async clusterLeft(): Promise<void> {
    for (const id of [...this.#entries.keys()]) {
      await this.#sandboxes!.dropNetwork(id)
      const e = this.#entries.get(id)
      if (e) await this.#locked(e, () => this.#forget(e))
    }
    await this.mesh.destroy()
    await this.mesh.removeTable()
    this.#self = null
    this.#members = { members: [], dataPathPort: 0 }
    await rm(join(this.ctx.options.root, 'cluster'), { recursive: true, force: true })
    await this.#facts.load() // makes the folders again
    await this.#store.load()
    const bridge = this.local.byName(EGRESS_NETWORK)
    if (bridge) await this.local.remove(bridge.id, () => this.#sandboxes!.attachmentsOf(bridge.id).length)
  }

  async applyMembers(members: ClusterMembers): Promise<void> {
    this.#needSelf('members')
    this.#members = members
    await this.#facts.put('members', members)
    this.mesh.setMembers(this.#memberAddresses(), this.#port())
    await this.mesh.apply()
    await this.#realizeAll()
  }

  async applyNetworkUpdate(u: NetworkUpdate): Promise<void> {
    this.#needSelf(`network ${u.networkId}`)
    if (u.withdrawn) return this.#withdraw(u.networkId)
    const old = this.#entries.get(u.networkId)
    const key = `net:${u.networkId}`
    await this.ctx.locks.run(key, async () => {
      const current = this.#entries.get(u.networkId) ?? old ?? null
      const result = applyUpdate(current?.state ?? null, u)
      if (!result.ok)
        throw conflict(
          result.reason,
          `update of network ${u.networkId} from version ${u.fromVersion} does not fit version ${current?.state.version ?? 'none'} here: open the session anew for the full state`,
          { network: u.networkId, version: current?.state.version ?? 0 },
        )
      this.#check(result.state.network)
      const e = this.#admit(result.state)
      e.withdrawn = false
      await this.#save(e)
      await this.#realize(e, result.died, result.revived)
    })
  }

  async ensureSwarmNetwork(network: Network): Promise<NetworkRecord> {
    this.#needSelf(`network ${network.spec?.annotations?.name ?? network.id}`)
    const predefined = PREDEFINED.includes(network.id) ? this.local.byName(network.id) : null
    if (predefined) return predefined
    return this.ctx.locks.run(`net:${network.id}`, async () => {
      const known = this.#entries.get(network.id)
      if (known?.sandbox) return known.record
      this.#check(network)
      const e = known ?? this.#admit({ network, version: 0, endpoints: {}, services: {} })
      await this.#save(e)
      if (isNodeLocal(e.record)) return this.#ownNetwork(e.record)
      await this.#realize(e, [], [])
      return e.record
    })
  }

  /** Made with the first container here. What the node lacks for it is then that container's failure, and no other's. */
  async #ownNetwork(n: NetworkRecord): Promise<NetworkRecord> {
    return this.local.get(n.id) ?? this.local.create(localSpecOf(n), { sameName: true, clusterId: n.id })
  }

  // ------------------------------------------------------------ one network

  #isUsed(e: Entry): boolean {
    return isNodeLocal(e.record) ? this.#sandboxes!.attachmentsOf(e.record.id).length > 0 : e.locals.size > 0
  }

  #check(n: Network): void {
    if (isNodeLocal(recordOf({ network: n }))) return
    const name = n.spec?.annotations?.name ?? n.id
    if (segmentsOf(n).length === 0)
      throw invalid('noSubnet', `overlay network ${name} has no IPv4 subnet: its managers have not allocated it`, {
        network: name,
      })
    const missing = segmentsOf(n).find((s) => s.vni < 1 || s.vni > 0xffffff)
    if (missing)
      throw invalid(
        'noVni',
        `overlay network ${name}: subnet ${missing.subnet} has VXLAN id ${missing.vni}, wanted 1 to 16777215`,
        {
          network: name,
        },
      )
    if (isEncrypted(n))
      throw unimplemented(
        'encryptedOverlay',
        `overlay network ${name} asks for encryption, which this node cannot do; it is never carried in plain text: create it without --opt encrypted`,
        { network: name },
      )
  }

  #entry(state: NetworkState, wire: Wire | null, withdrawn: boolean): Entry {
    return { state, record: recordOf(state), sandbox: null, wire, withdrawn, balanced: null, locals: new Map() }
  }

  #admit(state: NetworkState): Entry {
    const known = this.#entries.get(state.network.id)
    if (known) {
      known.state = state
      known.record = recordOf(state)
      return known
    }
    const e = this.#entry(state, null, false)
    this.#entries.set(state.network.id, e)
    return e
  }

  /** Sandbox, entries, then what containers see; last the entries of endpoints that are gone. */
  async #realize(e: Entry, died: readonly string[], revived: readonly string[]): Promise<void> {
    if (isNodeLocal(e.record)) return
    if (!e.sandbox) await this.#ensureSandbox(e)
    await this.#follow(e, async () => {
      if (e.record.ingress) await this.mesh.followPorts(meshPorts(e.state), died, revived)
      await this.#sandboxes!.networkChanged(e.state.network.id, died, revived)
    })
  }

  /** Entries for endpoints elsewhere; `between` runs when the new ones are there and the old ones still are. */
  async #follow(e: Entry, between: () => Promise<void>): Promise<void> {
    if (!e.sandbox) return // the mesh's, before this node has its number
    const { nodeId } = this.#self!
    const { members } = this.#members
    const locals = new Set(e.locals.values())
    const plan = e.record.ingress
      ? ingressPlan(e.state, members, nodeId, locals, this.#gateways)
      : forwardingPlan(e.state, segmentsOf(e.state.network), members, nodeId, locals)
    await e.sandbox.follow(plan, between)
  }

  /** Makes what is missing, and makes anew what was made for another port, address, MTU or number of this node. */
  async #ensureSandbox(e: Entry): Promise<void> {
    const { nodeId } = this.#self!
    const { members } = this.#members
    const { ingress, name, id } = e.record
    const index = members.find((m) => m.nodeId === nodeId)?.ingressIndex ?? 0
    // The mesh needs this node's number; the managers say it with the members.
    if (ingress && index === 0) return
    const mac = ingress ? this.#gateways.macOf(index) : null
    const wire = await this.#wire(e.record)
    if (!e.sandbox || !sameWire(e.sandbox.wire, wire) || e.sandbox.bridgeMac !== mac) {
      const fresh = e.wire !== null && !sameWire(e.wire, wire)
      const segments = segmentsOf(e.state.network)
      const sandbox = new OverlaySandbox(this.ctx, this.#path(id), name, segments, wire, mac, ingress)
      await sandbox.ensure(fresh)
      if (ingress) await this.mesh.ensure(sandbox, this.#gateways)
      e.sandbox = sandbox
      e.wire = wire
      await this.#save(e)
    }
    if (ingress) await this.mesh.followNodes(e.sandbox, members, nodeId, this.#gateways)
  }

  /** Members, or this node's place among them, changed. */
  async #realizeAll(): Promise<void> {
    const results = await Promise.allSettled(
      [...this.#entries.values()].map((e) =>
        this.#locked(e, async () => {
          if (isNodeLocal(e.record)) return
          await this.#ensureSandbox(e)
          await this.#realize(e, [], [])
        }),
      ),
    )
    for (const r of results) if (r.status === 'rejected') throw r.reason
  }

  async #withdraw(id: string): Promise<void> {
    const e = this.#entries.get(id)
    if (!e) return
    await this.#locked(e, async () => {
      e.withdrawn = true
      // A task that is still stopping keeps its network until it has left.
      if (this.#isUsed(e)) return this.#save(e)
      await this.#forget(e)
    })
  }

  async #forget(e: Entry): Promise<void> {
    const id = e.state.network.id
    if (this.#entries.get(id) !== e) return
    if (e.record.ingress) {
      await this.mesh.followPorts([], [], [])
      await this.mesh.destroy()
    }
    if (!isNodeLocal(e.record))
      await (
        e.sandbox ?? new OverlaySandbox(this.ctx, this.#path(id), e.record.name, [], NO_WIRE, null, false)
      ).destroy()
    else if (this.local.get(id)) await this.local.remove(id, () => this.#sandboxes!.attachmentsOf(id).length)
    await this.#store.delete(id)
    this.#entries.delete(id)
  }

  #attach(n: NetworkRecord, a: Attachment, netns: string): Promise<void> {
    return this.ctx.locks.run(`net:${n.id}`, async () => {
      const e = this.#entries.get(n.id)
      if (!e)
        throw notFound('noSuchNetwork', `network ${n.name} is not known on this node any more`, { network: n.name })
      const segments = segmentsOf(e.state.network)
      const segment = segmentOf(segments, a.record.ipv4Address)
      if (!segment)
        throw invalid('addressOutside', `address ${a.record.ipv4Address} is in no subnet of network ${n.name}`, {
          network: n.name,
        })
      if ([...e.locals.values()].includes(a.record.ipv4Address))
        throw forbidden(
          'addressInUse',
          `address ${a.record.ipv4Address} is already used on this node in network ${n.name}`,
          {
            network: n.name,
          },
        )
      e.locals.set(a.record.endpointId, a.record.ipv4Address)
      try {
        if (!e.sandbox) await this.#realize(e, [], [])
        else await this.#follow(e, noMore)
        if (!e.sandbox)
          throw conflict(
            'ingressNotReady',
            `network ${n.name} is not usable yet: no manager has told this node its number`,
          )
        await e.sandbox.attach(segment, a, netns)
        if (n.ingress) await this.#answerIntoMesh(a, segment, netns)
      } catch (error) {
        e.locals.delete(a.record.endpointId)
        throw error
      }
    })
  }

  /** Answers from the ingress address go back into the mesh, wherever the container's default route leads. */
  async #answerIntoMesh(a: Attachment, segment: { subnet: string; gateway: string }, netns: string): Promise<void> {
    const dev = a.record.interfaceName
    // Loose: clients' addresses come in by an interface that their route does not lead to.
    await this.ctx.native.netSysctl(netns, { [`net.ipv4.conf.${dev.replaceAll('.', '/')}.rp_filter`]: '2' })
    await this.ctx.native.netLink(netns, [
      {
        op: 'ruleAdd',
        priority: RETURN_PRIORITY,
        from: a.record.ipv4Address,
        table: RETURN_TABLE,
        tolerate: ['EEXIST'],
      },
      { op: 'routeReplace', to: segment.subnet, dev, table: RETURN_TABLE },
      { op: 'routeReplace', to: 'default', via: segment.gateway, dev, table: RETURN_TABLE },
    ])
  }

  #detach(n: NetworkRecord, a: Attachment, netns: string): Promise<void> {
    return this.ctx.locks.run(`net:${n.id}`, async () => {
      const e = this.#entries.get(n.id)
      if (!e) return
      const sandbox = e.sandbox ?? new OverlaySandbox(this.ctx, this.#path(n.id), n.name, [], NO_WIRE, null, false)
      await sandbox.detach(a)
      if (n.ingress) await this.#stopAnswering(a, netns)
      e.locals.delete(a.record.endpointId)
      // It may already live elsewhere: now the managers' word counts for its address.
      await this.#follow(e, noMore)
      await this.#forgetUnwanted(e)
    })
  }

  async #forgetUnwanted(e: Entry): Promise<void> {
    if (this.#resumed && !this.#isUsed(e) && (e.withdrawn || e.state.version === 0)) await this.#forget(e)
  }

  async #stopAnswering(a: Attachment, netns: string): Promise<void> {
    try {
      await this.ctx.native.netLink(netns, [
        {
          op: 'ruleDel',
          priority: RETURN_PRIORITY,
          from: a.record.ipv4Address,
          table: RETURN_TABLE,
          tolerate: ['ENOENT'],
        },
      ])
    } catch (e) {
      if (!hasErrno(e, 'ENOENT', 'EINVAL')) throw e // the container's namespace is gone
    }
  }

  // ------------------------------------------------------------ small things

  #locked<T>(e: Entry, work: () => Promise<T>): Promise<T> {
    return this.ctx.locks.run(`net:${e.state.network.id}`, work)
  }

  #save(e: Entry): Promise<void> {
    const { state, wire, withdrawn } = e
    return this.#store.put(state.network.id, { state, wire, withdrawn })
  }

  #path(networkId: string): string {
    return join(this.ctx.options.runDir, 'netns', `ov-${networkId}`)
  }

  #port(): number {
    return this.#members.dataPathPort || DEFAULT_DATA_PATH_PORT
  }

  #memberAddresses(): string[] {
    const all = this.#members.members.map((m) => m.dataPathAddress).filter(isIpv4)
    return [...new Set(all)]
  }

  /** The MTU follows the interface that VXLAN packets leave by, unless the network sets its own. */
  async #wire(n: NetworkRecord): Promise<Wire> {
    const local = this.#self!.dataPathAddress
    const addresses = await this.ctx.native.netAddresses(null)
    const dev = addresses.find((a) => a.address === local)?.dev
    const link = dev ? (await this.ctx.native.netLinks(null)).find((l) => l.name === dev) : undefined
    const mtu = mtuOf(n, Math.min(65535, link?.mtu ?? 1500) - VXLAN_OVERHEAD)
    return { port: this.#port(), local, mtu }
  }

  #needSelf(what: string): void {
    if (!this.#self) throw conflict('notInCluster', `${what}: this node is in no cluster`, {})
  }
}

/** Containers need not be told: only where an address is has changed. */
const noMore = async (): Promise<void> => {}

const NONE: readonly BalancedService[] = []

const NO_WIRE: Wire = { port: 0, local: '', mtu: 0 }

const sameWire = (a: Wire, b: Wire): boolean => a.port === b.port && a.local === b.local && a.mtu === b.mtu
