//! Putting together what the guest boots from.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::channel;
use super::cpio::Archive;
use super::kernel::Kernel;
use crate::command;

/// What a node needs from the kernel that Debian builds as modules.
const MODULES: &[&str] = &[
    "virtio_pci",
    "virtio_net",
    "virtio_console",
    "overlay",
    "veth",
    "bridge",
    "nf_tables",
    "nft_chain_nat",
    "nft_ct",
    "nft_fib",
    "nft_fib_inet",
    "nft_fib_ipv4",
    "nft_masq",
    "nft_nat",
    "nft_redir",
    "nft_reject_inet",
    "nfnetlink",
    // For disks of tests.
    "loop",
    // What criu asks for sockets and links.
    "af_packet_diag",
    "inet_diag",
    "netlink_diag",
    "raw_diag",
    "tcp_diag",
    "tun",
    "udp_diag",
    "unix_diag",
    // What other plugins and administrators make links of.
    "8021q",
    "dummy",
    "ipvlan",
    "macvlan",
    "vrf",
];

/// The first program of a guest without a disk: sets up what an init system would, in a tmpfs, since nobody can pivot away
/// from an initramfs.
const INIT_ALONE: &str = r#"#!/bin/busybox sh
B=/bin/busybox
if [ ! -e /.moved ]; then
  $B mkdir -p /new; $B mount -t tmpfs -o size=75%,mode=755 new /new
  $B cp -a /bin /etc /init /lib /lib64 /modules /root /usr /var /new/; : >/new/.moved
  exec $B switch_root /new /init
fi
$B --install -s /bin
export PATH=/bin:/usr/bin HOME=/root
mkdir -p /proc /sys /dev /run /tmp /var/lib /var/log
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /dev/pts
mount -t tmpfs -o mode=1777 shm /dev/shm
mount -t tmpfs -o mode=755 run /run
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount --make-rshared /
ip link set lo up
while read -r m; do insmod /modules/$m.ko || echo "berth-vm: module $m failed"; done </modules/order
echo "berth-vm: booted $(uname -r)"
. /root/channel
. /root/work
echo "berth-vm: done"
sync
poweroff -f
"#;

/// The first program of a guest with a disk: what is added to this archive goes onto the disk, whose own init takes over.
const INIT_DISK: &str = r#"#!/bin/busybox sh
B=/bin/busybox
$B mkdir -p /proc /dev /new
$B mount -t devtmpfs dev /dev
while read -r m; do $B insmod /modules/$m.ko || echo "berth-vm: module $m failed"; done </modules/order
$B mount -t ext4 -o noatime /dev/vda /new
$B cp -a /disk/. /new/
$B umount /dev
echo "berth-vm: booted"
exec $B switch_root /new /lib/systemd/systemd
"#;

/// Runs the channel in a guest with systemd, early and whatever else goes wrong.
const CHANNEL_UNIT: &str = "[Unit]
Description=Commands from the host
DefaultDependencies=no
[Service]
ExecStart=/bin/sh -c '. /root/channel; channel; systemctl poweroff --force'
[Install]
WantedBy=sysinit.target
";

/// The content of a guest.
#[derive(Debug)]
pub struct Initramfs {
    archive: Archive,
    folders: BTreeSet<String>,
    files: BTreeSet<String>,
    /// Where what is added belongs: empty, or the folder that is copied to the disk.
    below: &'static str,
}

impl Initramfs {
    /// A guest that is nothing but this archive: busybox, the modules, and `work`, a shell script that its init runs. In
    /// it, `channel` is a function that executes what [`super::Machine::run`] sends.
    ///
    /// # Errors
    /// busybox is not installed, or a module can't be read.
    pub fn alone(kernel: &Kernel, work: &str) -> Result<Self> {
        let mut own = Self::new(kernel, INIT_ALONE, MODULES)?;
        own.put("root/channel", 0o644, channel::GUEST.as_bytes());
        own.put("root/work", 0o644, work.as_bytes());
        Ok(own)
    }

    /// What a guest with [`super::fetch_debian`]'s disk boots from. Files that are added are added to its disk.
    ///
    /// # Errors
    /// As [`Initramfs::alone`].
    pub fn with_disk(kernel: &Kernel) -> Result<Self> {
        let mut own = Self::new(kernel, INIT_DISK, &[MODULES, &["virtio_blk"]].concat())?;
        own.below = "disk/";
        own.put("root/channel", 0o644, channel::GUEST.as_bytes());
        own.unit("berth-vm-channel.service", CHANNEL_UNIT);
        own.link("etc/systemd/system/sysinit.target.wants/berth-vm-channel.service", "../berth-vm-channel.service");
        Ok(own)
    }

    fn new(kernel: &Kernel, init: &str, modules: &[&str]) -> Result<Self> {
        let mut own = Self { archive: Archive::default(), folders: BTreeSet::new(), files: BTreeSet::new(), below: "" };
        for folder in ["bin", "etc", "lib", "lib64", "modules", "root", "usr/bin", "var"] {
            own.folder(folder);
        }
        own.copy(Path::new("/bin/busybox"), "bin/busybox")?;
        own.archive.link("bin/sh", "busybox");
        own.put("init", 0o755, init.as_bytes());
        let mut order = String::new();
        for module in kernel.modules(modules)? {
            own.put(&format!("modules/{}.ko", module.name), 0o644, &module.bytes);
            order.push_str(&module.name);
            order.push('\n');
        }
        own.put("modules/order", 0o644, order.as_bytes());
        Ok(own)
    }

    /// Adds a unit of systemd's.
    pub fn unit(&mut self, name: &str, text: &str) {
        self.put(&format!("etc/systemd/system/{name}"), 0o644, text.as_bytes());
    }

    /// Adds a symbolic link with its folders.
    pub fn link(&mut self, path: &str, target: &str) {
        let path = self.place(path);
        if self.files.insert(path.clone()) {
            self.archive.link(&path, target);
        }
    }

    /// Adds a file with its folders.
    pub fn put(&mut self, path: &str, mode: u32, content: &[u8]) {
        let path = self.place(path);
        if self.files.insert(path.clone()) {
            self.archive.file(&path, mode, content);
        }
    }

    /// Adds a program of this machine and the libraries that it is linked with; a disk's Debian has them.
    ///
    /// # Errors
    /// A file can't be read.
    pub fn program(&mut self, source: &Path, path: &str) -> Result<()> {
        let stripped = std::env::temp_dir().join(format!("berth-vm-{}", std::process::id()));
        // Symbols would triple what the guest has to copy.
        command::output(Command::new("strip").arg("-o").arg(&stripped).arg(source))?;
        let copied = self.copy(&stripped, path);
        fs::remove_file(&stripped)?;
        copied?;
        if !self.below.is_empty() {
            return Ok(());
        }
        // A static program has none, and ldd says so by failing.
        let libraries = command::output(Command::new("ldd").arg(source)).unwrap_or_default();
        for library in libraries.split_whitespace().filter(|word| word.starts_with('/')) {
            self.copy(Path::new(library), library)?;
        }
        Ok(())
    }

    /// The archive that the kernel unpacks.
    pub fn done(self) -> Vec<u8> {
        self.archive.done()
    }

    fn copy(&mut self, source: &Path, path: &str) -> Result<()> {
        let content = fs::read(source).with_context(|| format!("cannot read {}", source.display()))?;
        self.put(path, 0o755, &content);
        Ok(())
    }

    /// The full path of what is added, whose folders are made.
    fn place(&mut self, path: &str) -> String {
        let path = format!("{}{}", self.below, path.trim_start_matches('/'));
        if let Some((folder, _)) = path.rsplit_once('/') {
            self.folder(folder);
        }
        path
    }

    fn folder(&mut self, path: &str) {
        let mut so_far = String::new();
        for part in path.split('/').filter(|part| !part.is_empty()) {
            if !so_far.is_empty() {
                so_far.push('/');
            }
            so_far.push_str(part);
            if self.folders.insert(so_far.clone()) {
                self.archive.folder(&so_far);
            }
        }
    }
}
