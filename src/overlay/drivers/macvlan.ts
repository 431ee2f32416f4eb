import { invalid, unavailable } from '../../common/index.js'
import type { OverlayContext } from '../context.js'
import type { NetworkRecord } from '../contract.js'
import { hasErrno } from '../native.js'
import type { Attachment, NetworkDriver } from './driver.js'
import { bringUp } from './interface.js'

export const MACVLAN_OPTION = { parent: 'parent', mode: 'macvlan_mode' } as const

/** Endpoints are links of their own on a parent interface of the host; a parent "eth0.50" is made as VLAN 50 of eth0. */
export class MacvlanDriver implements NetworkDriver {
  constructor(private readonly ctx: OverlayContext) {}

  async ensure(n: NetworkRecord): Promise<void> {
    const parent = parentOf(n)
    const links = await this.ctx.native.netLinks(null)
    if (links.some((l) => l.name === parent)) return
    const vlan = /^(.+)\.(\d{1,4})$/.exec(parent)
    if (!vlan || !links.some((l) => l.name === vlan[1]))
      throw invalid(
        'noSuchParent',
        `network ${n.name}: this host has no interface ${parent}; set option parent to one`,
        {
          parent,
        },
      )
    await this.ctx.native.netLink(null, [
      { op: 'linkAdd', name: parent, kind: 'vlan', parent: vlan[1]!, vlanId: Number(vlan[2]), tolerate: ['EEXIST'] },
      { op: 'linkSet', name: parent, up: true },
    ])
  }

  async attach(n: NetworkRecord, a: Attachment, netns: string): Promise<Attachment> {
    const e = a.record
    const parent = parentOf(n)
    const mode = n.options[MACVLAN_OPTION.mode] ?? 'bridge'
    try {
      await this.ctx.native.netLink(null, [
        { op: 'linkAdd', name: e.interfaceName, kind: 'macvlan', parent, mode, mac: e.macAddress, netns },
      ])
    } catch (error) {
      const why = hasErrno(error, 'EEXIST', 'EBUSY') ? `${parent} is already used in another way` : String(error)
      throw unavailable(
        'macvlanSetup',
        `cannot make a macvlan of network ${n.name} on ${parent}: ${why}`,
        { parent },
        {
          cause: error,
        },
      )
    }
    try {
      await bringUp(this.ctx, a, netns, true)
      return a
    } catch (error) {
      await this.detach(n, a, netns)
      throw error
    }
  }

  async detach(_n: NetworkRecord, a: Attachment, netns: string): Promise<void> {
    try {
      await this.ctx.native.netLink(netns, [{ op: 'linkDel', name: a.record.interfaceName, tolerate: ['ENODEV'] }])
    } catch (e) {
      if (!hasErrno(e, 'ENOENT', 'EINVAL')) throw e // the namespace is gone, and the link with it
    }
  }
}

export const parentOf = (n: NetworkRecord): string => n.options[MACVLAN_OPTION.parent] ?? ''
