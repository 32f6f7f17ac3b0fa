//! The archive of a checkpoint.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, UNIX_EPOCH};

use berth_cri_core::state::ContainerState;
use berth_cri_proto::v1 as cri;
use berth_image::StoreError;
use berth_sys::{Mode, OFlags, fd};
use rustix::fs::{AtFlags, CWD};
use serde_json::{Value, json};

use super::Failure;
use super::criu::LOG;
use crate::container::Container;
use crate::inspect;
use crate::runtime::Runtime;

/// The folder of criu's images, as in all such archives.
pub(super) const IMAGES: &str = "checkpoint";

/// criu's figures, in its work folder.
const STATISTICS: &str = "stats-dump";
const CHANGES: &str = "rootfs-diff.tar";

/// A file without a name, in the folder where it is to have one.
pub(super) struct Archive {
    file: File,
    folder: OwnedFd,
    location: PathBuf,
    deadline: Instant,
}

impl Archive {
    pub(super) fn begin(location: &Path, deadline: Instant) -> Result<Self, Failure> {
        let failed = |error| Failure::io("create a file in the folder of", location)(error);
        let parent = location.parent().unwrap_or(Path::new("/"));
        let folder = fd::open(parent, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).map_err(failed)?;
        let mode = Mode::from_raw_mode(0o600);
        let file = fd::open(parent, OFlags::TMPFILE | OFlags::RDWR, mode).map_err(failed)?;
        Ok(Self { file: file.into(), folder, location: location.to_owned(), deadline })
    }

    /// Writes everything. `work` has what criu said, `images` what it made.
    pub(super) fn fill(
        self,
        runtime: &Runtime,
        container: &Container,
        pid: i32,
        work: &Path,
        images: &Path,
    ) -> Result<Self, Failure> {
        let failed = |error| Failure::io("write", &self.location)(error);
        let out = Timed { to: BufWriter::with_capacity(256 << 10, &self.file), deadline: self.deadline };
        let mut tar = tar::Builder::new(out);
        let spec = inspect::spec(runtime, container);
        for (name, value) in [
            ("config.dump", config(container)),
            ("spec.dump", spec),
            ("status.dump", status(&container.status())),
            ("status", story(container, pid)),
        ] {
            let bytes = serde_json::to_vec(&value).map_err(|error| failed(error.into()))?;
            add(&mut tar, name, bytes.as_slice(), bytes.len() as u64).map_err(failed)?;
        }
        for name in [STATISTICS, LOG] {
            // Another runtime may write none.
            add_file(&mut tar, name, &work.join(name)).or_else(missing_is_fine).map_err(failed)?;
        }
        add_folder(&mut tar, images).map_err(failed)?;
        let changes = work.join(CHANGES);
        self.write_changes(runtime, container, &changes)?;
        add_file(&mut tar, CHANGES, &changes).map_err(failed)?;
        let log = Path::new(&container.record.log_path);
        if !container.record.log_path.is_empty() {
            add_file(&mut tar, "container.log", log).or_else(missing_is_fine).map_err(failed)?;
        }
        let written = tar.into_inner().and_then(|mut out| out.flush()).and_then(|()| self.file.sync_all());
        written.map_err(failed)?;
        Ok(self)
    }

    /// Its size must be known before it is written to the archive.
    fn write_changes(&self, runtime: &Runtime, container: &Container, path: &Path) -> Result<(), Failure> {
        let file = File::create_new(path).map_err(Failure::io("create", path))?;
        let ids = container.plan(&runtime.places).ok().and_then(|(plan, _)| plan.user);
        // As the container's processes see them, and as images have them.
        let owner =
            |id: u32| ids.and_then(|ids| id.checked_sub(ids.host).filter(|inside| *inside < ids.length)).unwrap_or(id);
        let mut out = Timed { to: BufWriter::with_capacity(256 << 10, file), deadline: self.deadline };
        let written = runtime.images.snapshot_diff(&container.id, &owner, &mut out);
        written.map_err(|error| match error {
            StoreError::Io { path, source, .. } => Failure::io("write the changes of", &path)(source),
            other => Failure::io("write the changes of", path)(io::Error::other(other.to_string())),
        })?;
        out.flush().map_err(Failure::io("write", path))
    }

    /// Gives the file its name.
    pub(super) fn commit(self) -> Result<(), Failure> {
        let own = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        let name = self.location.file_name().unwrap_or_default();
        let linked = berth_effect::run("checkpoint-archive-link", || {
            rustix::fs::linkat(CWD, &own, self.folder.as_fd(), name, AtFlags::SYMLINK_FOLLOW)
        });
        linked.map_err(|error| match io::Error::from(error) {
            error if error.kind() == io::ErrorKind::AlreadyExists => Failure::Exists(self.location.clone()),
            error => Failure::io("name", &self.location)(error),
        })
    }
}

/// Who the container is, in the words of Podman, CRI-O and containerd (checkpointctl, lib/metadata.go#ContainerConfig).
fn config(container: &Container) -> Value {
    let config = container.config();
    let image = config.image.clone().unwrap_or_default();
    json!({
        "id": container.id,
        "name": config.metadata.clone().unwrap_or_default().name,
        "rootfsImage": image.image,
        "rootfsImageName": if image.user_specified_image.is_empty() { &image.image } else { &image.user_specified_image },
        "rootfsImageRef": container.record.image_id,
        "runtime": inspect::RUNTIME,
        "createdTime": time(container.record.created_at),
        "checkpointedTime": time(berth_sys::process::now()),
        "restoredTime": "0001-01-01T00:00:00Z",
        "restored": false,
    })
}

/// The CRI's status under the names that Go's encoding gives its fields.
fn status(status: &cri::ContainerStatus) -> Value {
    let metadata = status.metadata.clone().unwrap_or_default();
    let image = status.image.clone().unwrap_or_default();
    json!({
        "id": status.id,
        "metadata": { "name": metadata.name, "attempt": metadata.attempt },
        "state": status.state,
        "created_at": status.created_at,
        "started_at": status.started_at,
        "image": { "image": image.image, "user_specified_image": image.user_specified_image },
        "image_ref": status.image_ref,
        "image_id": status.image_id,
        "labels": status.labels,
        "annotations": status.annotations,
        "log_path": status.log_path,
    })
}

/// containerd's own record of a container's life (`internal/cri/store/container/status.go`).
fn story(container: &Container, pid: i32) -> Value {
    let started = match container.state() {
        ContainerState::Running { started_at, .. } => started_at,
        ContainerState::Created | ContainerState::Exited { .. } => 0,
    };
    json!({
        "CreatedAt": container.record.created_at,
        "StartedAt": started,
        "FinishedAt": 0,
        "ExitCode": 0,
        "Pid": pid,
        "Reason": "",
        "Message": "",
    })
}

/// RFC 3339 of nanoseconds since the epoch.
fn time(nanoseconds: i64) -> String {
    date(Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(0)))
}

/// Days since the epoch become a date by Howard Hinnant's published `civil_from_days`.
fn date(since: Duration) -> String {
    let seconds = since.as_secs();
    let (days, second) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:09}Z", since.subsec_nanos())
}

fn add(tar: &mut tar::Builder<impl Write>, name: &str, data: impl Read, size: u64) -> io::Result<()> {
    let mut header = header(0o600, size);
    tar.append_data(&mut header, name, data)
}

fn header(mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_mode(mode);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(UNIX_EPOCH.elapsed().map_or(0, |now| now.as_secs()));
    header
}

/// A regular file, as long as it is now: somebody may be writing it.
fn add_file(tar: &mut tar::Builder<impl Write>, name: &str, path: &Path) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = File::from(fd::open(path, flags, Mode::empty())?);
    let facts = file.metadata()?;
    if !facts.is_file() {
        return Err(io::Error::other(format!("{} is not a regular file", path.display())));
    }
    let size = facts.len();
    add(tar, name, file.take(size).chain(io::repeat(0)).take(size), size)
}

fn add_folder(tar: &mut tar::Builder<impl Write>, images: &Path) -> io::Result<()> {
    let mut header = header(0o700, 0);
    header.set_entry_type(tar::EntryType::Directory);
    tar.append_data(&mut header, IMAGES, io::empty())?;
    let mut names = fs::read_dir(images)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    names.sort();
    for path in names {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        // criu leaves nothing but images here; a runtime may leave a link to its parent's.
        if path.symlink_metadata()?.is_file() {
            add_file(tar, &format!("{IMAGES}/{name}"), &path)?;
        }
    }
    Ok(())
}

fn missing_is_fine(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

/// Writes until the deadline.
struct Timed<W> {
    to: W,
    deadline: Instant,
}

impl<W: Write> Write for Timed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if Instant::now() >= self.deadline {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.to.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rfc_3339() {
        let at = |seconds, nanoseconds| date(Duration::new(seconds, nanoseconds));
        assert_eq!(at(0, 0), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(at(951_782_400, 5), "2000-02-29T00:00:00.000000005Z");
        assert_eq!(at(1_798_761_599, 0), "2026-12-31T23:59:59.000000000Z");
        assert_eq!(at(4_107_542_400, 0), "2100-03-01T00:00:00.000000000Z");
    }

    #[test]
    fn nothing_is_written_past_the_deadline() {
        let mut out = Timed { to: Vec::new(), deadline: Instant::now() };
        assert_eq!(out.write(b"x").expect_err("too late").kind(), io::ErrorKind::TimedOut);
    }
}
