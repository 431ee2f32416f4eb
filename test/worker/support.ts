import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { ExecutionContext } from 'ava'
import { ContainerSpec, Task, TaskSpec, TaskState, TaskStatus } from '#proto'

export function task(
  id: string,
  options: { image?: string; desired?: TaskState; secrets?: readonly string[] } = {},
): Task {
  return Task.create({
    id,
    nodeId: 'node',
    serviceId: 'service',
    desiredState: options.desired ?? TaskState.TASK_RUNNING,
    status: TaskStatus.create({ state: TaskState.TASK_ASSIGNED }),
    spec: TaskSpec.create({
      container: ContainerSpec.create({
        image: options.image ?? 'nginx',
        secrets: (options.secrets ?? []).map((secretId) => ({ secretId, secretName: secretId, target: null })),
        pullOptions: { registryAuth: 'hunter2' },
      }),
    }),
  })
}

export async function temporaryDir(t: ExecutionContext): Promise<string> {
  const dir = await mkdtemp(join(tmpdir(), 'shoal-worker-'))
  t.teardown(() => rm(dir, { recursive: true, force: true }))
  return dir
}

/** Resolves when the condition holds; looks again after each turn of the event loop. Rejects after the deadline. */
export async function until(what: string, condition: () => boolean, deadlineMs = 10_000): Promise<void> {
  const deadline = performance.now() + deadlineMs
  while (!condition()) {
    if (performance.now() > deadline) throw new Error(`gave up waiting: ${what}`)
    await new Promise((resolve) => setImmediate(resolve))
  }
}
