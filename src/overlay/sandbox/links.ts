import type { NetworkRecord } from '../contract.js'
import type { OpenWay } from '../firewall/host-table.js'
import { contains, parseCidr, parseIp } from '../ipam/ip.js'
import { poolsOf } from '../ipam/subnets.js'
import type { SandboxRecord } from './live.js'

/** From a sandbox's own address on a bridge to those that it is linked to there. */
export function waysOf(s: SandboxRecord, networkOf: (id: string) => NetworkRecord | null): OpenWay[] {
  return s.attachments.flatMap(({ record: { networkId, ipv4Address } }) => {
    const network = networkOf(networkId)
    if (network?.driver !== 'bridge' || ipv4Address === '') return []
    const block = parseCidr(poolsOf(network.ipam.pools, 4)[0]!.subnet)!
    return (s.spec.links ?? [])
      .filter(({ address }) => contains(block, parseIp(address)!))
      .flatMap(({ address, ports }) => ports.map((p) => ({ ...p, fromIp: ipv4Address, toIp: address })))
  })
}
