//! Resource limits of the calling process.

use std::io;

/// Sets `RLIMIT_*` number `resource` (prlimit(2)); `u64::MAX` is no limit.
///
/// # Errors
/// `EPERM` when the hard limit is raised without CAP_SYS_RESOURCE; `EINVAL` for an unknown resource or soft above hard.
pub fn set(resource: u32, soft: u64, hard: u64) -> io::Result<()> {
    let limit = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
    // SAFETY: `limit` lives through the call; pid 0 is the caller; the null pointer asks for no old value.
    let answer = unsafe {
        libc::syscall(libc::SYS_prlimit64, 0, resource, &raw const limit, std::ptr::null_mut::<libc::rlimit64>())
    };
    crate::outcome(answer).map(drop)
}

/// The name of `RLIMIT_*` number `resource`, for messages.
pub fn name(resource: u32) -> &'static str {
    const NAMES: [&str; 16] = [
        "RLIMIT_CPU",
        "RLIMIT_FSIZE",
        "RLIMIT_DATA",
        "RLIMIT_STACK",
        "RLIMIT_CORE",
        "RLIMIT_RSS",
        "RLIMIT_NPROC",
        "RLIMIT_NOFILE",
        "RLIMIT_MEMLOCK",
        "RLIMIT_AS",
        "RLIMIT_LOCKS",
        "RLIMIT_SIGPENDING",
        "RLIMIT_MSGQUEUE",
        "RLIMIT_NICE",
        "RLIMIT_RTPRIO",
        "RLIMIT_RTTIME",
    ];
    usize::try_from(resource).ok().and_then(|n| NAMES.get(n)).copied().unwrap_or("unknown rlimit")
}
