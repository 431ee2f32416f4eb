// Events: their order, what is kept for those who come late, and how a stream ends.
import test from 'ava'
import { type Clock, systemClock } from '../../src/common/index.js'
import { EventHub } from '../../src/engine/events.js'

// The clock's timers keep no process alive.
const alive = setInterval(() => {}, 1000)
test.after.always(() => clearInterval(alive))

const publish = (hub: EventHub, n: number): void => {
  for (let i = 0; i < n; i++)
    hub.publish({ type: 'volume', action: 'create', actorId: `v${i}`, attributes: {}, scope: 'local' })
}

test('what is kept is told first, then what comes, in order and each later than the one before', async (t) => {
  const hub = new EventHub(systemClock)
  publish(hub, 5)
  const stop = new AbortController()
  const seen: { id: string; timeMs: number }[] = []
  const reading = (async () => {
    for await (const e of hub.subscribe({ sinceMs: 0, untilMs: null, signal: stop.signal })) {
      seen.push({ id: e.actorId, timeMs: e.timeMs })
      if (seen.length === 8) stop.abort()
    }
  })()
  await new Promise((resolve) => setImmediate(resolve))
  publish(hub, 3)
  await reading
  t.deepEqual(
    seen.map((e) => e.id),
    ['v0', 'v1', 'v2', 'v3', 'v4', 'v0', 'v1', 'v2'],
  )
  for (const [i, e] of seen.entries()) if (i > 0) t.true(e.timeMs > seen[i - 1]!.timeMs)
})

test('without "since" nothing of the past is told; with "until" in the past the stream ends at once', async (t) => {
  const hub = new EventHub(systemClock)
  publish(hub, 3)
  const never = new AbortController().signal
  const all = async (sinceMs: number | null, untilMs: number | null): Promise<number> => {
    let n = 0
    for await (const _ of hub.subscribe({ sinceMs, untilMs, signal: never })) n++
    return n
  }
  t.is(await all(null, systemClock.now() - 1000), 0)
  t.is(await all(0, systemClock.now() + 1), 3)
  t.is(await all(systemClock.now() + 10_000, systemClock.now() + 1), 0)
})

test('the newest thousand are kept, and a wall clock that is set back does not put events out of order', async (t) => {
  let now = 1_000_000
  const clock: Clock = { ...systemClock, now: () => now }
  const hub = new EventHub(clock)
  publish(hub, 1500)
  now -= 5000
  hub.publish({ type: 'volume', action: 'destroy', actorId: 'last', attributes: {}, scope: 'local' })
  const kept: { id: string; timeMs: number }[] = []
  for await (const e of hub.subscribe({ sinceMs: 0, untilMs: now + 10_000, signal: AbortSignal.timeout(50) }))
    kept.push({ id: e.actorId, timeMs: e.timeMs })
  t.is(kept.length, 256)
  t.is(kept.at(-1)!.id, 'last')
  t.true(kept.at(-1)!.timeMs > kept.at(-2)!.timeMs)
})
