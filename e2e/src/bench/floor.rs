//! What the kernel itself takes for the parts of a pod's start: nobody can be faster.

mod pod;

use std::ffi::CString;
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use berth_net::{Link, Mac, NewVeth, Route};
use berth_sys::fork::{self, Birth};
use berth_sys::mount::FsContext;
use berth_sys::namespace::Namespaces;
use berth_sys::{mount, netns, process};

use super::figure::{Figure, measure};
use super::table;

const ROUNDS: usize = 50;

/// The figures by name.
pub(super) type Floor = Vec<(&'static str, Figure)>;

/// The container's own part: what create + start + delete of `true` can't go below.
pub(super) const CONTAINER: &str = "clone3 into namespaces, overlay, exec, reap";

/// The same with all that the CRI and the OCI specification ask for, by one process that nobody watches.
pub(super) const POD: &str = "the same with a pod's mounts and filter";

/// Measures and prints the floor; as JSON with `json`. Call it in a house, on a single thread.
///
/// # Errors
/// The kernel refuses something.
pub fn floor(json: bool) -> Result<()> {
    let figures = measure_floor()?;
    if json {
        println!("{}", table::json(&[], &[], &figures));
    } else {
        print!("{}", table::figures(&figures));
    }
    Ok(())
}

pub(super) fn measure_floor() -> Result<Floor> {
    let dir = crate::paths::scratch("floor")?;
    let mut floor =
        vec![("network namespace: make and pin", namespace(&dir)?), ("network namespace: unpin", unpin(&dir)?)];
    floor.extend(links()?);
    floor.extend([
        ("overlay: mount and unmount", overlay(&dir)?),
        ("clone3, exec, reap", clone_exec(exec_true, Namespaces::default())?),
        (CONTAINER, clone_exec(overlay_exec_true, all_namespaces())?),
        (POD, pod::container(&dir)?),
        ("file: write, flush, rename, flush folder", flush(&dir)?),
    ]);
    fs::remove_dir_all(&dir)?;
    Ok(floor)
}

/// The figure of [`CONTAINER`] alone.
pub(super) fn container(dir: &Path) -> Result<Figure> {
    layers(dir)?;
    clone_exec(overlay_exec_true, all_namespaces())
}

fn namespace(dir: &Path) -> Result<Figure> {
    let path = dir.join("netns");
    let mut samples = Vec::new();
    for _ in 0..ROUNDS {
        let start = Instant::now();
        drop(netns::create(&path)?);
        samples.push(start.elapsed());
        netns::remove(&path)?;
    }
    Ok(Figure::of(&samples))
}

fn unpin(dir: &Path) -> Result<Figure> {
    let path = dir.join("netns");
    let mut samples = Vec::new();
    for _ in 0..ROUNDS {
        drop(netns::create(&path)?);
        let start = Instant::now();
        netns::remove(&path)?;
        samples.push(start.elapsed());
    }
    Ok(Figure::of(&samples))
}

/// A cable into a namespace: made in one message, deleted by its end here.
fn links() -> Result<[(&'static str, Figure); 2]> {
    let namespace = netns::NetNs::fresh()?;
    let mut route = Route::open()?;
    let (mut made, mut deleted) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let cable = NewVeth {
            name: "berth-floor0",
            mac: Mac::random(),
            master: None,
            peer_name: "eth0",
            peer_mac: Mac::random(),
            peer_namespace: namespace.as_fd(),
            mtu: None,
        };
        let start = Instant::now();
        route.change(&[Link::create_veth(&cable)])?;
        made.push(start.elapsed());
        let start = Instant::now();
        route.change(&[Link::delete(cable.name)])?;
        deleted.push(start.elapsed());
    }
    Ok([("veth into a namespace: make", Figure::of(&made)), ("veth: delete", Figure::of(&deleted))])
}

fn overlay(dir: &Path) -> Result<Figure> {
    let layers = layers(dir)?;
    measure(ROUNDS, |_| {
        let target = layers.join("merged");
        mount_overlay(&layers, &target)?;
        mount::unmount(&target, false)?;
        Ok(())
    })
}

fn layers(dir: &Path) -> Result<PathBuf> {
    let layers = dir.join("layers");
    for folder in ["lower", "upper", "work", "merged"] {
        fs::create_dir_all(layers.join(folder))?;
    }
    fs::copy("/bin/busybox", layers.join("lower/busybox"))?;
    Ok(layers)
}

fn mount_overlay(layers: &Path, target: &Path) -> std::io::Result<()> {
    let context = FsContext::open("overlay")?;
    for (key, folder) in [("lowerdir", "lower"), ("upperdir", "upper"), ("workdir", "work")] {
        context.set_string(key, &layers.join(folder).to_string_lossy())?;
    }
    // As a runtime does it that wants no flush of the whole disk at the end.
    let _ = fs::remove_dir_all(layers.join("work/work/incompat/volatile"));
    context.set_flag("volatile")?;
    context.mount(0)?.attach(File::open(target)?)
}

fn all_namespaces() -> Namespaces {
    Namespaces::MOUNT.and(Namespaces::PID).and(Namespaces::IPC).and(Namespaces::UTS)
}

fn clone_exec(body: fn(Vec<OwnedFd>) -> i32, namespaces: Namespaces) -> Result<Figure> {
    let null = File::options().read(true).write(true).open("/dev/null")?;
    measure(ROUNDS, |_| {
        let birth = Birth { namespaces, stdio: Some([null.as_fd(), null.as_fd(), null.as_fd()]), ..Birth::default() };
        let child = fork::spawn(&birth, body)?;
        let ended = child.pidfd.wait()?;
        ensure!(ended.code() == 0, "the child ended with {ended:?}");
        Ok(())
    })
}

fn exec_true(_: Vec<OwnedFd>) -> i32 {
    execute("/bin/busybox")
}

/// Runs in the child, in namespaces of its own.
fn overlay_exec_true(_: Vec<OwnedFd>) -> i32 {
    let layers = crate::paths::scratch_path("floor").join("layers");
    let merged = layers.join("merged");
    let mounted = mount::set_propagation_of("/", PRIVATE).and_then(|()| mount_overlay(&layers, &merged));
    match mounted.and_then(|()| mount::pivot(File::open(&merged)?.as_fd())) {
        Ok(()) => execute("/busybox"),
        Err(_) => 2,
    }
}

const PRIVATE: u64 = mount::PRIVATE | mount::RECURSIVE;

fn execute(path: &str) -> i32 {
    let text = |text: &str| CString::new(text).unwrap_or_default();
    let _ = process::execute(&text(path), &[text("busybox"), text("true")], &[]);
    127
}

fn flush(dir: &Path) -> Result<Figure> {
    let (temporary, path) = (dir.join("record.tmp"), dir.join("record"));
    measure(ROUNDS, |_| {
        let mut file = File::create(&temporary)?;
        file.write_all(&[b'x'; 1024])?;
        file.sync_all()?;
        fs::rename(&temporary, &path)?;
        File::open(dir)?.sync_all().context("flush a folder")
    })
}
