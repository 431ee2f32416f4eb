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
  const candidates = attachments
    .filter((a) => !a.hidden && a.record.gateway !== '')
    .map((attachment) => ({ attachment, network: networkOf(attachment.record.networkId) }))
    .filter((c) => c.network && c.network.driver !== 'overlay' && !c.network.internal)
    .sort(
      (a, b) =>
        b.attachment.gatewayPriority - a.attachment.gatewayPriority || (a.network!.name < b.network!.name ? -1 : 1),
    )
  if (candidates[0]) return { by: 'attachment', attachment: candidates[0].attachment }
  const needsEgress = attachments.some((a) => {
    const n = networkOf(a.record.networkId)
    return !a.hidden && n?.driver === 'overlay' && !n.internal
  })
  return needsEgress ? { by: 'egress' } : { by: 'none' }
}

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
