import { type Empty, Raft, type RaftMember, type SnapshotChunk } from '#proto'
import { dialGrpc, openClientStream, type TlsIdentity } from '../../common/grpc/index.js'
import { type Clock, invalid, ShoalError, type Timer, unavailable } from '../../common/index.js'
import type { OutgoingSnapshot } from '../contract.js'
import type { Message } from '../core/index.js'
import { SNAPSHOT_BYTES_PER_S, SNAPSHOT_CHUNK_BYTES, SNAPSHOT_PACE_SLACK_MS, TRANSFER_STALL_MS } from '../options.js'
import { toWireMeta } from './wire.js'

/** Calls `stalled` when `progress` was not called for TRANSFER_STALL_MS. */
export class StallWatch {
  #timer: Timer
  constructor(
    private readonly clock: Clock,
    private readonly stalled: () => void,
  ) {
    this.#timer = clock.after(TRANSFER_STALL_MS, stalled)
  }
  progress(): void {
    this.#timer.cancel()
    this.#timer = this.clock.after(TRANSFER_STALL_MS, this.stalled)
  }
  end(): void {
    this.#timer.cancel()
  }
}

/**
 * Sends a whole snapshot on a connection of its own, so that it delays no heartbeat: a header, then chunks of at most
 * 1 MiB with sequence numbers. Resolves when the receiver has it durably.
 */
export async function sendSnapshot(options: {
  readonly to: RaftMember
  readonly identity: TlsIdentity
  readonly clock: Clock
  readonly message: Message
  readonly snapshot: OutgoingSnapshot
  readonly signal: AbortSignal
}): Promise<void> {
  const { to, message, snapshot, signal } = options
  signal.throwIfAborted()
  const client = dialGrpc({ address: to.address, identity: options.identity })
  const failed = (why: string) =>
    unavailable(
      'snapshotTransferFailed',
      `snapshot ${snapshot.meta.index} to member ${to.raftId} at ${to.address}: ${why}`,
    )
  let settle: (error: ShoalError | null) => void = () => {}
  let outcome: ShoalError | null | undefined
  const done = new Promise<void>((resolve, reject) => {
    settle = (error) => {
      if (outcome !== undefined) return
      outcome = error
      if (error) reject(error)
      else resolve()
    }
  })
  // Awaited at the end; until then a failure is seen through `outcome`.
  done.catch(() => {})
  const stream = openClientStream(client, Raft.Snapshot, (error, _value?: Empty) => settle(error))
  stream.on('error', () => {})
  const watch = new StallWatch(options.clock, () => settle(failed(`no progress for ${TRANSFER_STALL_MS} ms`)))
  const aborted = (): void => settle(ShoalError.from(signal.reason))
  signal.addEventListener('abort', aborted, { once: true })
  const write = async (chunk: SnapshotChunk): Promise<void> => {
    const taken = new Promise<void>((resolve) => {
      if (stream.write(chunk)) resolve()
      else stream.once('drain', resolve)
    })
    await Promise.race([taken, done])
    // A race prefers the write that was taken at once over an abort.
    if (outcome) throw outcome
    watch.progress()
  }
  try {
    await write({
      header: {
        from: message.from,
        to: message.to,
        term: message.term,
        meta: toWireMeta(snapshot.meta),
        membership: snapshot.membership,
        size: snapshot.size,
        sha256: Buffer.from(snapshot.sha256, 'hex'),
      },
      sequence: 0,
      data: new Uint8Array(0),
    })
    let sequence = 0
    let due = options.clock.monotonic()
    for await (const piece of snapshot.pieces())
      for (let at = 0; at < piece.length; at += SNAPSHOT_CHUNK_BYTES) {
        const data = piece.subarray(at, at + SNAPSHOT_CHUNK_BYTES)
        await write({ header: null, sequence: ++sequence, data })
        // What the network's own pace costs is not made up for: chunks in a row would hold up appends.
        due =
          Math.max(due, options.clock.monotonic() - SNAPSHOT_PACE_SLACK_MS) +
          (data.length / SNAPSHOT_BYTES_PER_S) * 1000
        const early = due - options.clock.monotonic()
        if (early > 0 && !snapshot.isUrgent()) await Promise.race([options.clock.sleep(early, signal), done])
      }
    stream.end()
    // The receiver still syncs and checks; its watch ends that if it hangs.
    watch.progress()
    await done
  } catch (e) {
    settle(ShoalError.from(e))
    throw e
  } finally {
    watch.end()
    signal.removeEventListener('abort', aborted)
    if (outcome !== null) stream.cancel()
    client.close()
  }
}

/** Order and size of what arrives, one chunk after another. */
export function checkSequence(chunk: SnapshotChunk, expected: number): void {
  if (chunk.header !== null || chunk.sequence !== expected)
    throw invalid('snapshotOutOfOrder', `snapshot chunk ${chunk.sequence} arrived in place of ${expected}`)
}
