import test from 'ava'
import { Network, NetworkSpec } from '#proto'
import type { ApiModules } from '../../src/api/contract.js'
import { admitNetworks } from '../../src/api/swarm-networks.js'
import { invalid, notFound } from '../../src/common/index.js'

/** A cluster whose network gets its addresses after so many looks. */
function cluster(looksUntilAllocated: number): {
  readonly m: ApiModules
  readonly counts: { looks: number; slept: number }
} {
  const counts = { looks: 0, slept: 0 }
  const network = Network.create({ id: 'n1', spec: NetworkSpec.create({ attachable: true }) })
  const m = {
    clock: {
      async sleep(ms: number) {
        counts.slept += ms
      },
    },
    cluster: {
      attachments: () => ({
        client: {
          async network() {
            counts.looks++
            return network
          },
        },
      }),
    },
    engine: {
      networks: {
        findNetwork: () => {
          throw notFound('noSuchNetwork', 'not here yet')
        },
        async ensureSwarmNetwork() {
          if (counts.looks < looksUntilAllocated) throw invalid('noSubnet', 'not allocated')
        },
      },
    },
  }
  return { m: m as unknown as ApiModules, counts }
}

test('a network of the cluster that was just created is waited for until it has addresses', async (t) => {
  const { m, counts } = cluster(3)
  await admitNetworks(m, ['front'])
  t.is(counts.looks, 3)
})

test('one that never gets addresses is an error after 20 s', async (t) => {
  const { m, counts } = cluster(Number.POSITIVE_INFINITY)
  t.like(await t.throwsAsync(admitNetworks(m, ['front'])), { code: 'noSubnet' })
  t.true(counts.slept >= 19_000 && counts.slept <= 20_000)
})
