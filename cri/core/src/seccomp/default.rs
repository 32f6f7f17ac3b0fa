//! The runtime's default profile.
//!
//! What it permits is what containerd's default profile permits: the same calls under the same capabilities. It differs
//! in one place: address families are compared in the 32 bits that the kernel looks at, where comparing all 64 lets a
//! program reach a blocked family by setting a bit above them.

use oci::{LinuxSeccompAction as Action, LinuxSeccompOperator as Operator};
use oci_spec::runtime as oci;

use crate::{capabilities, host::Arch};

const SOCKETS: &str = "\
    accept accept4 bind connect getpeername getsockname getsockopt listen recv recvfrom recvmmsg recvmmsg_time64 \
    recvmsg send sendmmsg sendmsg sendto setsockopt shutdown socketcall socketpair";

const IPC: &str = "\
    ipc mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 \
    mq_unlink msgctl msgget msgrcv msgsnd semctl semget semop semtimedop semtimedop_time64 shmat shmctl shmdt \
    shmget";

const TIME: &str = "\
    adjtimex alarm clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64 \
    clock_nanosleep clock_nanosleep_time64 getitimer gettimeofday nanosleep setitimer time timer_create \
    timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64 timerfd_create \
    timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64 times";

const SIGNALS: &str = "\
    kill pause pidfd_open pidfd_send_signal restart_syscall rt_sigaction rt_sigpending rt_sigprocmask \
    rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo \
    sigaltstack signalfd signalfd4 sigprocmask sigreturn tgkill tkill";

const IDENTITY: &str = "\
    capget capset getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getpgid getpgrp getpid \
    getppid getresgid getresgid32 getresuid getresuid32 getsid gettid getuid getuid32 setfsgid setfsgid32 setfsuid \
    setfsuid32 setgid setgid32 setgroups setgroups32 setpgid setregid setregid32 setresgid setresgid32 setresuid \
    setresuid32 setreuid setreuid32 setsid setuid setuid32 umask";

const SCHEDULING: &str = "\
    getcpu getpriority getrlimit getrusage ioprio_get ioprio_set prlimit64 sched_get_priority_max \
    sched_get_priority_min sched_getaffinity sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval \
    sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield \
    setpriority setrlimit ugetrlimit";

const MEMORY: &str = "\
    brk cachestat madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mlock mlock2 mlockall mmap \
    mmap2 mprotect mremap mseal msync munlock munlockall munmap pkey_alloc pkey_free pkey_mprotect \
    process_mrelease remap_file_pages";

const PROCESSES: &str = "\
    execve execveat exit exit_group fork futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake \
    get_robust_list get_thread_area getrandom landlock_add_rule landlock_create_ruleset landlock_restrict_self \
    lsm_get_self_attr lsm_list_modules lsm_set_self_attr prctl rseq seccomp set_robust_list set_thread_area \
    set_tid_address sysinfo uname uretprobe vfork wait4 waitid waitpid";

const EVENTS: &str = "\
    _newselect epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait \
    epoll_wait_old eventfd eventfd2 fanotify_mark inotify_add_watch inotify_init inotify_init1 inotify_rm_watch \
    io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit poll ppoll \
    ppoll_time64 pselect6 pselect6_time64 select";

const ATTRIBUTES: &str = "\
    fgetxattr flistxattr fremovexattr fsetxattr getxattr getxattrat lgetxattr listxattr listxattrat llistxattr \
    lremovexattr lsetxattr removexattr removexattrat setxattr setxattrat";

const FILES: &str = "\
    _llseek access chdir chmod chown chown32 close close_range copy_file_range creat dup dup2 dup3 faccessat \
    faccessat2 fadvise64 fadvise64_64 fallocate fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat fcntl \
    fcntl64 fdatasync flock fstat fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64 futimesat getcwd \
    getdents getdents64 ioctl lchown lchown32 link linkat listmount lseek lstat lstat64 mkdir mkdirat mknod \
    mknodat name_to_handle_at newfstatat open openat openat2 pipe pipe2 pread64 preadv preadv2 pwrite64 pwritev \
    pwritev2 read readahead readlink readlinkat readv rename renameat renameat2 rmdir sendfile sendfile64 splice \
    stat stat64 statfs statfs64 statmount statx symlink symlinkat sync sync_file_range syncfs tee truncate \
    truncate64 unlink unlinkat utime utimensat utimensat_time64 utimes vmsplice write writev";

/// Every container may make these calls.
const ALWAYS: [&str; 11] =
    [SOCKETS, IPC, TIME, SIGNALS, IDENTITY, SCHEDULING, MEMORY, PROCESSES, EVENTS, ATTRIBUTES, FILES];

/// Tracing of one's own processes; safe since Linux 4.8, where seccomp filters see what a tracer changes.
const TRACING: &str = "process_vm_readv process_vm_writev ptrace";

/// Calls of one architecture.
const fn of_arch(arch: Arch) -> &'static str {
    match arch {
        Arch::X86_64 => "arch_prctl modify_ldt",
        Arch::Aarch64 => "arm_fadvise64_64 arm_sync_file_range sync_file_range2 breakpoint cacheflush set_tls",
    }
}

/// Calls that come with a capability of the bounding set.
const WITH_CAPABILITY: [(&str, &str); 14] = [
    ("BPF", "bpf"),
    ("DAC_READ_SEARCH", "open_by_handle_at"),
    ("PERFMON", "perf_event_open"),
    (
        "SYS_ADMIN",
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie mount mount_setattr move_mount \
         open_tree perf_event_open quotactl quotactl_fd setdomainname sethostname setns syslog umount umount2 unshare",
    ),
    ("SYSLOG", "syslog"),
    ("SYS_BOOT", "reboot"),
    ("SYS_CHROOT", "chroot"),
    ("SYS_MODULE", "delete_module finit_module init_module"),
    ("SYS_NICE", "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
    ("SYS_PACCT", "acct"),
    ("SYS_PTRACE", "kcmp pidfd_getfd process_madvise"),
    ("SYS_RAWIO", "ioperm iopl"),
    ("SYS_TIME", "clock_settime clock_settime64 settimeofday stime"),
    ("SYS_TTY_CONFIG", "vhangup"),
];

/// personality(2): Linux, Linux as 32-bit machine, each without and with a fixed uname version, and the question what it
/// is.
const PERSONALITIES: [u64; 5] = [0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// Address families as (mask, value) of the kernel's `int`: everything below 64 but AF_ALG (38), a door to the kernel's
/// crypto code, and AF_VSOCK (40), which no namespace confines. Families end at 46.
const FAMILIES: [(u64, u64); 8] = [
    (0xffff_ffe0, 0),
    (0xffff_fffc, 32),
    (0xffff_fffe, 36),
    (0xffff_ffff, 39),
    (0xffff_ffff, 41),
    (0xffff_fffe, 42),
    (0xffff_fffc, 44),
    (0xffff_fff0, 48),
];

/// Namespaces that clone(2) could make: mount, cgroup, UTS, IPC, user, PID, network.
const NEW_NAMESPACES: u64 = 0x7e02_0000;
const ENOSYS: u32 = 38;

/// The capabilities that change the profile.
pub(super) fn relevant_capabilities() -> u64 {
    WITH_CAPABILITY.iter().filter_map(|(name, _)| capabilities::parse(name)).fold(0, |mask, bit| mask | bit)
}

/// The default profile for a bounding set.
pub fn runtime_default(arch: Arch, bounding: u64) -> oci::LinuxSeccomp {
    let has = |name: &str| capabilities::parse(name).is_some_and(|bit| bounding & bit != 0);
    let mut rules: Vec<_> = ALWAYS.iter().map(|names| allow(names, None)).collect();
    rules.push(allow(TRACING, None));
    rules.push(allow(of_arch(arch), None));
    for (mask, value) in FAMILIES {
        rules.push(allow("socket", Some(masked(mask, value))));
    }
    for value in PERSONALITIES {
        rules.push(allow("personality", Some(first_argument(Operator::ScmpCmpEq, value, None))));
    }
    for (name, calls) in WITH_CAPABILITY {
        if has(name) {
            rules.push(allow(calls, None));
        }
    }
    if !has("SYS_ADMIN") {
        rules.push(allow("clone", Some(masked(NEW_NAMESPACES, 0))));
        // Its flags lie behind a pointer, which no filter follows; ENOSYS makes a libc fall back to clone.
        let mut clone3 = oci::LinuxSyscall::default();
        clone3
            .set_names(vec!["clone3".to_owned()])
            .set_action(Action::ScmpActErrno)
            .set_errno_ret(Some(ENOSYS))
            .set_args(None);
        rules.push(clone3);
    }
    let mut profile = oci::LinuxSeccomp::default();
    profile
        .set_default_action(Action::ScmpActErrno)
        .set_architectures(Some(match arch {
            Arch::X86_64 => vec![oci::Arch::ScmpArchX86_64, oci::Arch::ScmpArchX86, oci::Arch::ScmpArchX32],
            Arch::Aarch64 => vec![oci::Arch::ScmpArchArm, oci::Arch::ScmpArchAarch64],
        }))
        .set_syscalls(Some(rules));
    profile
}

fn allow(names: &str, arg: Option<oci::LinuxSeccompArg>) -> oci::LinuxSyscall {
    let mut rule = oci::LinuxSyscall::default();
    rule.set_names(names.split_ascii_whitespace().map(str::to_owned).collect())
        .set_action(Action::ScmpActAllow)
        .set_args(arg.map(|arg| vec![arg]));
    rule
}

fn masked(mask: u64, value: u64) -> oci::LinuxSeccompArg {
    first_argument(Operator::ScmpCmpMaskedEq, mask, Some(value))
}

fn first_argument(op: Operator, value: u64, value_two: Option<u64>) -> oci::LinuxSeccompArg {
    let mut arg = oci::LinuxSeccompArgBuilder::default().index(0_usize).value(value).op(op);
    if let Some(value) = value_two {
        arg = arg.value_two(value);
    }
    // Every field has a default, so building cannot fail.
    arg.build().unwrap_or_default()
}
