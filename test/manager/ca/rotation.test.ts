import { X509Certificate } from 'node:crypto'
import test from 'ava'
import { ObjectKind, UpdateRequest } from '#proto'
import { createService, EMPTY_SPEC, list, ManagerLab, serviceSpec, until } from '../lab.js'

test('the root rotates by cross-signing: nodes renew, nothing is cut off, then tokens and root change', async (t) => {
  t.timeout(90_000)
  const lab = await ManagerLab.create(3)
  try {
    const at = lab.managers[1]!
    let worker = await lab.worker()
    const late = await lab.worker(at)
    await until('both are connected', () => worker.session && late.session)
    const before = await lab.cluster()
    const epoch = worker.session!.certificateEpoch
    const ca = { ...before.spec!.ca!, forceRotate: before.spec!.ca!.forceRotate + 1 }
    await at.manager.control.update(
      UpdateRequest.create({
        kind: ObjectKind.KIND_CLUSTER,
        id: before.id,
        version: before.meta!.version,
        spec: { ...EMPTY_SPEC, cluster: { ...before.spec!, ca } },
      }),
    )
    const during = await lab.cluster()
    t.truthy(during.rootCa!.rotation)
    t.is(during.rootCa!.rotation!.key.length, 0)
    t.is(during.rootCa!.workerToken, before.rootCa!.workerToken)
    await until('nodes are told to renew', () => worker.session!.certificateEpoch > epoch)

    // A node that joins now gets a certificate of the new root, and trusts both.
    const joined = await lab.worker()
    t.is(joined.identity.ca.match(/BEGIN CERTIFICATE/g)?.length, 2)
    t.is(joined.identity.cert.match(/BEGIN CERTIFICATE/g)?.length, 2)
    await until('it is let in', () => joined.session)

    const remotes = lab.managers.map((m) => m.address)
    for (const m of lab.managers) {
      m.identity = await lab.ca.renew({ remotes, identity: m.identity })
      m.manager.setIdentity(m.identity)
    }
    // Old certificate against a new one, both ways.
    worker.close()
    worker = lab.agent(worker.identity, lab.managers[2]!)
    await until('the old certificate is good still', () => worker.session)
    t.is((await lab.cluster()).rootCa!.rotation === null, false)
    for (const a of [worker, late]) {
      const identity = await lab.ca.renew({ remotes: [remotes[0]!], identity: a.identity })
      a.close()
      const again = lab.agent(identity, at)
      await until('it is let in with the new one', () => again.session)
    }
    const after = await until('the rotation ends', async () => {
      const c = await lab.cluster()
      return c.rootCa!.rotation === null ? c : null
    })
    t.not(after.rootCa!.digest, before.rootCa!.digest)
    t.not(after.rootCa!.workerToken, before.rootCa!.workerToken)
    await t.throwsAsync(lab.ca.join({ remote: remotes[0]!, token: before.rootCa!.workerToken, availability: 0 }), {
      message: /remote CA does not match fingerprint/,
    })
    const last = await lab.worker(lab.managers[2])
    await until('a node joins with the new token', () => last.session)
    t.true(new X509Certificate(last.identity.cert).verify(new X509Certificate(after.rootCa!.cert).publicKey))
    await createService(at, serviceSpec('web', 1))
    t.is((await list(lab.managers[2]!, ObjectKind.KIND_SERVICE)).length, 1)
    t.is(lab.managers.filter((m) => m.manager.status().members.length === 3).length, 3)
  } finally {
    await lab.close()
  }
})
