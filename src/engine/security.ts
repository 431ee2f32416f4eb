import { invalid } from '../common/index.js'
import type { ContainerDefaults } from './contract.js'
import type { HostConfig } from './types.js'

export interface SecurityOptions {
  readonly noNewPrivileges: boolean
  /** "default": docker's profile; "unconfined": none; else a profile document of the user's. */
  readonly seccomp: 'default' | 'unconfined' | object
}

/** `--security-opt`. What this kernel side does not enforce (AppArmor, SELinux labels) is taken only as "off". */
export function parseSecurity(host: HostConfig, defaults: Partial<ContainerDefaults> = {}): SecurityOptions {
  let noNewPrivileges = defaults.noNewPrivileges ?? false
  let seccomp: SecurityOptions['seccomp'] = host.Privileged ? 'unconfined' : (defaults.seccomp ?? 'default')
  for (const option of host.SecurityOpt ?? []) {
    const bad = (): Error => invalid('invalidSecurityOpt', `invalid --security-opt 2: "${option}"`, { option })
    if (option === 'no-new-privileges') {
      noNewPrivileges = true
      continue
    }
    const m = /^([a-z-]+)[=:]([\s\S]*)$/.exec(option)
    if (!m) throw bad()
    const [, name, value = ''] = m
    if (name === 'no-new-privileges') {
      if (value !== 'true' && value !== 'false') throw bad()
      noNewPrivileges = value === 'true'
    } else if (name === 'seccomp') {
      if (value === 'unconfined') seccomp = 'unconfined'
      else if (value === 'builtin') seccomp = 'default'
      else
        try {
          seccomp = JSON.parse(value) as object
        } catch (cause) {
          throw invalid('invalidSeccomp', `Decoding seccomp profile failed: ${(cause as Error).message}`, {}, { cause })
        }
    } else if (name === 'apparmor') {
      if (value !== 'unconfined' && value !== '')
        throw invalid('noAppArmor', `apparmor profile "${value}" cannot be used: AppArmor is not enabled on this host`)
    } else if (name === 'label') {
      if (value !== 'disable')
        throw invalid('noSelinux', `label "${value}" cannot be used: SELinux is not enabled on this host`)
    } else if (name === 'systempaths') {
      if (value !== 'unconfined') throw bad()
    } else if (name !== 'writable-cgroups') throw bad()
  }
  return { noNewPrivileges, seccomp }
}
