import type { OverlayContext } from '../context.js'
import type { PortPublication } from '../contract.js'
import { isV6 } from '../ipam/ip.js'
import { type BridgeState, hostTable, type OpenWay, type PortForward } from './host-table.js'
import { TableWriter } from './table-writer.js'

/** Where a sandbox's published ports lead: addresses of its own, "" where it has none of the family. */
export interface Target {
  readonly v4: string
  readonly v6: string
}

export const NO_TARGET: Target = { v4: '', v6: '' }

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

  /** Ports of a family without a target are not led anywhere by rules. */
  setForwards(owner: string, ports: readonly PortPublication[], target: Target): void {
    const forwards = ports.flatMap((p): PortForward[] => {
      const targetIp = isV6(p.hostIp) ? target.v6 : target.v4
      const hostIp = p.hostIp === '0.0.0.0' || p.hostIp === '::' ? '' : p.hostIp
      const { protocol, hostPort, containerPort } = p
      return targetIp === '' ? [] : [{ protocol, hostIp, hostPort, targetIp, targetPort: containerPort }]
    })
    if (forwards.length === 0) this.#forwards.delete(owner)
    else this.#forwards.set(owner, forwards)
  }

  setWays(owner: string, ways: readonly OpenWay[]): void {
    if (ways.length > 0) this.#ways.set(owner, ways)
    else this.#ways.delete(owner)
  }

  /** Resolves when the kernel has what was set so far. */
  apply(): Promise<void> {
    const { instance, packetRules, packetRules6 } = this.ctx.options
    return this.#writer.write(
      packetRules
        ? hostTable(
            instance,
            [...this.#bridges.values()],
            [...this.#forwards.values()].flat(),
            [...this.#ways.values()].flat(),
            packetRules6,
          )
        : { family: 'inet', name: instance, sets: {}, chains: {} },
    )
  }

  remove(): Promise<void> {
    return this.#writer.remove()
  }
}
