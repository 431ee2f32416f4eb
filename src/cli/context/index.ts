import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { type Cli, type Command, collect, Exit, inspectAll, type ListFlags, printList } from '../command.js'
import { changeConfig } from '../config-file.js'
import { contextName, defaultTarget } from '../host.js'
import {
  allContexts,
  type ContextMeta,
  contextDirs,
  hasContext,
  readContext,
  removeContext,
  writeContext,
} from './store.js'

const COLUMNS = {
  Name: 'NAME',
  Current: 'CURRENT',
  Description: 'DESCRIPTION',
  DockerEndpoint: 'DOCKER ENDPOINT',
  Error: 'ERROR',
}
const OVERRIDE = ['SHOAL_HOST', 'DOCKER_HOST']

const overridden = (env: string): string =>
  `Warning: ${env} environment variable overrides the active context. To use a context, either set the global --context flag, or unset ${env} environment variable.\n`

function checkName(name: string): void {
  if (name === 'default') throw new Exit(1, '"default" is a reserved context name')
  if (!/^[a-zA-Z0-9][a-zA-Z0-9_.+-]+$/.test(name))
    throw new Exit(
      1,
      `context name "${name}" is invalid, names are validated against regexp "^[a-zA-Z0-9][a-zA-Z0-9_.+-]+$"`,
    )
}

/** "host=tcp://...,ca=FILE,cert=FILE,key=FILE,skip-tls-verify=BOOL", or "from=CONTEXT" */
function endpoint(spec: readonly string[]): {
  docker: { Host: string; SkipTLSVerify: boolean }
  tls: Record<string, Buffer>
} {
  const given = Object.fromEntries(
    spec.flatMap((s) => s.split(',')).map((p) => [p.slice(0, p.indexOf('=')), p.slice(p.indexOf('=') + 1)]),
  ) as Record<string, string>
  const unknown = Object.keys(given).find((k) => !['host', 'ca', 'cert', 'key', 'skip-tls-verify', 'from'].includes(k))
  if (unknown !== undefined)
    throw new Exit(1, `unable to create docker endpoint config: ${unknown}: unrecognized config key`)
  if (given.from) return copied(given.from)
  const host = given.host ?? defaultTarget({}).host
  if (!/^(unix|tcp|http|https|ssh|fd|npipe):\/\//.test(host))
    throw new Exit(1, `unable to create docker endpoint config: unable to parse docker host \`${host}\``)
  const tls: Record<string, Buffer> = {}
  for (const [key, file] of [
    ['ca', 'ca.pem'],
    ['cert', 'cert.pem'],
    ['key', 'key.pem'],
  ] as const)
    if (given[key]) tls[file] = readFileSync(given[key])
  return { docker: { Host: host, SkipTLSVerify: given['skip-tls-verify'] === 'true' }, tls }
}

function copied(name: string): ReturnType<typeof endpoint> {
  if (name === 'default') return { docker: { Host: defaultTarget({}).host, SkipTLSVerify: false }, tls: {} }
  const from = readContext(name)
  const dir = join(contextDirs(name).tls, 'docker')
  const files = existsSync(dir) ? readdirSync(dir) : []
  return {
    docker: {
      Host: from.Endpoints.docker?.Host ?? '',
      SkipTLSVerify: from.Endpoints.docker?.SkipTLSVerify ?? false,
    },
    tls: Object.fromEntries(files.map((f) => [f, readFileSync(join(dir, f))])),
  }
}

const defaultMeta = (): ContextMeta => ({
  Name: 'default',
  Metadata: {},
  Endpoints: { docker: { Host: defaultTarget({}).host, SkipTLSVerify: false } },
})

export function registerContext(parent: Command, cli: Cli): void {
  const current = (): string => contextName((parent.parent?.opts() ?? {}) as { host?: string; context?: string })
  parent
    .command('create')
    .description('Create a context')
    .argument('<context>')
    .option('--description <text>', 'description of the context')
    .option('--docker <endpoint>', 'set the docker endpoint: host=...,ca=...,cert=...,key=...', collect)
    .option('--from <context>', 'create context from a named context')
    .action((name: string, f: { description?: string; docker?: string[]; from?: string }) => {
      checkName(name)
      if (hasContext(name)) throw new Exit(1, `context "${name}" already exists`)
      const e = f.docker ? endpoint(f.docker) : copied(f.from ?? current())
      const inherited = f.from && f.from !== 'default' ? readContext(f.from).Metadata.Description : undefined
      const Description = f.description ?? inherited
      writeContext({ Name: name, Metadata: Description ? { Description } : {}, Endpoints: { docker: e.docker } }, e.tls)
      cli.out(`${name}\n`)
      cli.err(`Successfully created context "${name}"\n`)
    })
  parent
    .command('update')
    .description('Update a context')
    .argument('<context>')
    .option('--description <text>', 'description of the context')
    .option('--docker <endpoint>', 'set the docker endpoint', collect)
    .action((name: string, f: { description?: string; docker?: string[] }) => {
      checkName(name)
      const meta = readContext(name)
      const e = f.docker ? endpoint(f.docker) : null
      if (f.description !== undefined) meta.Metadata = { ...meta.Metadata, Description: f.description }
      if (e) meta.Endpoints = { ...meta.Endpoints, docker: e.docker }
      writeContext(meta, e?.tls)
      cli.out(`${name}\n`)
      cli.err(`Successfully updated context "${name}"\n`)
    })
  parent
    .command('ls')
    .alias('list')
    .description('List contexts')
    .option('--format <format>', "format output: 'table', 'table TEMPLATE', 'json' or a Go template", '')
    .option('-q, --quiet', 'only show context names')
    .action((f: ListFlags) => {
      const chosen = current()
      const row = (m: ContextMeta, Description: string) => ({
        Name: m.Name,
        Current: m.Name === chosen,
        Description,
        DockerEndpoint: m.Endpoints.docker?.Host ?? '',
        Error: '',
      })
      const all = [
        row(defaultMeta(), 'Current DOCKER_HOST based configuration'),
        ...allContexts().map((m) => row(m, m.Metadata.Description ?? '')),
      ]
      const table = !f.quiet && (f.format === '' || f.format!.startsWith('table'))
      const rows = table ? all.map((r) => ({ ...r, Name: r.Current ? `${r.Name} *` : r.Name })) : all
      printList(
        cli,
        rows,
        { columns: COLUMNS, shown: ['Name', 'Description', 'DockerEndpoint', 'Error'], id: 'Name' },
        f,
      )
      const env = OVERRIDE.find((v) => process.env[v])
      if (env && table) cli.err(overridden(env))
    })
  parent
    .command('rm')
    .alias('remove')
    .description('Remove one or more contexts')
    .argument('<context...>')
    .option('-f, --force', 'force the removal of a context in use')
    .action((names: string[], f: { force?: boolean }) => {
      const failures: string[] = []
      for (const name of names) {
        if (name === 'default') failures.push(`context "default" cannot be removed`)
        else if (!hasContext(name)) {
          if (!f.force) failures.push(`context "${name}" does not exist`)
        } else if (name === current() && !f.force)
          failures.push(`context "${name}" is in use, set -f flag to force remove`)
        else {
          if (name === current())
            changeConfig((c) => {
              delete c.currentContext
            })
          removeContext(name)
          cli.out(`${name}\n`)
        }
      }
      if (failures.length > 0) throw new Exit(1, failures.join('\n'))
    })
  parent
    .command('use')
    .description('Set the current docker context')
    .argument('<context>')
    .action((name: string) => {
      if (name !== 'default') readContext(name)
      changeConfig((c) => {
        if (name === 'default') delete c.currentContext
        else c.currentContext = name
      })
      cli.out(`${name}\n`)
      const env = OVERRIDE.find((v) => process.env[v])
      if (env && name !== 'default') cli.err(overridden(env))
      cli.err(`Current context is now "${name}"\n`)
    })
  parent
    .command('show')
    .description('Print the name of the current context')
    .action(() => cli.out(`${current()}\n`))
  parent
    .command('inspect')
    .description('Display detailed information on one or more contexts')
    .argument('[context...]')
    .option('-f, --format <format>', 'format output using a custom template')
    .action((names: string[], f: { format?: string }) =>
      inspectAll(
        cli,
        names.length > 0 ? names : [current()],
        async (name) => {
          const meta = name === 'default' ? defaultMeta() : readContext(name)
          const dirs = contextDirs(name)
          const tls = join(dirs.tls, 'docker')
          return {
            Name: meta.Name,
            Metadata: meta.Metadata,
            Endpoints: meta.Endpoints,
            TLSMaterial: existsSync(tls) ? { docker: readdirSync(tls) } : {},
            Storage:
              name === 'default'
                ? { MetadataPath: '<IN MEMORY>', TLSPath: '<IN MEMORY>' }
                : { MetadataPath: dirs.meta, TLSPath: dirs.tls },
          }
        },
        f.format,
      ),
    )
}
