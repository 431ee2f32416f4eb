import {
  type CreateResponse,
  JobStatus,
  PortProtocol,
  PublishMode,
  type PullOptions,
  Service,
  type ServiceMode,
  type ServiceSpec,
  type TaskSpec,
  type UpdateRequest,
  UpdateState,
  UpdateStatus,
  Version,
} from '#proto'
import { type Clock, newObjectId, unimplemented } from '../../common/index.js'
import { timestamp } from '../ca/index.js'
import { equal, ingressPortsOf, isNodeLocalNetwork } from '../objects/index.js'
import type { ReadView, Store, Tables, Transaction } from '../store/index.js'
import { badSpec, objectNotFound, refused } from './errors.js'
import { presentIngress } from './networks.js'
import { lookUp } from './objects.js'
import { checkServiceSpec } from './validate-service.js'

/** Services: what may be created and changed, and what an update means for the spec kept for rollback. */
export class ServiceControl {
  constructor(
    private readonly store: Store,
    private readonly clock: Clock,
  ) {}

  async create(given: ServiceSpec): Promise<{ id: string; warnings: CreateResponse['warnings'] }> {
    checkServiceSpec(given)
    const id = newObjectId()
    await this.store.update((tx) => {
      const spec = resolve(tx, given, null)
      checkAgainstCluster(tx, spec, id)
      tx.create(
        'service',
        Service.create({
          id,
          spec,
          specVersion: Version.create(),
          jobStatus: isJob(spec.mode) ? JobStatus.create({ lastExecution: timestamp(this.clock.now()) }) : null,
        }),
      )
    })
    return { id, warnings: [] }
  }

  async update(request: UpdateRequest): Promise<{ warnings: string[] }> {
    const given = request.spec?.service ?? null
    if (!request.rollback && given) checkServiceSpec(given)
    await this.store.update((tx) => {
      const service = tx.get('service', request.id)
      if (!service || service.pendingDelete) throw objectNotFound('service', request.id)
      const next = request.rollback ? rolledBack(service, this.clock.now()) : this.#updated(tx, service, given, request)
      const asRead = { ...next, meta: { createdAt: null, updatedAt: null, version: request.version } }
      tx.update('service', asRead)
    })
    return { warnings: [] }
  }

  #updated(tx: Transaction, service: Service, given: ServiceSpec | null, request: UpdateRequest): Service {
    if (!given) throw badSpec('the update has no service spec')
    if (given.annotations?.name !== service.spec?.annotations?.name)
      throw unimplemented('renameService', 'renaming services is not supported')
    if (modeName(given.mode) !== modeName(service.spec?.mode ?? null))
      throw unimplemented('changeMode', 'service mode change is not allowed')
    const spec = keepAuth(resolve(tx, given, service.spec), service, request.registryAuthFrom)
    checkAgainstCluster(tx, spec, service.id)
    return {
      ...service,
      spec,
      previousSpec: service.spec,
      previousSpecVersion: service.specVersion,
      // Not the version this write will get: only "another one than before" matters.
      specVersion: Version.create({ index: service.meta?.version?.index ?? 0 }),
      updateStatus: null,
      jobStatus: nextIteration(service, this.clock.now()),
    }
  }

  /** Marks it; the orchestrator deletes it when its tasks have stopped, so that addresses are not lent again early. */
  async remove(id: string): Promise<void> {
    await this.store.update((tx) => {
      const service = tx.get('service', id)
      if (!service || service.pendingDelete) throw objectNotFound('service', id)
      tx.update('service', { ...service, pendingDelete: true })
    })
  }
}

/** An update or rollback of a job runs it anew. */
function nextIteration(service: Service, nowMs: number): JobStatus | null {
  if (!isJob(service.spec?.mode ?? null)) return service.jobStatus
  const jobIteration = (service.jobStatus?.jobIteration ?? 0) + 1
  return JobStatus.create({ jobIteration, lastExecution: timestamp(nowMs) })
}

/** Only tasks made from `nowMs` on tell how the rollback goes: the spec may have had failures in its time. */
function rolledBack(service: Service, nowMs: number): Service {
  if (!service.previousSpec)
    throw refused(
      'noPreviousSpec',
      `service ${service.spec?.annotations?.name ?? service.id} does not have a previous spec`,
    )
  return {
    ...service,
    spec: service.previousSpec,
    specVersion: service.previousSpecVersion,
    previousSpec: service.spec,
    previousSpecVersion: service.specVersion,
    updateStatus: isJob(service.spec?.mode ?? null)
      ? null
      : UpdateStatus.create({
          state: UpdateState.ROLLBACK_STARTED,
          startedAt: timestamp(nowMs),
          message: 'manually requested rollback',
        }),
    jobStatus: nextIteration(service, nowMs),
  }
}

/**
 * Networks by name become ids. In the old place for them, the service's, they stay while they stay the same; others than those
 * of `old` move into the task's, by which tasks are known to be out of date.
 */
function resolve(tx: Transaction, spec: ServiceSpec, old: ServiceSpec | null): ServiceSpec {
  const task = spec.task as TaskSpec
  const wanted = task.networks.length > 0 ? task.networks : spec.networks
  const networks = wanted.map((n) => {
    if (isNodeLocalNetwork(n.target)) return n
    const network = lookUp(tx, 'network', n.target)
    if (network.spec?.ingress) throw badSpec('Service cannot be explicitly attached to the ingress network', {})
    return { ...n, target: network.id }
  })
  const seen = new Set<string>()
  for (const n of networks) {
    if (seen.has(n.target)) throw badSpec(`service is attached to network ${n.target} twice`)
    seen.add(n.target)
  }
  if (task.networks.length === 0 && (!old || equal(networks, old.networks))) return { ...spec, networks }
  return { ...spec, task: { ...task, networks }, networks: [] }
}

function checkAgainstCluster(view: ReadView, spec: ServiceSpec, ownId: string): void {
  checkPortConflicts(view, spec, ownId)
  if (ingressPortsOf(spec.endpoint?.ports).length > 0 && !presentIngress(view))
    throw refused('noIngress', 'service needs ingress network, but no ingress network is present')
  const container = spec.task?.container
  const missing = (kind: 'secret' | 'config', references: readonly { id: string; name: string }[]): void => {
    const gone = references.filter(({ id, name }) => view.get(kind, id)?.spec?.annotations?.name !== name)
    if (gone.length > 0)
      throw badSpec(`${kind}${gone.length > 1 ? 's' : ''} not found: ${gone.map((g) => g.name).join(', ')}`)
  }
  missing('secret', container?.secrets.map((s) => ({ id: s.secretId, name: s.secretName })) ?? [])
  missing('config', container?.configs.map((c) => ({ id: c.configId, name: c.configName })) ?? [])
}

/** A port of the mesh is one service's alone, and no other's host port either: it answers on every node. */
function checkPortConflicts(view: ReadView, spec: ServiceSpec, ownId: string): void {
  for (const port of spec.endpoint?.ports ?? []) {
    if (port.publishedPort === 0) continue
    for (const other of view.servicesPublishing(port.protocol, port.publishedPort)) {
      if (other.id === ownId || other.pendingDelete) continue
      const theirs = [...(other.spec?.endpoint?.ports ?? []), ...(other.endpoint?.ports ?? [])].filter(
        (p) => p.protocol === port.protocol && p.publishedPort === port.publishedPort,
      )
      const ingress = theirs.some((p) => p.publishMode === PublishMode.INGRESS)
      if (!ingress && port.publishMode === PublishMode.HOST) continue
      throw badSpec(
        `port '${port.publishedPort}' is already in use by service '${other.spec?.annotations?.name ?? ''}' (${other.id}) as ` +
          (ingress ? 'an ingress port' : 'a host-published port'),
        { port: port.publishedPort, protocol: PortProtocol.TCP === port.protocol ? 'tcp' : 'other', service: other.id },
      )
    }
  }
}

/** Credentials come with the spec or, when none came, are those of the spec (or previous spec) that is stored. */
function keepAuth(spec: ServiceSpec, service: Service, from: string): ServiceSpec {
  if (spec.task?.container?.pullOptions?.registryAuth) return spec
  if (from !== '' && from !== 'spec' && from !== 'previous-spec')
    throw badSpec(`unsupported registryAuthFrom value: ${JSON.stringify(from)}`)
  const source: Tables['service']['spec'] = from === 'previous-spec' ? service.previousSpec : service.spec
  if (from === 'previous-spec' && !source)
    throw badSpec('service has no previous spec to take registry credentials from')
  const pullOptions: PullOptions | null = source?.task?.container?.pullOptions ?? null
  return withAuth(spec, pullOptions)
}

const withAuth = (spec: ServiceSpec, pullOptions: PullOptions | null): ServiceSpec =>
  spec.task?.container ? { ...spec, task: { ...spec.task, container: { ...spec.task.container, pullOptions } } } : spec

const isJob = (mode: ServiceMode | null): boolean => mode?.replicatedJob != null || mode?.globalJob != null

export function modeName(mode: ServiceMode | null): string {
  if (mode?.global) return 'global'
  if (mode?.replicatedJob) return 'replicated-job'
  if (mode?.globalJob) return 'global-job'
  return 'replicated'
}
