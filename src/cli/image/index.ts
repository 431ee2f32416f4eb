import { createReadStream, createWriteStream } from 'node:fs'
import { pipeline } from 'node:stream/promises'
import {
  type Cli,
  type Command,
  collect,
  Exit,
  filters,
  inspectAll,
  type ListFlags,
  listFlags,
  printList,
} from '../command.js'
import { humanDuration, humanSize } from '../format/units.js'
import { showProgress } from '../progress.js'
import { registryAuthHeader } from '../registry-auth.js'

interface Summary {
  Id: string
  RepoTags: string[] | null
  RepoDigests: string[] | null
  Created: number
  Size: number
}

const COLUMNS = {
  Repository: 'REPOSITORY',
  Tag: 'TAG',
  Digest: 'DIGEST',
  ID: 'IMAGE ID',
  CreatedSince: 'CREATED',
  CreatedAt: 'CREATED AT',
  Size: 'SIZE',
}

/** "host:5000/a/b:tag" in its two parts. */
export function splitTag(reference: string): { repository: string; tag: string } {
  const i = reference.lastIndexOf(':')
  return i > reference.lastIndexOf('/')
    ? { repository: reference.slice(0, i), tag: reference.slice(i + 1) }
    : { repository: reference, tag: '' }
}

function registerImageLs(parent: Command, cli: Cli, name: string, aliases: readonly string[]): void {
  listFlags(parent.command(name).aliases(aliases).description('List images'))
    .argument('[reference]')
    .option('-a, --all', 'all images')
    .option('--digests', 'with digests')
    .option('--no-trunc', 'whole ids')
    .action(
      async (reference: string | undefined, f: ListFlags & { all?: boolean; digests?: boolean; trunc: boolean }) => {
        const api = await cli.api()
        const wanted = { ...filters(f.filter), ...(reference ? { reference: [reference] } : {}) }
        const images = await api.get<Summary[]>('/images/json', {
          all: f.all ?? false,
          filters: Object.keys(wanted).length > 0 ? wanted : undefined,
        })
        const rows = images.flatMap((i) => {
          const digests = new Map(
            (i.RepoDigests ?? []).map((d) => [d.slice(0, d.indexOf('@')), d.slice(d.indexOf('@') + 1)]),
          )
          const tags =
            i.RepoTags && i.RepoTags.length > 0
              ? i.RepoTags.map(splitTag)
              : [...digests.keys()].map((repository) => ({ repository, tag: '<none>' }))
          return (tags.length > 0 ? tags : [{ repository: '<none>', tag: '<none>' }]).map((t) => ({
            Repository: t.repository,
            Tag: t.tag,
            Digest: digests.get(t.repository) ?? '<none>',
            ID: f.trunc ? i.Id.replace('sha256:', '').slice(0, 12) : i.Id,
            CreatedSince: i.Created > 0 ? `${humanDuration(Date.now() - i.Created * 1000)} ago` : 'N/A',
            CreatedAt: new Date(i.Created * 1000).toISOString().replace('T', ' ').replace('.000Z', ' +0000 UTC'),
            Size: humanSize(i.Size),
          }))
        })
        printList(
          cli,
          rows,
          {
            columns: COLUMNS,
            shown: ['Repository', 'Tag', ...(f.digests ? ['Digest'] : []), 'ID', 'CreatedSince', 'Size'],
            id: 'ID',
          },
          f,
        )
      },
    )
}

export function registerPull(parent: Command, cli: Cli): void {
  parent
    .command('pull')
    .description('Download an image from a registry')
    .argument('<reference>')
    .option('-a, --all-tags', 'all tagged images of the repository')
    .option('--platform <platform>', 'OS/ARCH[/VARIANT]')
    .option('-q, --quiet', 'only the name')
    .action(async (reference: string, f: { allTags?: boolean; platform?: string; quiet?: boolean }) => {
      const api = await cli.api()
      const tagged = reference.includes('@') || splitTag(reference).tag !== ''
      if (tagged && f.allTags) throw new Exit(1, "tag can't be used with --all-tags/-a")
      if (!tagged && !f.allTags && !f.quiet) cli.out('Using default tag: latest\n')
      const stream = await api.stream('POST', '/images/create', {
        query: { fromImage: reference, tag: tagged || f.allTags ? '' : 'latest', platform: f.platform },
        headers: registryAuthHeader(reference),
      })
      await showProgress(cli, stream, { quiet: f.quiet ?? false })
      cli.out(`${tagged || f.allTags ? reference : `${reference}:latest`}\n`)
    })
}

export function registerPush(parent: Command, cli: Cli): void {
  parent
    .command('push')
    .description('Upload an image to a registry')
    .argument('<reference>')
    .option('-a, --all-tags', 'all tags of the repository')
    .option('-q, --quiet', 'only the name')
    .action(async (reference: string, f: { allTags?: boolean; quiet?: boolean }) => {
      const api = await cli.api()
      const { repository, tag } = splitTag(reference)
      const images = f.allTags ? await api.get<Summary[]>('/images/json', { filters: { reference: [repository] } }) : []
      const tags = f.allTags ? images.flatMap((i) => i.RepoTags ?? []).map((t) => splitTag(t).tag) : [tag || 'latest']
      if (!f.allTags && tag === '' && !f.quiet) cli.out('Using default tag: latest\n')
      for (const t of tags) {
        const stream = await api.stream('POST', `/images/${repository}/push`, {
          query: { tag: t },
          headers: registryAuthHeader(repository),
        })
        await showProgress(cli, stream, { quiet: f.quiet ?? false })
        if (f.quiet) cli.out(`${repository}:${t}\n`)
      }
    })
}

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
      if (failures.length > 0) throw new Exit(1, failures.join('\n'))
    })
}

export function registerTransfer(parent: Command, cli: Cli): void {
  parent
    .command('load')
    .description('Load images from a tar archive or standard input')
    .option('-i, --input <file>', 'read from a file')
    .option('-q, --quiet', 'without progress')
    .action(async (f: { input?: string; quiet?: boolean }) => {
      if (!f.input && process.stdin.isTTY) throw new Exit(1, 'requested load from stdin, but stdin is empty')
      const api = await cli.api()
      const stream = await api.stream('POST', '/images/load', {
        query: { quiet: f.quiet ?? false },
        stream: f.input ? createReadStream(f.input) : process.stdin,
        headers: { 'Content-Type': 'application/x-tar' },
      })
      await showProgress(cli, stream, { quiet: false })
    })
  parent
    .command('save')
    .description('Save images to a tar archive')
    .argument('<image...>')
    .option('-o, --output <file>', 'write to a file')
    .action(async (names: string[], f: { output?: string }) => {
      if (!f.output && process.stdout.isTTY)
        throw new Exit(1, 'cowardly refusing to save to a terminal. Use the -o flag or redirect')
      const stream = await (await cli.api()).stream('GET', '/images/get', { query: { names } })
      await pipeline(stream, f.output ? createWriteStream(f.output) : process.stdout, { end: f.output !== undefined })
    })
  parent
    .command('import')
    .description('Import a tarball as an image')
    .argument('<file>', 'a file, or - for standard input')
    .argument('[reference]')
    .option('-c, --change <instruction>', 'Dockerfile instruction (repeatable)', collect)
    .option('-m, --message <text>', 'commit message')
    .option('--platform <platform>', 'OS/ARCH[/VARIANT]')
    .action(
      async (
        file: string,
        reference: string | undefined,
        f: { change?: string[]; message?: string; platform?: string },
      ) => {
        const { repository, tag } = splitTag(reference ?? '')
        const stream = await (await cli.api()).stream('POST', '/images/create', {
          query: { fromSrc: '-', repo: repository, tag, changes: f.change, message: f.message, platform: f.platform },
          stream: file === '-' ? process.stdin : createReadStream(file),
          headers: { 'Content-Type': 'application/x-tar' },
        })
        await showProgress(cli, stream, { quiet: false })
      },
    )
  parent
    .command('tag')
    .description('Create a tag that refers to an image')
    .argument('<source>')
    .argument('<target>')
    .action(async (source: string, target: string) => {
      const { repository, tag } = splitTag(target)
      await (await cli.api()).post(`/images/${source}/tag`, { query: { repo: repository, tag } })
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
    .option('--no-trunc', 'whole text')
    .option('-q, --quiet', 'only ids')
    .action(async (image: string, f: ListFlags & { trunc: boolean }) => {
      const history = await (await cli.api()).get<History[]>(`/images/${image}/history`)
      const rows = history.map((h) => ({
        ID: f.trunc ? h.Id.replace('sha256:', '').slice(0, 12) : h.Id,
        CreatedSince: `${humanDuration(Date.now() - h.Created * 1000)} ago`,
        CreatedAt: new Date(h.Created * 1000).toISOString(),
        CreatedBy: f.trunc && h.CreatedBy.length > 45 ? `${h.CreatedBy.slice(0, 44)}…` : h.CreatedBy,
        Size: humanSize(h.Size),
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

export function registerImage(parent: Command, cli: Cli): void {
  registerImageLs(parent, cli, 'ls', ['list'])
  registerPull(parent, cli)
  registerPush(parent, cli)
  registerRmi(parent, cli, 'rm', ['remove'])
  registerTransfer(parent, cli)
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
    .option('--filter <filter>', 'KEY=VALUE (repeatable)', collect)
    .option('-f, --force', 'do not ask')
    .action(async (f: { all?: boolean; filter?: string[] }) => {
      const done = await (await cli.api()).post<{
        ImagesDeleted: { Untagged?: string; Deleted?: string }[] | null
        SpaceReclaimed: number
      }>('/images/prune', {
        query: { filters: { ...filters(f.filter), dangling: [f.all ? 'false' : 'true'] } },
      })
      for (const d of done.ImagesDeleted ?? [])
        cli.out(d.Untagged ? `untagged: ${d.Untagged}\n` : `deleted: ${d.Deleted}\n`)
      cli.out(`\nTotal reclaimed space: ${humanSize(done.SpaceReclaimed)}\n`)
    })
}

export const registerImagesAlias = (parent: Command, cli: Cli): void => registerImageLs(parent, cli, 'images', [])
