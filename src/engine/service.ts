import type { Readable } from 'node:stream'
import { conflict, notFound, ShoalError, unimplemented } from '../common/index.js'
import type { Digest } from '../runtime/index.js'
import { changesOf, exportTree, getArchive, putArchive, sizeOf, statPath } from './archive.js'
import { makeAttachment } from './attachment.js'
import { commitContainer } from './commit.js'
import { configureContainer } from './configure.js'
import type { Container } from './container.js'
import { containerEvent } from './container-events.js'
import type { EngineContext } from './context.js'
import type {
  Attachment,
  AttachOptions,
  ContainerService,
  ContainerView,
  ExecConfig,
  ExecView,
  LogEntry,
  LogQuery,
  PathStat,
  StatsSample,
  WaitCondition,
} from './contract.js'
import { createContainer } from './create.js'
import { parseDetachKeys } from './detach-keys.js'
import { checkRunning, Execs } from './exec.js'
import {
  killContainer,
  pauseContainer,
  removeContainer,
  restartContainer,
  startContainer,
  stopContainer,
} from './lifecycle.js'
import { aliasOf, refreshLinks, renameInLinks } from './links.js'
import { maxLogFiles } from './logs/drivers.js'
import { readLog } from './logs/reader.js'
import { connect, disconnect } from './network.js'
import { attachUnlessEnding, PendingAttachment } from './pending-attachment.js'
import { mergedUlimits } from './spec/index.js'
import { readStats } from './stats/index.js'
import { processTable } from './top.js'
import type { CreateContainerBody, EndpointSettings, HostConfig } from './types.js'
import { updateContainer } from './update.js'
import { checkName } from './validate.js'
import { waitFor } from './wait.js'

/** The face of the engine's container part: finds the container, and hands on. */
export class Containers implements ContainerService {
  readonly #execs: Execs

  constructor(private readonly ctx: EngineContext) {
    this.#execs = new Execs(ctx)
  }

  /** What is done with a tree that somebody removes just then fails in many ways, which all mean one thing. */
  async #ofTree<T>(reference: string, work: (container: Container) => Promise<T>): Promise<T> {
    const container = this.#find(reference)
    try {
      return await work(container)
    } catch (caught) {
      if (!container.isGone) throw caught
      throw notFound('noSuchContainer', `No such container: ${reference}`, { reference }, { cause: caught })
    }
  }

  #find(reference: string): Container {
    return this.ctx.registry.find(reference)
  }

  create(body: CreateContainerBody, options: { readonly name: string; readonly platform?: string }) {
    return createContainer(this.ctx, body, options)
  }

  async start(reference: string): Promise<void> {
    await startContainer(this.ctx, this.#find(reference))
  }

  async configure(reference: string, host: HostConfig): Promise<void> {
    await configureContainer(this.ctx, this.#find(reference), host)
  }

  async stop(
    reference: string,
    options: { readonly signal?: string; readonly timeoutSeconds?: number } = {},
  ): Promise<void> {
    await stopContainer(this.ctx, this.#find(reference), { ...options, byHand: true })
  }

  async restart(
    reference: string,
    options: { readonly signal?: string; readonly timeoutSeconds?: number } = {},
  ): Promise<void> {
    await restartContainer(this.ctx, this.#find(reference), options)
  }

  async kill(reference: string, signal: string): Promise<void> {
    await killContainer(this.ctx, this.#find(reference), signal)
  }

  async pause(reference: string): Promise<void> {
    await pauseContainer(this.ctx, this.#find(reference), true)
  }

  async unpause(reference: string): Promise<void> {
    await pauseContainer(this.ctx, this.#find(reference), false)
  }

  async rename(reference: string, name: string): Promise<void> {
    const container = this.#find(reference)
    const newName = allocated(() => checkName(name))
    await container.locked(async () => {
      const { record } = container
      const oldName = record.name
      if (newName === oldName)
        throw conflict('sameName', 'Renaming a container with the same name as its current name', { name })
      allocated(() => this.ctx.registry.reserve(newName, container.id))
      try {
        record.name = newName
        if (container.isRunning) await this.ctx.networks.rename(container.id, newName)
        await this.ctx.store.put(record)
      } catch (caught) {
        record.name = oldName
        this.ctx.registry.release(newName, container.id)
        throw caught
      }
      this.ctx.registry.release(oldName, container.id)
      await renameInLinks(this.ctx, oldName, newName)
      containerEvent(this.ctx, container, 'rename', { oldName: `/${oldName}` })
    })
  }

  async update(reference: string, changes: HostConfig): Promise<{ readonly warnings: readonly string[] }> {
    return updateContainer(this.ctx, this.#find(reference), changes)
  }

  async remove(
    reference: string,
    options: { readonly force: boolean; readonly volumes: boolean; readonly link: boolean },
  ): Promise<void> {
    if (options.link) return this.#removeLink(reference)
    await removeContainer(this.ctx, this.#find(reference), options)
  }

  /** "container/alias". */
  async #removeLink(reference: string): Promise<void> {
    const [parent = '', alias] = reference.replace(/^\//, '').split('/')
    if (alias === undefined)
      throw conflict('defaultLink', 'Conflict, cannot remove the default link name of the container', { reference })
    if (!this.ctx.registry.has(parent))
      throw notFound('noSuchLink', `Could not get parent container for the link ${reference}`, { reference })
    const container = this.#find(parent)
    await container.locked(async () => {
      const { hostConfig } = container.record
      const rest = (hostConfig.Links ?? []).filter((link) => aliasOf(link) !== alias)
      if (rest.length === hostConfig.Links?.length)
        throw notFound('noSuchLink', `No such link: ${reference}`, { reference })
      hostConfig.Links = rest.length > 0 ? rest : null
      await this.ctx.store.put(container.record)
      await refreshLinks(this.ctx, [container])
    })
  }

  wait(reference: string, condition: WaitCondition, signal: AbortSignal) {
    return waitFor(this.#find(reference), condition, signal)
  }

  get(reference: string): ContainerView {
    const view = this.#find(reference).view()
    const Ulimits = mergedUlimits(view.hostConfig, this.ctx.options.defaultUlimits)
    return Ulimits.length > 0 ? { ...view, hostConfig: { ...view.hostConfig, Ulimits } } : view
  }

  list(): readonly ContainerView[] {
    return this.ctx.registry.all().map((c) => c.view())
  }

  userOfImage(id: Digest): { readonly container: string; readonly running: boolean } | null {
    const using = this.ctx.registry.all().filter((c) => c.record.image === id)
    const running = using.find((c) => c.isRunning || c.record.status === 'restarting')
    const container = (running ?? using[0])?.id ?? this.ctx.registry.claimants(id)[0]
    return container === undefined ? null : { container, running: running !== undefined }
  }

  async size(reference: string): Promise<{ readonly rw: number; readonly rootFs: number }> {
    return this.#ofTree(reference, (c) => sizeOf(this.ctx, c))
  }

  async *logs(reference: string, query: LogQuery, signal: AbortSignal): AsyncGenerator<LogEntry> {
    const container = this.#find(reference)
    if (!container.hasReadableLog)
      throw unimplemented('unreadableLog', 'configured logging driver does not support reading', { id: container.id })
    const isWriting = (): boolean => container.isRunning || container.record.status === 'restarting'
    yield* readLog(
      { path: container.logPath, maxFiles: maxLogFiles(container) },
      query,
      {
        isWriting,
        onEnd: (listener) => {
          const offs = [container.ended.on(listener), container.removed.on(listener)]
          return () => {
            for (const off of offs) off()
          }
        },
      },
      { clock: this.ctx.clock, signal, logger: this.ctx.logger },
    )
  }

  async attach(reference: string, options: AttachOptions): Promise<Attachment> {
    const container = this.#find(reference)
    if (container.record.status === 'paused')
      throw conflict('paused', `container ${container.id} is paused, unpause the container before attach`)
    if (container.record.status === 'restarting')
      throw conflict('restarting', `container ${container.id} is restarting, wait until the container is running`)
    parseDetachKeys(options.detachKeys) // refused before the stream begins
    const { config } = container.record
    const tty = config.Tty === true
    const wantsStdin = options.stdin && config.OpenStdin === true
    const request = { stdin: wantsStdin, stdout: options.stdout, stderr: options.stderr && !tty }
    const attachedMs = this.ctx.clock.now()
    let pending: PendingAttachment | null = null
    let streams: Promise<Awaited<ReturnType<NonNullable<Container['live']>['attach']>> | null>
    if (!options.stream) streams = Promise.resolve(null)
    else if (container.live) streams = Promise.resolve(await attachUnlessEnding(container.live, request))
    else {
      pending = new PendingAttachment(request)
      container.pendingAttachments.add(pending)
      streams = pending.streams
    }
    containerEvent(this.ctx, container, 'attach')
    return makeAttachment({
      tty,
      wantsStdin,
      closesStdin: config.StdinOnce === true,
      detachKeys: options.detachKeys,
      streams,
      ...(options.logs && container.hasReadableLog
        ? {
            before: this.logs(
              container.id,
              {
                stdout: options.stdout,
                stderr: options.stderr,
                follow: false,
                sinceMs: null,
                untilMs: attachedMs,
                tail: null,
              },
              new AbortController().signal,
            ),
          }
        : {}),
      onDetach: () => containerEvent(this.ctx, container, 'detach'),
      onClose: () => {
        if (!pending) return
        pending.cancel()
        container.pendingAttachments.delete(pending)
      },
    })
  }

  async resize(reference: string, width: number, height: number): Promise<void> {
    const container = this.#find(reference)
    if (!container.live) throw conflict('notRunning', `Container ${container.id} is not running`, { id: container.id })
    // Without a terminal there is nothing to resize, and dockerd takes it all the same.
    if (container.record.config.Tty) await container.live.resize(width, height)
    containerEvent(this.ctx, container, 'resize', { height: String(height), width: String(width) })
  }

  async top(reference: string, psArgs: string) {
    const container = this.#find(reference)
    // A frozen one still has its processes.
    if (container.record.status !== 'paused') checkRunning(container)
    containerEvent(this.ctx, container, 'top')
    return processTable(container.live!.cgroup, psArgs)
  }

  async stats(reference: string): Promise<StatsSample> {
    return readStats(this.ctx, this.#find(reference))
  }

  async changes(reference: string) {
    return this.#ofTree(reference, (c) => changesOf(this.ctx, c))
  }

  async export(reference: string): Promise<Readable> {
    return this.#ofTree(reference, (c) => exportTree(this.ctx, c))
  }

  async statPath(reference: string, path: string): Promise<PathStat> {
    return this.#ofTree(reference, (c) => statPath(this.ctx, c, path))
  }

  async getArchive(reference: string, path: string) {
    return this.#ofTree(reference, (c) => getArchive(this.ctx, c, path))
  }

  async putArchive(
    reference: string,
    path: string,
    tar: Readable,
    options: { readonly noOverwriteDirNonDir: boolean; readonly copyUidGid: boolean },
  ): Promise<void> {
    await this.#ofTree(reference, (c) => putArchive(this.ctx, c, path, tar, options))
  }

  async execCreate(reference: string, config: ExecConfig): Promise<string> {
    return this.#execs.create(this.#find(reference), config)
  }

  async execStart(
    execId: string,
    attach: {
      readonly tty: boolean
      readonly detachKeys: string
      readonly consoleSize?: readonly [number, number]
    } | null,
  ): Promise<Attachment | null> {
    return this.#execs.start(this.#execs.find(execId), attach)
  }

  async execResize(execId: string, width: number, height: number): Promise<void> {
    const exec = this.#execs.find(execId)
    if (!exec.handle || !exec.isRunning)
      throw conflict('execNotRunning', `exec ${execId} is not running`, { id: execId })
    if (exec.config.tty) await exec.handle.resize(width, height)
  }

  execCheckStart(execId: string): void {
    this.#execs.checkStart(this.#execs.find(execId))
  }

  execInspect(execId: string): ExecView {
    return this.#execs.find(execId).view()
  }

  async connect(reference: string, networkId: string, settings: EndpointSettings | null): Promise<void> {
    const container = this.#find(reference)
    await container.locked(() => connect(this.ctx, container, networkId, settings))
  }

  async disconnect(reference: string, networkId: string, force: boolean): Promise<void> {
    const container = this.#find(reference)
    await container.locked(() => disconnect(this.ctx, container, networkId, force))
  }

  async commit(reference: string, options: Parameters<ContainerService['commit']>[1]): Promise<Digest> {
    return commitContainer(this.ctx, this.#find(reference), options)
  }
}

/** Docker's sentence around what is wrong with a container's new name. */
function allocated<T>(take: () => T): T {
  try {
    return take()
  } catch (caught) {
    const { kind, code, message, fields } = ShoalError.from(caught)
    throw new ShoalError(kind, code, `Error when allocating new name: ${message}`, fields, { cause: caught })
  }
}
