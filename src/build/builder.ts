import { mkdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { invalid, newHexId, ShoalError, shortId } from '../common/index.js'
import { type Digest, familiarString, LayerTool, parseReference, withDefaultTag } from '../runtime/index.js'
import { openContext } from './context/index.js'
import type { Builder, BuildModules, BuildOptions, BuildRequest } from './contract.js'
import { parseDockerfile, planStages } from './dockerfile/parse.js'
import { Session } from './session.js'
import { squash } from './squash.js'

const CONTEXT_BYTES_MAX = 1024 ** 4
const CONTEXT_ENTRIES_MAX = 10_000_000

/** The names that a build's image is to have, each once, as docker shows them. */
function namesOf(tags: readonly string[]): string[] {
  const names = tags
    .filter((t) => t !== '')
    .map((t) => {
      const ref = parseReference(t)
      if (ref.digest) throw invalid('badReference', 'build tag cannot contain a digest', { tag: t })
      return familiarString(withDefaultTag(ref))
    })
  return [...new Set(names)]
}

class ClassicBuilder implements Builder {
  readonly #tool: LayerTool
  readonly #stopping = new AbortController()
  readonly #running = new Set<Promise<unknown>>()
  readonly #byId = new Map<string, AbortController>()

  constructor(
    private readonly options: BuildOptions,
    private readonly modules: BuildModules,
  ) {
    this.#tool = new LayerTool(options.layerTool)
  }

  async start(): Promise<void> {
    await this.#tool.run('remove', ['--root', this.options.root])
    await mkdir(this.options.root, { recursive: true, mode: 0o700 })
  }

  async stop(): Promise<void> {
    this.#stopping.abort(new ShoalError('unavailable', 'stopping', 'the daemon is stopping'))
    await Promise.allSettled(this.#running)
  }

  cancel(buildId: string): void {
    this.#byId.get(buildId)?.abort(new ShoalError('cancelled', 'cancelled', 'build cancelled'))
  }

  async build(request: BuildRequest, o: Parameters<Builder['build']>[1]): Promise<Digest> {
    const cancelling = new AbortController()
    if (request.buildId !== '') this.#byId.set(request.buildId, cancelling)
    const signal = AbortSignal.any([o.signal, this.#stopping.signal, cancelling.signal])
    const running = this.#build(request, { ...o, signal })
    this.#running.add(running)
    try {
      return await running
    } finally {
      this.#running.delete(running)
      if (this.#byId.get(request.buildId) === cancelling) this.#byId.delete(request.buildId)
    }
  }

  async #build(request: BuildRequest, o: Parameters<Builder['build']>[1]): Promise<Digest> {
    const { onMessage, signal } = o
    const names = namesOf(request.tags)
    const dir = join(this.options.root, newHexId())
    try {
      const context = await openContext(request, {
        dir,
        tool: this.#tool,
        limits: {
          bytesMax: this.options.contextBytesMax ?? CONTEXT_BYTES_MAX,
          entriesMax: this.options.contextEntriesMax ?? CONTEXT_ENTRIES_MAX,
        },
        signal,
      })
      const file = parseDockerfile(context.dockerfile.text, context.dockerfile.name)
      const session = new Session({ ...this.modules, tool: this.#tool }, request, context, { dir, onMessage, signal })
      const built = await session.run(file, planStages(file, request))
      let { image } = built
      if (request.squash) {
        image = await squash(this.modules, this.#tool, built)
        onMessage({ id: 'moby.image.id', aux: { ID: image } })
      }
      onMessage({ stream: `Successfully built ${shortId(image)}\n` })
      for (const name of names) {
        await this.modules.engine.images.tag(image, name)
        onMessage({ stream: `Successfully tagged ${name}\n` })
      }
      return image
    } finally {
      await rm(dir, { recursive: true, force: true })
    }
  }
}

/** `start` it after the engine, and before any build. */
export const createBuilder = (options: BuildOptions, modules: BuildModules): Builder =>
  new ClassicBuilder(options, modules)
