import type { ClusterMember } from '#proto'
import { deadCommands } from '../balancer/container-table.js'
import type { OverlayContext } from '../context.js'
import type { PortPublication } from '../contract.js'
import { linkAlias } from '../drivers/link-alias.js'
import type { PortReservations } from '../firewall/port-reservations.js'
import { deleteTable } from '../firewall/table.js'
import { TableWriter } from '../firewall/table-writer.js'
import { addressAt, parseCidr } from '../ipam/ip.js'
import type { OverlaySandbox } from '../swarm/overlay-sandbox.js'
import {
  clusterTable,
  type Gateways,
  MARK,
  type MeshPort,
  RETURN_PRIORITY,
  RETURN_TABLE,
  sandboxTables,
} from './ingress-plan.js'

/** Who reserves the mesh's ports, where containers' own ids stand otherwise. */
const OWNER = 'ingress'

/** This node's part of the routing mesh: the link between host and ingress sandbox, and the tables of both. */
export class IngressMesh {
  readonly #host: TableWriter
  #ip: TableWriter | null = null
  #bridge: TableWriter | null = null
  /** Ports that this node publishes for the cluster, as reserved. */
  readonly #reserved = new Map<string, PortPublication>()
  /** Ports that were reported as taken: once is enough. */
  readonly #reported = new Set<string>()
  #ports: readonly MeshPort[] = []
  #members: readonly string[] = []
  #dataPathPort = 0

  constructor(
    private readonly ctx: OverlayContext,
    private readonly reservations: PortReservations,
  ) {
    this.#host = new TableWriter(ctx.native, null, ctx.log)
  }

  get link(): string {
    return `${this.ctx.options.instance}_ingress`
  }

  get #table(): string {
    return `${this.ctx.options.instance}-cluster`
  }

  /** Link, routes and tables of the sandbox; idempotent. */
  async ensure(sandbox: OverlaySandbox, g: Gateways): Promise<void> {
    const link = parseCidr(this.ctx.options.ingressLink)!
    const host = addressAt(link, 1)
    const inner = addressAt(link, 2)
    const native = this.ctx.native
    const there = (await native.netLinks(sandbox.netns)).some((l) => l.name === 'up0')
    if (!there) {
      await native.netLink(null, [
        { op: 'linkDel', name: this.link, tolerate: ['ENODEV'] },
        { op: 'linkAdd', name: this.link, kind: 'veth', peerName: 'up0', peerNetns: sandbox.netns },
      ])
    }
    await native.netLink(sandbox.netns, [
      { op: 'addrAdd', dev: 'up0', address: inner, prefix: 30, tolerate: ['EEXIST'] },
      { op: 'linkSet', name: 'up0', up: true },
      { op: 'routeReplace', to: 'default', via: host, dev: 'up0' },
      { op: 'ruleAdd', priority: RETURN_PRIORITY, mark: MARK, mask: MARK, table: RETURN_TABLE, tolerate: ['EEXIST'] },
      { op: 'routeReplace', to: 'default', via: g.returnAddress, dev: 'br0', onlink: true, table: RETURN_TABLE },
    ])
    await native.netLink(null, [
      { op: 'addrAdd', dev: this.link, address: host, prefix: 30, tolerate: ['EEXIST'] },
      { op: 'linkSet', name: this.link, up: true, alias: linkAlias(this.ctx, OWNER) },
      ...sandbox.segments.map((s) => ({ op: 'routeReplace' as const, to: s.subnet, via: inner, dev: this.link })),
    ])
    // 127.0.0.1:PORT of this host; the guard in the table closes 127.0.0.0/8 to the outside.
    await native.netSysctl(null, { [`net.ipv4.conf.${this.link}.route_localnet`]: '1' })
  }

  /** The sandbox's tables: which nodes there are. */
  async followNodes(
    sandbox: OverlaySandbox,
    members: readonly ClusterMember[],
    self: string,
    g: Gateways,
  ): Promise<void> {
    this.#ip ??= new TableWriter(this.ctx.native, sandbox.netns, this.ctx.log)
    this.#bridge ??= new TableWriter(this.ctx.native, sandbox.netns, this.ctx.log)
    const tables = sandboxTables(this.ctx.options.instance, members, self, g)
    await Promise.all([this.#ip.write(tables.ip), this.#bridge.write(tables.bridge)])
  }

  /** Members that may send us VXLAN; written with the next `apply` or `followPorts`. */
  setMembers(members: readonly string[], dataPathPort: number): void {
    this.#members = members
    this.#dataPathPort = dataPathPort
  }

  /** Resolves when the host's table has what was set. */
  apply(): Promise<void> {
    return this.#write([], [])
  }

  /** The host's table: published ports. A port that a program of this host has taken is left to it, and said so. */
  async followPorts(wanted: readonly MeshPort[], died: readonly string[], revived: readonly string[]): Promise<void> {
    const keys = new Set(wanted.map(keyOf))
    for (const key of this.#reported) if (!keys.has(key)) this.#reported.delete(key)
    for (const [key, p] of this.#reserved)
      if (!keys.has(key)) {
        this.reservations.release(OWNER, [p])
        this.#reserved.delete(key)
      }
    for (const p of wanted) {
      if (this.#reserved.has(keyOf(p))) continue
      try {
        const port = { containerPort: p.targetPort, protocol: p.protocol, hostIp: '', hostPort: p.publishedPort }
        const [held] = await this.reservations.reserve(OWNER, [port])
        this.#reserved.set(keyOf(p), held!)
        this.#reported.delete(keyOf(p))
      } catch (e) {
        if (this.#reported.has(keyOf(p))) continue
        this.#reported.add(keyOf(p))
        this.ctx.log.error('a published port of a service is in use on this node and is not served here', {
          port: p.publishedPort,
          protocol: p.protocol,
          error: String(e),
        })
      }
    }
    this.#ports = wanted.filter((p) => this.#reserved.has(keyOf(p)))
    await this.#write(died, revived)
    if (died.length > 0) await this.ctx.native.netConntrackDelete(null, { protocol: 'udp', replySources: died })
  }

  /** This process's sockets only; the kernel goes on. */
  stop(): void {
    this.reservations.release(OWNER, [...this.#reserved.values()])
    this.#reserved.clear()
  }

  /** Everything outside the sandbox, which goes by itself. */
  async destroy(): Promise<void> {
    this.stop()
    this.#ip = null
    this.#bridge = null
    this.#ports = []
    await this.ctx.native.netLink(null, [{ op: 'linkDel', name: this.link, tolerate: ['ENODEV'] }])
  }

  /** The host's table too: the node is in no cluster. */
  async removeTable(): Promise<void> {
    await this.#host.remove()
    await this.ctx.native.netNft(null, deleteTable({ family: 'inet', name: this.#table }))
  }

  #write(died: readonly string[], revived: readonly string[]): Promise<void> {
    const model = clusterTable(this.#table, this.link, this.#members, this.#dataPathPort, this.#ports)
    return this.#host.write(model, deadCommands(model, died, revived))
  }
}

const keyOf = (p: MeshPort): string => `${p.protocol}/${p.publishedPort}`
