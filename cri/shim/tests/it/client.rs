//! A blocking client of one shim.

use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use berth_plan::message::{Event, Failure, FromShim, Reply, Request, ToShim};
use berth_plan::{MAX_MESSAGE, PROTOCOL, codec};
use berth_sys::seqpacket;

/// Longer than anything takes; a test that reaches it fails.
const PATIENCE: i32 = 30_000;

pub(crate) struct Client {
    pub(crate) socket: OwnedFd,
    number: u64,
    events: Vec<Event>,
    /// What came beside the last packet.
    pub(crate) given: Vec<OwnedFd>,
}

impl Client {
    /// Connects and says hello.
    pub(crate) fn connect(path: &Path) -> (Self, Reply) {
        let mut client = Self::silent(path);
        let hello = client.ask(Request::Hello { protocol: PROTOCOL }, &[]).expect("hello");
        (client, hello)
    }

    pub(crate) fn silent(path: &Path) -> Self {
        Self { socket: seqpacket::connect(path).expect("connect"), number: 0, events: Vec::new(), given: Vec::new() }
    }

    /// Ends the connection now, also where a fork of a parallel test holds a copy of the socket for a moment.
    pub(crate) fn hang_up(self) {
        UnixStream::from(self.socket).shutdown(Shutdown::Both).expect("shutdown");
    }

    pub(crate) fn send(&mut self, request: Request, descriptors: &[BorrowedFd<'_>]) -> u64 {
        self.number += 1;
        let bytes = codec::encode(&ToShim { number: self.number, request }).expect("it fits");
        seqpacket::send(self.socket.as_fd(), &bytes, descriptors).expect("send");
        self.number
    }

    pub(crate) fn ask(&mut self, request: Request, descriptors: &[BorrowedFd<'_>]) -> Result<Reply, Failure> {
        let number = self.send(request, descriptors);
        self.answer(number)
    }

    pub(crate) fn answer(&mut self, wanted: u64) -> Result<Reply, Failure> {
        loop {
            match self.receive() {
                FromShim::Event { event } => self.events.push(event),
                FromShim::Reply { number, reply: Reply::Failed(failure) } if number == wanted => return Err(failure),
                FromShim::Reply { number, reply } if number == wanted => return Ok(reply),
                FromShim::Reply { number, reply } => panic!("an unexpected reply to {number}: {reply:?}"),
            }
        }
    }

    pub(crate) fn event(&mut self) -> Event {
        if !self.events.is_empty() {
            return self.events.remove(0);
        }
        match self.receive() {
            FromShim::Event { event } => event,
            FromShim::Reply { number, reply } => panic!("an unexpected reply to {number}: {reply:?}"),
        }
    }

    pub(crate) fn receive(&mut self) -> FromShim {
        assert!(seqpacket::readable(self.socket.as_fd(), PATIENCE).expect("poll"), "the shim says nothing");
        let (bytes, given) = seqpacket::recv_vec(self.socket.as_fd(), MAX_MESSAGE).expect("receive");
        self.given = given;
        assert!(!bytes.is_empty(), "the shim has closed the connection");
        codec::decode(&bytes).expect("a message")
    }
}
