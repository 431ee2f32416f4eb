import { invalid, newHexId, rfc3339, ShoalError, shortId, unimplemented } from '../common/index.js'
import type { ContainerConfig } from '../engine/index.js'
import {
  type Digest,
  hostPlatform,
  type Image,
  type ImagePlatform,
  type LayerTool,
  parsePlatform,
} from '../runtime/index.js'
import { BuildArgs } from './build-args.js'
import { cachedChild, leadsTo, nextInHistory } from './cache.js'
import {
  argv,
  baseConfig,
  commented,
  type Describing,
  describe,
  nextWorkdir,
  type RunConfig,
  type StageState,
} from './config.js'
import { BuildContainers } from './containers.js'
import type { BuildContext } from './context/index.js'
import type { BuildMessage, BuildModules, BuildRequest } from './contract.js'
import { type CopyItem, copyItems, destinationOf, findOwner, findSources, type Source, sourcesDigest } from './copy.js'
import { environment, expandWord, expandWords } from './dockerfile/expand.js'
import type { ArgInstruction, CommandLine, CopyInstruction, Instruction } from './dockerfile/instructions.js'
import { type Dockerfile, parseTrigger, type Stage } from './dockerfile/parse.js'
import { restoredDocument, stepDocument } from './document.js'
import { BaseImages } from './images.js'
import { StageResults } from './stages.js'

/** dockerd's, with a place to read. */
const needsBuildKit = (flag: string): Error =>
  unimplemented(
    'buildkit',
    `the --${flag} option requires BuildKit. Refer to https://docs.docker.com/go/buildkit/ to learn how to build images with BuildKit enabled`,
    { flag },
  )

export interface SessionModules extends BuildModules {
  readonly tool: LayerTool
}

/** A stage while it is worked on. */
interface Current {
  /** Null: nothing was made from scratch yet. */
  image: Image | null
  readonly platform: ImagePlatform
  state: StageState
  readonly args: BuildArgs
  /** A step was not found in the cache: the next ones are not there either. */
  isFresh: boolean
  cacheFrom: readonly Image[]
}

/** One build: its stages one after the other, each step an image. */
export class Session {
  readonly #containers: BuildContainers
  readonly #bases: BaseImages
  readonly #stages = new StageResults()

  constructor(
    private readonly m: SessionModules,
    private readonly request: BuildRequest,
    private readonly context: BuildContext,
    private readonly o: {
      readonly dir: string
      readonly onMessage: (message: BuildMessage) => void
      readonly signal: AbortSignal
    },
  ) {
    this.#containers = new BuildContainers(m.engine.containers, request.host, (text) => this.#print(text))
    this.#bases = new BaseImages(m.engine.images, request, { onProgress: o.onMessage, signal: o.signal })
  }

  #print(text: string): void {
    this.o.onMessage({ stream: text })
  }

  /** Resolves with the last stage's image, and the one that it began with. */
  async run(file: Dockerfile, stages: readonly Stage[]): Promise<{ image: Digest; base: Digest | null }> {
    if (file.warnings.length > 0) this.#print(`\u001b[91m${file.warnings.join('\n')}\n\u001b[0m`)
    const total = file.globals.length + stages.length + stages.reduce((n, s) => n + s.steps.length, 0)
    let number = 0
    const announce = (code: string): void => this.#print(`Step ${++number}/${total} : ${code}\n`)
    const args = BuildArgs.of(this.request.buildArgs)
    for (const step of file.globals) {
      announce(step.code)
      for (const { name, value } of this.#expandedArgs(step, args.values(), file.escapeWith))
        args.declareGlobal(name, value)
    }
    let last: { current: Current; base: Digest | null } | null = null
    for (const stage of stages) {
      this.#stages.checkFree(stage.from.name)
      announce(stage.from.code)
      const current = await this.#begin(stage, args, file.escapeWith)
      last = { current, base: current.image?.id ?? null }
      await this.#runTriggers(current)
      this.#print(` ---> ${shortId(current.image?.id ?? '')}\n`)
      for (const step of stage.steps) {
        if (this.o.signal.aborted) {
          this.#print('Build cancelled\n')
          throw new ShoalError('cancelled', 'cancelled', 'Build cancelled')
        }
        announce(step.code)
        await this.#dispatch(current, step, file.escapeWith)
        this.#print(` ---> ${shortId(current.image?.id ?? '')}\n`)
      }
      if (current.image) this.o.onMessage({ aux: { ID: current.image.id } })
      this.#stages.add(stage.from.name, current.image)
    }
    const unused = args.unused()
    if (unused.length > 0) this.#print(`[Warning] One or more build-args [${unused.join(' ')}] were not consumed\n`)
    if (!last?.current.image) throw invalid('nothingBuilt', 'No image was generated. Is your Dockerfile empty?')
    return { image: last.current.image.id, base: last.base }
  }

  async #begin({ from }: Stage, args: BuildArgs, escapeWith: string): Promise<Current> {
    const values = args.globalValues()
    const platform = parsePlatform(expandWord(from.platform, values, escapeWith)) ?? this.request.platform
    const name = expandWord(from.image, values, escapeWith)
    if (name === '') throw invalid('noBase', `base name (${from.image}) should not be blank`)
    const stage = this.#stages.byName(name)
    const image = stage ? stage.image : name === 'scratch' ? null : await this.#bases.get(name, platform)
    return {
      image,
      platform: platform ?? hostPlatform(),
      state: { config: baseConfig(image?.config.config ?? null), author: '', hasOwnCommand: false },
      args: args.forStage(),
      isFresh: this.request.noCache,
      cacheFrom: await this.#cacheSources(),
    }
  }

  async #cacheSources(): Promise<Image[]> {
    const found: Image[] = []
    for (const reference of this.request.cacheFrom)
      try {
        found.push(await this.m.engine.images.get(reference))
      } catch (caught) {
        this.m.logger.warn('an image of --cache-from is not here', { reference, error: String(caught) })
      }
    return found
  }

  /** ONBUILD of the base image: as if they stood behind FROM. */
  async #runTriggers(current: Current): Promise<void> {
    const triggers = current.state.config.OnBuild ?? []
    if (triggers.length === 0) return
    current.state = { ...current.state, config: { ...current.state.config, OnBuild: null } }
    this.#print(`# Executing ${triggers.length} build trigger${triggers.length > 1 ? 's' : ''}\n`)
    for (const text of triggers) await this.#dispatch(current, parseTrigger(text), '\\')
  }

  async #dispatch(current: Current, step: Instruction, escapeWith: string): Promise<void> {
    let isDone = false
    try {
      await this.#step(current, step, escapeWith)
      isDone = true
    } finally {
      if (this.request.forceRemove || (this.request.remove && isDone)) await this.#containers.removeAll()
    }
  }

  async #step(current: Current, step: Instruction, escapeWith: string): Promise<void> {
    const own = environment(current.state.config.Env)
    const env = new Map([...own, ...environment(current.args.beside(own))])
    const word = (text: string): string => expandWord(text, env, escapeWith)
    switch (step.kind) {
      case 'run':
        if (step.flags.length > 0) throw needsBuildKit(step.flags[0]!)
        return this.#runCommand(current, step.line)
      case 'add':
      case 'copy': {
        if (step.chmod !== '') throw needsBuildKit('chmod')
        const [sources, destination] = [step.sources.map(word), word(step.destination)]
        return this.#copy(current, { ...step, sources, destination, chown: word(step.chown) })
      }
      case 'workdir': {
        const path = word(step.value)
        if (path === '') throw invalid('badWorkdir', 'cannot normalize nothing')
        const WorkingDir = nextWorkdir(current.state.config.WorkingDir ?? '', path)
        current.state = { ...current.state, config: { ...current.state.config, WorkingDir } }
        const container = commented(current.state.config, `WORKDIR ${WorkingDir}`, 'one word')
        return this.#commitDescribed(current, container, { hasFiles: true })
      }
      case 'arg': {
        const args = this.#expandedArgs(step, env, escapeWith)
        for (const { name, value } of args) current.args.declare(name, value)
        const text = args.map(({ name, value }) => (value === null ? name : `${name}=${value}`)).join(' ')
        return this.#commitDescribed(current, commented(current.state.config, `ARG ${text}`, 'two words'))
      }
      default: {
        const ports = step.kind === 'expose' ? step.ports.flatMap((p) => expandWords(p, env, escapeWith)) : []
        const { state, comment, note } = describe(current.state, expanded(step, word), ports)
        current.state = state
        if (note) this.#print(note)
        return this.#commitDescribed(current, commented(state.config, comment, 'two words'))
      }
    }
  }

  #expandedArgs(step: ArgInstruction, env: ReadonlyMap<string, string>, escapeWith: string) {
    return step.args.map(({ name, value }) => ({
      name: expandWord(name, env, escapeWith),
      value: value === null ? null : expandWord(value, env, escapeWith),
    }))
  }

  /** A step that is done by making its container, without starting it: of files that makes a working directory at most. */
  async #commitDescribed(current: Current, container: RunConfig, o = { hasFiles: false }): Promise<void> {
    if (await this.#isCached(current, container)) return
    const id = await this.#containers.create(container, current.image?.id ?? null)
    await this.#commit(current, { snapshot: o.hasFiles ? id : null, containerId: id, container })
  }

  async #runCommand(current: Current, line: CommandLine): Promise<void> {
    const { config } = current.state
    const command = argv(line, config)
    const args = current.args.beside(environment(config.Env))
    // Arguments belong to the command: with other values it is another one. No command begins with a bar.
    const kept = args.filter((a) => current.args.isRemembered(a.split('=', 1)[0]!)).sort()
    const told = args.length > 0 ? [`|${kept.length}`, ...kept, ...command] : command
    // Without a command it is the image's own that runs.
    const isOwn = told.length > 0
    const container: RunConfig = { ...config, Cmd: told, Entrypoint: isOwn ? null : config.Entrypoint }
    if (await this.#isCached(current, container)) return
    const running: ContainerConfig = { Healthcheck: { Test: ['NONE'] } }
    const id = await this.#containers.create(
      {
        ...config,
        ...running,
        Cmd: command,
        Env: [...config.Env, ...args],
        Entrypoint: isOwn ? [''] : config.Entrypoint,
      },
      current.image?.id ?? null,
    )
    await this.#containers.run(id, command, this.o.signal)
    await this.#commit(current, { snapshot: id, containerId: id, container })
  }

  async #copy(current: Current, step: CopyInstruction): Promise<void> {
    if (step.from === '') {
      const source = this.context.root === null ? null : { root: this.context.root, isContext: true }
      return this.#copyFrom(current, step, source)
    }
    let image: Image | null
    try {
      const stage = this.#stages.find(step.from)
      image = stage ? stage.image : await this.#bases.get(step.from)
    } catch (caught) {
      const { kind, code, message, fields } = ShoalError.from(caught)
      throw new ShoalError(kind, code, `invalid from flag value ${step.from}: ${message}`, fields, { cause: caught })
    }
    await this.#withTree(image, (root) => this.#copyFrom(current, step, { root, isContext: false }))
  }

  async #copyFrom(current: Current, step: CopyInstruction, source: Source | null): Promise<void> {
    const items = await findSources(step, source, {
      tool: this.m.tool,
      dir: this.o.dir,
      signal: this.o.signal,
      onDownload: (url) => this.o.onMessage({ status: 'Downloading', id: url }),
    })
    const chown = step.chown === '' ? '' : `--chown=${step.chown}`
    const comment = `${step.kind.toUpperCase()} ${chown}${sourcesDigest(items)} in ${step.destination} `
    const container = commented(current.state.config, comment, 'one word')
    if (await this.#isCached(current, container)) return
    await this.#withTree(current.image, async (root, snapshot) => {
      await this.#copyInto(root, items, step, current.state.config.WorkingDir ?? '')
      await this.#commit(current, { snapshot, containerId: '', container })
    })
  }

  async #copyInto(root: string, items: readonly CopyItem[], step: CopyInstruction, workingDir: string): Promise<void> {
    const keepsOwners = step.from !== '' && step.chown === ''
    const owner = step.chown === '' ? { uid: 0, gid: 0 } : await findOwner(root, step.chown)
    const destination = destinationOf(workingDir, step.destination)
    await copyItems(
      items,
      { root, destination, owner: keepsOwners ? null : owner, unpacks: step.kind === 'add' },
      this.m.tool,
    )
  }

  /** Runs `fn` on an image's tree with a writable layer of its own, which goes with the end of it. */
  async #withTree(image: Image | null, fn: (root: string, snapshot: string) => Promise<void>): Promise<void> {
    const snapshot = newHexId()
    try {
      await this.m.snapshots.prepare(snapshot, image?.id ?? null, { isBare: true })
      await this.m.snapshots.withMounted(snapshot, (root) => fn(root, snapshot))
    } finally {
      await this.m.snapshots.remove(snapshot)
    }
  }

  /** Goes on from the image that this step made before; false: it has to be done. */
  async #isCached(current: Current, step: RunConfig): Promise<boolean> {
    if (current.isFresh) return false
    const found = await this.#cached(current, step)
    if (!found) {
      current.isFresh = true
      return false
    }
    this.#print(' ---> Using cache\n')
    current.image = found
    return true
  }

  async #cached(current: Current, step: RunConfig): Promise<Image | null> {
    const { images } = this.m.engine
    const parent = current.image
    const child = cachedChild(await images.childrenOf(parent?.id ?? null), step)
    if (this.request.cacheFrom.length === 0) return child
    if (child && current.cacheFrom.some((s) => leadsTo(child.id, images.lineageOf(s.id)))) return child
    for (const target of current.cacheFrom) {
      const next = nextInHistory(target.config, parent?.config ?? null, step)
      if (!next) continue
      if (next.isLast) {
        if (parent) await images.setParent(target.id, parent.id)
        return target
      }
      const document = restoredDocument(target.config, parent?.config ?? null, step, next.layers)
      const restored = await images.derive({
        base: target.id,
        layers: next.layers,
        snapshot: null,
        parent: parent?.id ?? null,
        config: () => document,
      })
      // Its way is gone on, not another source's.
      current.cacheFrom = [target]
      return restored
    }
    return null
  }

  async #commit(
    current: Current,
    step: { readonly snapshot: string | null; readonly containerId: string; readonly container: RunConfig },
  ): Promise<void> {
    const parent = current.image
    current.image = await this.m.engine.images.derive({
      base: parent?.id ?? null,
      snapshot: step.snapshot,
      parent: parent?.id ?? null,
      config: (diffId) =>
        stepDocument(
          {
            parent: parent?.config ?? null,
            platform: current.platform,
            config: current.state.config,
            container: step.container,
            containerId: step.containerId,
            image: parent?.id ?? '',
            author: current.state.author,
            created: rfc3339(this.m.clock.now()),
          },
          diffId,
        ),
    })
  }
}

/** Replaces the variables of a step that only describes; of EXPOSE they are replaced elsewhere, and a command's are its shell's. */
function expanded(step: Describing, word: (text: string) => string): Describing {
  switch (step.kind) {
    case 'env':
      return { ...step, pairs: step.pairs.map((p) => ({ name: word(p.name), value: word(p.value) })) }
    case 'label':
      return step.isLiteral
        ? step
        : { ...step, pairs: step.pairs.map((p) => ({ name: word(p.name), value: word(p.value) })) }
    case 'user':
    case 'stopsignal':
      return { ...step, value: word(step.value) }
    case 'volume':
      return { ...step, paths: step.paths.map(word) }
    default:
      return step
  }
}
