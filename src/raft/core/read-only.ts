import type { Message, RaftId, ReadOnlyOption } from './types.js'

/** A read that waits for proof that its leader still led when it came. */
export interface PendingRead {
  readonly request: Message
  /** Commit index when the request came. */
  readonly index: number
  readonly acks: Map<RaftId, boolean>
}

/** Contexts are bytes; a Map needs a comparable key. */
function keyOf(context: Uint8Array): string {
  let key = ''
  for (let i = 0; i < context.length; i++) key += String.fromCharCode(context[i]!)
  return key
}

/**
 * Read requests in the order they came. An acknowledged heartbeat with a request's context vouches for it and for all
 * before it (Raft thesis §6.4).
 */
export class ReadOnly {
  private readonly pending = new Map<string, PendingRead>()

  constructor(readonly option: ReadOnlyOption) {}

  /** The same context again doesn't start over. */
  add(index: number, request: Message): void {
    const key = keyOf(request.context)
    if (!this.pending.has(key)) this.pending.set(key, { request, index, acks: new Map() })
  }

  /** Null: nobody waits for this context. */
  receiveAck(from: RaftId, context: Uint8Array): ReadonlyMap<RaftId, boolean> | null {
    const read = this.pending.get(keyOf(context))
    if (read === undefined) return null
    read.acks.set(from, true)
    return read.acks
  }

  /** Takes out the request of this context and all that came before it. */
  advance(context: Uint8Array): readonly PendingRead[] {
    const key = keyOf(context)
    if (!this.pending.has(key)) return []
    const done: PendingRead[] = []
    for (const [other, read] of this.pending) {
      this.pending.delete(other)
      done.push(read)
      if (other === key) break
    }
    return done
  }

  /** The newest request's context, for heartbeats of the regular beat; null if none waits. */
  lastContext(): Uint8Array | null {
    let last: Uint8Array | null = null
    for (const read of this.pending.values()) last = read.request.context
    return last
  }
}
