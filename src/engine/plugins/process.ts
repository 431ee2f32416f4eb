import { mkdir, rm } from 'node:fs/promises'
import { connect } from 'node:net'
import { join, posix } from 'node:path'
import { type Clock, internal, unimplemented } from '../../common/index.js'
import type { Logger } from '../../common/log.js'
import { type ContainerRuntime, isExitRecord, type LiveContainer } from '../../runtime/index.js'
import type { HostMounts } from '../context.js'
import { deviceNumber, type HostFacts, hostDevices, mappedDevices } from '../host.js'
import { resolveInRoot } from '../in-root.js'
import { effectiveCapabilities } from '../spec/capabilities.js'
import { generateSpec, type NamespaceSource } from '../spec/index.js'
import type { SpecMount } from '../spec/mounts.js'
import { checkRunnable, type PluginConfig, type PluginMount, type PluginSettings } from './config.js'

/** mount(2) */
const MS_BIND = 4096
const MS_REC = 16384
const MS_SHARED = 1 << 20
/** umount2(2) */
const MNT_DETACH = 2

/** What dockerd would call, and this engine does not: a plugin that is never asked must not look as if it worked. */
const UNSERVED = /^docker\.(graphdriver|ipamdriver|logdriver|metricscollector|networkdriver|secretprovider)\//

const SOCKET_LOOK_MS = 20
const STOP_MS = 10_000
const LOG_BYTES = 1024 * 1024

export interface PluginProcessOptions {
  readonly execRoot: string
  readonly cgroupParent: string
  /** Path of the default runtime when one was set, which runs plugins too. */
  readonly runtime: () => Promise<string | null>
}

export interface PluginProcessModules {
  readonly clock: Clock
  readonly logger: Logger
  readonly runtime: ContainerRuntime
  readonly mounts: HostMounts
  readonly facts: HostFacts
}

/** What is needed to run one. */
export interface PluginToRun {
  readonly id: string
  readonly name: string
  /** Its directory in the data root. */
  readonly dir: string
  readonly rootfs: string
  readonly config: PluginConfig
  readonly settings: PluginSettings
}

/** Plugins as containers: their documents, directories that both sides see, start and stop. */
export class PluginProcesses {
  constructor(
    private readonly options: PluginProcessOptions,
    private readonly m: PluginProcessModules,
  ) {}

  /** Shorter than the id: a unix socket's path has 108 bytes. */
  socketDir(id: string): string {
    return join(this.options.execRoot, 'plugins', id.slice(0, 16))
  }

  socket(p: PluginToRun): string {
    return join(this.socketDir(p.id), p.config.Interface.Socket)
  }

  propagated(p: PluginToRun): string {
    return join(p.dir, 'propagated-mount')
  }

  /** A path that the plugin answers with, on the host. Links are followed as the plugin sees them, never out of its tree. */
  hostPath(p: PluginToRun, path: string): Promise<string> {
    const inside = p.config.PropagatedMount.replace(/\/+$/, '')
    const clean = posix.normalize(`/${path}`)
    if (inside !== '' && (clean === inside || clean.startsWith(`${inside}/`)))
      return resolveInRoot(this.propagated(p), clean.slice(inside.length) || '/')
    return resolveInRoot(p.rootfs, clean)
  }

  /** Runs it and waits until it answers on its socket; nothing is left when it does not. */
  async launch(p: PluginToRun, timeoutMs: number): Promise<LiveContainer> {
    const spec = await this.#document(p)
    try {
      await rm(this.socketDir(p.id), { recursive: true, force: true })
      await mkdir(this.socketDir(p.id), { recursive: true, mode: 0o700 })
      await this.#openPropagated(p)
      const live = await this.m.runtime.create({
        id: p.id,
        spec,
        rootfs: null,
        tty: false,
        stdin: false,
        stdinOnce: false,
        log: {
          driver: 'json-file',
          path: join(p.dir, 'plugin.log'),
          maxSizeBytes: LOG_BYTES,
          maxFiles: 2,
          mode: 'blocking',
          bufferBytes: LOG_BYTES,
          extra: null,
        },
        cgroup: this.#cgroup(p),
        seccomp: null,
        initPath: null,
        runtime: await this.options.runtime(),
      })
      await live.start()
      await this.#untilAnswers(p, live, timeoutMs)
      return live
    } catch (caught) {
      await this.remove(p)
      throw caught
    }
  }

  async adopt(p: PluginToRun): Promise<LiveContainer | null> {
    const found = await this.m.runtime.adopt(p.id)
    return found === null || isExitRecord(found) ? null : found
  }

  /** SIGTERM, and SIGKILL for one that does not go. */
  async stop(p: PluginToRun, live: LiveContainer): Promise<void> {
    const ended = live.exited
    await live.signal(15).catch(() => {}) // it has just ended
    const late = new AbortController()
    const isGone = await Promise.race([
      ended.then(() => true),
      this.m.clock.sleep(STOP_MS, late.signal).then(
        () => false,
        () => true,
      ),
    ])
    late.abort()
    if (!isGone) this.m.logger.warn('a plugin does not end by SIGTERM and is killed', { plugin: p.name })
    await this.remove(p)
  }

  /** Kills what lives and takes everything away that a run has made. */
  async remove(p: Pick<PluginToRun, 'id' | 'dir'>): Promise<void> {
    await this.m.runtime.delete(p.id)
    await rm(this.socketDir(p.id), { recursive: true, force: true })
    // With everything that the plugin mounted below; a busy one is detached, and goes with its last user.
    await this.m.mounts.umount(join(p.dir, 'propagated-mount'), MNT_DETACH).catch((caught: unknown) => {
      // Nothing is mounted there.
      if (!['EINVAL', 'ENOENT'].includes((caught as NodeJS.ErrnoException).code ?? '')) throw caught
    })
  }

  /** A mount of its own that passes on what is mounted below it, so that the host sees what the plugin mounts. */
  async #openPropagated(p: PluginToRun): Promise<void> {
    if (p.config.PropagatedMount === '') return
    const path = this.propagated(p)
    await mkdir(path, { recursive: true, mode: 0o755 })
    await this.m.mounts.mount({ source: path, target: path, type: '', flags: MS_BIND | MS_REC, data: '' })
    await this.m.mounts.mount({ source: '', target: path, type: '', flags: MS_SHARED | MS_REC, data: '' })
  }

  #cgroup(p: PluginToRun): string {
    return join('/', this.options.cgroupParent, `plugin-${p.id.slice(0, 16)}`)
  }

  async #document(p: PluginToRun): Promise<Record<string, unknown>> {
    const { config, settings } = p
    checkRunnable(config)
    for (const type of config.Interface.Types)
      if (UNSERVED.test(type))
        throw unimplemented('pluginType', `plugin ${p.name} implements ${type}, which this engine has no use for`, {
          type,
        })
    const devices = config.Linux.AllowAllDevices
      ? await hostDevices()
      : (
          await Promise.all(
            settings.Devices.filter((d) => d.Path).map((d) =>
              mappedDevices({ PathOnHost: d.Path!, PathInContainer: d.Path!, CgroupPermissions: 'rwm' }),
            ),
          )
        ).flat()
    const bind = (source: string, destination: string, propagation = 'rprivate', rw = true): SpecMount => ({
      type: 'bind',
      source,
      destination,
      rw,
      propagation,
      recursive: true,
      options: [],
    })
    const own = (shared: boolean): NamespaceSource => (shared ? 'host' : 'private')
    const [program, ...args] = config.Entrypoint
    const spec = generateSpec({
      id: p.id,
      config: { Env: [...settings.Env], WorkingDir: config.WorkDir },
      host: {},
      path: program!,
      args: [...args, ...settings.Args],
      hostname: p.id.slice(0, 12),
      user: { uid: config.User.UID ?? 0, gid: config.User.GID ?? 0, additionalGids: [], home: '/' },
      capabilities: effectiveCapabilities({
        add: config.Linux.Capabilities ?? [],
        drop: [],
        privileged: false,
        bounding: this.m.facts.boundingCapabilities,
      }),
      noNewPrivileges: false,
      rootPath: p.rootfs,
      cgroupsPath: this.#cgroup(p),
      mounts: [
        bind(this.socketDir(p.id), '/run/docker/plugins'),
        ...(config.PropagatedMount ? [bind(this.propagated(p), config.PropagatedMount, 'rshared')] : []),
        ...(config.Network.Type === 'host'
          ? [bind('/etc/hosts', '/etc/hosts'), bind('/etc/resolv.conf', '/etc/resolv.conf')]
          : []),
        // One that the plugin lets be set, and that nobody has set: vieux/sshfs has its key so.
        ...settings.Mounts.filter((m) => m.Type !== 'bind' || m.Source).map(mountOf),
      ],
      files: null,
      devices,
      deviceNumber,
      namespaces: {
        network: own(config.Network.Type === 'host'),
        pid: own(config.PidHost),
        ipc: own(config.IpcHost),
        uts: 'private',
        cgroup: 'host',
      },
      links: [],
      shmSource: config.IpcHost ? '/dev/shm' : null,
      hostHasMqueue: this.m.facts.hasMqueue,
      defaultUlimits: [],
    })
    if (config.Linux.AllowAllDevices) {
      const linux = spec.linux as { resources: Record<string, unknown> }
      linux.resources.devices = [{ allow: true, access: 'rwm' }]
    }
    return spec
  }

  async #untilAnswers(p: PluginToRun, live: LiveContainer, timeoutMs: number): Promise<void> {
    const deadline = this.m.clock.monotonic() + timeoutMs
    let ended: { readonly exitCode: number } | null = null
    void live.exited.then((exit) => {
      ended = exit
    })
    for (;;) {
      if (await answers(this.socket(p))) return
      const said = `its output is in ${join(p.dir, 'plugin.log')}`
      if (ended)
        throw internal(
          'pluginEnded',
          `plugin ${p.name} ended with status ${(ended as { exitCode: number }).exitCode} before it answered on its socket; ${said}`,
        )
      if (this.m.clock.monotonic() > deadline)
        throw internal(
          'pluginSilent',
          `plugin ${p.name} does not answer on ${p.config.Interface.Socket} within ${Math.round(timeoutMs / 1000)} s; ${said}`,
        )
      await this.m.clock.sleep(SOCKET_LOOK_MS)
    }
  }
}

function mountOf(m: PluginMount): SpecMount {
  const options = m.Options ?? []
  const propagation = options.find((o) => /^r?(shared|slave|private)$/.test(o))
  return {
    type: m.Type === 'tmpfs' ? 'tmpfs' : 'bind',
    source: m.Type === 'tmpfs' ? '' : m.Source!,
    destination: m.Destination,
    rw: !options.includes('ro'),
    propagation: m.Type === 'tmpfs' ? '' : (propagation ?? 'rprivate'),
    recursive: !options.includes('bind'),
    options: m.Type === 'tmpfs' ? options : [],
  }
}

const answers = (path: string): Promise<boolean> =>
  new Promise((resolve) => {
    const s = connect(path)
    s.once('connect', () => {
      s.destroy()
      resolve(true)
    })
    s.once('error', () => resolve(false))
  })
