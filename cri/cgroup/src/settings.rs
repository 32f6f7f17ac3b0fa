//! Files of controllers by name, and freezing.

use std::thread;
use std::time::{Duration, Instant};

use berth_plan::resources::Setting;

use crate::cgroup::Cgroup;
use crate::error::CgroupError;
use crate::files::{optional, read_keyed, write};
use crate::host::Layout;

/// How long processes may take to freeze.
const PATIENCE: Duration = Duration::from_secs(10);

impl Cgroup {
    /// Writes settings in their order.
    ///
    /// # Errors
    /// What the kernel refused, or that it has none of the files, by the setting's field.
    pub fn set(&self, settings: &[Setting]) -> Result<(), CgroupError> {
        for setting in settings {
            let unsupported = |reason: String| CgroupError::Setting { field: setting.field.clone(), reason };
            let folder = match self.v2() {
                Some(folder) => folder,
                None => self
                    .controller(&setting.controller)
                    .ok_or_else(|| unsupported(format!("the {} controller is not mounted", setting.controller)))?,
            };
            let there = setting.files.iter().find(|(file, _)| folder.join(file).exists());
            let Some((file, value)) = there else {
                let names: Vec<&str> = setting.files.iter().map(|(file, _)| file.as_str()).collect();
                return Err(unsupported(format!("the kernel has no {}", names.join(" or "))));
            };
            write(&folder, file, value).map_err(|error| unsupported(error.to_string()))?;
        }
        Ok(())
    }

    /// What some files hold, where the v2 tree has the controllers; those that are not there are left out.
    pub fn snapshot(&self, files: &[&'static str]) -> Vec<(&'static str, String)> {
        let Some(folder) = self.v2() else { return Vec::new() };
        files.iter().filter_map(|file| Some((*file, optional(&folder, file)?))).collect()
    }

    /// Writes the files of a snapshot again that hold something else by now.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn restore(&self, snapshot: &[(&'static str, String)]) -> Result<(), CgroupError> {
        let Some(folder) = self.v2() else { return Ok(()) };
        for (file, value) in snapshot {
            if optional(&folder, file).is_some_and(|now| now != *value) {
                write(&folder, file, value.trim_end())?;
            }
        }
        Ok(())
    }

    /// Stops all its processes, or lets them go on: the freezer of v1 where the controllers are there, else
    /// `cgroup.freeze`. Returns once it is so.
    ///
    /// # Errors
    /// What the kernel refused, and processes that do not freeze in 10 s; they are let go on then.
    pub fn freeze(&self, frozen: bool) -> Result<(), CgroupError> {
        let start = Instant::now();
        loop {
            if let Some(folder) = self.controller("freezer") {
                write(&folder, "freezer.state", if frozen { "FROZEN" } else { "THAWED" })?;
            } else if let Some(folder) = self.unified() {
                write(&folder, "cgroup.freeze", if frozen { "1" } else { "0" })?;
            } else {
                return Err(CgroupError::Setting {
                    field: "freezer".to_owned(),
                    reason: "the machine has none".to_owned(),
                });
            }
            if !frozen || self.is_frozen() {
                return Ok(());
            }
            if start.elapsed() > PATIENCE {
                let _ = self.freeze(false);
                let waited_ms = u64::try_from(PATIENCE.as_millis()).unwrap_or(u64::MAX);
                return Err(CgroupError::Busy { path: self.path.clone(), waited_ms, pids: self.procs() });
            }
            // Writing again helps v1 with what was forked meanwhile (the kernel's freezer-subsystem.rst).
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Whether its processes are stopped.
    pub fn is_frozen(&self) -> bool {
        if let Some(folder) = self.controller("freezer") {
            return optional(&folder, "freezer.state").is_some_and(|state| state.trim() == "FROZEN");
        }
        self.unified().is_some_and(|folder| matches!(read_keyed(&folder, "cgroup.events", "frozen"), Ok(Some(1))))
    }

    /// Whether it is being stopped, or is.
    pub fn is_freezing(&self) -> bool {
        if let Some(folder) = self.controller("freezer") {
            return optional(&folder, "freezer.state").is_some_and(|state| state.trim() != "THAWED");
        }
        self.unified().is_some_and(|folder| optional(&folder, "cgroup.freeze").is_some_and(|text| text.trim() == "1"))
    }

    /// Its folder in the v2 tree, whoever holds the controllers.
    fn unified(&self) -> Option<std::path::PathBuf> {
        self.host.inner.unified.as_ref().map(|unified| self.below(&unified.path))
    }

    /// Its folders as the container's own view of the hierarchies has them: the v1 hierarchies in order, the v2 tree last.
    pub fn paths(&self) -> Vec<String> {
        self.folders().map(|folder| folder.to_string_lossy().into_owned()).collect()
    }

    /// Whether this machine has v2 controllers.
    pub fn is_v2(&self) -> bool {
        self.host.layout() == Layout::V2
    }
}
