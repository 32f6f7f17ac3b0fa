//! A virtual machine with another kernel than this machine's, and cgroup v2 alone.
//!
//! Debian's cloud kernel boots under QEMU's own translation (no KVM: CI has none to count on). Its initramfs is put
//! together here: busybox, the program under test and the kernel modules that a node needs. Either that is the whole
//! guest, or it leads to a Debian with systemd on a disk.

mod channel;
mod cpio;
mod debian;
mod initramfs;
mod kernel;
mod machine;
mod suites;

pub use debian::fetch as fetch_debian;
pub use initramfs::Initramfs;
pub use kernel::Kernel;
pub use machine::{Hardware, Machine};
pub(crate) use suites::{Suite, build as build_suites};

use std::time::{Duration, Instant};

use anyhow::Result;

/// Everything in a guest is some 25 times slower than here.
pub const PATIENCE: Duration = Duration::from_secs(240);

/// Boots the kernel with nothing to do and waits until it is off again.
///
/// # Errors
/// It does not boot.
pub fn boot() -> Result<()> {
    let kernel = Kernel::fetch()?;
    let initramfs = Initramfs::alone(&kernel, "channel\n")?.done();
    let dir = std::env::temp_dir().join("berth-vm-boot");
    let start = Instant::now();
    let mut machine = Machine::boot(&kernel, &initramfs, &dir, &Hardware::default())?;
    print!("{}", machine.run("uname -a; wc -l </proc/modules; date; mount | grep cgroup")?);
    println!("booted after {:.1} s", start.elapsed().as_secs_f64());
    machine.shut_down()
}
