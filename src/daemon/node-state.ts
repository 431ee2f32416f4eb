import { X509Certificate } from 'node:crypto'
import { rename } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { ShoalError } from '../common/index.js'
import { type NodeIdentity, sealNodeKey } from '../manager/index.js'
import { readIfPresent, removeTree, syncDirectory, writeDurable } from './durable.js'

/** What a node remembers of its place in a swarm: <data-root>/swarm/. */
export interface NodeState {
  readonly listenAddress: string
  readonly advertiseAddress: string
  readonly dataPathAddress: string
  /** Managers that sessions told of, best first. */
  readonly remoteManagers: readonly { readonly nodeId: string; readonly address: string }[]
  readonly autolock: boolean
}

const FILES = {
  state: 'node.json',
  cert: 'certificates/swarm-node.crt',
  key: 'certificates/swarm-node.key',
  ca: 'certificates/swarm-root-ca.crt',
}

/**
 * On a locked manager the node's private key is sealed (manager/keys): then `load` gives it so, and `opened` tells what is in it.
 */
export class NodeStateStore {
  /** In clear; null: not known. */
  #key: string | null = null
  #secret: Uint8Array | null = null
  /** Writers of the key take turns. */
  #writing: Promise<unknown> = Promise.resolve()

  constructor(readonly dir: string) {}

  /** What was sealed stays sealed when it is written next. */
  opened(key: string, secret: Uint8Array | null): void {
    this.#key = key
    this.#secret = secret
  }

  /** The key lies sealed from now on; null: in clear. */
  sealWith(secret: Uint8Array | null): Promise<void> {
    return this.#inTurn(async () => {
      if (isSame(secret, this.#secret)) return
      this.#secret = secret
      if (this.#key !== null) await this.#writeKey(this.#key)
    })
  }

  async load(): Promise<{ readonly state: NodeState; readonly identity: NodeIdentity } | null> {
    const text = await readIfPresent(join(this.dir, FILES.state))
    if (text === null) return null
    const [cert, key, ca] = await Promise.all(
      [FILES.cert, FILES.key, FILES.ca].map((f) => readIfPresent(join(this.dir, f))),
    )
    if (!cert || !key || !ca) {
      throw new ShoalError(
        'internal',
        'swarmStateIncomplete',
        `${this.dir} lacks this node's certificate, key or root; restore it from a backup, or remove the directory and join again`,
      )
    }
    return { state: JSON.parse(text) as NodeState, identity: identityOf(cert, key, ca) }
  }

  /** The state file is written last: a crash before leaves no half-joined node. */
  async save(state: NodeState, identity: NodeIdentity): Promise<void> {
    await this.saveIdentity(identity)
    await this.saveState(state)
  }

  /** `identity.key` in clear. */
  saveIdentity(identity: NodeIdentity): Promise<void> {
    return this.#inTurn(async () => {
      await writeDurable(join(this.dir, FILES.ca), identity.ca, 0o644)
      await this.#writeKey(identity.key)
      this.#key = identity.key
      await writeDurable(join(this.dir, FILES.cert), identity.cert, 0o644)
    })
  }

  #writeKey(key: string): Promise<void> {
    return writeDurable(join(this.dir, FILES.key), this.#secret === null ? key : sealNodeKey(key, this.#secret))
  }

  #inTurn(fn: () => Promise<void>): Promise<void> {
    const run = this.#writing.then(fn, fn)
    this.#writing = run.catch(() => {})
    return run
  }

  saveState(state: NodeState): Promise<void> {
    return writeDurable(join(this.dir, FILES.state), JSON.stringify(state, null, 1))
  }

  /**
   * Takes the place of this store with all that is in it, at one instant: `other` was saved whole, and whoever finds it
   * beside an empty place puts it there (`takeStaged`).
   */
  async replaceBy(other: NodeStateStore): Promise<void> {
    await this.wipe()
    await rename(other.dir, this.dir)
    await syncDirectory(dirname(this.dir))
  }

  /** What a restore that was broken off has left: it is finished where it had come to its end, else forgotten. */
  async takeStaged(staged: NodeStateStore): Promise<void> {
    const [own, other] = await Promise.all([this.dir, staged.dir].map((dir) => readIfPresent(join(dir, FILES.state))))
    if (own === null && other !== null) await this.replaceBy(staged)
    else await removeTree(staged.dir)
  }

  /** The state file goes first: a crash in between leaves a node that has left. */
  async wipe(): Promise<void> {
    this.#key = null
    this.#secret = null
    await removeTree(this.dir, FILES.state)
    await removeTree(this.dir)
  }
}

const isSame = (a: Uint8Array | null, b: Uint8Array | null): boolean =>
  a === b || (a !== null && b !== null && Buffer.compare(a, b) === 0)

/** What a PEM certificate says of its node. */
export function identityOf(cert: string, key: string, ca: string): NodeIdentity {
  const x = new X509Certificate(cert)
  const part = (name: string): string => new RegExp(`^${name}=(.*)$`, 'm').exec(x.subject)?.[1] ?? ''
  return {
    cert,
    key,
    ca,
    nodeId: part('CN'),
    clusterId: part('O'),
    role: part('OU') === 'swarm-manager' ? 'manager' : 'worker',
    expiresAtMs: Date.parse(x.validTo),
  }
}

export const validFromMs = (cert: string): number => Date.parse(new X509Certificate(cert).validFrom)
