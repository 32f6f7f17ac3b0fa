//! What a pod's container takes of the kernel besides its root file system, in a straight line of system calls: the
//! mounts, devices, covered paths and filter that the CRI and the OCI specification ask for.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::OnceLock;

use anyhow::Result;
use berth_cri_core::compile::{MASKED, READONLY};
use berth_cri_core::host::Arch;
use berth_cri_core::seccomp;
use berth_sys::mount::{self, FsContext, NODEV, NOEXEC, NOSUID, RDONLY, Tree};
use berth_sys::namespace::{self, Namespaces};
use berth_sys::{Mode, OFlags, fd, path};

use super::{Figure, all_namespaces, clone_exec, execute, layers, mount_overlay};

/// Binds of files that every sandbox has.
const FILES: [&str; 3] = ["etc/hostname", "etc/hosts", "etc/resolv.conf"];
const DEVICES: [(&str, u32, u32); 6] =
    [("full", 1, 7), ("null", 1, 3), ("random", 1, 8), ("tty", 5, 0), ("urandom", 1, 9), ("zero", 1, 5)];
const LINKS: [(&str, &str); 4] = [
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
];

/// What the children find in their copies of the memory.
static FILTER: OnceLock<Vec<u8>> = OnceLock::new();
static HIERARCHIES: OnceLock<Vec<String>> = OnceLock::new();

pub(super) fn container(dir: &Path) -> Result<Figure> {
    let lower = layers(dir)?.join("lower");
    for folder in ["dev", "etc", "proc", "sys"] {
        fs::create_dir_all(lower.join(folder))?;
    }
    for file in FILES {
        File::create(lower.join(file))?;
    }
    let profile = seccomp::runtime_default(Arch::NATIVE, 0);
    FILTER.get_or_init(|| seccomp::compile(&profile, Arch::NATIVE).unwrap_or_default());
    let own = fs::read_to_string("/proc/self/cgroup")?;
    HIERARCHIES.get_or_init(|| own.lines().filter_map(|line| Some(line.split(':').nth(1)?.to_owned())).collect());
    clone_exec(child, all_namespaces())
}

fn child(_: Vec<OwnedFd>) -> i32 {
    match prepare() {
        Ok(()) => execute("/busybox"),
        Err(error) => {
            eprintln!("the floor's container: {error}");
            2
        }
    }
}

fn prepare() -> io::Result<()> {
    namespace::unshare(Namespaces::CGROUP)?;
    mount::set_propagation_of("/", super::PRIVATE)?;
    let layers = crate::paths::scratch_path("floor").join("layers");
    let root = layers.join("merged");
    mount_overlay(&layers, &root)?;
    let plain = NOSUID | NODEV | NOEXEC;
    fresh("proc", &[], plain, &root.join("proc"))?;
    fresh("tmpfs", &[("mode", "755"), ("size", "65536k")], NOSUID, &root.join("dev"))?;
    for name in ["dev/pts", "dev/mqueue", "dev/shm"] {
        fs::create_dir(root.join(name))?;
    }
    let terminals = [("newinstance", ""), ("ptmxmode", "0666"), ("mode", "0620"), ("gid", "5")];
    fresh("devpts", &terminals, NOSUID | NOEXEC, &root.join("dev/pts"))?;
    fresh("mqueue", &[], plain, &root.join("dev/mqueue"))?;
    bind(Path::new("/dev/shm"), &root.join("dev/shm"))?;
    fresh("sysfs", &[], plain | RDONLY, &root.join("sys"))?;
    cgroups(&root.join("sys/fs/cgroup"))?;
    for file in FILES {
        bind(Path::new("/etc/passwd"), &root.join(file))?;
    }
    let dev = place(&root.join("dev"))?;
    for (name, major, minor) in DEVICES {
        path::make_device(dev.as_fd(), OsStr::new(name), true, major, minor, Mode::from_raw_mode(0o666), 0, 0)?;
    }
    for (to, name) in LINKS {
        symlink(to, root.join("dev").join(name))?;
    }
    let null = Tree::copy_path("/dev/null", false)?;
    for masked in MASKED.map(|path| root.join(&path[1..])) {
        match fs::metadata(&masked) {
            Ok(facts) if facts.is_dir() => fresh("tmpfs", &[("nr_inodes", "1")], plain | RDONLY, &masked)?,
            Ok(_) => Tree::copy(&null, false)?.attach(place(&masked)?)?,
            Err(_) => {}
        }
    }
    for path in READONLY.map(|path| root.join(&path[1..])).iter().filter(|path| path.exists()) {
        let copy = Tree::copy_path(path, true)?;
        copy.set_attributes(RDONLY, 0, true)?;
        copy.attach(place(path)?)?;
    }
    mount::pivot(place(&root)?.as_fd())?;
    seccomp_filter()
}

fn cgroups(target: &Path) -> io::Result<()> {
    let Some(hierarchies) = HIERARCHIES.get().filter(|all| all.len() > 1) else {
        return fresh("cgroup2", &[], RDONLY, target);
    };
    fresh("tmpfs", &[("mode", "755")], 0, target)?;
    for controllers in hierarchies {
        let folder = target.join(if controllers.is_empty() { "unified" } else { controllers });
        fs::create_dir(&folder)?;
        match (controllers.as_str(), controllers.strip_prefix("name=")) {
            ("", _) => fresh("cgroup2", &[], RDONLY, &folder)?,
            (_, Some(name)) => fresh("cgroup", &[("none", ""), ("name", name)], RDONLY, &folder)?,
            (all, None) => {
                let options: Vec<_> = all.split(',').map(|one| (one, "")).collect();
                fresh("cgroup", &options, RDONLY, &folder)?;
            }
        }
    }
    Ok(())
}

fn fresh(kind: &str, options: &[(&str, &str)], attributes: u64, target: &Path) -> io::Result<()> {
    let context = FsContext::open(kind)?;
    for (key, value) in options {
        context.set(key, value)?;
    }
    context.mount(attributes)?.attach(place(target)?)
}

fn place(path: &Path) -> io::Result<OwnedFd> {
    fd::open(path, OFlags::PATH, Mode::empty())
}

fn bind(source: &Path, target: &Path) -> io::Result<()> {
    Tree::copy_path(source, false)?.attach(place(target)?)
}

fn seccomp_filter() -> io::Result<()> {
    berth_sys::seccomp::install(FILTER.get().map_or(&[], Vec::as_slice))
}
