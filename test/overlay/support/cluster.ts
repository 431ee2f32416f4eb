// Small valid pieces of what managers push.
import {
  Annotations,
  ClusterMember,
  ClusterMembers,
  Driver,
  EndpointMode,
  IPAMConfig,
  IPAMOptions,
  Network,
  NetworkEndpoint,
  NetworkServiceEntry,
  NetworkSpec,
  NetworkUpdate,
  PortConfig,
} from '#proto'
import type { Host } from './lab.js'

export const OVERLAY = 'ov1aaaaaaaaaaaaaaaaaaaaaa'
export const INGRESS = 'ingressaaaaaaaaaaaaaaaaaa'

export const nodeIdOf = (h: Host): string => `node-${h.name}`

export const membersOf = (hosts: readonly Host[]) =>
  ClusterMembers.create({
    members: hosts.map((h, i) =>
      ClusterMember.create({
        nodeId: nodeIdOf(h),
        hostname: h.name,
        dataPathAddress: h.address,
        ingressIndex: i + 1,
      }),
    ),
    dataPathPort: 4789,
  })

export const overlayNetwork = (
  fields: { id?: string; name?: string; subnet?: string; vni?: number; ingress?: boolean; internal?: boolean } = {},
): Network => {
  const subnet = fields.subnet ?? '10.0.1.0/24'
  return Network.create({
    id: fields.id ?? OVERLAY,
    spec: NetworkSpec.create({
      annotations: Annotations.create({ name: fields.name ?? 'ov1' }),
      driverConfig: Driver.create({ name: 'overlay' }),
      ingress: fields.ingress ?? false,
      internal: fields.internal ?? false,
    }),
    ipam: IPAMOptions.create({
      configs: [IPAMConfig.create({ subnet, gateway: subnet.replace(/0\/24$/, '1') })],
    }),
    vnis: [fields.vni ?? 4097],
  })
}

export const endpoint = (
  id: string,
  host: Host,
  address: string,
  fields: Partial<NetworkEndpoint> = {},
): NetworkEndpoint => NetworkEndpoint.create({ id, nodeId: nodeIdOf(host), address, name: id, ready: true, ...fields })

export const service = (serviceId: string, virtualIp: string, fields: Partial<NetworkServiceEntry> = {}) =>
  NetworkServiceEntry.create({ serviceId, name: serviceId, mode: EndpointMode.VIP, virtualIp, ...fields })

export const port = (publishedPort: number, targetPort: number, protocol: 0 | 1 | 2 = 0) =>
  PortConfig.create({ publishedPort, targetPort, protocol })

export const fullUpdate = (network: Network, toVersion: number, fields: Partial<NetworkUpdate> = {}): NetworkUpdate =>
  NetworkUpdate.create({ networkId: network.id, network, toVersion, full: true, ...fields })

export const change = (networkId: string, fromVersion: number, fields: Partial<NetworkUpdate> = {}): NetworkUpdate =>
  NetworkUpdate.create({ networkId, fromVersion, toVersion: fromVersion + 1, ...fields })

/** All hosts join, and know each other. */
export async function joinAll(hosts: readonly Host[]): Promise<void> {
  for (const h of hosts) {
    await h.start()
    await h.service.clusterJoined({ nodeId: nodeIdOf(h), dataPathAddress: h.address })
    await h.service.applyMembers(membersOf(hosts))
  }
}
