import type { OverlayContext } from '../context.js'
import { DEFAULT_BRIDGE } from '../drivers/bridge-options.js'
import { hasErrno } from '../native.js'

/**
 * An accept in our table cannot undo a drop in another one. A FORWARD chain of iptables whose policy is drop (Docker
 * sets it) closes published ports and ways out; the operator has to open it there, so say so once at start.
 */
export async function warnOfForeignDrop(ctx: OverlayContext): Promise<void> {
  let chain: string
  try {
    chain = await ctx.native.netNft(null, 'list chain ip filter FORWARD')
  } catch (e) {
    if (hasErrno(e, 'ENOENT')) return // no such chain: nothing in the way
    ctx.log.debug('cannot look at the FORWARD chain of iptables', { error: String(e) })
    return
  }
  if (!isDropping(chain)) return
  ctx.log.warn(
    'the FORWARD chain of iptables drops by default: containers may be unreachable from outside; accept their traffic there',
    {
      remedy: `iptables -I FORWARD -i ${DEFAULT_BRIDGE} -j ACCEPT; iptables -I FORWARD -m conntrack --ctstate RELATED,ESTABLISHED,DNAT -j ACCEPT`,
    },
  )
}

/** Does the listing of a base chain say that packets are dropped by default? */
export const isDropping = (listing: string): boolean => /hook forward [^;]*;\s*policy drop;/.test(listing)
