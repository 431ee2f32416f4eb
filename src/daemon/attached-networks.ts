import { join } from 'node:path'
import { notAttachable } from '../api/index.js'
import { type Clock, isKind, unavailable, unlessAborted } from '../common/index.js'
import type { Logger } from '../common/log.js'
import type { AttachmentClient } from '../manager/index.js'
import type { EndpointRecord, JoinRequest, NetworkService } from '../overlay/index.js'
import { readIfPresent, writeDurable } from './durable.js'

/** Waits between attempts to give an address back while no manager answers, ms. */
const DETACH_MIN_MS = 500
const DETACH_MAX_MS = 30_000

export interface AttachedNetworksModules {
  readonly clock: Clock
  readonly logger: Logger
  /** Aborted as the daemon begins to stop: no answer of a manager is waited for any more. */
  readonly stopping: AbortSignal
  /** Null while this node is in no swarm. */
  readonly managers: () => { readonly client: AttachmentClient; readonly nodeId: string } | null
  /** Of the container that has the sandbox: tasks bring their addresses along. */
  readonly container: (sandboxId: string) => { readonly name: string; readonly isTask: boolean } | null
}

/**
 * The host's networks as the engine sees them: before a single container joins a network of the cluster, the managers are
 * asked for an address; after it left, they get it back. Attachments are on disk, so that a crash loses none:
 *
 *     held     the container is or may be on the network
 *     leaving  it is not any more; the managers are told until one has heard it
 */
export class AttachedNetworks {
  /** "sandbox network" → attachment's task. */
  readonly #held = new Map<string, string>()
  readonly #leaving = new Set<string>()
  readonly #file: string
  #saving: Promise<void> = Promise.resolve()
  readonly #stop = new AbortController()

  private constructor(
    dir: string,
    private readonly inner: NetworkService,
    private readonly m: AttachedNetworksModules,
  ) {
    this.#file = join(dir, 'attachments.json')
  }

  static wrap(dir: string, inner: NetworkService, modules: AttachedNetworksModules): NetworkService {
    const attached = new AttachedNetworks(dir, inner, modules)
    const overrides: Partial<NetworkService> = {
      start: (keep) => attached.#start(keep),
      stop: () => attached.#halt(),
      join: (sandboxId, networkId, request) => attached.#join(sandboxId, networkId, request),
      leave: async (sandboxId, networkId) => {
        await inner.leave(sandboxId, networkId)
        await attached.#release((key) => key === keyOf(sandboxId, networkId))
      },
      deleteSandbox: async (id) => {
        await inner.deleteSandbox(id)
        await attached.#release((key) => key.startsWith(`${id} `))
      },
      clusterLeft: async () => {
        await inner.clusterLeft()
        await attached.#forget()
      },
    }
    return new Proxy(inner, {
      get(target, property) {
        const value = overrides[property as keyof NetworkService] ?? target[property as keyof NetworkService]
        return typeof value === 'function' ? value.bind(target) : value
      },
    })
  }

  async #start(keep: ReadonlySet<string>): Promise<void> {
    const found = JSON.parse((await readIfPresent(this.#file)) ?? '{}') as {
      held?: Record<string, string>
      leaving?: string[]
    }
    for (const [key, task] of Object.entries(found.held ?? {})) this.#held.set(key, task)
    await this.inner.start(keep)
    for (const task of found.leaving ?? []) this.#leave(task)
    await this.#release((key) => !keep.has(key.split(' ')[0]!))
  }

  async #halt(): Promise<void> {
    this.#stop.abort()
    await this.#saving
    await this.inner.stop()
  }

  async #join(sandboxId: string, networkId: string, request: JoinRequest): Promise<EndpointRecord> {
    const network = this.inner.findNetwork(networkId)
    const container = network.scope === 'swarm' ? this.m.container(sandboxId) : null
    if (!container || container.isTask) return this.inner.join(sandboxId, networkId, request)
    const managers = this.m.managers()
    if (!managers)
      throw unavailable('notInSwarm', `network ${network.name} belongs to a swarm, which this node is not part of`)
    this.m.stopping.throwIfAborted()
    const asked = managers.client.attach({
      network: network.id,
      containerId: sandboxId,
      nodeId: managers.nodeId,
      addresses: [request.ipv4Address, request.ipv6Address].filter((a): a is string => a !== undefined),
      aliases: [...new Set([container.name, ...(request.aliases ?? [])])],
    })
    const { taskId, attachment } = await unlessAborted(asked, this.m.stopping).catch((caught: unknown) => {
      if (isKind(caught, 'forbidden')) throw notAttachable(network.name)
      throw caught
    })
    const key = keyOf(sandboxId, networkId)
    this.#held.set(key, taskId)
    try {
      await this.#save()
      if (attachment?.network) await this.inner.ensureSwarmNetwork(attachment.network)
      const address = attachment?.addresses.find((a) => !a.includes(':'))?.replace(/\/\d+$/, '')
      return await this.inner.join(sandboxId, networkId, { ...request, ...(address ? { ipv4Address: address } : {}) })
    } catch (caught) {
      await this.#release((k) => k === key)
      throw caught
    }
  }

  /** Does not wait for the managers: a container must stop without them. */
  async #release(matches: (key: string) => boolean): Promise<void> {
    const gone = [...this.#held].filter(([key]) => matches(key))
    if (gone.length === 0) return
    for (const [key, task] of gone) {
      this.#held.delete(key)
      this.#leave(task)
    }
    await this.#save()
  }

  #leave(task: string): void {
    this.#leaving.add(task)
    void this.#detach(task).catch((error: unknown) => {
      if (!this.#stop.signal.aborted)
        this.m.logger.error('an attachment was not given back', { taskId: task, error: String(error) })
    })
  }

  async #detach(task: string): Promise<void> {
    for (let waitMs = DETACH_MIN_MS; this.#leaving.has(task); waitMs = Math.min(DETACH_MAX_MS, waitMs * 2)) {
      try {
        const managers = this.m.managers()
        if (managers) {
          await managers.client.detach(task)
          break
        }
      } catch (caught) {
        // Only silence passes; whatever else a manager says, it will say again.
        if (!isKind(caught, 'unavailable')) {
          this.m.logger.warn('a manager refuses to take an attachment back', { taskId: task, error: String(caught) })
          break
        }
      }
      await this.m.clock.sleep(waitMs, this.#stop.signal)
    }
    this.#leaving.delete(task)
    await this.#save()
  }

  async #forget(): Promise<void> {
    this.#held.clear()
    this.#leaving.clear()
    await this.#save()
  }

  #save(): Promise<void> {
    const write = (): Promise<void> =>
      writeDurable(this.#file, JSON.stringify({ held: Object.fromEntries(this.#held), leaving: [...this.#leaving] }))
    const turn = this.#saving.then(write)
    this.#saving = turn.catch(() => {}) // the one who asked gets the error
    return turn
  }
}

const keyOf = (sandboxId: string, networkId: string): string => `${sandboxId} ${networkId}`
