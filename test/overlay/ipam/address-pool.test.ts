import test from 'ava'
import { AddressPool, chooseSubnet } from '../../../src/overlay/ipam/address-pool.js'
import { macOf, overlaps, parseCidr, parseIpv4 } from '../../../src/overlay/ipam/ipv4.js'

const cidr = (text: string) => parseCidr(text)!

test('addresses are read and written exactly', (t) => {
  t.is(parseIpv4('255.255.255.255'), 0xffffffff)
  for (const bad of ['1.2.3', '1.2.3.4.5', '01.2.3.4', '256.1.1.1', '', 'a.b.c.d', '1.2.3.-4'])
    t.is(parseIpv4(bad), null, bad)
  for (const bad of ['1.2.3.4', '1.2.3.4/33', '1.2.3.4/', '1.2.3.4/8/9', '/8']) t.is(parseCidr(bad), null, bad)
  t.deepEqual(parseCidr('192.168.130.7/17'), {
    base: parseIpv4('192.168.128.0')!,
    prefix: 17,
    address: parseIpv4('192.168.130.7')!,
  })
  t.deepEqual(parseCidr('1.2.3.4/0'), { base: 0, prefix: 0, address: parseIpv4('1.2.3.4')! })
  t.is(macOf('10.0.1.12'), '02:42:0a:00:01:0c')
  t.true(overlaps(cidr('10.0.0.0/8'), cidr('10.255.0.0/24')))
  t.true(overlaps(cidr('10.255.0.0/24'), cidr('0.0.0.0/0')))
  t.false(overlaps(cidr('10.0.0.0/24'), cidr('10.0.1.0/24')))
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
})
