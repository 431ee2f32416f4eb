import type { BalancedService } from './balancer/container-table.js'
import type { NetworkRecord } from './contract.js'
import type { NameTableBuilder } from './dns/names.js'
import type { NetworkDriver } from './drivers/driver.js'

/** What sandboxes need to know of the cluster's networks. */
export interface ClusterSide {
  readonly driver: NetworkDriver
  list(): readonly NetworkRecord[]
  get(id: string): NetworkRecord | null
  /** Puts the names of the network's services and endpoints into the table. */
  names(networkId: string, into: NameTableBuilder): void
  services(networkId: string): readonly BalancedService[]
  /** The hidden bridge by which sandboxes of cluster networks reach the outside; made when first needed. */
  egress(): Promise<NetworkRecord>
  /** A sandbox is on the network no more. */
  left(networkId: string): Promise<void>
}
