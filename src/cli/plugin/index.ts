import { stat } from 'node:fs/promises'
import {
  type Cli,
  type Command,
  confirm,
  Exit,
  filters,
  forEach,
  inspectAll,
  type ListFlags,
  listFlags,
  printList,
  readLine,
  whole,
} from '../command.js'
import { packDirectory } from '../container/copy.js'
import { showProgress } from '../progress.js'
import { registryAuthHeader } from '../registry-auth.js'

interface Privilege {
  Name: string
  Value: string[]
}

interface PluginJson {
  Id: string
  Name: string
  Enabled: boolean
  PluginReference: string
  Config: { Description: string }
}

const COLUMNS = {
  ID: 'ID',
  Name: 'NAME',
  Description: 'DESCRIPTION',
  Enabled: 'ENABLED',
  PluginReference: 'PLUGIN REFERENCE',
}
const ID_LENGTH = 12
const DESCRIPTION_LENGTH = 45

const shortened = (text: string): string =>
  text.length > DESCRIPTION_LENGTH ? `${text.slice(0, DESCRIPTION_LENGTH - 1)}…` : text

/** Shows what a plugin asks for; anything but yes ends the command. */
async function grant(
  cli: Cli,
  name: string,
  privileges: readonly Privilege[],
  all: boolean | undefined,
): Promise<void> {
  if (all || privileges.length === 0) return
  cli.out(
    `Plugin "${name}" is requesting the following privileges:\n${privileges.map((p) => ` - ${p.Name}: [${p.Value.join(' ')}]\n`).join('')}Do you grant the above permissions? [y/N] `,
  )
  const answer = (await readLine()).trim().toLowerCase()
  if (answer !== 'y' && answer !== 'yes') throw new Exit(1, `permission denied while installing plugin ${name}`)
}

export function registerPlugin(parent: Command, cli: Cli): void {
  listFlags(parent.command('ls').alias('list').description('List plugins'))
    .option('--no-trunc', "don't truncate output")
    .action(async (f: ListFlags) => {
      const all = await (await cli.api()).get<PluginJson[] | null>('/plugins', { filters: filters(f.filter) })
      const rows = (all ?? []).map((p) => ({
        ID: f.trunc === false ? p.Id : p.Id.slice(0, ID_LENGTH),
        Name: p.Name,
        Description: f.trunc === false ? p.Config.Description : shortened(p.Config.Description),
        Enabled: String(p.Enabled),
        PluginReference: p.PluginReference,
      }))
      printList(cli, rows, { columns: COLUMNS, shown: ['ID', 'Name', 'Description', 'Enabled'], id: 'ID' }, f)
    })
  parent
    .command('inspect')
    .description('Display detailed information on one or more plugins')
    .argument('<plugin...>')
    .option('-f, --format <format>', 'Go template')
    .action(async (names: string[], f: { format?: string }) => {
      const api = await cli.api()
      await inspectAll(cli, names, (n) => api.get(`/plugins/${n}/json`), f.format)
    })
  registerInstall(parent, cli)
  parent
    .command('enable')
    .description('Enable a plugin')
    .argument('<plugin>')
    .option('--timeout <seconds>', 'HTTP client timeout (in seconds)', whole, 30)
    .action(async (name: string, f: { timeout: number }) => {
      if (f.timeout < 0) throw new Exit(1, `negative timeout ${f.timeout} is invalid`)
      await (await cli.api()).post(`/plugins/${name}/enable`, { query: { timeout: f.timeout } })
      cli.out(`${name}\n`)
    })
  parent
    .command('disable')
    .description('Disable a plugin')
    .argument('<plugin>')
    .option('-f, --force', 'force the disable of an active plugin')
    .action(async (name: string, f: { force?: boolean }) => {
      await (await cli.api()).post(`/plugins/${name}/disable`, { query: { force: f.force ?? false } })
      cli.out(`${name}\n`)
    })
  parent
    .command('rm')
    .alias('remove')
    .description('Remove one or more plugins')
    .argument('<plugin...>')
    .option('-f, --force', 'force the removal of an active plugin')
    .action(async (names: string[], f: { force?: boolean }) => {
      const api = await cli.api()
      await forEach(cli, names, (n) => api.delete(`/plugins/${n}`, { force: f.force ?? false }))
    })
  parent
    .command('set')
    .description('Change settings for a plugin')
    .argument('<plugin>')
    .argument('<setting...>')
    .takes('PLUGIN KEY=VALUE [KEY=VALUE...]')
    .action(async (name: string, settings: string[]) => {
      await (await cli.api()).post(`/plugins/${name}/set`, { body: settings })
    })
  parent
    .command('push')
    .description('Push a plugin to a registry')
    .argument('<plugin>')
    .action(async (name: string) => {
      const stream = await (await cli.api()).stream('POST', `/plugins/${name}/push`, {
        headers: registryAuthHeader(name),
      })
      await showProgress(cli, stream, { quiet: false })
    })
  parent
    .command('create')
    .description('Create a plugin from a rootfs and configuration')
    .argument('<plugin>')
    .argument('<directory>')
    .action(async (name: string, directory: string) => {
      const found = await stat(directory).catch((e: Error) => {
        throw new Exit(1, `unable to prepare the plugin: ${e.message}`)
      })
      if (!found.isDirectory()) throw new Exit(1, `"${directory}" is not a directory; it needs config.json and rootfs/`)
      await (await cli.api()).post('/plugins/create', {
        query: { name },
        stream: packDirectory(directory),
        headers: { 'Content-Type': 'application/x-tar' },
      })
      cli.out(`${name}\n`)
    })
}

function registerInstall(parent: Command, cli: Cli): void {
  parent
    .command('install')
    .description('Install a plugin')
    .argument('<plugin>')
    .argument('[settings...]')
    .takes('PLUGIN [KEY=VALUE...]')
    .option('--alias <name>', 'local name for the plugin')
    .option('--disable', 'do not enable the plugin on install')
    .option('--grant-all-permissions', 'grant all permissions necessary to run the plugin')
    .action(
      async (
        remote: string,
        settings: string[],
        f: { alias?: string; disable?: boolean; grantAllPermissions?: boolean },
      ) => {
        const api = await cli.api()
        const headers = registryAuthHeader(remote)
        const privileges = await privilegesOf(cli, remote)
        await grant(cli, remote, privileges, f.grantAllPermissions)
        const name = f.alias ?? remote
        const stream = await api.stream('POST', '/plugins/pull', {
          query: { remote, name },
          body: privileges,
          headers,
        })
        await showProgress(cli, stream, { quiet: false })
        if (settings.length > 0) await api.post(`/plugins/${name}/set`, { body: settings })
        if (!f.disable) await api.post(`/plugins/${name}/enable`, { query: { timeout: 0 } })
        cli.out(`Installed plugin ${remote}\n`)
      },
    )
  parent
    .command('upgrade')
    .description('Upgrade an existing plugin')
    .argument('<plugin>')
    .argument('[remote]')
    .option('--grant-all-permissions', 'grant all permissions necessary to run the plugin')
    .option('--skip-remote-check', 'do not check if specified remote plugin matches existing plugin image')
    .action(
      async (
        name: string,
        remote: string | undefined,
        f: { grantAllPermissions?: boolean; skipRemoteCheck?: boolean },
      ) => {
        const api = await cli.api()
        const old = await api.get<PluginJson>(`/plugins/${name}/json`)
        if (old.Enabled) throw new Exit(1, 'the plugin must be disabled before upgrading')
        const to = remote ?? old.PluginReference
        cli.out(`Upgrading plugin ${name} from ${old.PluginReference} to ${to}\n`)
        if (!f.skipRemoteCheck && to !== old.PluginReference)
          await confirm(cli, false, 'Plugin images do not match, are you sure?')
        const privileges = await privilegesOf(cli, to)
        await grant(cli, to, privileges, f.grantAllPermissions)
        const stream = await api.stream('POST', `/plugins/${name}/upgrade`, {
          query: { remote: to },
          body: privileges,
          headers: registryAuthHeader(to),
        })
        await showProgress(cli, stream, { quiet: false })
        cli.out(`Upgraded plugin ${name} to ${to}\n`)
      },
    )
}

async function privilegesOf(cli: Cli, remote: string): Promise<Privilege[]> {
  const api = await cli.api()
  const answer = await api.stream('GET', '/plugins/privileges', {
    query: { remote },
    headers: registryAuthHeader(remote),
  })
  let text = ''
  for await (const b of answer) text += String(b)
  return (JSON.parse(text) as Privilege[] | null) ?? []
}
