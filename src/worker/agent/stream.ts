import { type AgentMessage, Dispatcher, type ManagerMessage } from '#proto'
import { dialGrpc, fromServiceError, openBidi, type TlsIdentity } from '../../common/grpc/index.js'

/** One session's stream to a manager, as far as the agent knows it; a simulated cluster brings its own. */
export interface AgentStream {
  /** Queued when the other side is slow; after the end it does nothing. */
  send(message: AgentMessage): void
  /** Resolves when the queue is short again, or the stream has ended. */
  writable(): Promise<void>
  /** In order; a slow reader slows the manager down. Throws a ShoalError when the stream breaks. */
  readonly messages: AsyncIterable<ManagerMessage>
  /** Ends both directions now. Idempotent. */
  close(): void
}

export type Dial = (address: string, identity: TlsIdentity) => AgentStream

export const dialDispatcher: Dial = (address, identity) => {
  const client = dialGrpc({ address, identity })
  const call = openBidi<AgentMessage, ManagerMessage>(client, Dispatcher.Session)
  let isClosed = false
  const close = (): void => {
    if (isClosed) return
    isClosed = true
    call.cancel()
    client.close()
  }
  // The reader gets the error; without a listener one that comes later would end the process.
  call.on('error', () => {})
  async function* messages(): AsyncGenerator<ManagerMessage> {
    try {
      for await (const message of call) yield message as ManagerMessage
    } catch (caught) {
      if (!isClosed) throw fromServiceError(caught)
    } finally {
      close()
    }
  }
  return {
    send(message) {
      if (!isClosed) call.write(message)
    },
    writable() {
      if (isClosed || !call.writableNeedDrain) return Promise.resolve()
      return new Promise((resolve) => {
        const done = (): void => {
          call.off('drain', done)
          call.off('close', done)
          call.off('error', done)
          call.off('end', done)
          resolve()
        }
        call.on('drain', done).on('close', done).on('error', done).on('end', done)
      })
    },
    messages: messages(),
    close,
  }
}
