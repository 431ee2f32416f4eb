import {
  type AttachNetworkRequest,
  type AttachNetworkResponse,
  Control,
  type Method,
  type Network,
  ObjectKind,
} from '#proto'
import { callUnary, dialGrpc, type TlsIdentity } from '../../common/grpc/index.js'
import { isKind, type ShoalError, unavailable } from '../../common/index.js'
import type { AttachmentClient, ControlApi } from '../contract.js'

/** Longest that one manager may take; an address is given within 20 s or not at all. */
const CALL_DEADLINE_MS = 25_000

/** On a manager: its own API, which finds the leader. */
export const localAttachments = (control: ControlApi): AttachmentClient => ({
  async network(reference) {
    return found(control.get({ kind: ObjectKind.KIND_NETWORK, reference }).then((r) => r.object?.network ?? null))
  },
  attach: (request) => control.attachNetwork(request),
  detach: (taskId) => gone(control.remove({ kind: ObjectKind.KIND_TASK, id: taskId, force: false })),
})

/** On a worker: any manager that answers. */
export function remoteAttachments(options: {
  readonly managers: () => readonly string[]
  readonly identity: () => TlsIdentity
}): AttachmentClient {
  const ask = async <Q, S>(method: Method<Q, S>, request: Q): Promise<S> => {
    let failure: unknown = unavailable('noManager', 'no manager is known to this node')
    for (const address of options.managers()) {
      const client = dialGrpc({ address, identity: options.identity() })
      try {
        return await callUnary(client, method, request, { deadlineMs: CALL_DEADLINE_MS })
      } catch (caught) {
        failure = caught
        // What one manager refuses, all refuse; only silence is worth another.
        if ((caught as ShoalError).kind !== 'unavailable') throw caught
      } finally {
        client.close()
      }
    }
    throw failure
  }
  return {
    async network(reference) {
      const asked = ask(Control.Get, { kind: ObjectKind.KIND_NETWORK, reference })
      return found(asked.then((r) => r.object?.network ?? null))
    },
    attach: (request: AttachNetworkRequest): Promise<AttachNetworkResponse> => ask(Control.AttachNetwork, request),
    detach: (taskId) => gone(ask(Control.Remove, { kind: ObjectKind.KIND_TASK, id: taskId, force: false })),
  }
}

async function found(looking: Promise<Network | null>): Promise<Network | null> {
  try {
    return await looking
  } catch (caught) {
    if (isKind(caught, 'notFound')) return null
    throw caught
  }
}

async function gone(removing: Promise<unknown>): Promise<void> {
  try {
    await removing
  } catch (caught) {
    if (!isKind(caught, 'notFound')) throw caught
  }
}
