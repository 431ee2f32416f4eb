import test from 'ava'
import { seededRng } from '../../../src/common/index.js'
import { AddressPool } from '../../../src/manager/allocator/address-pool.js'
import { formatAddress, formatCidr, overlaps, parseAddress, parseCidr } from '../../../src/manager/allocator/cidr.js'
import { SubnetPool } from '../../../src/manager/allocator/subnet-pool.js'

const pool = (subnet: string, rest: { range?: string; gateway?: string; reserved?: Record<string, string> } = {}) =>
  new AddressPool({ subnet, range: '', gateway: '', reserved: {}, ...rest })

test('addresses of both families are read and written alike', (t) => {
  for (const text of ['0.0.0.0', '10.0.1.255', '255.255.255.255', '::', '::1', 'fd00::1:0:0:5', 'fe80:1:2:3:4:5:6:7'])
    t.is(formatAddress(parseAddress(text)!.family, parseAddress(text)!.value), text)
  t.is(formatAddress(6, parseAddress('::ffff:1.2.3.4')!.value), '::ffff:102:304')
  for (const bad of ['', '1.2.3', '1.2.3.256', 'x::y', '::1::']) t.is(parseAddress(bad), null)
  t.is(formatCidr(parseCidr('10.1.2.3/16')!), '10.1.0.0/16')
  for (const bad of ['10.0.0.0/33', '10.0.0.0/-1', '10.0.0.0/x', 'fd00::/129']) t.is(parseCidr(bad), null)
  t.true(overlaps(parseCidr('10.0.0.0/8')!, parseCidr('10.9.0.0/24')!))
  t.false(overlaps(parseCidr('10.0.0.0/24')!, parseCidr('10.0.1.0/24')!))
})

test('a /29 lends five addresses: not its own, not broadcast, not the gateway', (t) => {
  const p = pool('10.0.0.0/29')
  t.deepEqual(
    Array.from({ length: 6 }, (_, i) => p.take(`o${i}`)),
    ['10.0.0.2/29', '10.0.0.3/29', '10.0.0.4/29', '10.0.0.5/29', '10.0.0.6/29', null],
  )
  t.deepEqual(p.usage, { used: 5, total: 5 })
  t.true(p.release('10.0.0.4/29', 'o2'))
  t.false(p.release('10.0.0.3/29', 'someone else'))
  t.is(p.take('o9'), '10.0.0.4/29')
})

test('a range bounds what is lent, reserved addresses are left out, a given address may be outside of the range', (t) => {
  const p = pool('10.0.0.0/24', { range: '10.0.0.128/30', reserved: { router: '10.0.0.129' } })
  t.deepEqual(
    [p.take('a'), p.take('b'), p.take('c'), p.take('d')],
    ['10.0.0.128/24', '10.0.0.130/24', '10.0.0.131/24', null],
  )
  t.true(p.claim('10.0.0.7', 'e'))
  t.false(p.claim('10.0.0.7', 'f'))
})

test('an address given back rests until the others had their turn', (t) => {
  const p = pool('10.0.0.0/28')
  const first = p.take('a')!
  p.release(first, 'a')
  t.not(p.take('b'), first)
})

test('a large IPv6 subnet lends from its start', (t) => {
  const p = pool('fd00:1::/64')
  t.is(p.gateway, 'fd00:1::1')
  t.is(p.take('a'), 'fd00:1::2/64')
})

test("whatever is taken and given back, no owner gets another's address (seed 7)", (t) => {
  const rng = seededRng(7)
  const p = pool('10.0.0.0/26')
  const held = new Map<string, string>()
  for (let i = 0; i < 5_000; i++) {
    if (rng.random() < 0.55) {
      const address = p.take(`o${i}`)
      if (address === null) t.is(held.size, 61)
      else {
        t.false(held.has(address))
        held.set(address, `o${i}`)
      }
    } else {
      const [address, owner] = [...held][Math.floor(rng.random() * held.size)] ?? []
      if (address === undefined) continue
      t.true(p.release(address, owner!))
      held.delete(address)
    }
  }
  t.is(p.usage.used, held.size)
})

test('subnets are cut in order around those in use, and a pool may be used up', (t) => {
  const s = new SubnetPool()
  s.configure(['10.0.0.0/22', '192.168.0.0/24'], 24)
  s.use('10.0.1.16/28')
  t.deepEqual(
    [s.take(), s.take(), s.take(), s.take(), s.take()],
    ['10.0.0.0/24', '10.0.2.0/24', '10.0.3.0/24', '192.168.0.0/24', null],
  )
  s.release('10.0.2.0/24')
  t.is(s.take(), '10.0.2.0/24')
  const large = new SubnetPool()
  large.configure(['10.0.0.0/8'], 24)
  large.use('10.0.0.0/9')
  t.is(large.take(), '10.128.0.0/24')
})
