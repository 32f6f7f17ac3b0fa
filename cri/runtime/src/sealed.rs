//! The program's own file, out of reach of containers (CVE-2019-5736).
//!
//! A process of a container can be this program for a moment: until its execve(2), or after it, when what it executes is
//! `/proc/self/exe`. Whoever holds a descriptor of its file then could write to it later. So commands that make processes
//! of containers first execute themselves again from a copy that nobody can write to: through a read-only mount of the
//! file alone, which is attached nowhere and gone with this program; or a sealed memory file, where mounts are not allowed.

use std::env;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;

use berth_sys::mount::{self, Tree};
use berth_sys::{Mode, OFlags, fd, memfd, path, process};

use crate::fault::{During, Fault, Outcome};

const SELF: &str = "/proc/self/exe";
/// Set for the copy, so that one that is not read-only after all is no endless loop.
const MARK: &str = "_BERTH_OCI_COPY";
/// More than this program ever has.
const LARGEST: usize = 64 << 20;

/// Returns in the copy only.
pub(crate) fn ensure() -> Outcome<()> {
    let is_copy = env::var_os(MARK).is_some();
    if is_copy && is_protected().during(|| format!("look at {SELF}"))? {
        return Ok(());
    }
    if is_copy {
        return Err(Fault::new("the program's own file can't be protected from the container"));
    }
    let arguments = texts(env::args_os().map(OsStringExt::into_vec))?;
    let variables = env::vars_os().map(|(name, value)| [name.into_vec(), value.into_vec()].join(&b'='));
    let environment = texts(variables.chain([format!("{MARK}=1").into_bytes()]))?;
    let error = match read_only() {
        Ok(program) => process::execute_handle(program.as_fd(), &arguments, &environment),
        Err(error) => error,
    };
    // Without the right to mount, or on a file system that can't be mounted again.
    let copied = copy().during(|| format!("copy {SELF} (a read-only mount of it: {error})"))?;
    Err(process::execute_handle(copied.as_fd(), &arguments, &environment))
        .during(|| format!("execute a copy of {SELF}"))
}

fn is_protected() -> io::Result<bool> {
    let own = fd::open(SELF, OFlags::PATH, Mode::empty())?;
    if path::is_readonly(own.as_fd())? {
        return Ok(true);
    }
    let own = fd::open(SELF, OFlags::RDONLY, Mode::empty())?;
    Ok(memfd::is_sealed(own.as_fd()))
}

fn read_only() -> io::Result<OwnedFd> {
    let tree = Tree::copy_path(SELF, false)?;
    tree.set_attributes(mount::RDONLY, 0, false)?;
    Ok(tree.into())
}

fn copy() -> io::Result<OwnedFd> {
    let bytes = berth_effect::record::read(SELF.as_ref(), LARGEST as u64)?.ok_or(io::ErrorKind::NotFound)?;
    memfd::sealed("berth-oci", &bytes)
}

fn texts(texts: impl Iterator<Item = Vec<u8>>) -> Outcome<Vec<CString>> {
    texts.map(CString::new).collect::<Result<_, _>>().map_err(|_| Fault::new("an argument has a zero byte"))
}
