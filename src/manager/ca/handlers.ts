import { Metadata, type UntypedServiceImplementation } from '@grpc/grpc-js'
import {
  CA,
  type Empty,
  GetRootCertificateResponse,
  GetUnlockKeyResponse,
  type IssueNodeCertificateRequest,
} from '#proto'
import { callUnary, type Peer, peerOf, unary } from '../../common/grpc/index.js'
import { unavailable } from '../../common/index.js'
import type { LeaderLink } from '../leader-link.js'
import type { Store } from '../store/index.js'
import type { CertificateAuthority } from './authority.js'

/** Who asked, when one manager passes the question on to the leader. JSON of a Peer, or `null`. */
const CALLER = 'shoal-caller'
const CALL_DEADLINE_MS = 15_000

export interface CaHandlers {
  readonly store: Store
  readonly link: LeaderLink
  readonly authority: CertificateAuthority
  readonly authorise: (peer: Peer | null, role: 'manager' | 'any') => Peer
}

/** Open to callers without a certificate, on any manager; the leader decides. */
export function caHandlers({ store, link, authority, authorise }: CaHandlers): UntypedServiceImplementation {
  const cluster = () => {
    const found = store.view().cluster()
    if (!found?.rootCa) throw unavailable('noCluster', 'this manager has not received the cluster yet; try again')
    return found
  }
  return {
    GetRootCertificate: unary<Empty, GetRootCertificateResponse>(async () =>
      GetRootCertificateResponse.create({ cert: cluster().rootCa!.cert }),
    ),
    IssueNodeCertificate: unary(async (request: IssueNodeCertificateRequest, call) => {
      const peer = peerOf(call)
      const forwarded = call.metadata.get(CALLER)[0]
      if (typeof forwarded === 'string') {
        authorise(peer, 'manager')
        if (!link.leading) throw unavailable('notLeader', 'this manager does not lead the cluster')
        return authority.issue(request, JSON.parse(forwarded) as Peer | null)
      }
      return link.call(
        () => authority.issue(request, peer),
        (client) => {
          const metadata = new Metadata()
          metadata.set(CALLER, JSON.stringify(peer))
          return callUnary(client, CA.IssueNodeCertificate, request, { deadlineMs: CALL_DEADLINE_MS, metadata })
        },
      )
    }),
    GetUnlockKey: unary<Empty, GetUnlockKeyResponse>(async (_, call) => {
      authorise(peerOf(call), 'manager')
      return GetUnlockKeyResponse.create({ unlockKey: cluster().unlockKey, version: cluster().meta?.version ?? null })
    }),
  } as UntypedServiceImplementation
}
