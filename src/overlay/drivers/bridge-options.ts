import type { NetworkRecord } from '../contract.js'
import type { BridgeState } from '../firewall/host-table.js'
import { isV6 } from '../ipam/ip.js'

/** Labels that Docker's clients use to set a bridge network up. */
export const BRIDGE_OPTION = {
  name: 'com.docker.network.bridge.name',
  icc: 'com.docker.network.bridge.enable_icc',
  masquerade: 'com.docker.network.bridge.enable_ip_masquerade',
  hostBinding: 'com.docker.network.bridge.host_binding_ipv4',
  sourceAddress: 'com.docker.network.host_ipv4',
  isDefault: 'com.docker.network.bridge.default_bridge',
  mtu: 'com.docker.network.driver.mtu',
} as const

/** Device of the default network, under the name that firewalls and scripts know. */
export const DEFAULT_BRIDGE = 'docker0'
/** The network by which containers of cluster networks reach the outside, and its device. */
export const EGRESS_NETWORK = 'docker_gwbridge'

const isOn = (value: string | undefined): boolean => value === undefined || /^(true|1|t|yes|on)$/i.test(value)

export const bridgeName = (n: NetworkRecord): string => n.options[BRIDGE_OPTION.name] ?? `br-${n.id.slice(0, 12)}`

export const isDefaultBridge = (n: NetworkRecord): boolean => n.options[BRIDGE_OPTION.isDefault] === 'true'

/** Endpoints may reach each other directly. */
export const isInterConnected = (n: NetworkRecord): boolean => isOn(n.options[BRIDGE_OPTION.icc])

export const mtuOf = (n: NetworkRecord, standard: number): number => {
  const mtu = Number(n.options[BRIDGE_OPTION.mtu])
  return Number.isInteger(mtu) && mtu >= 68 && mtu <= 65535 ? mtu : standard
}

export const bridgeState = (n: NetworkRecord): BridgeState => ({
  bridge: bridgeName(n),
  subnet: n.ipam.pools.find((p) => !isV6(p.subnet))!.subnet,
  subnet6: n.ipam.pools.find((p) => isV6(p.subnet))?.subnet ?? '',
  masquerade: isOn(n.options[BRIDGE_OPTION.masquerade]),
  sourceAddress: n.options[BRIDGE_OPTION.sourceAddress] ?? '',
  internal: n.internal,
  interConnected: isInterConnected(n),
})
