//! Checkpoints: what criu (or another OCI runtime, which calls it) says of a container's processes, and what the runtime
//! knows of it, in an archive as containerd and CRI-O lay it out, so that checkpointctl and both of them can read it.
//!
//! ```text
//! config.dump spec.dump status.dump   who it is: names, OCI configuration, CRI status
//! status stats-dump dump.log          the end of its story as containerd tells it, criu's figures and words
//! checkpoint/                         criu's images
//! rootfs-diff.tar                     what it has written, as an image layer
//! container.log                       what it has said
//! ```
//!
//! Everything is put together in the container's folder, under a name that the next life clears away. The archive itself
//! has no name until it is whole: whatever fails or dies leaves nothing at its location.

mod archive;
mod criu;

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use thiserror::Error;

use crate::container::Container;
use crate::handlers::{self, bundle};
use crate::runtime::Runtime;

/// Why there is no checkpoint.
#[derive(Debug, Error)]
pub(crate) enum Failure {
    #[error("criu is not installed ({0} is not found); install criu 3.16 or newer")]
    NoCriu(String),
    #[error("{path} is criu {version}, which is too old; install criu 3.16 or newer")]
    OldCriu { path: String, version: String },
    #[error("location: {} exists already; choose another", .0.display())]
    Exists(PathBuf),
    #[error("it took longer than the timeout; ask again with a longer one")]
    Late,
    /// By criu or by another runtime, in its words.
    #[error("{0}")]
    Refused(String),
    #[error("{act} {}: {error}", .path.display())]
    Io { act: &'static str, path: PathBuf, error: io::Error },
}

impl Failure {
    fn io(act: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |error| match error.kind() {
            io::ErrorKind::TimedOut => Self::Late,
            _ => Self::Io { act, path, error },
        }
    }
}

/// The folders of one checkpoint in the making.
struct Work {
    folder: PathBuf,
    /// criu's images.
    images: PathBuf,
}

impl Drop for Work {
    fn drop(&mut self) {
        let removed = berth_effect::run("checkpoint-work-remove", || fs::remove_dir_all(&self.folder));
        if let Err(error) = removed {
            tracing::warn!(folder = %self.folder.display(), %error, "the files of a checkpoint can't be removed");
        }
    }
}

/// Writes a checkpoint of a container whose first process is `pid`. Blocks.
pub(crate) fn write(
    runtime: &Runtime,
    container: &Container,
    pid: i32,
    location: &Path,
    deadline: Instant,
) -> Result<(), Failure> {
    if location.symlink_metadata().is_ok() {
        return Err(Failure::Exists(location.to_owned()));
    }
    // Found first, so that who can't have one is told so at once.
    let criu = criu::Criu::find(&runtime.config.criu)?;
    let archive = archive::Archive::begin(location, deadline)?;
    let work = prepare(runtime, container)?;
    let sandbox = runtime.sandbox(&container.sandbox).ok();
    match sandbox.and_then(|sandbox| sandbox.runtime.clone()) {
        Some(other) => bundle::checkpoint(runtime, &other, container, &work.images, &work.folder, patience(deadline)?)
            .map_err(|words| refused(&work, &words, deadline))?,
        None => {
            let plan = container.plan(&runtime.places).map_err(Failure::io("read the plan of", &work.folder))?.0;
            let left = patience(deadline)?;
            let command = criu.dump(pid, &plan, &work.images, &work.folder, left)?;
            berth_effect::run("criu-dump", || handlers::run(&command, left)).map_err(|words| {
                criu.unlock(pid);
                refused(&work, &words, deadline)
            })?;
        }
    }
    archive.fill(runtime, container, pid, &work.folder, &work.images)?.commit()
}

/// What is left of the time.
fn patience(deadline: Instant) -> Result<std::time::Duration, Failure> {
    deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()).ok_or(Failure::Late)
}

/// Out of time, or in criu's own words where it had some.
fn refused(work: &Work, words: &str, deadline: Instant) -> Failure {
    if patience(deadline).is_err() {
        return Failure::Late;
    }
    Failure::Refused(match criu::errors(&work.folder.join(criu::LOG)) {
        Some(errors) => format!("{words}: {errors}"),
        None => words.to_owned(),
    })
}

fn prepare(runtime: &Runtime, container: &Container) -> Result<Work, Failure> {
    let folder = runtime.places.container_checkpoint(&container.id);
    let work = Work { images: folder.join(archive::IMAGES), folder };
    berth_effect::run("checkpoint-work-create", || {
        // One at a time; what a life before this one left was removed when this one began.
        DirBuilder::new().mode(0o700).create(&work.folder)?;
        DirBuilder::new().mode(0o700).create(&work.images)
    })
    .map_err(Failure::io("create", &work.folder))?;
    Ok(work)
}
