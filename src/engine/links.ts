import { conflict, shortId } from '../common/index.js'
import type { PortPublication, SandboxLink } from '../overlay/index.js'
import type { Container } from './container.js'
import type { EngineContext } from './context.js'
import type { ContainerView } from './contract.js'
import { sharedWith } from './record.js'

interface Link {
  readonly reference: string
  readonly alias: string
  /** Null when it has been removed since. */
  readonly other: Container | null
  /** Its address now, "" while it does not run. */
  readonly address: string
}

/** The container with the network that `reference` is reached on, if there is one. */
function linked(ctx: EngineContext, reference: string): Container | null {
  try {
    const other = ctx.registry.find(reference)
    const owner = sharedWith(other.record.networkMode)
    return owner === null ? other : linked(ctx, owner)
  } catch {
    return null
  }
}

function linksOf(ctx: EngineContext, container: Container): Link[] {
  return (container.record.hostConfig.Links ?? []).map((text) => {
    const { reference, alias } = parseLink(text)
    const other = linked(ctx, reference)
    const { networkMode } = container.record
    // From the default network only what is on it can be reached.
    const only = networkMode === 'bridge' || networkMode === 'default' ? ctx.networks.findNetwork('bridge').id : null
    const endpoint = other?.sandbox?.endpoints.find((e) => e.ipv4Address && (only === null || e.networkId === only))
    return { reference, alias, other, address: endpoint?.ipv4Address ?? '' }
  })
}

/** The containers that one is linked to or shares a namespace with: it cannot start before they run. */
export function neededBy(ctx: EngineContext, { record }: Container): Container[] {
  const { Links, PidMode = '', IpcMode = '' } = record.hostConfig
  const shared = [record.networkMode, PidMode, IpcMode].flatMap((mode) => /^container:(.*)$/.exec(mode)?.[1] ?? [])
  return [...(Links ?? []).map((link) => link.split(':')[0]!), ...shared].flatMap(
    (reference) => linked(ctx, reference) ?? [],
  )
}

/** `--link name:alias`: lines of /etc/hosts, addresses of the moment, and the ports that are open through `icc=false`. */
export function sandboxLinks(ctx: EngineContext, container: Container): SandboxLink[] {
  return linksOf(ctx, container).map((link) => {
    const { reference, alias, other, address } = link
    if (other?.sandbox && !address)
      throw conflict('linkElsewhere', `Cannot link to /${other.name}, as it does not belong to the default network`)
    if (!other || !address)
      throw conflict(
        'linkNotRunning',
        `Cannot link to a non running container: /${other?.name ?? reference} AS /${container.name}/${alias}`,
      )
    return sandboxLink(other, alias, address)
  })
}

function sandboxLink(other: Container, alias: string, address: string): SandboxLink {
  const { config, hostConfig } = other.record
  const names = [...new Set([alias, config.Hostname || shortId(other.id), other.name])]
  const exposed = new Set([...Object.keys(config.ExposedPorts ?? {}), ...Object.keys(hostConfig.PortBindings ?? {})])
  const ports = [...exposed].map((key) => {
    const [port, protocol = 'tcp'] = key.split('/')
    return { port: Number(port), protocol: protocol as PortPublication['protocol'] }
  })
  return { address, names, ports }
}

/** Containers that run and are linked to one that got another address, or to one less. */
export async function refreshLinks(ctx: EngineContext, containers: readonly Container[]): Promise<void> {
  for (const container of containers) {
    if (!container.sandbox || !['bridge', 'default'].includes(container.record.networkMode)) continue
    const links = linksOf(ctx, container).flatMap(({ alias, other, address }) =>
      other && address ? [sandboxLink(other, alias, address)] : [],
    )
    if (ctx.networks.sandbox(container.id)) await ctx.networks.setLinks(container.id, links)
  }
}

/** "name:alias", "name", or as inspect shows it, "/name:/container/alias". */
export function parseLink(link: string): { readonly reference: string; readonly alias: string } {
  const [reference = '', alias = reference] = plainLink(link).split(':')
  return { reference, alias }
}

/** "/name:/container/alias" and "name:/alias" are "name:alias". */
export const plainLink = (link: string): string => link.replace(/^\//, '').replace(/:.*\//, ':')

export const aliasOf = (link: string): string => parseLink(link).alias

/** Links name a container: they follow it when it is renamed. */
export async function renameInLinks(ctx: EngineContext, oldName: string, newName: string): Promise<void> {
  for (const { record } of ctx.registry.all()) {
    const links = record.hostConfig.Links
    if (!links?.some((link) => parseLink(link).reference === oldName)) continue
    record.hostConfig.Links = links.map((link) =>
      parseLink(link).reference === oldName ? `${newName}:${aliasOf(link)}` : link,
    )
    await ctx.store.put(record)
  }
}

/** A link is to one container, not to whoever has its name later. */
export async function dropLinksTo(ctx: EngineContext, gone: Container): Promise<void> {
  for (const { record } of ctx.registry.all()) {
    const links = record.hostConfig.Links ?? []
    const rest = links.filter((link) => linked(ctx, link.split(':')[0]!) !== gone)
    if (rest.length === links.length) continue
    record.hostConfig.Links = rest.length > 0 ? rest : null
    await ctx.store.put(record)
  }
}

/** The names that containers have in others by links, "/other/alias", by id. */
export function linkNames(
  containers: readonly Pick<ContainerView, 'id' | 'name' | 'hostConfig'>[],
): Map<string, string[]> {
  const names = new Map<string, string[]>()
  for (const parent of containers)
    for (const link of parent.hostConfig.Links ?? []) {
      const { reference } = parseLink(link)
      const child = containers.find((c) => c.name === reference || c.id.startsWith(reference))
      if (child) names.set(child.id, [...(names.get(child.id) ?? []), `/${parent.name}/${aliasOf(link)}`])
    }
  return names
}

/** HostConfig.Links as inspect shows them: "/name:/container/alias". */
export const shownLinks = (name: string, links: readonly string[]): string[] =>
  links.map((text) => {
    const { reference, alias } = parseLink(text)
    return `/${reference}:/${name}/${alias}`
  })

/**
 * The variables of legacy links (docker's "Environment variables" of `--link`): ALIAS_NAME, ALIAS_PORT with the lowest exposed
 * port, ALIAS_PORT_80_TCP with its parts for each, and the other one's environment as ALIAS_ENV_X. Only the default bridge
 * has them.
 */
export function linkEnvironment(ctx: EngineContext, container: Container): string[] {
  if (!['bridge', 'default'].includes(container.record.networkMode)) return []
  return linksOf(ctx, container).flatMap(({ alias, other, address }) => {
    if (!other || !address) return []
    const prefix = alias.replace(/-/g, '_').toUpperCase()
    const ports = Object.keys(other.record.config.ExposedPorts ?? {})
      .map((key) => {
        const [port = '', protocol = 'tcp'] = key.split('/')
        return { port, protocol }
      })
      .sort((a, b) => Number(a.port) - Number(b.port) || a.protocol.localeCompare(b.protocol))
    const url = (p: (typeof ports)[number]): string => `${p.protocol}://${address}:${p.port}`
    return [
      ...(ports[0] ? [`${prefix}_PORT=${url(ports[0])}`] : []),
      ...ports.flatMap((p) => {
        const name = `${prefix}_PORT_${p.port}_${p.protocol.toUpperCase()}`
        return [`${name}=${url(p)}`, `${name}_ADDR=${address}`, `${name}_PORT=${p.port}`, `${name}_PROTO=${p.protocol}`]
      }),
      `${prefix}_NAME=/${container.name}/${alias}`,
      ...(other.record.config.Env ?? [])
        .filter((e) => e.includes('=') && !/^(PATH|HOME)=/.test(e))
        .map((e) => `${prefix}_ENV_${e}`),
    ]
  })
}
