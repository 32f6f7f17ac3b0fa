//! Who a process is, and what it can never become again.

use std::io;

use rustix::process::DumpableBehavior;
use rustix::thread::{Gid, Uid};

/// Makes the calling thread `uid`:`gid` (real, effective and saved) with exactly `groups`: setgroups(2), setresgid(2),
/// setresuid(2), in this order. Meant for single-threaded processes; other threads keep who they were.
///
/// # Errors
/// What the kernel answers: `EPERM`, or `EINVAL` for a number that the user namespace does not have.
pub fn become_user(uid: u32, gid: u32, groups: &[u32]) -> io::Result<()> {
    let invalid = || io::Error::from(io::ErrorKind::InvalidInput);
    // The highest number means "unchanged" to the kernel.
    if uid == u32::MAX || gid == u32::MAX || groups.contains(&u32::MAX) {
        return Err(invalid());
    }
    let groups: Vec<Gid> = groups.iter().map(|&g| Gid::from_raw(g)).collect();
    rustix::thread::set_thread_groups(&groups)?;
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    Ok(rustix::thread::set_thread_res_uid(uid, uid, uid)?)
}

/// Runs `work` with `uid` as the calling thread's effective user, then becomes user 0 again. Meant for single-threaded
/// processes of user 0.
///
/// # Errors
/// What setresuid(2) answers; when the way back fails, the work was done all the same.
pub fn as_user<T>(uid: u32, work: impl FnOnce() -> T) -> io::Result<T> {
    if uid == u32::MAX {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let (root, user) = (Uid::ROOT, Uid::from_raw(uid));
    rustix::thread::set_thread_res_uid(root, user, root)?;
    let done = work();
    // The effective capabilities come back with the user.
    rustix::thread::set_thread_res_uid(root, root, root)?;
    Ok(done)
}

/// `PR_SET_NO_NEW_PRIVS` (Linux 3.5): no execve(2) gives privileges any more. For good.
///
/// # Errors
/// What prctl(2) answers.
pub fn set_no_new_privileges() -> io::Result<()> {
    Ok(rustix::thread::set_no_new_privs(true)?)
}

/// `PR_SET_DUMPABLE`: whether others of the same user may look into this process (ptrace, `/proc/PID/fd` and `exe`).
/// It is inherited by a fork and reset by execve(2).
///
/// # Errors
/// What prctl(2) answers.
pub fn set_dumpable(dumpable: bool) -> io::Result<()> {
    let behavior = if dumpable { DumpableBehavior::Dumpable } else { DumpableBehavior::NotDumpable };
    Ok(rustix::process::set_dumpable_behavior(behavior)?)
}

/// Sets the umask and gives the old one.
pub fn set_umask(mask: u32) -> u32 {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(mask)).as_raw_mode()
}

/// Leaves the inherited session keyring for a new, empty one (keyctl(2), `KEYCTL_JOIN_SESSION_KEYRING`).
///
/// # Errors
/// `ENOSYS` on kernels without keyrings, `EDQUOT`, `EPERM` where an outer sandbox forbids it.
pub fn new_session_keyring() -> io::Result<()> {
    // SAFETY: the null pointer asks for an anonymous keyring; no memory of ours is touched.
    let answer =
        unsafe { libc::syscall(libc::SYS_keyctl, libc::KEYCTL_JOIN_SESSION_KEYRING, std::ptr::null::<libc::c_char>()) };
    crate::outcome(answer).map(drop)
}
