// The default system call filter: what a container may call, by topic. Everything else fails with EPERM, as an unknown call does
// for Docker's users. Facts of the kernel's interface; test/native compares them with the reference profile.
import { arch as nodeArch } from 'node:process'

export type SeccompAction = 'SCMP_ACT_ALLOW' | 'SCMP_ACT_ERRNO'
export type SeccompOperator = 'SCMP_CMP_EQ' | 'SCMP_CMP_LT' | 'SCMP_CMP_GT' | 'SCMP_CMP_MASKED_EQ'

export interface SeccompArg {
  index: number
  value: number
  /** For MASKED_EQ: argument & value must equal this; 0 when absent. */
  valueTwo?: number
  op: SeccompOperator
}

export interface SeccompRule {
  names: string[]
  action: SeccompAction
  errnoRet?: number
  args?: SeccompArg[]
}

/** linux.seccomp of the OCI runtime specification, as far as the default profile uses it. */
export interface OciSeccomp {
  defaultAction: SeccompAction
  defaultErrnoRet: number
  architectures: string[]
  syscalls: SeccompRule[]
}

const EPERM = 1
const ENOSYS = 38

/** Allowed for everyone. */
const always: Record<string, string> = {
  'files: open, read, write, position': `
    _llseek access cachestat close close_range copy_file_range creat dup dup2 dup3 faccessat faccessat2 fadvise64
    fadvise64_64 fallocate fcntl fcntl64 fdatasync flock fsync ftruncate ftruncate64 ioctl lseek map_shadow_stack
    memfd_create memfd_secret name_to_handle_at open openat openat2 pread64 preadv preadv2 pwrite64 pwritev
    pwritev2 read readahead readv sendfile sendfile64 splice sync sync_file_range syncfs tee truncate truncate64
    umask vmsplice write writev`,
  'names and directories': `
    chdir fanotify_mark fchdir getcwd getdents getdents64 inotify_add_watch inotify_init inotify_init1
    inotify_rm_watch link linkat mkdir mkdirat mknod mknodat readlink readlinkat rename renameat renameat2 rmdir
    symlink symlinkat unlink unlinkat`,
  'owners, modes, attributes, times': `
    chmod chown chown32 fchmod fchmodat fchmodat2 fchown fchown32 fchownat fgetxattr flistxattr fremovexattr
    fsetxattr fstat fstat64 fstatat64 fstatfs fstatfs64 futimesat getxattr getxattrat lchown lchown32 lgetxattr
    listmount listxattr listxattrat llistxattr lremovexattr lsetxattr lstat lstat64 newfstatat removexattr
    removexattrat setxattr setxattrat stat stat64 statfs statfs64 statmount statx utime utimensat utimensat_time64
    utimes`,
  memory: `
    brk madvise membarrier mincore mlock mlock2 mlockall mmap mmap2 mprotect mremap mseal msync munlock munlockall
    munmap pkey_alloc pkey_free pkey_mprotect process_mrelease remap_file_pages`,
  'processes and threads': `
    capget capset execve execveat exit exit_group fork get_robust_list get_thread_area getpgid getpgrp getpid
    getppid getsid gettid landlock_add_rule landlock_create_ruleset landlock_restrict_self pidfd_open
    pidfd_send_signal prctl riscv_hwprobe rseq seccomp set_robust_list set_thread_area set_tid_address setpgid
    setsid uretprobe vfork wait4 waitid waitpid`,
  'scheduling and limits': `
    getcpu getpriority getrlimit getrusage ioprio_get ioprio_set prlimit64 sched_get_priority_max
    sched_get_priority_min sched_getaffinity sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval
    sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield
    setpriority setrlimit sysinfo times ugetrlimit uname`,
  'users and groups': `
    getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getresgid getresgid32 getresuid
    getresuid32 getuid getuid32 setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups setgroups32
    setregid setregid32 setresgid setresgid32 setresuid setresuid32 setreuid setreuid32 setuid setuid32`,
  signals: `
    alarm kill pause restart_syscall rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn
    rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 sigaltstack signalfd signalfd4 sigprocmask sigreturn
    tgkill tkill`,
  time: `
    adjtimex clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64
    clock_nanosleep clock_nanosleep_time64 getitimer gettimeofday nanosleep setitimer time timer_create
    timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64 timerfd_create
    timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64`,
  'waiting and locking': `
    _newselect epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait
    epoll_wait_old eventfd eventfd2 futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake io_cancel
    io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit poll ppoll ppoll_time64 pselect6
    pselect6_time64 select`,
  'pipes, messages, semaphores, shared memory': `
    ipc mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64
    mq_unlink msgctl msgget msgrcv msgsnd pipe pipe2 semctl semget semop semtimedop semtimedop_time64 shmat shmctl
    shmdt shmget`,
  sockets: `
    accept accept4 bind connect getpeername getsockname getsockopt listen recv recvfrom recvmmsg recvmmsg_time64
    recvmsg send sendmmsg sendmsg sendto setsockopt shutdown socketcall socketpair`,
  'the rest': `
    getrandom rt_tgsigqueueinfo`,
}

/** Allowed with one capability (without CAP_). */
const byCapability: Record<string, string> = {
  DAC_READ_SEARCH: `
    open_by_handle_at`,
  SYS_ADMIN: `
    bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie lsm_get_self_attr
    lsm_list_modules lsm_set_self_attr mount mount_setattr move_mount open_tree perf_event_open quotactl
    quotactl_fd setdomainname sethostname setns syslog umount umount2 unshare`,
  SYS_BOOT: `
    reboot`,
  SYS_CHROOT: `
    chroot`,
  SYS_MODULE: `
    delete_module finit_module init_module`,
  SYS_PACCT: `
    acct`,
  SYS_PTRACE: `
    kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev ptrace`,
  SYS_RAWIO: `
    ioperm iopl`,
  SYS_TIME: `
    clock_settime clock_settime64 settimeofday stime`,
  SYS_TTY_CONFIG: `
    vhangup`,
  SYS_NICE: `
    get_mempolicy mbind set_mempolicy set_mempolicy_home_node`,
  SYSLOG: `
    syslog`,
  BPF: `
    bpf`,
  PERFMON: `
    perf_event_open`,
}

/** Allowed on one kind of machine only (process.arch). */
const byMachine: Record<string, string> = {
  x64: 'arch_prctl modify_ldt',
  arm64: 'arm_fadvise64_64 arm_sync_file_range sync_file_range2 breakpoint cacheflush set_tls',
  arm: 'arm_fadvise64_64 arm_sync_file_range sync_file_range2 breakpoint cacheflush set_tls',
  ppc64: 'sync_file_range2 swapcontext',
  s390x: 's390_pci_mmio_read s390_pci_mmio_write s390_runtime_instr',
  riscv64: 'riscv_flush_icache',
}

/** The machine's own architecture first, then the ones whose programs it also runs. */
const architectures: Record<string, string[]> = {
  x64: ['SCMP_ARCH_X86_64', 'SCMP_ARCH_X86', 'SCMP_ARCH_X32'],
  arm64: ['SCMP_ARCH_AARCH64', 'SCMP_ARCH_ARM'],
  arm: ['SCMP_ARCH_ARM'],
  ppc64: ['SCMP_ARCH_PPC64LE'],
  s390x: ['SCMP_ARCH_S390X', 'SCMP_ARCH_S390'],
  riscv64: ['SCMP_ARCH_RISCV64'],
  loong64: ['SCMP_ARCH_LOONGARCH64'],
}

/** Address families that stay closed: AF_ALG (kernel crypto, a row of holes in the past) and AF_VSOCK (a way to the hypervisor that
 *  network namespaces do not close). The filter can only compare, so what lies below, between and above them is opened. */
const AF_ALG = 38
const AF_VSOCK = 40

/** Execution domains that change nothing dangerous: PER_LINUX, PER_LINUX32, both with UNAME26, and "tell me the present one". */
const personalities = [0x0, 0x8, 0x20000, 0x20008, 0xffffffff]

/** The CLONE_NEW* flags (all but time): clone makes processes and threads, but no namespaces. */
const NEW_NAMESPACES = 0x7e020000

function words(text: string): string[] {
  return text.split(/\s+/).filter((w) => w !== '')
}

function allow(names: string[], args?: SeccompArg[]): SeccompRule {
  return args ? { names, action: 'SCMP_ACT_ALLOW', args } : { names, action: 'SCMP_ACT_ALLOW' }
}

/**
 * The profile for a container with these capabilities ("CAP_SYS_ADMIN" or "SYS_ADMIN", any case).
 * `machine` is a value of process.arch; this machine's by default.
 */
export function defaultSeccompProfile(caps: readonly string[], machine: string = nodeArch): OciSeccomp {
  const has = new Set(caps.map((c) => c.toUpperCase().replace(/^CAP_/, '')))
  const names = Object.values(always).flatMap(words)
  names.push('process_vm_readv', 'process_vm_writev', 'ptrace') // safe to allow since kernel 4.8, older than any that we run on
  names.push(...words(byMachine[machine] ?? ''))
  for (const [cap, calls] of Object.entries(byCapability)) if (has.has(cap)) names.push(...words(calls))
  const syscalls = [allow([...new Set(names)].sort())]
  syscalls.push(
    allow(['socket'], [{ index: 0, value: AF_ALG, op: 'SCMP_CMP_LT' }]),
    allow(['socket'], [{ index: 0, value: AF_ALG + 1, op: 'SCMP_CMP_EQ' }]),
    allow(['socket'], [{ index: 0, value: AF_VSOCK, op: 'SCMP_CMP_GT' }]),
  )
  for (const value of personalities) syscalls.push(allow(['personality'], [{ index: 0, value, op: 'SCMP_CMP_EQ' }]))
  if (!has.has('SYS_ADMIN')) {
    // On s390 the flags are clone's second argument. clone3 hides its flags in memory: "not implemented" makes libraries use clone.
    const index = machine === 's390x' ? 1 : 0
    syscalls.push(allow(['clone'], [{ index, value: NEW_NAMESPACES, valueTwo: 0, op: 'SCMP_CMP_MASKED_EQ' }]))
    syscalls.push({ names: ['clone3'], action: 'SCMP_ACT_ERRNO', errnoRet: ENOSYS })
  }
  return {
    defaultAction: 'SCMP_ACT_ERRNO',
    defaultErrnoRet: EPERM,
    architectures: architectures[machine] ?? [],
    syscalls,
  }
}
