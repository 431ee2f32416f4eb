import { Readable } from 'node:stream'
import type { FastifyInstance } from 'fastify'
import {
  type AnyObject,
  AnySpec,
  type Cluster,
  type ListFilter,
  NodeAvailability,
  ObjectKind,
  type UpdateRequest,
} from '#proto'
import { invalid } from '../../common/index.js'
import { object, type ShapeOf } from '../body.js'
import type { ApiModules } from '../contract.js'
import {
  availabilities,
  CLUSTER_SPEC_BODY,
  clusterSpecFrom,
  configJson,
  configSpecFrom,
  DATA_SPEC_BODY,
  NODE_SPEC_BODY,
  nodeJson,
  nodeSpecFrom,
  secretJson,
  secretSpecFrom,
  swarmJson,
} from '../convert/swarm.js'
import { bool, Filters, int, type Query, text } from '../query.js'
import { bodyOf } from '../streams.js'

const INIT: ShapeOf<InitBody> = {
  ListenAddr: 'string',
  AdvertiseAddr: 'string',
  DataPathAddr: 'string',
  DataPathPort: 'number',
  DefaultAddrPool: 'string[]',
  ForceNewCluster: 'boolean',
  SubnetSize: 'number',
  AutoLockManagers: 'boolean',
  Availability: 'string',
  Spec: CLUSTER_SPEC_BODY,
}
const JOIN: ShapeOf<JoinBody> = {
  ListenAddr: 'string',
  AdvertiseAddr: 'string',
  DataPathAddr: 'string',
  RemoteAddrs: 'string[]',
  JoinToken: 'string',
  Availability: 'string',
}

interface InitBody {
  ListenAddr?: string
  AdvertiseAddr?: string
  DataPathAddr?: string
  DataPathPort?: number
  DefaultAddrPool?: string[] | null
  ForceNewCluster?: boolean
  SubnetSize?: number
  AutoLockManagers?: boolean
  Availability?: string
  Spec?: Parameters<typeof clusterSpecFrom>[0] | null
}

interface JoinBody {
  ListenAddr?: string
  AdvertiseAddr?: string
  DataPathAddr?: string
  RemoteAddrs?: string[] | null
  JoinToken?: string
  Availability?: string
}

/** All must match in a list call's answer; the managers do the matching. */
export const toListFilters = (f: Filters): ListFilter[] =>
  f.entries().map(([key, values]) => ({ key, values: [...values] }))

function notEmpty(what: string, address: string | undefined): string {
  if (!address) throw invalid('badAddress', `invalid ${what} "": invalid empty address`)
  return address
}

/** version of an update call: needed, and a number. */
export function versionOf(q: Query): { index: number } {
  const v = int(q, 'version', null)
  if (v === null)
    throw invalid('versionMissing', 'invalid version "": name the version of the object that you read, with ?version=')
  return { index: v }
}

export function registerSwarm(app: FastifyInstance, m: ApiModules): void {
  const control = () => m.cluster.control()
  const cluster = async (): Promise<Cluster> => {
    const { objects } = await control().list({ kind: ObjectKind.KIND_CLUSTER, filters: [] })
    const c = objects[0]?.cluster
    if (!c) throw invalid('noCluster', 'the cluster object is missing')
    return c
  }

  app.get('/swarm', async () => swarmJson(await cluster()))

  app.post('/swarm/init', async (request, reply) => {
    const b = object<InitBody>(request.body, INIT, 'swarm init')
    const spec = clusterSpecFrom(b.Spec ?? {})
    const id = await m.cluster.init({
      listenAddress: notEmpty('ListenAddr', b.ListenAddr),
      advertiseAddress: b.AdvertiseAddr ?? '',
      dataPathAddress: b.DataPathAddr ?? '',
      dataPathPort: b.DataPathPort || 4789,
      defaultAddressPool: b.DefaultAddrPool ?? [],
      subnetSize: b.SubnetSize || 24,
      forceNewCluster: b.ForceNewCluster ?? false,
      availability: availabilities.from(b.Availability, NodeAvailability.ACTIVE),
      spec: { ...spec, autoLockManagers: spec.autoLockManagers || (b.AutoLockManagers ?? false) },
    })
    // Fastify sends strings as they are; the answer is a JSON string.
    return reply.type('application/json').send(JSON.stringify(id))
  })

  app.post('/swarm/join', async (request, reply) => {
    const b = object<JoinBody>(request.body, JOIN, 'swarm join')
    if (!b.RemoteAddrs || b.RemoteAddrs.length === 0)
      throw invalid('noRemote', 'at least 1 RemoteAddr is required to join')
    const remoteAddresses = b.RemoteAddrs.map((a) => notEmpty('remoteAddr', a))
    if (!b.JoinToken)
      throw invalid(
        'noToken',
        'A valid join token is necessary to join this cluster; a manager shows it with: docker swarm join-token worker',
      )
    await m.cluster.join({
      listenAddress: notEmpty('ListenAddr', b.ListenAddr),
      advertiseAddress: b.AdvertiseAddr ?? '',
      dataPathAddress: b.DataPathAddr ?? '',
      remoteAddresses,
      token: b.JoinToken,
      availability: availabilities.from(b.Availability, NodeAvailability.ACTIVE),
    })
    return reply.code(200).send()
  })

  // Both are Shoal's own (docs/api.md).
  app.get('/swarm/backup', async (_, reply) => {
    const pieces = await m.cluster.backup()
    return reply.type('application/octet-stream').send(Readable.from(pieces, { objectMode: false }))
  })

  app.post('/swarm/restore', async (request, reply) => {
    const q = request.query as Query
    const key = request.headers['x-shoal-unlock-key']
    const id = await m.cluster.restore({
      listenAddress: text(q, 'listenAddr') || '0.0.0.0:2377',
      advertiseAddress: text(q, 'advertiseAddr'),
      dataPathAddress: text(q, 'dataPathAddr'),
      force: bool(q, 'force'),
      unlockKey: typeof key === 'string' ? key : '',
      file: bodyOf(request),
    })
    return reply.type('application/json').send(JSON.stringify(id))
  })

  app.post('/swarm/leave', async (request, reply) => {
    await m.cluster.leave(bool(request.query as Query, 'force'))
    return reply.code(200).send()
  })

  app.post('/swarm/update', async (request, reply) => {
    const q = request.query as Query
    const b = object<Parameters<typeof clusterSpecFrom>[0]>(request.body, CLUSTER_SPEC_BODY, 'swarm update')
    await control().update(
      update(ObjectKind.KIND_CLUSTER, (await cluster()).id, q, AnySpec.create({ cluster: clusterSpecFrom(b) }), {
        rotateWorkerToken: bool(q, 'rotateWorkerToken'),
        rotateManagerToken: bool(q, 'rotateManagerToken'),
        rotateUnlockKey: bool(q, 'rotateManagerUnlockKey'),
      }),
    )
    return reply.code(200).send()
  })

  app.get('/swarm/unlockkey', async () => ({ UnlockKey: await m.cluster.unlockKey() }))

  app.post('/swarm/unlock', async (request, reply) => {
    const b = object<{ UnlockKey?: string }>(request.body, { UnlockKey: 'string' }, 'swarm unlock')
    await m.cluster.unlock(b.UnlockKey ?? '')
    return reply.code(200).send()
  })

  crud(app, m, {
    path: 'nodes',
    kind: ObjectKind.KIND_NODE,
    filters: ['id', 'label', 'membership', 'name', 'node.label', 'role'],
    json: (o) => nodeJson(o.node!),
    spec: (body) => AnySpec.create({ node: nodeSpecFrom(object(body, NODE_SPEC_BODY, 'node')) }),
  })
  crud(app, m, {
    path: 'secrets',
    kind: ObjectKind.KIND_SECRET,
    filters: ['id', 'label', 'name', 'names'],
    json: (o) => secretJson(o.secret!),
    spec: (body) => AnySpec.create({ secret: secretSpecFrom(object(body, DATA_SPEC_BODY, 'secret')) }),
    create: true,
  })
  crud(app, m, {
    path: 'configs',
    kind: ObjectKind.KIND_CONFIG,
    filters: ['id', 'label', 'name'],
    json: (o) => configJson(o.config!),
    spec: (body) => AnySpec.create({ config: configSpecFrom(object(body, DATA_SPEC_BODY, 'config')) }),
    create: true,
  })
}

export function update(
  kind: ObjectKind,
  id: string,
  q: Query,
  spec: AnySpec,
  more: Partial<UpdateRequest> = {},
): UpdateRequest {
  return {
    kind,
    id,
    version: versionOf(q),
    spec,
    rollback: false,
    registryAuthFrom: '',
    rotateWorkerToken: false,
    rotateManagerToken: false,
    rotateUnlockKey: false,
    ...more,
  }
}

export const idOf = (o: AnyObject | null): string =>
  (o?.cluster ?? o?.node ?? o?.service ?? o?.task ?? o?.network ?? o?.secret ?? o?.config ?? o?.volume)?.id ?? ''

interface Resource {
  readonly path: string
  readonly kind: ObjectKind
  readonly filters: readonly string[]
  readonly json: (o: AnyObject) => object
  readonly spec: (body: unknown) => AnySpec
  readonly create?: boolean
}

/** List, inspect, create, update, remove of one kind of object, as all of them have it. */
function crud(app: FastifyInstance, m: ApiModules, r: Resource): void {
  const control = () => m.cluster.control()
  const resolve = async (reference: string): Promise<AnyObject> =>
    (await control().get({ kind: r.kind, reference })).object!
  type P = { Params: { id: string } }

  app.get(`/${r.path}`, async (request) => {
    const filters = Filters.parse(request.query as Query, r.filters)
    const { objects } = await control().list({ kind: r.kind, filters: toListFilters(filters) })
    return objects.map(r.json)
  })
  app.get<P>(`/${r.path}/:id`, async (request) => r.json(await resolve(request.params.id)))
  app.post<P>(`/${r.path}/:id/update`, async (request, reply) => {
    const found = await resolve(request.params.id)
    await control().update(update(r.kind, idOf(found), request.query as Query, r.spec(request.body)))
    return reply.code(200).send()
  })
  app.delete<P>(`/${r.path}/:id`, async (request, reply) => {
    const found = await resolve(request.params.id)
    await control().remove({ kind: r.kind, id: idOf(found), force: bool(request.query as Query, 'force') })
    return reply.code(r.create ? 204 : 200).send()
  })
  if (r.create) {
    app.post(`/${r.path}/create`, async (request, reply) => {
      const made = await control().create({ spec: r.spec(request.body) })
      reply.code(201)
      return { ID: idOf(made.object) }
    })
  }
}
