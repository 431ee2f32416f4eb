import test from 'ava'
import type { Attachment } from '../../../src/overlay/drivers/driver.js'
import type { NetworkRecord } from '../../../src/overlay/index.js'
import {
  editHosts,
  parseExtraHost,
  parseResolvConf,
  renderHosts,
  renderResolvConf,
} from '../../../src/overlay/sandbox/files.js'
import { chooseGateway, dnsNamesOf, nextInterface } from '../../../src/overlay/sandbox/gateway.js'

test('resolv.conf is read with its comments left out and written back', (t) => {
  const conf = parseResolvConf(
    '# x\nnameserver 10.0.0.1 ; y\nnameserver\t::1\ndomain a.b\nsearch c.d e.f\noptions ndots:2\noptions edns0\n',
  )
  t.deepEqual(conf, { servers: ['10.0.0.1', '::1'], search: ['c.d', 'e.f'], options: ['ndots:2', 'edns0'] })
  t.is(renderResolvConf(conf), 'search c.d e.f\nnameserver 10.0.0.1\nnameserver ::1\noptions ndots:2 edns0\n')
})

test('hosts keeps what others wrote', (t) => {
  const own = { address: '172.17.0.2', names: ['web'] }
  const first = `${renderHosts([own])}9.9.9.9 mine\n`
  const second = editHosts(first, [own], [{ address: '172.17.0.3', names: ['web'] }])
  t.false(second.includes('172.17.0.2'))
  t.true(second.includes('9.9.9.9 mine\n172.17.0.3\tweb\n'))
  t.is(editHosts(second, [], [{ address: '172.17.0.3', names: ['web'] }]), second)
})

test('extra hosts hold IPv6 addresses', (t) => {
  t.deepEqual(parseExtraHost('a:1.2.3.4'), { name: 'a', address: '1.2.3.4' })
  t.deepEqual(parseExtraHost('a:::1'), { name: 'a', address: '::1' })
  t.deepEqual(parseExtraHost('a=[fe80::1]'), { name: 'a', address: 'fe80::1' })
  for (const bad of ['a', ':1.2.3.4', 'a:']) t.is(parseExtraHost(bad), null)
})

const attachment = (networkId: string, gateway: string, gatewayPriority = 0, hidden = false): Attachment =>
  ({
    driver: 'bridge',
    hostLink: '',
    gatewayPriority,
    hidden,
    record: { networkId, gateway, interfaceName: networkId },
  }) as Attachment
const network = (id: string): NetworkRecord | null =>
  ({
    id,
    name: id,
    driver: id.startsWith('ov') ? 'overlay' : 'bridge',
    internal: id.endsWith('internal'),
  }) as NetworkRecord

test('the default route goes by priority, then name; cluster networks take the hidden way out', (t) => {
  const b = attachment('b', '1.1.1.1')
  const a = attachment('a', '1.1.1.2')
  const ov = attachment('ov', '10.0.1.1')
  t.deepEqual(chooseGateway([b, a, ov], network), { by: 'attachment', attachment: a })
  const high = attachment('c', '1.1.1.3', 5)
  t.deepEqual(chooseGateway([b, a, high], network), { by: 'attachment', attachment: high })
  t.deepEqual(chooseGateway([ov], network), { by: 'egress' })
  t.deepEqual(chooseGateway([attachment('ov-internal', '')], network), { by: 'none' })
  t.deepEqual(chooseGateway([attachment('internal', '1.1.1.1')], network), { by: 'none' })
  t.is(nextInterface([attachment('eth0', ''), attachment('eth2', '')]), 'eth1')
  t.deepEqual(dnsNamesOf({ id: '0123456789abcdef', name: 'web', hostname: 'web' }, ['www', 'web']), [
    'web',
    'www',
    '0123456789ab',
  ])
})
