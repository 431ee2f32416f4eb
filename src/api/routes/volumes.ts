import type { FastifyInstance } from 'fastify'
import { notFound } from '../../common/index.js'
import { object } from '../body.js'
import type { ApiModules } from '../contract.js'
import { volumeJson } from '../convert/volume.js'
import { bool, Filters, type Query } from '../query.js'
import { unlessTaken } from './containers.js'

export function registerVolumes(app: FastifyInstance, m: ApiModules): void {
  const { volumes, events } = m.engine

  app.get('/volumes', async (request) => {
    const f = Filters.parse(request.query as Query, ['dangling', 'driver', 'label', 'name'])
    const dangling = f.has('dangling') ? f.bool('dangling', false) : null
    const warnings: string[] = []
    const all = (await volumes.list((w) => warnings.push(w))).filter(
      (v) =>
        f.name('name', v.name) &&
        f.exact('driver', v.driver) &&
        f.labels('label', v.labels) &&
        (dangling === null || dangling === (volumes.users(v.name).length === 0)),
    )
    return { Volumes: all.map(volumeJson), Warnings: warnings.length > 0 ? warnings : null }
  })

  app.post('/volumes/create', async (request, reply) => {
    const b = object<{
      Name?: string
      Driver?: string
      DriverOpts?: Record<string, string> | null
      Labels?: Record<string, string> | null
    }>(request.body, { Name: 'string', Driver: 'string', DriverOpts: 'map', Labels: 'map' }, 'volume')
    const v = await volumes.create({
      name: b.Name || undefined,
      driver: b.Driver || undefined,
      options: b.DriverOpts ?? undefined,
      labels: b.Labels ?? undefined,
    })
    events.publish({
      type: 'volume',
      action: 'create',
      actorId: v.name,
      attributes: { driver: v.driver },
      scope: 'local',
    })
    reply.code(201)
    return volumeJson(v)
  })

  app.get<{ Params: { name: string } }>('/volumes/:name', async (request) =>
    volumeJson(await volumes.get(request.params.name)),
  )

  app.put<{ Params: { name: string } }>('/volumes/:name', async (request) => {
    throw notFound('noClusterVolume', `no cluster volume "${request.params.name}": only cluster volumes can be updated`)
  })

  app.delete<{ Params: { name: string } }>('/volumes/:name', async (request, reply) => {
    const force = bool(request.query as Query, 'force')
    const { name } = request.params
    const removed = await volumes.remove(name, { force })
    if (removed)
      events.publish({
        type: 'volume',
        action: 'destroy',
        actorId: name,
        attributes: { driver: removed.driver },
        scope: 'local',
      })
    return reply.code(204).send()
  })

  app.post('/volumes/prune', async (request) => {
    const f = Filters.parse(request.query as Query, ['label', 'label!', 'all'])
    // From API 1.42 on only anonymous volumes go, unless "all" asks for the named ones too.
    const all = f.bool('all', request.apiVersion < '1.42')
    const deleted: string[] = []
    let reclaimed = 0
    for (const v of await volumes.list()) {
      // What plugins keep is not pruned, as with dockerd.
      if (v.driver !== 'local') continue
      if (volumes.users(v.name).length > 0 || (!all && !v.anonymous)) continue
      if (!f.labels('label', v.labels) || !f.notLabels('label!', v.labels)) continue
      const size = (await unlessTaken(volumes.usage(v.name))) ?? 0
      if (!(await unlessTaken(volumes.remove(v.name, { force: false })))) continue
      events.publish({
        type: 'volume',
        action: 'destroy',
        actorId: v.name,
        attributes: { driver: v.driver },
        scope: 'local',
      })
      deleted.push(v.name)
      reclaimed += size
    }
    return { VolumesDeleted: deleted, SpaceReclaimed: reclaimed }
  })
}
