import { type Cluster, RootRotation } from '#proto'
import { type Clock, isKind, ShoalError, type Timer } from '../../common/index.js'
import type { Logger } from '../../common/log.js'
import type { Store } from '../store/index.js'
import { checkRoot, createRoot, crossSign, isIssuedBy, type RootKeyPair } from './certificates.js'
import { newJoinToken, rootDigest } from './token.js'

const text = (bytes: Uint8Array): string => Buffer.from(bytes).toString()
/** Between looks at nodes' certificates when no commit asks for one: signatures are checked off the commit's path. */
const LOOK_MS = 1_000

/**
 * On the leader: makes the new root that a cluster update asked for, cross-signs it with the old one, and, when every
 * node has a certificate of the new one, makes it the only one. Tokens change then, because they pin the root.
 */
export class RootRotator {
  readonly #stopWatch: () => void
  readonly #look: Timer
  #running: Promise<void> | null = null
  #again = false
  #stopped = false

  constructor(
    private readonly store: Store,
    clock: Clock,
    private readonly logger: Logger,
  ) {
    this.#stopWatch = store.onCommit((c) => {
      if (c.reset || c.events.some((e) => e.kind === 'cluster' || e.kind === 'node')) this.#again = true
    })
    this.#again = true
    this.#look = clock.every(LOOK_MS, () => this.#wake())
  }

  async stop(): Promise<void> {
    this.#stopped = true
    this.#stopWatch()
    this.#look.cancel()
    await this.#running
  }

  #wake(): void {
    if (!this.#again || this.#running || this.#stopped) return
    this.#again = false
    this.#running = this.#finish()
      .catch((e: unknown) => {
        this.#again = true
        if (!isKind(e, 'unavailable'))
          this.logger.warn('root rotation does not go on', { error: ShoalError.from(e).message })
      })
      .finally(() => {
        this.#running = null
      })
  }

  async #finish(): Promise<void> {
    const view = this.store.view()
    const rotation = view.cluster()?.rootCa?.rotation
    if (!rotation) return
    const root = text(rotation.cert)
    for (const node of view.list('node')) {
      if (this.#stopped) return
      // Pins of nodes that never got a certificate do not count.
      if (node.certificate.length > 0 && !(await isIssuedBy(text(node.certificate), root))) return
    }
    await this.store.update((tx) => {
      const cluster = tx.cluster()
      const ca = cluster?.rootCa
      if (!cluster || !ca?.rotation || text(ca.rotation.cert) !== root) return
      tx.update('cluster', {
        ...cluster,
        rootCa: {
          ...ca,
          cert: ca.rotation.cert,
          key: ca.rotation.key,
          digest: rootDigest(root),
          workerToken: newJoinToken(root),
          managerToken: newJoinToken(root),
          rotation: null,
          epoch: ca.epoch + 1,
        },
      })
    })
    this.logger.info('root rotation is complete', { digest: rootDigest(root) })
  }
}

/** Prepared before the transaction, because signing takes a turn of the event loop. */
export async function prepareRotation(
  cluster: Cluster,
  given: { readonly cert: Uint8Array; readonly key: Uint8Array },
  nowMs: number,
): Promise<RootRotation> {
  const next: RootKeyPair =
    given.cert.length > 0 ? { cert: text(given.cert), key: text(given.key) } : await createRoot(nowMs)
  checkRoot(next, nowMs)
  const ca = cluster.rootCa!
  const old = { cert: text(ca.cert), key: text(ca.key) }
  return RootRotation.create({
    cert: Buffer.from(next.cert),
    key: Buffer.from(next.key),
    crossSignedCert: Buffer.from(await crossSign(old, next.cert)),
  })
}
