//! Network namespaces: made, pinned to a path, entered on threads of their own.
//!
//! A thread that entered a namespace is never reused: every function here that needs to be inside starts a thread,
//! enters, works and lets the thread end. A pool thread that could not return would poison its pool. Network
//! namespaces(7), setns(2), unshare(2); `/proc/thread-self` needs Linux 3.17.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::panic;
use std::path::Path;
use std::thread;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};

const THREAD_NAMESPACE: &str = "/proc/thread-self/ns/net";

/// An open network namespace. It lives at least as long as this handle, whatever happens to its path.
#[derive(Debug)]
pub struct NetNs {
    file: File,
}

impl NetNs {
    /// The namespace of the calling thread.
    ///
    /// # Errors
    /// What opening `/proc/thread-self/ns/net` answers.
    pub fn current() -> io::Result<Self> {
        Ok(Self { file: File::open(THREAD_NAMESPACE)? })
    }

    /// A new namespace without a path; it ends with the last handle, process or socket in it.
    ///
    /// # Errors
    /// What unshare(2) answers: `EPERM` without `CAP_SYS_ADMIN`, `ENOSPC` past `user.max_net_namespaces`.
    pub fn fresh() -> io::Result<Self> {
        on_fresh_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            Self::current()
        })?
    }

    /// Runs `work` on a fresh thread inside this namespace, waits for it, and lets the thread end. A panic in `work`
    /// goes on in the caller.
    ///
    /// # Errors
    /// When the thread can't be started, or can't enter (setns(2)); `work` has then not run.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        on_fresh_thread(|| {
            setns(&self.file, CloneFlags::CLONE_NEWNET)?;
            Ok(work())
        })?
    }

    /// Device and inode of the namespace: equal exactly for handles of the same one.
    ///
    /// # Errors
    /// What fstat(2) answers.
    pub fn id(&self) -> io::Result<(u64, u64)> {
        let metadata = self.file.metadata()?;
        Ok((metadata.dev(), metadata.ino()))
    }
}

impl AsFd for NetNs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl From<NetNs> for OwnedFd {
    fn from(namespace: NetNs) -> Self {
        namespace.file.into()
    }
}

/// Makes a namespace and pins it to `path` by a bind mount over a file created for that. The folder must exist.
///
/// # Errors
/// [`io::ErrorKind::AlreadyExists`] when there is something at `path`; otherwise what the kernel answers. Nothing is
/// left behind on an error, but a crash may leave the file, mounted or not: [`remove`] deals with both.
pub fn create(path: &Path) -> io::Result<NetNs> {
    File::options().write(true).create_new(true).open(path)?;
    let pinned = on_fresh_thread(|| {
        unshare(CloneFlags::CLONE_NEWNET)?;
        let namespace = NetNs::current()?;
        mount(Some(THREAD_NAMESPACE), path, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
        Ok(namespace)
    });
    match pinned {
        Ok(Ok(namespace)) => Ok(namespace),
        Ok(Err(error)) | Err(error) => {
            let _ = fs::remove_file(path);
            Err(error)
        }
    }
}

/// Pins the namespace that `source` (a file such as `/proc/PID/ns/net`) stands for to `path`, as [`create`] does it.
///
/// # Errors
/// As [`create`].
pub fn pin(source: &Path, path: &Path) -> io::Result<()> {
    File::options().write(true).create_new(true).open(path)?;
    let pinned = mount(Some(source), path, None::<&str>, MsFlags::MS_BIND, None::<&str>);
    pinned.map_err(|error| {
        let _ = fs::remove_file(path);
        error.into()
    })
}

/// Opens the namespace pinned to `path`.
///
/// # Errors
/// What open(2) answers; [`io::ErrorKind::InvalidInput`] when the file is not a network namespace, which is how a path
/// looks after its mount is gone.
pub fn open(path: &Path) -> io::Result<NetNs> {
    let file = File::open(path)?;
    match rustix::fs::fstatfs(&file) {
        Ok(stat) if stat.f_type == libc::NSFS_MAGIC as _ => Ok(NetNs { file }),
        Ok(_) => Err(io::Error::new(io::ErrorKind::InvalidInput, "the file is not a namespace")),
        Err(error) => Err(error.into()),
    }
}

/// Unpins the namespace at `path` and removes the file. A path that is not mounted, or not there, is fine.
///
/// # Errors
/// What umount2(2) and unlink(2) answer otherwise.
pub fn remove(path: &Path) -> io::Result<()> {
    loop {
        match umount2(path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            // Mounts can be stacked when a creation was repeated.
            Ok(()) => {}
            Err(Errno::EINVAL) => break,
            Err(Errno::ENOENT) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn on_fresh_thread<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("netns".to_owned()).spawn_scoped(scope, work)?;
        thread.join().or_else(|panic| panic::resume_unwind(panic))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(name: &str) -> std::path::PathBuf {
        std::env::temp_dir().join(format!("berth-sys-netns-{}-{name}", std::process::id()))
    }

    #[test]
    fn a_namespace_is_pinned_entered_and_removed() {
        let path = path("pinned");
        let outside = NetNs::current().expect("current").id().expect("id");
        let made = create(&path).expect("create").id().expect("id");
        assert_ne!(made, outside);
        let opened = open(&path).expect("open");
        assert_eq!(opened.id().expect("id"), made);
        let inside = opened.run(|| NetNs::current().and_then(|ns| ns.id())).expect("enter").expect("id");
        assert_eq!(inside, made);
        assert_eq!(NetNs::current().expect("current").id().expect("id"), outside, "the caller stays outside");
        assert_eq!(create(&path).expect_err("twice").kind(), io::ErrorKind::AlreadyExists);
        remove(&path).expect("remove");
        remove(&path).expect("removing again is fine");
        assert!(!path.exists());
    }

    #[test]
    fn what_a_crash_leaves_is_recognised_and_removed() {
        let path = path("left");
        fs::write(&path, "").expect("a file without its mount");
        assert_eq!(open(&path).expect_err("not mounted").kind(), io::ErrorKind::InvalidInput);
        remove(&path).expect("remove");
        assert!(!path.exists());
    }
}
