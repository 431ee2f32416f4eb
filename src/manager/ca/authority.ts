import {
  Annotations,
  type Cluster,
  type IssueNodeCertificateRequest,
  IssueNodeCertificateResponse,
  Node,
  type NodeAvailability,
  NodeRole,
  NodeSpec,
  NodeState,
  NodeStatus,
  Timestamp,
} from '#proto'
import type { Peer } from '../../common/grpc/index.js'
import { type Clock, conflict, forbidden, invalid, newObjectId, unauthorized, unavailable } from '../../common/index.js'
import type { Store, Transaction } from '../store/index.js'
import { type RootKeyPair, signLeaf } from './certificates.js'
import { parseJoinToken, sameToken } from './token.js'

const text = (bytes: Uint8Array): string => Buffer.from(bytes).toString()
const NANOS_PER_MS = 1e6

/** What signs now, what follows the leaf, and what nodes shall trust. While a root rotates, both roots are trusted. */
export function signer(cluster: Cluster): { root: RootKeyPair; intermediate: string; trust: string } {
  const ca = cluster.rootCa
  if (!ca) throw unavailable('noRoot', 'the cluster has no root certificate yet; try again')
  const rotation = ca.rotation
  if (!rotation) return { root: { cert: text(ca.cert), key: text(ca.key) }, intermediate: '', trust: text(ca.cert) }
  return {
    root: { cert: text(rotation.cert), key: text(rotation.key) },
    intermediate: text(rotation.crossSignedCert),
    trust: text(ca.cert) + text(rotation.cert),
  }
}

/** Smallest number not in use: it must fit the 16 bits of a packet mark. */
export function freeIngressIndex(tx: Transaction): number {
  const used = new Set(tx.list('node').map((n) => n.ingressIndex))
  for (let i = 1; i <= 65000; i++) if (!used.has(i)) return i
  throw conflict('tooManyNodes', 'the cluster has 65000 nodes; remove nodes that are gone before others can join')
}

/** On the leader: decides who gets which certificate, and writes new nodes. */
export class CertificateAuthority {
  constructor(
    private readonly store: Store,
    private readonly clock: Clock,
  ) {}

  /** `caller` is null for one without a certificate. */
  async issue(request: IssueNodeCertificateRequest, caller: Peer | null): Promise<IssueNodeCertificateResponse> {
    const cluster = this.store.view().cluster()
    if (!cluster) throw unavailable('noCluster', 'the cluster is not set up yet; try again')
    return request.token === '' ? this.#renew(request, caller, cluster) : this.#admit(request, cluster)
  }

  async #admit(request: IssueNodeCertificateRequest, cluster: Cluster): Promise<IssueNodeCertificateResponse> {
    const role = roleOfToken(cluster, request.token)
    const nodeId = request.nodeId || newObjectId()
    if (request.nodeId !== '') this.#mayReturn(request.nodeId, role, cluster)
    const certificate = await this.#sign(cluster, request.csr, nodeId, role)
    await this.store.update((tx) => {
      // The token may have been rotated since.
      const now = tx.cluster()
      if (!now || roleOfToken(now, request.token) !== role) throw wrongToken()
      const known = tx.get('node', nodeId)
      if (known) tx.update('node', { ...known, certificate: Buffer.from(certificate) })
      else tx.create('node', newNode(nodeId, role, request.availability, certificate, freeIngressIndex(tx)))
    })
    return answer(cluster, nodeId, role, certificate)
  }

  /** A node whose certificate ran out comes back under its old id. */
  #mayReturn(nodeId: string, role: NodeRole, cluster: Cluster): void {
    const node = this.store.view().get('node', nodeId)
    if (!node || isRemoved(cluster, nodeId))
      throw forbidden('nodeRemoved', `node ${nodeId} is not part of the cluster any more; leave and join anew`)
    if (node.role !== role)
      throw forbidden('wrongRole', `node ${nodeId} has another role than the join token; use the other token`)
    if (node.status?.state === NodeState.NODE_READY)
      throw conflict('nodeReady', `node ${nodeId} is connected and needs no new admission`)
  }

  async #renew(
    request: IssueNodeCertificateRequest,
    caller: Peer | null,
    cluster: Cluster,
  ): Promise<IssueNodeCertificateResponse> {
    if (!caller) throw wrongToken()
    const node = this.store.view().get('node', caller.nodeId)
    if (caller.clusterId !== cluster.id || !node || isRemoved(cluster, caller.nodeId))
      throw forbidden('nodeRemoved', `node ${caller.nodeId} is not part of the cluster any more`)
    const certificate = await this.#sign(cluster, request.csr, node.id, node.role)
    await this.store.update((tx) => {
      const now = tx.get('node', node.id)
      if (!now || now.role !== node.role)
        throw unavailable('roleChanged', `the role of node ${node.id} changed meanwhile; ask again`)
      tx.update('node', { ...now, certificate: Buffer.from(certificate) })
    })
    return answer(cluster, node.id, node.role, certificate)
  }

  #sign(cluster: Cluster, csr: Uint8Array, nodeId: string, role: NodeRole): Promise<string> {
    const { root, intermediate } = signer(cluster)
    if (root.key === '')
      throw unavailable('externalCa', 'the cluster has no CA key: its certificates come from an external CA')
    return signLeaf(root, csr, {
      nodeId,
      clusterId: cluster.id,
      role: role === NodeRole.MANAGER ? 'manager' : 'worker',
      nowMs: this.clock.now(),
      expiryMs: (cluster.spec?.ca?.nodeCertExpiry ?? 0) / NANOS_PER_MS,
      intermediate,
    })
  }
}

const wrongToken = () => invalid('wrongToken', 'A valid join token is necessary to join this cluster')

function roleOfToken(cluster: Cluster, token: string): NodeRole {
  parseJoinToken(token)
  if (sameToken(token, cluster.rootCa?.managerToken ?? '')) return NodeRole.MANAGER
  if (sameToken(token, cluster.rootCa?.workerToken ?? '')) return NodeRole.WORKER
  throw wrongToken()
}

const answer = (cluster: Cluster, nodeId: string, role: NodeRole, certificate: string): IssueNodeCertificateResponse =>
  IssueNodeCertificateResponse.create({
    nodeId,
    role,
    certificate: Buffer.from(certificate),
    rootCa: Buffer.from(signer(cluster).trust),
    clusterId: cluster.id,
  })

export const newNode = (
  id: string,
  role: NodeRole,
  availability: NodeAvailability,
  certificate: string,
  ingressIndex: number,
): Node =>
  Node.create({
    id,
    spec: NodeSpec.create({ annotations: Annotations.create(), desiredRole: role, availability }),
    status: NodeStatus.create({ state: NodeState.NODE_UNKNOWN }),
    role,
    certificate: Buffer.from(certificate),
    ingressIndex,
  })

export const isRemoved = (cluster: Cluster, nodeId: string): boolean =>
  cluster.removedNodes.some((r) => r.nodeId === nodeId)

/** Throws unless the caller is a node of this cluster that was not removed. */
export function authorise(peer: Peer | null, cluster: Cluster | null, role: 'manager' | 'any'): Peer {
  if (!peer) throw unauthorized('noCertificate', 'this call needs a node certificate')
  if (cluster && peer.clusterId !== cluster.id)
    throw forbidden('foreignCluster', `node ${peer.nodeId} belongs to another cluster`)
  if (cluster && isRemoved(cluster, peer.nodeId))
    throw forbidden('nodeRemoved', `node ${peer.nodeId} was removed from the cluster`)
  if (role === 'manager' && peer.role !== 'manager')
    throw forbidden('notManager', `Permission denied: node ${peer.nodeId} is a worker; this call is for managers`)
  return peer
}

export const timestamp = (ms: number): Timestamp => {
  const seconds = Math.floor(ms / 1000)
  return Timestamp.create({ seconds, nanos: Math.floor((ms - seconds * 1000) * 1e6) })
}
