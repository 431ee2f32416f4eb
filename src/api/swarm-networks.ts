import { forbidden, isKind, ShoalError } from '../common/index.js'
import type { CreateContainerBody } from '../engine/index.js'
import type { NetworkRecord } from '../overlay/index.js'
import type { ApiModules } from './contract.js'

/** Between two looks at a network that has no addresses yet, ms, and how many there are: 20 s, as for one address. */
const ALLOCATION_LOOK_MS = 100
const ALLOCATION_LOOKS = 200

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
      if (here !== 'several' && here.scope === 'swarm' && !here.attachable) throw notAttachable(here.name)
      continue
    }
    await admit(m, reference)
  }
}

/** A network that was only just created has no addresses yet: it gets them soon. */
async function admit(m: ApiModules, reference: string): Promise<void> {
  for (let looks = 1; ; looks++) {
    const network = await m.cluster.attachments()?.client.network(reference)
    if (!network) return
    if (!network.spec?.attachable) throw notAttachable(network.spec?.annotations?.name ?? network.id)
    try {
      await m.engine.networks.ensureSwarmNetwork(network)
      return
    } catch (caught) {
      if (!(caught instanceof ShoalError && caught.code === 'noSubnet') || looks === ALLOCATION_LOOKS) throw caught
    }
    await m.clock.sleep(ALLOCATION_LOOK_MS)
  }
}

/** Of several of that name the engine takes the one that it has the id of, or refuses. */
function known(m: ApiModules, reference: string): NetworkRecord | 'several' | null {
  try {
    return m.engine.networks.findNetwork(reference)
  } catch (caught) {
    if (isKind(caught, 'notFound')) return null
    if (caught instanceof ShoalError && caught.code === 'ambiguousNetwork') return 'several'
    throw caught
  }
}

/** Docker's sentence, word for word. */
export const notAttachable = (name: string): Error =>
  forbidden(
    'notAttachable',
    `Could not attach to network ${name}: rpc error: code = PermissionDenied desc = network ${name} not manually attachable`,
  )
