import { conflict, internal, invalid } from '../../common/index.js'
import type { OverlayContext } from '../context.js'
import type { EndpointRecord, IpamPool, NetworkRecord, PortPublication } from '../contract.js'
import { isV6, parseCidr, parseIp } from '../ipam/ip.js'
import { poolsOf } from '../ipam/subnets.js'
import { hasErrno, type LinkOperation } from '../native.js'
import { isUnknownMethod, type PluginCall, type PluginCalls } from '../plugins/calls.js'
import type { PluginDebts } from '../plugins/debts.js'
import type { Attachment, NetworkDriver } from './driver.js'
import { bringUp } from './interface.js'

/** docs: "Network driver", the remote protocol of libnetwork. */
const NETWORK_DRIVER = 'NetworkDriver'
const GENERIC = 'com.docker.network.generic'
const PORT_MAP = 'com.docker.network.portmap'
const EXPOSED_PORTS = 'com.docker.network.endpoint.exposedports'
const MAC_ADDRESS = 'com.docker.network.endpoint.macaddress'
/** The address space of our own IPAM, under libnetwork's name for it. */
const OWN_SPACE = 'LocalDefault'
/** RouteType of a static route: to a gateway, or straight on the link. */
const CONNECTED = 1
const PROTOCOL_NUMBERS = { tcp: 6, udp: 17, sctp: 132 } as const

const text = (value: unknown): string => (typeof value === 'string' ? value : '')
const record = (x: unknown): Record<string, unknown> =>
  x !== null && typeof x === 'object' && !Array.isArray(x) ? (x as Record<string, unknown>) : {}

/**
 * Networks of a plugin. It makes an interface in the host's namespace for each endpoint, which is moved into the container and,
 * before the plugin is told that the container leaves, back. Everything asked is owed (PluginDebts): by the network its
 * deletion, by the endpoint what ends it.
 */
export class RemoteDriver implements NetworkDriver {
  constructor(
    private readonly ctx: OverlayContext,
    private readonly calls: PluginCalls,
    private readonly debts: PluginDebts,
  ) {}

  /** Throws notFound `noSuchPlugin`; forbidden for one that wants its networks to be the cluster's. */
  async createNetwork(n: NetworkRecord): Promise<void> {
    const { Scope } = await this.calls.ask(call(n, 'GetCapabilities', {}))
    if (Scope !== 'local')
      throw invalid(
        'driverScope',
        `network ${n.name}: plugin "${n.driver}" keeps networks of scope "${text(Scope)}", only local ones can be made`,
        { driver: n.driver },
      )
    await this.debts.askOwing(
      n.id,
      call(n, 'CreateNetwork', {
        NetworkID: n.id,
        Options: {
          'com.docker.network.enable_ipv6': n.ipv6,
          ...(n.internal ? { 'com.docker.network.internal': true } : {}),
          [GENERIC]: n.options,
        },
        IPv4Data: poolsOf(n.ipam.pools, 4).map((p) => poolData(n, p)),
        IPv6Data: poolsOf(n.ipam.pools, 6).map((p) => poolData(n, p)),
      }),
      call(n, 'DeleteNetwork', { NetworkID: n.id }),
    )
  }

  /** Throws what the plugin says: the network then stays. */
  deleteNetwork(n: NetworkRecord): Promise<void> {
    return this.debts.pay(n.id, `${NETWORK_DRIVER}.DeleteNetwork`)
  }

  async attach(n: NetworkRecord, given: Attachment, netns: string): Promise<Attachment> {
    const ids = { NetworkID: n.id, EndpointID: given.record.endpointId }
    let a = given
    try {
      a = { ...a, record: await this.#createEndpoint(n, a.record) }
      const joined = await this.debts.askOwing(
        ids.EndpointID,
        call(n, 'Join', { ...ids, SandboxKey: netns, Options: {} }),
        call(n, 'Leave', ids),
      )
      const name = record(joined.InterfaceName)
      const routes = routesOf(n, joined.StaticRoutes)
      const gateway = addressOrNone(n, 'Gateway', joined.Gateway, 32)
      const ipv6Gateway = addressOrNone(n, 'GatewayIPv6', joined.GatewayIPv6, 128)
      const leadsOut = gateway !== '' || routes.some((r) => r.to === '0.0.0.0/0')
      a = {
        ...a,
        remote: {
          sourceName: text(name.SrcName),
          needsNoEgress: leadsOut || joined.DisableGatewayService === true,
        },
        record: { ...a.record, gateway, ipv6Gateway },
      }
      return a.remote!.sourceName === '' ? a : await this.#take(a, netns, text(name.DstPrefix) || 'eth', routes)
    } catch (error) {
      await this.detach(n, a, netns)
      throw error
    }
  }

  /** The plugin may choose what was left open, and nothing else. */
  async #createEndpoint(n: NetworkRecord, e: EndpointRecord): Promise<EndpointRecord> {
    const ids = { NetworkID: n.id, EndpointID: e.endpointId }
    const cidr = (address: string, prefix: number): string => (address === '' ? '' : `${address}/${prefix}`)
    const asked = {
      Address: cidr(e.ipv4Address, e.ipv4PrefixLength),
      AddressIPv6: cidr(e.ipv6Address, e.ipv6PrefixLength),
      MacAddress: e.macAddress,
    }
    const answer = await this.debts.askOwing(
      e.endpointId,
      call(n, 'CreateEndpoint', {
        ...ids,
        Interface: asked,
        Options: e.macAddress === '' ? {} : { [MAC_ADDRESS]: e.macAddress },
      }),
      call(n, 'DeleteEndpoint', ids),
    )
    const chosen = record(answer.Interface)
    const choice = (field: keyof typeof asked): string => {
      const value = text(chosen[field])
      if (value !== '' && asked[field] !== '' && value !== asked[field])
        throw conflict(
          'pluginBroken',
          `plugin "${n.driver}" modified interface ${field} of an endpoint from ${asked[field]} to ${value}`,
          { plugin: n.driver },
        )
      return value || asked[field]
    }
    const address = (field: 'Address' | 'AddressIPv6'): [string, number] => {
      const value = choice(field)
      const block = value === '' ? null : parseCidr(value)
      if (value !== '' && !block) throw broken(n, field, value)
      return block ? [value.split('/')[0]!, block.prefix] : ['', 0]
    }
    const macAddress = choice('MacAddress').toLowerCase()
    if (macAddress !== '' && !/^([0-9a-f]{2}:){5}[0-9a-f]{2}$/.test(macAddress))
      throw broken(n, 'MacAddress', macAddress)
    const [ipv4Address, ipv4PrefixLength] = address('Address')
    const [ipv6Address, ipv6PrefixLength] = address('AddressIPv6')
    return { ...e, macAddress, ipv4Address, ipv4PrefixLength, ipv6Address, ipv6PrefixLength }
  }

  /** The plugin's interface goes into the namespace under a name of ours. */
  async #take(a: Attachment, netns: string, prefix: string, routes: readonly Route[]): Promise<Attachment> {
    const { native } = this.ctx
    const { sourceName } = a.remote!
    const used = new Set((await native.netLinks(netns)).map((l) => l.name))
    // The name that was asked for stands where the plugin has no wish that differs.
    let dev = prefix === 'eth' ? a.record.interfaceName : `${prefix}0`
    for (let i = 0; used.has(dev); i++) dev = `${prefix}${i}`
    await native.netLink(null, [
      { op: 'linkSet', name: sourceName, up: false },
      { op: 'linkSet', name: sourceName, netns },
    ])
    const mac = a.record.macAddress
    await native.netLink(netns, [{ op: 'linkSet', name: sourceName, rename: dev, ...(mac === '' ? {} : { mac }) }])
    const moved = { ...a, record: { ...a.record, interfaceName: dev } }
    await bringUp(this.ctx, moved, netns, true)
    await native.netLink(
      netns,
      routes.map((r): LinkOperation => ({ op: 'routeReplace', to: r.to, dev, ...(r.via ? { via: r.via } : {}) })),
    )
    const link = mac === '' ? (await native.netLinks(netns)).find((l) => l.name === dev) : undefined
    return link ? { ...moved, record: { ...moved.record, macAddress: link.mac } } : moved
  }

  /** The interface only: what the plugin is owed is paid by the endpoint's owner. */
  async detach(_n: NetworkRecord, a: Attachment, netns: string): Promise<void> {
    const sourceName = a.remote?.sourceName ?? ''
    if (sourceName === '') return
    try {
      const { native } = this.ctx
      const names = new Set((await native.netLinks(netns)).map((l) => l.name))
      // It may have got no further than half the way.
      const dev = [a.record.interfaceName, sourceName].find((name) => names.has(name))
      if (dev === undefined) return
      await native.netLink(netns, [
        { op: 'linkSet', name: dev, up: false },
        ...(dev === sourceName ? [] : [{ op: 'linkSet' as const, name: dev, rename: sourceName }]),
        { op: 'linkSet', name: sourceName, netns: HOST_NETNS },
      ])
    } catch (e) {
      // The namespace is gone, and the link with it; or another of its name stands in the host's.
      if (!hasErrno(e, 'ENOENT', 'EINVAL', 'EEXIST')) throw e
    }
  }

  /** Ports of the endpoint with the default route are the plugin's to publish. Resolves with the attachment as it has become. */
  async program(n: NetworkRecord, a: Attachment, ports: readonly PortPublication[]): Promise<Attachment> {
    const programmed = JSON.stringify(ports)
    if (a.remote?.programmed === programmed) return a
    const ids = { NetworkID: n.id, EndpointID: a.record.endpointId }
    await this.unprogram(n, a)
    const able = await this.debts
      .askOwing(
        ids.EndpointID,
        call(n, 'ProgramExternalConnectivity', {
          ...ids,
          Options: {
            [PORT_MAP]: ports.map((p) => ({
              Proto: PROTOCOL_NUMBERS[p.protocol],
              IP: '',
              Port: p.containerPort,
              HostIP: p.hostIp,
              HostPort: p.hostPort,
              HostPortEnd: p.hostPortEnd ?? p.hostPort,
            })),
            [EXPOSED_PORTS]: ports.map((p) => ({ Proto: PROTOCOL_NUMBERS[p.protocol], Port: p.containerPort })),
          },
        }),
        call(n, 'RevokeExternalConnectivity', ids),
      )
      .catch((caught: unknown) => {
        if (!isUnknownMethod(caught)) throw caught
      })
    if (!able) return a
    return { ...a, remote: { ...a.remote!, programmed } }
  }

  async unprogram(_n: NetworkRecord, a: Attachment): Promise<Attachment> {
    await this.debts.pay(a.record.endpointId, `${NETWORK_DRIVER}.RevokeExternalConnectivity`)
    const { programmed: _, ...remote } = a.remote!
    return { ...a, remote }
  }
}

interface Route {
  readonly to: string
  readonly via: string
}

/** The daemon's own namespace (of its first thread), for a link that is in another. */
const HOST_NETNS = '/proc/self/ns/net'

const call = (n: NetworkRecord, method: string, body: object): PluginCall => ({
  plugin: n.driver,
  method: `${NETWORK_DRIVER}.${method}`,
  body,
})

function poolData(n: NetworkRecord, p: IpamPool): object {
  const { prefix } = parseCidr(p.subnet)!
  return {
    AddressSpace: n.ipam.driver === 'default' ? OWN_SPACE : n.ipam.driver,
    Pool: p.subnet,
    ...(p.gateway ? { Gateway: `${p.gateway}/${prefix}` } : {}),
    AuxAddresses: Object.fromEntries(Object.entries(p.reserved ?? {}).map(([name, ip]) => [name, `${ip}/${prefix}`])),
  }
}

const broken = (n: NetworkRecord, field: string, value: string): Error =>
  internal('pluginBroken', `plugin "${n.driver}" answers with the ${field} "${value}", which is none`, {
    plugin: n.driver,
  })

function addressOrNone(n: NetworkRecord, field: string, value: unknown, bits: 32 | 128): string {
  const address = text(value)
  if (address !== '' && parseIp(address)?.bits !== bits) throw broken(n, field, address)
  return address
}

function routesOf(n: NetworkRecord, routes: unknown): Route[] {
  return (Array.isArray(routes) ? routes : []).map((r) => {
    const { Destination, RouteType, NextHop } = record(r)
    const to = text(Destination)
    if (!parseCidr(to)) throw broken(n, 'Destination', to)
    const via = RouteType === CONNECTED ? '' : addressOrNone(n, 'NextHop', NextHop, isV6(to) ? 128 : 32)
    return { to, via }
  })
}
