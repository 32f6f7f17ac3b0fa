//! What a child takes from the host before it leaves the host's mounts behind.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use berth_plan::message::{Failure, Stage};
use berth_sys::mount::Tree;
use berth_sys::path::{self, Root};
use berth_sys::{Mode, OFlags, fd};

use crate::failure::{At, refused};

/// Handles that nothing inside the container can have touched.
pub(crate) struct Host {
    /// The host's procfs: the child's writes about itself go through it, never through the container's.
    proc: Root,
    null: OwnedFd,
}

impl Host {
    pub(crate) fn open() -> Result<Self, Failure> {
        let proc = open_proc()?;
        let null = fd::open("/dev/null", OFlags::PATH | OFlags::NOFOLLOW, Mode::empty())
            .at(Stage::Paths, || "open /dev/null".to_owned())?;
        let facts = path::facts(null.as_fd()).at(Stage::Paths, || "stat /dev/null".to_owned())?;
        if !facts.is_character_device(1, 3) {
            return Err(refused(Stage::Paths, "the host's /dev/null is not the null device"));
        }
        Ok(Self { proc, null })
    }

    /// A mount of the null device.
    pub(crate) fn null(&self) -> io::Result<Tree> {
        Tree::copy(&self.null, false)
    }

    pub(crate) fn proc(&self) -> &Root {
        &self.proc
    }

    /// Wants `score` as `oom_score_adj`. Lowering it below what we had takes CAP_SYS_RESOURCE; without it the process
    /// keeps the score that it inherited, the nearest one allowed.
    pub(crate) fn set_oom_score(&self, score: i32) -> Result<(), Failure> {
        let act = || format!("set oom_score_adj to {score}");
        let file = self.proc.open_file("self/oom_score_adj", OFlags::WRONLY, Mode::empty()).at(Stage::Rlimit, act)?;
        match (&file).write_all(score.to_string().as_bytes()) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
            other => other.at(Stage::Rlimit, act),
        }
    }
}

/// The host's procfs, checked.
pub(crate) fn open_proc() -> Result<Root, Failure> {
    let proc = Root::open("/proc").at(Stage::Sysctl, || "open /proc".to_owned())?;
    if path::is_procfs(proc.as_fd()).at(Stage::Sysctl, || "stat /proc".to_owned())? {
        Ok(proc)
    } else {
        Err(refused(Stage::Sysctl, "the host's /proc is not procfs"))
    }
}

/// Joins cgroups by writing 0, "this thread", into their `tasks`; this process has no other thread.
pub(crate) fn join_cgroups(tasks: Vec<OwnedFd>) -> Result<(), Failure> {
    for file in tasks {
        File::from(file).write_all(b"0").at(Stage::Cgroup, || "join the cgroup".to_owned())?;
    }
    Ok(())
}

/// For messages.
pub(crate) fn quoted(path: impl AsRef<Path>) -> String {
    format!("{:?}", path.as_ref())
}
