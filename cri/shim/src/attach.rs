//! Attach: a client joins a running container's streams.
//!
//! Output is copied by the logger, which reads it anyway, into the client's pipes; a client that dies or does not read is
//! dropped there. Input goes past the shim: the client is given what the container reads from, and waits by itself when
//! the container does not read. So nothing of an attachment is left in the shim, and a client that comes back after a
//! restart attaches again.

use std::os::fd::OwnedFd;

use berth_plan::message::{Failure, Reply, Stage};

use crate::answer::{Answer, Asker, failed, refused};
use crate::containers::Containers;
use crate::shim::Shim;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    pub(crate) stdin: bool,
    pub(crate) stdout: bool,
    pub(crate) stderr: bool,
}

/// An attachment whose pipes the logger has not taken over yet.
#[derive(Debug)]
pub(crate) struct Attaching {
    pub(crate) container: u32,
    asker: Asker,
    stdin: bool,
}

impl Shim {
    pub(crate) fn attach(&mut self, asker: Asker, name: &str, wanted: Wanted, pipes: &[OwnedFd]) -> Answer {
        let container = self.containers.named(name).filter(|container| container.is_running());
        let container =
            container.ok_or_else(|| refused(Stage::UnknownTarget, format!("container {name} is not running")))?;
        if pipes.len() != usize::from(wanted.stdout) + usize::from(wanted.stderr) {
            return Err(refused(Stage::Protocol, "attach needs one pipe for each output"));
        }
        if wanted.stderr && container.has_terminal() {
            return Err(refused(Stage::Protocol, "a terminal has no standard error of its own"));
        }
        let attaching = Attaching { container: container.id, asker, stdin: wanted.stdin };
        if pipes.is_empty() {
            self.attached(&attaching, Ok(()));
        } else {
            // The reply waits for the logger: what the container prints after it must reach the client.
            self.join_log(attaching, wanted, pipes)?;
        }
        Ok(None)
    }

    /// The logger copies output to the client from now on, or does not.
    pub(crate) fn attached(&mut self, attaching: &Attaching, outcome: Result<(), Failure>) {
        let &Attaching { container, asker, stdin } = attaching;
        let given = outcome.and_then(|()| self.containers.give_input(container, stdin));
        match given {
            Ok(Given { terminal, read, input }) => {
                let reply = Reply::Attached { terminal, stdin: stdin && read };
                self.reply_with(asker, reply, input.as_ref());
            }
            Err(failure) => self.reply(asker, Reply::Failed(failure)),
        }
    }
}

/// What a client gets of a container's input.
struct Given {
    terminal: bool,
    /// Whether the container asked for input, and this client's reaches it.
    read: bool,
    /// A terminal's master in any case, for its size; else the write end of standard input where it was asked for.
    input: Option<OwnedFd>,
}

impl Containers {
    fn give_input(&mut self, id: u32, wanted: bool) -> Result<Given, Failure> {
        let container = self.get(id).ok_or_else(|| refused(Stage::UnknownTarget, "the container is gone"))?;
        let terminal = container.has_terminal();
        let input = if terminal || wanted { container.input() } else { Ok(None) };
        let input = input.map_err(failed(Stage::Fork, "duplicate a descriptor"))?;
        Ok(Given { terminal, read: container.has_input() && input.is_some(), input })
    }
}
