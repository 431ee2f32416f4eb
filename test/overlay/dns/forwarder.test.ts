import test from 'ava'
import { seededRng, systemClock } from '../../../src/common/index.js'
import { Forwarder } from '../../../src/overlay/dns/forwarder.js'
import { overlayOptions } from '../../../src/overlay/options.js'

test('a server that the kernel refuses to send to is passed over', async (t) => {
  const options = overlayOptions({ root: '/nowhere', runDir: '/nowhere' })
  const forwarder = new Forwarder({ clock: systemClock, rng: seededRng(1), options })
  const query = Uint8Array.from([0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0])
  // A broadcast address: connecting to it is not permitted.
  t.is(await forwarder.forward(query, ['255.255.255.255'], 'udp'), null)
})
