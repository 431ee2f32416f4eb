import { type Logger as PinoLogger, pino } from 'pino'

/** A constant message with its data beside it; each room gets a child. */
export interface Logger {
  debug(message: string, fields?: object): void
  info(message: string, fields?: object): void
  warn(message: string, fields?: object): void
  error(message: string, fields?: object): void
  child(fields: object): Logger
}

export type LogLevel = 'debug' | 'info' | 'warn' | 'error' | 'fatal'

const RANK: Readonly<Record<LogLevel, number>> = { debug: 0, info: 1, warn: 2, error: 3, fatal: 4 }

/** The daemon's own: its level, and that of all its children, may change while it runs. */
export interface RootLogger extends Logger {
  setLevel(level: LogLevel): void
}

/** JSON lines on standard error. */
export function createLogger(level: LogLevel): RootLogger {
  let least = RANK[level]
  const wrap = (p: PinoLogger): Logger => ({
    debug: (m, f) => least <= RANK.debug && p.debug(f ?? {}, m),
    info: (m, f) => least <= RANK.info && p.info(f ?? {}, m),
    warn: (m, f) => least <= RANK.warn && p.warn(f ?? {}, m),
    error: (m, f) => least <= RANK.error && p.error(f ?? {}, m),
    child: (f) => wrap(p.child(f)),
  })
  const root = pino(
    { level: 'debug', base: null, timestamp: pino.stdTimeFunctions.isoTime },
    pino.destination({ dest: 2, sync: true }),
  )
  return {
    ...wrap(root),
    setLevel: (to) => {
      least = RANK[to]
    },
  }
}

export const nullLogger: Logger = {
  debug() {},
  info() {},
  warn() {},
  error() {},
  child: () => nullLogger,
}
