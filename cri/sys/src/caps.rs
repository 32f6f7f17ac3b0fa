//! Capabilities (capabilities(7)) as bit masks: bit n is capability n.

use std::io;

use rustix::thread::{CapabilitySet, CapabilitySets};

/// The capabilities that the kernel has: all up to the first that prctl(2) does not know, which is searched in halves.
fn known() -> std::ops::Range<u32> {
    let (mut low, mut high) = (0, 64);
    while low < high {
        let middle = (low + high) / 2;
        if prctl(libc::PR_CAPBSET_READ, middle.into(), 0).is_ok() { low = middle + 1 } else { high = middle }
    }
    0..low
}

/// The bounding set of the calling thread.
pub fn bounding() -> u64 {
    known().filter(|&n| matches!(prctl(libc::PR_CAPBSET_READ, n.into(), 0), Ok(1))).fold(0, |mask, n| mask | 1 << n)
}

/// The effective set of the calling thread.
///
/// # Errors
/// What capget(2) answers.
pub fn effective() -> io::Result<u64> {
    Ok(rustix::thread::capabilities(None)?.effective.bits())
}

/// The permitted set of the calling thread.
///
/// # Errors
/// What capget(2) answers.
pub fn permitted() -> io::Result<u64> {
    Ok(rustix::thread::capabilities(None)?.permitted.bits())
}

/// Drops from the bounding set whatever is not in `keep`. Capabilities that are not in it already stay out.
///
/// # Errors
/// What prctl(2) answers: `EPERM` without CAP_SETPCAP.
pub fn limit_bounding(keep: u64) -> io::Result<()> {
    for n in known().filter(|&n| keep & 1 << n == 0) {
        match prctl(libc::PR_CAPBSET_DROP, n.into(), 0) {
            Err(error) if prctl(libc::PR_CAPBSET_READ, n.into(), 0)? == 1 => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Sets the effective, permitted and inheritable sets (capset(2)). What exceeds the permitted or bounding set is refused
/// by the kernel, not dropped here: see [`permitted`] and [`bounding`].
///
/// # Errors
/// `EPERM` when a capability is asked for that the thread may not have.
pub fn set(effective: u64, permitted: u64, inheritable: u64) -> io::Result<()> {
    let sets = CapabilitySets {
        effective: CapabilitySet::from_bits_retain(effective),
        permitted: CapabilitySet::from_bits_retain(permitted),
        inheritable: CapabilitySet::from_bits_retain(inheritable),
    };
    Ok(rustix::thread::set_capabilities(None, sets)?)
}

/// Makes the ambient set exactly `mask` (Linux 4.3); each must be permitted and inheritable already.
///
/// # Errors
/// What prctl(2) answers.
pub fn set_ambient(mask: u64) -> io::Result<()> {
    prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as libc::c_ulong, 0)?;
    // What the kernel does not have can't be permitted, and is refused as such.
    for n in (0..64u32).filter(|&n| mask & 1 << n != 0) {
        prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE as libc::c_ulong, n.into())?;
    }
    Ok(())
}

/// Whether the permitted set survives the change from user 0 to another (`PR_SET_KEEPCAPS`); execve(2) clears it.
///
/// # Errors
/// What prctl(2) answers.
pub fn keep_over_setuid(keep: bool) -> io::Result<()> {
    prctl(libc::PR_SET_KEEPCAPS, libc::c_ulong::from(keep), 0).map(drop)
}

fn prctl(operation: i32, second: libc::c_ulong, third: libc::c_ulong) -> io::Result<i32> {
    // SAFETY: every operation used in this module takes plain numbers, no pointers.
    let answer = unsafe { libc::prctl(operation, second, third, 0 as libc::c_ulong, 0 as libc::c_ulong) };
    crate::outcome(answer.into()).map(|_| answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The five sets of a thread.
    #[derive(Debug, PartialEq, Eq)]
    struct Sets {
        bounding: u64,
        effective: u64,
        permitted: u64,
        inheritable: u64,
        ambient: u64,
    }

    fn current() -> io::Result<Sets> {
        let inheritable = rustix::thread::capabilities(None)?.inheritable.bits();
        let ambient = known().filter(|&n| {
            matches!(prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_IS_SET as libc::c_ulong, n.into()), Ok(1))
        });
        let ambient = ambient.fold(0, |mask, n| mask | 1 << n);
        Ok(Sets { bounding: bounding(), effective: effective()?, permitted: permitted()?, inheritable, ambient })
    }

    #[test]
    fn a_thread_can_give_up_capabilities() {
        // Capabilities belong to a thread, so a thread of its own keeps the test harness unharmed.
        std::thread::spawn(|| {
            let kill = 1 << 5;
            assert!(bounding() & kill != 0, "the test needs root");
            limit_bounding(kill).expect("limit");
            assert_eq!(bounding(), kill);
            set(kill, kill, kill).expect("set");
            set_ambient(kill).expect("ambient");
            let sets = Sets { bounding: kill, effective: kill, permitted: kill, inheritable: kill, ambient: kill };
            assert_eq!(current().expect("current"), sets);
            assert_eq!(set(3, 3, 0).expect_err("not ours").raw_os_error(), Some(libc::EPERM));
        })
        .join()
        .expect("the thread's checks hold");
    }
}
