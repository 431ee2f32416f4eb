import { chmod, chown, mkdir, readdir, rmdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { ContainerSpec, FileTarget, Node, Task } from '#proto'
import { invalid, ShoalError } from '../../common/index.js'
import type { Dependencies } from '../contract.js'
import { payloadFor } from '../dependencies/index.js'

/** mount(2): MS_NOSUID | MS_NODEV | MS_NOEXEC. */
const MOUNT_FLAGS = 2 | 4 | 8
const MNT_DETACH = 2
/** One page a file and its inode, and some for the file system itself. */
const SLACK_BYTES = 64 * 1024
const SECRETS_DIR = '/run/secrets'

/** mount(2) and umount2(2) as the addon has them. */
export interface MountCalls {
  mount(request: {
    readonly source: string
    readonly target: string
    readonly type: string
    readonly flags: number
    readonly data: string
  }): Promise<void>
  umount(target: string, flags: number): Promise<void>
}

/** A secret or config as its task's container gets it. */
export interface DeliveredFile {
  /** Absolute path in the container. */
  readonly target: string
  readonly data: Uint8Array
  readonly uid: number
  readonly gid: number
  /** Permission bits. */
  readonly mode: number
}

function fileOf(what: string, name: string, target: FileTarget, dir: string, data: Uint8Array): DeliveredFile {
  const path = target.name || name
  const id = (text: string, field: string): number => {
    if (!/^\d{1,10}$/.test(text || '0'))
      throw invalid(
        'badFileOwner',
        `${what} ${name}: ${field} "${text}" is not a number; names are not looked up in the image`,
      )
    return Number(text || '0')
  }
  return {
    target: path.startsWith('/') ? path : `${dir}/${path}`,
    data,
    uid: id(target.uid, 'UID'),
    gid: id(target.gid, 'GID'),
    mode: target.mode & 0o7777,
  }
}

/**
 * Contents and places of what the task's spec refers to, templates expanded. Secrets with a relative target go below
 * /run/secrets, configs below the root. Throws notFound `secretMissing` | `configMissing` that names what no manager gave.
 */
export function filesOf(
  task: Task,
  spec: ContainerSpec,
  node: Pick<Node, 'id' | 'description'>,
  dependencies: Dependencies,
): DeliveredFile[] {
  const missing = (what: string, name: string, id: string): ShoalError =>
    new ShoalError('notFound', `${what}Missing`, `${what} not found: ${name} (${id}) of task ${task.id}`, { name, id })
  const files: DeliveredFile[] = []
  for (const r of spec.secrets) {
    const secret = dependencies.secret(r.secretId)
    if (!secret) throw missing('secret', r.secretName, r.secretId)
    const target = r.target ?? { name: r.secretName, uid: '0', gid: '0', mode: 0o444 }
    files.push(fileOf('secret', r.secretName, target, SECRETS_DIR, payloadFor(secret, task, node, dependencies)))
  }
  for (const r of spec.configs) {
    const config = dependencies.config(r.configId)
    if (!config) throw missing('config', r.configName, r.configId)
    // Without a target it is for the runtime (a credential spec), and no file.
    if (r.target) files.push(fileOf('config', r.configName, r.target, '', payloadFor(config, task, node, dependencies)))
  }
  return files
}

/**
 * The files of each task on a tmpfs of its own, <dir>/<task id>, never on a disk. The tmpfs outlives the daemon, as the
 * container does; it goes when the container ended, since a task's container never starts twice.
 */
export class TaskFiles {
  /** Written by this process: their containers may not be there yet. */
  readonly #written = new Set<string>()

  constructor(
    /** <exec-root>/tasks */
    private readonly dir: string,
    private readonly calls: MountCalls,
  ) {}

  /** Resolves with the paths on this host, in the order of the files. What an interrupted call left is replaced. */
  async write(taskId: string, files: readonly DeliveredFile[]): Promise<string[]> {
    if (files.length === 0) return []
    await this.remove(taskId)
    this.#written.add(taskId)
    const dir = join(this.dir, taskId)
    await mkdir(dir, { recursive: true, mode: 0o700 })
    const bytes = files.reduce((sum, f) => sum + f.data.length + 8192, SLACK_BYTES)
    try {
      await this.#mount(dir, `mode=0700,size=${bytes},nr_inodes=${files.length + 8}`)
      const paths: string[] = []
      for (const [i, file] of files.entries()) {
        const path = join(dir, String(i))
        await writeFile(path, file.data, { mode: 0o600, flag: 'wx' })
        await chown(path, file.uid, file.gid)
        // Last: chown takes the set-uid bits away.
        await chmod(path, file.mode)
        paths.push(path)
      }
      return paths
    } catch (caught) {
      await this.remove(taskId)
      throw caught
    }
  }

  /** Swap is a disk too: kernels from 6.4 on keep the pages of such a tmpfs in memory. */
  async #mount(target: string, data: string): Promise<void> {
    const request = { source: 'tmpfs', target, type: 'tmpfs', flags: MOUNT_FLAGS }
    try {
      await this.calls.mount({ ...request, data: `${data},noswap` })
    } catch (caught) {
      if ((caught as NodeJS.ErrnoException).code !== 'EINVAL') throw caught
      await this.calls.mount({ ...request, data })
    }
  }

  /** Idempotent. */
  async remove(taskId: string): Promise<void> {
    this.#written.delete(taskId)
    const dir = join(this.dir, taskId)
    for (const step of [() => this.calls.umount(dir, MNT_DETACH), () => rmdir(dir)])
      try {
        await step()
      } catch (caught) {
        // EINVAL: no mount there, a crash came between the two.
        if (!['ENOENT', 'EINVAL'].includes((caught as NodeJS.ErrnoException).code ?? '')) throw caught
      }
  }

  /** After a crash: takes away those that an earlier daemon wrote for tasks which have no container. */
  async sweep(hasContainer: (taskId: string) => boolean): Promise<void> {
    let ids: string[]
    try {
      ids = await readdir(this.dir)
    } catch (caught) {
      if ((caught as NodeJS.ErrnoException).code === 'ENOENT') return
      throw caught
    }
    for (const id of ids) if (!this.#written.has(id) && !hasContainer(id)) await this.remove(id)
  }
}
