import type { Api } from '../api.js'
import { type Cli, type Command, Exit, inspectAll } from '../command.js'

/** Kinds in the order in which a name is looked up. */
const KINDS: Readonly<Record<string, string>> = {
  container: '/containers/ID/json',
  image: '/images/ID/json',
  network: '/networks/ID',
  volume: '/volumes/ID',
  service: '/services/ID',
  task: '/tasks/ID',
  node: '/nodes/ID',
  plugin: '/plugins/ID/json',
  secret: '/secrets/ID',
  config: '/configs/ID',
}

/** inspect: whatever has the name. */
export function registerInspect(parent: Command, cli: Cli): void {
  parent
    .command('inspect')
    .description('Return low-level information on Shoal objects')
    .argument('<name...>')
    .takes('NAME|ID [NAME|ID...]')
    .option('-f, --format <format>', 'format output using a custom template')
    .option('-s, --size', 'display total file sizes if the type is container')
    .option('--type <type>', 'only inspect objects of the given type', '')
    .action(async (names: string[], f: { format?: string; size?: boolean; type: string }) => {
      if (f.type !== '' && !KINDS[f.type])
        throw new Exit(
          1,
          `unknown type: "${f.type}": must be one of ${Object.keys(KINDS)
            .map((k) => `"${k}"`)
            .join(', ')}`,
        )
      const api = await cli.api()
      await inspectAll(cli, names, (n) => find(api, n, f), f.format)
    })
}

async function find(api: Api, name: string, f: { size?: boolean; type: string }): Promise<unknown> {
  for (const [kind, path] of Object.entries(KINDS)) {
    if (f.type !== '' && f.type !== kind) continue
    const id = kind === 'image' ? name : encodeURIComponent(name)
    try {
      return await api.get(
        path.replace('ID', () => id),
        kind === 'container' ? { size: f.size ?? false } : {},
      )
    } catch (e) {
      const { status } = e as { status?: number }
      if (f.type !== '') throw e
      // 404: no such one; 503, 406: no swarm here; 400: the name cannot be one of this kind's; 501: no plugins.
      if (status === undefined || ![400, 404, 406, 501, 503].includes(status)) throw e
    }
  }
  throw new Exit(1, `Error: No such object: ${name}`)
}
