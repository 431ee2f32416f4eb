// A container's log that rotates and is compressed meanwhile: by the real shim and the real compressor, also where the shim is killed.
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmdirSync, rmSync } from 'node:fs'
import { dirname, join } from 'node:path'
import test from 'ava'
import { nullLogger, systemClock } from '../../src/common/index.js'
import { readLog } from '../../src/engine/logs/reader.js'
import {
  bin,
  canRun,
  cgroupFolders,
  eventually,
  makeConfig,
  makeDir,
  makeImage,
  removeDir,
  TestContainer,
} from './kit.js'

const run = canRun ? test.serial : test.skip
const FILES = 500
let base = ''
let image = ''

test.before(() => {
  if (!canRun) return
  base = makeDir('compress')
  image = makeImage(join(base, 'image'))
})

test.after.always(async () => {
  if (!canRun) return
  for (const folder of cgroupFolders(`/native-test-${process.pid}`)) rmdirSync(folder)
  await removeDir(base)
})

/** A container that writes numbers, and its log, of which no file is ever dropped. */
function counter(
  script: string,
  fileBytes: number,
  maxFiles = FILES,
): { readonly c: TestContainer; readonly log: string } {
  const path = join(mkdtempSync(join(base, 'log-')), 'c.log')
  const log = {
    driver: 'json-file',
    path,
    maxSizeBytes: fileBytes,
    maxFiles,
    compressor: bin('shoal-compress'),
    mode: 'blocking',
    bufferBytes: 1 << 20,
    extra: null,
  }
  return { c: new TestContainer(base, image, makeConfig(['/bin/sh', '-c', script]), { log }), log: path }
}

async function read(path: string): Promise<string[]> {
  const query = { stdout: true, stderr: true, follow: false, sinceMs: null, untilMs: null, tail: null }
  const warn = (message: string): never => {
    throw new Error(message)
  }
  const modules = { clock: systemClock, signal: new AbortController().signal, logger: { ...nullLogger, warn } }
  const texts: string[] = []
  const writer = { isWriting: () => false, onEnd: () => () => {} }
  for await (const entry of readLog({ path, maxFiles: FILES }, query, writer, modules))
    texts.push(entry.data.toString().trim())
  return texts
}

const isPlain = (file: string): boolean => /\.log\.\d+$/.test(file)
const numbers = (count: number): string[] => Array.from({ length: count }, (_, n) => String(n + 1))

run('rotated files are compressed beside the writer, and every line is there once', async (t) => {
  const { c, log } = counter('seq 20000', 100_000)
  await c.run()
  t.deepEqual(await read(log), numbers(20_000))
  await eventually(() => !readdirSync(dirname(log)).some(isPlain), 'the end of compressing')
  t.deepEqual(await read(log), numbers(20_000))
  const files = readdirSync(dirname(log))
  t.true(files.length > 5)
  t.true(
    files.every((f) => f === 'c.log' || /^c\.log\.\d+\.gz$/.test(f)),
    files.join(' '),
  )
})

run('a shim killed at any call of a rotation neither loses nor doubles a line that was written', async (t) => {
  t.timeout(300_000)
  const report = join(base, 'report')
  // In two parts: the second one's rotations meet compressed files as a rule.
  const script = 'seq 200; sleep 0.1; seq 201 400'
  const killed = async (n: number): Promise<{ readonly log: string; readonly text: string }> => {
    const { c, log } = counter(script, 8000, 6)
    c.through = [bin('kill-at'), '0', 'self', String(n), report]
    await c.start()
    await c.ended()
    await eventually(() => existsSync(report), 'the report of kill-at')
    const text = readFileSync(report, 'utf8')
    rmSync(report)
    for (const folder of cgroupFolders(c.cgroup)) {
      await eventually(() => readFileSync(join(folder, 'cgroup.procs'), 'utf8') === '', 'the end of the container')
      rmdirSync(folder)
    }
    return { log, text }
  }
  const whole = await killed(0)
  const calls = Number(whole.text)
  t.deepEqual(await read(whole.log), numbers(400))
  t.true(readdirSync(dirname(whole.log)).length > 3)
  let written = 0
  for (let n = calls; n > calls - 200; n -= 3) {
    const { log } = await killed(n)
    const lines = await read(log)
    t.deepEqual(lines, numbers(lines.length), `killed at call ${n} of ${calls}`)
    written += lines.length
  }
  t.true(written > 400)
})
