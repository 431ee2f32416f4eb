import { type BalancedService, containerTable, deadCommands } from '../balancer/container-table.js'
import type { ClusterSide } from '../cluster-side.js'
import type { OverlayContext } from '../context.js'
import type { NetworkRecord } from '../contract.js'
import { type NameTable, NameTableBuilder } from '../dns/names.js'
import { DNS_ADDRESS, DNS_PORT, SandboxResolver } from '../dns/server.js'
import { isDefaultBridge } from '../drivers/bridge-options.js'
import type { Attachment } from '../drivers/driver.js'
import type { TableModel } from '../firewall/table.js'
import { TableWriter } from '../firewall/table-writer.js'
import { type Live, ownsNetns } from './live.js'
import type { SandboxFiles } from './sandbox-files.js'

/** Containers of a network that has names find each other; the default bridge, host, none and the mesh have none. */
export const hasNames = (n: NetworkRecord | null): boolean =>
  n !== null && n.driver !== 'host' && n.driver !== 'null' && !n.ingress && !isDefaultBridge(n)

export interface DiscoveryModules {
  readonly cluster: ClusterSide
  readonly files: SandboxFiles
  networkOf(id: string): NetworkRecord | null
  attachmentsOf(networkId: string): readonly Attachment[]
}

/** How a container finds others: its name server, and the table in its namespace with services' virtual addresses. */
export class Discovery {
  readonly #names = new Map<string, NameTable>()
  /** Tables by what they are made of: sandboxes on the same networks share one, and its comparison with the next. */
  readonly #models = new Map<
    string,
    { readonly parts: readonly (readonly BalancedService[])[]; readonly model: TableModel }
  >()

  constructor(
    private readonly ctx: OverlayContext,
    private readonly m: DiscoveryModules,
  ) {}

  /** The network's names changed: they are collected anew when next asked for. */
  forget(networkId: string): void {
    this.#names.delete(networkId)
  }

  close(s: Live): void {
    s.resolver?.close()
    s.resolver = null
    s.table = null
  }

  /** Name server and virtual addresses, as the attachments want them. */
  async settle(s: Live): Promise<void> {
    const named = s.attachments.some((a) => !a.hidden && hasNames(this.m.networkOf(a.record.networkId)))
    const wanted = named || (await this.m.files.needsForwarder(s.spec))
    if (wanted && !s.resolver) await this.#openResolver(s)
    if (!wanted && s.resolver) {
      s.resolver.close()
      s.resolver = null
    }
    await Promise.all([this.balance(s, [], []), this.#writeResolvConf(s, wanted)])
  }

  async #writeResolvConf(s: Live, wanted: boolean): Promise<void> {
    if (s.namesInFile === wanted) return
    await this.m.files.writeResolvConf(s.spec, wanted)
    s.namesInFile = wanted
  }

  /** The table in the sandbox's namespace: led-away DNS port, virtual addresses. */
  async balance(s: Live, died: readonly string[], revived: readonly string[]): Promise<void> {
    if (!ownsNetns(s)) return
    const model = this.#model(s)
    if (!s.table && !s.resolver && model.sets.vips!.elements.size === 0 && model.sets.empty!.elements.size === 0) return
    s.table ??= new TableWriter(this.ctx.native, s.netns, this.ctx.log)
    await s.table.write(model, deadCommands(model, died, revived))
  }

  #model(s: Live): TableModel {
    const networks = s.attachments.filter((a) => !a.hidden).map((a) => a.record.networkId)
    const key = `${s.resolver ? 'dns' : ''} ${networks.join(' ')}`
    const parts = networks.map((id) => this.m.cluster.services(id))
    const known = this.#models.get(key)
    if (known?.parts.every((p, i) => p === parts[i])) return known.model
    const dns = s.resolver ? { address: DNS_ADDRESS, port: DNS_PORT } : null
    const model = containerTable(this.ctx.options.instance, dns, parts.flat())
    if (this.#models.size >= MAX_MODELS) this.#models.clear()
    this.#models.set(key, { parts, model })
    return model
  }

  async #openResolver(s: Live): Promise<void> {
    const resolver = new SandboxResolver(this.ctx, {
      tables: () =>
        s.attachments
          .filter((a) => !a.hidden)
          .map(({ record, links }) => {
            const table = this.#nameTable(record.networkId)
            return links ? { ...table, links } : table
          }),
      servers: () => this.m.files.upstreams(s.spec),
    })
    await resolver.open(s.netns!)
    s.resolver = resolver
  }

  /** The names of one network, built when first asked for after a change. */
  #nameTable(networkId: string): NameTable {
    const ready = this.#names.get(networkId)
    if (ready) return ready
    const network = this.m.networkOf(networkId)
    const b = new NameTableBuilder(network?.name ?? '')
    if (network && hasNames(network)) {
      this.m.cluster.names(networkId, b)
      const given = b.defined()
      for (const { record } of this.m.attachmentsOf(networkId)) {
        // A name that the managers gave to a service belongs to the service, not to this one task of it.
        for (const address of [record.ipv4Address, record.ipv6Address].filter((a) => a !== '')) {
          for (const name of record.dnsNames) if (!given.has(name.toLowerCase())) b.add(name, address)
          b.reverse(address, record.name)
        }
      }
    }
    const table = b.build()
    this.#names.set(networkId, table)
    return table
  }
}

/** Combinations of networks whose tables are remembered. */
const MAX_MODELS = 256
