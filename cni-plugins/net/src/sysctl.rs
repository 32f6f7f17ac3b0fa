//! `/proc/sys/net` of the calling thread's network namespace.

use std::fs;
use std::io;
use std::path::PathBuf;

/// The current value of a setting such as `net/ipv4/ip_forward`.
///
/// # Errors
/// [`io::ErrorKind::NotFound`] when this kernel has no such setting.
pub fn read(name: &str) -> io::Result<String> {
    Ok(fs::read_to_string(path(name))?.trim_end().to_owned())
}

/// Changes a setting.
///
/// # Errors
/// What the kernel answers.
pub fn write(name: &str, value: &str) -> io::Result<()> {
    fs::write(path(name), value)
}

/// A setting of one link: names may hold dots, which `sysctl(8)` would take for slashes.
pub fn of_link(family: &str, link: &str, setting: &str) -> String {
    format!("net/{family}/conf/{link}/{setting}")
}

fn path(name: &str) -> PathBuf {
    PathBuf::from("/proc/sys").join(name)
}
