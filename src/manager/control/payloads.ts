import { Config, type ConfigSpec, Secret, type SecretSpec, type UpdateRequest } from '#proto'
import { conflict, newObjectId, unimplemented } from '../../common/index.js'
import type { Store } from '../store/index.js'
import { badSpec, objectNotFound, refused } from './errors.js'
import { checkSecretName } from './validate-common.js'

const MAX_BYTES = { secret: 500 * 1024, config: 1000 * 1024 } as const

type PayloadSpec = SecretSpec | ConfigSpec

/** Secrets and configs: named bytes that never change, kept as long as a service refers to them. */
export class PayloadControl {
  constructor(
    private readonly store: Store,
    private readonly kind: 'secret' | 'config',
  ) {}

  async create(spec: PayloadSpec): Promise<{ id: string; warnings: string[] }> {
    const { kind } = this
    const name = checkSecretName(spec.annotations)
    const driver = kind === 'secret' ? (spec as SecretSpec).driver : null
    // A driver brings the data when a task needs it. Without any, tasks would find an empty file.
    if (driver)
      throw unimplemented(
        'secretDriver',
        `secret driver ${driver.name}: this engine has no secret drivers; create the secret with its data`,
      )
    if (spec.data.length === 0 || spec.data.length > MAX_BYTES[kind])
      throw badSpec(`${kind} data must be larger than 0 and less than ${MAX_BYTES[kind]} bytes`)
    if (spec.templating && spec.templating.name !== 'golang')
      throw badSpec(`template driver ${spec.templating.name} is not known: use golang`)
    const id = newObjectId()
    await this.store.update((tx) => {
      if (tx.byName(kind, name)) throw conflict('nameInUse', `${kind} ${name} already exists`, { name })
      if (kind === 'secret') tx.create('secret', Secret.create({ id, spec: spec as SecretSpec }))
      else tx.create('config', Config.create({ id, spec: spec as ConfigSpec }))
    })
    return { id, warnings: [] }
  }

  async update(request: UpdateRequest): Promise<void> {
    const { kind } = this
    const spec: PayloadSpec | null = request.spec?.[kind] ?? null
    if (!spec) throw badSpec(`the update has no ${kind} spec`)
    await this.store.update((tx) => {
      const stored = tx.get(kind, request.id)
      if (!stored?.spec) throw objectNotFound(kind, request.id)
      const sameData = spec.data.length === 0 || Buffer.from(spec.data).equals(stored.spec.data)
      if (spec.annotations?.name !== stored.spec.annotations?.name || !sameData)
        throw badSpec('only updates to Labels are allowed')
      const meta = { createdAt: null, updatedAt: null, version: request.version }
      const annotations = spec.annotations
      if (kind === 'secret') {
        const secret = stored as Secret
        tx.update('secret', { ...secret, meta, spec: secret.spec && { ...secret.spec, annotations } })
      } else {
        const config = stored as Config
        tx.update('config', { ...config, meta, spec: config.spec && { ...config.spec, annotations } })
      }
    })
  }

  async remove(id: string): Promise<void> {
    const { kind } = this
    await this.store.update((tx) => {
      const stored = tx.get(kind, id)
      if (!stored) throw objectNotFound(kind, id)
      const users = (kind === 'secret' ? tx.servicesUsingSecret(id) : tx.servicesUsingConfig(id)).filter(
        (s) => !s.pendingDelete,
      )
      if (users.length > 0) {
        const names = users.map((s) => s.spec?.annotations?.name ?? s.id).join(', ')
        throw refused(
          `${kind}InUse`,
          `${kind} '${stored.spec?.annotations?.name}' is in use by the following service${users.length > 1 ? 's' : ''}: ${names}`,
          { id, services: users.map((s) => s.id) },
        )
      }
      tx.remove(kind, id)
    })
  }
}
