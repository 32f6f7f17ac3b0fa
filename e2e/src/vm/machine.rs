//! Running a guest.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use super::kernel::Kernel;
use crate::daemon::Daemon;
use crate::{command, wait};

const MEMORY_MIB: u32 = 3072;
const TAP: &str = "berth-tap0";

/// A running guest. Dropping it pulls the plug.
#[derive(Debug)]
pub struct Machine {
    qemu: Daemon,
    console: PathBuf,
}

impl Machine {
    /// Boots `initramfs` with the guest's console and QEMU's own log in `dir`. With `bridge` the guest's first network
    /// card is a port of that bridge.
    ///
    /// # Errors
    /// QEMU does not start, or the port can't be made.
    pub fn boot(kernel: &Kernel, initramfs: &[u8], dir: &Path, bridge: Option<&str>) -> Result<Self> {
        fs::create_dir_all(dir)?;
        let image = dir.join("initramfs.cpio");
        fs::write(&image, initramfs)?;
        let console = dir.join("console.log");
        let mut qemu = Command::new("qemu-system-x86_64");
        qemu.args(["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-display", "none", "-no-reboot"])
            .args(["-m", &MEMORY_MIB.to_string(), "-monitor", "none", "-nodefaults"])
            .args(["-serial", &format!("file:{}", console.display())])
            .arg("-kernel")
            .arg(kernel.image())
            .arg("-initrd")
            .arg(&image)
            .args(["-append", "console=ttyS0 quiet panic=-1 mitigations=off tsc=reliable"]);
        if let Some(bridge) = bridge {
            add_port(bridge)?;
            qemu.args(["-netdev", &format!("tap,id=net,ifname={TAP},script=no,downscript=no")])
                .args(["-device", "virtio-net-pci,netdev=net,romfile="]);
        }
        let qemu = Daemon::start("qemu", &mut qemu, &dir.join("qemu.log"))?;
        Ok(Self { qemu, console })
    }

    /// Fails when the guest has ended.
    ///
    /// # Errors
    /// It has ended.
    pub fn check(&mut self) -> Result<()> {
        self.qemu.check()
    }

    /// The console's lines that hold `text`.
    ///
    /// # Errors
    /// The console can't be read.
    pub fn lines_with(&self, text: &str) -> Result<Vec<String>> {
        let console = fs::read(&self.console)?;
        let console = String::from_utf8_lossy(&console);
        Ok(console.lines().filter(|line| line.contains(text)).map(|line| line.trim().to_owned()).collect())
    }

    /// Waits until the guest's console shows `line`.
    ///
    /// # Errors
    /// The limit passed or the guest ended, with the end of the console.
    pub fn await_line(&mut self, line: &str, limit: Duration) -> Result<()> {
        wait::until_true(&format!("the guest says \"{line}\""), limit, || {
            Ok(fs::read(&self.console).is_ok_and(|text| String::from_utf8_lossy(&text).contains(line)))
        })
        .with_context(|| self.end_of_console())
    }

    /// Waits until the guest has switched itself off.
    ///
    /// # Errors
    /// The limit passed, with the end of the console.
    pub fn await_end(&mut self, limit: Duration) -> Result<()> {
        let status = self.qemu.wait(limit)?;
        status.map(drop).with_context(|| format!("the guest is not off after {limit:?}\n{}", self.end_of_console()))
    }

    /// The end of the console, for an error.
    pub fn end_of_console(&self) -> String {
        format!("the end of the guest's console:\n{}", command::tail_of(&self.console))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Fails when the guest was booted without a port.
        let _ = command::output(Command::new("ip").args(["link", "delete", TAP]));
    }
}

fn add_port(bridge: &str) -> Result<()> {
    let ip = |arguments: &[&str]| command::output(Command::new("ip").args(arguments)).map(drop);
    ip(&["tuntap", "add", "dev", TAP, "mode", "tap"])?;
    ip(&["link", "set", TAP, "master", bridge, "up"])
}
