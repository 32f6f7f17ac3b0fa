//! Errors: what a plugin says on its standard output, and what the runtime side adds to that.

use std::fmt;
use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The codes of SPEC 1.1, section "Error"; 100 and above belong to the plugin.
pub mod code {
    pub const INCOMPATIBLE_VERSION: u32 = 1;
    pub const UNSUPPORTED_FIELD: u32 = 2;
    pub const UNKNOWN_CONTAINER: u32 = 3;
    pub const INVALID_ENVIRONMENT: u32 = 4;
    pub const IO: u32 = 5;
    pub const DECODE: u32 = 6;
    pub const INVALID_CONFIG: u32 = 7;
    pub const INVALID_NETNS: u32 = 8;
    pub const TRY_AGAIN: u32 = 11;
    pub const NOT_AVAILABLE: u32 = 50;
    pub const NOT_AVAILABLE_LIMITED: u32 = 51;
    /// What the reference plugins answer for any error without a code of its own.
    pub const GENERIC: u32 = 999;
}

/// An error in the protocol's own form.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CniError {
    /// One of [`code`], or the plugin's own from 100 on.
    pub code: u32,
    #[serde(default)]
    pub msg: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub details: String,
}

impl CniError {
    pub fn new(code: u32, msg: impl Into<String>) -> Self {
        Self { code, msg: msg.into(), details: String::new() }
    }

    /// An error of the operating system while doing what `context` says.
    pub fn io(context: impl fmt::Display, error: impl fmt::Display) -> Self {
        Self::new(code::IO, format!("{context}: {error}"))
    }

    /// A configuration that can be read but not carried out.
    pub fn config(msg: impl Into<String>) -> Self {
        Self::new(code::INVALID_CONFIG, msg)
    }

    /// A field of the configuration, by name, that this plugin does not implement.
    pub fn unsupported(field: &str, why: &str) -> Self {
        Self::new(code::UNSUPPORTED_FIELD, format!("field \"{field}\" is not supported: {why}"))
    }

    /// Text that can't be decoded.
    pub fn decode(context: impl fmt::Display, error: impl fmt::Display) -> Self {
        Self::new(code::DECODE, format!("{context}: {error}"))
    }

    #[must_use]
    pub fn with_details(mut self, details: impl Into<String>) -> Self {
        self.details = details.into();
        self
    }
}

impl fmt::Display for CniError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.msg)?;
        if !self.details.is_empty() {
            write!(f, " ({})", self.details)?;
        }
        write!(f, " [CNI code {}]", self.code)
    }
}

impl std::error::Error for CniError {}

/// Why an operation on a network or an attachment failed.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// A plugin refused or failed.
    #[error("network {network}, plugin {plugin}, {command}: {source}")]
    Plugin { network: String, plugin: String, command: &'static str, source: CniError },
    /// The attachment can't be named to a plugin.
    #[error("attachment {field} \"{value}\" is not valid: {reason}")]
    Attachment { field: &'static str, value: String, reason: &'static str },
    /// The cache of results can't be written or removed.
    #[error("CNI cache {}: {source}", path.display())]
    Cache { path: PathBuf, source: io::Error },
    /// More than one thing failed; each is told.
    #[error("{}", several(.0))]
    Several(Vec<RuntimeError>),
}

impl RuntimeError {
    /// The CNI code that describes it best: the first plugin's, else I/O.
    pub fn code(&self) -> u32 {
        match self {
            Self::Plugin { source, .. } => source.code,
            Self::Attachment { .. } => code::INVALID_ENVIRONMENT,
            Self::Cache { .. } => code::IO,
            Self::Several(errors) => errors.first().map_or(code::GENERIC, Self::code),
        }
    }

    /// Nothing, the one, or all of them.
    pub(crate) fn collect(mut errors: Vec<Self>) -> Result<(), Self> {
        match errors.len() {
            0 => Ok(()),
            1 => Err(errors.remove(0)),
            _ => Err(Self::Several(errors)),
        }
    }
}

fn several(errors: &[RuntimeError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}
