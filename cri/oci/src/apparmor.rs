//! The AppArmor profile that the program will run under.

use std::io::Write;
use std::os::fd::AsFd;

use berth_guard::Guard;
use berth_plan::message::{Failure, Stage};
use berth_sys::path::{self, Root};
use berth_sys::{Mode, OFlags};

use crate::failure::{At, refused};

/// Has the next execve(2) enter a profile; an empty name leaves things as they are.
///
/// In the container's own procfs, which is checked to be one: a file that an image puts there would swallow the word
/// (CVE-2019-16884, CVE-2025-52881).
pub(crate) fn on_execute(profile: &str) -> Result<(), Failure> {
    if profile.is_empty() {
        return Ok(());
    }
    let act = || format!("apply the AppArmor profile {profile:?}");
    let proc = Root::open("/proc").at(Stage::Capabilities, act)?;
    if Guard::AppArmorByProcfs.stands() && !path::is_procfs(proc.as_fd()).at(Stage::Capabilities, act)? {
        return Err(refused(
            Stage::Capabilities,
            "the container's /proc is not procfs: no AppArmor profile can be applied",
        ));
    }
    // Without the module's own folder (before Linux 5.8) there is only the one of all security modules.
    let word = format!("exec {profile}");
    let mut last = None;
    for file in ["thread-self/attr/apparmor/exec", "thread-self/attr/exec"] {
        let open = || {
            let resolve = path::Resolve::BENEATH | path::Resolve::NO_XDEV;
            path::open_below(proc.as_fd(), file.as_ref(), OFlags::WRONLY, Mode::empty(), resolve)
        };
        match open() {
            Ok(file) => return std::fs::File::from(file).write_all(word.as_bytes()).at(Stage::Capabilities, act),
            Err(error) => last = Some(error),
        }
    }
    match last {
        Some(error) => Err(error).at(Stage::Capabilities, act),
        None => Ok(()),
    }
}
