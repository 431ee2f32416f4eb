import {
  Annotations,
  type AttachNetworkRequest,
  AttachNetworkResponse,
  NetworkAttachmentConfig,
  NetworkAttachmentSpec,
  Task,
  TaskSpec,
  TaskState,
  TaskStatus,
} from '#proto'
import { type Clock, forbidden, newObjectId, unavailable } from '../../common/index.js'
import { timestamp } from '../ca/index.js'
import type { Store } from '../store/index.js'
import { badSpec, objectNotFound } from './errors.js'
import { lookUp } from './objects.js'

/** How long the allocator may take for an address. */
const ALLOCATE_MS = 20_000

/** Single containers on attachable networks: a task that only holds an address. */
export class AttachmentControl {
  constructor(
    private readonly store: Store,
    private readonly clock: Clock,
  ) {}

  async attach(request: AttachNetworkRequest): Promise<AttachNetworkResponse> {
    const id = newObjectId()
    await this.store.update((tx) => {
      const network = lookUp(tx, 'network', request.network)
      const name = network.spec?.annotations?.name ?? network.id
      if (!network.spec?.attachable) throw forbidden('notAttachable', `network ${name} not manually attachable`)
      if (!tx.get('node', request.nodeId)) throw objectNotFound('node', request.nodeId)
      if (request.containerId === '') throw badSpec('an attachment needs the id of its container')
      const { addresses, aliases, containerId, nodeId } = request
      const networks = [NetworkAttachmentConfig.create({ target: network.id, addresses, aliases })]
      const now = timestamp(this.clock.now())
      tx.create(
        'task',
        Task.create({
          id,
          nodeId,
          annotations: Annotations.create({ name: containerId }),
          spec: TaskSpec.create({ attachment: NetworkAttachmentSpec.create({ containerId }), networks }),
          status: TaskStatus.create({ timestamp: now, state: TaskState.TASK_NEW, message: 'created' }),
          desiredState: TaskState.TASK_RUNNING,
        }),
      )
    })
    try {
      return await this.#allocated(id)
    } catch (e) {
      await this.detach(id)
      throw e
    }
  }

  async detach(taskId: string): Promise<void> {
    await this.store.update((tx) => {
      const task = tx.get('task', taskId)
      if (!task) throw objectNotFound('task', taskId)
      if (!task.spec?.attachment)
        throw badSpec(`task ${taskId} belongs to a service: scale or remove the service instead`)
      tx.remove('task', taskId)
    })
  }

  #allocated(id: string): Promise<AttachNetworkResponse> {
    return new Promise((resolve, reject) => {
      const look = (): void => {
        const task = this.store.view().get('task', id)
        if (!task) {
          end(() => reject(objectNotFound('task', id)))
          return
        }
        const attachment = task.networks[0]
        if (attachment && attachment.addresses.length > 0 && (task.status?.state ?? 0) >= TaskState.TASK_PENDING)
          end(() => resolve(AttachNetworkResponse.create({ taskId: id, attachment })))
      }
      const end = (then: () => void): void => {
        stop()
        timer.cancel()
        then()
      }
      const timer = this.clock.after(ALLOCATE_MS, () => {
        const message = this.store.view().get('task', id)?.status?.err || 'no address was given in time'
        end(() => reject(unavailable('notAllocated', `the network cannot be attached: ${message}`)))
      })
      const stop = this.store.onCommit((c) => {
        if (c.reset || c.events.some((e) => e.object.id === id)) look()
      })
      look()
    })
  }
}
