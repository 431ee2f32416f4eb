// Which events a filter lets through, and how they are written.
import test from 'ava'
import { eventJson, eventMatches } from '../../src/api/convert/event.js'
import { Filters } from '../../src/api/query.js'
import type { EngineEvent } from '../../src/engine/index.js'

const event = (
  type: EngineEvent['type'],
  action: string,
  actorId: string,
  attributes = {},
  scope = 'local',
): EngineEvent => ({ type, action, actorId, attributes, scope, timeMs: 1_700_000_000_123.5 }) as EngineEvent
const ALL = [
  event('container', 'start', 'c0ffee', { name: 'web', image: 'reg:5000/app:2', tier: 'front' }),
  event('container', 'health_status: healthy', 'c0ffee', { name: 'web', image: 'reg:5000/app:2' }),
  event('container', 'die', 'beef', { name: 'db', image: 'pg', exitCode: '3' }),
  event('image', 'tag', 'sha256:1', { name: 'pg:16' }),
  event('volume', 'create', 'web-data', { driver: 'local' }),
  event('network', 'connect', 'n1', { name: 'front', container: 'c0ffee' }),
  event('plugin', 'enable', 'shelf:latest', { name: 'shelf:latest' }),
  event('daemon', 'reload', 'id1', { name: 'host1' }),
  event('service', 'create', 's1', { name: 'web' }, 'swarm'),
  event('node', 'update', 'nd1', { name: 'm1' }, 'swarm'),
  event('secret', 'create', 'se1', { name: 'key' }, 'swarm'),
  event('config', 'remove', 'co1', { name: 'conf' }, 'swarm'),
]
const KEYS = [
  'config',
  'container',
  'daemon',
  'event',
  'image',
  'label',
  'network',
  'node',
  'plugin',
  'scope',
  'secret',
  'service',
  'type',
  'volume',
]
const through = (filters: Record<string, string[]>): string[] => {
  const f = Filters.parse({ filters: JSON.stringify(filters) }, KEYS)
  return ALL.filter((e) => eventMatches(f, e)).map((e) => `${e.type} ${e.action}`)
}

test('each filter lets its own through, several must all match, values of one are alternatives', (t) => {
  const rows: [Record<string, string[]>, string[]][] = [
    [{ type: ['volume', 'network'] }, ['volume create', 'network connect']],
    [{ event: ['die', 'start'] }, ['container start', 'container die']],
    [{ event: ['health_status'] }, ['container health_status: healthy']],
    [{ event: ['health_status: healthy'] }, ['container health_status: healthy']],
    [{ container: ['web'] }, ['container start', 'container health_status: healthy']],
    [{ container: ['c0ff'], event: ['start'] }, ['container start']],
    [{ image: ['pg'] }, ['container die', 'image tag']],
    [{ image: ['reg:5000/app'] }, ['container start', 'container health_status: healthy']],
    [{ image: ['reg:5000/app:2'], event: ['start'] }, ['container start']],
    [{ volume: ['web'] }, ['volume create']],
    [{ network: ['front'] }, ['network connect']],
    [{ plugin: ['shelf'] }, ['plugin enable']],
    [{ daemon: ['host1'] }, ['daemon reload']],
    [{ service: ['web'] }, ['service create']],
    [{ node: ['m1'] }, ['node update']],
    [{ secret: ['key'] }, ['secret create']],
    [{ config: ['conf'] }, ['config remove']],
    [{ scope: ['swarm'] }, ['service create', 'node update', 'secret create', 'config remove']],
    [{ label: ['tier=front'] }, ['container start']],
    [{ label: ['tier'] }, ['container start']],
    [{ label: ['tier=back'] }, []],
    [{ container: ['web'], volume: ['web'] }, []],
  ]
  for (const [filters, expected] of rows) t.deepEqual(through(filters), expected, JSON.stringify(filters))
  t.is(through({}).length, ALL.length)
  t.throws(() => through({ nonsense: ['x'] }), { message: "Invalid filter 'nonsense'" })
})

test('an event has both forms, and its time in seconds and nanoseconds', (t) => {
  t.like(eventJson(ALL[0]!), {
    status: 'start',
    id: 'c0ffee',
    from: 'reg:5000/app:2',
    Type: 'container',
    Action: 'start',
    Actor: { ID: 'c0ffee', Attributes: { name: 'web' } },
    scope: 'local',
    time: 1_700_000_000,
  })
  t.is((eventJson(ALL[0]!) as { timeNano: number }).timeNano, Number(1_700_000_000_123_500_000n))
  t.false('status' in eventJson(ALL[4]!))
})
