//! criu, as a program: criu(8).

use std::env;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use berth_net::NetError;
use berth_net::nft::{Batch, Command, Family, Nft};
use berth_plan::container::{Container, MountSource};
use berth_sys::netns;

use super::Failure;
use crate::handlers;
use crate::places::text;

/// The log's name in the work folder, as runc calls it too.
pub(super) const LOG: &str = "dump.log";

/// The oldest that does what is asked of it; containerd asks for the same one (`PodCriuVersion`).
const OLDEST: (u32, u32) = (3, 16);
/// The first one that can leave the network alone.
const SKIPS_LOCK: (u32, u32) = (3, 19);

/// How long it may take to say which version it is.
const PATIENCE: Duration = Duration::from_secs(10);

/// How much of the end of a log is read, and how many of its errors are told: the first ones are the reason.
const TAIL: u64 = 64 << 10;
const TOLD: usize = 3;

/// What criu knows namespaces of others by; runc calls them so.
const NETWORK: &str = "extRootNetNS";
const PROCESSES: &str = "extRootPidNS";

#[derive(Debug)]
pub(super) struct Criu {
    path: String,
    version: (u32, u32),
}

impl Criu {
    /// `name` is a path, or is looked for in the folders of PATH.
    pub(super) fn find(name: &Path) -> Result<Self, Failure> {
        let missing = || Failure::NoCriu(text(name));
        let path = if name.is_absolute() { name.to_owned() } else { search(name).ok_or_else(missing)? };
        if berth_sys::process::check_executable(&path).is_err() {
            return Err(missing());
        }
        let path = text(&path);
        let said = handlers::run(&[path.clone(), "--version".to_owned()], PATIENCE).map_err(Failure::Refused)?;
        let said = String::from_utf8_lossy(&said).into_owned();
        let version = version(&said).ok_or_else(|| Failure::Refused(format!("{path} --version says {said:?}")))?;
        if version < OLDEST {
            return Err(Failure::OldCriu { path, version: format!("{}.{}", version.0, version.1) });
        }
        Ok(Self { path, version })
    }

    /// Dumps a container's processes, which run on.
    pub(super) fn dump(
        &self,
        pid: i32,
        plan: &Container,
        images: &Path,
        work: &Path,
        patience: Duration,
    ) -> Result<Vec<String>, Failure> {
        let proc = PathBuf::from(format!("/proc/{pid}"));
        let mounts = proc.join("mountinfo");
        let mounts = fs::read_to_string(&mounts).map_err(Failure::io("read", &mounts))?;
        let mut command: Vec<String> = [
            self.path.as_str(),
            "dump",
            "--tree",
            &pid.to_string(),
            "--images-dir",
            &text(images),
            "--work-dir",
            &text(work),
            "--log-file",
            LOG,
            "-v4",
            // Of the time until all processes are stopped.
            "--timeout",
            &patience.as_secs().max(1).to_string(),
            "--leave-running",
            // The runtime makes the cgroups.
            "--manage-cgroups=ignore",
            // A container may have all of these, and goes on with them.
            "--tcp-established",
            "--file-locks",
            "--ext-unix-sk",
            // Connections need no firewall against packets that arrive meanwhile: they are not restored, they go on. What
            // is not locked needs no unlocking by a criu that has died.
            "--network-lock",
            if self.version < SKIPS_LOCK { "nftables" } else { "skip" },
        ]
        .map(str::to_owned)
        .to_vec();
        if plan.process.terminal {
            // Its other side is the shim's.
            command.push("--shell-job".to_owned());
        }
        for (kind, name) in [("net", NETWORK), ("pid", PROCESSES)] {
            if let Some(inode) = others_namespace(&proc, kind, plan) {
                command.extend(["--external".to_owned(), format!("{kind}[{inode}]:{name}")]);
            }
        }
        for point in external(&mounts, plan) {
            command.extend(["--external".to_owned(), format!("mnt[{point}]:{point}")]);
        }
        Ok(command)
    }

    /// Removes the lock that a criu that was killed may have left on a pod's network, a table `inet CRIU-PID`.
    pub(super) fn unlock(&self, pid: i32) {
        if self.version >= SKIPS_LOCK {
            return;
        }
        let remove = || {
            let table = format!("CRIU-{pid}");
            let mut nft = Nft::open()?;
            if nft.has_table(Family::Inet, &table)? {
                nft.apply(&Batch { family: Family::Inet, table, commands: vec![Command::DeleteTable] })?;
            }
            Ok::<_, NetError>(())
        };
        let inside = netns::open(Path::new(&format!("/proc/{pid}/ns/net"))).and_then(|namespace| namespace.run(remove));
        match inside {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(pid, %error, "criu's lock on a pod's network can't be removed"),
            // It ended, and its network with it.
            Err(error) => tracing::debug!(pid, %error, "there is no network to unlock"),
        }
    }
}

fn search(name: &Path) -> Option<PathBuf> {
    let folders = env::var_os("PATH")?;
    let found = env::split_paths(&folders).map(|folder| folder.join(name));
    found.into_iter().find(|path| path.is_absolute() && berth_sys::process::check_executable(path).is_ok())
}

/// `Version: 3.17.1`, and more lines.
fn version(said: &str) -> Option<(u32, u32)> {
    let number = said.lines().find_map(|line| line.strip_prefix("Version:"))?.trim();
    let mut parts = number.split('.').map(|part| part.parse().ok());
    Some((parts.next()??, parts.next().flatten().unwrap_or(0)))
}

/// The inode of a namespace that is neither the container's own nor the node's, which needs no mention.
fn others_namespace(proc: &Path, kind: &str, plan: &Container) -> Option<u64> {
    let own = match kind {
        "net" => plan.namespaces.net,
        _ => plan.namespaces.pid,
    };
    let link = |proc: &Path| fs::read_link(proc.join("ns").join(kind)).ok();
    let (theirs, ours) = (link(proc)?, link(Path::new("/proc/self"))?);
    if own || theirs == ours {
        return None;
    }
    let digits: String = theirs.to_string_lossy().chars().filter(char::is_ascii_digit).collect();
    digits.parse().ok()
}

/// The mount points inside whose files are not the container's own (from proc_pid_mountinfo(5)): volumes with all that is
/// mounted in them, and single files of file systems that the container has no more of: device nodes, the null device over
/// masked files, the terminal at `/dev/console`.
fn external(mountinfo: &str, plan: &Container) -> Vec<String> {
    let volumes: Vec<&str> = plan
        .mounts
        .iter()
        .filter(|mount| matches!(mount.source, MountSource::Bind { .. } | MountSource::Image { .. }))
        .map(|mount| mount.destination.trim_end_matches('/'))
        .collect();
    let in_volume = |point: &str| {
        let inside = |rest: &str| rest.is_empty() || rest.starts_with('/');
        volumes.iter().any(|volume| point.strip_prefix(volume).is_some_and(inside))
    };
    let mounts: Vec<Mount<'_>> = mountinfo.lines().filter_map(Mount::read).collect();
    let is_part = |mount: &Mount<'_>| {
        let whole = |other: &Mount<'_>| other.device == mount.device && other.root == "/" && !in_volume(&other.point);
        mount.root != "/" && (mount.kind == "devpts" || !mounts.iter().any(whole))
    };
    let mut points = Vec::new();
    for mount in mounts.iter().filter(|mount| in_volume(&mount.point) || is_part(mount)) {
        if !points.contains(&mount.point) {
            points.push(mount.point.clone());
        }
    }
    points
}

struct Mount<'a> {
    device: &'a str,
    /// What of the file system is mounted.
    root: &'a str,
    point: String,
    kind: &'a str,
}

impl<'a> Mount<'a> {
    fn read(line: &'a str) -> Option<Self> {
        let (mount, source) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(2);
        Some(Self {
            device: fields.next()?,
            root: fields.next()?,
            point: berth_cri_core::mountinfo::unescape(fields.next()?),
            kind: source.split(' ').next()?,
        })
    }
}

/// The first errors near the end of a log.
pub(super) fn errors(log: &Path) -> Option<String> {
    let mut file = File::open(log).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL))).ok()?;
    let mut bytes = Vec::new();
    file.take(TAIL).read_to_end(&mut bytes).ok()?;
    let words = String::from_utf8_lossy(&bytes);
    // `(00.001234) Error (criu/files.c:1): the reason`
    let errors = words.lines().filter_map(|line| line.split_once("Error (")?.1.split_once("): ").map(|(_, said)| said));
    let told: Vec<&str> = errors.take(TOLD).map(str::trim).collect();
    if told.is_empty() { None } else { Some(told.join("; ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        assert_eq!(version("Version: 3.17.1\n"), Some((3, 17)));
        assert_eq!(version("Version: 4.2\nGitID: v4.2\n"), Some((4, 2)));
        assert_eq!(version("Version: 4\n"), Some((4, 0)));
        assert_eq!(version("criu 4.2"), None);
        assert!((3, 9) < OLDEST && OLDEST < SKIPS_LOCK);
    }

    #[test]
    fn the_reason_is_in_the_log() {
        let folder = tempfile::tempdir().expect("a folder");
        let log = folder.path().join(LOG);
        assert_eq!(errors(&log), None);
        let words = "(00.000001) Running as root\n(00.1) Error (criu/vdso.c:381): vdso: Unexpected bounds\n\
                     Error (criu/util.c:642): exited\n(00.2) Warn (x): y\n";
        fs::write(&log, words).expect("a log");
        assert_eq!(errors(&log).as_deref(), Some("vdso: Unexpected bounds; exited"));
    }
}
