import { createReadStream } from 'node:fs'
import {
  type Cli,
  type Command,
  collect,
  Exit,
  filters,
  forEach,
  inspectAll,
  type ListFlags,
  labels,
  listFlags,
  pairs,
  printList,
} from '../command.js'
import { ago } from '../format/units.js'

interface Stored {
  ID: string
  CreatedAt: string
  UpdatedAt: string
  Spec: { Name: string; Labels: Record<string, string> | null; Driver?: { Name: string }; Data?: string }
}

const COLUMNS = {
  ID: 'ID',
  Name: 'NAME',
  Driver: 'DRIVER',
  CreatedAt: 'CREATED',
  UpdatedAt: 'UPDATED',
  Labels: 'LABELS',
}

/** Secrets and configs differ in a word, a driver, and in whether their content is shown. */
function register(parent: Command, cli: Cli, kind: 'secret' | 'config'): void {
  const path = `/${kind}s`
  const noun = kind === 'secret' ? 'Secret' : 'Config'
  const create = parent
    .command('create')
    .description(`Create a ${kind} from a file or STDIN${kind === 'secret' ? ' as content' : ''}`)
    .argument(`<${kind}>`)
    .argument('[file]')
    .takes(kind === 'secret' ? 'SECRET [file|-]' : 'CONFIG file|-')
    .option('-l, --label <list>', `${noun} labels`, collect)
    .option('--template-driver <driver>', 'template driver')
  if (kind === 'secret') create.option('-d, --driver <driver>', 'secret driver')
  create.action(
    async (
      name: string,
      file: string | undefined,
      f: { label?: string[]; templateDriver?: string; driver?: string },
    ) => {
      if (f.driver && file) throw new Exit(1, 'When using secret driver secret data must be empty')
      if (!f.driver && !file)
        throw new Exit(
          1,
          `"shoal ${kind} create" requires 2 arguments: ${kind.toUpperCase()} and a file, or - for standard input`,
        )
      const Data = file ? await content(file, kind) : undefined
      const made = await (await cli.api()).post<{ ID: string }>(`${path}/create`, {
        body: {
          Name: name,
          Labels: pairs(f.label),
          ...(Data === undefined ? {} : { Data }),
          ...(f.driver ? { Driver: { Name: f.driver } } : {}),
          ...(f.templateDriver ? { Templating: { Name: f.templateDriver } } : {}),
        },
      })
      cli.out(`${made.ID}\n`)
    },
  )

  listFlags(parent.command('ls').alias('list').description(`List ${kind}s`)).action(async (f: ListFlags) => {
    const found = await (await cli.api()).get<Stored[]>(path, { filters: filters(f.filter) })
    const rows = found
      .sort((a, b) => (a.Spec.Name < b.Spec.Name ? -1 : 1))
      .map((s) => ({
        ID: s.ID,
        Name: s.Spec.Name,
        ...(kind === 'secret' ? { Driver: s.Spec.Driver?.Name ?? '' } : {}),
        CreatedAt: ago(Date.now() - Date.parse(s.CreatedAt)),
        UpdatedAt: ago(Date.now() - Date.parse(s.UpdatedAt)),
        ...labels(s.Spec.Labels),
      }))
    const shown = ['ID', 'Name', ...(kind === 'secret' ? ['Driver'] : []), 'CreatedAt', 'UpdatedAt']
    printList(cli, rows, { columns: COLUMNS, shown, id: 'ID' }, f)
  })

  parent
    .command('inspect')
    .description(`Display detailed information on one or more ${kind}s`)
    .argument(`<${kind}...>`)
    .option('-f, --format <format>', 'format output using a custom template')
    .option('--pretty', 'print the information in a human friendly format')
    .action(async (names: string[], f: { format?: string; pretty?: boolean }) => {
      const api = await cli.api()
      const get = (n: string) => api.get<Stored>(`${path}/${encodeURIComponent(n)}`)
      if (!f.pretty) return inspectAll(cli, names, get, f.format)
      for (const n of names) {
        const s = await get(n)
        const labels = Object.entries(s.Spec.Labels ?? {}).map(([k, v]) => `\n - ${k}=${v}`)
        const data = `Data:\n${Buffer.from(s.Spec.Data ?? '', 'base64').toString('utf8')}\n`
        if (kind === 'secret')
          cli.out(
            `ID:              ${s.ID}\nName:              ${s.Spec.Name}\n${labels.length > 0 ? `Labels:${labels.join('')}\n` : ''}Driver:            ${s.Spec.Driver?.Name ?? ''}\nCreated at:        ${goDate(s.CreatedAt)}\nUpdated at:        ${goDate(s.UpdatedAt)}\n`,
          )
        else
          cli.out(
            `ID:\t\t\t${s.ID}\nName:\t\t\t${s.Spec.Name}\n${labels.length > 0 ? `Labels:${labels.join('')}\n` : ''}Created at:            \t${goDate(s.CreatedAt)}\nUpdated at:            \t${goDate(s.UpdatedAt)}\n${data}`,
          )
      }
    })

  parent
    .command('rm')
    .alias('remove')
    .description(`Remove one or more ${kind}s`)
    .argument(`<${kind}...>`)
    .action(async (names: string[]) => {
      const api = await cli.api()
      await forEach(cli, names, (n) => api.delete(`${path}/${encodeURIComponent(n)}`))
    })
}

/** "2026-11-27 10:40:16.123456789 +0000 utc" */
export const goDate = (iso: string): string => iso.replace('T', ' ').replace(/Z$/, ' +0000 utc')

async function content(file: string, kind: string): Promise<string> {
  const parts: Buffer[] = []
  try {
    for await (const b of file === '-' ? process.stdin : createReadStream(file)) parts.push(b as Buffer)
  } catch (e) {
    const missing = (e as NodeJS.ErrnoException).code === 'ENOENT'
    throw new Exit(
      1,
      `${kind === 'config' ? `Error reading content from "${file}": ` : ''}error reading from ${file}: ${missing ? `open ${file}: no such file or directory` : (e as Error).message}`,
    )
  }
  return Buffer.concat(parts).toString('base64')
}

export const registerSecret = (parent: Command, cli: Cli): void => register(parent, cli, 'secret')
export const registerConfig = (parent: Command, cli: Cli): void => register(parent, cli, 'config')
