import { randomBytes as systemRandomBytes } from 'node:crypto'
import { conflict, internal, invariant, notFound, ShoalError, unavailable } from '../../common/index.js'
import type { Logger } from '../../common/log.js'
import type {
  ConfState,
  Entry,
  HardState,
  RaftId,
  Snapshot,
  SnapshotMeta,
  StorageFault,
  StorageReader,
} from '../core/index.js'
import { damaged } from './damage.js'
import type { Disk, InPlaceFile, KeyValueStore, StoreOp } from './disk.js'
import { type DataKey, derivedKey, loadDataKey, saveDataKey } from './keys.js'
import {
  encodeWitness,
  entryKey,
  HEAD_KEY,
  type Head,
  META_KEY,
  type Membership,
  type Meta,
  POINTER_KEY,
  type Pointer,
  readContent,
  readWitness,
  sealEntry,
  sealHead,
  sealMeta,
  sealPointer,
  ZERO_TAG,
} from './records.js'
import { Sealer } from './seal.js'
import { readSnapshot, type SnapshotDigest, SnapshotWriter, snapshotName } from './snapshot-file.js'
import { type LogKept, Tail } from './tail.js'

/** What a new log begins with. */
export interface LogInit {
  readonly raftId: RaftId
  readonly joined: Membership
  readonly hardState: HardState
  readonly entries: readonly Entry[]
}

export interface LogOptions {
  readonly dir: string
  /** Owner of the log; authenticated with every record, so that one member's files are no use to another. */
  readonly nodeId: string
  readonly kek: Uint8Array | null
  readonly disk: Disk
  readonly logger: Logger
  /** Null: continue from disk, an absent log is an error. Otherwise an existing log is one. */
  readonly init: LogInit | null
  /** Keys, salts and nonces. Absent: node:crypto's. */
  readonly randomBytes?: (length: number) => Uint8Array
  /** The first failed write, whoever asked for it: the last, since all later ones are refused. */
  readonly failed?: (error: unknown) => void
}

const EMPTY_CONF: ConfState = { voters: [], votersOutgoing: [], learners: [], learnersNext: [], autoLeave: false }
const NO_BYTES = new Uint8Array(0)
/** Records copied to a new directory at once when the data key changes. */
const COPY_BATCH = 1000

/** The paths and open handles that belong to one data key. */
interface Epoch {
  readonly key: DataKey
  readonly sealer: Sealer
  readonly store: KeyValueStore
  readonly storePath: string
  readonly snapshots: string
  readonly witnessPath: string
  readonly witness: InPlaceFile
}

/**
 * The member's durable log (raft.md §3–4): entries and hard state in LevelDB, snapshots as files, all sealed. Writes run
 * one after another; the first that fails is the last. Reads for the core come from memory.
 *
 * On disk: `keys.json` holds the data key and with its epoch N names the directory `eN/` that counts: `log/` (LevelDB),
 * `snap/<term>-<index>`, `witness`. Every other directory is left over from a crash and is removed at the next start.
 */
export class DurableLog implements StorageReader {
  #writing: Promise<unknown> = Promise.resolve()
  #discarding: Promise<void> = Promise.resolve()
  #failure: ShoalError | null = null
  #closed = false
  /** Files that a transfer reads, by name. */
  readonly #pinned = new Map<string, { readonly index: number; readers: number }>()
  /** Of entries that the current snapshot holds too. */
  #keptBytes = 0

  private constructor(
    private readonly options: LogOptions & { readonly randomBytes: (length: number) => Uint8Array },
    private epoch: Epoch,
    private kek: Uint8Array | null,
    private meta: Meta,
    private pointer: Pointer,
    private head: Head,
    private readonly tail: Tail,
  ) {
    this.#keptBytes = tail.bytes - tail.bytesAfter(pointer.index)
  }

  /** Verifies everything but the snapshot's content, which `loadSnapshot` checks as it reads. */
  static async open(given: LogOptions): Promise<DurableLog> {
    const options = { ...given, randomBytes: given.randomBytes ?? systemRandomBytes }
    const { dir, disk, init } = options
    const keysPath = `${dir}/keys.json`
    await disk.makeDirectory(dir)
    let key = await loadDataKey(disk, keysPath, options.kek)
    const epochs = (await disk.list(dir)).filter((name) => /^e\d+$/.test(name))
    if (key === null) {
      if (epochs.length > 0) throw damaged(keysPath, 'the data key', `is missing beside ${epochs.join(', ')}`)
      if (init === null)
        throw notFound('noRaftState', `no raft state in ${dir}: this node has not been a manager, or its state is gone`)
      key = { epoch: 1, dek: options.randomBytes(32) }
      await saveDataKey(disk, keysPath, key, options.kek, options.randomBytes)
    }
    for (const name of epochs) if (name !== `e${key.epoch}`) await disk.remove(`${dir}/${name}`)
    const epoch = await openEpoch(options, key)
    try {
      const log = await DurableLog.#load(options, epoch)
      await log.#removeStrays(true)
      return log
    } catch (e) {
      await closeEpoch(epoch)
      throw e
    }
  }

  static async #load(options: DurableLog['options'], epoch: Epoch): Promise<DurableLog> {
    const { disk, init } = options
    const records: (readonly [Uint8Array, Uint8Array])[] = []
    try {
      for await (const r of epoch.store.records()) records.push(r)
    } catch (e) {
      throw damaged(
        epoch.storePath,
        `what follows record ${records.length}`,
        `cannot be read: ${(e as Error).message}`,
        e,
      )
    }
    const content = readContent(epoch.storePath, epoch.sealer, records)
    const witness = readWitness(epoch.witnessPath, epoch.sealer, await disk.readFile(epoch.witnessPath))
    if (content === null) {
      if (witness !== null) throw damaged(epoch.storePath, 'every record', `of ${witness.sequence} batches is missing`)
      if (init === null) throw notFound('noRaftState', `the raft state in ${options.dir} was never written to`)
      return DurableLog.#create(options, epoch, init)
    }
    if (init !== null)
      throw conflict(
        'raftStateExists',
        `${options.dir} already holds the log of member ${content.meta.raftId}; remove it first`,
      )
    const { meta, pointer, head, tail } = content
    // A batch that no one was told of may be missing (a torn write); an acknowledged one may not.
    if (witness !== null && head.sequence < witness.sequence)
      throw damaged(epoch.storePath, `batch ${witness.sequence}`, `is missing: the last one found is ${head.sequence}`)
    if (witness !== null && head.sequence === witness.sequence && !witness.tag.equals(Buffer.from(head.lastTag)))
      throw damaged(epoch.storePath, `batch ${head.sequence}`, 'is not the one that was acknowledged')
    if (meta.nodeId !== options.nodeId)
      throw conflict('foreignRaftState', `${options.dir} is the log of node ${meta.nodeId}, not ${options.nodeId}`)
    const log = new DurableLog(options, epoch, options.kek, meta, pointer, head, tail)
    const next = { ...meta, boots: meta.boots + 1 }
    await log.#exclusive(async () => {
      await log.#commit([{ type: 'put', key: META_KEY, value: sealMeta(epoch.sealer, next) }], {})
      log.meta = next
    })
    return log
  }

  static async #create(options: DurableLog['options'], epoch: Epoch, init: LogInit): Promise<DurableLog> {
    const meta: Meta = { nodeId: options.nodeId, raftId: init.raftId, boots: 1, joined: init.joined }
    const anchor = Buffer.from(options.randomBytes(ZERO_TAG.length))
    const pointer: Pointer = {
      index: 0,
      term: 0,
      confState: EMPTY_CONF,
      membership: { members: [], removed: [] },
      size: 0,
      sha256: '',
      compactedIndex: 0,
      compactedTerm: 0,
      anchor: anchor.toString('hex'),
    }
    const head: Head = { hardState: init.hardState, lastIndex: 0, lastTag: anchor, sequence: 0, snapshotIndex: 0 }
    const log = new DurableLog(options, epoch, options.kek, meta, pointer, head, new Tail(0, 0, anchor))
    const first: StoreOp[] = [
      { type: 'put', key: META_KEY, value: sealMeta(epoch.sealer, meta) },
      { type: 'put', key: POINTER_KEY, value: sealPointer(epoch.sealer, pointer) },
    ]
    await log.#exclusive(() => log.#append(init.entries, init.hardState, first))
    return log
  }

  get raftId(): RaftId {
    return this.meta.raftId
  }
  get boots(): number {
    return this.meta.boots
  }
  get joined(): Membership {
    return this.meta.joined
  }
  /** Of the current snapshot. */
  get membership(): Membership {
    return this.pointer.membership
  }
  get snapshotIndex(): number {
    return this.pointer.index
  }
  get hardState(): HardState {
    return this.head.hardState
  }
  /** Bytes of entry data that are not in the current snapshot. */
  get bytesSinceSnapshot(): number {
    return this.tail.bytes - this.#keptBytes
  }
  get failure(): ShoalError | null {
    return this.#failure
  }

  // ------------------------------------------------------------ what the core reads

  initialState(): { hardState: HardState; confState: ConfState } {
    return { hardState: this.head.hardState, confState: this.pointer.confState }
  }
  firstIndex(): number {
    return this.tail.firstIndex
  }
  lastIndex(): number {
    return this.tail.lastIndex
  }
  term(index: number): number | StorageFault {
    return this.tail.term(index)
  }
  entries(lo: number, hi: number, maxBytes: number): readonly Entry[] | StorageFault {
    return this.tail.slice(lo, hi, maxBytes)
  }
  snapshot(): Snapshot | StorageFault {
    const { index, term, confState } = this.pointer
    return index === 0 ? 'snapshotTemporarilyUnavailable' : { index, term, confState, data: NO_BYTES }
  }

  // ------------------------------------------------------------ writes

  /** Durable once it resolves: entries (replacing any conflicting tail) and hard state in one batch. */
  append(entries: readonly Entry[], hardState: HardState | null): Promise<void> {
    return this.#exclusive(() => this.#append(entries, hardState, []))
  }

  async #append(entries: readonly Entry[], hardState: HardState | null, more: readonly StoreOp[]): Promise<void> {
    const { sealer } = this.epoch
    const ops: StoreOp[] = [...more]
    let lastIndex = this.tail.lastIndex
    let chain = this.tail.tag(lastIndex)
    const tags: Uint8Array[] = []
    if (entries.length > 0) {
      const first = entries[0]!.index
      invariant(
        first > this.tail.compactedIndex && first <= lastIndex + 1,
        `raft log: append at ${first} does not join ${this.tail.firstIndex}–${lastIndex}`,
      )
      chain = this.tail.tag(first - 1)
      for (const e of entries) {
        const { value, tag } = sealEntry(sealer, e, chain)
        ops.push({ type: 'put', key: entryKey(e.index), value })
        tags.push(tag)
        chain = tag
      }
      const last = entries[entries.length - 1]!.index
      for (let i = last + 1; i <= lastIndex; i++) ops.push({ type: 'del', key: entryKey(i) })
      lastIndex = last
    }
    await this.#commit(ops, { hardState: hardState ?? this.head.hardState, lastIndex, lastTag: chain })
    this.tail.append(entries, tags)
  }

  /** Adds the head to the batch, writes it, and leaves the witness. */
  async #commit(ops: readonly StoreOp[], change: Partial<Head>): Promise<void> {
    const head: Head = { ...this.head, ...change, sequence: this.head.sequence + 1 }
    const { sealer, store } = this.epoch
    await store.batch([...ops, { type: 'put', key: HEAD_KEY, value: sealHead(sealer, head) }])
    this.head = head
    this.epoch.witness.write(encodeWitness(sealer, head))
  }

  // ------------------------------------------------------------ snapshots

  /**
   * Writes this member's own snapshot, makes it the current one, and drops the log before it but for `keep`, and for what
   * the receiver of an older snapshot that is still being sent will need next (within `keep.bytesWhileSent`).
   */
  async saveSnapshot(
    meta: SnapshotMeta,
    membership: Membership,
    pieces: Iterable<Uint8Array>,
    keep: LogKept & { readonly bytesWhileSent: number },
  ): Promise<void> {
    const writer = await this.createSnapshot(meta.term, meta.index)
    try {
      for (const piece of pieces) await writer.write(piece)
      await writer.commit()
    } catch (e) {
      await writer.abort()
      throw e
    }
    await this.#exclusive(async () => {
      if (writer.epoch !== this.epoch.key.epoch || meta.index <= this.pointer.index) return
      let cut = this.tail.cutBehind(meta.index, keep)
      if (this.tail.bytes <= keep.bytesWhileSent) for (const p of this.#pinned.values()) cut = Math.min(cut, p.index)
      cut = Math.max(cut, this.tail.compactedIndex)
      await this.#point(meta, membership, writer.digest(), cut)
    })
  }

  /** For a snapshot that another member sends; `receiveSnapshot` ends it, `installSnapshot` takes it into use. */
  createSnapshot(term: number, index: number): Promise<SnapshotWriter> {
    const { snapshots, sealer } = this.epoch
    return SnapshotWriter.create(this.options.disk, snapshots, sealer, term, index)
  }

  /**
   * Durable once it resolves, and from then on a new data key takes the file along. Throws `staleSnapshot` when the key
   * changed while the file was written: the sender has to send it again, the log goes on.
   */
  async receiveSnapshot(writer: SnapshotWriter): Promise<SnapshotDigest> {
    const digest = await writer.commit()
    // Asked in turn with the writes: a change of the key that runs may have looked for files before this one was there.
    if (!(await this.#exclusive(async () => writer.epoch === this.epoch.key.epoch)))
      throw unavailable('staleSnapshot', `the data key was replaced while a snapshot arrived; send it again`)
    return digest
  }

  /** Replaces the whole log by a received snapshot (raft.md §2 rule 7): pointer and hard state in one batch. */
  installSnapshot(
    meta: SnapshotMeta,
    membership: Membership,
    digest: SnapshotDigest,
    hardState: HardState | null,
  ): Promise<void> {
    return this.#exclusive(async () => {
      const { sealer } = this.epoch
      const anchor = Buffer.from(this.options.randomBytes(ZERO_TAG.length))
      const pointer: Pointer = {
        ...meta,
        membership,
        size: digest.size,
        sha256: digest.sha256,
        compactedIndex: meta.index,
        compactedTerm: meta.term,
        anchor: anchor.toString('hex'),
      }
      const ops: StoreOp[] = [{ type: 'put', key: POINTER_KEY, value: sealPointer(sealer, pointer) }]
      for (let i = this.tail.firstIndex; i <= this.tail.lastIndex; i++) ops.push({ type: 'del', key: entryKey(i) })
      const hs = hardState ?? this.head.hardState
      await this.#commit(ops, {
        // What is committed beyond comes with its entries, in the next write: a log may never end before its commit.
        hardState: { ...hs, commit: meta.index },
        lastIndex: meta.index,
        lastTag: anchor,
        snapshotIndex: meta.index,
      })
      this.pointer = pointer
      this.tail.reset(meta.index, meta.term, anchor)
      this.#keptBytes = 0
      await this.#removeStrays()
    })
  }

  async #point(meta: SnapshotMeta, membership: Membership, digest: SnapshotDigest, cut: number): Promise<void> {
    const from = this.tail.compactedIndex + 1
    const pointer: Pointer = {
      ...meta,
      membership,
      size: digest.size,
      sha256: digest.sha256,
      compactedIndex: cut,
      compactedTerm: Number(this.tail.term(cut)),
      anchor: Buffer.from(this.tail.tag(cut)).toString('hex'),
    }
    const value = sealPointer(this.epoch.sealer, pointer)
    const { commit } = this.head.hardState
    await this.#commit([{ type: 'put', key: POINTER_KEY, value }], {
      snapshotIndex: meta.index,
      hardState: { ...this.head.hardState, commit: Math.max(commit, meta.index) },
    })
    this.pointer = pointer
    this.tail.compact(cut)
    this.#keptBytes = this.tail.bytes - this.tail.bytesAfter(meta.index)
    const { store } = this.epoch
    // In the background; a crash leaves records that the next start ignores, and the next compaction deletes.
    this.#discarding = this.#discarding
      .then(() => store.discard(entryKey(Math.min(from, 1)), entryKey(cut + 1)))
      .catch((e) => {
        this.options.logger.warn('old raft entries not deleted; the next compaction tries again', { error: String(e) })
      })
    await this.#removeStrays()
  }

  /** Snapshot files that are not the current one, of earlier compactions and broken transfers. Readers keep theirs open. */
  async #removeStrays(newerToo = false): Promise<void> {
    const { snapshots } = this.epoch
    const { term, index } = this.pointer
    for (const name of await this.options.disk.list(snapshots)) {
      const m = /^(\d+)-(\d+)(\.tmp)?$/.exec(name)
      // A newer one is just being received.
      if (
        name === snapshotName(term, index) ||
        this.#pinned.has(name) ||
        (!newerToo && m !== null && Number(m[2]) > index)
      )
        continue
      await this.options.disk.remove(`${snapshots}/${name}`)
    }
  }

  /** Keeps the current snapshot's file and the log after it, whatever newer one comes, until the returned function is called. */
  pinSnapshot(): () => void {
    const { term, index } = this.pointer
    const name = snapshotName(term, index)
    const pin = this.#pinned.get(name) ?? { index, readers: 0 }
    pin.readers++
    this.#pinned.set(name, pin)
    let pinned = true
    return () => {
      if (!pinned) return
      pinned = false
      // The file itself goes with the next snapshot, or at the next start.
      if (--pin.readers === 0) this.#pinned.delete(name)
    }
  }

  /** Plain pieces of the current snapshot, with its description taken at the same moment; null when there is none. */
  currentSnapshot(): (Pointer & { readonly pieces: () => AsyncGenerator<Uint8Array> }) | null {
    const { pointer, epoch } = this
    if (pointer.index === 0) return null
    const { disk } = this.options
    return { ...pointer, pieces: () => readSnapshot(disk, epoch.snapshots, epoch.sealer, pointer.term, pointer.index) }
  }

  // ------------------------------------------------------------ keys

  /**
   * Wraps the data key anew. Turning autolock on also replaces it, because the old one lay on disk in clear: everything
   * is sealed again in a new directory, and saving the keys file is the moment that counts.
   */
  rotateKek(kek: Uint8Array | null): Promise<void> {
    return this.#exclusive(async () => {
      const { dir, disk, randomBytes } = this.options
      if (this.kek === null && kek !== null) await this.#replaceDataKey(kek)
      else await saveDataKey(disk, `${dir}/keys.json`, this.epoch.key, kek, randomBytes)
      this.kek = kek
    })
  }

  derivedKey(purpose: string): Uint8Array {
    return derivedKey(this.epoch.key.dek, purpose)
  }

  async #replaceDataKey(kek: Uint8Array): Promise<void> {
    const { dir, disk, randomBytes } = this.options
    await this.#discarding
    const old = this.epoch
    const key: DataKey = { epoch: old.key.epoch + 1, dek: randomBytes(32) }
    await disk.remove(`${dir}/e${key.epoch}`)
    const next = await openEpoch(this.options, key)
    const tags: Uint8Array[] = []
    let head = this.head
    try {
      for (const name of await disk.list(old.snapshots)) {
        const [, term, index] = (/^(\d+)-(\d+)$/.exec(name) ?? []).map(Number)
        // Newer ones are received and wait to be installed.
        if (term === undefined || index === undefined || index < Math.max(this.pointer.index, 1)) continue
        const writer = await SnapshotWriter.create(disk, next.snapshots, next.sealer, term, index)
        for await (const piece of readSnapshot(disk, old.snapshots, old.sealer, term, index)) await writer.write(piece)
        await writer.commit()
      }
      let chain = this.tail.anchor
      for (let from = this.tail.firstIndex; from <= this.tail.lastIndex; from += COPY_BATCH) {
        const ops: StoreOp[] = []
        for (let i = from; i < from + COPY_BATCH && i <= this.tail.lastIndex; i++) {
          const { value, tag } = sealEntry(next.sealer, this.tail.entry(i), chain)
          ops.push({ type: 'put', key: entryKey(i), value })
          tags.push(tag)
          chain = tag
        }
        await next.store.batch(ops)
      }
      head = { ...head, lastTag: chain, sequence: head.sequence + 1 }
      await next.store.batch([
        { type: 'put', key: META_KEY, value: sealMeta(next.sealer, this.meta) },
        { type: 'put', key: POINTER_KEY, value: sealPointer(next.sealer, this.pointer) },
        { type: 'put', key: HEAD_KEY, value: sealHead(next.sealer, head) },
      ])
      await saveDataKey(disk, `${dir}/keys.json`, key, kek, randomBytes)
    } catch (e) {
      await closeEpoch(next)
      throw e
    }
    next.witness.write(encodeWitness(next.sealer, head))
    this.epoch = next
    this.head = head
    this.tail.retag(tags)
    await closeEpoch(old)
    await disk.remove(`${dir}/e${old.key.epoch}`)
  }

  freeBytes(): Promise<number> {
    return this.options.disk.freeBytes(this.options.dir)
  }

  async close(): Promise<void> {
    if (this.#closed) return
    this.#closed = true
    // A failed write was already reported to whoever asked for it.
    await this.#writing.catch(() => {})
    await this.#discarding
    await closeEpoch(this.epoch)
  }

  /** One write at a time. A failed one is final: what LevelDB holds then is not known until it is read again. */
  #exclusive<T>(write: () => Promise<T>): Promise<T> {
    const run = async (): Promise<T> => {
      if (this.#failure !== null) throw this.#failure
      try {
        return await write()
      } catch (e) {
        this.#failure =
          e instanceof ShoalError
            ? e
            : internal(
                'logWriteFailed',
                `a write to the raft log in ${this.options.dir} failed: ${e instanceof Error ? e.message : String(e)}; this member stops`,
                {},
                { cause: e },
              )
        const told = e instanceof Error && e.name === 'InvariantError' ? e : this.#failure
        this.options.failed?.(told)
        throw told
      }
    }
    const done = this.#closed
      ? Promise.reject(unavailable('logClosed', `the raft log in ${this.options.dir} is closed`))
      : this.#writing.then(run, run)
    this.#writing = done.catch(() => {})
    return done
  }
}

async function openEpoch(options: DurableLog['options'], key: DataKey): Promise<Epoch> {
  const { dir, disk } = options
  const base = `${dir}/e${key.epoch}`
  const snapshots = `${base}/snap`
  const storePath = `${base}/log`
  await disk.makeDirectory(snapshots)
  await disk.makeDirectory(storePath)
  const sealer = new Sealer(key.dek, key.epoch, `shoal ${options.nodeId}`, options.randomBytes)
  try {
    const store = await disk.openStore(storePath)
    const witnessPath = `${base}/witness`
    const witness = await disk.openInPlace(witnessPath).catch(async (e) => {
      await store.close()
      throw internal('logOpenFailed', `raft log ${witnessPath} cannot be opened: ${String(e)}`, {}, { cause: e })
    })
    return { key, sealer, store, storePath, snapshots, witnessPath, witness }
  } catch (e) {
    if (e instanceof ShoalError) throw e
    const cause = (e as { cause?: { code?: string; message?: string } }).cause
    const why = `${cause?.message ?? (e as Error).message}`
    if (cause?.code === 'LEVEL_LOCKED')
      throw unavailable(
        'logLocked',
        `raft log ${storePath} is in use by another process; stop that one first`,
        {},
        { cause: e },
      )
    if (/No space left|Permission denied|Too many open files/.test(why))
      throw internal('logOpenFailed', `raft log ${storePath} cannot be opened: ${why}`, {}, { cause: e })
    throw damaged(storePath, 'the database', `cannot be opened: ${why}`, e)
  }
}

async function closeEpoch(epoch: Epoch): Promise<void> {
  epoch.witness.close()
  await epoch.store.close()
}

/** Reads and checks a member's whole state without changing what it says; for the offline check of a copy. */
export async function verifyLog(
  options: Omit<LogOptions, 'init'>,
): Promise<{ lastIndex: number; snapshotIndex: number; commit: number }> {
  const log = await DurableLog.open({ ...options, init: null })
  try {
    const snapshot = log.currentSnapshot()
    if (snapshot !== null) for await (const _ of snapshot.pieces());
    return { lastIndex: log.lastIndex(), snapshotIndex: log.snapshotIndex, commit: log.hardState.commit }
  } finally {
    await log.close()
  }
}

/** As `derivedKey` of the member in `dir` would say, while it does not run. Throws notFound, `damaged` or `wrongUnlockKey`. */
export async function readDerivedKey(
  disk: Disk,
  dir: string,
  options: { readonly kek: Uint8Array | null; readonly purpose: string },
): Promise<Uint8Array> {
  const key = await loadDataKey(disk, `${dir}/keys.json`, options.kek)
  if (key === null) throw notFound('noRaftState', `no raft state in ${dir}: the key that it holds is gone`)
  return derivedKey(key.dek, options.purpose)
}
