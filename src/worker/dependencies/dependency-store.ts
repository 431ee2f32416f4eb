import type { Config, Secret, Task } from '#proto'
import type { Dependencies } from '../contract.js'

/** Secrets and configs that managers gave this node, in memory only; they are gone with the process. */
export class DependencyStore implements Dependencies {
  readonly #secrets = new Map<string, Secret>()
  readonly #configs = new Map<string, Config>()
  #isComplete = false

  secret(id: string): Secret | null {
    return this.#secrets.get(id) ?? null
  }

  config(id: string): Config | null {
    return this.#configs.get(id) ?? null
  }

  putSecret(secret: Secret): void {
    this.#secrets.set(secret.id, secret)
  }

  putConfig(config: Config): void {
    this.#configs.set(config.id, config)
  }

  removeSecret(id: string): void {
    this.#secrets.delete(id)
  }

  removeConfig(id: string): void {
    this.#configs.delete(id)
  }

  /** A full assignment replaces everything. */
  retain(secretIds: ReadonlySet<string>, configIds: ReadonlySet<string>): void {
    for (const id of [...this.#secrets.keys()]) if (!secretIds.has(id)) this.#secrets.delete(id)
    for (const id of [...this.#configs.keys()]) if (!configIds.has(id)) this.#configs.delete(id)
    this.#isComplete = true
  }

  /**
   * All that the task refers to is here, credentials for its image too. Once a manager has given the whole set, what is missing does not come any more: the
   * task goes on then, and its container's creation fails with the name of what is missing.
   */
  isReadyFor(task: Task): boolean {
    if (this.#isComplete) return true
    const container = task.spec?.container
    // Read from disk, where the registry's credentials are not kept.
    if (container?.pullOptions?.registryAuth === '') return false
    return (
      (container?.secrets ?? []).every((s) => this.#secrets.has(s.secretId)) &&
      (container?.configs ?? []).every((c) => this.#configs.has(c.configId))
    )
  }
}
