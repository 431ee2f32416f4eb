import { type Cli, type Command, filterFlag, filters, jsonObjects } from '../command.js'
import { timestamp } from '../container/session.js'
import { compile } from '../format/template.js'

interface EventJson {
  Type: string
  Action: string
  Actor: { ID: string; Attributes: Record<string, string> }
  timeNano: number
}

export function registerEvents(parent: Command, cli: Cli): void {
  parent
    .command('events')
    .description('Get real time events from the server')
    .option('-f, --filter <filter>', 'filter output based on conditions provided', filterFlag)
    .option('--format <format>', 'Go template')
    .option('--since <time>', 'from a time, or a duration ago')
    .option('--until <time>', 'up to a time, or a duration ago')
    .action(async (f: { filter?: string[]; format?: string; since?: string; until?: string }) => {
      const stream = await (await cli.api()).stream('GET', '/events', {
        query: { filters: filters(f.filter), since: timestamp(f.since), until: timestamp(f.until) },
      })
      const template = f.format && f.format !== 'json' ? compile(f.format) : null
      for await (const e of jsonObjects(stream) as AsyncGenerator<EventJson & Record<string, unknown>>) {
        if (template) cli.out(`${template(e)}\n`)
        else if (f.format === 'json') cli.out(`${JSON.stringify(e)}\n`)
        else {
          const attributes = Object.entries(e.Actor.Attributes)
            .sort(([a], [b]) => (a < b ? -1 : 1))
            .map(([k, v]) => `${k}=${v}`)
            .join(', ')
          cli.out(
            `${nanoTime(e.timeNano)} ${e.Type} ${e.Action} ${e.Actor.ID}${attributes ? ` (${attributes})` : ''}\n`,
          )
        }
      }
    })
}

/** Nanoseconds since 1970 as docker writes a time: nine digits and the zone's offset. */
function nanoTime(ns: number): string {
  const d = new Date(ns / 1e6)
  const by = -d.getTimezoneOffset()
  const local = new Date(d.getTime() + by * 60_000).toISOString().slice(0, 19)
  const two = (n: number): string => String(Math.abs(n)).padStart(2, '0')
  const zone = by === 0 ? 'Z' : `${by < 0 ? '-' : '+'}${two(Math.trunc(by / 60))}:${two(by % 60)}`
  return `${local}.${String(ns % 1e9).padStart(9, '0')}${zone}`
}
