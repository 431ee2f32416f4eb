import type { Readable, Writable } from 'node:stream'
import type { EndpointRecord, NetworkService, PortPublication } from '../overlay/index.js'
import type { Digest, ImageService, SnapshotService, VolumeService } from '../runtime/index.js'
import type {
  ContainerConfig,
  ContainerState,
  CreateContainerBody,
  EndpointSettings,
  EngineEvent,
  HostConfig,
} from './types.js'

/** A mount as it was resolved at creation (docker inspect's Mounts). */
export interface MountPoint {
  readonly type: 'bind' | 'volume' | 'tmpfs'
  readonly name: string
  readonly source: string
  readonly destination: string
  readonly driver: string
  readonly mode: string
  readonly rw: boolean
  readonly propagation: string
}

/** Everything known of one container; what inspect and ps print is derived from it in api/. */
export interface ContainerView {
  readonly id: string
  /** Without the leading slash. */
  readonly name: string
  readonly createdMs: number
  readonly path: string
  readonly args: readonly string[]
  readonly image: Digest
  /** As the user wrote it. */
  readonly imageReference: string
  /** Merged with the image's. */
  readonly config: ContainerConfig
  /** Defaults filled in. */
  readonly hostConfig: HostConfig
  readonly state: ContainerState
  readonly restartCount: number
  readonly mounts: readonly MountPoint[]
  readonly networkMode: string
  /** Network name → wanted and, while running, actual settings. */
  readonly endpoints: ReadonlyMap<
    string,
    { readonly settings: EndpointSettings; readonly record: EndpointRecord | null }
  >
  readonly ports: readonly PortPublication[]
  readonly sandboxKey: string
  readonly logPath: string
  readonly hostnamePath: string
  readonly hostsPath: string
  readonly resolvConfPath: string
  readonly execIds: readonly string[]
  readonly lower: readonly string[]
  readonly upper: string
  readonly work: string
  readonly hasBeenStartedBefore: boolean
  readonly hasBeenManuallyStopped: boolean
}

export interface ExecView {
  readonly id: string
  readonly containerId: string
  readonly running: boolean
  readonly exitCode: number | null
  /** It could not be started: the exit code says why, as a shell would. */
  readonly neverRan: boolean
  readonly pid: number
  readonly tty: boolean
  readonly openStdin: boolean
  readonly openStdout: boolean
  readonly openStderr: boolean
  readonly privileged: boolean
  readonly user: string
  readonly entrypoint: string
  readonly arguments: readonly string[]
  readonly detachKeys: string
}

export interface ExecConfig {
  readonly cmd: readonly string[]
  readonly env: readonly string[]
  readonly user: string
  readonly workingDir: string
  readonly tty: boolean
  readonly attachStdin: boolean
  readonly attachStdout: boolean
  readonly attachStderr: boolean
  readonly privileged: boolean
  readonly detachKeys: string
  readonly consoleSize?: readonly [number, number]
}

/** One chunk of output, already told apart; a tty has only stdout. */
export interface OutputChunk {
  readonly stream: 'stdout' | 'stderr'
  readonly data: Uint8Array
}

export interface LogEntry extends OutputChunk {
  /** RFC 3339 with nanoseconds, as recorded. */
  readonly time: string
  readonly attributes: Readonly<Record<string, string>>
}

export interface LogQuery {
  readonly stdout: boolean
  readonly stderr: boolean
  readonly follow: boolean
  readonly sinceMs: number | null
  readonly untilMs: number | null
  /** Lines from the end, null = all. */
  readonly tail: number | null
}

export interface AttachOptions {
  readonly stdin: boolean
  readonly stdout: boolean
  readonly stderr: boolean
  /** Deliver what is in the log first. */
  readonly logs: boolean
  /** Go on with what comes. */
  readonly stream: boolean
  /** e.g. "ctrl-p,ctrl-q"; empty string: the default. */
  readonly detachKeys: string
}

export interface Attachment {
  readonly tty: boolean
  readonly stdin: Writable | null
  /** Ends with the process, or when the detach keys were typed. */
  readonly output: AsyncIterable<OutputChunk>
  /** Resolves true when the client detached by keys. */
  readonly detached: Promise<boolean>
  close(): void
}

export interface StatsSample {
  readonly readMs: number
  readonly cpuTotalNs: number
  readonly cpuUserNs: number
  readonly cpuKernelNs: number
  readonly cpuPerCoreNs: readonly number[]
  readonly systemCpuNs: number
  readonly onlineCpus: number
  readonly throttling: { readonly periods: number; readonly throttledPeriods: number; readonly throttledNs: number }
  readonly memoryUsageBytes: number
  readonly memoryMaxUsageBytes: number
  readonly memoryLimitBytes: number
  readonly memoryStats: Readonly<Record<string, number>>
  readonly pidsCurrent: number
  readonly pidsLimit: number
  readonly blkio: readonly {
    readonly major: number
    readonly minor: number
    readonly op: string
    readonly bytes: number
    readonly ops: number
  }[]
  readonly networks: readonly import('../overlay/index.js').InterfaceStats[]
}

export type WaitCondition = 'not-running' | 'next-exit' | 'removed'

/**
 * Containers as their users know them. References are full ids, names, or unique id prefixes; notFound code
 * `noSuchContainer` ("No such container: X"). Every durable change is on disk before its promise resolves.
 */
export interface ContainerService {
  /** conflict `nameInUse` with docker's sentence; notFound `noSuchImage` ("No such image: X:tag") makes clients pull. */
  create(
    body: CreateContainerBody,
    /** `onNothing`: without an image, for a builder. */
    options: { readonly name: string; readonly platform?: string; readonly onNothing?: boolean },
  ): Promise<{ readonly id: string; readonly warnings: readonly string[] }>
  /** notModified when it runs already. Exec failures: invalid with fields {exitCode: 126 | 127} and docker's wording. */
  start(reference: string): Promise<void>
  /** Replaces the host configuration of one that does not run; nothing where it runs. */
  configure(reference: string, host: HostConfig): Promise<void>
  /** notModified when it is stopped already. `timeoutSeconds` −1: wait for ever; absent: the container's own or 10. */
  stop(reference: string, options?: { readonly signal?: string; readonly timeoutSeconds?: number }): Promise<void>
  restart(reference: string, options?: { readonly signal?: string; readonly timeoutSeconds?: number }): Promise<void>
  kill(reference: string, signal: string): Promise<void>
  pause(reference: string): Promise<void>
  unpause(reference: string): Promise<void>
  rename(reference: string, name: string): Promise<void>
  update(reference: string, changes: HostConfig): Promise<{ readonly warnings: readonly string[] }>
  remove(
    reference: string,
    options: { readonly force: boolean; readonly volumes: boolean; readonly link: boolean },
  ): Promise<void>
  /** The promise's registration is done when this returns: nothing that happens later is missed. */
  wait(
    reference: string,
    condition: WaitCondition,
    signal: AbortSignal,
  ): Promise<{ readonly exitCode: number; readonly error: string }>
  get(reference: string): ContainerView
  list(): readonly ContainerView[]
  /** A container on this image, a running one first; one that is being made counts. */
  userOfImage(id: Digest): { readonly container: string; readonly running: boolean } | null
  size(reference: string): Promise<{ readonly rw: number; readonly rootFs: number }>
  logs(reference: string, query: LogQuery, signal: AbortSignal): AsyncIterable<LogEntry>
  attach(reference: string, options: AttachOptions): Promise<Attachment>
  resize(reference: string, width: number, height: number): Promise<void>
  /** ps in the host's view of the container's processes. */
  top(
    reference: string,
    psArgs: string,
  ): Promise<{ readonly titles: readonly string[]; readonly processes: readonly (readonly string[])[] }>
  stats(reference: string): Promise<StatsSample>
  changes(reference: string): Promise<readonly { readonly path: string; readonly kind: 0 | 1 | 2 }[]>
  export(reference: string): Promise<Readable>
  statPath(reference: string, path: string): Promise<PathStat>
  getArchive(reference: string, path: string): Promise<{ readonly stat: PathStat; readonly tar: Readable }>
  putArchive(
    reference: string,
    path: string,
    tar: Readable,
    options: { readonly noOverwriteDirNonDir: boolean; readonly copyUidGid: boolean },
  ): Promise<void>

  execCreate(reference: string, config: ExecConfig): Promise<string>
  /** Detached when attach is null. Command not found: invalid with fields {exitCode: 126 | 127}. */
  execStart(
    execId: string,
    attach: {
      readonly tty: boolean
      readonly detachKeys: string
      readonly consoleSize?: readonly [number, number]
    } | null,
  ): Promise<Attachment | null>
  /** Throws what `execStart` would refuse at once: conflict `execEnded`, `execRunning`, `paused`, `notRunning`. */
  execCheckStart(execId: string): void
  execResize(execId: string, width: number, height: number): Promise<void>
  execInspect(execId: string): ExecView

  connect(reference: string, networkId: string, settings: EndpointSettings | null): Promise<void>
  disconnect(reference: string, networkId: string, force: boolean): Promise<void>
  commit(
    reference: string,
    options: {
      readonly reference?: string
      readonly comment?: string
      readonly author?: string
      readonly changes: readonly string[]
      readonly pause: boolean
      readonly config?: ContainerConfig
    },
  ): Promise<Digest>
}

export interface PathStat {
  readonly name: string
  readonly size: number
  /** Go's os.FileMode bits. */
  readonly mode: number
  readonly mtime: string
  readonly linkTarget: string
}

export interface EventService {
  publish(event: Omit<EngineEvent, 'timeMs'>): void
  /** Kept ones since `sinceMs`, then new ones until `untilMs` or abort. The last 256 at least are kept. */
  subscribe(options: {
    readonly sinceMs: number | null
    readonly untilMs: number | null
    readonly signal: AbortSignal
  }): AsyncIterable<EngineEvent>
}

/** What containers get that do not say; read at each create and start. */
export interface ContainerDefaults {
  readonly shmBytes: number
  readonly ipcMode: string
  /** "": private on cgroup v2, host on v1. */
  readonly cgroupnsMode: string
  readonly noNewPrivileges: boolean
  /** "default": docker's profile. */
  readonly seccomp: 'default' | 'unconfined' | object
  /** Network of containers that name none. */
  readonly network: string
}

export interface EngineOptions {
  readonly dataRoot: string
  readonly execRoot: string
  /** Absolute path of build/native. */
  readonly nativeDir: string
  /** Above every container's cgroup, e.g. "/shoal". */
  readonly cgroupParent: string
  readonly defaultRuntime: string
  readonly runtimes: Readonly<Record<string, { readonly path: string; readonly runtimeArgs?: readonly string[] }>>
  readonly logDriver: string
  readonly logOptions: Readonly<Record<string, string>>
  readonly defaultUlimits: readonly { readonly Name: string; readonly Soft: number; readonly Hard: number }[]
  readonly init: boolean
  readonly defaults?: Partial<ContainerDefaults>
  readonly shutdownTimeoutSeconds: number
  readonly liveRestore: boolean
  readonly dns: {
    readonly servers: readonly string[]
    readonly search: readonly string[]
    readonly options: readonly string[]
  }
}

export interface EngineModules {
  readonly clock: import('../common/index.js').Clock
  readonly rng: import('../common/index.js').Rng
  readonly logger: import('../common/log.js').Logger
  readonly images: ImageService
  readonly snapshots: SnapshotService
  readonly volumes: VolumeService
  readonly networks: NetworkService
}

export interface Engine {
  readonly containers: ContainerService
  readonly events: EventService
  readonly images: ImageService
  readonly volumes: VolumeService
  readonly networks: NetworkService
  /** Loads records, adopts live containers, finishes or undoes what a crash left, starts networks, applies restart policies. */
  start(): Promise<void>
  /** Ends containers in order within the time-out, unless live-restore. */
  stop(): Promise<void>
}
