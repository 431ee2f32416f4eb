import { internal, invalid, ShoalError } from '../common/index.js'

/** Exit codes by convention of `docker run` (and of shells). */
export const EXIT_CANNOT_INVOKE = 126
export const EXIT_NOT_FOUND = 127
export const EXIT_START_FAILED = 128

const PREFIX =
  'failed to create task for container: failed to create shim task: OCI runtime create failed: unable to start container process: '

/**
 * What the user is told when the process could not be run. The docker command tells 126 and 127 apart by the words
 * "permission denied", "executable file not found" and "no such file or directory" in it.
 */
export function startError(caught: unknown, program: string): ShoalError {
  const error = ShoalError.from(caught)
  if (error.code !== 'nativeFailure') return error
  const { exitCode, text } = execFailure(error, program)
  const message = `${PREFIX}${text}: unknown`
  const fields = { ...error.fields, exitCode }
  return exitCode === EXIT_START_FAILED
    ? internal('startFailed', message, fields, { cause: caught })
    : invalid('execFailed', message, fields, { cause: caught })
}

/** The same for an exec. */
export function execError(caught: unknown, program: string): ShoalError {
  const error = ShoalError.from(caught)
  if (error.code !== 'nativeFailure') return error
  const { exitCode, text } = execFailure(error, program)
  const message = `OCI runtime exec failed: exec failed: unable to start container process: ${text}: unknown`
  return invalid('execFailed', message, { ...error.fields, exitCode }, { cause: caught })
}

function execFailure(error: ShoalError, program: string): { readonly exitCode: number; readonly text: string } {
  const { stage, errno, path, syscall, detail } = error.fields as Record<string, string>
  if (stage === 'exec') {
    if (errno === 'ENOENT')
      return {
        exitCode: EXIT_NOT_FOUND,
        text: program.includes('/')
          ? `exec: "${program}": stat ${program}: no such file or directory`
          : `exec: "${program}": executable file not found in $PATH`,
      }
    if (errno === 'EISDIR' || (errno === 'EACCES' && detail?.endsWith('is a directory')))
      return { exitCode: EXIT_CANNOT_INVOKE, text: `exec: "${program}": is a directory: permission denied` }
    if (errno === 'EACCES') return { exitCode: EXIT_CANNOT_INVOKE, text: `exec: "${program}": permission denied` }
    if (errno === 'ENOTDIR')
      return { exitCode: EXIT_CANNOT_INVOKE, text: `exec: "${program}": stat ${program}: not a directory` }
    if (errno === 'ENOEXEC') return { exitCode: EXIT_CANNOT_INVOKE, text: `exec ${program}: exec format error` }
  }
  const what = detail || [syscall, path, errno].filter(Boolean).join(' ')
  return { exitCode: EXIT_START_FAILED, text: stage ? `${stage}: ${what}` : what }
}
