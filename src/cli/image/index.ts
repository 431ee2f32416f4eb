import {
  type Cli,
  type Command,
  confirm,
  Exit,
  filterFlag,
  filters,
  inspectAll,
  type ListFlags,
  printList,
} from '../command.js'
import { ago, humanSize, rfc3339 } from '../format/units.js'
import { registerBuild } from './build.js'
import { registerImageLs } from './ls.js'
import { registerTransfer } from './transfer.js'

export function registerRmi(parent: Command, cli: Cli, name: string, aliases: readonly string[]): void {
  parent
    .command(name)
    .aliases(aliases)
    .description('Remove images')
    .argument('<image...>')
    .option('-f, --force', 'also while stopped containers use it')
    .option('--no-prune', 'keep untagged parents')
    .action(async (references: string[], f: { force?: boolean; prune: boolean }) => {
      const api = await cli.api()
      const failures: string[] = []
      for (const r of references) {
        try {
          for (const d of await api.delete<({ Untagged: string } | { Deleted: string })[]>(`/images/${r}`, {
            force: f.force ?? false,
            noprune: !f.prune,
          }))
            cli.out('Untagged' in d ? `Untagged: ${d.Untagged}\n` : `Deleted: ${d.Deleted}\n`)
        } catch (e) {
          failures.push((e as Error).message)
        }
      }
      // With -f, images that are not there are told and forgiven.
      const fatal = !f.force || failures.some((m) => !/No such image/i.test(m))
      if (failures.length > 0) throw new Exit(fatal ? 1 : 0, failures.join('\n'))
    })
}

interface History {
  Id: string
  Created: number
  CreatedBy: string
  Size: number
  Comment: string
}

export function registerHistory(parent: Command, cli: Cli): void {
  parent
    .command('history')
    .description('Show the history of an image')
    .argument('<image>')
    .option('--format <format>', 'Go template', '')
    .option('-H, --human', 'print sizes and dates in human readable format', true)
    .option('--no-trunc', "don't truncate output")
    .option('-q, --quiet', 'only show image IDs')
    .action(async (image: string, f: ListFlags & { trunc: boolean; human: boolean }) => {
      const history = await (await cli.api()).get<History[]>(`/images/${image}/history`)
      const rows = history.map((h) => ({
        ID: f.trunc ? h.Id.replace('sha256:', '').slice(0, 12) : h.Id,
        CreatedSince: f.human ? ago(Date.now() - h.Created * 1000) : rfc3339(h.Created * 1000),
        CreatedAt: rfc3339(h.Created * 1000),
        CreatedBy: createdBy(h.CreatedBy, f.trunc),
        Size: f.human ? humanSize(h.Size, 3) : String(h.Size),
        Comment: h.Comment,
      }))
      printList(
        cli,
        rows,
        {
          columns: {
            ID: 'IMAGE',
            CreatedSince: 'CREATED',
            CreatedAt: 'CREATED AT',
            CreatedBy: 'CREATED BY',
            Size: 'SIZE',
            Comment: 'COMMENT',
          },
          shown: ['ID', 'CreatedSince', 'CreatedBy', 'Size', 'Comment'],
          id: 'ID',
        },
        f,
      )
    })
}

function createdBy(text: string, trunc: boolean): string {
  const line = text.replaceAll('\t', ' ')
  return trunc && line.length > 45 ? `${line.slice(0, 44)}…` : line
}

export function registerImage(parent: Command, cli: Cli): void {
  registerImageLs(parent, cli, 'ls', ['list'])
  registerTransfer(parent, cli)
  registerBuild(parent, cli)
  registerRmi(parent, cli, 'rm', ['remove'])
  registerHistory(parent, cli)
  parent
    .command('inspect')
    .description('Display detailed information on images')
    .argument('<image...>')
    .option('-f, --format <format>', 'Go template')
    .action(async (names: string[], f: { format?: string }) => {
      const api = await cli.api()
      await inspectAll(cli, names, (n) => api.get(`/images/${n}/json`), f.format)
    })
  parent
    .command('prune')
    .description('Remove unused images')
    .option('-a, --all', 'all that no container uses')
    .option('--filter <filter>', 'provide filter values (e.g. "until=<timestamp>")', filterFlag)
    .option('-f, --force', 'do not prompt for confirmation')
    .action(async (f: { all?: boolean; filter?: string[]; force?: boolean }) => {
      await confirm(
        cli,
        f.force,
        f.all
          ? 'WARNING! This will remove all images without at least one container associated to them.'
          : 'WARNING! This will remove all dangling images.',
      )
      const done = await (await cli.api()).post<{
        ImagesDeleted: { Untagged?: string; Deleted?: string }[] | null
        SpaceReclaimed: number
      }>('/images/prune', {
        query: { filters: { ...filters(f.filter), dangling: [f.all ? 'false' : 'true'] } },
      })
      if (done.ImagesDeleted && done.ImagesDeleted.length > 0) {
        cli.out('Deleted Images:\n')
        for (const d of done.ImagesDeleted)
          cli.out(d.Untagged ? `untagged: ${d.Untagged}\n` : `deleted: ${d.Deleted}\n`)
        cli.out('\n')
      }
      cli.out(`Total reclaimed space: ${humanSize(done.SpaceReclaimed)}\n`)
    })
}
