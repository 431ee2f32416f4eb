import test from 'ava'
import { AddressPool, chooseSubnet } from '../../../src/overlay/ipam/address-pool.js'
import { addressOfMac, contains, formatIp, macOf, overlaps, parseCidr, parseIp } from '../../../src/overlay/ipam/ip.js'

const cidr = (text: string) => parseCidr(text)!

test('addresses of both families are read and written exactly', (t) => {
  t.deepEqual(parseIp('255.255.255.255'), { bits: 32, value: 0xffffffffn })
  for (const bad of ['1.2.3', '1.2.3.4.5', '01.2.3.4', '256.1.1.1', '', 'a.b.c.d', '1.2.3.-4'])
    t.is(parseIp(bad), null, bad)
  for (const bad of ['1.2.3.4', '1.2.3.4/33', '1.2.3.4/', '1.2.3.4/8/9', '/8', '::/129', 'fd00::/08', 'fd00::'])
    t.is(parseCidr(bad), null, bad)
  t.deepEqual(parseCidr('192.168.130.7/17'), {
    bits: 32,
    base: parseIp('192.168.128.0')!.value,
    prefix: 17,
    address: parseIp('192.168.130.7')!,
  })
  t.deepEqual(parseCidr('1.2.3.4/0'), { bits: 32, base: 0n, prefix: 0, address: parseIp('1.2.3.4')! })
  for (const bad of [
    '1::2::3',
    ':1',
    '1:',
    '1:2:3:4:5:6:7',
    '1:2:3:4:5:6:7:8:9',
    '1:2:3:4:5:6:7::8',
    'fg::',
    '12345::',
  ])
    t.is(parseIp(bad), null, bad)
  for (const bad of ['::1.2.3', '::1.2.3.4.5', 'fe80::1%eth0', ':::', '::ffff:1.2.3.256']) t.is(parseIp(bad), null, bad)
  for (const [text, shown] of [
    ['::', '::'],
    ['::1', '::1'],
    ['2001:DB8:0:0:1:0:0:1', '2001:db8::1:0:0:1'],
    ['2001:db8:0:1:1:1:1:1', '2001:db8:0:1:1:1:1:1'],
    ['fd00:0:0:1::', 'fd00:0:0:1::'],
    ['::ffff:172.28.99.99', '::ffff:ac1c:6363'],
    ['ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff', 'ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff'],
  ] as const)
    t.is(formatIp(parseIp(text)!), shown)
  t.is(macOf('10.0.1.12'), '02:42:0a:00:01:0c')
  t.is(addressOfMac(cidr('2001:db8:1::/64'), 'aa:bb:cc:dd:ee:ff'), '2001:db8:1::aabb:ccdd:eeff')
  t.true(overlaps(cidr('10.0.0.0/8'), cidr('10.255.0.0/24')))
  t.true(overlaps(cidr('10.255.0.0/24'), cidr('0.0.0.0/0')))
  t.false(overlaps(cidr('10.0.0.0/24'), cidr('10.0.1.0/24')))
  t.true(overlaps(cidr('fd00::/8'), cidr('fd12:3456::/64')))
  t.false(overlaps(cidr('::/0'), cidr('0.0.0.0/0')), 'families never meet')
  t.false(contains(cidr('::/0'), parseIp('1.2.3.4')!))
})

test('an IPv6 pool lends from a subnet of any size', (t) => {
  const pool = new AddressPool(cidr('fd00:1::/64'), cidr('fd00:1::ffff:ffff:ffff:fffe/127'))
  t.deepEqual(pool.allocate(), { ok: true, address: 'fd00:1::ffff:ffff:ffff:fffe' })
  t.deepEqual(pool.allocate(), { ok: true, address: 'fd00:1::ffff:ffff:ffff:ffff' })
  t.deepEqual(pool.allocate(), { ok: false, reason: 'exhausted' })
  t.deepEqual(pool.allocate('FD00:1:0::A'), { ok: true, address: 'fd00:1::a' })
  t.deepEqual(pool.allocate('fd00:1::a'), { ok: false, reason: 'inUse' })
  t.deepEqual(pool.allocate('fd00:1::'), { ok: false, reason: 'inUse' }, "the routers' anycast address")
  t.deepEqual(pool.allocate('10.0.0.1'), { ok: false, reason: 'outside' })
  pool.release('fd00:1:0:0::a')
  t.deepEqual(pool.allocate('fd00:1::a'), { ok: true, address: 'fd00:1::a' })
})

test('a pool lends the lowest free address, each once, never its ends, and takes them back', (t) => {
  const pool = new AddressPool(cidr('10.0.0.0/29'), null)
  t.deepEqual(pool.allocate('10.0.0.1'), { ok: true, address: '10.0.0.1' })
  const got = Array.from({ length: 5 }, () => pool.allocate())
  t.deepEqual(
    got.map((a) => a.ok && a.address),
    ['10.0.0.2', '10.0.0.3', '10.0.0.4', '10.0.0.5', '10.0.0.6'],
  )
  t.deepEqual(pool.allocate(), { ok: false, reason: 'exhausted' })
  pool.release('10.0.0.4')
  pool.release('10.0.0.4')
  pool.release('no address')
  t.deepEqual(pool.allocate('10.0.0.5'), { ok: false, reason: 'inUse' })
  t.deepEqual(pool.allocate(), { ok: true, address: '10.0.0.4' })
  t.deepEqual(pool.allocate('10.0.1.4'), { ok: false, reason: 'outside' })
  t.deepEqual(pool.allocate('10.0.0.0'), { ok: false, reason: 'inUse' })
})

test('a range limits choice, not wishes', (t) => {
  const pool = new AddressPool(cidr('10.0.0.0/24'), cidr('10.0.0.128/31'))
  t.deepEqual(pool.allocate('10.0.0.9'), { ok: true, address: '10.0.0.9' })
  t.deepEqual(pool.allocate(), { ok: true, address: '10.0.0.128' })
  t.deepEqual(pool.allocate(), { ok: true, address: '10.0.0.129' })
  t.deepEqual(pool.allocate(), { ok: false, reason: 'exhausted' })
  pool.release('10.0.0.9')
  t.deepEqual(pool.allocate(), { ok: false, reason: 'exhausted' })
})

test('subnets are cut around what is used, pool after pool', (t) => {
  const pools = [
    { base: '172.17.0.0/16', size: 16 },
    { base: '10.0.0.0/8', size: 24 },
  ]
  t.is(chooseSubnet(pools, []), '172.17.0.0/16')
  t.is(chooseSubnet(pools, [cidr('172.17.3.0/24')]), '10.0.0.0/24')
  t.is(chooseSubnet(pools, [cidr('172.16.0.0/12'), cidr('10.0.0.0/9')]), '10.128.0.0/24')
  t.is(chooseSubnet(pools, [cidr('172.16.0.0/12'), cidr('10.0.0.7/32'), cidr('10.0.2.0/24')]), '10.0.1.0/24')
  t.is(chooseSubnet(pools, [cidr('0.0.0.0/0')]), null)
  const ula = [{ base: 'fd12:3456:789a::/48', size: 64 }]
  t.is(chooseSubnet(ula, [cidr('0.0.0.0/0'), cidr('fd12:3456:789a::/63')]), 'fd12:3456:789a:2::/64')
  t.is(chooseSubnet(ula, [cidr('fd00::/8')]), null)
})
