// Readers of a log that rotates under them, each step in its place: nothing here depends on how fast anybody is.
import { execFileSync, spawnSync } from 'node:child_process'
import {
  appendFileSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { systemClock } from '../../src/common/index.js'
import type { LogQuery } from '../../src/engine/contract.js'
import { LogFile } from '../../src/engine/logs/files.js'
import { readLog } from '../../src/engine/logs/reader.js'
import { nativeDirectory } from '../../src/runtime/index.js'
import { eventually } from '../native/kit.js'

const ALL: LogQuery = { stdout: true, stderr: true, follow: false, sinceMs: null, untilMs: null, tail: null }
const FOLLOW = { ...ALL, follow: true }

const COMPRESSOR = join(nativeDirectory, 'shoal-compress')
const KILL_AT = join(nativeDirectory, 'kill-at')

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

  /** As it is, or compressed. */
  move(from: number): void {
    for (const suffix of from === 0 ? [''] : ['', '.gz'])
      try {
        renameSync(this.name(from) + suffix, this.name(from + 1) + suffix)
      } catch {
        // There is none of that name yet.
      }
  }

  /** All numbers up, then one line in the new file. */
  rotate(text: string): void {
    for (const suffix of ['', '.gz']) rmSync(this.name(this.maxFiles - 1) + suffix, { force: true })
    for (let n = this.maxFiles - 2; n >= 0; n--) this.move(n)
    writeFileSync(`${this.path}.next`, '')
    renameSync(`${this.path}.next`, this.path)
    this.write(text)
  }

  compress(): void {
    execFileSync(COMPRESSOR, [this.path, String(this.maxFiles)])
  }

  files(): string[] {
    return readdirSync(join(this.path, '..')).sort()
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

for (const what of ['', ', each compressed at once,'])
  test.serial(
    `rotations${what} while the files are looked through neither hide nor repeat nor misplace one`,
    async (t) => {
      t.timeout(60_000)
      const compress = (log: StepLog): void => {
        if (what) log.compress()
      }
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
              compress(log)
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
            if (++opened === after)
              for (let n = 0; n < rotations; n++) {
                all.rotate(String(next++))
                compress(all)
              }
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
    },
  )

test('compressed files are read as the others, from their start and from their end', async (t) => {
  for (const compressed of [1, 2, 3, 4]) {
    const log = new StepLog(t, 6)
    const all: string[] = []
    for (let file = 1; file <= 4; file++) {
      log.rotate(`${file}.0`)
      all.push(`${file}.0`)
      for (let n = 1; n < 2500; n++) all.push(`${file}.${n}`)
      appendFileSync(log.path, all.slice(-2499).map(log.line).join(''))
      if (file === compressed) log.compress()
    }
    t.deepEqual(await log.read(ALL).rest(), all)
    for (const tail of [0, 1, 2499, 2500, 2501, 5000, 7499, 9999, 10_000, 20_000])
      t.deepEqual(await log.read({ ...ALL, tail }).rest(), tail === 0 ? [] : all.slice(-tail), `${compressed}: ${tail}`)
    t.deepEqual(await log.read({ ...ALL, stdout: false, tail: 3 }).rest(), [])
    t.deepEqual(await log.read({ ...ALL, sinceMs: Date.parse('2026-11-27T00:00:01Z'), tail: 3 }).rest(), [])
    t.deepEqual(await log.read({ ...ALL, sinceMs: Date.parse('2026-11-27T00:00:00Z'), tail: 3 }).rest(), all.slice(-3))
  }
})

test('a file that is compressed while a follower reads it comes once', async (t) => {
  const log = new StepLog(t, 5)
  log.write('1', '2')
  const reader = log.read(FOLLOW)
  t.is(await reader.next(), '1')
  log.rotate('3')
  log.compress()
  t.is(await reader.next(), '2')
  t.is(await reader.next(), '3')
  const fourth = reader.next()
  log.write('4')
  log.rotate('5')
  log.compress()
  t.is(await fourth, '4')
  log.end()
  t.deepEqual(await reader.rest(), ['5'])
  t.deepEqual(log.warnings, [])
  t.deepEqual(log.files(), ['c.log', 'c.log.1.gz', 'c.log.2.gz'])
})

test('a compressor killed at any of its calls neither loses nor doubles a line, and the next one finishes its work', async (t) => {
  t.timeout(120_000)
  const begin = (): StepLog => {
    const log = new StepLog(t, 5)
    log.write('1')
    for (const text of ['2', '3']) log.rotate(text)
    return log
  }
  const killAt = async (log: StepLog, n: number): Promise<string> => {
    const report = `${log.path}-report`
    spawnSync(KILL_AT, ['0', 'self', String(n), report, COMPRESSOR, log.path, '5'])
    await eventually(() => log.files().includes('c.log-report'), 'the report of kill-at')
    const text = readFileSync(report, 'utf8')
    rmSync(report)
    return text
  }
  const calls = Number(await killAt(begin(), 0))
  t.true(calls > 20)
  for (let n = 1; n <= calls; n++) {
    const log = begin()
    t.regex(await killAt(log, n), /^killed/, `call ${n}`)
    t.deepEqual(await log.read(ALL).rest(), ['1', '2', '3'], `after a kill at call ${n}`)
    log.rotate('4')
    t.deepEqual(await log.read({ ...ALL, tail: 3 }).rest(), ['2', '3', '4'], `after a kill at call ${n}`)
    log.compress()
    t.deepEqual(await log.read(ALL).rest(), ['1', '2', '3', '4'], `after a kill at call ${n}`)
    t.deepEqual(log.files(), ['c.log', 'c.log.1.gz', 'c.log.2.gz', 'c.log.3.gz'])
  }
})

test('files that were last written before the time asked for are not read', async (t) => {
  const log = new StepLog(t, 4)
  log.write('1')
  log.rotate('2')
  log.compress()
  truncateSync(`${log.path}.1.gz`, 60)
  const sinceMs = Date.parse('2026-11-27T00:00:00Z')
  t.deepEqual(await log.read({ ...ALL, sinceMs }).rest(), ['2'])
  t.is(log.warnings.length, 1, 'its last line may be younger')
  t.deepEqual(await log.read({ ...ALL, sinceMs: Date.now() + 3_600_000 }).rest(), [])
  t.is(log.warnings.length, 1)
})

test('a compressed file that is damaged is read as far as it goes, and the rest of the log after it', async (t) => {
  const log = new StepLog(t, 3)
  log.write('1')
  log.rotate('2')
  log.compress()
  truncateSync(`${log.path}.1.gz`, 60)
  t.deepEqual(await log.read(ALL).rest(), ['2'])
  t.deepEqual(await log.read({ ...ALL, tail: 5 }).rest(), ['2'])
  t.regex(log.warnings[0]!, /a compressed file of a log is damaged/)
})
