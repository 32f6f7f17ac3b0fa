//! A house of its own for a scenario: fresh network, mount, process and cgroup namespaces, and a folder.
//!
//! A scenario changes links, routes, firewall rules, mounts, processes and cgroups. Inside the house these are its own:
//! it meets nobody else's, the leak check can ask for equality, and whatever a failed scenario leaves dies with its
//! first process. Only files outside the house's folder are shared with the host.
//!
//! Three processes take part: the caller, which unshares and waits; the first process of the house, which sets it up
//! and reaps orphans (shims outlive their agent); and the scenario itself, its child.

pub(crate) mod cgroups;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};

use crate::ip;

/// Set for the first process of a house and for what runs in it.
const STAGE: &str = "BERTH_HOUSE";

/// Its name: that of its folder below the temporary one, and of its cgroups.
const NAME: &str = "BERTH_HOUSE_NAME";

/// Folders that Berth and the CNI convention fix, and that a scenario must not share with the host.
const OWN_FOLDERS: &[&str] = &["/var/lib/berth", "/var/lib/cni", "/var/lib/kubelet", "/var/log", "/etc/cni", "/run"];

/// Runs `prepare` where the caller is (a house has no way to a package registry), then `work` in a house. The program is
/// executed again with the same arguments, so a caller calls this before it does anything else, on a single thread,
/// and returns at once what this returns.
///
/// # Errors
/// `prepare` failed, the namespaces can't be made (that takes root), or `work` failed.
pub fn run(prepare: impl FnOnce() -> Result<()>, work: impl FnOnce() -> Result<()>) -> Result<()> {
    match env::var(STAGE).as_deref() {
        Ok("inside") => work(),
        Ok("first") => first(),
        _ => {
            prepare()?;
            outside()
        }
    }
}

/// Whether this process is in a house.
pub fn inside() -> bool {
    env::var(STAGE).is_ok_and(|stage| stage == "inside")
}

fn again(stage: &str) -> Result<Command> {
    let mut command = Command::new(env::current_exe()?);
    command.args(env::args_os().skip(1)).env(STAGE, stage);
    Ok(command)
}

fn outside() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWPID)
        .context("cannot make namespaces for the scenario (root is needed)")?;
    let name = format!("berth-house-{}", std::process::id());
    let dir = env::temp_dir().join(&name);
    fs::create_dir_all(&dir)?;
    cgroups::make(&name)?;
    let status = again("first")?.env(NAME, &name).status();
    cgroups::remove(&name)?;
    if !status?.success() {
        bail!("it failed: see above, and the logs in {}", dir.display());
    }
    fs::remove_dir_all(dir)?;
    Ok(())
}

/// The folder of this house.
pub(crate) fn dir() -> PathBuf {
    let name = env::var(NAME).unwrap_or_else(|_| "berth-e2e".to_owned());
    env::temp_dir().join(name)
}

fn first() -> Result<()> {
    // The house must not outlive the caller, however that ends.
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    // Here and not in the caller, which goes on with the machine's own /proc and cgroups.
    unshare(CloneFlags::CLONE_NEWNS)?;
    let none: Option<&Path> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    // A node's mounts are shared; now among the processes of this house alone.
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SHARED, none)?;
    mount(Some("proc"), "/proc", Some("proc"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC, none)?;
    for folder in OWN_FOLDERS {
        fs::create_dir_all(folder)?;
        mount(Some("house"), *folder, Some("tmpfs"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Some("mode=755"))
            .with_context(|| format!("tmpfs on {folder}"))?;
    }
    fs::create_dir_all("/run/lock")?;
    cgroups::enter(&env::var(NAME)?)?;
    ip::run(&["link", "set", "lo", "up"])?;
    let scenario = again("inside")?.stdin(Stdio::null()).spawn()?;
    let scenario = i32::try_from(scenario.id())?;
    loop {
        match waitpid(None, None)? {
            WaitStatus::Exited(pid, 0) if pid.as_raw() == scenario => return Ok(()),
            WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, _, _) if pid.as_raw() == scenario => {
                bail!("the scenario failed: see above")
            }
            _ => {}
        }
    }
}
