import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { invalid } from '../../common/index.js'
import { digestOf } from '../content/blob-store.js'
import type { Descriptor, Digest, OnProgress, RegistryAuth } from '../contract.js'
import { LayerProgress } from '../image/progress.js'
import { onEndpoints, openTransport, retryPolicy } from '../image/pull.js'
import type { ImageStore } from '../image/store.js'
import { isIndex, type Manifest, MEDIA } from '../registry/media-types.js'
import { familiarString, parseReference, repositoryOf, withDefaultTag } from '../registry/reference.js'
import { Repository } from '../registry/repository.js'
import type { LayerResult } from '../snapshot/layer-tool.js'

/** docker's media type of a plugin's configuration: what tells a plugin from an image. */
export const PLUGIN_CONFIG_TYPE = 'application/vnd.docker.plugin.v1+json'

export interface TransferOptions {
  readonly auth?: RegistryAuth
  readonly onProgress?: OnProgress
  readonly signal?: AbortSignal
}

/** A plugin as a directory: rootfs/, config.json (the blob), manifest.json, layer (the blob). */
export interface PluginTree {
  readonly manifestDigest: Digest
  readonly config: Uint8Array
}

/** Plugins between registries and directories. Each has one layer, as `docker plugin create` makes them. */
export class PluginDistribution {
  constructor(private readonly store: ImageStore) {}

  /** "vendor/name:latest" as docker shows it, and "docker.io/vendor/name:latest". */
  static names(reference: string): { readonly familiar: string; readonly full: string } {
    const ref = withDefaultTag(parseReference(reference))
    if (ref.digest) throw invalid('badReference', `${reference}: a plugin is named with a tag, not a digest`)
    return { familiar: familiarString(ref), full: `${repositoryOf(ref)}:${ref.tag}` }
  }

  /** The configuration alone, before anything is installed. */
  async config(reference: string, options: TransferOptions): Promise<Uint8Array> {
    const ref = withDefaultTag(parseReference(reference))
    return onEndpoints(
      this.store,
      ref,
      options.auth,
      async (repository) => {
        const { manifest } = await pluginManifest(repository, ref.digest ?? ref.tag!, reference, options.signal)
        return repository.smallBlob(manifest.config, options.signal)
      },
      options.signal,
    )
  }

  /** Into `dir`, which exists and is empty. Verified; durable only after the caller's sync. */
  async pull(reference: string, dir: string, options: TransferOptions): Promise<PluginTree> {
    const ref = withDefaultTag(parseReference(reference))
    const emit = options.onProgress ?? (() => {})
    emit({ status: `${ref.tag ?? ref.digest}: Pulling from ${ref.path}` })
    return onEndpoints(
      this.store,
      ref,
      options.auth,
      async (repository) => {
        const { data, manifest } = await pluginManifest(repository, ref.digest ?? ref.tag!, reference, options.signal)
        const config = await repository.smallBlob(manifest.config, options.signal)
        const layer = manifest.layers[0]!
        const progress = new LayerProgress(layer.digest.slice(7, 19), this.store.modules.clock, emit)
        await mkdir(join(dir, 'rootfs'), { mode: 0o755 })
        const process = this.store.layers.tool.apply({
          root: join(dir, 'rootfs'),
          blob: join(dir, 'layer'),
          bytesMax: this.store.options.layerBytesMax,
          entriesMax: this.store.options.layerEntriesMax,
        })
        let result: LayerResult
        try {
          let got = 0
          for await (const chunk of await repository.blob(layer, 0, options.signal)) {
            got += chunk.length
            if (got > layer.size) throw tooLong(layer)
            await process.write(chunk)
            progress.advance('Downloading', got, layer.size)
          }
          result = (await process.finish()) as unknown as LayerResult
        } catch (e) {
          await process.kill()
          throw e
        }
        if (result.compressedDigest !== layer.digest)
          throw invalid('digestMismatch', `filesystem layer verification failed for digest ${layer.digest}`, {
            expected: layer.digest,
            actual: result.compressedDigest,
          })
        checkDiffId(config, result)
        progress.say('Pull complete')
        await writeFile(join(dir, 'config.json'), config)
        await writeFile(join(dir, 'manifest.json'), data)
        const digest = digestOf(data)
        emit({ status: `Digest: ${digest}` })
        emit({ status: `Status: Downloaded newer image for ${familiarString(ref)}` })
        return { manifestDigest: digest, config }
      },
      options.signal,
    )
  }

  /** Packs `dir`/rootfs as the layer and writes configuration and manifest beside it. */
  async pack(dir: string, config: Record<string, unknown>): Promise<PluginTree> {
    const packed = (await this.store.layers.tool.run('pack', [
      '--root',
      join(dir, 'rootfs'),
      '--gzip',
      '--blob',
      join(dir, 'layer'),
    ])) as unknown as LayerResult
    const bytes = Buffer.from(JSON.stringify({ ...config, rootfs: { type: 'layers', diff_ids: [packed.diffId] } }))
    const manifest: Manifest = {
      schemaVersion: 2,
      mediaType: MEDIA.dockerManifest,
      config: { mediaType: PLUGIN_CONFIG_TYPE, digest: digestOf(bytes), size: bytes.length },
      layers: [{ mediaType: MEDIA.dockerLayer, digest: packed.compressedDigest, size: packed.compressedBytes }],
    }
    const data = Buffer.from(JSON.stringify(manifest))
    await writeFile(join(dir, 'config.json'), bytes)
    await writeFile(join(dir, 'manifest.json'), data)
    return { manifestDigest: digestOf(data), config: bytes }
  }

  async push(reference: string, dir: string, options: TransferOptions): Promise<void> {
    const ref = withDefaultTag(parseReference(reference))
    const emit = options.onProgress ?? (() => {})
    emit({ status: `The push refers to repository [${repositoryOf(ref)}]` })
    const data = await readFile(join(dir, 'manifest.json'))
    const manifest = JSON.parse(data.toString('utf8')) as Manifest
    const transport = openTransport(this.store, ref.domain, options.auth)
    try {
      const repository = new Repository(transport, ref.path, retryPolicy(this.store))
      for (const [blob, file] of [
        [manifest.layers[0]!, 'layer'],
        [manifest.config, 'config.json'],
      ] as const) {
        const progress = new LayerProgress(blob.digest.slice(7, 19), this.store.modules.clock, emit)
        if (await repository.hasBlob(blob.digest, options.signal)) {
          progress.say('Layer already exists')
          continue
        }
        progress.say('Preparing')
        await repository.uploadBlob(blob, join(dir, file), {
          chunkBytes: this.store.options.uploadChunkBytes,
          onSent: (sent) => progress.advance('Pushing', sent, blob.size),
          ...(options.signal && { signal: options.signal }),
        })
        progress.say('Pushed')
      }
      await repository.putManifest(ref.tag!, data, manifest.mediaType ?? MEDIA.dockerManifest, options.signal)
      emit({ status: `${ref.tag}: digest: ${digestOf(data)} size: ${data.length}` })
    } finally {
      await transport.close()
    }
  }

  /** Everything below `dir` is on disk. */
  async sync(dir: string): Promise<void> {
    await this.store.layers.tool.run('sync', ['--root', dir])
  }

  async unpack(tar: AsyncIterable<Uint8Array>, dir: string): Promise<void> {
    const process = this.store.layers.tool.apply({
      root: dir,
      plain: true,
      bytesMax: this.store.options.layerBytesMax,
      entriesMax: this.store.options.layerEntriesMax,
    })
    try {
      for await (const chunk of tar) await process.write(chunk)
      await process.finish()
    } catch (e) {
      await process.kill()
      throw e
    }
  }

  async remove(dir: string): Promise<void> {
    await this.store.layers.tool.run('remove', ['--root', dir])
  }
}

async function pluginManifest(
  repository: Repository,
  tag: string,
  reference: string,
  signal?: AbortSignal,
): Promise<{ readonly data: Uint8Array; readonly manifest: Manifest }> {
  const { data, manifest } = await repository.manifest(tag, signal)
  if (isIndex(manifest) || manifest.config.mediaType !== PLUGIN_CONFIG_TYPE)
    throw invalid('notAPlugin', `target is image: ${reference} is no plugin; get it with docker pull`, { reference })
  if (manifest.layers.length !== 1)
    throw invalid(
      'pluginLayers',
      `plugin ${reference} has ${manifest.layers.length} layers; one is supported, as docker plugin create makes it`,
      { reference, layers: manifest.layers.length },
    )
  return { data, manifest }
}

const tooLong = (d: Descriptor): Error =>
  invalid('digestMismatch', `the registry sends more than the ${d.size} bytes of ${d.digest}`)

/** `docker plugin create` writes the digest of the packed layer in the place of the diff id; that one has been verified. */
function checkDiffId(config: Uint8Array, { diffId: actual, compressedDigest }: LayerResult): void {
  const parsed = JSON.parse(Buffer.from(config).toString('utf8')) as { rootfs?: { diff_ids?: string[] } }
  const expected = parsed.rootfs?.diff_ids?.[0]
  if (expected !== actual && expected !== compressedDigest)
    throw invalid('digestMismatch', `the plugin's layer unpacks to ${actual}; its configuration says ${expected}`, {
      expected,
      actual,
    })
}
