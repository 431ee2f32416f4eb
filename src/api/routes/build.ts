import { Readable } from 'node:stream'
import type { FastifyInstance, FastifyRequest } from 'fastify'
import type { BuildMessage, BuildRequest } from '../../build/index.js'
import { invalid, unimplemented } from '../../common/index.js'
import type { HostConfig } from '../../engine/index.js'
import { parsePlatform, type RegistryAuth } from '../../runtime/index.js'
import type { ApiModules } from '../contract.js'
import { goJsonError } from '../json-error.js'
import { bool, Filters, int, list, type Query, text } from '../query.js'
import { atLeast, bodyOf } from '../streams.js'
import { clientAgent, progress } from './images.js'

/** Of BuildKit's cache; `system prune` passes on what it was given for images, too. */
const PRUNE_FILTERS = [
  ...['until', 'id', 'parent', 'type', 'description', 'inuse', 'shared', 'private', 'unused-for'],
  ...['label', 'label!'],
]

export function registerBuild(app: FastifyInstance, m: ApiModules): void {
  app.post('/build', async (request, reply) => {
    const q = request.query as Query
    const wanted = buildRequest(request, m.facts.experimental)
    const isQuiet = bool(q, 'q')
    const hasAux = atLeast(request.apiVersion, '1.30')
    return progress(request, reply, async (send, signal) => {
      // With q all that was said is told only where the build fails.
      const kept: BuildMessage[] = []
      const onMessage = (message: BuildMessage): void => {
        if (message.aux && !hasAux) return
        if (isQuiet) kept.push(message)
        else send(message)
      }
      try {
        const id = await m.builder.build(wanted, { onMessage, signal })
        if (isQuiet) send({ stream: `${id}\n` })
      } catch (caught) {
        kept.forEach(send)
        throw caught
      }
    })
  })

  app.post('/build/cancel', async (request) => {
    const id = text(request.query as Query, 'id')
    if (id === '') throw invalid('noBuild', 'build ID not provided: name it with ?id=')
    m.builder.cancel(id)
    return ''
  })

  // The cache are images, and goes with them: `image prune` takes it. Clients ask all the same.
  app.post('/build/prune', async (request) => {
    const q = request.query as Query
    Filters.parse(q, PRUNE_FILTERS)
    int(q, 'keep-storage', 0)
    m.engine.events.publish({
      type: 'builder',
      action: 'prune',
      actorId: '',
      attributes: { reclaimed: '0' },
      scope: 'local',
    })
    return { CachesDeleted: null, SpaceReclaimed: 0 }
  })
}

function buildRequest(request: FastifyRequest, isExperimental: boolean): BuildRequest {
  const q = request.query as Query
  const version = text(q, 'version')
  if (version === '2')
    throw unimplemented(
      'buildkit',
      'this engine does not speak BuildKit: set DOCKER_BUILDKIT=0 for the builder that it has, or build elsewhere and load the image',
    )
  if (version !== '' && version !== '1')
    throw invalid('badParameter', `invalid version ${JSON.stringify(version)}; use 1`)
  if (list(q, 'securityopt').length > 0)
    throw invalid('securityOpt', 'The daemon on this platform does not support setting security options on build')
  const isolation = text(q, 'isolation')
  if (!['', 'default'].includes(isolation.toLowerCase()))
    throw invalid('badParameter', `Unsupported isolation: ${JSON.stringify(isolation)}`)
  const squash = bool(q, 'squash')
  if (squash && !isExperimental) throw invalid('experimental', 'squash is only supported with experimental mode')
  const forceRemove = bool(q, 'forcerm')
  const userAgent = clientAgent(request).userAgent ?? null
  const platform = atLeast(request.apiVersion, '1.32') ? (parsePlatform(text(q, 'platform')) ?? null) : null
  return {
    remote: text(q, 'remote'),
    body: request.raw.readableEnded ? Readable.from([]) : bodyOf(request),
    dockerfile: text(q, 'dockerfile'),
    target: text(q, 'target'),
    tags: list(q, 't'),
    labels: stringMap(q, 'labels', 'labels') as Record<string, string>,
    buildArgs: stringMap(q, 'buildargs', 'build args'),
    cacheFrom: stringList(q, 'cachefrom'),
    noCache: bool(q, 'nocache'),
    pull: bool(q, 'pull'),
    remove: forceRemove || text(q, 'rm') === '' || bool(q, 'rm'),
    forceRemove,
    squash,
    platform,
    host: hostConfig(q),
    auths: registryAuths(request),
    userAgent,
    buildId: text(q, 'buildid'),
  }
}

/** What the containers of a build get; sizes in bytes. */
function hostConfig(q: Query): HostConfig {
  const ulimits = json(q, 'ulimits', 'ulimit settings') ?? []
  if (!Array.isArray(ulimits) || !ulimits.every((u) => typeof u?.Name === 'string'))
    throw invalid('badParameter', 'error reading ulimit settings: use a list of {"Name","Soft","Hard"}')
  return {
    Memory: int(q, 'memory', 0),
    MemorySwap: int(q, 'memswap', 0),
    CpuShares: int(q, 'cpushares', 0),
    CpuPeriod: int(q, 'cpuperiod', 0),
    CpuQuota: int(q, 'cpuquota', 0),
    CpusetCpus: text(q, 'cpusetcpus'),
    CpusetMems: text(q, 'cpusetmems'),
    CgroupParent: text(q, 'cgroupparent'),
    NetworkMode: text(q, 'networkmode'),
    ExtraHosts: list(q, 'extrahosts'),
    ShmSize: int(q, 'shmsize', 0),
    Ulimits: ulimits.map((u) => ({ Name: u.Name, Soft: Number(u.Soft ?? 0), Hard: Number(u.Hard ?? 0) })),
  }
}

function json(q: Query, name: string, what: string): unknown {
  const value = text(q, name)
  if (value === '') return null
  try {
    return JSON.parse(value)
  } catch (e) {
    throw invalid('badParameter', `error reading ${what}: ${goJsonError(value, (e as Error).message)}`)
  }
}

function stringMap(q: Query, name: string, what: string): Record<string, string | null> {
  const map = json(q, name, what) ?? {}
  const isMap = typeof map === 'object' && !Array.isArray(map)
  const values = isMap ? Object.values(map as object) : []
  if (!isMap || !values.every((v) => typeof v === 'string' || (v === null && name === 'buildargs')))
    throw invalid('badParameter', `error reading ${what}: parameter ${name} must be an object of strings`)
  return map as Record<string, string | null>
}

function stringList(q: Query, name: string): string[] {
  const values = json(q, name, name) ?? []
  if (!Array.isArray(values) || !values.every((v) => typeof v === 'string'))
    throw invalid('badParameter', `parameter ${name}: must be a list of strings`)
  return values
}

/** X-Registry-Config: credentials by registry. What cannot be read counts as none, as with dockerd. */
function registryAuths(request: FastifyRequest): Record<string, RegistryAuth> {
  const header = request.headers['x-registry-config']
  if (typeof header !== 'string') return {}
  try {
    const auths: unknown = JSON.parse(Buffer.from(header, 'base64url').toString('utf8'))
    return auths !== null && typeof auths === 'object' ? (auths as Record<string, RegistryAuth>) : {}
  } catch {
    return {}
  }
}
