//! A virtual machine with another kernel than this machine's, and cgroup v2 alone.
//!
//! Debian's cloud kernel boots under QEMU's own translation (no KVM: CI has none to count on) from an initramfs that is
//! put together here: busybox, the program under test with its libraries, and the kernel modules that a node needs.

mod cpio;
mod initramfs;
mod kernel;
mod machine;

pub use initramfs::Initramfs;
pub use kernel::Kernel;
pub use machine::Machine;

use std::time::{Duration, Instant};

use anyhow::Result;

/// Boots the kernel with nothing to do and waits until it is off again.
///
/// # Errors
/// It does not boot.
pub fn boot() -> Result<()> {
    let kernel = Kernel::fetch()?;
    let initramfs = Initramfs::new(&kernel, "cat /proc/modules | wc -l; date; mount | grep cgroup\n")?.done();
    let dir = std::env::temp_dir().join("berth-vm-boot");
    let start = Instant::now();
    let mut machine = Machine::boot(&kernel, &initramfs, &dir, None)?;
    machine.await_line("berth-vm: booted", Duration::from_secs(120))?;
    println!("booted after {:.1} s", start.elapsed().as_secs_f64());
    machine.await_end(Duration::from_secs(60))
}
