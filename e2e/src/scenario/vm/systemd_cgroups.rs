//! systemd makes the containers' cgroups: asked by `berth-oci`, and by `berth cri` for the kubelet of Kubernetes itself.

mod oci;
mod pod;

use anyhow::{Context, Result};

use super::guest;
use crate::controlplane::BRIDGE;
use crate::scenario::Stage;
use crate::vm::{self, Hardware, Initramfs, Kernel, Machine};

/// Plays the scenario; call it in a house.
///
/// # Errors
/// What was not as it should be, with the end of the guest's console and journal.
pub fn play() -> Result<()> {
    let stage = Stage::set("vm-systemd-cgroups", "10.251.0.1:5000")?;
    let kernel = Kernel::fetch()?;
    let disk = vm::fetch_debian()?;
    let mut image = Initramfs::with_disk(&kernel)?;
    oci::put(&mut image)?;
    pod::put(&mut image, &stage)?;
    let hardware = Hardware { bridge: Some(BRIDGE), disk: Some(&disk) };
    let mut machine = Machine::boot(&kernel, &image.done(), &stage.dir().join("vm"), &hardware)?;
    let story = tell(&stage, &mut machine);
    if story.is_err() {
        eprintln!("{}", machine.run("journalctl --no-pager -o short-monotonic -n 80").unwrap_or_default());
    }
    story.with_context(|| machine.end_of_console())?;
    machine.shut_down()?;
    stage.say("the guest is off");
    stage.clear()
}

fn tell(stage: &Stage, machine: &mut Machine) -> Result<()> {
    let version = machine.run("systemctl --version | head -n 1")?;
    stage.say(&format!("the guest is up: {}", version.trim()));
    oci::tell(stage, machine)?;
    pod::tell(stage, machine)
}
