import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { AnySpec, LogRequest, ObjectKind, type Service, type Task } from '#proto'
import { forbidden, invalid, isKind } from '../../common/index.js'
import { generateName } from '../../engine/index.js'
import { object, unknownFields } from '../body.js'
import type { ApiModules } from '../contract.js'
import { timeJson } from '../convert/proto.js'
import { serviceJson, serviceSpecFrom } from '../convert/service.js'
import { withServiceDefaults } from '../convert/service-defaults.js'
import type { ServiceSpecJson } from '../convert/service-json.js'
import { SERVICE_BODY } from '../convert/service-shape.js'
import { taskJson } from '../convert/task.js'
import { bool, Filters, type Query, text } from '../query.js'
import { clientGone, frame, startStream, streamType, writeChunk } from '../streams.js'
import { decorated, logQuery } from './containers.js'
import { PREDEFINED } from './networks.js'
import { idOf, toListFilters, update } from './swarm.js'

type P = { Params: { id: string } }

export function registerServices(app: FastifyInstance, m: ApiModules): void {
  const control = () => m.cluster.control()
  const service = async (reference: string): Promise<Service> =>
    (await control().get({ kind: ObjectKind.KIND_SERVICE, reference: reference })).object!.service!
  const task = async (reference: string): Promise<Task> =>
    (await control().get({ kind: ObjectKind.KIND_TASK, reference: reference })).object!.task!
  const statuses = async (ids: string[]) => {
    const { statuses: found } = await control().serviceStatuses({ serviceIds: ids })
    return new Map(found.map((s) => [s.serviceId, s]))
  }

  app.get('/services', async (request) => {
    const q = request.query as Query
    const filters = Filters.parse(q, ['id', 'label', 'mode', 'name', 'runtime'])
    const { objects } = await control().list({ kind: ObjectKind.KIND_SERVICE, filters: toListFilters(filters) })
    const services = objects.flatMap((o) => (o.service ? [o.service] : []))
    const status = bool(q, 'status') ? await statuses(services.map((s) => s.id)) : null
    return services.map((s) => serviceJson(s, status?.get(s.id)))
  })

  app.get<P>('/services/:id', async (request) => {
    const json = serviceJson(await service(request.params.id))
    return bool(request.query as Query, 'insertDefaults') ? { ...json, Spec: withServiceDefaults(json.Spec) } : json
  })

  /** Clients give networks of this host by their ids. The managers know those that every host has, by name, and no others. */
  const withNetworks = async (spec: ServiceSpecJson): Promise<ServiceSpecJson> => {
    for (const n of [...(spec.Networks ?? []), ...(spec.TaskTemplate?.Networks ?? [])]) {
      const local = m.engine.networks
        .networks()
        .find((x) => x.scope === 'local' && (x.id === n.Target || x.name === n.Target))
      if (!local) continue
      if (PREDEFINED.has(local.name)) n.Target = local.name
      else if (local.id === n.Target || !(await isInSwarm(local.name)))
        throw forbidden(
          'notForServices',
          `The network ${local.name} cannot be used with services. Only networks scoped to the swarm can be used, such as those created with the overlay driver.`,
        )
    }
    return spec
  }
  const isInSwarm = (network: string): Promise<boolean> =>
    control()
      .get({ kind: ObjectKind.KIND_NETWORK, reference: network })
      .then(
        () => true,
        (e: unknown) => {
          if (isKind(e, 'notFound')) return false
          throw e
        },
      )

  app.post('/services/create', async (request, reply) => {
    const body = await withNetworks(object<ServiceSpecJson>(request.body, SERVICE_BODY, 'service'))
    const spec = serviceSpecFrom({ ...body, Name: body.Name || generateName(m.rng, () => false) }, auth(request))
    const made = await control().create({ spec: AnySpec.create({ service: spec }) })
    reply.code(201)
    return { ID: idOf(made.object), Warnings: warnings(made.warnings, body) }
  })

  app.post<P>('/services/:id/update', async (request) => {
    const q = request.query as Query
    const from = text(q, 'registryAuthFrom') || 'spec'
    if (from !== 'spec' && from !== 'previous-spec')
      throw invalid('badParameter', `registryAuthFrom: "${from}" is not one of spec, previous-spec`)
    const rollback = text(q, 'rollback')
    if (rollback !== '' && rollback !== 'previous')
      throw invalid('badParameter', `rollback: "${rollback}" is not "previous"`)
    const body = await withNetworks(object<ServiceSpecJson>(request.body, SERVICE_BODY, 'service'))
    const spec = serviceSpecFrom(body, auth(request))
    const { id } = await service(request.params.id)
    const done = await control().update(
      update(ObjectKind.KIND_SERVICE, id, q, AnySpec.create({ service: spec }), {
        rollback: rollback === 'previous',
        registryAuthFrom: from,
      }),
    )
    return { Warnings: warnings(done.warnings, body) }
  })

  app.delete<P>('/services/:id', async (request, reply) => {
    const { id } = await service(request.params.id)
    await control().remove({ kind: ObjectKind.KIND_SERVICE, id, force: false })
    return reply.code(200).send()
  })

  app.get<P>('/services/:id/logs', async (request, reply) => {
    const s = await service(request.params.id)
    return logs(m, request, reply, { serviceIds: [s.id], taskIds: [] }, s.spec?.task?.container?.tty ?? false)
  })

  app.get('/tasks', async (request) => {
    const filters = Filters.parse(request.query as Query, [
      '_up-to-date',
      'desired-state',
      'id',
      'label',
      'name',
      'node',
      'runtime',
      'service',
    ])
    // That there is no such service is not the same as that it has no tasks.
    for (const reference of filters.values('service')) await service(reference)
    const { objects } = await control().list({ kind: ObjectKind.KIND_TASK, filters: toListFilters(filters) })
    return objects.flatMap((o) => (o.task ? [taskJson(o.task)] : []))
  })

  app.get<P>('/tasks/:id', async (request) => taskJson(await task(request.params.id)))

  app.get<P>('/tasks/:id/logs', async (request, reply) => {
    const t = await task(request.params.id)
    return logs(m, request, reply, { serviceIds: [], taskIds: [t.id] }, t.spec?.container?.tty ?? false)
  })
}

/** Of the managers, and of what this body has that none of them would ever see. */
function warnings(given: readonly string[], body: ServiceSpecJson): readonly string[] | null {
  const ignored = unknownFields(body, SERVICE_BODY).map(
    (field) => `${field} is not known to this engine and was ignored`,
  )
  const all = [...given, ...ignored]
  return all.length > 0 ? all : null
}

const auth = (request: FastifyRequest): string => {
  const header = request.headers['x-registry-auth']
  return typeof header === 'string' && header !== 'e30=' && header !== 'e30' ? header : ''
}

/** Lines of many tasks in one stream; with details each names its node, service and task, as the docker command needs. */
async function logs(
  m: ApiModules,
  request: FastifyRequest,
  reply: FastifyReply,
  selector: { serviceIds: string[]; taskIds: string[] },
  tty: boolean,
): Promise<FastifyReply> {
  const q = request.query as Query
  const query = logQuery(q, m.clock.now())
  const since =
    query.sinceMs === null
      ? null
      : { seconds: Math.floor(query.sinceMs / 1000), nanos: Math.floor((query.sinceMs % 1000) * 1e6) }
  const gone = clientGone(request)
  const responses = m.cluster.control().logs(
    {
      ...selector,
      options: LogRequest.create({
        follow: query.follow,
        stdout: query.stdout,
        stderr: query.stderr,
        tail: query.tail ?? -1,
        since,
      }),
    },
    gone,
  )
  const out = startStream(request, reply, streamType(request.apiVersion, tty))
  const decorate = { timestamps: bool(q, 'timestamps'), details: bool(q, 'details') }
  for await (const r of responses) {
    for (const line of r.lines) {
      const stream = line.stream === 2 ? 'stderr' : 'stdout'
      const data = decorated({ time: timeJson(line.timestamp), data: line.data, attributes: line.attributes }, decorate)
      if (!(await writeChunk(out, tty ? data : frame({ stream, data })))) return reply
    }
    if (r.warning) m.logger.warn('service logs are incomplete', { warning: r.warning, ...selector })
  }
  out.end()
  return reply
}
