import { existsSync } from 'node:fs'
import { unavailable } from '../../common/index.js'
import type { OverlayContext } from '../context.js'
import type { Attachment } from '../drivers/driver.js'
import { linkAlias } from '../drivers/link-alias.js'
import { macOf, parseCidr } from '../ipam/ip.js'
import { hasErrno, type LinkOperation } from '../native.js'
import { type ForwardingPlan, type PlanEntry, planChanges, planOf } from './forwarding-plan.js'
import type { Segment } from './network-state.js'

/** What the VXLAN devices were made with; a change means making them anew. */
export interface Wire {
  readonly port: number
  readonly local: string
  readonly mtu: number
}

/** A VXLAN device's name between its making in the host's namespace and its move. */
const unbornName = (ctx: OverlayContext, vni: number): string => `${ctx.options.instance}vx${vni}`

/** A device that a crash left between the two; it would keep its VNI taken. */
export const isUnbornVxlan = (ctx: OverlayContext, name: string, kind: string): boolean =>
  kind === 'vxlan' && name.startsWith(unbornName(ctx, 0).slice(0, -1))

/** Changes handed to the addon at once. */
const OPERATIONS_A_CALL = 500

/** Bytes that VXLAN over IPv4 adds to a frame. */
export const VXLAN_OVERHEAD = 50

/**
 * One cluster network on this node: a namespace of its own with, for each subnet, a bridge and a VXLAN device. The
 * device is made in the host's namespace and then moved, so that its packets leave by the host's routes while the
 * inner side is out of reach of the host's firewall rules.
 */
export class OverlaySandbox {
  #applied: ForwardingPlan | null = null

  /** `bridgeMac`: of the gateway; null makes it the same on every node, from the gateway's address. */
  constructor(
    private readonly ctx: OverlayContext,
    readonly netns: string,
    readonly networkName: string,
    readonly segments: readonly Segment[],
    readonly wire: Wire,
    readonly bridgeMac: string | null,
    private readonly forwards: boolean,
  ) {}

  /** Makes what is missing. `fresh`: VXLAN devices are made anew, because they were made with another wire. */
  async ensure(fresh: boolean): Promise<void> {
    try {
      if (!(await this.#exists())) {
        await this.ctx.native.netnsDelete(this.netns)
        await this.ctx.native.netnsCreate(this.netns, this.#birthSysctls())
        this.#applied = planOf([])
      }
      const there = new Set((await this.ctx.native.netLinks(this.netns)).map((l) => l.name))
      for (const s of this.segments) await this.#ensureSegment(s, there, fresh)
    } catch (e) {
      if (!(e instanceof Error) || !('syscall' in e)) throw e
      const vnis = this.segments.map((s) => s.vni).join(', ')
      const why = hasErrno(e, 'EEXIST')
        ? `VXLAN id ${vnis} on port ${this.wire.port} is already in use on this host`
        : e.message
      throw unavailable(
        'overlaySetup',
        `cannot set up overlay network ${this.networkName} on this node: ${why}`,
        { network: this.networkName, vnis },
        { cause: e },
      )
    }
  }

  /** Removes links before the namespace: the kernel takes a namespace apart later, and its VNI would stay in use. */
  async destroy(): Promise<void> {
    try {
      const links = await this.ctx.native.netLinks(this.netns)
      await this.ctx.native.netLink(
        this.netns,
        links
          .filter((l) => l.name !== 'lo')
          .map((l): LinkOperation => ({ op: 'linkDel', name: l.name, tolerate: ['ENODEV'] })),
      )
    } catch (e) {
      if (!hasErrno(e, 'ENOENT', 'EINVAL')) throw e // already gone
    }
    await this.ctx.native.netnsDelete(this.netns)
    this.#applied = null
  }

  /** Connects a container: outer end on the segment's bridge, which learns nothing, so no MAC can be taken over. */
  async attach(segment: Segment, a: Attachment, containerNetns: string): Promise<void> {
    const e = a.record
    try {
      await this.ctx.native.netLink(this.netns, [
        {
          op: 'linkAdd',
          name: a.hostLink,
          kind: 'veth',
          mtu: this.wire.mtu,
          peerName: e.interfaceName,
          peerMac: e.macAddress,
          peerMtu: this.wire.mtu,
          peerNetns: containerNetns,
        },
        { op: 'linkSet', name: a.hostLink, master: `br${segment.index}`, up: true },
        { op: 'bridgePort', name: a.hostLink, learning: false, flood: false },
        { op: 'fdbReplace', dev: a.hostLink, mac: e.macAddress },
      ])
      await this.ctx.native.netLink(containerNetns, [
        { op: 'addrAdd', dev: e.interfaceName, address: e.ipv4Address, prefix: e.ipv4PrefixLength },
        { op: 'linkSet', name: e.interfaceName, up: true },
      ])
    } catch (error) {
      await this.detach(a)
      throw error
    }
  }

  /** Idempotent. */
  async detach(a: Attachment): Promise<void> {
    try {
      await this.ctx.native.netLink(this.netns, [{ op: 'linkDel', name: a.hostLink, tolerate: ['ENODEV'] }])
    } catch (e) {
      if (!hasErrno(e, 'ENOENT', 'EINVAL')) throw e // the sandbox is gone, and the link with it
    }
  }

  /** Brings the kernel's entries to the plan. `between` runs when the new ones are there and the old ones still are. */
  async follow(plan: ForwardingPlan, between: () => Promise<void>): Promise<void> {
    const { first, after } = planChanges(this.#applied ?? (await this.#read()), plan)
    this.#applied = null // unknown until everything went well
    await this.#run(first)
    await between()
    await this.#run(after)
    this.#applied = plan
  }

  /** In pieces, so that handing over a long list does not hold up the event loop. */
  async #run(operations: readonly LinkOperation[]): Promise<void> {
    for (let i = 0; i < operations.length; i += OPERATIONS_A_CALL)
      await this.ctx.native.netLink(this.netns, operations.slice(i, i + OPERATIONS_A_CALL))
  }

  async #exists(): Promise<boolean> {
    try {
      await this.ctx.native.netLinks(this.netns)
      return true
    } catch (e) {
      if (hasErrno(e, 'ENOENT', 'EINVAL')) return false
      throw e
    }
  }

  /** The plan that the kernel follows now: this process may be a new one. */
  async #read(): Promise<ForwardingPlan> {
    const entries: PlanEntry[] = []
    for (const n of await this.ctx.native.netNeighbours(this.netns, 'ip'))
      entries.push({ kind: 'neigh', dev: n.dev, key: n.address, value: n.mac })
    for (const n of await this.ctx.native.netNeighbours(this.netns, 'bridge'))
      if (n.dev.startsWith('vxlan') && n.address !== '')
        entries.push({ kind: 'fdb', dev: n.dev, key: n.mac, value: n.address })
    for (const r of await this.ctx.native.netRoutes(this.netns))
      if (r.to.endsWith('/32') && r.via !== '' && r.table === 254)
        entries.push({ kind: 'route', dev: r.dev, key: r.to.slice(0, -3), value: r.via })
    return planOf(entries)
  }

  async #ensureSegment(s: Segment, there: ReadonlySet<string>, fresh: boolean): Promise<void> {
    const bridge = `br${s.index}`
    const vxlan = `vxlan${s.index}`
    const { mtu, port, local } = this.wire
    const mac = this.bridgeMac ?? macOf(s.gateway)
    if (!there.has(bridge))
      await this.ctx.native.netLink(this.netns, [{ op: 'linkAdd', name: bridge, kind: 'bridge', mac, mtu }])
    await this.ctx.native.netLink(this.netns, [
      { op: 'linkSet', name: bridge, mac, mtu, up: true },
      { op: 'addrAdd', dev: bridge, address: s.gateway, prefix: parseCidr(s.subnet)!.prefix, tolerate: ['EEXIST'] },
    ])
    if (there.has(vxlan) && !fresh) return
    const born = unbornName(this.ctx, s.vni)
    if (there.has(vxlan))
      await this.ctx.native.netLink(this.netns, [{ op: 'linkDel', name: vxlan, tolerate: ['ENODEV'] }])
    this.#applied = null
    await this.ctx.native.netLink(null, [
      { op: 'linkDel', name: born, tolerate: ['ENODEV'] }, // left by a crash between making and moving
      {
        op: 'linkAdd',
        name: born,
        kind: 'vxlan',
        vni: s.vni,
        port,
        local,
        learning: false,
        proxy: true,
        udpChecksum: true,
      },
      { op: 'linkSet', name: born, alias: linkAlias(this.ctx, `vx:${s.vni}`) },
      { op: 'linkSet', name: born, netns: this.netns, rename: vxlan },
    ])
    await this.ctx.native.netLink(this.netns, [
      { op: 'linkSet', name: vxlan, mtu, master: bridge, up: true },
      // The only port that frames for unknown addresses may leave by; it drops those it has no entry for.
      { op: 'bridgePort', name: vxlan, learning: false, flood: true },
    ])
  }

  #birthSysctls(): Record<string, string> {
    const bridged = existsSync('/proc/sys/net/bridge')
    return {
      // Bridged frames must not pass the host's kind of rules, whatever new namespaces inherit.
      ...(bridged
        ? {
            'net.bridge.bridge-nf-call-iptables': '0',
            'net.bridge.bridge-nf-call-ip6tables': '0',
            'net.bridge.bridge-nf-call-arptables': '0',
          }
        : {}),
      ...(this.ctx.kernelIpv6 ? { 'net.ipv6.conf.default.disable_ipv6': '1' } : {}),
      'net.ipv4.conf.all.rp_filter': '0',
      'net.ipv4.conf.default.rp_filter': '0',
      'net.ipv4.conf.all.send_redirects': '0',
      'net.ipv4.conf.default.send_redirects': '0',
      'net.ipv4.ip_forward': this.forwards ? '1' : '0',
    }
  }
}
