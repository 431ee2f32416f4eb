// Readers of a log that rotates under them, each step in its place: nothing here depends on how fast anybody is.
import { appendFileSync, mkdtempSync, renameSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { systemClock } from '../../src/common/index.js'
import type { LogQuery } from '../../src/engine/contract.js'
import { LogFile } from '../../src/engine/logs/files.js'
import { readLog } from '../../src/engine/logs/reader.js'

const ALL: LogQuery = { stdout: true, stderr: true, follow: false, sinceMs: null, untilMs: null, tail: null }
const FOLLOW = { ...ALL, follow: true }

/** A log and its writer in the shim's place, one step at a time. */
class StepLog {
  readonly path = join(mkdtempSync(join(tmpdir(), 'shoal-logs-')), 'c.log')
  readonly warnings: string[] = []
  #isWriting = true
  readonly #listeners = new Set<() => void>()
  readonly #abort = new AbortController()

  constructor(
    t: ExecutionContext,
    readonly maxFiles: number,
  ) {
    t.timeout(20_000)
    t.teardown(() => {
      this.#abort.abort()
      rmSync(join(this.path, '..'), { recursive: true })
    })
  }

  name = (n: number): string => (n === 0 ? this.path : `${this.path}.${n}`)

  line = (text: string): string =>
    `${JSON.stringify({ log: `${text}\n`, stream: 'stdout', time: '2026-11-27T00:00:00Z' })}\n`

  write(...texts: string[]): void {
    for (const text of texts) appendFileSync(this.path, this.line(text))
  }

  move(from: number): void {
    renameSync(this.name(from), this.name(from + 1))
  }

  /** All numbers up, then one line in the new file. */
  rotate(text: string): void {
    for (let n = this.maxFiles - 2; n >= 0; n--)
      try {
        this.move(n)
      } catch {
        // There is none of that number yet.
      }
    writeFileSync(`${this.path}.next`, '')
    renameSync(`${this.path}.next`, this.path)
    this.write(text)
  }

  end(): void {
    this.#isWriting = false
    for (const listener of this.#listeners) listener()
  }

  read(query: LogQuery): { next(): Promise<string | null>; rest(): Promise<string[]> } {
    const logger = {
      debug() {},
      info() {},
      warn: (message: string) => void this.warnings.push(message),
      error() {},
      child: () => logger,
    }
    const entries = readLog(
      { path: this.path, maxFiles: this.maxFiles },
      query,
      {
        isWriting: () => this.#isWriting,
        onEnd: (listener) => {
          this.#listeners.add(listener)
          return () => this.#listeners.delete(listener)
        },
      },
      { clock: systemClock, signal: this.#abort.signal, logger },
    )
    const next = async (): Promise<string | null> => {
      const { value, done } = await entries.next()
      return done ? null : value.data.toString().trim()
    }
    return {
      next,
      rest: async () => {
        const texts: string[] = []
        for (let text = await next(); text !== null; text = await next()) texts.push(text)
        return texts
      },
    }
  }
}

for (const [what, query] of [
  ['read', ALL],
  ['followed', FOLLOW],
] as const)
  test(`a log that rotates while its older files are ${what} loses none of them`, async (t) => {
    const log = new StepLog(t, 10)
    log.write('1')
    for (const text of ['2', '3', '4', '5']) log.rotate(text)
    const reader = log.read(query)
    t.is(await reader.next(), '1')
    log.rotate('6')
    t.is(await reader.next(), '2')
    log.rotate('7')
    log.rotate('8')
    log.end()
    const rest = await reader.rest()
    t.deepEqual(rest, what === 'read' ? ['3', '4', '5'] : ['3', '4', '5', '6', '7', '8'])
    t.deepEqual(log.warnings, [])
  })

test('a rotation seen half-way hides no file, wherever the gap is', async (t) => {
  for (const gap of [0, 1, 2, 3]) {
    const log = new StepLog(t, 6)
    log.write('1')
    for (const text of ['2', '3', '4']) log.rotate(text)
    for (let n = 3; n >= gap; n--) log.move(n)
    t.deepEqual(await log.read(ALL).rest(), ['1', '2', '3', '4'], `gap at ${gap}`)
    t.deepEqual(await log.read({ ...ALL, tail: 3 }).rest(), ['2', '3', '4'], `gap at ${gap}`)
  }
})

test('a follower goes on through a rotation seen half-way, and reads the old file out first', async (t) => {
  const log = new StepLog(t, 4)
  log.write('1')
  log.rotate('2')
  const reader = log.read(FOLLOW)
  t.is(await reader.next(), '1')
  t.is(await reader.next(), '2')
  const third = reader.next()
  log.write('3')
  t.is(await third, '3')
  log.write('4')
  log.move(1)
  log.move(0)
  t.is(await reader.next(), '4')
  const fifth = reader.next()
  log.write('5')
  t.is(await fifth, '5')
  log.end()
  t.is(await reader.next(), null)
})

test('several rotations between two looks of a follower lose nothing while the files exist', async (t) => {
  const log = new StepLog(t, 5)
  log.write('1')
  const reader = log.read(FOLLOW)
  t.is(await reader.next(), '1')
  for (const text of ['2', '3', '4', '5']) log.rotate(text)
  log.end()
  t.deepEqual(await reader.rest(), ['2', '3', '4', '5'])
  t.deepEqual(log.warnings, [])
})

test('a file that max-file takes away while it is read is read out; what went unseen is skipped with a warning', async (t) => {
  const log = new StepLog(t, 3)
  log.write('1', '2')
  const reader = log.read(FOLLOW)
  t.is(await reader.next(), '1')
  for (const text of ['3', '4', '5', '6', '7']) log.rotate(text)
  log.end()
  t.deepEqual(await reader.rest(), ['2', '5', '6', '7'])
  t.is(log.warnings.length, 1)
  t.regex(log.warnings[0]!, /lines that were removed unread are skipped/)
})

test('with one file, the one that was replaced is read out before the new one', async (t) => {
  const log = new StepLog(t, 1)
  log.write('1', '2')
  const reader = log.read(FOLLOW)
  t.is(await reader.next(), '1')
  log.rotate('3')
  log.end()
  t.deepEqual(await reader.rest(), ['2', '3'])
})

test('a log that somebody cuts short is followed from its new start', async (t) => {
  const log = new StepLog(t, 1)
  log.write('a rather long first line', '2')
  const reader = log.read(FOLLOW)
  t.is(await reader.next(), 'a rather long first line')
  t.is(await reader.next(), '2')
  const third = reader.next()
  truncateSync(log.path)
  log.write('3')
  t.is(await third, '3')
  log.end()
  t.deepEqual(await reader.rest(), [])
})

test('a log whose file comes later is followed from its start', async (t) => {
  const log = new StepLog(t, 2)
  const reader = log.read(FOLLOW)
  const first = reader.next()
  log.write('1')
  log.rotate('2')
  t.is(await first, '1')
  log.end()
  t.deepEqual(await reader.rest(), ['2'])
})

test.serial('rotations while the files are looked through neither hide nor repeat nor misplace one', async (t) => {
  t.timeout(60_000)
  const { open } = LogFile
  t.teardown(() => {
    LogFile.open = open
  })
  for (const rotations of [1, 2, 3, 5])
    for (let after = 1; after <= 6; after++) {
      const log = new StepLog(t, 20)
      log.write('1')
      const expected = ['1']
      const rotate = (times: number): void => {
        for (let n = 0; n < times; n++) {
          expected.push(String(expected.length + 1))
          log.rotate(expected.at(-1)!)
        }
      }
      rotate(4)
      const reader = log.read(FOLLOW)
      t.is(await reader.next(), '1')
      for (let n = 0; n < 2; n++) {
        rotate(3)
        let opened = 0
        LogFile.open = async (path) => {
          const file = await open.call(LogFile, path)
          if (++opened === after) rotate(rotations)
          return file
        }
        const before = expected.length
        const texts: string[] = []
        // As far as what was there before the look; the look itself comes in between.
        while (texts.at(-1) !== String(before)) texts.push((await reader.next())!)
        t.deepEqual(texts, expected.slice(Number(texts[0]) - 1, before), `${rotations} after ${after}`)
      }
      LogFile.open = open
      log.end()
      const rest = await reader.rest()
      t.deepEqual(rest, expected.slice(expected.length - rest.length))
      t.deepEqual(log.warnings, [])

      const all = new StepLog(t, 30)
      all.write('1')
      for (const text of ['2', '3', '4', '5']) all.rotate(text)
      let opened = 0
      let next = 6
      LogFile.open = async (path) => {
        const file = await open.call(LogFile, path)
        if (++opened === after) for (let n = 0; n < rotations; n++) all.rotate(String(next++))
        return file
      }
      const found = await all.read(ALL).rest()
      LogFile.open = open
      t.deepEqual(
        found,
        Array.from({ length: found.length }, (_, n) => String(n + 1)),
        `${rotations} after ${after}`,
      )
      t.true(found.length >= 5)
    }
})
