//! The life of sandboxes and containers.
//!
//! ```text
//! sandbox:    Ready ── stopped, shim died, reboot ──> NotReady ── remove ──> gone
//! container:  Created ── start ──> Running ── exit ──> Exited ── remove ──> gone
//!                │                                        ^
//!                └── start failed, reboot ────────────────┘
//! ```
//!
//! Each state carries what is true in it and nothing else. An operation in flight is no state: it is a value in the
//! server's map. A transition that the state does not have is a [`Refusal`], except where the CRI wants the call to be
//! idempotent: stopping what is stopped is [`Moved::Already`].
//!
//! A record on disk is a [`Stamped`] state. What a record of another boot says about processes is no longer true
//! ([`ContainerState::after_reboot`], [`SandboxState::after_reboot`]).

use serde::{Deserialize, Serialize};

/// The version of the records that this program writes. A reader takes this one and older ones.
pub const VERSION: u32 = 1;

/// A record with what it needs to be judged later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamped<T> {
    /// [`VERSION`] of the program that wrote it.
    pub version: u32,
    /// /proc/sys/kernel/random/boot_id of that time.
    pub boot_id: String,
    #[serde(flatten)]
    pub record: T,
}

/// Why a record is not taken.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    #[error("it was written by a newer Berth (version {found}, this one knows {VERSION})")]
    Newer { found: u32 },
    #[error("it is not a record")]
    Malformed(#[from] serde_json::Error),
}

impl<T> Stamped<T> {
    pub fn new(boot_id: impl Into<String>, record: T) -> Self {
        Self { version: VERSION, boot_id: boot_id.into(), record }
    }
}

impl<T: Serialize> Stamped<T> {
    /// The bytes to write.
    pub fn to_bytes(&self) -> Result<Vec<u8>, RecordError> {
        Ok(serde_json::to_vec(self)?)
    }
}

impl<T: serde::de::DeserializeOwned> Stamped<T> {
    /// Reads a record; the version is judged before the rest, which a newer program may have changed.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, RecordError> {
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        let Version { version } = serde_json::from_slice(bytes)?;
        if version > VERSION {
            return Err(RecordError::Newer { found: version });
        }
        Ok(serde_json::from_slice(bytes)?)
    }
}

/// What a transition did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moved {
    /// The state changed.
    Now,
    /// It was so before.
    Already,
}

/// Why a transition is not possible.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("the container is already running")]
    Running,
    #[error("the container has exited; a container runs once")]
    Exited,
    #[error("the container was never started")]
    NotStarted,
    #[error("the sandbox is not ready")]
    SandboxNotReady,
}

/// A container's state. Times are nanoseconds since the epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum ContainerState {
    Created,
    Running {
        started_at: i64,
        pid: i32,
    },
    Exited {
        /// 0 for a container that never ran.
        started_at: i64,
        finished_at: i64,
        /// As a shell shows it: 0-255, 128+n for a signal.
        code: i32,
        /// The signal that ended it, or 0.
        signal: i32,
        reason: ExitReason,
        /// For people; empty as a rule.
        message: String,
    },
}

/// Why a container is no longer running: `ContainerStatus.reason`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitReason {
    Completed,
    Error,
    /// The kernel killed for memory in the container's cgroup.
    OomKilled,
    /// It never ran.
    StartError,
    /// Nobody saw it end: its shim died, or the machine was restarted.
    Unknown,
}

impl ExitReason {
    /// The word of the CRI.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "Completed",
            Self::Error => "Error",
            Self::OomKilled => "OOMKilled",
            Self::StartError => "StartError",
            Self::Unknown => "ContainerStatusUnknown",
        }
    }

    /// The reason of an exit that was seen.
    pub const fn of(code: i32, oom_killed: bool) -> Self {
        if oom_killed && code != 0 {
            Self::OomKilled
        } else if code == 0 {
            Self::Completed
        } else {
            Self::Error
        }
    }
}

/// The exit code of a container whose end nobody saw: as if by SIGKILL.
pub const UNKNOWN_CODE: i32 = 137;
/// The exit code of a container that could not be started.
pub const START_ERROR_CODE: i32 = 128;

impl ContainerState {
    /// Whether a start may begin, in a sandbox of this state.
    pub fn may_start(&self, sandbox: &SandboxState) -> Result<(), Refusal> {
        match (self, sandbox) {
            (Self::Running { .. }, _) => Err(Refusal::Running),
            (Self::Exited { .. }, _) => Err(Refusal::Exited),
            (Self::Created, SandboxState::NotReady { .. }) => Err(Refusal::SandboxNotReady),
            (Self::Created, SandboxState::Ready { .. }) => Ok(()),
        }
    }

    pub fn started(&mut self, pid: i32, at: i64) -> Result<Moved, Refusal> {
        match self {
            Self::Created => {
                *self = Self::Running { started_at: at, pid };
                Ok(Moved::Now)
            }
            Self::Running { .. } => Ok(Moved::Already),
            // The exit may be reported before the start was (the record is read first after a crash).
            Self::Exited { .. } => Err(Refusal::Exited),
        }
    }

    /// The executor could not start it.
    pub fn start_failed(&mut self, at: i64, message: impl Into<String>) -> Result<Moved, Refusal> {
        match self {
            Self::Created => {
                *self = Self::Exited {
                    started_at: 0,
                    finished_at: at,
                    code: START_ERROR_CODE,
                    signal: 0,
                    reason: ExitReason::StartError,
                    message: message.into(),
                };
                Ok(Moved::Now)
            }
            Self::Running { .. } => Err(Refusal::Running),
            Self::Exited { .. } => Ok(Moved::Already),
        }
    }

    /// The shim's exit record. A created container can exit too: its start was under way when the runtime died.
    pub fn exited(&mut self, exit: &berth_plan::message::Exit, oom_killed: bool) -> Moved {
        if let Self::Exited { .. } = self {
            return Moved::Already;
        }
        *self = Self::Exited {
            started_at: exit.started_at,
            finished_at: exit.finished_at,
            code: exit.code,
            signal: exit.signal,
            reason: ExitReason::of(exit.code, oom_killed),
            message: String::new(),
        };
        Moved::Now
    }

    /// Its shim is gone without a word, and what ran was killed at `at`.
    pub fn lost(&mut self, at: i64, message: impl Into<String>) -> Moved {
        let started_at = match self {
            Self::Exited { .. } => return Moved::Already,
            // It has not run and never will, since its sandbox is gone.
            Self::Created => 0,
            Self::Running { started_at, .. } => *started_at,
        };
        *self = Self::Exited {
            started_at,
            finished_at: at,
            code: UNKNOWN_CODE,
            signal: 9,
            reason: ExitReason::Unknown,
            message: message.into(),
        };
        Moved::Now
    }

    /// What is left of a container of an earlier boot.
    pub fn after_reboot(&mut self, at: i64) -> Moved {
        self.lost(at, "the machine was restarted")
    }

    /// Whether it may be removed without force.
    pub const fn may_remove(&self) -> Result<(), Refusal> {
        match self {
            Self::Running { .. } => Err(Refusal::Running),
            Self::Created | Self::Exited { .. } => Ok(()),
        }
    }

    /// Whether a process can join it.
    pub const fn may_exec(&self) -> Result<(), Refusal> {
        match self {
            Self::Running { .. } => Ok(()),
            Self::Created => Err(Refusal::NotStarted),
            Self::Exited { .. } => Err(Refusal::Exited),
        }
    }
}

/// A sandbox's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum SandboxState {
    Ready {
        /// The shim, which holds the namespaces.
        shim: i32,
        /// Its start time in clock ticks since boot (proc_pid_stat(5)): a pid alone names another process one day.
        shim_started: u64,
        /// The pod's addresses, primary first; empty in the node's network.
        ips: Vec<String>,
    },
    NotReady {
        /// For people.
        reason: String,
        /// Kept for status calls after the network is gone.
        ips: Vec<String>,
    },
}

impl SandboxState {
    /// The sandbox was stopped, or its shim died.
    pub fn stopped(&mut self, reason: impl Into<String>) -> Moved {
        match self {
            Self::NotReady { .. } => Moved::Already,
            Self::Ready { ips, .. } => {
                *self = Self::NotReady { reason: reason.into(), ips: std::mem::take(ips) };
                Moved::Now
            }
        }
    }

    /// What is left of a sandbox of an earlier boot.
    pub fn after_reboot(&mut self) -> Moved {
        self.stopped("the machine was restarted")
    }

    /// Whether containers may be created in it.
    pub const fn may_create(&self) -> Result<(), Refusal> {
        match self {
            Self::Ready { .. } => Ok(()),
            Self::NotReady { .. } => Err(Refusal::SandboxNotReady),
        }
    }
}

#[cfg(test)]
mod tests;
