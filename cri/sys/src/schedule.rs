//! When a process runs, and what the machine looks like to it: sched_setattr(2), ioprio_set(2), personality(2),
//! sched_setaffinity(2), set_mempolicy(2).

use std::io;

/// `struct sched_attr` in its first form (Linux 3.14), which every later kernel takes.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Attributes {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

/// How the kernel shall schedule a thread: `SCHED_*`, `SCHED_FLAG_*`, and nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Policy {
    pub policy: u32,
    pub flags: u64,
    pub nice: i32,
    pub priority: u32,
    pub runtime: u64,
    pub deadline: u64,
    pub period: u64,
}

/// Sets the calling thread's policy.
///
/// # Errors
/// What sched_setattr(2) answers: `EPERM` without CAP_SYS_NICE, `EINVAL` for values that a policy does not take, `EBUSY`
/// where a deadline can't be kept.
pub fn set_policy(policy: &Policy) -> io::Result<()> {
    let Policy { policy, flags, nice, priority, runtime, deadline, period } = *policy;
    let size = u32::try_from(size_of::<Attributes>()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let attributes = Attributes { size, policy, flags, nice, priority, runtime, deadline, period };
    // SAFETY: the structure lives through the call and has the size that it names; 0 is the calling thread.
    let answer = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
    crate::outcome(answer).map(drop)
}

/// Sets the calling thread's class (`IOPRIO_CLASS_*`) and priority (0 to 7) for block devices.
///
/// # Errors
/// What ioprio_set(2) answers: `EPERM`, `EINVAL`; [`io::ErrorKind::InvalidInput`] for what is no class or priority, of
/// which newer kernels would look at some bits alone.
pub fn set_io_priority(class: u32, priority: u32) -> io::Result<()> {
    const WHO_PROCESS: libc::c_int = 1;
    const CLASS_SHIFT: u32 = 13;
    if class > 3 || priority > 7 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let value = class << CLASS_SHIFT | priority;
    // SAFETY: ioprio_set(2) takes integers; 0 is the calling thread.
    let answer = unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, 0, value) };
    crate::outcome(answer).map(drop)
}

/// Sets the process's execution domain (`PER_LINUX32` and flags).
///
/// # Errors
/// `EINVAL` where the kernel does not have it.
pub fn set_personality(persona: u64) -> io::Result<()> {
    let persona = libc::c_ulong::try_from(persona).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: personality(2) takes an integer. What it changes (addresses of new mappings, the machine's name) holds from
    // the next execve(2) or mmap(2) on and moves nothing that exists.
    let answer = unsafe { libc::personality(persona) };
    crate::outcome(answer.into()).map(drop)
}

/// Lets the calling thread run on these processors only.
///
/// # Errors
/// `EINVAL` when none of them is there or allowed.
pub fn set_processors(processors: &[usize]) -> io::Result<()> {
    let mut set = rustix::thread::CpuSet::new();
    for &processor in processors {
        if processor >= rustix::thread::CpuSet::MAX_CPU {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        set.set(processor);
    }
    Ok(rustix::thread::sched_setaffinity(None, &set)?)
}

/// Where the memory of the calling thread, and of what it executes, comes from: `MPOL_*` with `MPOL_F_*`, and nodes.
///
/// # Errors
/// What set_mempolicy(2) answers: `EINVAL` for nodes that are not there, `ENOSYS` on kernels without NUMA.
pub fn set_memory_policy(mode: u32, nodes: &[u32]) -> io::Result<()> {
    const BITS: usize = libc::c_ulong::BITS as usize;
    let mut mask = [0 as libc::c_ulong; 1024 / BITS];
    for &node in nodes {
        let node = usize::try_from(node).map_err(|_| io::ErrorKind::InvalidInput)?;
        let word = mask.get_mut(node / BITS).ok_or(io::ErrorKind::InvalidInput)?;
        *word |= 1 << (node % BITS);
    }
    // The kernel counts one bit less than it is told.
    let bits = if nodes.is_empty() { 0 } else { mask.len() * BITS + 1 };
    // SAFETY: the mask lives through the call and has at least as many bits as the kernel reads.
    let answer = unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, mask.as_ptr(), bits) };
    crate::outcome(answer).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_can_be_nice() {
        // All of these belong to a thread, so one of its own keeps the test harness unharmed.
        std::thread::spawn(|| {
            set_policy(&Policy { nice: 7, ..Policy::default() }).expect("nice");
            set_policy(&Policy { policy: 3, nice: 7, ..Policy::default() }).expect("batch");
            let stat = std::fs::read_to_string("/proc/thread-self/stat").expect("stat");
            let fields: Vec<&str> = stat.rsplit(") ").next().expect("fields").split(' ').collect();
            assert_eq!((fields[16], fields[38]), ("7", "3"), "nice and policy in {stat}");
            set_policy(&Policy { policy: 77, ..Policy::default() }).expect_err("no policy");
            set_io_priority(2, 6).expect("best effort");
            set_io_priority(9, 6).expect_err("no class");
            set_io_priority(2, 8).expect_err("no priority");
            set_processors(&[0]).expect("the first processor");
            set_processors(&[9999]).expect_err("no processor");
        })
        .join()
        .expect("the thread's checks hold");
    }
}
