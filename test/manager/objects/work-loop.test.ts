import test from 'ava'
import { nullLogger } from '../../../src/common/index.js'
import { WorkLoop } from '../../../src/manager/objects/index.js'
import { FakeClock } from '../support/fake-clock.js'

test('a pass that could not do its work comes again after a while, not at once, however often it is kicked', async (t) => {
  const clock = new FakeClock()
  let passes = 0
  const loop: WorkLoop = new WorkLoop(
    async () => {
      passes++
      loop.kick()
      if (passes < 5) loop.again()
    },
    { clock, logger: nullLogger },
  )
  loop.kick()
  for (let i = 0; i < 50; i++) await Promise.resolve()
  t.is(passes, 1)
  loop.kick()
  for (let i = 0; i < 50; i++) await Promise.resolve()
  t.is(passes, 1)
  await clock.advance(10)
  t.is(passes, 2)
  await clock.advance(20)
  t.is(passes, 4)
  await loop.stop()
  await clock.advance(100)
  t.is(passes, 4)
})
