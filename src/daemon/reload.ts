import type { DaemonOptions } from './options.js'

/** What SIGHUP may change, with dockerd's name for it. */
const RELOADABLE = {
  debug: 'debug',
  logLevel: 'log-level',
  labels: 'labels',
  liveRestore: 'live-restore',
  shutdownTimeoutSeconds: 'shutdown-timeout',
  insecureRegistries: 'insecure-registries',
  registryMirrors: 'registry-mirrors',
  authorizationPlugins: 'authorization-plugins',
  runtimes: 'runtimes',
  defaultRuntime: 'default-runtime',
  defaultShmBytes: 'default-shm-size',
  defaultIpcMode: 'default-ipc-mode',
  maxConcurrentDownloads: 'max-concurrent-downloads',
  maxConcurrentUploads: 'max-concurrent-uploads',
  maxDownloadAttempts: 'max-download-attempts',
} as const satisfies Partial<Record<keyof DaemonOptions, string>>

/** Attributes of dockerd's event for settings that have no effect here. */
const WITHOUT_EFFECT = {
  'allow-nondistributable-artifacts': '[]',
  'cluster-advertise': '',
  'cluster-store': '',
  'cluster-store-opts': '{}',
  features: 'map[]',
}

export interface Reload {
  /** The running configuration with what may change taken from the new one. */
  readonly options: DaemonOptions
  /** dockerd's names of what changed. */
  readonly changed: readonly string[]
  /** Members that differ and need a restart. */
  readonly needRestart: readonly string[]
  /** All reloadable settings as they are now: the attributes of the event. */
  readonly attributes: Readonly<Record<string, string>>
}

const text = (v: unknown): string => (typeof v === 'object' ? JSON.stringify(v) : String(v))

/** Pure. */
export function planReload(now: DaemonOptions, next: DaemonOptions): Reload {
  const options = { ...now }
  const changed: string[] = []
  const needRestart: string[] = []
  const attributes: Record<string, string> = { ...WITHOUT_EFFECT }
  for (const key of Object.keys(now) as (keyof DaemonOptions)[]) {
    if (key === 'warnings' || key === 'refused') continue
    const name = (RELOADABLE as Partial<Record<keyof DaemonOptions, string>>)[key]
    const differs = text(now[key]) !== text(next[key])
    if (name !== undefined) {
      attributes[name] = text(next[key])
      if (differs) {
        Object.assign(options, { [key]: next[key] })
        changed.push(name)
      }
    } else if (differs) needRestart.push(key)
  }
  return { options, changed, needRestart, attributes }
}
