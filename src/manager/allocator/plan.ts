import type { Endpoint, Network, NetworkAttachment, NetworkAttachmentConfig, PortConfig, Service, Task } from '#proto'
import {
  Annotations,
  NetworkAttachment as Attachment,
  EndpointMode,
  Endpoint as EndpointType,
  NetworkSpec,
  Network as NetworkType,
} from '#proto'
import { ingressPortsOf, isNodeLocalNetwork, networksOf, usesIngress } from '../objects/index.js'
import type { ReadView } from '../store/contract.js'
import { type AllocationBook, addressesOf, type Outcome } from './book.js'

/** Networks whose addresses the cluster lends; the others (macvlan from config-only networks, plugins) look after theirs. */
export const isOverlay = (network: Network): boolean => {
  const name = (network.driverState ?? network.spec?.driverConfig)?.name ?? ''
  return name === '' || name === 'overlay'
}

type NetworkReads = Pick<ReadView, 'get' | 'byName' | 'list'>

/** By id or name; a network that every engine has by itself needs no object in the store. Null: there is none. */
export function resolveNetwork(target: string, view: NetworkReads): Network | null {
  const found = view.get('network', target) ?? view.byName('network', target)
  if (found !== null) return found
  if (!isNodeLocalNetwork(target)) return null
  return NetworkType.create({
    id: target,
    spec: NetworkSpec.create({
      annotations: Annotations.create({ name: target }),
      driverConfig: { name: target, options: {} },
    }),
    driverState: { name: target, options: {} },
  })
}

export const ingressNetwork = (view: NetworkReads): Network | null =>
  view.list('network').find((n) => n.spec?.ingress) ?? null

/** Networks on which the service gets a virtual address. */
function vipNetworks(service: Service, view: NetworkReads): Outcome<readonly Network[]> {
  if (service.spec?.endpoint?.mode === EndpointMode.DNSRR) return { ok: true, value: [] }
  const networks: Network[] = []
  for (const { target } of networksOf(service.spec)) {
    const network = resolveNetwork(target, view)
    if (network === null) return { ok: false, reason: `network ${target} not found` }
    if (isOverlay(network) && !networks.some((n) => n.id === network.id)) networks.push(network)
  }
  if (usesIngress(service)) {
    const ingress = ingressNetwork(view)
    if (ingress === null) return { ok: false, reason: 'the cluster has no ingress network for the published ports' }
    if (!networks.some((n) => n.id === ingress.id)) networks.push(ingress)
  }
  return { ok: true, value: networks }
}

/** The service's endpoint as it should be; addresses and ports it has already stay. On a refusal the book is as before. */
export function planEndpoint(service: Service, view: NetworkReads, book: AllocationBook): Outcome<Endpoint> {
  const networks = vipNetworks(service, view)
  if (!networks.ok) return networks
  const had = service.endpoint?.virtualIps ?? []
  const ports: Outcome<PortConfig[]> = book.takePorts(service)
  if (!ports.ok) return ports
  const virtualIps = had.filter((v) => networks.value.some((n) => n.id === v.networkId))
  const taken: (readonly [string, string])[] = []
  for (const network of networks.value) {
    if (virtualIps.some((v) => v.networkId === network.id)) continue
    const result = book.takeAddresses(service.id, network.id)
    if (!result.ok) {
      for (const [networkId, address] of taken) book.giveAddress(service.id, networkId, address)
      book.setPorts(service.id, service.endpoint?.ports ?? [])
      return result
    }
    // A service is reached by one address a network; IPv6 names resolve to the tasks themselves.
    const [address, ...others] = result.value
    for (const other of others) book.giveAddress(service.id, network.id, other)
    if (address === undefined) continue
    taken.push([network.id, address])
    virtualIps.push({ networkId: network.id, address })
  }
  for (const v of had) if (!virtualIps.includes(v)) book.giveAddress(service.id, v.networkId, v.address)
  return {
    ok: true,
    value: EndpointType.create({ spec: service.spec?.endpoint ?? null, ports: ports.value, virtualIps }),
  }
}

/** The task's networks with an address on each; the ingress network too when its service publishes ports there. */
export function planAttachments(
  task: Task,
  service: Service | null,
  view: NetworkReads,
  book: AllocationBook,
): Outcome<NetworkAttachment[]> {
  const configs: NetworkAttachmentConfig[] = [
    ...(task.spec?.networks.length ? task.spec.networks : networksOf(service?.spec ?? null)),
  ]
  if (ingressPortsOf(task.endpoint?.spec?.ports).length > 0) {
    const ingress = ingressNetwork(view)
    if (ingress === null) return { ok: false, reason: 'the cluster has no ingress network for the published ports' }
    if (!configs.some((c) => resolveNetwork(c.target, view)?.id === ingress.id))
      configs.push({ target: ingress.id, aliases: [], driverOpts: {}, addresses: [] })
  }
  const attachments: NetworkAttachment[] = []
  const undo = (reason: string): Outcome<NetworkAttachment[]> => {
    for (const [networkId, address] of addressesOf({ ...task, networks: attachments }))
      book.giveAddress(task.id, networkId, address)
    return { ok: false, reason }
  }
  for (const config of configs) {
    const network = resolveNetwork(config.target, view)
    if (network === null) return undo(`network ${config.target} not found`)
    let addresses: readonly string[] = []
    if (isOverlay(network)) {
      const result = book.takeAddresses(task.id, network.id, config.addresses)
      if (!result.ok) return undo(result.reason)
      addresses = result.value
    }
    attachments.push(
      Attachment.create({
        network,
        addresses: [...addresses],
        aliases: config.aliases,
        driverOpts: config.driverOpts,
      }),
    )
  }
  return { ok: true, value: attachments }
}
