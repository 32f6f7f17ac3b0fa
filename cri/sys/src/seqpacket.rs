//! Unix sockets of packets (`SOCK_SEQPACKET`) that carry descriptors (`SCM_RIGHTS`).
//!
//! All sockets are close-on-exec. Set `O_NONBLOCK` with [`crate::fd::set_nonblocking`] where a call must not wait; it
//! then answers [`io::ErrorKind::WouldBlock`].

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};

/// How many descriptors a packet may carry; the receiver closes and refuses more.
pub const MAX_DESCRIPTORS: usize = 32;

const SPACE: usize = rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS));

/// Who is on the other side, as of its connect(2) or listen(2) (`SO_PEERCRED`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    pub pid: i32,
    pub uid: u32,
    pub gid: u32,
}

fn socket() -> io::Result<OwnedFd> {
    Ok(rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

/// Listens at `path`, which must not exist.
///
/// # Errors
/// What bind(2) and listen(2) answer; a path may have 107 bytes.
pub fn listen(path: &Path) -> io::Result<OwnedFd> {
    let socket = socket()?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    rustix::net::listen(&socket, 16)?;
    Ok(socket)
}

/// The next connection.
///
/// # Errors
/// What accept(2) answers.
pub fn accept(listener: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    Ok(rustix::net::accept_with(listener, SocketFlags::CLOEXEC)?)
}

/// Connects to the listener at `path`.
///
/// # Errors
/// What connect(2) answers.
pub fn connect(path: &Path) -> io::Result<OwnedFd> {
    let socket = socket()?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket)
}

/// Two connected sockets.
///
/// # Errors
/// What socketpair(2) answers.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

/// Who is on the other side.
///
/// # Errors
/// What getsockopt(2) answers.
pub fn peer(socket: BorrowedFd<'_>) -> io::Result<Peer> {
    let credentials = rustix::net::sockopt::socket_peercred(socket)?;
    Ok(Peer {
        pid: credentials.pid.as_raw_nonzero().get(),
        uid: credentials.uid.as_raw(),
        gid: credentials.gid.as_raw(),
    })
}

/// Sends one packet, whole; a closed peer is an error and no signal.
///
/// # Errors
/// What sendmsg(2) answers: `WouldBlock`, `BrokenPipe`, `EMSGSIZE`; [`io::ErrorKind::InvalidInput`] for too many descriptors.
pub fn send(socket: BorrowedFd<'_>, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); SPACE];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty()
        && (descriptors.len() > MAX_DESCRIPTORS || !control.push(SendAncillaryMessage::ScmRights(descriptors)))
    {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many descriptors for one packet"));
    }
    loop {
        match rustix::net::sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL) {
            Err(rustix::io::Errno::INTR) => {}
            other => return Ok(other.map(drop)?),
        }
    }
}

/// Errors after which one receives again. That the peer has gone without reading everything is told once, before the packets
/// that it had sent until then; the end of the stream follows those.
fn is_passing(error: rustix::io::Errno) -> bool {
    matches!(error, rustix::io::Errno::INTR | rustix::io::Errno::CONNRESET)
}

/// Receives one packet: its length and descriptors. Length 0 is the end of the stream.
///
/// # Errors
/// What recvmsg(2) answers; [`io::ErrorKind::InvalidData`] when the packet is larger than `buffer` or carries too many
/// descriptors (the packet is gone then, and none of its descriptors is left open).
pub fn recv(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); SPACE];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let message = loop {
        match rustix::net::recvmsg(socket, &mut [IoSliceMut::new(buffer)], &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(error) if is_passing(error) => {}
            other => break other?,
        }
    };
    let mut descriptors = Vec::new();
    for part in control.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = part {
            descriptors.extend(fds);
        }
    }
    if message.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the packet is larger than allowed"));
    }
    Ok((message.bytes, descriptors))
}

/// Receives one packet of at most `limit` bytes into memory of its size, see [`recv`]. An empty packet is the end.
///
/// # Errors
/// As [`recv`].
pub fn recv_vec(socket: BorrowedFd<'_>, limit: usize) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let length = loop {
        // With TRUNC the answer is the packet's length, whatever the buffer's.
        match rustix::net::recv(socket, &mut [0_u8; 0][..], RecvFlags::PEEK | RecvFlags::TRUNC) {
            Err(error) if is_passing(error) => {}
            other => break other?.1,
        }
    };
    let mut bytes = vec![0; length.min(limit)];
    let (length, descriptors) = recv(socket, &mut bytes)?;
    bytes.truncate(length);
    Ok((bytes, descriptors))
}

/// Whether a packet, or the end, is there within `milliseconds` (-1: without limit): for clients without an event loop.
///
/// # Errors
/// What poll(2) answers.
pub fn readable(socket: BorrowedFd<'_>, milliseconds: i32) -> io::Result<bool> {
    Ok(crate::event::wait_readable(&[socket.as_fd()], milliseconds)?[0])
}

#[cfg(test)]
mod tests;
