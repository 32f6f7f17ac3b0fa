//! The logger's process.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use berth_sys::event::Epoll;
use berth_sys::{Mode, OFlags, fd, path, process, seqpacket, signal};

use super::lines::{self, Lines};
use super::orders::{self, Done, Order};
use super::sinks::{self, Sinks};

/// How much is read at once.
const READ: usize = 16 << 10;
/// How much one drain reads of a stream at most: several times what a pipe holds, and an end with a writer that goes on.
const DRAIN: usize = 1 << 20;
/// The longest order: its head and a path.
const MAX_ORDER: usize = 5 + 4096;
/// What a terminal's master answers while nobody holds the terminal.
const EIO: i32 = 5;
const NAMES: [&str; 2] = ["stdout", "stderr"];

struct Log {
    id: u32,
    file: Option<File>,
    /// The file ends in the middle of a line: the next write starts with a newline.
    torn: bool,
    streams: [Option<Stream>; 2],
    sinks: Sinks,
}

struct Stream {
    /// A pipe's end or a terminal's master.
    pipe: OwnedFd,
    lines: Lines,
    /// Nobody inside holds the terminal at the moment.
    hung_up: bool,
}

struct Child {
    epoll: Epoll,
    /// `None` once the shim is gone; the streams are read to their end all the same.
    orders: Option<OwnedFd>,
    logs: Vec<Log>,
    buffer: Box<[u8; READ]>,
    out: Vec<u8>,
    /// The last key of a client's pipe.
    last_sink: u32,
}

/// What a stream had.
enum Read {
    Some(usize),
    Nothing,
    End,
}

/// Runs in the fork, with the socket that orders come from.
pub(super) fn run(descriptors: Vec<OwnedFd>) -> i32 {
    let _ = process::set_name(c"berth-shim-log");
    // A client's pipe may be broken at any time.
    let _ = signal::ignore(signal::SIGPIPE);
    i32::from(serve(descriptors).is_err())
}

fn serve(descriptors: Vec<OwnedFd>) -> io::Result<()> {
    let epoll = Epoll::new()?;
    let orders = descriptors.into_iter().next();
    if let Some(orders) = &orders {
        epoll.add(orders, 0)?;
    }
    let mut child =
        Child { epoll, orders, logs: Vec::new(), buffer: Box::new([0; READ]), out: Vec::new(), last_sink: 0 };
    let mut ready = Vec::new();
    while child.orders.is_some() || child.logs.iter().any(|log| log.streams.iter().any(Option::is_some)) {
        child.epoll.wait(&mut ready, -1)?;
        for &key in &ready {
            if key == 0 {
                child.obey()?;
            } else if sinks::is_key(key) {
                for log in &mut child.logs {
                    log.sinks.hung_up(&child.epoll, key);
                }
            } else {
                child.stream_ready(key);
            }
        }
    }
    Ok(())
}

/// A stream's key: the container's number from 1 up, then which stream.
fn key(id: u32, stream: usize) -> u64 {
    u64::from(id) << 1 | u64::try_from(stream & 1).unwrap_or(0)
}

impl Child {
    fn obey(&mut self) -> io::Result<()> {
        let Some(socket) = &self.orders else { return Ok(()) };
        match seqpacket::recv_vec(socket.as_fd(), MAX_ORDER) {
            Ok((bytes, descriptors)) if !bytes.is_empty() => {
                let Some((order, id, path)) = orders::decode(&bytes) else { return Ok(()) };
                let outcome = self.carry_out(order, id, path, descriptors);
                self.answer(order, id, outcome);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            // An order that has lost descriptors on its way can't be carried out, and its answer would be waited for: the
            // next logger is told everything anew.
            Err(error) if error.kind() == io::ErrorKind::InvalidData => return Err(error),
            _ => {
                let _ = self.epoll.remove(socket);
                self.orders = None;
                self.end_hung_up();
            }
        }
        Ok(())
    }

    /// Without a shim no container is left that could open its terminal again.
    fn end_hung_up(&mut self) {
        for at in 0..self.logs.len() {
            for stream in 0..2 {
                if self.logs[at].streams[stream].as_ref().is_some_and(|stream| stream.hung_up) {
                    self.copy(at, stream);
                }
            }
        }
    }

    fn answer(&self, order: Order, id: u32, outcome: io::Result<()>) {
        let errno = outcome.err().map_or(0, |error| error.raw_os_error().unwrap_or(5));
        if let (Some(socket), true) = (&self.orders, order.is_answered()) {
            let _ = seqpacket::send(socket.as_fd(), &orders::encode_answer(Done { order, id, errno }), &[]);
        }
    }

    fn carry_out(&mut self, order: Order, id: u32, path: &[u8], descriptors: Vec<OwnedFd>) -> io::Result<()> {
        let known = self.logs.iter().position(|log| log.id == id);
        match (order, known) {
            (Order::Open, None) => self.open(id, path, descriptors),
            (Order::Reopen, Some(at)) => {
                self.logs[at].file = Some(open_log(path)?);
                self.logs[at].torn = false;
                Ok(())
            }
            (Order::Drain, Some(at)) => {
                self.drain(at);
                self.logs[at].sinks.close(&self.epoll);
                Ok(())
            }
            (Order::Terminal, Some(at)) => self.read(at, descriptors),
            (Order::Join, Some(at)) => {
                let streams = path.first().copied().unwrap_or(0);
                self.logs[at].sinks.join(&self.epoll, &mut self.last_sink, streams, descriptors)
            }
            (Order::Close, Some(at)) => {
                self.drain(at);
                let mut log = self.logs.swap_remove(at);
                log.sinks.close(&self.epoll);
                // Somebody may hold a pipe still: what stands in it without its newline is the last that is read.
                let time = lines::time(process::now());
                let mut rest = Vec::new();
                for (stream, name) in log.streams.iter_mut().zip(NAMES) {
                    let Some(Stream { pipe, lines, .. }) = stream else { continue };
                    lines.end(name, &time, &mut rest);
                    let _ = self.epoll.remove(&*pipe);
                }
                log.write(&rest);
                Ok(())
            }
            (Order::Open, Some(_)) => Err(io::ErrorKind::AlreadyExists.into()),
            (_, None) => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn open(&mut self, id: u32, path: &[u8], descriptors: Vec<OwnedFd>) -> io::Result<()> {
        let file = if path.is_empty() { Ok(None) } else { open_log(path).map(Some) };
        self.logs.push(Log { id, file: None, torn: false, streams: [None, None], sinks: Sinks::default() });
        let at = self.logs.len() - 1;
        // A container whose log can't be opened never starts; but one that ran when an older logger died must not be
        // stopped by full pipes, so it is read in any case.
        self.read(at, descriptors)?;
        file.map(|file| self.logs[at].file = file)
    }

    /// Reads a container's output from now on.
    fn read(&mut self, at: usize, pipes: Vec<OwnedFd>) -> io::Result<()> {
        let log = &mut self.logs[at];
        for (stream, pipe) in pipes.into_iter().take(2).enumerate() {
            fd::set_nonblocking(pipe.as_fd(), true)?;
            self.epoll.add(&pipe, key(log.id, stream))?;
            log.streams[stream] = Some(Stream { pipe, lines: Lines::default(), hung_up: false });
        }
        Ok(())
    }

    fn stream_ready(&mut self, ready: u64) {
        let find = |log: &Log| (0..2).find(|&stream| key(log.id, stream) == ready);
        let Some((at, stream)) =
            self.logs.iter().enumerate().find_map(|(at, log)| find(log).map(|stream| (at, stream)))
        else {
            return;
        };
        self.copy(at, stream);
    }

    fn drain(&mut self, at: usize) {
        for stream in 0..2 {
            let mut done = 0;
            while done < DRAIN {
                match self.copy(at, stream) {
                    Read::Some(length) => done += length,
                    Read::Nothing | Read::End => break,
                }
            }
        }
    }

    /// Reads once and writes what that completes.
    fn copy(&mut self, at: usize, stream: usize) -> Read {
        let log = &mut self.logs[at];
        let key = key(log.id, stream);
        let Some(Stream { pipe, lines, hung_up }) = &mut log.streams[stream] else { return Read::End };
        let time = lines::time(process::now());
        let read = match fd::read(pipe.as_fd(), &mut self.buffer[..]) {
            Ok(0) => Read::End,
            Ok(length) => {
                if std::mem::take(hung_up) {
                    let _ = self.epoll.watch_changes(&*pipe, key, false);
                }
                lines.feed(&self.buffer[..length], NAMES[stream], &time, &mut self.out);
                Read::Some(length)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Read::Nothing,
            // A terminal that nobody holds may be opened again (systemd does); its master stays readable until then. The
            // shim says when its container has ended, and without a shim there is none.
            Err(error) if error.raw_os_error() == Some(EIO) && self.orders.is_some() => {
                let was = std::mem::replace(hung_up, true);
                match was || self.epoll.watch_changes(&*pipe, key, true).is_ok() {
                    true => Read::Nothing,
                    false => Read::End,
                }
            }
            Err(_) => Read::End,
        };
        if matches!(read, Read::End) {
            lines.end(NAMES[stream], &time, &mut self.out);
            let _ = self.epoll.remove(&*pipe);
            log.streams[stream] = None;
        }
        log.write(&self.out);
        self.out.clear();
        match read {
            Read::Some(length) => log.sinks.write(&self.epoll, stream, &self.buffer[..length]),
            Read::End => log.sinks.end(&self.epoll, stream),
            Read::Nothing => {}
        }
        read
    }
}

impl Log {
    /// Writes lines. Those that the disk does not take (full, failing) are lost: the container must not be stopped by them.
    fn write(&mut self, mut bytes: &[u8]) {
        let Some(file) = &mut self.file else { return };
        if bytes.is_empty() {
            return;
        }
        if self.torn {
            if file.write_all(b"\n").is_err() {
                return;
            }
            self.torn = false;
        }
        while !bytes.is_empty() {
            match file.write(bytes) {
                Ok(length) if length > 0 => {
                    self.torn = bytes[length - 1] != b'\n';
                    bytes = &bytes[length..];
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                _ => return,
            }
        }
    }
}

fn open_log(path: &[u8]) -> io::Result<File> {
    let path = std::path::Path::new(std::ffi::OsStr::from_bytes(path));
    // A FIFO without a reader would hold up the logs of the whole pod.
    let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NOCTTY | OFlags::NONBLOCK;
    let file = fd::open(path, flags, Mode::from_raw_mode(0o640))?;
    if !path::facts(file.as_fd())?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"));
    }
    fd::set_nonblocking(file.as_fd(), false)?;
    Ok(file.into())
}
