import { type Task, TaskState, TaskStatus } from '#proto'
import { timestampOf } from './time.js'

/** What the runner does next for a task. `hold`: nothing until a message comes. */
export type Step = 'accept' | 'prepare' | 'adopt' | 'start' | 'wait' | 'stop' | 'hold'

/**
 * The next step from what the manager wants and what was reached. Pure; a task goes forward only:
 *
 *   ASSIGNED -accept-> ACCEPTED -prepare-> (PREPARING) READY -start-> (STARTING) RUNNING -wait-> COMPLETE | FAILED
 *
 * With desired SHUTDOWN or REMOVE the way from everywhere before the end is -stop-> SHUTDOWN. `isAdopted` is false for a
 * task that an earlier daemon had prepared, until its container was looked up.
 */
export function nextStep(input: {
  readonly desired: TaskState
  readonly observed: TaskState
  /** The secrets and configs it needs are here. */
  readonly hasDependencies: boolean
  readonly isAdopted: boolean
}): Step {
  const { desired, observed } = input
  if (observed > TaskState.TASK_RUNNING) return 'hold'
  if (desired >= TaskState.TASK_SHUTDOWN) return 'stop'
  if (observed < TaskState.TASK_ACCEPTED) return 'accept'
  if (observed === TaskState.TASK_RUNNING) return input.isAdopted ? 'wait' : 'adopt'
  if (!input.hasDependencies) return 'hold'
  if (observed < TaskState.TASK_READY) return 'prepare'
  if (!input.isAdopted) return 'adopt'
  return desired >= TaskState.TASK_RUNNING ? 'start' : 'hold'
}

/** The words that docker shows beside the states. */
const MESSAGES: Readonly<Partial<Record<TaskState, string>>> = {
  [TaskState.TASK_ACCEPTED]: 'accepted',
  [TaskState.TASK_PREPARING]: 'preparing',
  [TaskState.TASK_READY]: 'prepared',
  [TaskState.TASK_STARTING]: 'starting',
  [TaskState.TASK_RUNNING]: 'started',
  [TaskState.TASK_COMPLETE]: 'finished',
  [TaskState.TASK_SHUTDOWN]: 'shutdown',
}

/** The task with a new observed state; null when that would be a step back. */
export function advanced(
  task: Task,
  state: TaskState,
  change: Partial<Pick<TaskStatus, 'err' | 'container' | 'ports'>>,
  nowMs: number,
): Task | null {
  const before = task.status ?? TaskStatus.create({ state: TaskState.TASK_ASSIGNED })
  if (state < before.state) return null
  return {
    ...task,
    status: {
      ...before,
      err: '',
      ...change,
      state,
      // A failure keeps the message of the step that it ended, as docker shows it.
      message: MESSAGES[state] ?? before.message,
      timestamp: timestampOf(nowMs),
    },
  }
}
