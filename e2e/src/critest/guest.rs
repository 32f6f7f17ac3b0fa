//! The suite in a virtual machine, beside the runtime: pure cgroup v2, systemd as init, and AppArmor.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::{PROGRAM, arguments};
use crate::controlplane::{ADDRESS, BRIDGE};
use crate::vm::{self, Hardware, Initramfs, Kernel, Machine};
use crate::{cni, command, paths};

const GUEST: &str = "10.251.0.2/24";
const SOCKET: &str = "/run/berth/cri.sock";
const REPORT: &str = "/root/report.json";

/// The suite calls it for apparmor_parser(8), as root already.
const SUDO: &str = "#!/bin/sh\nexec \"$@\"\n";

/// Fetches what the guest is made of.
///
/// # Errors
/// Debian's mirror does not answer.
pub fn prepare() -> Result<()> {
    Kernel::fetch()?;
    vm::fetch_debian().map(drop)
}

/// Runs critest in the guest to its end, with images from the registry on the host's [`ADDRESS`]; the report's path.
pub(super) fn run(options: &super::Options, certs: &Path, dir: &Path) -> Result<PathBuf> {
    let kernel = Kernel::fetch()?;
    let disk = vm::fetch_debian()?;
    let mut image = Initramfs::with_disk(&kernel)?;
    image.program(&paths::berth("berth"), "usr/bin/berth")?;
    image.program(&command::find(PROGRAM).context("critest is gone")?, &format!("usr/bin/{PROGRAM}"))?;
    image.put("usr/bin/sudo", 0o755, SUDO.as_bytes());
    image.put("etc/cni/net.d/10-pods.conflist", 0o644, cni::network("pods0", "10.88.0.0/16").as_bytes());
    for entry in fs::read_dir(certs)? {
        let entry = entry?;
        let hosts = fs::read(entry.path().join("hosts.toml"))?;
        image.put(&format!("etc/berth/certs.d/{}/hosts.toml", entry.file_name().to_string_lossy()), 0o644, &hosts);
    }
    let hardware = Hardware { bridge: Some(BRIDGE), disk: Some(&disk) };
    let mut machine = Machine::boot(&kernel, &image.done(), &dir.join("vm"), &hardware)?;
    let report = tell(&mut machine, options, dir).with_context(|| machine.end_of_console())?;
    machine.shut_down()?;
    Ok(report)
}

fn tell(machine: &mut Machine, options: &super::Options, dir: &Path) -> Result<PathBuf> {
    machine.run(&format!(
        "ip link set eth0 up && ip address add {GUEST} dev eth0 && ip route add default via {ADDRESS}"
    ))?;
    let enabled = machine.run("cat /sys/module/apparmor/parameters/enabled")?;
    ensure!(enabled.trim() == "Y", "AppArmor is not on in the guest");
    // A service's scope is systemd's to kill; nothing else tells it from a unit of Berth's own.
    let berth = format!("berth cri --listen unix://{SOCKET} --log-level debug");
    machine.run(&format!(
        "systemd-run --quiet --unit=berth --property=Delegate=yes --property=KillMode=process {berth}"
    ))?;
    machine.run(&format!("until [ -S {SOCKET} ]; do sleep 1; done"))?;
    // The channel waits so long for each line, not for the whole.
    let mut line = format!("cd /root && {PROGRAM} --ginkgo.v");
    for argument in arguments(options, Path::new(SOCKET), Path::new(REPORT)) {
        line.push_str(&format!(" '{}'", argument.replace('\'', r"'\''")));
    }
    let log = machine.run(&format!("{line}; true"))?;
    fs::write(dir.join("critest.log"), log)?;
    let runtime = machine.run("journalctl --no-pager -o cat -u berth")?;
    fs::create_dir_all(dir.join("berth"))?;
    fs::write(dir.join("berth/cri.log"), runtime)?;
    let report = dir.join("report.json");
    fs::write(&report, machine.run(&format!("cat {REPORT}"))?)?;
    Ok(report)
}
