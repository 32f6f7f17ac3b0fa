//! User namespaces (user_namespaces(7)), made by a privileged process for others: ids 0 to n-1 inside are n ids outside.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::fork::{self, Birth};
use crate::namespace::Namespaces;
use crate::{Mode, OFlags, fd};

/// Gives the user namespace of a process, which has just been born into it, its ids: `host` and up for 0 to `length` - 1.
/// Once and for all.
///
/// # Errors
/// What the kernel answers to a write to `/proc/PID/uid_map` and `gid_map`: `EINVAL` for a range that wraps around.
pub fn set_ids(pid: i32, host: u32, length: u32) -> io::Result<()> {
    let map = format!("0 {host} {length}\n");
    set_maps(pid, &map, &map)
}

/// As [`set_ids`], with lines of `INSIDE OUTSIDE LENGTH` for users and for groups.
///
/// # Errors
/// As [`set_ids`]; `EINVAL` for ranges that overlap, and past 340 of them.
pub fn set_maps(pid: i32, users: &str, groups: &str) -> io::Result<()> {
    fs::write(format!("/proc/{pid}/uid_map"), users)?;
    fs::write(format!("/proc/{pid}/gid_map"), groups)
}

/// A user namespace of its own with these ids, held by the descriptor alone. The caller must have one thread.
///
/// # Errors
/// As [`set_ids`] and [`fork::spawn`]; `ENOSPC` past `user.max_user_namespaces`.
pub fn make(host: u32, length: u32) -> io::Result<OwnedFd> {
    let map = format!("0 {host} {length}\n");
    make_with_maps(&map, &map)
}

/// As [`make`], with the maps of [`set_maps`].
///
/// # Errors
/// As [`make`].
pub fn make_with_maps(users: &str, groups: &str) -> io::Result<OwnedFd> {
    let (reader, writer) = fd::pipe()?;
    let descriptors = [reader.as_fd()];
    let birth = Birth { namespaces: Namespaces::USER, descriptors: &descriptors, ..Birth::default() };
    let child = fork::spawn(&birth, |descriptors| {
        // It only lives for the namespace to be seen.
        let _ = descriptors.first().map(|pipe| wait_for_end(pipe.as_fd()));
        0
    })?;
    let made = set_maps(child.pid, users, groups)
        .and_then(|()| fd::open(format!("/proc/{}/ns/user", child.pid), OFlags::RDONLY, Mode::empty()));
    drop(writer);
    let _ = child.pidfd.wait();
    made
}

/// Reads a pipe until all its writers are gone.
///
/// # Errors
/// What read(2) answers.
pub fn wait_for_end(pipe: BorrowedFd<'_>) -> io::Result<()> {
    let mut byte = [0];
    while fd::read(pipe, &mut byte)? > 0 {}
    Ok(())
}
