import { createWriteStream } from 'node:fs'
import { pipeline } from 'node:stream/promises'
import { type Cli, type Command, collect, Exit } from '../command.js'

const at = (id: string): string => `/containers/${encodeURIComponent(id)}`

/** cp, diff, export, commit: what looks at a container's files. */
export function registerFiles(parent: Command, cli: Cli): void {
  parent
    .command('cp')
    .description('Copy files/folders between a container and the local filesystem')
    .argument('<source>')
    .argument('<destination>')
    .takes('CONTAINER:SRC_PATH DEST_PATH|-\n\tshoal cp [OPTIONS] SRC_PATH|- CONTAINER:DEST_PATH')
    .option('-a, --archive', 'archive mode (copy all uid/gid information)')
    .option('-L, --follow-link', 'always follow symbol link in SRC_PATH')
    .option('-q, --quiet', 'suppress progress output during copy')
    .action(async (from: string, to: string, f: { archive?: boolean; followLink?: boolean; quiet?: boolean }) =>
      (await import('./copy.js')).copy(cli, from, to, f),
    )
  parent
    .command('diff')
    .description("Inspect changes to files or directories on a container's filesystem")
    .argument('<container>')
    .action(async (id: string) => {
      const changes = await (await cli.api()).get<{ Path: string; Kind: number }[] | null>(`${at(id)}/changes`)
      for (const c of changes ?? []) cli.out(`${'CAD'[c.Kind]} ${c.Path}\n`)
    })
  parent
    .command('export')
    .description("Export a container's filesystem as a tar archive")
    .argument('<container>')
    .option('-o, --output <file>', 'write to a file, instead of STDOUT')
    .action(async (id: string, f: { output?: string }) => {
      if (!f.output && process.stdout.isTTY)
        throw new Exit(1, 'cowardly refusing to save to a terminal. Use the -o flag or redirect')
      const stream = await (await cli.api()).stream('GET', `${at(id)}/export`)
      if (f.output) await pipeline(stream, createWriteStream(f.output))
      else await pipeline(stream, process.stdout, { end: false })
    })
  parent
    .command('commit')
    .description("Create a new image from a container's changes")
    .argument('<container>')
    .argument('[repository]')
    .takes('CONTAINER [REPOSITORY[:TAG]]')
    .option('-a, --author <author>', 'author (e.g., "NAME <ADDRESS>")')
    .option('-c, --change <list>', 'apply Dockerfile instruction to the created image', collect)
    .option('-m, --message <message>', 'commit message')
    .option('-p, --pause', 'pause container during commit', true)
    .option('--no-pause', 'do not pause the container during commit')
    .action(
      async (
        container: string,
        reference: string | undefined,
        f: { author?: string; change?: string[]; message?: string; pause: boolean },
      ) => {
        const { splitTag } = await import('../image/reference.js')
        const { repository, tag } = splitTag(reference ?? '')
        const made = await (await cli.api()).post<{ Id: string }>('/commit', {
          query: {
            container,
            repo: repository,
            tag,
            author: f.author,
            comment: f.message,
            changes: f.change,
            pause: f.pause ? '1' : '0',
          },
          body: {},
        })
        cli.out(`${made.Id}\n`)
      },
    )
}
