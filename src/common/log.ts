import { type Logger as PinoLogger, pino } from 'pino'

/** A constant message with its data beside it; each room gets a child. */
export interface Logger {
  debug(message: string, fields?: object): void
  info(message: string, fields?: object): void
  warn(message: string, fields?: object): void
  error(message: string, fields?: object): void
  child(fields: object): Logger
}

const wrap = (p: PinoLogger): Logger => ({
  debug: (m, f) => p.debug(f ?? {}, m),
  info: (m, f) => p.info(f ?? {}, m),
  warn: (m, f) => p.warn(f ?? {}, m),
  error: (m, f) => p.error(f ?? {}, m),
  child: (f) => wrap(p.child(f)),
})

export type LogLevel = 'debug' | 'info' | 'warn' | 'error' | 'fatal'

/** JSON lines on standard error. */
export const createLogger = (level: LogLevel): Logger =>
  wrap(pino({ level, base: null, timestamp: pino.stdTimeFunctions.isoTime }, pino.destination({ dest: 2, sync: true })))

export const nullLogger: Logger = {
  debug() {},
  info() {},
  warn() {},
  error() {},
  child: () => nullLogger,
}
