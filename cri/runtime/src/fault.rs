//! What went wrong, for people, and the program's exit code for it.

use std::fmt::Display;
use std::io;

use berth_cgroup::CgroupError;
use berth_cri_core::ConfigError;
use berth_guard::failing;
use berth_plan::message::Failure;
use berth_systemd::SystemdError;

/// One clause without a full stop, with the object in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) message: String,
    pub(crate) code: u8,
}

pub(crate) type Outcome<T> = Result<T, Fault>;

impl Fault {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), code: 1 }
    }

    /// The same with what was being done in front.
    #[must_use]
    pub(crate) fn during(self, what: impl Display) -> Self {
        Self { message: format!("{what}: {}", self.message), ..self }
    }
}

impl From<ConfigError> for Fault {
    fn from(error: ConfigError) -> Self {
        // "not supported" says it all.
        if error.reason == "not supported" {
            return Self::new(format!("{}: not supported", error.field));
        }
        Self::new(error.to_string())
    }
}

impl From<CgroupError> for Fault {
    fn from(error: CgroupError) -> Self {
        Self::new(error.to_string())
    }
}

impl From<SystemdError> for Fault {
    fn from(error: SystemdError) -> Self {
        Self::new(error.to_string())
    }
}

impl From<Failure> for Fault {
    fn from(failure: Failure) -> Self {
        Self::new(failure.message)
    }
}

/// Says what was being done.
pub(crate) trait During<T> {
    fn during(self, what: impl FnOnce() -> String) -> Outcome<T>;
}

impl<T> During<T> for io::Result<T> {
    fn during(self, what: impl FnOnce() -> String) -> Outcome<T> {
        self.and_then(|value| failing::step().map(|()| value)).map_err(|error| {
            let text = error.to_string();
            let text = text.split(" (os error").next().unwrap_or(&text);
            let mut letters = text.chars();
            let text: String = letters.next().into_iter().flat_map(char::to_lowercase).chain(letters).collect();
            Fault::new(format!("{}: {text}", what()))
        })
    }
}
