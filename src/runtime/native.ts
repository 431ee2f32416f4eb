// The addon's calls that this room uses, with their types. Every failure is an Error with the fields of NativeError.
import { createRequire } from 'node:module'

/** What a failed native call carries beside its message. */
export interface NativeError extends Error {
  /** Name of the errno ("ENOENT"). */
  code: string
  errno: number
  syscall: string
  path: string
  /** One of the stages in docs/native.md, "spawn" for the start of a shim, or empty. */
  stage: string
}

export interface SpawnShimRequest {
  /** Absolute path of shoal-shim. */
  path: string
  /** Arguments after the program's own name. */
  args: readonly string[]
  cwd: string
  /** Becomes the shim's standard output and error; absent: /dev/null. */
  logFd?: number
}

export interface SpawnedShim {
  pid: number
  /** Read end of the status pipe: one JSON line a stage, then end of file. Non-blocking, close-on-exec; the caller closes it. */
  statusFd: number
}

export interface MountRequest {
  source?: string
  target: string
  type?: string
  /** MS_* of mount(2). */
  flags?: number
  data?: string
}

export interface NativeRuntime {
  /** Synchronous: posix_spawn, well below a millisecond. The shim runs from a read-only mount of its program file. */
  spawnShim(request: SpawnShimRequest): SpawnedShim
  /** Resolves when the process is gone, and reaps it when it is a child. startTicks (field 22 of /proc/PID/stat) tells it apart
   *  from a later process with the same number; 0 does not ask. */
  pidfdWait(pid: number, startTicks: number): Promise<void>
  /** OCI linux.seccomp, or a profile in Docker's form, to a BPF program. caps answers the conditions of Docker's form. */
  seccompCompile(profileJson: string, caps: readonly string[], arch?: string): Promise<Uint8Array>
  /** Bytes written to a socket that have not left it (SIOCOUTQ); on a unix socket: that the other end has not read. */
  unreadBytes(fd: number): number
  mount(request: MountRequest): Promise<void>
  /** flags: MNT_* / UMOUNT_* of umount2(2). */
  umount(target: string, flags: number): Promise<void>
}

/** build/src/runtime/native.js -> build/native/shoal.node */
export const nativeDirectory = new URL('../../native/', import.meta.url).pathname

let loaded: NativeRuntime | undefined

/** The addon, loaded at the first call: programs that never touch a container start without it. */
export function native(): NativeRuntime {
  loaded ??= createRequire(import.meta.url)('../../native/shoal.node') as NativeRuntime
  return loaded
}
