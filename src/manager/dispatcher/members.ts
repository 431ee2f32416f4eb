import { ClusterMember, ClusterMembers, ManagerMessage, type Node, type WeightedPeer } from '#proto'
import type { ReadView } from '../store/index.js'

/** What other nodes must know of it: changes of anything else are not told. */
export const memberKey = (node: Node | null): string =>
  node?.description?.dataPathAddress
    ? `${node.description.dataPathAddress} ${node.ingressIndex} ${node.description.hostname}`
    : ''

/** Every node's place in the data plane; a node that never registered has none. */
export function clusterMembers(view: ReadView): ManagerMessage {
  const members = view.list('node').flatMap((node) =>
    node.description?.dataPathAddress
      ? [
          ClusterMember.create({
            nodeId: node.id,
            hostname: node.description.hostname,
            dataPathAddress: node.description.dataPathAddress,
            ingressIndex: node.ingressIndex,
          }),
        ]
      : [],
  )
  const dataPathPort = view.cluster()?.dataPathPort ?? 0
  return ManagerMessage.create({ members: ClusterMembers.create({ members, dataPathPort }) })
}

export const managerPeers = (view: ReadView): WeightedPeer[] =>
  view
    .list('node')
    .flatMap((n) => (n.managerStatus?.address ? [{ nodeId: n.id, address: n.managerStatus.address }] : []))
