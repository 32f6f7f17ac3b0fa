//! Who asked, and how a request ends.

use berth_plan::message::{Failure, Reply, Stage};

/// A request that waits for its reply: the client's number and the request's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Asker {
    pub(crate) client: u32,
    pub(crate) number: u64,
}

/// The reply to a request that is done at once; `None` when it comes later.
pub(crate) type Answer = Result<Option<Reply>, Failure>;

pub(crate) fn refused(stage: Stage, message: impl Into<String>) -> Failure {
    Failure { stage, errno: 0, message: message.into() }
}

/// A system call's failure, with what was tried.
pub(crate) fn failed(stage: Stage, what: &'static str) -> impl Fn(std::io::Error) -> Failure {
    move |error| Failure { stage, errno: error.raw_os_error().unwrap_or(0), message: format!("{what}: {error}") }
}
