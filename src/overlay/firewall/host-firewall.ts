import type { OverlayContext } from '../context.js'
import type { PortPublication } from '../contract.js'
import { type BridgeState, hostTable, type OpenWay, type PortForward } from './host-table.js'
import { TableWriter } from './table-writer.js'

/** The host's own table: who put what into it, so that each part can be replaced by its owner. */
export class HostFirewall {
  readonly #bridges = new Map<string, BridgeState>()
  readonly #forwards = new Map<string, PortForward[]>()
  readonly #ways = new Map<string, readonly OpenWay[]>()
  readonly #writer: TableWriter

  constructor(private readonly ctx: OverlayContext) {
    this.#writer = new TableWriter(ctx.native, null, ctx.log)
  }

  setBridge(state: BridgeState): void {
    this.#bridges.set(state.bridge, state)
  }

  dropBridge(bridge: string): void {
    this.#bridges.delete(bridge)
  }

  /** `targetIp` null: the sandbox has no address that ports can lead to just now. */
  setForwards(owner: string, ports: readonly PortPublication[], targetIp: string | null): void {
    if (targetIp === null || ports.length === 0) {
      this.#forwards.delete(owner)
      return
    }
    this.#forwards.set(
      owner,
      ports.map((p) => ({
        protocol: p.protocol,
        hostIp: p.hostIp === '0.0.0.0' ? '' : p.hostIp,
        hostPort: p.hostPort,
        targetIp,
        targetPort: p.containerPort,
      })),
    )
  }

  setWays(owner: string, ways: readonly OpenWay[]): void {
    if (ways.length > 0) this.#ways.set(owner, ways)
    else this.#ways.delete(owner)
  }

  /** Resolves when the kernel has what was set so far. */
  apply(): Promise<void> {
    const { instance, packetRules } = this.ctx.options
    return this.#writer.write(
      packetRules
        ? hostTable(
            instance,
            [...this.#bridges.values()],
            [...this.#forwards.values()].flat(),
            [...this.#ways.values()].flat(),
          )
        : { family: 'inet', name: instance, sets: {}, chains: {} },
    )
  }

  remove(): Promise<void> {
    return this.#writer.remove()
  }
}
