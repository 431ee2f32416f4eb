import type { Container, Ending } from './container.js'
import type { WaitCondition } from './contract.js'

/**
 * Registered when this returns. `removed` of a container that is removed answers at its removal; `not-running` at once
 * when it does not run, else at the next end, though the restart policy may go on.
 */
export function waitFor(container: Container, condition: WaitCondition, signal: AbortSignal): Promise<Ending> {
  const { record } = container
  if (condition === 'not-running' && !container.isRunning && record.status !== 'restarting')
    return Promise.resolve({ exitCode: record.exitCode, error: record.error })
  return new Promise((resolve, reject) => {
    const done = (ending: Ending): void => {
      off()
      resolve(ending)
    }
    const abort = (): void => {
      off()
      reject(signal.reason)
    }
    const offs = [
      condition === 'removed' ? container.removed.on(done) : container.ended.on(done),
      // Removed without ever running again: whoever waits must not hang.
      condition === 'removed' ? () => {} : container.removed.on(done),
    ]
    const off = (): void => {
      for (const o of offs) o()
      signal.removeEventListener('abort', abort)
    }
    signal.addEventListener('abort', abort, { once: true })
    if (signal.aborted) abort()
  })
}
