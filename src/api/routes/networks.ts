import type { FastifyInstance, FastifyRequest } from 'fastify'
import { AnySpec, type ListFilter, NetworkSpec, ObjectKind } from '#proto'
import { conflict, forbidden, invalid, isKind, notFound, ShoalError } from '../../common/index.js'
import type { EndpointSettings } from '../../engine/index.js'
import type { IpamPool, LocalNetworkSpec, NetworkRecord } from '../../overlay/index.js'
import { object, type ShapeOf } from '../body.js'
import type { ApiModules } from '../contract.js'
import { ENDPOINT } from '../convert/container-shape.js'
import { networkJson, swarmNetworkRecord } from '../convert/network.js'
import { Filters, type Query, text } from '../query.js'
import { atLeast } from '../streams.js'
import { admitNetworks } from '../swarm-networks.js'
import { pruneUntil } from './containers.js'

interface IpamBody {
  Driver?: string
  Options?: Record<string, string> | null
  Config?:
    | { Subnet?: string; IPRange?: string; Gateway?: string; AuxiliaryAddresses?: Record<string, string> | null }[]
    | null
}

interface CreateBody {
  Name?: string
  CheckDuplicate?: boolean
  Driver?: string
  Scope?: string
  Internal?: boolean
  Attachable?: boolean
  Ingress?: boolean
  ConfigOnly?: boolean
  ConfigFrom?: { Network?: string } | null
  IPAM?: IpamBody | null
  EnableIPv6?: boolean | null
  Options?: Record<string, string> | null
  Labels?: Record<string, string> | null
}

const CREATE: ShapeOf<CreateBody> = {
  Name: 'string',
  CheckDuplicate: 'boolean',
  Driver: 'string',
  Scope: 'string',
  Internal: 'boolean',
  Attachable: 'boolean',
  Ingress: 'boolean',
  ConfigOnly: 'boolean',
  ConfigFrom: { Network: 'string' },
  IPAM: {
    Driver: 'string',
    Options: 'map',
    Config: [{ Subnet: 'string', IPRange: 'string', Gateway: 'string', AuxiliaryAddresses: 'map' }],
  },
  EnableIPv6: 'boolean',
  Options: 'map',
  Labels: 'map',
}

export const PREDEFINED = new Set(['bridge', 'host', 'none'])

export function registerNetworks(app: FastifyInstance, m: ApiModules): void {
  const { networks, containers, events } = m.engine
  const isManager = (): boolean => {
    const s = m.cluster.state()
    return s.localNodeState === 'active' && s.controlAvailable
  }
  const swarmNetworks = async (filters: ListFilter[] = []): Promise<NetworkRecord[]> => {
    if (!isManager()) return []
    try {
      const { objects } = await m.cluster.control().list({ kind: ObjectKind.KIND_NETWORK, filters })
      return objects.flatMap((o) => (o.network ? [swarmNetworkRecord(o.network)] : []))
    } catch (caught) {
      if (!isKind(caught, 'unavailable') || filters.length > 0) throw caught
      // A cluster without a leader must not stand in the way of this host's own networks: what the host knows will do.
      return networks.networks().filter((n) => n.scope === 'swarm')
    }
  }
  /** Full ids win over names, names over prefixes. `scope`: only of those of that scope; empty: of all. */
  const find = async (reference: string, scope: string): Promise<NetworkRecord> => {
    const local = networks.networks()
    // Of those that each node has for itself, this one's own tells its addresses.
    const swarm = (scope === 'local' ? [] : await swarmNetworks()).map((n) => local.find((l) => l.id === n.id) ?? n)
    const inScope = (n: NetworkRecord): boolean =>
      scope === '' ||
      n.scope === scope ||
      // Services may be on those that every host has, so clients look for them in the swarm.
      (scope === 'swarm' && isManager() && PREDEFINED.has(n.name))
    const all = [
      ...local.filter((n) => n.scope === 'local'),
      ...swarm,
      ...(isManager() ? [] : local.filter((n) => n.scope === 'swarm')),
    ].filter(inScope)
    const exact = all.find((n) => n.id === reference)
    if (exact) return exact
    const named = all.filter((n) => n.name === reference)
    if (named.length > 1)
      throw invalid(
        'ambiguousNetwork',
        `network ${reference} is ambiguous (${named.length} matches found based on name)`,
      )
    if (named[0]) return named[0]
    const prefixed = reference === '' ? [] : all.filter((n) => n.id.startsWith(reference))
    if (prefixed.length > 1)
      throw invalid(
        'ambiguousNetwork',
        `network ${reference} is ambiguous (${prefixed.length} matches found based on ID prefix)`,
      )
    if (prefixed.length === 0) throw notFound('noSuchNetwork', `network ${reference} not found`)
    return prefixed[0]!
  }

  const listNetworks = async (request: FastifyRequest): Promise<object[]> => {
    const f = Filters.parse(request.query as Query, ['dangling', 'driver', 'id', 'label', 'name', 'scope', 'type'])
    const used = containers.list()
    const swarm = await swarmNetworks()
    const known = new Set(swarm.map((n) => n.id))
    const inUse = (n: NetworkRecord): boolean => networks.endpoints(n.id).length > 0
    return [...networks.networks().filter((n) => !known.has(n.id)), ...swarm]
      .filter(
        (n) =>
          f.exact('driver', n.driver) &&
          f.exact('scope', n.scope) &&
          f.contains('id', n.id) &&
          f.name('name', n.name) &&
          f.labels('label', n.labels),
      )
      .filter((n) => !f.has('type') || f.values('type').includes(PREDEFINED.has(n.name) ? 'builtin' : 'custom'))
      .filter((n) => !f.has('dangling') || f.bool('dangling', false) === (!PREDEFINED.has(n.name) && !inUse(n)))
      .map((n) => networkJson(n, networks, used, request.apiVersion < '1.28'))
  }
  app.get('/networks', listNetworks)
  app.get('/networks/', listNetworks)

  app.get<{ Params: { id: string } }>('/networks/:id', async (request) => {
    const n = await find(request.params.id, text(request.query as Query, 'scope'))
    return networkJson(n, networks, containers.list(), true)
  })

  app.post('/networks/create', async (request, reply) => {
    const b = object<CreateBody>(request.body, CREATE, 'network')
    if (!b.Name) throw invalid('nameMissing', 'network name cannot be empty')
    if (PREDEFINED.has(b.Name) || b.Name === 'default')
      throw forbidden('predefinedNetwork', `operation is not permitted on predefined ${b.Name} network`)
    const driver = b.Driver || 'bridge'
    const toSwarm = b.Scope === 'swarm' || driver === 'overlay' || (b.Ingress ?? false)
    const others = toSwarm ? networks.networks().filter((n) => n.scope === 'local') : await swarmNetworks()
    // Up to 1.43 a client had to ask for unique names.
    const sameName = !b.CheckDuplicate && !atLeast(request.apiVersion, '1.44')
    if (!sameName && others.some((n) => n.name === b.Name))
      throw conflict('networkNameInUse', `network with name ${b.Name} already exists`)
    if (toSwarm) {
      const created = await m.cluster.control().create({ spec: AnySpec.create({ network: swarmSpec(b, driver) }) })
      reply.code(201)
      return { Id: created.object?.network?.id ?? '', Warning: created.warnings.join('; ') }
    }
    const n = await networks.createNetwork(localSpec(b, driver), sameName)
    events.publish({
      type: 'network',
      action: 'create',
      actorId: n.id,
      attributes: { name: n.name, type: n.driver },
      scope: 'local',
    })
    reply.code(201)
    return { Id: n.id, Warning: '' }
  })

  app.delete<{ Params: { id: string } }>('/networks/:id', async (request, reply) => {
    const n = await find(request.params.id, '')
    if (PREDEFINED.has(n.name) && n.scope === 'local')
      throw forbidden('predefinedNetwork', `${n.name} is a pre-defined network and cannot be removed`)
    if (n.scope === 'swarm') await m.cluster.control().remove({ kind: ObjectKind.KIND_NETWORK, id: n.id, force: false })
    else {
      refuseWhileUsed(m, n)
      await networks.removeNetwork(n.id)
      events.publish({
        type: 'network',
        action: 'destroy',
        actorId: n.id,
        attributes: { name: n.name, type: n.driver },
        scope: 'local',
      })
    }
    return reply.code(204).send()
  })

  app.post<{ Params: { id: string } }>('/networks/:id/connect', async (request, reply) => {
    const b = object<{ Container?: string; EndpointConfig?: EndpointSettings | null }>(
      request.body,
      { Container: 'string', EndpointConfig: ENDPOINT },
      'connect',
    )
    const reference = request.params.id
    await admitNetworks(m, [reference])
    const n = await find(reference, '')
    await containers.connect(b.Container ?? '', n.id, b.EndpointConfig ?? null)
    return reply.code(200).send()
  })

  app.post<{ Params: { id: string } }>('/networks/:id/disconnect', async (request, reply) => {
    const b = object<{ Container?: string; Force?: boolean }>(
      request.body,
      { Container: 'string', Force: 'boolean' },
      'disconnect',
    )
    const force = b.Force ?? false
    const { id } = await find(request.params.id, '').catch((e: unknown) => {
      if (force && isKind(e, 'notFound')) return request.params
      throw e
    })
    await containers.disconnect(b.Container ?? '', id, force)
    return reply.code(200).send()
  })

  app.post('/networks/prune', async (request) => {
    const f = Filters.parse(request.query as Query, ['until', 'label', 'label!'])
    const until = pruneUntil(f, m.clock.now())
    const deleted: string[] = []
    for (const n of [...networks.networks().filter((x) => x.scope === 'local'), ...(await swarmNetworks())]) {
      if (
        PREDEFINED.has(n.name) ||
        n.ingress ||
        n.createdMs > until ||
        !f.labels('label', n.labels) ||
        !f.notLabels('label!', n.labels)
      )
        continue
      try {
        if (n.scope === 'swarm')
          await m.cluster.control().remove({ kind: ObjectKind.KIND_NETWORK, id: n.id, force: false })
        else {
          refuseWhileUsed(m, n)
          await networks.removeNetwork(n.id)
          events.publish({
            type: 'network',
            action: 'destroy',
            actorId: n.id,
            attributes: { name: n.name, type: n.driver },
            scope: 'local',
          })
        }
        deleted.push(n.name)
      } catch (e) {
        // A network in use is what prune leaves alone.
        if (!(isKind(e, 'forbidden') || isKind(e, 'conflict') || isKind(e, 'invalid') || isKind(e, 'notFound'))) throw e
      }
    }
    return { NetworksDeleted: deleted.length > 0 ? deleted : null }
  })
}

/** Containers that merely refer to a network (created, stopped) hold it too only while they have an endpoint, as in dockerd. */
function refuseWhileUsed(m: ApiModules, n: NetworkRecord): void {
  const held = m.engine.networks.endpoints(n.id)
  if (held.length === 0) return
  const names = held.map(
    (e) => m.engine.containers.list().find((c) => c.id === e.sandboxId)?.name ?? e.sandboxId.slice(0, 12),
  )
  throw new ShoalError(
    'forbidden',
    'networkInUse',
    `error while removing network: network ${n.name} has active endpoints (name:"${names[0]}" id:"${held[0]!.endpointId.slice(0, 12)}")`,
    {
      names,
    },
  )
}

function pools(ipam: IpamBody | null | undefined): IpamPool[] {
  return (ipam?.Config ?? [])
    .filter((c) => c.Subnet)
    .map((c) => ({
      subnet: c.Subnet!,
      ...(c.IPRange ? { range: c.IPRange } : {}),
      ...(c.Gateway ? { gateway: c.Gateway } : {}),
      ...(c.AuxiliaryAddresses ? { reserved: c.AuxiliaryAddresses } : {}),
    }))
}

const localSpec = (b: CreateBody, driver: string): LocalNetworkSpec => ({
  name: b.Name!,
  driver,
  internal: b.Internal ?? false,
  attachable: b.Attachable ?? false,
  ipv6: b.EnableIPv6 ?? false,
  ipam: { driver: b.IPAM?.Driver || 'default', options: b.IPAM?.Options ?? {}, pools: pools(b.IPAM) },
  options: b.Options ?? {},
  labels: b.Labels ?? {},
  configOnly: b.ConfigOnly ?? false,
  configFrom: b.ConfigFrom?.Network || null,
})

const swarmSpec = (b: CreateBody, driver: string): NetworkSpec =>
  NetworkSpec.create({
    annotations: { name: b.Name!, labels: b.Labels ?? {} },
    driverConfig: { name: driver, options: b.Options ?? {} },
    ipv6Enabled: b.EnableIPv6 ?? false,
    internal: b.Internal ?? false,
    attachable: b.Attachable ?? false,
    ingress: b.Ingress ?? false,
    configFrom: b.ConfigFrom?.Network ?? '',
    ipam: b.IPAM
      ? {
          driver: { name: b.IPAM.Driver || 'default', options: b.IPAM.Options ?? {} },
          configs: pools(b.IPAM).map((p) => ({
            subnet: p.subnet,
            range: p.range ?? '',
            gateway: p.gateway ?? '',
            reserved: { ...(p.reserved ?? {}) },
          })),
        }
      : null,
  })
