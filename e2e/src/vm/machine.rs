//! Running a guest.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use super::PATIENCE;
use super::channel::Channel;
use super::kernel::Kernel;
use crate::daemon::Daemon;
use crate::{command, ip};

const MEMORY_MIB: u32 = 3072;
const COMMAND_LINE: &str = "console=ttyS0 quiet panic=-1 mitigations=off tsc=reliable";
const TAP: &str = "berth-tap0";

/// What a guest has besides its console and the channel for commands.
#[derive(Debug, Default)]
pub struct Hardware<'a> {
    /// A bridge, of which the first network card is a port.
    pub bridge: Option<&'a str>,
    /// The image of its disk, which is not written to: changes go with the guest.
    pub disk: Option<&'a Path>,
}

/// A running guest. Dropping it pulls the plug.
#[derive(Debug)]
pub struct Machine {
    // Before QEMU, which would otherwise wait for nobody.
    channel: Option<Channel>,
    qemu: Daemon,
    console: PathBuf,
}

impl Machine {
    /// Boots `initramfs` with the guest's console and QEMU's own log in `dir`.
    ///
    /// # Errors
    /// QEMU does not start, or the port can't be made.
    pub fn boot(kernel: &Kernel, initramfs: &[u8], dir: &Path, hardware: &Hardware<'_>) -> Result<Self> {
        fs::create_dir_all(dir)?;
        let image = dir.join("initramfs.cpio");
        fs::write(&image, initramfs)?;
        let console = dir.join("console.log");
        let socket = dir.join("channel.sock");
        let mut qemu = Command::new("qemu-system-x86_64");
        qemu.args(["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-display", "none", "-no-reboot"])
            .args(["-m", &MEMORY_MIB.to_string(), "-monitor", "none", "-nodefaults"])
            .args(["-serial", &format!("file:{}", console.display())])
            .args(["-chardev", &format!("socket,id=channel,path={},server=on,wait=off", socket.display())])
            .args(["-device", "virtio-serial-pci", "-device", "virtserialport,chardev=channel,name=berth"])
            .arg("-kernel")
            .arg(kernel.image())
            .arg("-initrd")
            .arg(&image)
            .args(["-append", COMMAND_LINE]);
        if let Some(disk) = hardware.disk {
            qemu.env("TMPDIR", dir)
                .args(["-drive", &format!("file={},format=raw,if=virtio,snapshot=on", disk.display())]);
        }
        if let Some(bridge) = hardware.bridge {
            add_port(bridge)?;
            qemu.args(["-netdev", &format!("tap,id=net,ifname={TAP},script=no,downscript=no")])
                .args(["-device", "virtio-net-pci,netdev=net,romfile="]);
        }
        let mut qemu = Daemon::start("qemu", &mut qemu, &dir.join("qemu.log"))?;
        let channel = Channel::connect(&socket).map_err(|error| qemu.check().err().unwrap_or(error))?;
        Ok(Self { channel: Some(channel), qemu, console })
    }

    /// Fails when the guest has ended.
    ///
    /// # Errors
    /// It has ended.
    pub fn check(&mut self) -> Result<()> {
        self.qemu.check()
    }

    /// Runs a shell command of one line in the guest, as soon as that listens, and returns what it wrote to stdout and
    /// stderr.
    ///
    /// # Errors
    /// It ended with another status than 0, or not in time; or the guest has ended.
    pub fn run(&mut self, command: &str) -> Result<String> {
        self.channel.as_mut().context("the guest was told to shut down")?.run(command, PATIENCE)
    }

    /// As [`Machine::run`] for what takes longer: tells each line of the output as it comes, and waits for each as long as
    /// `limit`.
    ///
    /// # Errors
    /// As [`Machine::run`].
    pub fn run_telling(&mut self, command: &str, limit: Duration, tell: &mut dyn FnMut(&str)) -> Result<String> {
        self.channel.as_mut().context("the guest was told to shut down")?.run_telling(command, limit, tell)
    }

    /// Hangs up, upon which the guest switches itself off, and waits for that.
    ///
    /// # Errors
    /// It is not off in time.
    pub fn shut_down(mut self) -> Result<()> {
        self.channel = None;
        let status = self.qemu.wait(PATIENCE)?;
        status.map(drop).with_context(|| format!("the guest is not off after {PATIENCE:?}\n{}", self.end_of_console()))
    }

    /// The end of the console, for an error.
    pub fn end_of_console(&self) -> String {
        format!("the end of the guest's console:\n{}", command::tail_of(&self.console))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Fails when the guest was booted without a port.
        let _ = ip::run(&["link", "delete", TAP]);
    }
}

fn add_port(bridge: &str) -> Result<()> {
    ip::run(&["tuntap", "add", "dev", TAP, "mode", "tap"])?;
    ip::run(&["link", "set", TAP, "master", bridge, "up"])
}
