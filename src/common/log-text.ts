import type { LogLevel } from './log.js'

/** Names and colours are those of dockerd's lines. */
const NAME: Readonly<Record<LogLevel, string>> = {
  debug: 'debug',
  info: 'info',
  warn: 'warning',
  error: 'error',
  fatal: 'fatal',
}
const COLOUR: Readonly<Record<LogLevel, number>> = { debug: 37, info: 36, warn: 33, error: 31, fatal: 31 }

export type LineFormat = (time: string, level: LogLevel, message: string, fields: object) => string

function pair(key: string, v: unknown): string {
  const text = typeof v === 'string' ? v : JSON.stringify(v)
  return `${key}=${/^[\w\-./@^+]+$/.test(text) ? text : JSON.stringify(text)}`
}

const pairs = (fields: object): string[] =>
  Object.entries(fields).flatMap(([key, v]) => (v === undefined ? [] : [pair(key, v)]))

/** key=value pairs; values are in quotes where they need them. */
export const textLine: LineFormat = (time, level, message, fields) =>
  `${pairs({ time, level: NAME[level], msg: message, ...fields }).join(' ')}\n`

/** For people at a terminal. */
export const colourLine: LineFormat = (time, level, message, fields) => {
  const head = `\x1b[${COLOUR[level]}m${NAME[level].slice(0, 4).toUpperCase()}\x1b[0m`
  return `${[`${head}[${time}]`, message, ...pairs(fields)].join(' ')}\n`
}
