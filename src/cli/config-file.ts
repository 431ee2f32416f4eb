import { mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { homedir } from 'node:os'
import { join } from 'node:path'

/** The docker command's own configuration file, shared with it: what one client logs in to, the other may use. */
export interface ConfigFile {
  auths?: Record<string, { auth?: string; identitytoken?: string }>
  currentContext?: string
  detachKeys?: string
  [other: string]: unknown
}

export const configDir = (): string => process.env.DOCKER_CONFIG ?? join(homedir(), '.docker')
const configPath = (): string => join(configDir(), 'config.json')

/** Empty when there is none; a file that is no JSON is an error worth telling. */
export function readConfig(): ConfigFile {
  let text: string
  try {
    text = readFileSync(configPath(), 'utf8')
  } catch {
    return {} // Nothing configured.
  }
  try {
    return JSON.parse(text) as ConfigFile
  } catch (e) {
    throw new Error(`loading config file: ${configPath()}: ${(e as Error).message}`)
  }
}

/** Changes the file in one step: a reader sees the old or the new text. Credentials are in it: mode 0600. */
export function changeConfig(change: (c: ConfigFile) => void): void {
  const config = readConfig()
  change(config)
  mkdirSync(configDir(), { recursive: true, mode: 0o700 })
  const fresh = `${configPath()}.${process.pid}`
  writeFileSync(fresh, `${JSON.stringify(config, null, '\t')}\n`, { mode: 0o600 })
  renameSync(fresh, configPath())
}
