import type { FastifyInstance } from 'fastify'
import { invalid } from '../../common/index.js'
import type { PluginPrivilege, PluginView } from '../../engine/index.js'
import { checkPresent } from '../body.js'
import type { ApiModules } from '../contract.js'
import { bool, Filters, int, type Query, text } from '../query.js'
import { bodyOf, clientGone } from '../streams.js'
import { progress, registryAuth } from './images.js'

interface Named {
  readonly Params: { readonly '*': string }
}

export function registerPlugins(app: FastifyInstance, m: ApiModules): void {
  const { plugins } = m

  app.get('/plugins', async (request) => {
    // The description says enable, dockerd takes enabled, and so do its clients.
    const f = Filters.parse(request.query as Query, ['capability', 'enable', 'enabled'])
    const state = f.has('enabled') ? 'enabled' : 'enable'
    return plugins
      .list()
      .filter((p) => !f.has(state) || f.bool(state, false) === p.enabled)
      .filter(
        (p) =>
          !f.has('capability') ||
          f.values('capability').some((c) => p.config.Interface.Types.some((t) => capability(t) === c)),
      )
      .map(pluginJson)
  })

  app.get('/plugins/privileges', async (request) =>
    plugins.privileges(required(request.query as Query, 'remote'), {
      auth: registryAuth(request),
      signal: clientGone(request),
    }),
  )

  app.post('/plugins/pull', (request, reply) => {
    const q = request.query as Query
    const remote = required(q, 'remote')
    const privileges = granted(request.body)
    const name = text(q, 'name')
    // The docker command takes the name for its next calls from here.
    reply.header('Docker-Plugin-Name', plugins.nameOf(name || remote))
    return progress(request, reply, (onProgress, signal) =>
      plugins.pull(remote, { name, privileges, auth: registryAuth(request), onProgress, signal }),
    )
  })

  app.post('/plugins/create', async (request, reply) => {
    await plugins.create(required(request.query as Query, 'name'), bodyOf(request))
    return reply.code(204).send()
  })

  // A plugin's name has slashes: the last word of the path is the verb.
  app.get<Named>('/plugins/*', async (request) => {
    const m = /^(.+)\/json$/.exec(request.params['*'])
    if (!m) throw invalid('badPath', `GET /plugins/${request.params['*']}: use /plugins/{name}/json`)
    return pluginJson(plugins.get(m[1]!))
  })

  app.delete<Named>('/plugins/*', async (request) =>
    pluginJson(await plugins.remove(request.params['*'], { force: bool(request.query as Query, 'force') })),
  )

  app.post<Named>('/plugins/*', async (request, reply) => {
    const [, name = '', verb = ''] = /^(.+)\/([a-z]+)$/.exec(request.params['*']) ?? []
    const q = request.query as Query
    switch (verb) {
      case 'enable':
        await plugins.enable(name, { timeoutSeconds: int(q, 'timeout', 0) })
        return reply.code(200).send()
      case 'disable':
        await plugins.disable(name, { force: bool(q, 'force') })
        return reply.code(200).send()
      case 'set': {
        const changes = request.body
        checkPresent(changes, 'plugin settings')
        if (!Array.isArray(changes) || !changes.every((c) => typeof c === 'string'))
          throw invalid('badBody', 'the settings must be a list of strings, NAME=VALUE')
        await plugins.set(name, changes)
        return reply.code(204).send()
      }
      case 'push':
        plugins.get(name)
        return progress(request, reply, (onProgress, signal) =>
          plugins.push(name, { auth: registryAuth(request), onProgress, signal }),
        )
      case 'upgrade': {
        const remote = required(q, 'remote')
        const privileges = granted(request.body)
        plugins.get(name)
        return progress(request, reply, (onProgress, signal) =>
          plugins.upgrade(name, remote, { privileges, auth: registryAuth(request), onProgress, signal }),
        )
      }
      default:
        return reply.code(404).send({ message: 'page not found' })
    }
  })
}

const capability = (type: string): string => /^docker\.([a-z]+)\//.exec(type)?.[1] ?? type

function required(q: Query, name: string): string {
  const value = text(q, name)
  if (value === '') throw invalid('missingParameter', `the parameter ${name} is required`)
  return value
}

function granted(body: unknown): PluginPrivilege[] {
  const list = body ?? []
  if (
    !Array.isArray(list) ||
    !list.every((p) => typeof p?.Name === 'string' && (p.Value === null || Array.isArray(p.Value)))
  )
    throw invalid('badBody', 'the granted privileges must be a list of objects with Name and Value')
  return (list as PluginPrivilege[]).map((p) => ({ ...p, Value: p.Value ?? [] }))
}

const pluginJson = (p: PluginView): object => ({
  Id: p.id,
  Name: p.name,
  Enabled: p.enabled,
  PluginReference: p.reference,
  Config: p.config,
  Settings: p.settings,
})
