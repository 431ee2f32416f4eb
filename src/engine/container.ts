import { join } from 'node:path'
import { Emitter, notFound, type Timer } from '../common/index.js'
import type { Sandbox } from '../overlay/index.js'
import type { LiveContainer, RootfsPlan } from '../runtime/index.js'
import type { ContainerView, MountPoint } from './contract.js'
import type { ExecInstance } from './exec.js'
import type { HealthMonitor } from './health.js'
import { keepsFile } from './logs/drivers.js'
import { Mutex } from './mutex.js'
import type { PendingAttachment } from './pending-attachment.js'
import type { ContainerRecord, MountRecord } from './record.js'

export interface Ending {
  readonly exitCode: number
  readonly error: string
}

/** One container: its durable record, and what lives only as long as this daemon. */
export class Container {
  /** Held while the state changes: start, the handling of an exit, pause, connect, rename, remove. */
  readonly lock = new Mutex()
  /** Held while it starts, and while its tree is written to from outside without its processes: both at once would mount it twice. */
  readonly tree = new Mutex()
  live: LiveContainer | null = null
  sandbox: Sandbox | null = null
  health: HealthMonitor | null = null
  /** The wait before the next restart. */
  restartTimer: Timer | null = null
  restartDelayMs = 0
  /** stop or kill came: the exit that follows is wanted. */
  isStopWanted = false
  #holds = 0
  /** Removed: its record is off the disk and must not be written again. */
  isGone = false
  readonly execs = new Map<string, ExecInstance>()
  readonly pendingAttachments = new Set<PendingAttachment>()
  /** Each time the process has ended and the record says so. */
  readonly ended = new Emitter<Ending>()
  readonly removed = new Emitter<Ending>()

  /** Its log in the driver's own form, and the files that are mounted over those of its image. */
  readonly logPath: string
  readonly #hostnamePath: string
  readonly #hostsPath: string
  readonly #resolvConfPath: string

  constructor(
    readonly record: ContainerRecord,
    readonly rootfs: RootfsPlan,
    /** Holds its log and files; below the data root. */
    readonly dir: string,
  ) {
    this.logPath = join(dir, `${record.id}-json.log`)
    this.#hostnamePath = join(dir, 'hostname')
    this.#hostsPath = join(dir, 'hosts')
    this.#resolvConfPath = join(dir, 'resolv.conf')
  }

  /** Like the lock, for what a user asked: refused once the container was removed meanwhile, so that no record comes back. */
  locked<T>(critical: () => Promise<T>): Promise<T> {
    return this.lock.run(() => {
      if (this.isGone) throw notFound('noSuchContainer', `No such container: ${this.id}`, { reference: this.id })
      return critical()
    })
  }

  /** While `work` goes on, an end is only a part of it: no auto-remove, no policy, and nobody else removes the container. */
  async held<T>(work: () => Promise<T>): Promise<T> {
    this.#holds++
    try {
      return await work()
    } finally {
      this.#holds--
    }
  }

  get isHeld(): boolean {
    return this.#holds > 0
  }

  get id(): string {
    return this.record.id
  }

  get name(): string {
    return this.record.name
  }

  get isRunning(): boolean {
    return this.record.status === 'running' || this.record.status === 'paused'
  }

  get hasReadableLog(): boolean {
    const { Type, Config } = this.record.hostConfig.LogConfig ?? {}
    return keepsFile(Type || 'json-file', Config ?? {})
  }

  view(): ContainerView {
    const r = this.record
    const records = new Map((this.sandbox?.endpoints ?? []).map((e) => [e.networkId, e]))
    return {
      id: r.id,
      name: r.name,
      createdMs: r.createdMs,
      path: r.path,
      args: r.args,
      image: r.image,
      imageReference: r.imageReference,
      config: r.config,
      hostConfig: r.hostConfig,
      state: {
        status: r.status,
        pid: r.pid,
        exitCode: r.exitCode,
        oomKilled: r.oomKilled,
        error: r.error,
        startedAtMs: r.startedAtMs,
        finishedAtMs: r.finishedAtMs,
        health: this.health?.view() ?? null,
      },
      restartCount: r.restartCount,
      mounts: r.mounts.filter((m) => !(r.hostConfig.Tmpfs && m.destination in r.hostConfig.Tmpfs)).map(mountPoint),
      networkMode: r.networkMode,
      endpoints: new Map(
        Object.entries(r.endpoints).map(([network, settings]) => [
          network,
          { settings, record: records.get(settings.NetworkID ?? '') ?? null },
        ]),
      ),
      ports: this.sandbox?.ports ?? [],
      sandboxKey: this.sandbox?.netnsPath ?? '',
      logPath: (r.hostConfig.LogConfig?.Type || 'json-file') === 'json-file' ? this.logPath : '',
      hostnamePath: this.#hostnamePath,
      hostsPath: this.#hostsPath,
      resolvConfPath: this.#resolvConfPath,
      execIds: [...this.execs.values()].filter((e) => e.isRunning).map((e) => e.id),
      lower: this.rootfs.lower,
      upper: this.rootfs.upper,
      work: this.rootfs.work,
      hasBeenStartedBefore: r.hasBeenStartedBefore,
      hasBeenManuallyStopped: r.hasBeenManuallyStopped,
    }
  }
}

const mountPoint = (m: MountRecord): MountPoint => ({
  type: m.type,
  name: m.name,
  source: m.source,
  destination: m.destination,
  driver: m.driver,
  mode: m.mode,
  rw: m.rw,
  propagation: m.propagation,
})
