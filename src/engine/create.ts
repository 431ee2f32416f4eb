import { mkdir, rm } from 'node:fs/promises'
import { hostname } from 'node:os'
import { join } from 'node:path'
import { invalid, isKind, newHexId, notFound, shortId } from '../common/index.js'
import { hostPlatform, type Image, type ImageConfig } from '../runtime/index.js'
import { Container } from './container.js'
import { containerEvent } from './container-events.js'
import type { EngineContext } from './context.js'
import { resolveInRoot } from './in-root.js'
import { parseLink } from './links.js'
import { commandOf, mergeConfig } from './merge-config.js'
import { parseVolumesFrom, type WantedMount, wantedMounts } from './mount-spec.js'
import { generateName } from './names.js'
import { isUserDefined, wantedEndpoints } from './network.js'
import { type ContainerRecord, sharedWith } from './record.js'
import { parseSecurity } from './security.js'
import type { ContainerConfig, CreateContainerBody, HostConfig } from './types.js'
import { UndoList } from './undo.js'
import { checkConfig, checkName, HOST_NETWORK_AND_LINKS, withDefaults } from './validate.js'
import { populateVolumes, resolveMounts } from './volumes.js'

export const containerDir = (dataRoot: string, id: string): string => join(dataRoot, 'containers', id)

/** What a builder's container has below it before the first layer. */
const NOTHING: Pick<Image, 'id'> & { config: Pick<ImageConfig, 'os' | 'architecture' | 'config'> } = {
  id: '',
  config: { ...hostPlatform(), config: {} },
}

/**
 * A new container: name, writable layer, volumes, and at last its record. The record is the commit: without it, the
 * start-up check takes away the rest.
 */
export async function createContainer(
  ctx: EngineContext,
  body: CreateContainerBody,
  options: { readonly name: string; readonly platform?: string; readonly onNothing?: boolean },
): Promise<{ readonly id: string; readonly warnings: readonly string[] }> {
  const { HostConfig, NetworkingConfig, ...userConfig } = body
  const reference = userConfig.Image ?? ''
  if (Object.keys(userConfig).length === 0)
    throw invalid('noConfig', 'Config cannot be empty in order to create a container')
  if (reference === '' && !options.onNothing) {
    if (commandOf(userConfig).length === 0) throw invalid('noCommand', 'No command specified')
    throw invalid('noImage', 'no image specified: create a container needs the name or id of one')
  }
  const name = options.name === '' ? null : checkName(options.name)
  const image = options.onNothing ? NOTHING : await ctx.images.get(reference)
  checkPlatform(reference, image.config, options.platform)
  const id = newHexId()
  const host = withDefaults(HostConfig ?? {}, ctx.options, ctx.facts.cgroupVersion)
  const config = mergeConfig(userConfig, image.config.config)
  if (config.NetworkDisabled) host.NetworkMode = 'none'
  const warnings = checkConfig(config, host, ctx.options, userConfig)
  parseSecurity(host)
  const [path, ...args] = commandOf(config)
  if (path === undefined) throw invalid('noCommand', 'No command specified', { image: reference })
  nameHost(config, host, id)
  const endpoints = wantedEndpoints(ctx, id, config, host, NetworkingConfig)
  if (isUserDefined(host.NetworkMode!)) host.Links = null
  checkJoined(ctx, host)
  const wanted = wantedMounts(config, host, mountsOfOthers(ctx, host))

  const undo = new UndoList(ctx.logger, { containerId: id })
  const finalName = name ?? generateName(ctx.rng, (n) => ctx.registry.isTaken(n))
  ctx.registry.reserve(finalName, id)
  ctx.registry.claim(image.id, id)
  undo.add('name', async () => ctx.registry.release(finalName, id))
  try {
    const dir = containerDir(ctx.options.dataRoot, id)
    undo.add('directory', () => rm(dir, { recursive: true, force: true }))
    undo.add('layer', () => ctx.snapshots.remove(id))
    const [prepared, made] = await Promise.allSettled([
      ctx.snapshots.prepare(id, options.onNothing ? null : image.id),
      mkdir(dir, { recursive: true, mode: 0o710 }),
    ])
    // Both have come to their end: what one of them still made would not be undone.
    if (prepared.status === 'rejected') throw prepared.reason
    if (made.status === 'rejected') throw made.reason
    const rootfs = prepared.value
    const { mounts, toPopulate } = await resolveMounts(ctx, id, wanted, undo)
    await populateVolumes(ctx, id, toPopulate)
    if (userConfig.WorkingDir && config.WorkingDir !== image.config.config?.WorkingDir)
      await makeWorkingDir(ctx, id, config.WorkingDir!)
    const record: ContainerRecord = {
      version: 1,
      id,
      name: finalName,
      createdMs: ctx.clock.now(),
      image: image.id,
      imageReference: reference,
      path,
      args,
      config: { ...config, Image: reference },
      hostConfig: host,
      mounts,
      endpoints,
      networkMode: host.NetworkMode!,
      status: 'created',
      pid: 0,
      exitCode: 0,
      oomKilled: false,
      error: '',
      startedAtMs: 0,
      finishedAtMs: 0,
      restartCount: 0,
      hasBeenStartedBefore: false,
      hasBeenManuallyStopped: false,
    }
    await ctx.store.put(record)
    const container = new Container(record, rootfs, dir)
    ctx.registry.add(container)
    ctx.registry.unclaim(id)
    containerEvent(ctx, container, 'create')
    return { id, warnings }
  } catch (caught) {
    ctx.registry.unclaim(id)
    await undo.run()
    throw caught
  }
}

function checkPlatform(
  reference: string,
  image: { readonly os: string; readonly architecture: string },
  platform: string | undefined,
): void {
  if (!platform) return
  const [os, architecture] = platform.split('/')
  if (os !== image.os || (architecture && architecture !== image.architecture))
    throw notFound(
      'noSuchImage',
      `No such image: ${reference}: image with reference ${reference} was found but its platform (${image.os}/${image.architecture}) does not match the specified platform (${platform})`,
      { reference, platform },
    )
}

/** The directory is there before the first start, for files that are copied into it, and a file in its place is told now. */
async function makeWorkingDir(ctx: EngineContext, id: string, dir: string): Promise<void> {
  await ctx.snapshots.withMounted(id, async (root) => {
    const path = await resolveInRoot(root, dir)
    try {
      await mkdir(path, { recursive: true, mode: 0o755 })
    } catch (caught) {
      const { code } = caught as NodeJS.ErrnoException
      if (code !== 'EEXIST' && code !== 'ENOTDIR') throw caught
      throw invalid('notADirectory', `Cannot mkdir: ${dir} is not a directory`, { dir }, { cause: caught })
    }
  })
}

function nameHost(config: ContainerConfig, host: HostConfig, id: string): void {
  if (sharedWith(host.NetworkMode!) !== null) return
  // In the host's network the container is known by the host's name.
  if (!config.Hostname) config.Hostname = host.NetworkMode === 'host' ? hostname() : shortId(id)
}

/** Of containers whose namespaces are to be joined the ids are kept, since names may change. */
export function checkJoined(ctx: EngineContext, host: HostConfig): void {
  for (const field of ['NetworkMode', 'PidMode', 'IpcMode'] as const) {
    const mode = host[field] ?? ''
    if (!mode.startsWith('container:')) continue
    const reference = mode.slice('container:'.length)
    // A container for the network is looked for when this one starts: it may be made later.
    if (field === 'NetworkMode' && !ctx.registry.has(reference)) continue
    host[field] = `container:${named(() => ctx.registry.find(reference)).id}`
  }
  for (const link of host.Links ?? []) {
    const { reference } = parseLink(link)
    const other = named(() => ctx.registry.find(reference), `could not get container for ${reference}: `)
    if (other.record.networkMode === 'host') throw invalid('linkToHost', HOST_NETWORK_AND_LINKS, { link })
  }
}

/** A missing container is a wrong parameter here: on "not found" the docker command would pull the image. */
function named<T>(find: () => T, prefix = ''): T {
  try {
    return find()
  } catch (caught) {
    if (isKind(caught, 'notFound')) throw invalid('noSuchContainer', `${prefix}${(caught as Error).message}`)
    throw caught
  }
}

export function mountsOfOthers(ctx: EngineContext, host: HostConfig): WantedMount[] {
  return (host.VolumesFrom ?? []).flatMap((text) => {
    const { container, rw } = parseVolumesFrom(text)
    return named(() => ctx.registry.find(container))
      .record.mounts.filter((m) => m.type !== 'tmpfs')
      .map(
        (m): WantedMount => ({
          type: m.type,
          source: m.type === 'volume' ? m.name : m.source,
          isAnonymous: m.isAnonymous,
          destination: m.destination,
          rw: rw === null ? m.rw : rw && m.rw,
          mode: m.mode,
          propagation: m.propagation,
          recursive: m.recursive,
          copy: false,
          createSource: true,
          driver: m.driver,
          labels: {},
          driverOptions: {},
          subpath: m.subpath,
          options: [],
        }),
      )
  })
}
