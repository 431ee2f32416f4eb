import { type Logger as PinoLogger, pino } from 'pino'
import { colourLine, type LineFormat, textLine } from './log-text.js'

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

export type LogFormat = 'json' | 'text' | 'colour'

type Write = (level: LogLevel, message: string, fields?: object) => void

/** Lines on standard error. */
export function createLogger(level: LogLevel, format: LogFormat = 'json'): RootLogger {
  let least = RANK[level]
  const wrap = (write: Write, child: (fields: object) => Logger): Logger => {
    const at = (l: LogLevel) => (message: string, fields?: object) => {
      if (least <= RANK[l]) write(l, message, fields)
    }
    return { debug: at('debug'), info: at('info'), warn: at('warn'), error: at('error'), child }
  }
  const out = pino.destination({ dest: 2, sync: true })
  const json = (p: PinoLogger): Logger =>
    wrap(
      (l, message, fields) => p[l](fields ?? {}, message),
      (fields) => json(p.child(fields)),
    )
  const text = (line: LineFormat, bound: object): Logger =>
    wrap(
      (l, message, fields) => out.write(line(now(), l, message, { ...bound, ...fields })),
      (fields) => text(line, { ...bound, ...fields }),
    )
  const root =
    format === 'json'
      ? json(pino({ level: 'debug', base: null, timestamp: pino.stdTimeFunctions.isoTime }, out))
      : text(format === 'text' ? textLine : colourLine, {})
  return {
    ...root,
    setLevel: (to) => {
      least = RANK[to]
    },
  }
}

/** pino gives its time as a member of an object. */
const now = (): string => (JSON.parse(`{${pino.stdTimeFunctions.isoTime().slice(1)}}`) as { time: string }).time

export const nullLogger: Logger = {
  debug() {},
  info() {},
  warn() {},
  error() {},
  child: () => nullLogger,
}
