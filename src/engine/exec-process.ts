import { containerUser } from './account-files.js'
import type { Container } from './container.js'
import type { EngineContext } from './context.js'
import type { ExecConfig } from './contract.js'
import { linkEnvironment } from './links.js'
import { hostnameOf } from './network.js'
import { parseSecurity } from './security.js'
import { effectiveCapabilities } from './spec/capabilities.js'
import { mergeEnvironment, processEnvironment } from './spec/environment.js'
import { processDocument, rlimits } from './spec/index.js'

/** The OCI process object of a command run in a live container: the container's settings under the command's own. */
export async function execProcess(
  ctx: EngineContext,
  container: Container,
  exec: Pick<ExecConfig, 'cmd' | 'env' | 'user' | 'workingDir' | 'tty' | 'privileged'>,
): Promise<Record<string, unknown>> {
  const { config, hostConfig } = container.record
  const user = await containerUser(ctx, container, exec.user || config.User || '')
  const containerEnv = processEnvironment({
    hostname: hostnameOf(container.id, config),
    tty: exec.tty,
    links: linkEnvironment(ctx, container),
    env: config.Env ?? [],
    home: user.home,
  })
  return processDocument({
    tty: exec.tty,
    user,
    args: exec.cmd,
    env: mergeEnvironment(containerEnv, exec.env),
    cwd: exec.workingDir || config.WorkingDir || '/',
    capabilities: effectiveCapabilities({
      add: hostConfig.CapAdd ?? [],
      drop: hostConfig.CapDrop ?? [],
      privileged: exec.privileged || hostConfig.Privileged === true,
      bounding: ctx.facts.boundingCapabilities,
    }),
    noNewPrivileges: parseSecurity(hostConfig, ctx.options.defaults).noNewPrivileges,
    rlimits: rlimits(hostConfig, ctx.options.defaultUlimits),
    oomScoreAdj: hostConfig.OomScoreAdj ?? 0,
  })
}
