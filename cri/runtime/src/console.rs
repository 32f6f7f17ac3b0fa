//! Terminals: handed over a socket, or shown on the terminal of whoever called.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use berth_sys::pidfd::{Ended, PidFd};
use berth_sys::signal::SignalFd;
use berth_sys::terminal::{self, Raw};
use berth_sys::{event, fd, seqpacket};

use crate::fault::{During, Fault, Outcome};
use crate::signals::SIGWINCH;

/// Sends a terminal's master to who listens at a socket, with its name, as runc does.
pub(crate) fn send(socket: &Path, master: &OwnedFd) -> Outcome<()> {
    let act = || format!("--console-socket {}", socket.display());
    let connection = UnixStream::connect(socket).during(act)?;
    let name = b"/dev/ptmx";
    seqpacket::send(connection.as_fd(), name, &[master.as_fd()]).during(act)
}

/// What goes on while a process runs in the foreground.
#[derive(Debug)]
pub(crate) struct Foreground<'a> {
    pub(crate) process: &'a PidFd,
    pub(crate) signals: &'a SignalFd,
    pub(crate) terminal: Option<OwnedFd>,
}

impl Foreground<'_> {
    /// Passes signals and the terminal on until the process has ended; how it did.
    pub(crate) fn wait(self) -> Outcome<Ended> {
        let input = io::stdin();
        let mut raw = None;
        let mut open = false;
        if let Some(master) = &self.terminal {
            // What is no terminal has nothing to be set.
            raw = Raw::set(input.as_fd()).ok();
            let _ = terminal::copy_size(input.as_fd(), master.as_fd());
            open = true;
        }
        let outcome = self.follow(input.as_fd(), &mut open);
        drop(raw);
        outcome
    }

    fn follow(&self, input: BorrowedFd<'_>, open: &mut bool) -> Outcome<Ended> {
        let mut showing = self.terminal.is_some();
        loop {
            let mut watched = vec![self.process.as_fd(), self.signals.as_fd()];
            if let Some(master) = &self.terminal {
                if showing {
                    watched.push(master.as_fd());
                }
                if *open {
                    watched.push(input);
                }
            }
            let ready = event::wait_readable(&watched, -1).during(|| "wait".to_owned())?;
            let is_ready = |at: usize| ready.get(at).copied().unwrap_or(false);
            if is_ready(1) {
                self.pass_signals()?;
            }
            if let Some(master) = &self.terminal {
                let (shows, typed) = if showing { (is_ready(2), is_ready(3)) } else { (false, is_ready(2)) };
                if showing && shows {
                    showing = copy(master.as_fd(), &mut io::stdout())?;
                }
                if *open && typed {
                    *open = copy(input, &mut File::from(duplicate(master)?))?;
                }
            }
            // What it has said last is shown first.
            if is_ready(0) && !(showing && is_ready(2)) {
                return self.process.wait().during(|| "wait for the process".to_owned());
            }
        }
    }

    fn pass_signals(&self) -> Outcome<()> {
        let act = || "pass a signal on".to_owned();
        while let Some(signal) = self.signals.next().during(act)? {
            match &self.terminal {
                Some(master) if signal == SIGWINCH => {
                    let _ = terminal::copy_size(io::stdin().as_fd(), master.as_fd());
                }
                _ => self.process.send_signal(signal).during(act)?,
            }
        }
        Ok(())
    }
}

fn duplicate(fd: &OwnedFd) -> Outcome<OwnedFd> {
    fd::duplicate(fd).during(|| "copy a descriptor".to_owned())
}

/// Copies what is there; whether more may come.
fn copy(from: BorrowedFd<'_>, to: &mut impl Write) -> Outcome<bool> {
    let mut buffer = [0; 8192];
    match fd::read(from, &mut buffer) {
        // EIO: nobody has the other side open any more.
        Ok(0) | Err(_) => Ok(false),
        Ok(length) => {
            to.write_all(&buffer[..length]).and_then(|()| to.flush()).during(|| "copy the terminal".to_owned())?;
            Ok(true)
        }
    }
}

/// What goes together among options for terminals.
pub(crate) fn check(terminal: bool, detach: bool, socket: bool) -> Outcome<()> {
    let refuse = |text: &str| Err(Fault::new(text));
    match (terminal, detach, socket) {
        (true, true, false) => refuse("cannot allocate tty if runc will detach without setting console socket"),
        (false, _, true) | (true, false, true) => {
            refuse("cannot use console socket if runc will not detach or allocate tty")
        }
        _ => Ok(()),
    }
}
