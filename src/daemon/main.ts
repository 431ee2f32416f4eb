import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { isatty } from 'node:tty'
import { fileURLToPath } from 'node:url'
import { CommanderError } from 'commander'
import { conflict, ShoalError } from '../common/index.js'
import { createLogger, type LogFormat, type Logger } from '../common/log.js'
import { Daemon } from './daemon.js'
import { buildFacts } from './facts.js'
import { type DaemonOptions, parseOptions } from './options.js'

const top = join(dirname(fileURLToPath(import.meta.url)), '../../..')

async function main(): Promise<void> {
  const argv = process.argv.slice(2)
  const { version } = buildFacts(top)
  const { options, validateOnly } = parseOptions(argv, version)
  if (validateOnly) {
    process.stderr.write('configuration OK\n')
    return
  }
  if (process.getuid?.() !== 0)
    throw new ShoalError(
      'forbidden',
      'needRoot',
      'shoald must run as root: it makes namespaces, mounts and network interfaces',
    )
  const logger = createLogger(options.logLevel, logFormat(options))
  for (const w of options.warnings) logger.warn(w)
  // Options of log drivers may hold tokens.
  logger.debug('settings', { ...options, logOptions: Object.keys(options.logOptions) })
  // Before anything is begun: a signal while the daemon comes up is heard when there is an order in which to end.
  const stopWanted = stopSignal(logger)
  claimPidfile(options.pidfile)
  adjustOomScore(options.oomScoreAdjust, logger)
  // A broken invariant or a forgotten rejection leaves unknown state behind: end, and let the supervisor start us clean.
  const fatal = (what: string) => (e: unknown) => {
    logger.error(what, { error: (e as Error)?.stack ?? String(e) })
    process.exit(70)
  }
  process.on('uncaughtException', fatal('uncaught exception'))
  process.on('unhandledRejection', fatal('unhandled rejection'))
  process.on('SIGPIPE', () => {})

  const begun = performance.now()
  let daemon: Daemon | null = null
  // Set before the start: the signal's default would end a daemon that is told to reload while it comes up.
  process.on('SIGHUP', () => {
    if (!daemon) return
    try {
      daemon.reload(parseOptions(argv, version).options)
    } catch (caught) {
      logger.error('the configuration is not reloaded: the running one stays', {
        error: `file configuration validation failed: ${ShoalError.from(caught).message}`,
      })
    }
  })
  daemon = await Daemon.start(options, top, logger)
  logger.info('Shoal is ready', { ms: Math.round(performance.now() - begun) })
  await stopWanted
  // What is waited for while it stops, the end of a shim's process for one, does not keep Node up by itself.
  setInterval(() => {}, 2 ** 30)
  try {
    await daemon.stop()
  } catch (e) {
    fatal('stopping failed')(e)
  }
  rmSync(options.pidfile, { force: true })
  process.exit(0)
}

/** A container that runs the daemon may not lower it: that is no reason to stay down, for dockerd neither. */
function adjustOomScore(score: number, logger: Logger): void {
  if (score === 0) return
  try {
    writeFileSync('/proc/self/oom_score_adj', String(score))
  } catch (e) {
    logger.warn('oom-score-adjust is not permitted here', { score, error: (e as Error).message })
  }
}

/** Signals after which a daemon that does not come to its end is gone at once, as with dockerd. */
const IMPATIENT_SIGNALS = 3

/** Resolves at the first signal to stop. */
function stopSignal(logger: Logger): Promise<void> {
  let count = 0
  return new Promise((resolve) => {
    for (const [signal, number] of [
      ['SIGINT', 2],
      ['SIGTERM', 15],
    ] as const)
      process.on(signal, () => {
        if (++count === 1) {
          logger.info('stopping', { signal })
          resolve()
        } else if (count === IMPATIENT_SIGNALS) {
          logger.warn('ending without cleaning up', { signals: count })
          process.exit(128 + number)
        }
      })
  })
}

const logFormat = (o: DaemonOptions): LogFormat =>
  o.logFormat === 'text' && !o.rawLogs && isatty(2) ? 'colour' : o.logFormat

/** One daemon for one pidfile; one that is left by a dead process is taken over. */
function claimPidfile(path: string): void {
  let text = ''
  try {
    text = readFileSync(path, 'utf8').trim()
  } catch {
    // None there, as after a clean stop.
  }
  if (/^\d+$/.test(text) && Number(text) !== process.pid && isShoald(Number(text)))
    throw conflict(
      'alreadyRunning',
      `pidfile ${path} names process ${text}, which runs; stop it, or choose another file with --pidfile`,
    )
  mkdirSync(dirname(path), { recursive: true })
  writeFileSync(path, String(process.pid))
}

function isShoald(pid: number): boolean {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes('daemon/main.js')
  } catch {
    return false
  }
}

main().catch((e: unknown) => {
  if (e instanceof CommanderError) process.exit(e.exitCode)
  const error = ShoalError.from(e)
  process.stderr.write(`failed to start daemon: ${error.message}\n`)
  if (error.kind === 'internal' && error.cause instanceof Error) process.stderr.write(`${error.cause.stack}\n`)
  process.exit(1)
})
