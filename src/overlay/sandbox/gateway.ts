import type { NetworkRecord } from '../contract.js'
import type { Attachment } from '../drivers/driver.js'

/** Where a sandbox's default route goes. */
export type GatewayChoice =
  | { readonly by: 'attachment'; readonly attachment: Attachment }
  /** It is on cluster networks only: it needs the hidden bridge to reach the outside. */
  | { readonly by: 'egress' }
  | { readonly by: 'none' }

/**
 * The endpoint whose network leads outside: the highest priority, then the network's name. Internal networks never do.
 * Pure.
 */
export function chooseGateway(
  attachments: readonly Attachment[],
  networkOf: (id: string) => NetworkRecord | null,
): GatewayChoice {
  const attachment = best(attachments, networkOf, (a) => a.record.gateway)
  if (attachment) return { by: 'attachment', attachment }
  const needsEgress = attachments.some((a) => {
    const n = networkOf(a.record.networkId)
    return !a.hidden && n && !n.internal && (n.driver === 'overlay' || a.remote?.needsNoEgress === false)
  })
  return needsEgress ? { by: 'egress' } : { by: 'none' }
}

/** The same for IPv6, which the hidden bridge does not have. Pure. */
export const chooseIpv6Gateway = (
  attachments: readonly Attachment[],
  networkOf: (id: string) => NetworkRecord | null,
): Attachment | null => best(attachments, networkOf, (a) => a.record.ipv6Gateway)

const best = (
  attachments: readonly Attachment[],
  networkOf: (id: string) => NetworkRecord | null,
  gatewayOf: (a: Attachment) => string,
): Attachment | null =>
  attachments
    .filter((a) => !a.hidden && gatewayOf(a) !== '')
    .map((attachment) => ({ attachment, network: networkOf(attachment.record.networkId) }))
    .filter((c) => c.network && c.network.driver !== 'overlay' && !c.network.internal)
    .sort(
      (a, b) =>
        b.attachment.gatewayPriority - a.attachment.gatewayPriority || (a.network!.name < b.network!.name ? -1 : 1),
    )[0]?.attachment ?? null

/** eth0, eth1, ...: the first that is free. */
export function nextInterface(attachments: readonly Attachment[]): string {
  const used = new Set(attachments.map((a) => a.record.interfaceName))
  for (let i = 0; ; i++) if (!used.has(`eth${i}`)) return `eth${i}`
}

/** Names under which a container is found on networks that have a name server. */
export const dnsNamesOf = (
  spec: { readonly id: string; readonly name: string; readonly hostname: string },
  aliases: readonly string[],
): string[] => [...new Set([spec.name, ...aliases, spec.id.slice(0, 12), spec.hostname].filter((n) => n !== ''))]
