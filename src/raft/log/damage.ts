import { internal, type ShoalError } from '../../common/index.js'

/** What is read back is not what was written. Never repaired by guessing: a member that forgets breaks the cluster. */
export function damaged(file: string, record: string, why: string, cause?: unknown): ShoalError {
  return internal(
    'damaged',
    `raft state ${file}: ${record} ${why}; remove this manager from the cluster and join it again, or restore a backup of its state directory`,
    { file, record },
    { cause },
  )
}
