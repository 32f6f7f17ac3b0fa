//! The logger: a fork of the shim that reads containers' output, writes their logs, and copies it to attached clients.
//!
//! It may wait for a disk as long as it likes; the shim only sends it orders, without waiting, and goes on. The shim keeps
//! the pipes' read ends, so that a logger that dies is replaced and the containers never see a closed pipe. What the dead
//! one had read and not written is lost, at most [`lines::MAX`] bytes of a stream.

mod child;
mod lines;
mod orders;
mod sinks;

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};

use berth_plan::message::{Failure, Reply, Stage};
use berth_sys::fork::{self, Birth};
use berth_sys::{fd, process, seqpacket};

use crate::answer::{Answer, Asker, failed, refused};
use crate::attach::{Attaching, Wanted};
use crate::shim::{Key, Shim};
use orders::{Done, Order};

/// How long a logger must have lived to be replaced at once, and how long the next waits otherwise; milliseconds.
const PAUSE: u64 = 1000;
/// How long the shim waits for the logger at its own end, in milliseconds.
const FAREWELL: i32 = 100;

#[derive(Debug, Default)]
pub(crate) struct Logger {
    life: Life,
    /// Who waits for which container's new log file.
    reopening: Vec<(u32, Asker)>,
    /// Who waits to be attached, in the order of the orders.
    joining: VecDeque<Attaching>,
}

#[derive(Debug, Default)]
enum Life {
    /// Forked with the sandbox, by when the runtime has put the shim into its cgroup.
    #[default]
    Unborn,
    Alive {
        pid: i32,
        socket: OwnedFd,
        since: u64,
    },
    Dead {
        retry_at: u64,
    },
}

impl Logger {
    pub(crate) fn is(&self, child: i32) -> bool {
        matches!(self.life, Life::Alive { pid, .. } if pid == child)
    }

    /// When a new one is to be forked.
    pub(crate) fn deadline(&self) -> Option<u64> {
        match self.life {
            Life::Unborn | Life::Alive { .. } => None,
            Life::Dead { retry_at } => Some(retry_at),
        }
    }

    /// Sends an order without waiting.
    fn send(&self, order: Order, id: u32, path: &[u8], streams: &[OwnedFd]) -> Result<(), Failure> {
        let Life::Alive { socket, .. } = &self.life else { return Err(refused(Stage::Log, "there is no logger")) };
        let descriptors: Vec<_> = streams.iter().map(AsFd::as_fd).collect();
        seqpacket::send(socket.as_fd(), &orders::encode(order, id, path), &descriptors)
            .map_err(failed(Stage::Log, "reach the logger"))
    }
}

impl Shim {
    /// Forks a logger and gives it every container's streams.
    pub(crate) fn start_logger(&mut self) {
        let now = process::monotonic();
        self.logger.life = Life::Dead { retry_at: now + PAUSE };
        let Ok((ours, theirs)) = seqpacket::pair() else { return };
        let stdio = Some([self.null.as_fd(), self.null.as_fd(), self.null.as_fd()]);
        let birth = Birth { stdio, descriptors: &[theirs.as_fd()], ..Birth::default() };
        let started = fd::set_nonblocking(ours.as_fd(), true)
            .and_then(|()| self.epoll.add(&ours, Key::Logger.number()))
            .and_then(|()| fork::spawn(&birth, child::run));
        match started {
            Ok(child) => self.logger.life = Life::Alive { pid: child.pid, socket: ours, since: now },
            Err(error) => {
                eprintln!("berth-shim: fork the logger: {error}");
                return;
            }
        }
        let mut orders = Vec::new();
        for container in self.containers.iter() {
            let path = container.log_path().as_bytes();
            let sent = self.logger.send(Order::Open, container.id, path, &container.streams);
            if sent.is_ok() && container.is_draining() {
                orders.push(container.id);
            }
        }
        for id in orders {
            let _ = self.drain_log(id);
        }
    }

    /// Its process was reaped.
    pub(crate) fn logger_ended(&mut self) {
        let Life::Alive { socket, since, .. } = &self.logger.life else { return };
        let _ = self.epoll.remove(socket);
        let (now, since) = (process::monotonic(), *since);
        // The pipes of those who were attached went with it.
        for attaching in std::mem::take(&mut self.logger.joining) {
            self.attached(&attaching, Err(refused(Stage::Log, "the log writer ended: attach again")));
        }
        if now.saturating_sub(since) >= PAUSE {
            self.start_logger();
        } else {
            self.logger.life = Life::Dead { retry_at: now + PAUSE };
        }
    }

    pub(crate) fn open_log(&mut self, id: u32) -> Result<(), Failure> {
        let Some(container) = self.containers.iter().find(|container| container.id == id) else { return Ok(()) };
        self.logger.send(Order::Open, id, container.log_path().as_bytes(), &container.streams)
    }

    /// The terminal that a container has made is there.
    pub(crate) fn read_terminal(&mut self, id: u32) -> Result<(), Failure> {
        let Some(container) = self.containers.iter().find(|container| container.id == id) else { return Ok(()) };
        self.logger.send(Order::Terminal, id, &[], &container.streams)
    }

    /// Has a client's pipes joined to a container's output; [`Shim::attached`] follows.
    pub(crate) fn join_log(&mut self, attaching: Attaching, wanted: Wanted, pipes: &[OwnedFd]) -> Result<(), Failure> {
        let streams: orders::Streams = u8::from(wanted.stdout) | u8::from(wanted.stderr) << 1;
        self.logger.send(Order::Join, attaching.container, &[streams], pipes)?;
        self.logger.joining.push_back(attaching);
        Ok(())
    }

    pub(crate) fn drain_log(&mut self, id: u32) -> Result<(), Failure> {
        self.logger.send(Order::Drain, id, &[], &[])
    }

    pub(crate) fn close_log(&mut self, id: u32) {
        // An order that is lost costs the logger two descriptors until the pipes end.
        let _ = self.logger.send(Order::Close, id, &[], &[]);
        self.fail_reopening(id, &refused(Stage::UnknownTarget, "the container is gone"));
    }

    pub(crate) fn reopen_log(&mut self, asker: Asker, name: &str) -> Answer {
        let container = self
            .containers
            .named(name)
            .ok_or_else(|| refused(Stage::UnknownTarget, format!("there is no container {name}")))?;
        if !container.is_logged() {
            return Ok(Some(Reply::Done));
        }
        let id = container.id;
        self.logger.send(Order::Reopen, id, container.log_path().as_bytes(), &[])?;
        self.logger.reopening.push((id, asker));
        Ok(None)
    }

    /// One answer of the logger.
    pub(crate) fn hear_logger(&mut self) {
        let Life::Alive { socket, .. } = &self.logger.life else { return };
        let mut buffer = [0; 16];
        let Ok((length, _)) = seqpacket::recv(socket.as_fd(), &mut buffer) else { return };
        if length == 0 {
            // Its end; the process follows, and is waited for there.
            let _ = self.epoll.remove(socket);
            return;
        }
        let Some(Done { order, id, errno }) = orders::decode_answer(&buffer[..length]) else { return };
        let path =
            self.containers.iter().find(|container| container.id == id).map_or("", |container| container.log_path());
        let outcome = if errno == 0 {
            Ok(())
        } else {
            let error = std::io::Error::from_raw_os_error(errno);
            let what = if order == Order::Join { "attach".to_owned() } else { format!("open the log {path:?}") };
            Err(Failure { stage: Stage::Log, errno, message: format!("{what}: {error}") })
        };
        match order {
            Order::Open => {
                // A new logger's first opening serves those who waited for the old one's.
                self.finish_reopening(id, &outcome);
                self.log_opened(id, outcome);
            }
            Order::Reopen => self.finish_reopening(id, &outcome),
            Order::Drain => self.finish_container(id),
            Order::Join => {
                if let Some(attaching) = self.logger.joining.pop_front() {
                    self.attached(&attaching, outcome);
                }
            }
            Order::Close | Order::Terminal => {}
        }
    }

    fn finish_reopening(&mut self, id: u32, outcome: &Result<(), Failure>) {
        match outcome {
            Err(failure) => self.fail_reopening(id, failure),
            Ok(()) => {
                for asker in self.take_reopening(id) {
                    self.reply(asker, Reply::Done);
                }
            }
        }
    }

    fn fail_reopening(&mut self, id: u32, failure: &Failure) {
        for asker in self.take_reopening(id) {
            self.reply(asker, Reply::Failed(failure.clone()));
        }
    }

    fn take_reopening(&mut self, id: u32) -> Vec<Asker> {
        let (taken, kept) = self.logger.reopening.drain(..).partition(|(container, _)| *container == id);
        self.logger.reopening = kept;
        let taken: Vec<(u32, Asker)> = taken;
        taken.into_iter().map(|(_, asker)| asker).collect()
    }

    /// Lets the logger go and waits for it a little, so that it is not seen after the shim's last word.
    pub(crate) fn end_logger(&mut self) {
        let Life::Alive { pid, socket, .. } = std::mem::take(&mut self.logger.life) else { return };
        drop(socket);
        if let Ok(pidfd) = berth_sys::pidfd::PidFd::open(pid) {
            let _ = pidfd.has_ended(FAREWELL);
        }
    }
}
