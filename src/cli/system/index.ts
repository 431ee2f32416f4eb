import { type Cli, type Command, collect, filters, jsonObjects } from '../command.js'
import { compile } from '../format/template.js'
import { humanSize } from '../format/units.js'
import { INFO } from './info.js'

export function registerVersion(parent: Command, cli: Cli, clientVersion: string): void {
  parent
    .command('version')
    .description('Show version information')
    .option('-f, --format <format>', 'Go template')
    .action(async (f: { format?: string }) => {
      const client = {
        Version: clientVersion,
        ApiVersion: '1.50',
        NodeVersion: process.versions.node,
        Os: 'linux',
        Arch: process.arch === 'x64' ? 'amd64' : process.arch,
      }
      let server: Record<string, string> | null = null
      let failure: Error | null = null
      try {
        server = await (await cli.api()).get<Record<string, string>>('/version')
      } catch (e) {
        failure = e as Error
      }
      if (f.format)
        cli.out(
          f.format === 'json'
            ? `${JSON.stringify({ Client: client, Server: server })}\n`
            : `${compile(f.format)({ Client: client, Server: server })}\n`,
        )
      else {
        cli.out(
          `Client: Shoal\n Version:           ${client.Version}\n API version:       ${client.ApiVersion}\n Node version:      ${client.NodeVersion}\n OS/Arch:           ${client.Os}/${client.Arch}\n`,
        )
        if (server)
          cli.out(
            `\nServer: Shoal Engine\n Engine:\n  Version:          ${server.Version}\n  API version:      ${server.ApiVersion} (minimum version ${server.MinAPIVersion})\n  Git commit:       ${server.GitCommit}\n  Built:            ${server.BuildTime}\n  OS/Arch:          ${server.Os}/${server.Arch}\n`,
          )
      }
      if (failure) throw failure
    })
}

export function registerInfo(parent: Command, cli: Cli): void {
  parent
    .command('info')
    .description('Display system-wide information')
    .option('-f, --format <format>', 'Go template')
    .action(async (f: { format?: string }) => {
      const info = await (await cli.api()).get<
        Record<string, unknown> & { Warnings?: string[]; Swarm: { Warnings?: string[] } }
      >('/info')
      if (f.format) cli.out(f.format === 'json' ? `${JSON.stringify(info)}\n` : `${compile(f.format)(info)}\n`)
      else cli.out(`${compile(INFO)({ ...info, Memory: humanSize(Number(info.MemTotal)) })}\n`)
      for (const w of [...(info.Warnings ?? []), ...(info.Swarm.Warnings ?? [])]) cli.err(`${w}\n`)
    })
}

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
    .option('-f, --filter <filter>', 'KEY=VALUE (repeatable)', collect)
    .option('--format <format>', 'Go template')
    .option('--since <time>', 'from a time, or a duration ago')
    .option('--until <time>', 'up to a time, or a duration ago')
    .action(async (f: { filter?: string[]; format?: string; since?: string; until?: string }) => {
      const stream = await (await cli.api()).stream('GET', '/events', {
        query: { filters: filters(f.filter), since: f.since, until: f.until },
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
            `${new Date(e.timeNano / 1e6).toISOString()} ${e.Type} ${e.Action} ${e.Actor.ID}${attributes ? ` (${attributes})` : ''}\n`,
          )
        }
      }
    })
}

export function registerSystem(parent: Command, cli: Cli): void {
  registerInfo(parent, cli)
  registerEvents(parent, cli)
}
