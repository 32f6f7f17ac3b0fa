//! Mounts by descriptor: nothing here looks up a path inside a container.
//!
//! A mount is made detached ([`Tree`]: fsopen(2), fsmount(2), open_tree(2), Linux 5.2), gets its attributes
//! (mount_setattr(2), Linux 5.12) and is attached to a handle that the caller got from [`crate::path::Root`]. A detached
//! tree that is dropped is unmounted by the kernel.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags};

pub use attributes::*;

/// `MOUNT_ATTR_*` bits (mount_setattr(2)).
pub mod attributes {
    pub const RDONLY: u64 = libc::MOUNT_ATTR_RDONLY;
    pub const NOSUID: u64 = libc::MOUNT_ATTR_NOSUID;
    pub const NODEV: u64 = libc::MOUNT_ATTR_NODEV;
    pub const NOEXEC: u64 = libc::MOUNT_ATTR_NOEXEC;
    /// The field of access time modes; cleared when one of them is set.
    pub const ATIME: u64 = libc::MOUNT_ATTR__ATIME;
    pub const PRIVATE: u64 = libc::MS_PRIVATE;
    pub const SLAVE: u64 = libc::MS_SLAVE;
    pub const SHARED: u64 = libc::MS_SHARED;
    pub const RECURSIVE: u64 = libc::MS_REC;
}

/// The longest value that fsconfig(2) takes as a string.
pub const MAX_VALUE: usize = 255;

/// A file system being configured (fsopen(2)).
#[derive(Debug)]
pub struct FsContext {
    fd: OwnedFd,
}

impl FsContext {
    /// # Errors
    /// `ENODEV` when the kernel has no such file system.
    pub fn open(kind: &str) -> io::Result<Self> {
        Ok(Self { fd: rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)? })
    }

    /// # Errors
    /// What fsconfig(2) answers: `EINVAL` for an unknown key or value, see [`FsContext::complaint`].
    pub fn set_string(&self, key: &str, value: &str) -> io::Result<()> {
        Ok(rustix::mount::fsconfig_set_string(&self.fd, key, value)?)
    }

    /// # Errors
    /// As [`FsContext::set_string`].
    pub fn set_flag(&self, key: &str) -> io::Result<()> {
        Ok(rustix::mount::fsconfig_set_flag(&self.fd, key)?)
    }

    /// A flag where `value` is empty, else a string: as the text form `key` or `key=value` means.
    ///
    /// # Errors
    /// As [`FsContext::set_string`].
    pub fn set(&self, key: &str, value: &str) -> io::Result<()> {
        if value.is_empty() { self.set_flag(key) } else { self.set_string(key, value) }
    }

    /// Makes the file system and a detached mount of it with these `MOUNT_ATTR_*`.
    ///
    /// # Errors
    /// What the file system answers, see [`FsContext::complaint`].
    pub fn mount(&self, attributes: u64) -> io::Result<Tree> {
        rustix::mount::fsconfig_create(&self.fd)?;
        // The bits of fsmount are the low 32 of mount_setattr's.
        let bits = u32::try_from(attributes).map_err(|_| io::ErrorKind::InvalidInput)?;
        let flags = MountAttrFlags::from_bits_retain(bits);
        Ok(Tree { fd: rustix::mount::fsmount(&self.fd, FsMountFlags::FSMOUNT_CLOEXEC, flags)? })
    }

    /// What the file system said about the last failure ("overlay: workdir and upperdir must reside under the same mount").
    pub fn complaint(&self) -> Option<String> {
        let mut buffer = [0; 512];
        let mut last = None;
        // Each read takes one message: "e text", "w text" or "i text".
        while let Ok(length) = rustix::io::read(&self.fd, &mut buffer) {
            let text = String::from_utf8_lossy(&buffer[..length]);
            if let Some(error) = text.trim_end().strip_prefix("e ") {
                last = Some(error.to_owned());
            }
            if length == 0 {
                break;
            }
        }
        last
    }
}

/// A mount, or a tree of mounts: detached, or attached by this handle.
#[derive(Debug)]
pub struct Tree {
    fd: OwnedFd,
}

impl Tree {
    /// A detached copy (a bind) of what is at a path of the caller's own, with what is mounted below where `recursive`.
    ///
    /// # Errors
    /// What open_tree(2) answers.
    pub fn copy_path(path: impl AsRef<Path>, recursive: bool) -> io::Result<Self> {
        Ok(Self { fd: rustix::mount::open_tree(CWD, path.as_ref(), copy_flags(recursive))? })
    }

    /// A detached copy (a bind) of what a handle stands for.
    ///
    /// # Errors
    /// What open_tree(2) answers; `EINVAL` for what is not in the caller's mount namespace.
    pub fn copy(handle: impl AsFd, recursive: bool) -> io::Result<Self> {
        let flags = copy_flags(recursive) | OpenTreeFlags::AT_EMPTY_PATH;
        Ok(Self { fd: rustix::mount::open_tree(handle, "", flags)? })
    }

    /// Takes a descriptor of a tree that another process has made.
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self { fd }
    }

    /// Attaches the mount to what `target` stands for: a folder to a folder, a file to a file.
    ///
    /// # Errors
    /// What move_mount(2) answers.
    pub fn attach(&self, target: impl AsFd) -> io::Result<()> {
        attach(self.fd.as_fd(), target.as_fd())
    }

    /// Sets and clears `MOUNT_ATTR_*`, of the whole tree where `recursive`. Other attributes stay.
    ///
    /// # Errors
    /// What mount_setattr(2) answers.
    pub fn set_attributes(&self, set: u64, clear: u64, recursive: bool) -> io::Result<()> {
        set_attributes(self.fd.as_fd(), set, clear, recursive)
    }

    /// Sets the propagation: [`PRIVATE`], [`SLAVE`] or [`SHARED`], of the whole tree with [`RECURSIVE`].
    ///
    /// # Errors
    /// What mount_setattr(2) answers.
    pub fn set_propagation(&self, propagation: u64) -> io::Result<()> {
        set_propagation(self.fd.as_fd(), propagation)
    }

    /// Shows the files of the tree's first mount, or of all where `recursive`, which must be detached, with the ids of a user namespace: what belongs
    /// to user 0 on disk belongs to the namespace's user 0 (`MOUNT_ATTR_IDMAP`, Linux 5.12; overlayfs layers 5.19, tmpfs
    /// 6.3).
    ///
    /// # Errors
    /// What mount_setattr(2) answers: `EINVAL` for a file system that can't do it, `EPERM` for a mount that has ids.
    pub fn set_ids(&self, user_namespace: BorrowedFd<'_>, recursive: bool) -> io::Result<()> {
        let userns_fd = u64::try_from(user_namespace.as_raw_fd()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let attributes = libc::mount_attr { attr_set: libc::MOUNT_ATTR_IDMAP, attr_clr: 0, propagation: 0, userns_fd };
        setattr(self.fd.as_fd(), &attributes, recursive)
    }

    /// Takes an attached mount away again, with all below it.
    ///
    /// # Errors
    /// What umount2(2) answers.
    pub fn detach(&self) -> io::Result<()> {
        // Through the link, to the mount itself.
        Ok(rustix::mount::unmount(format!("/proc/self/fd/{}", self.fd.as_raw_fd()), UnmountFlags::DETACH)?)
    }
}

impl AsFd for Tree {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl From<Tree> for OwnedFd {
    fn from(tree: Tree) -> Self {
        tree.fd
    }
}

/// As [`Tree::attach`].
///
/// # Errors
/// As [`Tree::attach`].
pub fn attach(tree: BorrowedFd<'_>, target: BorrowedFd<'_>) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(rustix::mount::move_mount(tree, "", target, "", flags)?)
}

/// Moves `root` (a mount's root) over `/` and makes it the caller's root: where pivot_root(2) can't (a root file system
/// that is an initramfs). The old one stays below, out of reach without CAP_SYS_CHROOT.
///
/// # Errors
/// What move_mount(2) and chroot(2) answer.
pub fn move_to_root(root: BorrowedFd<'_>) -> io::Result<()> {
    let old = crate::fd::open("/", OFlags::PATH | OFlags::DIRECTORY, Mode::empty())?;
    attach(root, old.as_fd())?;
    rustix::process::fchdir(root)?;
    rustix::process::chroot(".")?;
    Ok(rustix::process::chdir("/")?)
}

fn copy_flags(recursive: bool) -> OpenTreeFlags {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive { flags | OpenTreeFlags::AT_RECURSIVE } else { flags }
}

/// As [`Tree::set_attributes`], on the mount that a handle of its root stands for.
///
/// # Errors
/// What mount_setattr(2) answers; `EINVAL` when the handle is no mount's root.
pub fn set_attributes(mount: BorrowedFd<'_>, set: u64, clear: u64, recursive: bool) -> io::Result<()> {
    // One of the access time modes can only be set with the whole field cleared.
    let clear = if set & ATIME != 0 { clear | ATIME } else { clear };
    if set == 0 && clear == 0 {
        return Ok(());
    }
    setattr(mount, &libc::mount_attr { attr_set: set, attr_clr: clear, propagation: 0, userns_fd: 0 }, recursive)
}

/// As [`Tree::set_propagation`], on the mount that a handle of its root stands for.
///
/// # Errors
/// As [`set_attributes`].
pub fn set_propagation(mount: BorrowedFd<'_>, propagation: u64) -> io::Result<()> {
    let attributes = libc::mount_attr { attr_set: 0, attr_clr: 0, propagation: propagation & !RECURSIVE, userns_fd: 0 };
    setattr(mount, &attributes, propagation & RECURSIVE != 0)
}

/// mount_setattr(2), Linux 5.12.
fn setattr(mount: BorrowedFd<'_>, attributes: &libc::mount_attr, recursive: bool) -> io::Result<()> {
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    let pointer = std::ptr::from_ref(attributes);
    // SAFETY: the path is a C string constant, `attributes` a live struct of the size given; the descriptor is borrowed.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            pointer,
            size_of::<libc::mount_attr>(),
        )
    };
    crate::outcome(answer).map(drop)
}

/// mount(2), for file systems whose options do not fit through fsconfig(2).
///
/// # Errors
/// What mount(2) answers.
pub fn mount_classic(source: &str, target: impl AsRef<Path>, kind: &str, options: &str) -> io::Result<()> {
    Ok(nix::mount::mount(Some(source), target.as_ref(), Some(kind), nix::mount::MsFlags::empty(), Some(options))?)
}

/// Makes `root` (a mount's root) the root of the caller's mount namespace, detaches the old root with all that is below,
/// and changes into the new one: pivot_root(2) with both paths ".", which leaves no name of the old root behind.
/// The mount namespace must be the caller's own.
///
/// # Errors
/// What fchdir(2), pivot_root(2) and umount2(2) answer; `EINVAL` when `root` or a mount above is shared.
pub fn pivot(root: BorrowedFd<'_>) -> io::Result<()> {
    let old = crate::fd::open("/", OFlags::PATH | OFlags::DIRECTORY, Mode::empty())?;
    rustix::process::fchdir(root)?;
    rustix::process::pivot_root(".", ".")?;
    // The old root now lies over the new one. Downstream first, so that the detaching reaches no other namespace; by its
    // handle, since "." means the new root to everything but umount2.
    set_propagation(old.as_fd(), SLAVE | RECURSIVE)?;
    drop(old);
    rustix::mount::unmount(".", UnmountFlags::DETACH)?;
    Ok(rustix::process::chdir("/")?)
}

/// umount2(2) on a path of the caller's own; the last component is not followed. `lazy` detaches a busy one too.
///
/// # Errors
/// What the kernel answers: `EINVAL` when nothing is mounted there, `EBUSY`.
pub fn unmount(path: impl AsRef<Path>, lazy: bool) -> io::Result<()> {
    let flags = if lazy { UnmountFlags::NOFOLLOW | UnmountFlags::DETACH } else { UnmountFlags::NOFOLLOW };
    Ok(rustix::mount::unmount(path.as_ref(), flags)?)
}

/// Sets the propagation of the mount at a path of the caller's own, see [`Tree::set_propagation`].
///
/// # Errors
/// What open(2) and mount_setattr(2) answer.
pub fn set_propagation_of(path: impl AsRef<Path>, propagation: u64) -> io::Result<()> {
    let mount = crate::fd::open(path, OFlags::PATH, Mode::empty())?;
    set_propagation(mount.as_fd(), propagation)
}

/// Bind-mounts one file or folder on another, both paths of the caller's own.
///
/// # Errors
/// What open(2), open_tree(2) and move_mount(2) answer.
pub fn bind(source: impl AsRef<Path>, target: impl AsRef<Path>, recursive: bool) -> io::Result<()> {
    let target = crate::fd::open(target, OFlags::PATH, Mode::empty())?;
    Tree::copy_path(source, recursive)?.attach(target)
}
