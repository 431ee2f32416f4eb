import type { OverlayContext } from '../context.js'
import { isV6 } from '../ipam/ip.js'
import type { LinkOperation } from '../native.js'
import type { Attachment } from './driver.js'

/** All addresses of an endpoint, as `ip address add` would name them. */
export function addressesOf({ record: e, linkLocalAddresses }: Attachment): { address: string; prefix: number }[] {
  return [
    { address: e.ipv4Address, prefix: e.ipv4PrefixLength },
    { address: e.ipv6Address, prefix: e.ipv6PrefixLength },
    ...(linkLocalAddresses ?? []).map((address) => ({ address, prefix: isV6(address) ? 64 : 16 })),
  ].filter((a) => a.address !== '')
}

/** Brings the endpoint's interface up with its addresses. `listens`: routers of its network may announce themselves. */
export async function bringUp(ctx: OverlayContext, a: Attachment, netns: string, listens = false): Promise<void> {
  const dev = a.record.interfaceName
  const addresses = addressesOf(a)
  if (ctx.kernelIpv6 && addresses.some((x) => isV6(x.address)))
    await ctx.native.netSysctl(netns, ipv6Sysctls(dev, listens))
  await ctx.native.netLink(netns, [
    ...addresses.map((x): LinkOperation => ({ op: 'addrAdd', dev, ...x })),
    { op: 'linkSet', name: dev, up: true },
  ])
}

/**
 * IPv6 on an interface. Nobody has our addresses, so there is no detection of duplicates (it would cost a second); routers are
 * only believed where the network is not ours: else a container could lead others astray (CVE-2020-13401).
 */
export function ipv6Sysctls(dev: string, listens: boolean): Record<string, string> {
  const at = `net.ipv6.conf.${dev.replaceAll('.', '/')}`
  return {
    [`${at}.disable_ipv6`]: '0',
    [`${at}.dad_transmits`]: '0',
    ...(listens ? {} : { [`${at}.accept_ra`]: '0' }),
  }
}
