import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type Cli, type Command, collect, Exit } from '../command.js'
import { configDir } from '../config-file.js'
import { familiar, splitTag } from '../image/reference.js'
import { Registry } from './registry.js'

const DOCKER_LIST = 'application/vnd.docker.distribution.manifest.list.v2+json'
const OCI_INDEX = 'application/vnd.oci.image.index.v1+json'
const OCI_MANIFEST = 'application/vnd.oci.image.manifest.v1+json'

interface Platform {
  architecture: string
  os: string
  'os.version'?: string
  'os.features'?: string[]
  variant?: string
}
interface Descriptor {
  mediaType: string
  digest: string
  size: number
  platform?: Platform
}
interface Manifest {
  readonly schemaVersion: number
  readonly mediaType?: string
  readonly config?: Descriptor
  readonly layers?: Descriptor[]
  readonly manifests?: Descriptor[]
}

/** One manifest of a list that is being put together: a file below manifests/ of the docker command's directory. */
interface Kept {
  /** "docker.io/library/a:1" */
  readonly Ref: string
  readonly Descriptor: Descriptor
  /** The manifest's bytes, base64. */
  readonly Raw: string
}

interface Name {
  readonly domain: string
  readonly path: string
  readonly tag: string
  /** All of it, with docker.io and latest. */
  readonly full: string
}

function nameOf(reference: string): Name {
  const at = reference.indexOf('@')
  const whole = familiar(at < 0 ? reference : reference.slice(0, at))
  const { repository, tag } = splitTag(whole)
  const slash = repository.indexOf('/')
  if (slash < 0 || /[^a-z0-9._\-/:[\]]/.test(repository)) throw new Exit(1, `invalid reference format: "${reference}"`)
  const of = at < 0 ? `:${tag || 'latest'}` : reference.slice(at)
  return {
    domain: repository.slice(0, slash),
    path: repository.slice(slash + 1),
    tag: at < 0 ? tag || 'latest' : reference.slice(at + 1),
    full: `${repository}${of}`,
  }
}

const fileName = (full: string): string => full.replaceAll('/', '_').replaceAll(':', '-')
const listDir = (list: Name): string => join(configDir(), 'manifests', fileName(list.full))

function keptOf(list: Name): Kept[] {
  const dir = listDir(list)
  if (!existsSync(dir)) throw new Exit(1, `No such manifest: ${list.full}`)
  return readdirSync(dir)
    .sort()
    .map((f) => JSON.parse(readFileSync(join(dir, f), 'utf8')) as Kept)
}

function keep(list: Name, kept: Kept): void {
  mkdirSync(listDir(list), { recursive: true, mode: 0o755 })
  writeFileSync(join(listDir(list), fileName(kept.Ref)), JSON.stringify(kept), { mode: 0o644 })
}

const digestOf = (bytes: Buffer): string => `sha256:${createHash('sha256').update(bytes).digest('hex')}`

/** An image's own manifest with the platform that its configuration names. */
async function fetchImage(name: Name, insecure: boolean): Promise<Kept> {
  const registry = new Registry(name.domain, insecure)
  const { bytes, mediaType } = await registry.manifest(name.path, name.tag)
  const manifest = JSON.parse(bytes.toString('utf8')) as Manifest
  if (manifest.manifests || !manifest.config) throw new Exit(1, `${name.full} is a manifest list`)
  const config = JSON.parse((await registry.blob(name.path, manifest.config.digest)).toString('utf8')) as Platform
  return {
    Ref: name.full,
    Descriptor: {
      mediaType: manifest.mediaType ?? mediaType,
      digest: digestOf(bytes),
      size: bytes.length,
      platform: {
        architecture: config.architecture,
        os: config.os,
        ...(config['os.version'] ? { 'os.version': config['os.version'] } : {}),
        ...(config['os.features'] ? { 'os.features': config['os.features'] } : {}),
        ...(config.variant ? { variant: config.variant } : {}),
      },
    },
    Raw: bytes.toString('base64'),
  }
}

function listOf(kept: readonly Kept[]): { bytes: Buffer; mediaType: string } {
  const types = new Set(kept.map((k) => k.Descriptor.mediaType === OCI_MANIFEST))
  if (types.size > 1) throw new Exit(1, 'cannot mix OCI and Docker manifests in one list')
  const mediaType = types.has(true) ? OCI_INDEX : DOCKER_LIST
  const list = { schemaVersion: 2, mediaType, manifests: kept.map((k) => k.Descriptor) }
  return { bytes: Buffer.from(JSON.stringify(list, null, 3)), mediaType }
}

const print = (cli: Cli, value: unknown): void => cli.out(`${JSON.stringify(value, null, '\t')}\n`)

export function registerManifest(parent: Command, cli: Cli): void {
  parent
    .command('create')
    .description('Create a local manifest list for annotating and pushing to a registry')
    .argument('<list>')
    .argument('<manifest...>')
    .takes('MANIFEST_LIST MANIFEST [MANIFEST...]')
    .option('-a, --amend', 'amend an existing manifest list')
    .option('--insecure', 'allow communication with an insecure registry')
    .action(async (to: string, from: string[], f: { amend?: boolean; insecure?: boolean }) => {
      const list = nameOf(to)
      if (!f.amend && existsSync(listDir(list)))
        throw new Exit(1, 'refusing to amend an existing manifest list with no --amend flag')
      // All are fetched before the first is kept: what fails leaves no half list.
      const images = []
      for (const reference of from) images.push(await fetchImage(nameOf(reference), f.insecure === true))
      for (const image of images) keep(list, image)
      cli.out(`Created manifest list ${list.full}\n`)
    })
  parent
    .command('annotate')
    .description('Add additional information to a local image manifest')
    .argument('<list>')
    .argument('<manifest>')
    .takes('[OPTIONS] MANIFEST_LIST MANIFEST')
    .option('--arch <architecture>', 'set architecture')
    .option('--os <os>', 'set operating system')
    .option('--os-features <feature>', 'set operating system feature (repeatable)', collect)
    .option('--os-version <version>', 'set operating system version')
    .option('--variant <variant>', 'set architecture variant')
    .action(
      (
        to: string,
        reference: string,
        f: { arch?: string; os?: string; osFeatures?: string[]; osVersion?: string; variant?: string },
      ) => {
        const list = nameOf(to)
        const image = nameOf(reference)
        const kept = keptOf(list).find((k) => k.Ref === image.full)
        if (!kept) throw new Exit(1, `manifest for image ${reference} does not exist in ${to}`)
        const platform: Platform = {
          ...(kept.Descriptor.platform ?? { architecture: '', os: '' }),
          ...(f.arch ? { architecture: f.arch } : {}),
          ...(f.os ? { os: f.os } : {}),
          ...(f.osFeatures ? { 'os.features': f.osFeatures } : {}),
          ...(f.osVersion ? { 'os.version': f.osVersion } : {}),
          ...(f.variant ? { variant: f.variant } : {}),
        }
        if (!platform.os || !platform.architecture)
          throw new Exit(
            1,
            `manifest entry for image has unsupported os/arch combination: ${platform.os}/${platform.architecture}`,
          )
        keep(list, { ...kept, Descriptor: { ...kept.Descriptor, platform } })
      },
    )
  parent
    .command('inspect')
    .description('Display an image manifest, or manifest list')
    .argument('<list>')
    .argument('[manifest]')
    .takes('[OPTIONS] [MANIFEST_LIST] MANIFEST')
    .option('--insecure', 'allow communication with an insecure registry')
    .option('-v, --verbose', 'output additional info including layers and platform')
    .action(async (first: string, second: string | undefined, f: { insecure?: boolean; verbose?: boolean }) => {
      await inspect(cli, first, second, f)
    })
  parent
    .command('push')
    .description('Push a manifest list to a repository')
    .argument('<list>')
    .option('--insecure', 'allow push to an insecure registry')
    .option('-p, --purge', 'remove the local manifest list after push')
    .action(async (to: string, f: { insecure?: boolean; purge?: boolean }) => {
      const list = nameOf(to)
      const kept = keptOf(list)
      const registry = new Registry(list.domain, f.insecure === true)
      for (const k of kept) await bring(cli, registry, list, k)
      const { bytes, mediaType } = listOf(kept)
      await registry.put(list.path, list.tag, bytes, mediaType)
      cli.out(`${digestOf(bytes)}\n`)
      if (f.purge) rmSync(listDir(list), { recursive: true })
    })
  parent
    .command('rm')
    .description('Delete one or more manifest lists from local storage')
    .argument('<list...>')
    .action((references: string[]) => {
      const missing: string[] = []
      for (const r of references) {
        const dir = listDir(nameOf(r))
        if (existsSync(dir)) rmSync(dir, { recursive: true })
        else missing.push(`No such manifest: ${r}`)
      }
      if (missing.length > 0) throw new Exit(1, missing.join('\n'))
    })
}

async function inspect(
  cli: Cli,
  first: string,
  second: string | undefined,
  f: { readonly insecure?: boolean; readonly verbose?: boolean },
): Promise<void> {
  const detailed = (k: Kept): object => ({
    Ref: k.Ref,
    Descriptor: k.Descriptor,
    Raw: k.Raw,
    SchemaV2Manifest: JSON.parse(Buffer.from(k.Raw, 'base64').toString('utf8')),
  })
  const show = (k: Kept): void =>
    print(cli, f.verbose ? detailed(k) : JSON.parse(Buffer.from(k.Raw, 'base64').toString('utf8')))
  if (second !== undefined) {
    const image = nameOf(second)
    const kept = keptOf(nameOf(first)).find((k) => k.Ref === image.full)
    if (!kept) throw new Exit(1, `No such manifest: ${second}`)
    return show(kept)
  }
  const name = nameOf(first)
  if (existsSync(listDir(name))) {
    const kept = keptOf(name)
    return print(cli, f.verbose ? kept.map(detailed) : JSON.parse(listOf(kept).bytes.toString('utf8')))
  }
  const { bytes } = await new Registry(name.domain, f.insecure === true).manifest(name.path, name.tag)
  const manifest = JSON.parse(bytes.toString('utf8')) as Manifest
  if (!f.verbose) return print(cli, manifest)
  if (!manifest.manifests) return show(await fetchImage(name, f.insecure === true))
  const all: object[] = []
  for (const d of manifest.manifests) {
    const one = { ...name, tag: d.digest, full: `${name.domain}/${name.path}@${d.digest}` }
    all.push(detailed({ ...(await fetchImage(one, f.insecure === true)), Descriptor: d }))
  }
  print(cli, all)
}

/** A list's registry must have what it lists: from another repository of it the manifest is brought over. */
async function bring(cli: Cli, registry: Registry, list: Name, kept: Kept): Promise<void> {
  const from = nameOf(kept.Ref)
  if (from.domain !== list.domain)
    throw new Exit(
      1,
      `cannot use source images from a different registry than the target image: ${from.domain} != ${list.domain}`,
    )
  if (from.path === list.path) return
  const bytes = Buffer.from(kept.Raw, 'base64')
  const manifest = JSON.parse(bytes.toString('utf8')) as Manifest
  for (const blob of [manifest.config, ...(manifest.layers ?? [])])
    if (blob) await registry.mount(list.path, blob.digest, from.path)
  await registry.put(list.path, kept.Descriptor.digest, bytes, kept.Descriptor.mediaType)
  cli.out(`Pushed ref ${list.domain}/${list.path}@${kept.Descriptor.digest} with digest: ${kept.Descriptor.digest}\n`)
}
