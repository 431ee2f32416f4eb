import type { OverlayContext } from '../context.js'
import type { PluginCalls } from './calls.js'

const NODE_DISCOVERY = 1

/**
 * Network drivers that connect beyond this host (ConnectivityScope "global") are told of the cluster's nodes, in the background
 * and in order; anew after a start of the daemon. What one does not take is logged, and told again with the next change.
 */
export class NodeDiscovery {
  /** Data path address to whether it is this node's. */
  #nodes: ReadonlyMap<string, boolean> = new Map()
  readonly #told = new Map<string, Set<string>>()
  #turn: Promise<void> = Promise.resolve()

  /** `drivers`: plugins that there are networks of. */
  constructor(
    private readonly ctx: OverlayContext,
    private readonly calls: PluginCalls,
    private readonly drivers: () => ReadonlySet<string>,
  ) {}

  set(nodes: ReadonlyMap<string, boolean>): void {
    this.#nodes = nodes
    this.tell()
  }

  /** There may be other nodes, or drivers that know of none. */
  tell(): void {
    this.#turn = this.#turn.then(async () => {
      await Promise.all(
        [...this.drivers()].map((driver) =>
          this.#tellOne(driver).catch((error: unknown) =>
            this.ctx.log.warn('a network plugin was not told of the nodes', { plugin: driver, error: String(error) }),
          ),
        ),
      )
    })
  }

  async #tellOne(driver: string): Promise<void> {
    const told = this.#told.get(driver) ?? new Set<string>()
    const come = [...this.#nodes].filter(([address]) => !told.has(address))
    const gone = [...told].filter((address) => !this.#nodes.has(address))
    if (come.length + gone.length === 0) return
    const { Scope, ConnectivityScope } = await this.calls.tell(of(driver, 'GetCapabilities', {}))
    if ((ConnectivityScope || Scope) !== 'global') return
    this.#told.set(driver, told)
    for (const [address, isSelf] of come) {
      await this.calls.tell(of(driver, 'DiscoverNew', about(address, isSelf)))
      told.add(address)
    }
    for (const address of gone) {
      await this.calls.tell(of(driver, 'DiscoverDelete', about(address, false)))
      told.delete(address)
    }
  }
}

const of = (plugin: string, method: string, body: object) => ({ plugin, method: `NetworkDriver.${method}`, body })

const about = (address: string, isSelf: boolean) => ({
  DiscoveryType: NODE_DISCOVERY,
  DiscoveryData: { Address: address, BindAddress: isSelf ? address : '', Self: isSelf },
})
