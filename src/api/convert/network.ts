import type { Network } from '#proto'
import { rfc3339, ZERO_TIME } from '../../common/index.js'
import type { ContainerView } from '../../engine/index.js'
import type { NetworkRecord, NetworkService } from '../../overlay/index.js'
import { fromTimestamp } from './proto.js'

/** A network as the lists and inspect show it, with its containers on this host. */
export function networkJson(
  n: NetworkRecord,
  networks: NetworkService,
  containers: readonly ContainerView[],
  detailed: boolean,
): Record<string, unknown> {
  const names = new Map(containers.map((c) => [c.id, c.name]))
  return {
    Name: n.name,
    Id: n.id,
    Created: n.createdMs > 0 ? rfc3339(n.createdMs) : ZERO_TIME,
    Scope: n.scope,
    Driver: n.driver,
    EnableIPv4: true,
    EnableIPv6: n.ipv6,
    IPAM: {
      Driver: n.ipam.driver || 'default',
      Options: Object.keys(n.ipam.options).length > 0 ? n.ipam.options : null,
      Config: [...n.ipam.pools, ...(n.ipam.idlePools ?? [])].map((p) => ({
        Subnet: p.subnet,
        ...(p.range ? { IPRange: p.range } : {}),
        ...(p.gateway ? { Gateway: p.gateway } : {}),
        ...(p.reserved && Object.keys(p.reserved).length > 0 ? { AuxiliaryAddresses: p.reserved } : {}),
      })),
    },
    Internal: n.internal,
    Attachable: n.attachable,
    Ingress: n.ingress,
    ConfigFrom: { Network: n.configFrom ?? '' },
    ConfigOnly: n.configOnly,
    Containers: detailed
      ? Object.fromEntries(
          networks
            .endpoints(n.id)
            .filter((e) => names.has(e.sandboxId))
            .map((e) => [
              e.sandboxId,
              {
                Name: names.get(e.sandboxId),
                EndpointID: e.endpointId,
                MacAddress: e.macAddress,
                IPv4Address: e.ipv4Address ? `${e.ipv4Address}/${e.ipv4PrefixLength}` : '',
                IPv6Address: e.ipv6Address ? `${e.ipv6Address}/${e.ipv6PrefixLength}` : '',
              },
            ]),
        )
      : {},
    Options: { ...n.options, ...n.driverState },
    Labels: n.labels,
  }
}

/** A swarm network as the managers have it, in the same form. */
export function swarmNetworkRecord(n: Network): NetworkRecord {
  const spec = n.spec
  return {
    id: n.id,
    name: spec?.annotations?.name ?? '',
    scope: 'swarm',
    createdMs: fromTimestamp(n.meta?.createdAt ?? null),
    driver: spec?.driverConfig?.name || n.driverState?.name || 'overlay',
    internal: spec?.internal ?? false,
    attachable: spec?.attachable ?? false,
    ingress: spec?.ingress ?? false,
    ipv6: spec?.ipv6Enabled ?? false,
    ipam: {
      driver: n.ipam?.driver?.name || 'default',
      options: n.ipam?.driver?.options ?? {},
      pools:
        (n.ipam ?? spec?.ipam)?.configs.map((c) => ({
          subnet: c.subnet,
          ...(c.range ? { range: c.range } : {}),
          ...(c.gateway ? { gateway: c.gateway } : {}),
          reserved: c.reserved,
        })) ?? [],
    },
    options: spec?.driverConfig?.options ?? {},
    driverState: n.driverState?.options ?? {},
    labels: spec?.annotations?.labels ?? {},
    configOnly: false,
    configFrom: spec?.configFrom || null,
  }
}
