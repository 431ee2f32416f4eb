import { X509Certificate } from 'node:crypto'
import { invalid } from '../../common/index.js'
import type { NodeIdentity } from '../contract.js'

/** Key, certificate and roots (PEM) with what the certificate says. Throws invalid `badIdentity`. */
export function readIdentity(files: {
  readonly key: string
  readonly cert: string
  readonly ca: string
}): NodeIdentity {
  const leaf = new X509Certificate(files.cert)
  const part = (name: string): string => new RegExp(`^${name}=(.*)$`, 'm').exec(leaf.subject)?.[1] ?? ''
  const unit = part('OU')
  if (part('CN') === '' || part('O') === '' || !/^swarm-(manager|worker)$/.test(unit))
    throw invalid('badIdentity', `the certificate's subject ${JSON.stringify(leaf.subject)} is not a node's`)
  return {
    ...files,
    nodeId: part('CN'),
    clusterId: part('O'),
    role: unit === 'swarm-manager' ? 'manager' : 'worker',
    expiresAtMs: Date.parse(leaf.validTo),
  }
}
