import type { Readable } from 'node:stream'
import type { Clock } from '../common/index.js'
import type { Logger } from '../common/log.js'
import type { Engine, HostConfig } from '../engine/index.js'
import type { Digest, ImagePlatform, ProgressMessage, RegistryAuth, SnapshotService } from '../runtime/index.js'

/** What `POST /build` asks for, checked for types only. */
export interface BuildRequest {
  /** "": the body is the context. Else a git or HTTP URL. */
  readonly remote: string
  /** A tar, perhaps compressed; read to its end before anything is told. */
  readonly body: Readable
  /** Path of the Dockerfile in the context; "": Dockerfile, or dockerfile. */
  readonly dockerfile: string
  readonly target: string
  readonly tags: readonly string[]
  readonly labels: Readonly<Record<string, string>>
  /** Null: named without a value. */
  readonly buildArgs: Readonly<Record<string, string | null>>
  readonly cacheFrom: readonly string[]
  readonly noCache: boolean
  readonly pull: boolean
  /** Remove containers after steps that succeeded. */
  readonly remove: boolean
  /** Remove them after a failure too. */
  readonly forceRemove: boolean
  /** One layer above the base image. */
  readonly squash: boolean
  readonly platform: ImagePlatform | null
  /** Resources, network, hosts and the like of the containers. */
  readonly host: HostConfig
  /** Credentials by registry host, as X-Registry-Config has them. */
  readonly auths: Readonly<Record<string, RegistryAuth>>
  readonly userAgent: string | null
  /** For `cancel`; "": none. */
  readonly buildId: string
}

/** One object of the answer: `stream` is text for the user, `aux` tells a stage's image. */
export type BuildMessage = ProgressMessage

export interface Builder {
  /** Removes what a killed daemon left. Before the first build. */
  start(): Promise<void>
  /** Ends the builds under way and waits until nothing of them is left. */
  stop(): Promise<void>
  /**
   * Resolves with the image's id once it is durable and has its names. What the request or the Dockerfile has wrong is refused
   * with kind invalid before the first message. A failed RUN is code `commandFailed` with field `exitCode`. When the signal
   * aborts, the running container is killed and removed before the promise rejects with kind cancelled.
   */
  build(
    request: BuildRequest,
    options: { readonly onMessage: (message: BuildMessage) => void; readonly signal: AbortSignal },
  ): Promise<Digest>
  /** By `buildId`; nothing happens where there is no such build. */
  cancel(buildId: string): void
}

export interface BuildOptions {
  /** Contexts live below it while they are used. */
  readonly root: string
  /** Absolute path of shoal-layer. */
  readonly layerTool: string
  /** Most bytes and entries that a context may unpack to. */
  readonly contextBytesMax?: number
  readonly contextEntriesMax?: number
}

export interface BuildModules {
  readonly engine: Engine
  readonly snapshots: SnapshotService
  readonly clock: Clock
  readonly logger: Logger
}
