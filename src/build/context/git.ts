import { execFile } from 'node:child_process'
import { stat } from 'node:fs/promises'
import { promisify } from 'node:util'
import { internal, invalid } from '../../common/index.js'
import { resolveInRoot } from '../../engine/index.js'

const run = promisify(execFile)
const OUTPUT_BYTES_MAX = 1024 * 1024

export const isUrl = (text: string): boolean => /^https?:\/\//.test(text)
export const isGitUrl = (text: string): boolean =>
  (isUrl(text) && /\.git(?:#.+)?$/.test(text)) || /^(?:git:\/\/|github\.com\/|git@)/.test(text)

export interface GitSource {
  readonly remote: string
  readonly ref: string
  /** "": the whole repository. */
  readonly directory: string
}

/**
 * REMOTE[#[REF][:DIRECTORY]].
 *
 * @throws invalid `badGitUrl`
 */
export function readGitUrl(text: string): GitSource {
  const url = /^(?:https?|git|ssh|git\+ssh):\/\/|^git@/.test(text) ? text : `https://${text}`
  const at = url.indexOf('#')
  const [remote, fragment] = at < 0 ? [url, ''] : [url.slice(0, at), url.slice(at + 1)]
  if (!remote.startsWith('git@') && !URL.canParse(remote))
    throw invalid('badGitUrl', `"${text}" is no URL of a repository`)
  const colon = fragment.indexOf(':')
  const [ref, directory] = colon < 0 ? [fragment, ''] : [fragment.slice(0, colon), fragment.slice(colon + 1)]
  if (ref.startsWith('-')) throw invalid('badGitUrl', `invalid refspec: ${ref}`)
  return { remote, ref: ref || 'master', directory }
}

/** Servers of plain files cannot send a part of the history. */
async function isShallowable(remote: string, signal: AbortSignal): Promise<boolean> {
  if (!isUrl(remote)) return true
  try {
    const answer = await fetch(`${remote}/info/refs?service=git-upload-pack`, { signal })
    await answer.body?.cancel()
    return answer.ok && answer.headers.get('content-type') === 'application/x-git-upload-pack-advertisement'
  } catch {
    return false // the fetch itself will tell why
  }
}

/**
 * The repository's tree below `into`; resolves with the context's directory. Settings of users and system are not read, and
 * submodules cannot be this host's files.
 */
export async function checkOut(source: GitSource, into: string, signal: AbortSignal): Promise<string> {
  const env = { ...process.env, GIT_PROTOCOL_FROM_USER: '0', GIT_CONFIG_NOSYSTEM: '1', HOME: '/dev/null' }
  const git = async (what: string, ...args: string[]): Promise<void> => {
    try {
      await run('git', ['-c', 'protocol.file.allow=never', ...args], {
        cwd: into,
        env,
        signal,
        maxBuffer: OUTPUT_BYTES_MAX,
      })
    } catch (cause) {
      if (signal.aborted) throw signal.reason
      const { code, stderr = '', message } = cause as Error & { code?: unknown; stderr?: string }
      const why = code === 'ENOENT' ? 'the program git is not installed on this host' : stderr.trim() || message
      throw internal('gitFailed', `${what}: ${why}`, { remote: source.remote }, { cause })
    }
  }
  const depth = (await isShallowable(source.remote, signal)) ? ['--depth', '1'] : []
  await git(`failed to init repo at ${into}`, 'init')
  await git(`failed add origin repo at ${source.remote}`, 'remote', 'add', 'origin', source.remote)
  await git('error fetching', 'fetch', ...depth, 'origin', '--', source.ref)
  try {
    await git(`error checking out ${source.ref}`, 'checkout', source.ref)
  } catch (caught) {
    // No branch of that name, but a commit or another reference, which was fetched last.
    await git('error checking out', 'checkout', 'FETCH_HEAD').catch(() => {
      throw caught
    })
  }
  await git('error initializing submodules', 'submodule', 'update', '--init', '--recursive', '--depth=1')
  if (source.directory === '') return into
  const directory = await resolveInRoot(into, source.directory)
  const isDirectory = await stat(directory).then(
    (s) => s.isDirectory(),
    () => false,
  )
  if (!isDirectory)
    throw invalid('gitFailed', `error setting git context, not a directory: ${source.directory}`, { ...source })
  return directory
}
