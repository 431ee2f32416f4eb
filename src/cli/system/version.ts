import type { Cli, Command } from '../command.js'
import { compile } from '../format/template.js'
import { contextName } from '../host.js'
import { CLIENT_VERSION } from '../version.js'

interface ServerVersion {
  Platform?: { Name: string }
  Components?: { Name: string; Version: string; Details?: Record<string, string> }[]
  [field: string]: unknown
}

/** Details of the engine, as docker orders and names them. */
const DETAILS: readonly (readonly [string, string])[] = [
  ['GoVersion', 'Runtime version'],
  ['GitCommit', 'Git commit'],
  ['BuildTime', 'Built'],
  ['Experimental', 'Experimental'],
]

const row = (name: string, value: string, indent: string): string => `${indent}${`${name}:`.padEnd(18)}${value}\n`

export function registerVersion(parent: Command, cli: Cli): void {
  parent
    .command('version')
    .description('Show the version information')
    .option('-f, --format <format>', 'format output using a custom template')
    .action(async (f: { format?: string }) => {
      const Client = {
        Platform: { Name: '' },
        Version: CLIENT_VERSION,
        ApiVersion: '1.50',
        DefaultAPIVersion: '1.50',
        GoVersion: `node${process.version}`,
        Os: process.platform,
        Arch: process.arch === 'x64' ? 'amd64' : process.arch,
        Context: contextName(parent.opts()),
      }
      let Server: ServerVersion | null = null
      let failure: Error | null = null
      try {
        Server = await (await cli.api()).get<ServerVersion>('/version')
      } catch (e) {
        failure = e as Error
      }
      if (f.format)
        cli.out(
          `${f.format === 'json' ? JSON.stringify({ Client, Server }) : compile(f.format, { strict: true })({ Client, Server })}\n`,
        )
      else {
        cli.out(
          `Client:\n${row('Version', Client.Version, ' ')}${row('API version', Client.ApiVersion, ' ')}${row('Node version', process.version, ' ')}${row('OS/Arch', `${Client.Os}/${Client.Arch}`, ' ')}${row('Context', Client.Context, ' ')}`,
        )
        if (Server) cli.out(`\n${serverText(Server)}`)
      }
      if (failure) throw failure
    })
}

function serverText(s: ServerVersion): string {
  const text = (v: unknown): string => (v === undefined || v === null ? '' : String(v))
  let out = `Server: ${s.Platform?.Name || 'Shoal'}\n Engine:\n`
  out += row('Version', text(s.Version), '  ')
  out += row('API version', `${text(s.ApiVersion)} (minimum version ${text(s.MinAPIVersion)})`, '  ')
  for (const [field, name] of DETAILS) out += row(name, text(s[field]), '  ')
  out += row('OS/Arch', `${text(s.Os)}/${text(s.Arch)}`, '  ')
  for (const c of (s.Components ?? []).filter((x) => x.Name !== 'Engine'))
    out += ` ${c.Name}:\n${row('Version', c.Version, '  ')}${row('GitCommit', c.Details?.GitCommit ?? '', '  ')}`
  return out
}
