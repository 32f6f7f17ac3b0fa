//! The shim's state and its loop.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use berth_sys::event::Epoll;
use berth_sys::path::Root;
use berth_sys::pidfd::Ended;
use berth_sys::signal::{SIGCHLD, SignalFd};
use berth_sys::{Mode, OFlags, fd, process};

use crate::answer::Asker;
use crate::clients::Clients;
use crate::containers::Containers;
use crate::execs::Execs;
use crate::logger::Logger;
use crate::pod::Pod;

/// What an event is about; the number says which client, container or exec.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Key {
    Listener,
    Signals,
    Logger,
    Client(u32),
    Container(u32),
    Exec(u32),
}

impl Key {
    pub(crate) fn number(self) -> u64 {
        let (kind, id) = match self {
            Self::Listener => (0, 0),
            Self::Signals => (1, 0),
            Self::Logger => (2, 0),
            Self::Client(id) => (3, id),
            Self::Container(id) => (4, id),
            Self::Exec(id) => (5, id),
        };
        kind << 32 | u64::from(id)
    }

    fn of(number: u64) -> Option<Self> {
        let id = u32::try_from(number & u64::from(u32::MAX)).ok()?;
        Some(match number >> 32 {
            0 => Self::Listener,
            1 => Self::Signals,
            2 => Self::Logger,
            3 => Self::Client(id),
            4 => Self::Container(id),
            5 => Self::Exec(id),
            _ => return None,
        })
    }
}

#[derive(Debug)]
pub(crate) struct Shim {
    /// The sandbox's folder.
    pub(crate) folder: Root,
    pub(crate) epoll: Epoll,
    signals: SignalFd,
    pub(crate) listener: OwnedFd,
    /// The PID namespace that containers' first processes are born from.
    pub(crate) pid_namespace: OwnedFd,
    pub(crate) null: OwnedFd,
    pub(crate) clients: Clients,
    pub(crate) logger: Logger,
    pub(crate) containers: Containers,
    pub(crate) execs: Execs,
    pub(crate) sandbox_ready: bool,
    pub(crate) pod: Pod,
    /// Who asked for the end.
    pub(crate) leaving: Option<Asker>,
    /// Numbers for clients, containers and execs: never used twice.
    next: u32,
}

impl Shim {
    pub(crate) fn new(folder: OwnedFd, listener: OwnedFd) -> io::Result<Self> {
        let signals = SignalFd::block(&[SIGCHLD])?;
        let epoll = Epoll::new()?;
        epoll.add(&listener, Key::Listener.number())?;
        epoll.add(signals.as_fd(), Key::Signals.number())?;
        Ok(Self {
            folder: Root::from_fd(folder),
            epoll,
            signals,
            listener,
            pid_namespace: fd::open("/proc/self/ns/pid", OFlags::RDONLY, Mode::empty())?,
            null: fd::open("/dev/null", OFlags::RDWR, Mode::empty())?,
            clients: Clients::default(),
            logger: Logger::default(),
            containers: Containers::default(),
            execs: Execs::default(),
            sandbox_ready: false,
            pod: Pod::default(),
            leaving: None,
            next: 1,
        })
    }

    pub(crate) fn open_in_folder(&self, name: &str, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
        self.folder.open_file(name, flags, mode).map(OwnedFd::from)
    }

    pub(crate) fn remove_in_folder(&self, name: &str) -> io::Result<()> {
        berth_sys::path::remove(self.folder.as_fd(), name)
    }

    pub(crate) fn number(&mut self) -> u32 {
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        number
    }

    /// Serves until it is asked to leave.
    pub(crate) fn run(&mut self) -> io::Result<()> {
        let mut ready = Vec::new();
        while self.leaving.is_none() {
            self.epoll.wait(&mut ready, self.patience())?;
            for key in ready.iter().copied().filter_map(Key::of) {
                match key {
                    Key::Listener => self.accept(),
                    Key::Signals => self.reap_all()?,
                    Key::Logger => self.hear_logger(),
                    Key::Client(id) => self.hear_client(id),
                    Key::Container(id) => self.hear_container(id),
                    Key::Exec(id) => self.hear_exec(id),
                }
            }
            self.check_deadlines();
        }
        Ok(())
    }

    /// Milliseconds until something must be done although nothing happened; -1 for never.
    fn patience(&self) -> i32 {
        let deadline = self.containers.deadline().into_iter().chain(self.logger.deadline()).min();
        deadline.map_or(-1, |at| i32::try_from(at.saturating_sub(process::monotonic())).unwrap_or(i32::MAX))
    }

    fn check_deadlines(&mut self) {
        let now = process::monotonic();
        if self.logger.deadline().is_some_and(|at| at <= now) {
            self.start_logger();
        }
        while let Some(id) = self.containers.overdue(now) {
            self.finish_container(id);
        }
    }

    /// Reaps every child that has ended: containers, execs, the logger, and orphans that became ours.
    fn reap_all(&mut self) -> io::Result<()> {
        while self.signals.next()?.is_some() {}
        while let Some((pid, ended)) = process::reap()? {
            self.reaped(pid, ended)?;
        }
        Ok(())
    }

    fn reaped(&mut self, pid: i32, ended: Ended) -> io::Result<()> {
        self.containers.learn_heirs();
        self.execs.learn_heirs();
        if let Some(id) = self.containers.of_pid(pid) {
            self.container_ended(id, ended);
        } else if let Some(id) = self.execs.of_pid(pid) {
            self.exec_ended(id, ended);
        } else if self.logger.is(pid) {
            self.logger_ended();
        } else if self.pod.is_init(pid) {
            return self.init_ended();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Key;

    #[test]
    fn keys_come_back() {
        for key in [Key::Listener, Key::Signals, Key::Logger, Key::Client(7), Key::Container(u32::MAX), Key::Exec(0)] {
            assert_eq!(Key::of(key.number()), Some(key));
        }
        assert_eq!(Key::of(99 << 32), None);
    }
}
