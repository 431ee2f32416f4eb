import type { Container } from './container.js'
import type { EngineContext } from './context.js'
import { checkJoined, mountsOfOthers } from './create.js'
import { wantedMounts } from './mount-spec.js'
import { wantedEndpoints } from './network.js'
import type { MountRecord } from './record.js'
import { parseSecurity } from './security.js'
import type { HostConfig } from './types.js'
import { UndoList } from './undo.js'
import { checkConfig, withDefaults } from './validate.js'
import { populateVolumes, removeAnonymousVolumes, resolveMounts } from './volumes.js'

/**
 * Another host configuration for a container that does not run, as clients of before API 1.24 give it with the start. Volumes
 * without a name stay where they are still wanted; of others the container has no more use.
 */
export async function configureContainer(ctx: EngineContext, container: Container, given: HostConfig): Promise<void> {
  await container.locked(async () => {
    const { record, id } = container
    if (record.status !== 'created' && record.status !== 'exited') return
    // dockerd fills these in at such a start, and clients look for it.
    const dns = { Dns: given.Dns ?? [], DnsOptions: given.DnsOptions ?? [], DnsSearch: given.DnsSearch ?? [] }
    const host = withDefaults({ ...given, ...dns }, ctx.options, ctx.facts.cgroupVersion)
    checkConfig(record.config, host, ctx.options, {})
    parseSecurity(host)
    const endpoints =
      host.NetworkMode === record.networkMode
        ? record.endpoints
        : wantedEndpoints(ctx, id, record.config, host, undefined)
    checkJoined(ctx, host)
    const wanted = wantedMounts(record.config, host, mountsOfOthers(ctx, host))
    const kept = new Map(record.mounts.filter((m) => m.isAnonymous).map((m) => [m.destination, m]))
    const isKept = (m: { readonly type: string; readonly source: string; readonly destination: string }): boolean =>
      m.type === 'volume' && m.source === '' && kept.has(m.destination)
    const undo = new UndoList(ctx.logger, { containerId: id })
    const before = record.mounts
    try {
      const { mounts, toPopulate } = await resolveMounts(
        ctx,
        id,
        wanted.filter((m) => !isKept(m)),
        undo,
      )
      await populateVolumes(ctx, id, toPopulate)
      const stay = wanted.filter(isKept).map((m): MountRecord => kept.get(m.destination)!)
      const next = { hostConfig: host, networkMode: host.NetworkMode!, endpoints, mounts: [...mounts, ...stay] }
      await ctx.store.put({ ...record, ...next })
      Object.assign(record, next)
      ctx.registry.unclaim(id)
    } catch (caught) {
      ctx.registry.unclaim(id)
      await undo.run()
      throw caught
    }
    const names = new Set(record.mounts.map((m) => m.name))
    await removeAnonymousVolumes(
      ctx,
      container,
      before.filter((m) => !names.has(m.name)),
    )
  })
}
