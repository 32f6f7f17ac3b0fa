//! Programs that decide which devices the processes of a cgroup may use: bpf(2), `BPF_PROG_TYPE_CGROUP_DEVICE`,
//! Linux 4.15.

use std::ffi::c_char;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

const PROG_LOAD: libc::c_int = 5;
const PROG_ATTACH: libc::c_int = 8;
const TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_CGROUP_DEVICE: u32 = 6;
/// Programs of the cgroups above and below run, too.
const ALLOW_MULTI: u32 = 2;
const INSTRUCTION: usize = 8;

/// The beginning of `union bpf_attr` for `BPF_PROG_LOAD`; the kernel takes what is missing for zero.
#[repr(C)]
#[derive(Debug)]
struct Load {
    kind: u32,
    length: u32,
    /// Addresses, as 64-bit numbers on every machine.
    instructions: u64,
    license: u64,
}

/// The same for `BPF_PROG_ATTACH`.
#[repr(C)]
#[derive(Debug)]
struct Attach {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
}

/// Loads a program, an array of `struct bpf_insn` in the machine's byte order, eight bytes each.
///
/// # Errors
/// [`io::ErrorKind::InvalidInput`] when it is no such array; what the kernel's verifier rejects is `EINVAL` or `EACCES`;
/// `EPERM` without CAP_BPF and CAP_NET_ADMIN; `ENOSYS` where the kernel has no bpf(2).
pub fn load_device_filter(program: &[u8]) -> io::Result<OwnedFd> {
    if program.is_empty() || !program.len().is_multiple_of(INSTRUCTION) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{} bytes are no program", program.len())));
    }
    let length = u32::try_from(program.len() / INSTRUCTION).map_err(|_| io::ErrorKind::InvalidInput)?;
    let license: *const c_char = c"Apache-2.0".as_ptr();
    let attributes = Load {
        kind: TYPE_CGROUP_DEVICE,
        length,
        instructions: program.as_ptr().expose_provenance() as u64,
        license: license.expose_provenance() as u64,
    };
    // SAFETY: the two addresses point to `length` instructions and to a C string that live through the call; the kernel
    // copies them. The size is the structure's own.
    let answer = unsafe { libc::syscall(libc::SYS_bpf, PROG_LOAD, &raw const attributes, size_of::<Load>()) };
    let fd = RawFd::try_from(crate::outcome(answer)?).map_err(|_| io::ErrorKind::InvalidData)?;
    // SAFETY: the call has just made the descriptor (close-on-exec, always), and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Attaches it to a cgroup of the v2 tree, beside what is attached there. It stays as long as the cgroup.
///
/// # Errors
/// `EBADF` when `cgroup` is no cgroup of v2; `EPERM` where a cgroup above permits no further programs.
pub fn attach_device_filter(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let number = |fd: BorrowedFd<'_>| u32::try_from(fd.as_raw_fd()).map_err(|_| io::ErrorKind::InvalidInput);
    let attributes =
        Attach { target: number(cgroup)?, program: number(program)?, kind: ATTACH_CGROUP_DEVICE, flags: ALLOW_MULTI };
    // SAFETY: the structure holds no addresses, both descriptors are borrowed, and the size is its own.
    let answer = unsafe { libc::syscall(libc::SYS_bpf, PROG_ATTACH, &raw const attributes, size_of::<Attach>()) };
    crate::outcome(answer).map(drop)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn only_programs_for_cgroups_are_taken() {
        for torn in [&[][..], &[0; 12]] {
            assert_eq!(load_device_filter(torn).expect_err("torn").kind(), io::ErrorKind::InvalidInput);
        }
        // No answer and no end.
        load_device_filter(&[0xb7, 0, 0, 0, 1, 0, 0, 0]).expect_err("the verifier sees it");
        let allow = load_device_filter(&[0xb7, 0, 0, 0, 1, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0]).expect("loaded");
        let elsewhere = std::fs::File::open("/proc").expect("a folder");
        attach_device_filter(elsewhere.as_fd(), allow.as_fd()).expect_err("no cgroup");
    }
}
