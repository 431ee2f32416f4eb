import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { defaultSeccompProfile, type LiveContainer } from '../runtime/index.js'
import { containerUser } from './account-files.js'
import type { Container } from './container.js'
import type { EngineContext } from './context.js'
import { deviceNumber, hostDevices, mappedDevices } from './host.js'
import { linkEnvironment, refreshLinks } from './links.js'
import { shimLog } from './logs/drivers.js'
import { disconnectNetworks, hostnameOf, joinNetworks, openSandbox, runningContainer } from './network.js'
import { runtimeProgram } from './other-runtime.js'
import { sharedWith } from './record.js'
import { parseSecurity } from './security.js'
import { releaseShm, shmSource } from './shared-memory.js'
import { effectiveCapabilities } from './spec/capabilities.js'
import { generateSpec, type NamespaceSource, type SpecDevice } from './spec/index.js'
import { UndoList } from './undo.js'
import { mountAll, unmountAll } from './volumes.js'

/**
 * Makes everything a container needs and runs its process: volumes, networks, filter, document, shim, waiting clients,
 * start. Whatever fails, what came before is undone. The lock is held.
 */
export async function launch(ctx: EngineContext, container: Container): Promise<LiveContainer> {
  const { record } = container
  const undo = new UndoList(ctx.logger, { containerId: container.id })
  const { config, hostConfig } = record
  const security = parseSecurity(hostConfig, ctx.options.defaults)
  const capabilities = effectiveCapabilities({
    add: hostConfig.CapAdd ?? [],
    drop: hostConfig.CapDrop ?? [],
    privileged: hostConfig.Privileged === true,
    bounding: ctx.facts.boundingCapabilities,
  })
  try {
    undo.add('volumes', () => unmountAll(ctx, container))
    undo.add('shared memory', () => releaseShm(ctx, container))
    undo.add('networks', () => disconnectNetworks(ctx, container))
    // None of these needs another. All are waited for, also after one failed, so that undoing finds them at rest.
    const [mounts, sandbox, seccomp, user, devices, shm, log] = await allSettled([
      mountAll(ctx, container),
      openSandbox(ctx, container),
      ctx.seccomp.filter(security.seccomp, capabilities),
      containerUser(ctx, container, config.User ?? ''),
      containerDevices(container),
      shmSource(ctx, container),
      shimLog(container, ctx.options.nativeDir),
    ])
    const namespaces = {
      network: (sandbox.netnsPath ? { path: sandbox.netnsPath } : 'host') as NamespaceSource,
      pid: namespaceOf(ctx, hostConfig.PidMode, 'pid'),
      ipc: namespaceOf(ctx, hostConfig.IpcMode, 'ipc'),
      uts: (hostConfig.UTSMode === 'host' ? 'host' : 'private') as NamespaceSource,
      cgroup: (hostConfig.CgroupnsMode === 'private' ? 'private' : 'host') as NamespaceSource,
    }
    const share = sharedWith(record.networkMode)
    const filesDir = share === null ? container.dir : ctx.registry.find(share).dir
    const cgroup = cgroupPath(ctx, container)
    const rootPath = join(ctx.options.execRoot, 'rootfs')
    const spec = generateSpec({
      id: container.id,
      config,
      host: hostConfig,
      path: record.path,
      args: record.args,
      hostname: hostnameOf(container.id, config),
      links: linkEnvironment(ctx, container),
      user,
      capabilities,
      noNewPrivileges: security.noNewPrivileges,
      rootPath,
      cgroupsPath: cgroup,
      mounts,
      files: {
        hosts: join(filesDir, 'hosts'),
        hostname: join(filesDir, 'hostname'),
        resolvConf: join(filesDir, 'resolv.conf'),
      },
      devices,
      deviceNumber,
      namespaces,
      shmSource: shm,
      hostHasMqueue: ctx.facts.hasMqueue,
      defaultUlimits: ctx.options.defaultUlimits,
    })
    const runtime = await runtimeProgram(hostConfig.Runtime || ctx.options.defaultRuntime, ctx.options)
    // Another runtime cannot take a compiled filter: it gets the profile, and the shim answers Docker's conditions in it.
    if (runtime && security.seccomp !== 'unconfined') {
      const linux = spec['linux'] as Record<string, unknown>
      linux['seccomp'] = security.seccomp === 'default' ? defaultSeccompProfile(capabilities) : security.seccomp
    }
    undo.add('shim', () => ctx.runtime.delete(container.id))
    // The shim needs the namespace, not yet what is in it.
    const [live, joined] = await allSettled([
      ctx.runtime.create({
        id: container.id,
        spec,
        rootfs: container.rootfs,
        tty: config.Tty === true,
        stdin: config.OpenStdin === true,
        stdinOnce: config.StdinOnce === true,
        log,
        cgroup,
        seccomp,
        initPath: (hostConfig.Init ?? ctx.options.init) ? join(ctx.options.nativeDir, 'shoal-init') : null,
        runtime,
      }),
      joinNetworks(ctx, container),
    ])
    container.sandbox = joined
    await refreshLinks(
      ctx,
      ctx.registry.all().filter((c) => c !== container && c.record.hostConfig.Links?.length),
    )
    const [height = 0, width = 0] = hostConfig.ConsoleSize ?? []
    if (config.Tty && height > 0 && width > 0) await live.resize(width, height)
    await connectPending(container, live)
    await live.start()
    return live
  } catch (caught) {
    await undo.run()
    throw caught
  }
}

/** Clients that attached before there was a process; others may come meanwhile. */
export async function connectPending(container: Container, live: LiveContainer): Promise<void> {
  while (container.pendingAttachments.size > 0) {
    const waiting = [...container.pendingAttachments]
    container.pendingAttachments.clear()
    await Promise.all(waiting.map((p) => p.connect(live)))
  }
}

async function allSettled<T extends readonly unknown[]>(
  promises: {
    readonly [K in keyof T]: Promise<T[K]>
  },
): Promise<T> {
  const results = await Promise.allSettled(promises)
  for (const result of results) if (result.status === 'rejected') throw result.reason
  return results.map((r) => (r as PromiseFulfilledResult<unknown>).value) as unknown as T
}

async function containerDevices(container: Container): Promise<readonly SpecDevice[]> {
  const { Devices, Privileged } = container.record.hostConfig
  const mapped = Devices?.length ? (await Promise.all(Devices.map(mappedDevices))).flat() : []
  if (!Privileged) return mapped
  const own = new Set(mapped.map((d) => d.path))
  return [...(await hostDevices()).filter((d) => !own.has(d.path)), ...mapped]
}

function namespaceOf(ctx: EngineContext, mode: string | undefined, type: 'pid' | 'ipc'): NamespaceSource {
  if (mode === 'host') return 'host'
  if (!mode?.startsWith('container:')) return 'private'
  const other = runningContainer(ctx, mode.slice('container:'.length), type)
  return { path: `/proc/${other.live!.pid}/ns/${type}` }
}

/** Below each hierarchy's mount, starting with a slash. */
export function cgroupPath(ctx: EngineContext, container: Container): string {
  const parent = container.record.hostConfig.CgroupParent || ctx.options.cgroupParent
  return join('/', parent, container.id)
}

/** The directory on which every container's root is mounted, each in its own mount namespace. */
export const prepareRootDir = (execRoot: string): Promise<unknown> =>
  mkdir(join(execRoot, 'rootfs'), { recursive: true, mode: 0o755 })
