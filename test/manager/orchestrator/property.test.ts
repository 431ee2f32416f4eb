import test from 'ava'
import { badHour } from '../support/bad-hour.js'

for (const seed of [11, 12, 13, 14])
  test(`through a bad hour states only rise, slots have one task, and all converges (seed ${seed})`, async (t) => {
    t.timeout(120_000)
    t.deepEqual((await badHour(seed)).slice(0, 5), [])
  })
