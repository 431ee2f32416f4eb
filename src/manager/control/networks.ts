import {
  Annotations,
  Driver,
  type IPAMConfig,
  IPAMOptions,
  Network,
  NetworkSpec,
  type Task,
  TaskState,
  type UpdateRequest,
} from '#proto'
import { conflict, forbidden, newObjectId } from '../../common/index.js'
import type { ReadView, Store } from '../store/index.js'
import { badSpec, objectNotFound, refused } from './errors.js'
import { checkName } from './validate-common.js'

const PREDEFINED_LABEL = 'com.docker.swarm.predefined'

/** The routing mesh's own network, made with the cluster; the allocator gives it the pool's first subnet, and a VNI. */
export const ingressNetwork = (id: string): Network =>
  Network.create({
    id,
    spec: NetworkSpec.create({
      annotations: Annotations.create({ name: 'ingress' }),
      driverConfig: Driver.create({ name: 'overlay' }),
      ipam: IPAMOptions.create({ driver: Driver.create({ name: 'default' }) }),
      ingress: true,
    }),
  })

/** One that is about to go does not count. */
export const presentIngress = (view: ReadView): Network | undefined =>
  view.list('network').find((n) => n.spec?.ingress && !n.pendingDelete)

export class NetworkControl {
  constructor(private readonly store: Store) {}

  async create(spec: NetworkSpec): Promise<{ id: string; warnings: string[] }> {
    checkNetworkSpec(spec)
    const id = newObjectId()
    await this.store.update((tx) => {
      const name = spec.annotations?.name ?? ''
      if (tx.byName('network', name)) throw conflict('nameInUse', `network with name ${name} already exists`, { name })
      const ingress = spec.ingress ? presentIngress(tx) : undefined
      if (ingress)
        throw conflict('ingressExists', `ingress network (${ingress.id}) is already present`, { id: ingress.id })
      tx.create('network', Network.create({ id, spec }))
    })
    return { id, warnings: [] }
  }

  /** Only labels: what tasks are attached to must stay as it is. */
  async update(request: UpdateRequest): Promise<void> {
    const spec = request.spec?.network
    if (!spec) throw badSpec('the update has no network spec')
    await this.store.update((tx) => {
      const network = tx.get('network', request.id)
      if (!network?.spec) throw objectNotFound('network', request.id)
      if (spec.annotations?.name !== network.spec.annotations?.name)
        throw badSpec('a network cannot be renamed: only its labels can change')
      tx.update('network', {
        ...network,
        meta: { createdAt: null, updatedAt: null, version: request.version },
        spec: { ...network.spec, annotations: spec.annotations },
      })
    })
  }

  async remove(id: string): Promise<void> {
    await this.store.update((tx) => {
      const network = tx.get('network', id)
      if (!network || network.pendingDelete) throw objectNotFound('network', id)
      const name = network.spec?.annotations?.name ?? id
      if (network.spec?.annotations?.labels[PREDEFINED_LABEL] !== undefined)
        throw forbidden('predefinedNetwork', `network ${name} is a pre-defined network and cannot be removed`)
      const user = userOf(tx, network)
      if (user !== null)
        throw refused(
          'networkInUse',
          network.spec?.ingress
            ? `ingress network cannot be removed because ${user} depends on it`
            : `network ${id} is in use by ${user}`,
          { network: id },
        )
      // Tasks of services that are gone still use it: it goes with the last of them, and nobody sees it meanwhile.
      if (tx.tasksUsingNetwork(id).some(mayUse)) tx.update('network', { ...network, pendingDelete: true })
      else tx.remove('network', id)
    })
  }
}

const mayUse = (task: Task): boolean =>
  (task.desiredState <= TaskState.TASK_RUNNING || task.desiredState === TaskState.TASK_REMOVE) &&
  (task.status?.state ?? 0) <= TaskState.TASK_RUNNING

/** Who keeps the network from being removed: "service X" or "task Y". */
function userOf(view: ReadView, network: Network): string | null {
  for (const service of view.servicesUsingNetwork(network.id))
    if (!service.pendingDelete) return `service ${service.id}`
  if (network.spec?.ingress) {
    const service = view
      .list('service')
      .find((s) => !s.pendingDelete && s.spec?.endpoint?.ports.some((p) => p.publishMode === 0))
    if (service) return `service ${service.id}`
  }
  // A task whose service was removed is about to end: `stack rm` removes services and, at once, their network.
  const isLeaving = (task: Task): boolean =>
    task.serviceId !== '' && (view.get('service', task.serviceId)?.pendingDelete ?? true)
  for (const task of view.tasksUsingNetwork(network.id)) if (mayUse(task) && !isLeaving(task)) return `task ${task.id}`
  return null
}

function checkNetworkSpec(spec: NetworkSpec): void {
  checkName(spec.annotations)
  if (spec.annotations?.labels[PREDEFINED_LABEL] !== undefined)
    throw forbidden(
      'predefinedLabel',
      `label ${PREDEFINED_LABEL} is for internally created predefined networks and cannot be applied by users`,
    )
  const driver = spec.driverConfig?.name || 'overlay'
  if (spec.ingress) {
    if (spec.attachable) throw badSpec('ingress network cannot be attachable')
    if (spec.internal) throw badSpec('ingress network cannot be internal')
    if (driver !== 'overlay') throw badSpec(`ingress network must use the overlay driver, not ${driver}`)
    if (spec.ipv6Enabled) throw badSpec('ingress network cannot use IPv6')
  }
  if (spec.ipam?.driver?.name && spec.ipam.driver.name !== 'default')
    throw badSpec(`IPAM driver ${spec.ipam.driver.name} is not supported: use default`)
  for (const c of spec.ipam?.configs ?? []) checkIpam(c)
}

function checkIpam(c: IPAMConfig): void {
  if (c.subnet === '' && (c.range !== '' || c.gateway !== '' || Object.keys(c.reserved).length > 0))
    throw badSpec('an IPAM range, gateway or reserved address needs a subnet')
  if (c.subnet !== '' && !/^[0-9a-fA-F.:]+\/\d{1,3}$/.test(c.subnet))
    throw badSpec(`ipam configuration: invalid subnet ${c.subnet}`)
}
