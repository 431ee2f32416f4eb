import { CA, Empty, IssueNodeCertificateRequest, type IssueNodeCertificateResponse } from '#proto'
import { callUnary, dialGrpc } from '../../common/grpc/index.js'
import { type Clock, invalid, ShoalError, unavailable } from '../../common/index.js'
import type { CaClient, NodeIdentity } from '../contract.js'
import { createRoot, newSigningRequest, signLeaf } from './certificates.js'
import { readIdentity } from './identity.js'
import { parseJoinToken, rootDigest } from './token.js'

/** A manager may have to wait for a leader. */
const CALL_DEADLINE_MS = 20_000

export function createCaClient(modules: { readonly clock: Clock }): CaClient {
  const { clock } = modules

  const accept = (answer: IssueNodeCertificateResponse, key: string): NodeIdentity =>
    readIdentity({
      key,
      cert: Buffer.from(answer.certificate).toString(),
      ca: Buffer.from(answer.rootCa).toString(),
    })

  return {
    createRoot: () => createRoot(clock.now()),

    issueFirst: async (root, { clusterId, nodeId, expiryMs }) => {
      const { csr, key } = await newSigningRequest()
      const cert = await signLeaf(root, csr, { nodeId, clusterId, role: 'manager', nowMs: clock.now(), expiryMs })
      return readIdentity({ key, cert, ca: root.cert })
    },

    join: async ({ remote, token, availability, nodeId }) => {
      const { digest } = parseJoinToken(token)
      const root = await fetchRoot(remote)
      const got = rootDigest(root)
      if (got !== digest)
        throw invalid('rootMismatch', `remote CA does not match fingerprint. Expected: ${digest} Got: ${got}`, {
          remote,
        })
      const { csr, key } = await newSigningRequest()
      // From here on the server must show a manager's certificate of that root.
      const client = dialGrpc({ address: remote, identity: null, ca: root })
      try {
        const request = IssueNodeCertificateRequest.create({ csr, token, availability, nodeId: nodeId ?? '' })
        return accept(await callUnary(client, CA.IssueNodeCertificate, request, { deadlineMs: CALL_DEADLINE_MS }), key)
      } finally {
        client.close()
      }
    },

    renew: async ({ remotes, identity }) => {
      const { csr, key } = await newSigningRequest()
      let last: ShoalError | null = null
      for (const address of remotes) {
        const client = dialGrpc({ address, identity })
        try {
          const request = IssueNodeCertificateRequest.create({ csr })
          return accept(
            await callUnary(client, CA.IssueNodeCertificate, request, { deadlineMs: CALL_DEADLINE_MS }),
            key,
          )
        } catch (e) {
          last = ShoalError.from(e)
          // Refused for good: another manager would say the same.
          if (last.kind === 'forbidden') throw last
        } finally {
          client.close()
        }
      }
      throw last ?? unavailable('noManagers', 'the certificate cannot be renewed: no manager is known to this node', {})
    },
  }
}

/** The only call to a server not yet trusted: the token's digest decides afterwards. */
async function fetchRoot(remote: string): Promise<string> {
  const client = dialGrpc({ address: remote, identity: null })
  try {
    const answer = await callUnary(client, CA.GetRootCertificate, Empty.create(), { deadlineMs: CALL_DEADLINE_MS })
    return Buffer.from(answer.cert).toString()
  } catch (caught) {
    const e = ShoalError.from(caught)
    // An answer of a manager has a code of its own; everything else comes from the connection.
    if (!e.code.startsWith('grpc')) throw e
    throw unavailable(
      'noManagerThere',
      `no manager answers at ${remote} (${reasonOf(e.message)}): take the address from docker swarm join-token on a manager, and see that its TCP port is open for this host`,
      { remote },
      { cause: e },
    )
  } finally {
    client.close()
  }
}

/** The connection's own word for what went wrong, out of gRPC's and OpenSSL's sentences. */
function reasonOf(message: string): string {
  const errno = /\b(E[A-Z]{4,})\b/.exec(message)?.[1]
  if (errno) return errno
  if (/SSL routines|wrong version number|ssl3?_/i.test(message)) return 'it does not speak TLS'
  return message.split(/[\n|]/)[0]!.trim()
}
