import { forbidden, isKind } from '../common/index.js'
import type { CreateContainerBody } from '../engine/index.js'
import type { NetworkRecord } from '../overlay/index.js'
import type { ApiModules } from './contract.js'

const isOfHost = (reference: string): boolean =>
  ['', 'default', 'bridge', 'host', 'none'].includes(reference) || reference.startsWith('container:')

/** The networks that a container is to be on, by what the user called them. */
export const networksOf = (body: CreateContainerBody): string[] => [
  body.HostConfig?.NetworkMode ?? '',
  ...Object.keys(body.NetworkingConfig?.EndpointsConfig ?? {}),
]

/**
 * Makes networks of the cluster known to this host's engine, which a single container is to join; the managers are asked
 * only for what the host does not know. Throws forbidden with docker's sentence for those that only services may use.
 * What nobody knows is left to the engine to refuse.
 */
export async function admitNetworks(m: ApiModules, references: readonly string[]): Promise<void> {
  for (const reference of new Set(references)) {
    if (isOfHost(reference)) continue
    const here = known(m, reference)
    if (here) {
      if (here.scope === 'swarm' && !here.attachable) throw notAttachable(here.name)
      continue
    }
    const network = await m.cluster.attachments()?.client.network(reference)
    if (!network) continue
    if (!network.spec?.attachable) throw notAttachable(network.spec?.annotations?.name ?? network.id)
    await m.engine.networks.ensureSwarmNetwork(network)
  }
}

function known(m: ApiModules, reference: string): NetworkRecord | null {
  try {
    return m.engine.networks.findNetwork(reference)
  } catch (caught) {
    if (isKind(caught, 'notFound')) return null
    throw caught
  }
}

/** Docker's sentence, word for word. */
export const notAttachable = (name: string): Error =>
  forbidden(
    'notAttachable',
    `Could not attach to network ${name}: rpc error: code = PermissionDenied desc = network ${name} not manually attachable`,
  )
