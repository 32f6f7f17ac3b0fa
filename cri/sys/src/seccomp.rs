//! System call filters: seccomp(2), Linux 3.17.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// The kernel's limit of a filter's length (`BPF_MAXINSNS`).
const MAX_INSTRUCTIONS: usize = 4096;
const INSTRUCTION: usize = 8;

/// Installs a compiled filter for the calling thread and its children, for good. `bpf` is an array of `struct
/// sock_filter` in the machine's byte order, eight bytes each. The thread needs no_new_privileges or CAP_SYS_ADMIN.
///
/// # Errors
/// [`io::ErrorKind::InvalidInput`] when `bpf` is no such array; `EINVAL` when the kernel rejects the program; `EACCES`.
pub fn install(bpf: &[u8]) -> io::Result<()> {
    load(bpf, 0).map(drop)
}

/// Logs every action but "allow" (Linux 4.14).
pub const LOG: u64 = libc::SECCOMP_FILTER_FLAG_LOG;
/// Leaves speculative store bypass on (Linux 4.17).
pub const SPEC_ALLOW: u64 = libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW;
/// Once a listener has received a notification, only a fatal signal interrupts the call (Linux 5.19).
pub const WAIT_KILLABLE: u64 = libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;

/// As [`install`], with [`LOG`] and the like.
///
/// # Errors
/// As [`install`]; `EINVAL` for flags that the kernel does not know.
pub fn install_with(bpf: &[u8], flags: u64) -> io::Result<()> {
    load(bpf, flags & !libc::SECCOMP_FILTER_FLAG_NEW_LISTENER).map(drop)
}

/// As [`install_with`], and gives the descriptor where calls that the filter answers with "notify" arrive
/// (seccomp_unotify(2), Linux 5.0).
///
/// # Errors
/// As [`install_with`]; `EBUSY` where a filter with a listener is installed already.
pub fn install_listening(bpf: &[u8], flags: u64) -> io::Result<OwnedFd> {
    let answer = load(bpf, flags | libc::SECCOMP_FILTER_FLAG_NEW_LISTENER)?;
    let fd = RawFd::try_from(answer).map_err(|_| io::ErrorKind::InvalidData)?;
    // SAFETY: with SECCOMP_FILTER_FLAG_NEW_LISTENER the call answers with a new descriptor (close-on-exec, always), which
    // nobody else has.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn load(bpf: &[u8], flags: u64) -> io::Result<libc::c_long> {
    if bpf.is_empty() || !bpf.len().is_multiple_of(INSTRUCTION) || bpf.len() / INSTRUCTION > MAX_INSTRUCTIONS {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{} bytes are no filter", bpf.len())));
    }
    let mut program: Vec<libc::sock_filter> = bpf
        .chunks_exact(INSTRUCTION)
        .map(|c| libc::sock_filter {
            code: u16::from_ne_bytes([c[0], c[1]]),
            jt: c[2],
            jf: c[3],
            k: u32::from_ne_bytes([c[4], c[5], c[6], c[7]]),
        })
        .collect();
    let length = u16::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let filter = libc::sock_fprog { len: length, filter: program.as_mut_ptr() };
    // SAFETY: `filter` points to `length` instructions that live through the call; the kernel copies and checks them.
    let answer = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const filter) };
    crate::outcome(answer)
}

/// Strict mode, for good: from here on the thread may read(2), write(2), return from signals and leave by [`leave`]; any
/// other call is its death.
///
/// # Errors
/// `EINVAL` on a kernel without it.
pub fn be_strict() -> io::Result<()> {
    let nothing = std::ptr::null::<libc::c_void>();
    // SAFETY: strict mode takes no argument, and touches no memory of ours.
    let answer = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_STRICT, 0, nothing) };
    crate::outcome(answer).map(drop)
}

/// Ends the calling thread, a process's only one, by the one call that strict mode leaves for it: exit(2), where the C
/// library would use exit_group(2). Nothing is flushed and no handler runs.
pub fn leave(status: i32) -> ! {
    loop {
        // SAFETY: exit(2) takes an integer. It ends this thread, so no reference of its own is used afterwards; the
        // caller has no other threads.
        unsafe { libc::syscall(libc::SYS_exit, status) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statement(code: u16, k: u32) -> [u8; 8] {
        let (c, k) = (code.to_ne_bytes(), k.to_ne_bytes());
        [c[0], c[1], 0, 0, k[0], k[1], k[2], k[3]]
    }

    #[test]
    fn a_filter_answers_for_the_kernel() {
        // Filters belong to a thread: this one refuses every further call with EPERM except exit and what a test needs.
        let worker = std::thread::spawn(|| {
            let mut program = Vec::new();
            program.extend(statement(0x20, 0)); // load the call's number
            let getppid = u32::try_from(libc::SYS_getppid).expect("a number");
            let mut jump = statement(0x15, getppid); // equal?
            jump[2] = 0;
            jump[3] = 1;
            program.extend(jump);
            program.extend(statement(0x06, 0x0005_0000 | 77)); // errno 77
            program.extend(statement(0x06, 0x7fff_0000)); // allow
            crate::credentials::set_no_new_privileges().expect("no new privileges");
            install(&program).expect("install");
            // SAFETY: getppid(2) takes nothing.
            let answer = unsafe { libc::syscall(libc::SYS_getppid) };
            crate::outcome(answer).expect_err("filtered").raw_os_error()
        });
        assert_eq!(worker.join().expect("the thread ends"), Some(77));
    }

    #[test]
    fn what_is_no_filter_is_refused() {
        assert_eq!(install(&[]).expect_err("empty").kind(), io::ErrorKind::InvalidInput);
        assert_eq!(install(&[0; 12]).expect_err("torn").kind(), io::ErrorKind::InvalidInput);
    }
}
