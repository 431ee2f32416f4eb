import { isIPv4, isIPv6 } from 'node:net'
import { conflict, invalid, isKind, shortId } from '../common/index.js'
import type { JoinRequest, NetworkRecord, Sandbox, SandboxSpec } from '../overlay/index.js'
import type { Container } from './container.js'
import type { EngineContext } from './context.js'
import { parseLink, sandboxLinks } from './links.js'
import { publications } from './ports.js'
import { sharedWith } from './record.js'
import type { ContainerConfig, EndpointSettings, HostConfig, NetworkingConfig } from './types.js'

const PREDEFINED = new Set(['bridge', 'host', 'none'])

/** A network with names: links are answered there, not written into /etc/hosts. */
export const isUserDefined = (networkMode: string): boolean =>
  !PREDEFINED.has(networkMode) && networkMode !== 'default' && sharedWith(networkMode) === null

/** A name for `--hostname`'s place when the user gave none. */
export const hostnameOf = (id: string, config: ContainerConfig): string => config.Hostname || shortId(id)

/** Null for one that does not exist. */
function networkIfKnown(ctx: EngineContext, reference: string): NetworkRecord | null {
  try {
    return ctx.networks.findNetwork(reference)
  } catch (e) {
    if (isKind(e, 'notFound')) return null
    throw e
  }
}

/** dockerd's sentence for more than one endpoint at creation, which its API takes since 1.44. */
export const manyEndpoints = (names: readonly string[]): string =>
  `Container cannot be connected to network endpoints: ${names.join(', ')}`

/**
 * The endpoints a new container is to have, by network name. A single network may be made later: the start looks for it
 * again, and refuses without it.
 */
export function wantedEndpoints(
  ctx: EngineContext,
  id: string,
  config: ContainerConfig,
  host: HostConfig,
  networking: NetworkingConfig | null | undefined,
): Record<string, EndpointSettings> {
  const mode = host.NetworkMode!
  const given = Object.entries(networking?.EndpointsConfig ?? {})
  if (sharedWith(mode) !== null) {
    if (given.length > 0)
      throw invalid('networkMode', 'conflicting options: cannot attach to networks with the container network mode')
    return {}
  }
  const wanted: Record<string, EndpointSettings> = {}
  for (const [reference, settings] of given) {
    const network = networkIfKnown(ctx, reference === 'default' ? 'bridge' : reference)
    if (!network && given.length > 1)
      throw invalid(
        'noSuchNetwork',
        `${manyEndpoints(given.map(([name]) => name))}: network ${reference} not found`, // not notFound: clients would pull the image
      )
    const name = network?.name ?? reference
    if ((mode === 'host' || mode === 'none') && name !== mode)
      throw invalid('networkMode', `container cannot be connected to network ${name}: its network mode is ${mode}`)
    wanted[name] = endpointSettings(id, network, settings)
  }
  const primary = networkIfKnown(ctx, mode)
  const name = primary?.name ?? mode
  const endpoint = wanted[name] ?? endpointSettings(id, primary, null)
  wanted[name] = endpoint
  if (config.MacAddress && !endpoint.MacAddress) endpoint.MacAddress = config.MacAddress
  return wanted
}

function checkAddress(network: NetworkRecord | null, ipam: EndpointSettings['IPAMConfig']): void {
  if (ipam?.IPv4Address && !isIPv4(ipam.IPv4Address))
    throw invalid('badAddress', `invalid IPv4 address: ${ipam.IPv4Address}`)
  // An IPv4 address in the clothes of the other family is none of it.
  if (ipam?.IPv6Address && (!isIPv6(ipam.IPv6Address) || /^::ffff:/i.test(ipam.IPv6Address)))
    throw invalid('badAddress', `invalid IPv6 address: ${ipam.IPv6Address}`)
  if (!network || (!ipam?.IPv4Address && !ipam?.IPv6Address)) return
  if (PREDEFINED.has(network.name))
    throw invalid('userAddress', 'user specified IP address is supported on user defined networks only')
  const { pools, idlePools = [] } = network.ipam
  const ofUser = [...pools, ...idlePools].filter((p) => !p.isAutomatic).map((p) => isIPv6(p.subnet.split('/')[0]!))
  if ((ipam.IPv4Address && !ofUser.includes(false)) || (ipam.IPv6Address && !ofUser.includes(true)))
    throw invalid(
      'userAddress',
      'user specified IP address is supported only when connecting to networks with user configured subnets',
    )
}

function endpointSettings(
  id: string,
  network: NetworkRecord | null,
  settings: EndpointSettings | null,
): EndpointSettings {
  const isPredefined = network !== null && PREDEFINED.has(network.name)
  checkAddress(network, settings?.IPAMConfig)
  const links: unknown = settings?.Links ?? []
  if (!Array.isArray(links) || !links.every((l) => typeof l === 'string' && /^[^:]+(:[^:]+)?$/.test(l)))
    throw invalid('badLink', `bad format for links: ${JSON.stringify(links)}`)
  if (isPredefined && settings?.Aliases?.length)
    throw invalid('networkAlias', 'network-scoped alias is supported only for containers in user defined networks')
  return {
    ...settings,
    NetworkID: network?.id ?? '',
    Aliases: isPredefined ? (settings?.Aliases ?? null) : [...new Set(settings?.Aliases ?? [])],
    DNSNames: isPredefined
      ? null
      : [...new Set([...(settings?.Aliases ?? []), ...(settings?.DNSNames ?? []), shortId(id)])],
  }
}

function endpointLink(text: string): [alias: string, name: string] {
  const { reference, alias } = parseLink(text)
  return [alias, reference]
}

function joinRequest(container: Container, networkName: string, settings: EndpointSettings): JoinRequest {
  return {
    ...(settings.IPAMConfig?.IPv4Address ? { ipv4Address: settings.IPAMConfig.IPv4Address } : {}),
    ...(settings.IPAMConfig?.IPv6Address ? { ipv6Address: settings.IPAMConfig.IPv6Address } : {}),
    ...(settings.IPAMConfig?.LinkLocalIPs?.length ? { linkLocalAddresses: settings.IPAMConfig.LinkLocalIPs } : {}),
    ...(settings.MacAddress ? { macAddress: settings.MacAddress } : {}),
    aliases: PREDEFINED.has(networkName)
      ? []
      : [...new Set([...(settings.Aliases ?? []), ...(settings.DNSNames ?? []), shortId(container.id)])],
    ...(settings.Links?.length ? { links: Object.fromEntries(settings.Links.map(endpointLink)) } : {}),
    ...(settings.DriverOpts ? { driverOptions: settings.DriverOpts } : {}),
    ...(settings.GwPriority ? { gatewayPriority: settings.GwPriority } : {}),
  }
}

function sandboxSpec(ctx: EngineContext, container: Container): SandboxSpec {
  const { config, hostConfig, networkMode } = container.record
  const share = sharedWith(networkMode)
  const { dns } = ctx.options
  return {
    id: container.id,
    name: container.name,
    hostname: hostnameOf(container.id, config),
    domainname: config.Domainname ?? '',
    mode:
      share !== null
        ? { shareWith: networkOwner(ctx, container, share).id }
        : networkMode === 'host' || networkMode === 'none'
          ? networkMode
          : 'private',
    dns: {
      servers: hostConfig.Dns?.length ? hostConfig.Dns : dns.servers,
      search: hostConfig.DnsSearch?.length ? hostConfig.DnsSearch : dns.search,
      options: hostConfig.DnsOptions?.length ? hostConfig.DnsOptions : dns.options,
    },
    extraHosts: hostConfig.ExtraHosts ?? [],
    links: sandboxLinks(ctx, container),
    sysctls: networkMode === 'host' ? {} : netSysctls(hostConfig),
    filesDir: container.dir,
  }
}

/** net.* of the user, over what docker sets so that a process without rights may ping and use low ports. */
const netSysctls = (host: HostConfig): Record<string, string> => ({
  'net.ipv4.ip_unprivileged_port_start': '0',
  'net.ipv4.ping_group_range': '0 2147483647',
  ...Object.fromEntries(Object.entries(host.Sysctls ?? {}).filter(([name]) => name.startsWith('net.'))),
})

function networkOwner(ctx: EngineContext, container: Container, reference: string): Container {
  if (ctx.registry.find(reference) === container) throw conflict('ownNetwork', 'cannot join own network')
  return runningContainer(ctx, reference, 'network')
}

/** @throws conflict when it does not run: its namespaces are needed. */
export function runningContainer(ctx: EngineContext, reference: string, what: string): Container {
  const other = ctx.registry.find(reference)
  if (!other.live || !other.isRunning)
    throw conflict('joinNotRunning', `cannot join ${what} namespace of a non running container: ${other.id}`, {
      container: other.id,
    })
  return other
}

/** The namespace and the files of a container about to start. Undone by deleteSandbox. */
export const openSandbox = (ctx: EngineContext, container: Container): Promise<Sandbox> =>
  ctx.networks.createSandbox(sandboxSpec(ctx, container))

/** Its interfaces, names and published ports. */
export async function joinNetworks(ctx: EngineContext, container: Container): Promise<Sandbox> {
  for (const [name, settings] of Object.entries(container.record.endpoints)) {
    // The network may have been removed and made anew under its name since.
    const network = ctx.networks.networks().find((n) => n.id === settings.NetworkID) ?? ctx.networks.findNetwork(name)
    settings.NetworkID = network.id
    await ctx.networks.join(container.id, network.id, joinRequest(container, name, settings))
    networkEvent(ctx, container, network, 'connect')
  }
  const ports = publications(container.record.config, container.record.hostConfig)
  if (ports.length > 0 && container.record.networkMode !== 'host' && container.record.networkMode !== 'none')
    await ctx.networks.publish(container.id, ports)
  return ctx.networks.sandbox(container.id)!
}

export async function disconnectNetworks(ctx: EngineContext, container: Container): Promise<void> {
  const joined = container.sandbox?.endpoints ?? []
  await ctx.networks.deleteSandbox(container.id)
  container.sandbox = null
  const byId = new Map(ctx.networks.networks().map((n) => [n.id, n]))
  for (const endpoint of joined) {
    const network = byId.get(endpoint.networkId)
    if (network) networkEvent(ctx, container, network, 'disconnect')
  }
}

function networkEvent(
  ctx: EngineContext,
  container: Container,
  network: { readonly id: string; readonly name: string; readonly driver: string },
  action: 'connect' | 'disconnect',
): void {
  ctx.hub.publish({
    type: 'network',
    action,
    actorId: network.id,
    attributes: { container: container.id, name: network.name, type: network.driver },
    scope: 'local',
  })
}

const sharesNetwork = (): Error =>
  invalid(
    'sharedNetwork',
    'container sharing network namespace with another container or host cannot be connected to any other network',
  )
const ofHost = (): Error =>
  invalid('hostNetwork', 'container cannot be disconnected from host network or connected to host network')

export async function connect(
  ctx: EngineContext,
  container: Container,
  networkReference: string,
  settings: EndpointSettings | null,
): Promise<void> {
  const network = ctx.networks.findNetwork(networkReference)
  const { record } = container
  if (sharedWith(record.networkMode) !== null) throw sharesNetwork()
  if (record.networkMode === 'host') throw sharesNetwork()
  const wanted = endpointSettings(container.id, network, settings)
  if (network.name === 'host') throw ofHost()
  if (network.name === 'none' || record.endpoints.none)
    throw invalid(
      'noneNetwork',
      'container cannot be connected to multiple networks with one of the networks in private (none) mode',
    )
  if (record.endpoints[network.name] && container.isRunning)
    throw conflict(
      'endpointExists',
      `endpoint with name ${container.name} already exists in network ${network.name}: the container is already attached to network ${network.name}`,
    )
  if (container.isRunning) {
    await ctx.networks.join(container.id, network.id, joinRequest(container, network.name, wanted))
    container.sandbox = ctx.networks.sandbox(container.id)
  }
  record.endpoints = { ...record.endpoints, [network.name]: wanted }
  await ctx.store.put(record)
  networkEvent(ctx, container, network, 'connect')
}

export async function disconnect(
  ctx: EngineContext,
  container: Container,
  networkReference: string,
  force: boolean,
): Promise<void> {
  // Containers that are stopped may still refer to one that has been removed.
  const network = force ? networkIfKnown(ctx, networkReference) : ctx.networks.findNetwork(networkReference)
  const name = network?.name ?? networkReference
  const { record } = container
  if (record.networkMode === 'host' || name === 'host') throw ofHost()
  if (!record.endpoints[name])
    throw conflict('notConnected', `container ${container.id} is not connected to network ${name}`)
  if (container.isRunning && network) {
    await ctx.networks.leave(container.id, network.id)
    container.sandbox = ctx.networks.sandbox(container.id)
  }
  const { [name]: _, ...rest } = record.endpoints
  record.endpoints = rest
  await ctx.store.put(record)
  if (network) networkEvent(ctx, container, network, 'disconnect')
}
