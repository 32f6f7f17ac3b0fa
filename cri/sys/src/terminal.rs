//! Pseudoterminals (pty(7)): made in a given devpts, the peer by descriptor and never by a path (`TIOCGPTPEER`, Linux 4.13).

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;

use crate::path::{self, Resolve};

/// `DEVPTS_SUPER_MAGIC`.
const DEVPTS: u64 = 0x1cd1;
/// The multiplexer's device number.
const PTMX: (u32, u32) = (5, 2);
/// Major numbers of the peers (`UNIX98_PTY_SLAVE_MAJOR` and those after it).
const PEERS: std::ops::RangeInclusive<u32> = 136..=143;

/// A terminal: what it shows is read from the master, and what is written there is typed.
#[derive(Debug)]
pub struct Pair {
    pub master: OwnedFd,
    pub peer: OwnedFd,
}

/// Makes a terminal in the devpts whose root `folder` is (an `O_PATH` handle does). Nothing is opened before it is known
/// to lie on a devpts, where nobody can make links or other devices.
///
/// # Errors
/// [`io::ErrorKind::InvalidInput`] when the folder is on another file system; what open(2) and ioctl(2) answer: `ENOSPC`
/// when there are too many terminals.
pub fn open(folder: BorrowedFd<'_>) -> io::Result<Pair> {
    let invalid = |text: &'static str| io::Error::new(io::ErrorKind::InvalidInput, text);
    if u64::try_from(rustix::fs::fstatfs(folder)?.f_type).ok() != Some(DEVPTS) {
        return Err(invalid("it is no devpts"));
    }
    let resolve = Resolve::BENEATH | Resolve::NO_SYMLINKS | Resolve::NO_XDEV;
    let flags = OFlags::RDWR | OFlags::NOCTTY;
    let master = path::open_below(folder, Path::new("ptmx"), flags, Mode::empty(), resolve)?;
    if !path::facts(master.as_fd())?.is_character_device(PTMX.0, PTMX.1) {
        return Err(invalid("its ptmx is another device"));
    }
    rustix::pty::unlockpt(&master)?;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let peer = rustix::pty::ioctl_tiocgptpeer(&master, flags)?;
    if !is_peer(peer.as_fd())? {
        return Err(invalid("its peer is another device"));
    }
    Ok(Pair { master, peer })
}

/// Whether a descriptor is a pseudoterminal's peer.
///
/// # Errors
/// What fstat(2) answers.
pub fn is_peer(fd: BorrowedFd<'_>) -> io::Result<bool> {
    let facts = path::facts(fd)?;
    Ok(PEERS.contains(&facts.major) && facts.is_character_device(facts.major, facts.minor))
}

/// Makes a terminal the controlling one of the session that the caller leads (`TIOCSCTTY`).
///
/// # Errors
/// `EPERM` when the caller leads no session or the terminal is another's.
pub fn set_controlling(terminal: impl AsFd) -> io::Result<()> {
    Ok(rustix::process::ioctl_tiocsctty(terminal)?)
}

/// Sets a terminal's size in characters, which tells its foreground processes (`TIOCSWINSZ`).
///
/// # Errors
/// What ioctl(2) answers.
pub fn resize(terminal: impl AsFd, width: u16, height: u16) -> io::Result<()> {
    let size = Winsize { ws_row: height, ws_col: width, ws_xpixel: 0, ws_ypixel: 0 };
    Ok(rustix::termios::tcsetwinsize(terminal, size)?)
}

/// Gives one terminal the size of another.
///
/// # Errors
/// What ioctl(2) answers: `ENOTTY` for what is no terminal.
pub fn copy_size(from: impl AsFd, to: impl AsFd) -> io::Result<()> {
    let size = rustix::termios::tcgetwinsize(from)?;
    Ok(rustix::termios::tcsetwinsize(to, size)?)
}

/// A terminal that passes every byte on as it is; dropping this sets it back.
#[derive(Debug)]
pub struct Raw<'a> {
    terminal: BorrowedFd<'a>,
    before: rustix::termios::Termios,
}

impl<'a> Raw<'a> {
    /// # Errors
    /// `ENOTTY` for what is no terminal.
    pub fn set(terminal: BorrowedFd<'a>) -> io::Result<Self> {
        let before = rustix::termios::tcgetattr(terminal)?;
        let mut raw = before.clone();
        raw.make_raw();
        rustix::termios::tcsetattr(terminal, rustix::termios::OptionalActions::Now, &raw)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Raw<'_> {
    fn drop(&mut self) {
        let now = rustix::termios::OptionalActions::Now;
        let _ = rustix::termios::tcsetattr(self.terminal, now, &self.before);
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Write};

    use super::*;
    use crate::mount::FsContext;

    fn devpts() -> crate::mount::Tree {
        let context = FsContext::open("devpts").expect("the test needs root");
        for (key, value) in [("newinstance", ""), ("ptmxmode", "0666"), ("mode", "0620")] {
            context.set(key, value).expect("option");
        }
        context.mount(0).expect("mount")
    }

    #[test]
    fn what_is_typed_is_echoed_and_the_size_is_kept() {
        let tree = devpts();
        let pair = open(tree.as_fd()).expect("a terminal");
        let (mut master, mut peer) = (File::from(pair.master), File::from(pair.peer));
        resize(&master, 91, 17).expect("resize");
        let size = rustix::termios::tcgetwinsize(&peer).expect("its size");
        assert_eq!((size.ws_col, size.ws_row), (91, 17));
        master.write_all(b"typed\n").expect("type");
        let mut buffer = [0; 7];
        master.read_exact(&mut buffer).expect("echo");
        assert_eq!(&buffer, b"typed\r\n");
        assert_eq!(peer.read(&mut buffer).expect("the line"), 6);
        drop(peer);
        assert_eq!(master.read(&mut buffer).expect_err("hung up").raw_os_error(), Some(libc::EIO));
    }

    #[test]
    fn other_folders_are_refused() {
        let folder = crate::fd::open("/dev", OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).expect("/dev");
        assert_eq!(open(folder.as_fd()).expect_err("no devpts").kind(), io::ErrorKind::InvalidInput);
        assert!(!is_peer(File::open("/dev/null").expect("null").as_fd()).expect("stat"));
    }
}
