//! A connection to systemd: one call after the other, each with its answer.
//!
//! Root talks to systemd itself at `/run/systemd/private`, where no message bus is needed; others, and who does not see
//! that socket, through the system bus (as go-systemd does). Descriptors that a message might carry are dropped by the
//! kernel, since none is asked for.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::error::SystemdError;
use crate::wire::{self, Body, HEAD, Kind, Malformed, Message, Target};

/// How long systemd may take for one call, or for one job: as long as runc waits.
const PATIENCE: Duration = Duration::from_secs(30);
const PRIVATE: &str = "/run/systemd/private";
const SYSTEM: &str = "/run/dbus/system_bus_socket";
/// The longest line while names are exchanged.
const LINE: usize = 512;
/// How many ends of jobs are remembered: all that come between a call and its answer, on a busy machine.
const REMEMBERED: usize = 1024;

const DESTINATION: &str = "org.freedesktop.systemd1";
const OBJECT: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const BUS: &str = "org.freedesktop.DBus";

/// A job that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Removed {
    job: String,
    result: String,
}

#[derive(Debug)]
pub(crate) struct Bus {
    stream: UnixStream,
    serial: u32,
    removed: Vec<Removed>,
}

impl Bus {
    pub(crate) fn connect() -> Result<Self, SystemdError> {
        if berth_sys::process::effective_user() == 0 && Path::new(PRIVATE).exists() {
            return Self::at(Path::new(PRIVATE));
        }
        let mut bus = Self::at(Path::new(SYSTEM))?;
        bus.call(&of_bus("Hello"), &Body::default())?;
        let signals = format!("type='signal',sender='{DESTINATION}',interface='{MANAGER}',member='JobRemoved'");
        bus.call(&of_bus("AddMatch"), &Body::new("s").text(&signals))?;
        // Only then systemd sends them over a message bus.
        bus.call(&manager("Subscribe"), &Body::default())?;
        Ok(bus)
    }

    /// Connects to a socket and says who we are.
    pub(crate) fn at(path: &Path) -> Result<Self, SystemdError> {
        let act = || format!("connect to systemd at {}", path.display());
        let stream = UnixStream::connect(path).map_err(|source| SystemdError::Io { act: act(), source })?;
        let mut bus = Self { stream, serial: 0, removed: Vec::new() };
        bus.authenticate().map_err(|source| SystemdError::Io { act: act(), source })?;
        Ok(bus)
    }

    /// D-Bus Specification, "Authentication Protocol": the kernel says who we are, and we say the same.
    fn authenticate(&mut self) -> io::Result<()> {
        let user: String =
            berth_sys::process::effective_user().to_string().bytes().map(|digit| format!("{digit:02x}")).collect();
        self.stream.set_write_timeout(Some(PATIENCE))?;
        self.stream.set_read_timeout(Some(PATIENCE))?;
        self.stream.write_all(format!("\0AUTH EXTERNAL {user}\r\n").as_bytes())?;
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            let mut byte = [0];
            self.stream.read_exact(&mut byte)?;
            line.extend(byte);
            if line.len() > LINE {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "the answer is not D-Bus"));
            }
        }
        if !line.starts_with(b"OK ") {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "it does not take us for who we are"));
        }
        self.stream.write_all(b"BEGIN\r\n")
    }

    /// Calls a method of systemd's manager.
    pub(crate) fn manage(&mut self, member: &'static str, body: &Body) -> Result<Message, SystemdError> {
        self.call(&manager(member), body)
    }

    /// A property that is a text.
    pub(crate) fn text_of(&mut self, object: &str, interface: &str, name: &str) -> Result<String, SystemdError> {
        let target = Target {
            destination: DESTINATION,
            path: object,
            interface: "org.freedesktop.DBus.Properties",
            member: "Get",
        };
        let answer = self.call(&target, &Body::new("ss").text(interface).text(name))?;
        let mut arguments = answer.arguments();
        match arguments.signature()? {
            "s" => Ok(arguments.text()?.to_owned()),
            _ => Err(Malformed("a property is no text").into()),
        }
    }

    /// The property of the manager.
    pub(crate) fn manager_text(&mut self, name: &str) -> Result<String, SystemdError> {
        self.text_of(OBJECT, MANAGER, name)
    }

    /// How a job ended: `done`, `failed`, `timeout`, `canceled`, …
    pub(crate) fn await_job(&mut self, job: &str) -> Result<String, SystemdError> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(at) = self.removed.iter().position(|removed| removed.job == job) {
                return Ok(self.removed.swap_remove(at).result);
            }
            let message = self.receive(deadline, "wait for a job of systemd's")?;
            self.note(&message)?;
        }
    }

    fn call(&mut self, target: &Target<'_>, body: &Body) -> Result<Message, SystemdError> {
        self.serial = self.serial.wrapping_add(1).max(1);
        let act = || format!("call systemd's {}", target.member);
        let message = wire::call(self.serial, target, body);
        self.stream.write_all(&message).map_err(|source| SystemdError::Io { act: act(), source })?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = self.receive(deadline, target.member)?;
            match answer.kind {
                Kind::Answer if answer.reply_to == Some(self.serial) => return Ok(answer),
                Kind::Error if answer.reply_to == Some(self.serial) => {
                    let words = if answer.signature.starts_with('s') { answer.arguments().text()? } else { "" };
                    return Err(SystemdError::Refused {
                        call: target.member.to_owned(),
                        error: answer.error.clone(),
                        message: words.to_owned(),
                    });
                }
                _ => self.note(&answer)?,
            }
        }
    }

    /// Remembers the end of a job; what else comes unasked is of no interest.
    fn note(&mut self, message: &Message) -> Result<(), SystemdError> {
        let is_end = message.kind == Kind::Signal && message.member == "JobRemoved" && message.interface == MANAGER;
        if !is_end || message.signature != "uoss" {
            return Ok(());
        }
        let mut arguments = message.arguments();
        arguments.u32()?;
        let job = arguments.text()?.to_owned();
        arguments.text()?;
        let result = arguments.text()?.to_owned();
        if self.removed.len() == REMEMBERED {
            self.removed.remove(0);
        }
        self.removed.push(Removed { job, result });
        Ok(())
    }

    fn receive(&mut self, deadline: Instant, act: &str) -> Result<Message, SystemdError> {
        let mut bytes = vec![0; HEAD];
        self.fill(&mut bytes, deadline, act)?;
        let head = bytes.first_chunk().ok_or(Malformed("it ends too early"))?;
        bytes.resize(wire::size(head)?, 0);
        self.fill(&mut bytes[HEAD..], deadline, act)?;
        Ok(wire::read(&bytes)?)
    }

    fn fill(&mut self, mut rest: &mut [u8], deadline: Instant, act: &str) -> Result<(), SystemdError> {
        let failed = |source| SystemdError::Io { act: format!("{act}: read from systemd"), source };
        while !rest.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(SystemdError::Silent { act: act.to_owned(), seconds: PATIENCE.as_secs() });
            }
            self.stream.set_read_timeout(Some(left)).map_err(failed)?;
            match self.stream.read(rest) {
                Ok(0) => return Err(failed(io::ErrorKind::UnexpectedEof.into())),
                Ok(count) => rest = &mut rest[count..],
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
                    ) => {}
                Err(error) => return Err(failed(error)),
            }
        }
        Ok(())
    }
}

fn manager(member: &'static str) -> Target<'static> {
    Target { destination: DESTINATION, path: OBJECT, interface: MANAGER, member }
}

fn of_bus(member: &'static str) -> Target<'static> {
    Target { destination: BUS, path: "/org/freedesktop/DBus", interface: BUS, member }
}
