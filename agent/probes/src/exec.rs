//! A command inside the container.

use std::time::Duration;

use async_trait::async_trait;

use crate::{ANSWER_LIMIT, Outcome};

/// What a command did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ran {
    /// Its exit code.
    pub code: i32,
    /// What it wrote to stdout.
    pub stdout: Vec<u8>,
    /// And to stderr.
    pub stderr: Vec<u8>,
}

/// Why a command told nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExecError {
    /// It did not end in time, and was killed.
    #[error("command timed out: {0}")]
    TimedOut(String),
    /// It could not be run.
    #[error("{0}")]
    Failed(String),
}

/// Runs commands in containers.
#[async_trait]
pub trait Exec: Send + Sync {
    /// Runs `command` in the container instance `id` until it ends or `timeout` is over; `None` is no limit.
    async fn exec(&self, id: &str, command: &[String], timeout: Option<Duration>) -> Result<Ran, ExecError>;
}

pub(crate) async fn probe(command: &[String], id: &str, exec: &dyn Exec, timeout: Duration) -> Outcome {
    match exec.exec(id, command, Some(timeout)).await {
        Ok(ran) if ran.code == 0 => Outcome::Success,
        Ok(ran) => Outcome::Failure(output(&ran)),
        Err(error @ ExecError::TimedOut(_)) => Outcome::Failure(error.to_string()),
        Err(ExecError::Failed(message)) => Outcome::Broken(message),
    }
}

/// What a command wrote, up to the limit.
pub(crate) fn output(ran: &Ran) -> String {
    let mut bytes = ran.stdout.clone();
    bytes.extend_from_slice(&ran.stderr);
    bytes.truncate(ANSWER_LIMIT);
    String::from_utf8_lossy(&bytes).into_owned()
}
