import { once } from 'node:events'
import { createReadStream, createWriteStream } from 'node:fs'
import type { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { type Cli, type Command, collect, Exit } from '../command.js'
import { showProgress } from '../progress.js'
import { registryAuthHeader } from '../registry-auth.js'
import type { Summary } from './ls.js'
import { familiar, splitTag } from './reference.js'

/** pull, push, load, save, import, tag. */
export function registerTransfer(parent: Command, cli: Cli): void {
  registerPull(parent, cli)
  registerPush(parent, cli)
  registerFiles(parent, cli)
}

function registerPull(parent: Command, cli: Cli): void {
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
      cli.out(`${familiar(tagged || f.allTags ? reference : `${reference}:latest`)}\n`)
    })
}

function registerPush(parent: Command, cli: Cli): void {
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

function registerFiles(parent: Command, cli: Cli): void {
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
        stream: f.input ? await readable(f.input) : process.stdin,
        headers: { 'Content-Type': 'application/x-tar' },
      })
      await showProgress(cli, stream, { quiet: false })
    })
  parent
    .command('save')
    .description('Save images to a tar archive')
    .argument('<image...>')
    .option('-o, --output <file>', 'write to a file, instead of STDOUT')
    .option('--platform <platform>', 'save only the given platform variant (OS/ARCH[/VARIANT])')
    .action(async (names: string[], f: { output?: string; platform?: string }) => {
      if (!f.output && process.stdout.isTTY)
        throw new Exit(1, 'cowardly refusing to save to a terminal. Use the -o flag or redirect')
      const stream = await (await cli.api()).stream('GET', '/images/get', {
        query: { names, ...(f.platform ? { platform: platformJson(f.platform) } : {}) },
      })
      await pipeline(stream, f.output ? createWriteStream(f.output) : process.stdout, { end: f.output !== undefined })
    })
  parent
    .command('import')
    .description('Import a tarball as an image')
    .argument('<file>', 'a file, or - for standard input')
    .argument('[reference]')
    .option('-c, --change <instruction>', 'Dockerfile instruction (repeatable)', collect)
    .option('-m, --message <text>', 'commit message')
    .option('--platform <platform>', 'set platform if server is multi-platform capable')
    .takes('file|URL|- [REPOSITORY[:TAG]]')
    .action(
      async (
        file: string,
        reference: string | undefined,
        f: { change?: string[]; message?: string; platform?: string },
      ) => {
        const { repository, tag } = splitTag(reference ?? '')
        // An address is fetched by the engine.
        const remote = /^(https?|ftp):\/\//.test(file)
        const stream = await (await cli.api()).stream('POST', '/images/create', {
          query: {
            fromSrc: remote ? file : '-',
            repo: repository,
            tag,
            changes: f.change,
            message: f.message,
            platform: f.platform,
          },
          ...(remote ? {} : { stream: file === '-' ? process.stdin : await readable(file) }),
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
    .takes('SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]')
    .action(async (source: string, target: string) => {
      const { repository, tag } = splitTag(target)
      await (await cli.api()).post(`/images/${source}/tag`, { query: { repo: repository, tag } })
    })
}

/** A file that is missing is told before the engine is asked for anything. */
async function readable(path: string): Promise<Readable> {
  const stream = createReadStream(path)
  try {
    await once(stream, 'open')
  } catch (e) {
    throw new Exit(
      1,
      `open ${path}: ${(e as NodeJS.ErrnoException).code === 'ENOENT' ? 'no such file or directory' : (e as Error).message}`,
    )
  }
  return stream
}

/** "linux/arm/v7" as the API's object. */
function platformJson(text: string): Record<string, string> {
  const [os = '', architecture = '', variant] = text.split('/')
  return { os, architecture, ...(variant ? { variant } : {}) }
}
