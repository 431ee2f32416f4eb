import { type AttachNetworkRequest, Empty, type GetRequest, ObjectKind, type RemoveRequest } from '#proto'
import type { Peer } from '../../common/grpc/index.js'
import { forbidden } from '../../common/index.js'
import type { ControlApi } from '../contract.js'

/**
 * What a node that is no manager may ask, for its own single containers on attachable networks: look a network up, attach
 * to it, and end its own attachments. Whoever is asked passes it on to the leader: the node does not know who leads.
 */
export class NodeAccess {
  constructor(private readonly control: ControlApi) {}

  async get(request: GetRequest, peer: Peer) {
    if (request.kind !== ObjectKind.KIND_NETWORK) throw refused(peer, 'read anything but networks')
    return this.control.get(request)
  }

  async attachNetwork(request: AttachNetworkRequest, peer: Peer) {
    if (request.nodeId !== peer.nodeId) throw refused(peer, `attach containers of node ${request.nodeId}`)
    return this.control.attachNetwork(request)
  }

  async remove(request: RemoveRequest, peer: Peer): Promise<Empty> {
    if (request.kind !== ObjectKind.KIND_TASK) throw refused(peer, 'remove anything but attachments')
    const { object } = await this.control.get({ kind: ObjectKind.KIND_TASK, reference: request.id })
    const task = object?.task
    if (task?.id !== request.id || task.nodeId !== peer.nodeId || !task.spec?.attachment)
      throw refused(peer, `remove task ${request.id}, which is no attachment of its own`)
    await this.control.remove(request)
    return Empty.create()
  }
}

const refused = (peer: Peer, what: string): Error =>
  forbidden('notManager', `node ${peer.nodeId} is no manager and may not ${what}`)
