//! Where plugins are found: in this process or in a folder.

use std::path::PathBuf;
use std::time::Duration;

use crate::{CniError, CniResult, Request, exec};

/// A plugin in this process. ADD answers with a result, every other verb with `None`.
pub type Plugin = fn(&Request) -> Result<Option<CniResult>, CniError>;

/// The plugins that a call can reach.
#[derive(Clone)]
pub struct Plugins {
    /// The types that run in-process.
    pub builtin: fn(&str) -> Option<Plugin>,
    /// Where the other types are looked for, in order (`CNI_PATH`).
    pub bin_dirs: Vec<PathBuf>,
    /// Folder on tmpfs in which each exec'd plugin holds a locked file for as long as it runs, for
    /// [`crate::wait_for_orphans`]. `None` where nobody recovers, as in a plugin's own process.
    pub running_dir: Option<PathBuf>,
    /// After this time an exec'd plugin is killed.
    pub timeout: Duration,
}

impl Plugins {
    /// Calls a plugin of the given type.
    ///
    /// # Errors
    /// What the plugin answers, or that there is none of that type.
    pub fn call(&self, kind: &str, request: &Request) -> Result<Option<CniResult>, CniError> {
        match (self.builtin)(kind) {
            Some(plugin) => plugin(request),
            None => exec::call(self, kind, request),
        }
    }
}

impl std::fmt::Debug for Plugins {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plugins")
            .field("bin_dirs", &self.bin_dirs)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}
