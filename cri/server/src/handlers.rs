//! Runtime handlers: the built-in runtime, and other OCI runtimes by their paths.
//!
//! A sandbox keeps the runtime that it was made for ([`OciRuntime`], in its record), whatever the configuration says later.
//! What a runtime can do is what its `features` command says, asked again when its file changes.

pub(crate) mod bundle;
mod program;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use berth_cri_core::compile::delegate::Features;
use serde::{Deserialize, Serialize};
use tonic::Status;

use crate::places::text;

pub(crate) use program::run;

/// The name of the built-in runtime.
pub const BUILT_IN: &str = "berth";

/// How long a runtime may take to say what it can.
const PATIENCE: Duration = Duration::from_secs(10);

/// Which runtimes there are.
#[derive(Debug, Clone)]
pub struct Handlers {
    /// The one for pods that name none: [`BUILT_IN`] or a name of `others`.
    pub default: String,
    pub others: BTreeMap<String, Handler>,
}

/// An OCI runtime.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handler {
    /// Absolute.
    pub path: PathBuf,
    /// Before the command.
    pub args: Vec<String>,
}

impl Default for Handlers {
    fn default() -> Self {
        Self { default: BUILT_IN.to_owned(), others: BTreeMap::new() }
    }
}

/// Another runtime, as a sandbox's record and a bundle have it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OciRuntime {
    pub(crate) handler: String,
    pub(crate) path: String,
    pub(crate) args: Vec<String>,
}

/// Tells one state of a file from another: device, inode, size, change.
type Identity = (u64, u64, u64, i64, i64);

/// The handlers, with what was found out about them.
#[derive(Debug)]
pub(crate) struct Known {
    handlers: Handlers,
    probed: Mutex<BTreeMap<String, (Identity, Features)>>,
}

impl Known {
    pub(crate) fn new(handlers: Handlers) -> Self {
        Self { handlers, probed: Mutex::default() }
    }

    /// The runtime for a handler's name; `None` for the built-in one.
    pub(crate) fn choose(&self, name: &str) -> Result<Option<OciRuntime>, Status> {
        let name = if name.is_empty() { &self.handlers.default } else { name };
        if name == BUILT_IN {
            return Ok(None);
        }
        let handler = self.handlers.others.get(name).ok_or_else(|| {
            Status::invalid_argument(format!(
                "no runtime for {name:?} is configured; add [handlers.{name}] to Berth's configuration file, or choose \
                 another RuntimeClass"
            ))
        })?;
        berth_sys::process::check_executable(&handler.path).map_err(|error| {
            Status::failed_precondition(format!(
                "the runtime of handler {name:?} can't be executed: {}: {error}",
                handler.path.display()
            ))
        })?;
        Ok(Some(OciRuntime { handler: name.to_owned(), path: text(&handler.path), args: handler.args.clone() }))
    }

    /// All names with what their runtimes can do, the default's first, as "". `None` is the built-in one. Blocks.
    pub(crate) fn features(&self) -> Vec<(String, Option<Features>)> {
        let others = self.handlers.others.iter().map(|(name, handler)| (name.clone(), Some(self.probe(name, handler))));
        let named: Vec<_> = [(BUILT_IN.to_owned(), None)].into_iter().chain(others).collect();
        let default = named.iter().find(|(name, _)| *name == self.handlers.default).and_then(|(_, features)| *features);
        [(String::new(), default)].into_iter().chain(named).collect()
    }

    /// What a sandbox's runtime can do. Blocks.
    pub(crate) fn features_of(&self, runtime: &OciRuntime) -> Features {
        let handler = Handler { path: PathBuf::from(&runtime.path), args: runtime.args.clone() };
        self.probe(&runtime.handler, &handler)
    }

    fn probe(&self, name: &str, handler: &Handler) -> Features {
        let Some(identity) = identity(handler) else { return Features::default() };
        // The lock is held meanwhile: who asks at the same time waits for the one answer.
        let mut probed = self.probed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, features)) = probed.get(name)
            && *known == identity
        {
            return *features;
        }
        let mut command = vec![text(&handler.path)];
        command.extend(handler.args.iter().cloned());
        command.push("features".to_owned());
        let said = run(&command, PATIENCE).and_then(|text| Features::parse(&text));
        let features = said.unwrap_or_else(|error| {
            tracing::info!(handler = name, error, "the runtime does not say what it can: nothing is expected of it");
            Features::default()
        });
        probed.insert(name.to_owned(), (identity, features));
        features
    }
}

fn identity(handler: &Handler) -> Option<Identity> {
    let facts = fs::metadata(&handler.path).ok()?;
    Some((facts.dev(), facts.ino(), facts.size(), facts.mtime(), facts.mtime_nsec()))
}
