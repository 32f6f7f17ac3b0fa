//! Namespaced sysctls, written through a procfs that was checked to be one.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::Path;

use berth_guard::Guard;
use berth_plan::message::{Failure, Stage};
use berth_sys::path::{self, Resolve, Root};
use berth_sys::{Mode, OFlags};

use crate::failure::At;
use crate::host;

/// Writes each (name, value) in the caller's namespaces, through the host's procfs.
///
/// # Errors
/// The first that fails, by its name.
pub fn write(sysctls: &[(String, String)]) -> Result<(), Failure> {
    if sysctls.is_empty() { Ok(()) } else { write_all(&host::open_proc()?, sysctls) }
}

pub(crate) fn write_all(proc: &Root, sysctls: &[(String, String)]) -> Result<(), Failure> {
    for (name, value) in sysctls {
        write_one(proc, name, value).at(Stage::Sysctl, || format!("set sysctl {name:?} to {value:?}"))?;
    }
    Ok(())
}

fn write_one(proc: &Root, name: &str, value: &str) -> io::Result<()> {
    let file = format!("sys/{}", file_name(name));
    // No link, no other mount, nothing above: the file is the one of that name on this procfs or none.
    let mut resolve = Resolve::BENEATH | Resolve::NO_SYMLINKS | Resolve::NO_XDEV;
    if !Guard::SysctlByHost.stands() {
        resolve = Resolve::empty();
    }
    let file = path::open_below(proc.as_fd(), Path::new(&file), OFlags::WRONLY, Mode::empty(), resolve)?;
    File::from(file).write_all(value.as_bytes())
}

/// `net.ipv4.ip_forward` and `net/ipv4/conf/eth0.100/forwarding` alike, as sysctl(8) reads them: the first separator
/// says which one separates, the other is part of a name.
fn file_name(name: &str) -> String {
    match name.find(['.', '/']) {
        Some(at) if name[at..].starts_with('.') => name
            .chars()
            .map(|c| match c {
                '.' => '/',
                '/' => '.',
                other => other,
            })
            .collect(),
        _ => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::file_name;

    #[test]
    fn both_separators_are_understood() {
        assert_eq!(file_name("net.ipv4.ip_forward"), "net/ipv4/ip_forward");
        assert_eq!(file_name("net/ipv4/conf/eth0.100/forwarding"), "net/ipv4/conf/eth0.100/forwarding");
        assert_eq!(file_name("net.ipv4.conf.eth0/100.forwarding"), "net/ipv4/conf/eth0.100/forwarding");
    }
}
