// Rendered rulesets: what changes become, and that nftables takes them (in a namespace of the test's own).
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'ava'
import { containerTable, deadCommands, slotsFor } from '../../../src/overlay/balancer/container-table.js'
import { isDropping } from '../../../src/overlay/firewall/foreign-drop.js'
import {
  type BridgeState,
  hostTable as hostTableOf,
  type OpenWay,
  type PortForward,
} from '../../../src/overlay/firewall/host-table.js'
import { renderDifference, renderTable, type TableModel } from '../../../src/overlay/firewall/table.js'
import { clusterTable, gateways, sandboxTables } from '../../../src/overlay/ingress/ingress-plan.js'
import { loadNetNative } from '../../../src/overlay/native.js'
import { whyNoLab } from '../support/lab.js'

const reason = await whyNoLab()
if (reason) console.log(`skipped: ${reason}`)
const run = reason ? test.serial.skip : test.serial

const hostTable = (
  name: string,
  bridges: BridgeState[],
  forwards: PortForward[],
  { ways = [], withIpv6 = true }: { ways?: OpenWay[]; withIpv6?: boolean } = {},
): TableModel => hostTableOf(name, bridges, forwards, ways, withIpv6)

const front = {
  bridge: 'br-a',
  subnet: '172.29.1.0/24',
  subnet6: '',
  masquerade: true,
  sourceAddress: '10.0.0.7',
  internal: false,
  interConnected: true,
}
const back = { ...front, bridge: 'br-i', subnet: '172.29.2.0/24', internal: true, interConnected: false }
const dual = { ...front, bridge: 'br-d', subnet: '172.29.3.0/24', subnet6: 'fd00:3::/64', sourceAddress: '' }
const web6 = { protocol: 'tcp', hostIp: '', hostPort: 8080, targetIp: 'fd00:3::11', targetPort: 80 } as const
const web = { protocol: 'tcp', hostIp: '', hostPort: 8080, targetIp: '172.29.1.11', targetPort: 80 } as const
const way = { protocol: 'tcp', fromIp: '172.29.2.2', toIp: '172.29.2.3', port: 4567 } as const
const dns = { address: '127.0.0.11', port: 40053 }
const vip = (last: number, n: number) => ({
  virtualIp: `10.0.1.${last}`,
  backends: Array.from({ length: n }, (_, i) => `10.0.2.${i + 1}`),
})

test('no change is no command, and an element change is one element', (t) => {
  const a = hostTable('shoal', [front], [web])
  t.is(renderDifference(a, hostTable('shoal', [front], [web])), '')
  t.is(
    renderDifference(a, hostTable('shoal', [front], [{ ...web, targetIp: '172.29.1.12' }])),
    'delete element inet shoal pub-any { tcp . 8080 }\nadd element inet shoal pub-any { tcp . 8080 : 172.29.1.12 . 80 }\n',
  )
  t.is(renderDifference(a, hostTable('shoal', [front], [])), 'delete element inet shoal pub-any { tcp . 8080 }\n')
})

test('IPv6 is in sets of its own, which stay empty where it is to pass by', (t) => {
  const elements = (withIpv6: boolean) =>
    Object.fromEntries(
      Object.entries(
        hostTable('shoal', [front, dual], [web, web6, { ...web6, hostIp: '2001:db8::1' }], { withIpv6 }).sets,
      )
        .filter(([name]) => name.endsWith('6'))
        .map(([name, s]) => [name, [...s.elements].map((e) => e.join(' '))]),
    )
  t.deepEqual(elements(true), {
    hairpin6: ['fd00:3::/64 . fd00:3::/64 '],
    'nat-nets6': ['fd00:3::/64 '],
    'pub-any6': ['tcp . 8080 fd00:3::11 . 80'],
    'pub-addr6': ['2001:db8::1 . tcp . 8080 fd00:3::11 . 80'],
  })
  t.deepEqual(elements(false), { hairpin6: [], 'nat-nets6': [], 'pub-any6': [], 'pub-addr6': [] })
  t.true(hostTable('shoal', [], [], { withIpv6: false }).chains.forw!.includes('meta nfproto ipv6 accept'))
})

test('a service that changes its number of backends brings its chain and takes the unused one away', (t) => {
  const text = renderDifference(
    containerTable('shoal', dns, [vip(100, 2)]),
    containerTable('shoal', dns, [vip(100, 3)]),
  )!
  const at = (s: string) => text.indexOf(s)
  t.true(at('add chain ip shoal lb3') >= 0)
  t.true(at('add chain ip shoal lb3') < at('add element ip shoal vips { 10.0.1.100 : goto lb3 }'))
  t.true(at('delete chain ip shoal lb2') > at('delete element ip shoal vips'))
  t.false(text.includes('table'))
})

test('other rules of a base chain mean writing the table whole', (t) => {
  t.is(renderDifference(containerTable('shoal', null, []), containerTable('shoal', dns, [])), null)
})

test('many backends share slots nearly evenly', (t) => {
  t.is(slotsFor(0), 0)
  t.is(slotsFor(64), 64)
  for (const n of [65, 100, 256, 257, 1000]) {
    const slots = slotsFor(n)
    const fullest = Math.ceil(slots / n)
    t.true(fullest / Math.max(1, Math.floor(slots / n)) <= 1.34, `${n} in ${slots}`)
  }
})

test('the policy of a foreign chain is read from its listing', (t) => {
  t.true(
    isDropping('table ip filter {\n chain FORWARD {\n type filter hook forward priority filter; policy drop;\n }\n}'),
  )
  t.false(
    isDropping(
      'table ip filter {\n chain FORWARD {\n type filter hook forward priority filter; policy accept;\n drop\n }\n}',
    ),
  )
})

run('nftables takes every table, and every change gives the same ruleset as writing it new', async (t) => {
  const native = loadNetNative()
  const dir = mkdtempSync(join(tmpdir(), 'overlay-nft-'))
  const netns = join(dir, 'ns')
  await native.netnsCreate(netns, {})
  t.teardown(async () => {
    await native.netnsDelete(netns)
    rmSync(dir, { recursive: true })
  })
  const g = gateways('198.18.0.0/15')
  const member = (i: number) => ({ nodeId: `n${i}`, hostname: '', dataPathAddress: `10.88.0.${i}`, ingressIndex: i })
  const mesh = (n: number) => ({
    protocol: 'tcp' as const,
    publishedPort: 8080,
    targetPort: 80,
    backends: vip(0, n).backends,
  })
  const steps: TableModel[][] = [
    [
      hostTable('shoal', [], []),
      hostTable('shoal', [front, back], [web, { ...web, hostIp: '127.0.0.1', protocol: 'udp' }], { ways: [way] }),
      hostTable('shoal', [back], [{ ...web, protocol: 'sctp', hostPort: 9 }], { ways: [{ ...way, protocol: 'udp' }] }),
      hostTable('shoal', [dual], [web6, { ...web6, hostIp: '2001:db8::1', protocol: 'udp' }]),
      hostTable('shoal', [], []),
    ],
    [hostTable('shoal', [dual], [web6], { withIpv6: false })],
    [
      containerTable('shoal', dns, []),
      containerTable('shoal', dns, [vip(100, 3), vip(101, 0), vip(102, 3)]),
      containerTable('shoal', dns, [vip(100, 2), vip(101, 1), vip(102, 0)]),
      containerTable('shoal', dns, [vip(100, 70)]),
      containerTable('shoal', dns, []),
    ],
    [
      clusterTable('shoal-cluster', 'ing', ['10.88.0.1'], 4789, []),
      clusterTable('shoal-cluster', 'ing', ['10.88.0.1', '10.88.0.2'], 4789, [mesh(2)]),
      clusterTable('shoal-cluster', 'ing', ['10.88.0.2'], 4789, [mesh(5), { ...mesh(1), protocol: 'udp' }]),
    ],
    [
      sandboxTables('shoal', [member(1)], 'n1', g).ip,
      sandboxTables('shoal', [member(1), member(2), member(65000)], 'n1', g).ip,
    ],
    [
      sandboxTables('shoal', [member(1)], 'n1', g).bridge,
      sandboxTables('shoal', [member(1), member(2)], 'n1', g).bridge,
    ],
  ]
  for (const models of steps) {
    let last: TableModel | null = null
    for (const m of models) {
      const change: string | null = last && renderDifference(last, m)
      if (last) t.truthy(change)
      await native.netNft(netns, change ?? renderTable(m))
      const changed = await native.netNft(netns, `list table ${m.family} ${m.name}`)
      await native.netNft(netns, renderTable(m))
      const fresh = await native.netNft(netns, `list table ${m.family} ${m.name}`)
      t.deepEqual(sorted(changed), sorted(fresh))
      last = m
    }
  }
  const m = containerTable('shoal', dns, [])
  await native.netNft(netns, renderTable(m))
  for (let i = 0; i < 2; i++) await native.netNft(netns, deadCommands(m, ['10.0.0.9'], ['10.0.0.8']).join('\n'))
  t.regex(await native.netNft(netns, 'list set ip shoal dead'), /10\.0\.0\.9 timeout 5m/)
  await native.netNft(netns, deadCommands(m, [], ['10.0.0.9']).join('\n'))
  t.notRegex(await native.netNft(netns, 'list set ip shoal dead'), /10\.0\.0\.9/)
})

run('a ruleset that is refused says where, and changes nothing', async (t) => {
  const native = loadNetNative()
  const dir = mkdtempSync(join(tmpdir(), 'overlay-nft-'))
  const netns = join(dir, 'ns')
  await native.netnsCreate(netns, {})
  t.teardown(async () => {
    await native.netnsDelete(netns)
    rmSync(dir, { recursive: true })
  })
  const e = await t.throwsAsync(native.netNft(netns, 'table ip x { }\nadd rule ip x nosuch accept\n'))
  t.like(e, { syscall: 'nft', path: netns })
  t.is(await native.netNft(netns, 'list tables'), '')
  const missing = await t.throwsAsync(native.netLink(netns, [{ op: 'linkSet', name: 'nosuch0', up: true }]))
  t.like(missing, { code: 'ENODEV', stage: 'linkSet nosuch0' })
  t.like(await t.throwsAsync(native.netLinks(join(dir, 'nosuch'))), { code: 'ENOENT', syscall: 'open' })
})

/** The blocks in order, and each set's elements: the kernel lists them by hash, and chains by age. */
const sorted = (listing: string): string[] =>
  listing
    .replace(/\s+/g, ' ')
    .replace(/elements = \{([^}]*)\}/g, (_, e: string) =>
      e
        .split(',')
        .map((x) => x.trim())
        .sort()
        .join(', '),
    )
    .split(/(?=\b(?:chain|map|set) [\w-]+ \{)/)
    .map((block) => block.replace(/[{} ]+$/, ''))
    .sort()
