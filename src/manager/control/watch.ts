import { type AnyObject, WatchEvent, type WatchRequest } from '#proto'
import { BoundedQueue, unavailable } from '../../common/index.js'
import type { Kind, Store } from '../store/index.js'
import { kindOf, wrap } from './objects.js'

/** Events a slow reader may fall behind. */
const BACKLOG = 10_000

/** What changes from now on, as this member's replica sees it. Ends with `watchLost` when events were skipped. */
export async function* watchStore(
  store: Store,
  request: WatchRequest,
  signal: AbortSignal,
): AsyncGenerator<WatchEvent> {
  const kinds = new Set<Kind>(request.kinds.map(kindOf))
  const queue = new BoundedQueue<WatchEvent>(BACKLOG)
  const stop = store.onCommit((commit) => {
    if (commit.reset) {
      queue.fail(unavailable('watchLost', 'the state was replaced by a snapshot: list again, then watch'))
      return
    }
    for (const e of commit.events) {
      if (kinds.size > 0 && !kinds.has(e.kind)) continue
      const object: AnyObject = wrap(e.kind, e.object)
      const old = e.old && e.action === 'update' ? wrap(e.kind, e.old) : null
      queue.push(WatchEvent.create({ action: e.action, object, old }))
    }
  })
  const close = (): void => queue.close()
  signal.addEventListener('abort', close, { once: true })
  try {
    if (!signal.aborted) yield* queue
  } finally {
    signal.removeEventListener('abort', close)
    stop()
  }
}
