import { X509Certificate } from 'node:crypto'
import test from 'ava'
import { systemClock } from '../../../src/common/index.js'
import {
  createCaClient,
  crossSign,
  isIssuedBy,
  newJoinToken,
  newSigningRequest,
  parseJoinToken,
  rootDigest,
  signLeaf,
} from '../../../src/manager/ca/index.js'

const HOUR = 3_600_000

test('a join token pins the root by its digest and has the known form', async (t) => {
  const root = await createCaClient({ clock: systemClock }).createRoot()
  const token = newJoinToken(root.cert)
  t.regex(token, /^SWMTKN-1-[0-9a-z]{50}-[0-9a-z]{25}$/)
  t.is(parseJoinToken(token).digest, rootDigest(root.cert))
  t.not(newJoinToken(root.cert), token)
})

for (const bad of [
  '',
  'x',
  'SWMTKN-1-abc-def',
  `SWMTKN-1-${'z'.repeat(50)}-${'a'.repeat(25)}`,
  `SWMTKN-3-${'0'.repeat(50)}-${'a'.repeat(25)}`,
])
  test(`a malformed join token is refused: ${JSON.stringify(bad)}`, (t) => {
    t.throws(() => parseJoinToken(bad), { message: 'invalid join token' })
  })

test("the first manager's identity says node, role and cluster, and verifies under the root", async (t) => {
  const ca = createCaClient({ clock: systemClock })
  const root = await ca.createRoot()
  const id = await ca.issueFirst(root, { clusterId: 'c1', nodeId: 'n1', expiryMs: HOUR })
  t.is(id.nodeId, 'n1')
  t.is(id.clusterId, 'c1')
  t.is(id.role, 'manager')
  t.true(Math.abs(id.expiresAtMs - Date.now() - HOUR) < 60_000)
  const leaf = new X509Certificate(id.cert)
  t.is(leaf.subject, 'O=c1\nOU=swarm-manager\nCN=n1')
  t.true(leaf.verify(new X509Certificate(root.cert).publicKey))
  t.true(leaf.checkIssued(new X509Certificate(root.cert)))
  t.true(await isIssuedBy(id.cert, root.cert))
})

test('a leaf of a cross-signed root chains to the old root and to the new one', async (t) => {
  const ca = createCaClient({ clock: systemClock })
  const [old, next] = [await ca.createRoot(), await ca.createRoot()]
  const intermediate = await crossSign(old, next.cert)
  const { csr } = await newSigningRequest()
  const chain = await signLeaf(next, csr, {
    nodeId: 'n',
    clusterId: 'c',
    role: 'worker',
    nowMs: Date.now(),
    expiryMs: HOUR,
    intermediate,
  })
  const cross = new X509Certificate(intermediate)
  t.true(cross.checkIssued(new X509Certificate(old.cert)))
  t.true(new X509Certificate(chain).verify(cross.publicKey))
  t.true(await isIssuedBy(chain, next.cert))
  t.false(await isIssuedBy(chain, old.cert))
})

test('a signing request that was changed on the way is refused', async (t) => {
  const root = await createCaClient({ clock: systemClock }).createRoot()
  const { csr } = await newSigningRequest()
  csr[csr.length - 5]! ^= 1
  await t.throwsAsync(
    signLeaf(root, csr, { nodeId: 'n', clusterId: 'c', role: 'worker', nowMs: Date.now(), expiryMs: HOUR }),
    {
      message: /signing request is not valid/,
    },
  )
})
