import type { Readable } from 'node:stream'

/** `sha256:` and 64 hexadecimal digits. */
export type Digest = string

export interface Descriptor {
  readonly mediaType: string
  readonly digest: Digest
  readonly size: number
  readonly annotations?: Readonly<Record<string, string>>
  readonly platform?: ImagePlatform
}

export interface ImagePlatform {
  readonly os: string
  readonly architecture: string
  readonly variant?: string
}

/** OCI image configuration document (image-spec config.md); unknown members are kept. */
export interface ImageConfig {
  readonly architecture: string
  readonly os: string
  readonly variant?: string
  readonly created?: string
  readonly author?: string
  readonly config?: {
    readonly User?: string
    readonly ExposedPorts?: Readonly<Record<string, object>>
    readonly Env?: readonly string[]
    readonly Entrypoint?: readonly string[] | null
    readonly Cmd?: readonly string[] | null
    readonly Volumes?: Readonly<Record<string, object>> | null
    readonly WorkingDir?: string
    readonly Labels?: Readonly<Record<string, string>> | null
    readonly StopSignal?: string
    readonly Shell?: readonly string[]
    readonly OnBuild?: readonly string[] | null
    readonly Healthcheck?: {
      Test?: string[]
      Interval?: number
      Timeout?: number
      StartPeriod?: number
      StartInterval?: number
      Retries?: number
    }
  }
  /** Docker's: the container that a commit took it from, and how that was configured (fields as in the Engine API). */
  readonly container?: string
  readonly container_config?: Readonly<Record<string, unknown>>
  readonly rootfs: { readonly type: 'layers'; readonly diff_ids: readonly Digest[] }
  readonly history?: readonly {
    readonly created?: string
    readonly created_by?: string
    readonly author?: string
    readonly comment?: string
    readonly empty_layer?: boolean
  }[]
}

/** One image as this host has it. `id` is the digest of its config. */
export interface Image {
  readonly id: Digest
  readonly config: ImageConfig
  /** "docker.io/library/busybox:latest" is kept familiar: "busybox:latest". */
  readonly repoTags: readonly string[]
  /** "busybox@sha256:..." */
  readonly repoDigests: readonly string[]
  /** Sum of the unpacked layers, bytes. */
  readonly sizeBytes: number
  readonly createdMs: number
  readonly lastTaggedMs: number
  readonly parent: Digest | null
  /** The exact bytes of the config blob. */
  readonly rawConfig: Uint8Array
  readonly manifest: Descriptor | null
  /** Unpacked bytes of each layer, bottom first. */
  readonly layerSizes: readonly number[]
}

/** One JSON object of a pull, push, load or build stream, as docker prints it. */
export interface ProgressMessage {
  readonly status?: string
  readonly id?: string
  readonly progressDetail?: { readonly current?: number; readonly total?: number }
  readonly progress?: string
  readonly stream?: string
  readonly aux?: object
}
export type OnProgress = (message: ProgressMessage) => void

/** Decoded X-Registry-Auth. */
/** Who asks a registry. */
export interface RegistryAuth {
  /** The client's own User-Agent, which the registry is told too. */
  readonly userAgent?: string
  readonly username?: string
  readonly password?: string
  readonly auth?: string
  readonly identitytoken?: string
  readonly registrytoken?: string
  readonly serveraddress?: string
}

export interface PullOptions {
  readonly platform?: ImagePlatform
  readonly auth?: RegistryAuth
  readonly allTags?: boolean
  readonly onProgress?: OnProgress
  readonly signal?: AbortSignal
}

export interface RemoteImage {
  readonly descriptor: Descriptor
  readonly platforms: readonly ImagePlatform[]
}

export type ImageDeletion = { readonly Untagged: string } | { readonly Deleted: string }

/** Images: blobs by digest, references, layers as overlay snapshots. All names are docker's (short names allowed). */
export interface SearchResult {
  readonly name: string
  readonly description: string
  readonly stars: number
  readonly isOfficial: boolean
}

export interface ImageService {
  start(): Promise<void>
  stop(): Promise<void>
  /** Resolves once the image is complete on disk and its reference durable. */
  pull(reference: string, options: PullOptions): Promise<Image>
  push(
    reference: string,
    options: { readonly auth?: RegistryAuth; readonly onProgress?: OnProgress; readonly signal?: AbortSignal },
  ): Promise<void>
  /** What a registry has under a name (docker distribution inspect). */
  resolveRemote(
    reference: string,
    options: { readonly auth?: RegistryAuth; readonly signal?: AbortSignal },
  ): Promise<RemoteImage>
  /** Whether a registry takes the credentials; gives the identity token that stands for them from now on, or nothing. */
  login(host: string, options: { readonly auth: RegistryAuth; readonly signal?: AbortSignal }): Promise<string>
  /** Repositories of a registry ("host/term", or Docker Hub's) whose names or descriptions have the term. */
  search(
    term: string,
    options: { readonly limit: number; readonly auth?: RegistryAuth | undefined },
  ): Promise<readonly SearchResult[]>
  /** One layer from a tar (any compression libarchive reads). `changes` are Dockerfile instructions (CMD ENV EXPOSE ...). */
  import(
    tar: Readable,
    options: {
      readonly reference?: string
      readonly message?: string
      readonly changes?: readonly string[]
      readonly platform?: ImagePlatform
    },
  ): Promise<Image>
  /** docker-archive or OCI layout. Returns the references and ids loaded. */
  load(
    tar: Readable,
    options: { readonly onProgress?: OnProgress; readonly platform?: ImagePlatform },
  ): Promise<readonly string[]>
  save(references: readonly string[]): Promise<Readable>
  list(): Promise<readonly Image[]>
  /** By reference, id, or unique id prefix; notFound code `noSuchImage` with docker's text "No such image: X". */
  get(referenceOrId: string): Promise<Image>
  /** The image that a reference or id means now, then those that it was made from here; nothing where there is none, or for "". */
  lineageOf(referenceOrId: string): readonly Digest[]
  tag(source: string, target: string): Promise<void>
  /**
   * `inUse(id)` names a container that uses it, a running one first, or null. A running one holds the image even against
   * `force`. conflict code `imageInUse` when refused.
   */
  remove(
    reference: string,
    options: {
      readonly force: boolean
      readonly prune: boolean
      readonly inUse: (id: Digest) => { readonly container: string; readonly running: boolean } | null
    },
  ): Promise<readonly ImageDeletion[]>
  /** New image: the container's writable layer on top of its image. */
  commit(options: {
    readonly container: string
    readonly image: Digest
    readonly config: ImageConfig['config']
    readonly containerConfig?: NonNullable<ImageConfig['container_config']>
    /** What ran in the container, for the history. */
    readonly command: string
    readonly reference?: string
    readonly comment?: string
    readonly author?: string
  }): Promise<Image>
  /** A builder's image: `layers` of the base's layers (all of them when absent), and what a writable layer has on top. Not named. */
  derive(options: {
    readonly base: Digest | null
    readonly layers?: number
    /** Key of a writable layer; null: none. */
    readonly snapshot: string | null
    readonly parent: Digest | null
    /** `diffId`: the new layer's, null when nothing was written. */
    readonly config: (diffId: Digest | null) => ImageConfig
  }): Promise<Image>
  /** Images that were made here from this one; null: from none. */
  childrenOf(id: Digest | null): Promise<readonly Image[]>
  setParent(id: Digest, parent: Digest): Promise<void>
  onEvent(
    listener: (event: {
      readonly action: 'pull' | 'push' | 'tag' | 'untag' | 'delete' | 'import' | 'load' | 'save'
      readonly id: string
      readonly name: string
      /** The image's own. */
      readonly labels: Readonly<Record<string, string>>
    }) => void,
  ): () => void
  /** Bytes by layer sharing, for `system df`. */
  usage(): Promise<{ readonly layersBytes: number; readonly sharedBytes: ReadonlyMap<Digest, number> }>
}

/** What the shim mounts (docs/native.md, shim.json rootfs): absolute directories. */
export interface RootfsPlan {
  readonly lower: readonly string[]
  readonly upper: string
  readonly work: string
}

export type ChangeKind = 0 | 1 | 2 // modified, added, deleted, as the Engine API numbers them

/** Writable layers of containers over an image's snapshots. */
export interface SnapshotService {
  /** Idempotent by key. Without an image the tree is empty. A bare one lacks the mount points that a container needs. */
  prepare(containerId: string, image: Digest | null, options?: { readonly isBare: boolean }): Promise<RootfsPlan>
  get(containerId: string): Promise<RootfsPlan>
  remove(containerId: string): Promise<void>
  /** Bytes in the writable layer. */
  usage(containerId: string): Promise<number>
  changes(containerId: string): Promise<readonly { readonly path: string; readonly kind: ChangeKind }[]>
  /** Runs `fn` with the merged tree mounted somewhere private, to be written to. Never beside a process of the container: it could no longer write. */
  withMounted<T>(containerId: string, fn: (root: string) => Promise<T>): Promise<T>
  /** The same, read-only: also while the container runs. What is written meanwhile may be seen or not. */
  withView<T>(containerId: string, fn: (root: string) => Promise<T>): Promise<T>
  /** Reads a file of the merged view without mounting (whiteouts and links honoured inside the root), null when absent; ≤ maxBytes. */
  readFile(plan: RootfsPlan, path: string, maxBytes: number): Promise<Uint8Array | null>
  list(): Promise<readonly string[]>
}

export interface VolumeRecord {
  readonly name: string
  readonly driver: string
  readonly mountpoint: string
  /** Null: none were given, as opposed to an empty set. */
  readonly labels: Readonly<Record<string, string>> | null
  readonly options: Readonly<Record<string, string>> | null
  readonly createdMs: number
  readonly anonymous: boolean
  /** As a plugin says; absent: local. */
  readonly scope?: 'local' | 'global'
  readonly status?: Readonly<Record<string, unknown>>
}

export interface VolumeService {
  start(): Promise<void>
  /**
   * Returns the existing one when name and driver agree; conflict otherwise. Empty name: anonymous, 64 hex digits. One that its
   * plugin has lost is made anew, unless `isHeld` says that a container counts on it.
   * notFound `noVolumeDriver`: no plugin of this name.
   */
  create(spec: {
    readonly name?: string
    readonly driver?: string
    readonly labels?: Readonly<Record<string, string>>
    readonly options?: Readonly<Record<string, string>>
    readonly isHeld?: (name: string) => boolean
  }): Promise<VolumeRecord>
  /** Plugins are asked, also about volumes that were not made here. */
  get(name: string): Promise<VolumeRecord>
  has(name: string): Promise<boolean>
  /** Of plugins what they list; `onWarning` hears of those that do not answer. */
  list(onWarning?: (text: string) => void): Promise<readonly VolumeRecord[]>
  /**
   * What was removed. `force`: null when there was none, and a plugin that refuses is overruled here. `users` is asked
   * under the volume's lock.
   */
  remove(
    name: string,
    options: { readonly force: boolean; readonly users?: (name: string) => readonly string[] },
  ): Promise<VolumeRecord | null>
  /** Makes it usable (mounts nfs, tmpfs, bind types, asks the plugin) for a container. Idempotent. Returns the path to bind. */
  mount(name: string, containerId: string): Promise<string>
  /** A plugin that refuses is logged: the container ends all the same. */
  unmount(name: string, containerId: string): Promise<void>
  /** After a restart: unmounts, in the background, for users of the last daemon that are no more. */
  settle(isLive: (containerId: string) => boolean): void
  /** Bytes; −1 for a plugin's. */
  usage(name: string): Promise<number>
  users(name: string): readonly string[]
  /** Names of the drivers that there are. */
  drivers(): Promise<readonly string[]>
  /** Names of the drivers whose volumes are recorded here. */
  driversInUse(): ReadonlySet<string>
}

// ------------------------------------------------------------------------------------------------ containers and shims

/** OCI runtime-spec config.json; typed loosely, since the native side validates it. */
export type OciSpec = Record<string, unknown>

/** Where the shim sends lines besides the file (docs/native.md). */
export interface ShimForward {
  readonly driver: 'syslog' | 'journald'
  readonly network: 'udp' | 'tcp' | 'unix' | 'unixgram'
  /** An IP address or an absolute path. */
  readonly address: string
  readonly port: number
  /** Over TLS: shoal-tls, who the server must prove to be, and shoal-tls's further arguments. */
  readonly tls?: { readonly program: string; readonly name: string; readonly arguments: readonly string[] } | null
  readonly format: 'unix' | 'rfc3164' | 'rfc5424' | 'rfc5424micro'
  /** 0 to 23. */
  readonly facility: number
  readonly tag: string
  readonly hostname: string
  /** What may wait for the other side. */
  readonly bufferBytes: number
  /** Of the journal, with each line. */
  readonly fields: Readonly<Record<string, string>>
}

export interface ShimLog {
  readonly driver: 'json-file'
  /** Null: no file, only `forward`. */
  readonly path: string | null
  readonly maxSizeBytes: number
  readonly maxFiles: number
  /** The program that compresses rotated files; null: they stay as they are. */
  readonly compressor?: string | null
  readonly mode: 'blocking' | 'non-blocking'
  readonly bufferBytes: number
  readonly extra: Readonly<Record<string, string>> | null
  readonly forward?: ShimForward | null
}

export interface LaunchSpec {
  readonly id: string
  readonly spec: OciSpec
  readonly rootfs: RootfsPlan | null
  readonly tty: boolean
  readonly stdin: boolean
  readonly stdinOnce: boolean
  readonly log: ShimLog | null
  /** Path below each cgroup mount. */
  readonly cgroup: string
  /** Compiled filter, or null. */
  readonly seccomp: Uint8Array | null
  readonly initPath: string | null
  readonly runtime: string | null
}

export interface ExitRecord {
  readonly exitCode: number
  readonly signal: number
  readonly oomKilled: boolean
  readonly error: string
  readonly finishedAtMs: number
}

/** One client's view of a process's streams. */
export interface AttachedStreams {
  /** Writing ends in close-stdin when `end` is called. Null when not asked for. */
  readonly stdin: NodeJS.WritableStream | null
  /** Chunks in order, of both streams; ends after the process is gone and all was delivered. */
  readonly output: AsyncIterable<{ readonly stream: 'stdout' | 'stderr'; readonly data: Uint8Array }>
  close(): void
}

export interface AttachRequest {
  readonly stdin: boolean
  readonly stdout: boolean
  readonly stderr: boolean
}

export interface ExecSpec {
  readonly id: string
  /** OCI process object. */
  readonly process: Record<string, unknown>
  readonly tty: boolean
  readonly stdin: boolean
}

export interface ExecHandle {
  readonly pid: number
  attach(request: AttachRequest): Promise<AttachedStreams>
  /** Rejects with stage exec for a command not found. */
  start(): Promise<void>
  readonly exited: Promise<number>
  resize(width: number, height: number): Promise<void>
  signal(signal: number): Promise<void>
}

/** A container whose shim lives. Everything here survives the daemon: adopt() finds it again. */
export interface LiveContainer {
  readonly id: string
  readonly pid: number
  /** 0 until started. */
  readonly startedAtMs: number
  readonly cgroup: string
  /** Frozen, as the shim knows it. */
  readonly isPaused: boolean
  /** Runs its process; call attach before it to miss no output. ShoalError fields {stage, errno}: ENOENT and EACCES at stage exec are 127 and 126. */
  start(): Promise<void>
  /** Resolves after the record is durable in exit.json. Never rejects. */
  readonly exited: Promise<ExitRecord>
  attach(request: AttachRequest): Promise<AttachedStreams>
  exec(spec: ExecSpec): Promise<ExecHandle>
  resize(width: number, height: number): Promise<void>
  signal(signal: number, options?: { readonly all?: boolean }): Promise<void>
  pause(): Promise<void>
  resume(): Promise<void>
  update(resources: Record<string, unknown>): Promise<void>
  onOom(listener: () => void): () => void
}

export interface ContainerRuntime {
  /** Writes the run directory, starts a shim, returns when the container is created (process not yet run). Leaves nothing behind on failure. */
  create(spec: LaunchSpec): Promise<LiveContainer>
  /** After a daemon restart: the live container, its exit record, or null when there is no trace of it. */
  adopt(id: string): Promise<LiveContainer | ExitRecord | null>
  /** Kills what lives and removes run directory and cgroup. Idempotent. */
  delete(id: string): Promise<void>
  /** Run directories present, for the start-up check. */
  list(): Promise<readonly string[]>
}

export const isExitRecord = (x: LiveContainer | ExitRecord | null): x is ExitRecord => x !== null && 'exitCode' in x
