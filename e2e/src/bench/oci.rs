//! O1: create + start + delete of `true`, three processes each, `berth-oci` beside crun and runc in turn.
//!
//! Programs are started by posix_spawn(3), as std does, and timed from there to their end; the time between start and the
//! container's end is nobody's and not counted. The house's own mount namespace loses the v2 tree of a hybrid layout, for
//! all three alike, since crun refuses such a layout.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use berth_cri_core::host::Arch;
use berth_cri_core::{capabilities, seccomp};
use berth_sys::pidfd::PidFd;
use nix::mount::{MntFlags, umount2};
use serde_json::{Value, json};

use super::figure::Figure;
use super::reference::{self, HANDLERS};
use super::table::{self, Row};
use super::{floor, reference::UNIFIED};
use crate::{apt, command, paths};

const ROUNDS: usize = 40;
/// runc takes long, and its place is known after fewer.
const ROUNDS_OF_RUNC: usize = 10;
/// Milliseconds; whoever waits longer waits for ever.
const PATIENCE: i32 = 30_000;

/// What is measured: a name for people, and a change of the configuration.
type Kind = (&'static str, fn(&mut Value) -> Result<()>);

const KINDS: [Kind; 3] = [
    ("create + start + delete", |_| Ok(())),
    ("the same, RuntimeDefault seccomp", with_filter),
    ("the same, a user namespace", with_user_namespace),
];

/// Builds the program as it ships (small and static), and fetches the references.
///
/// # Errors
/// Cargo or the package manager fails.
pub fn build_oci() -> Result<()> {
    apt::ensure()?;
    reference::fetch_runtimes()?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let flags = ["-C", "target-feature=+crt-static", "-C", "relocation-model=static"].join("\u{1f}");
    let mut build = Command::new(cargo);
    build.current_dir(paths::checkout()).env("CARGO_ENCODED_RUSTFLAGS", flags);
    build.args(["build", "--locked", "--quiet", "--profile", "shim", "--package", "berth-runtime", "--target"]);
    build.arg(target()).arg("--target-dir").arg(folder());
    let status = build.status()?;
    ensure!(status.success(), "building berth-oci: {status}");
    Ok(())
}

fn target() -> String {
    format!("{}-unknown-linux-gnu", std::env::consts::ARCH)
}

fn folder() -> PathBuf {
    paths::target().join("static")
}

/// The program as it ships.
fn program() -> PathBuf {
    folder().join(target()).join("shim/berth-oci")
}

/// Measures and prints the rows, or JSON. Call it in a house, on a single thread.
///
/// # Errors
/// A runtime fails.
pub fn oci(json: bool) -> Result<()> {
    if Path::new(UNIFIED).exists() {
        umount2(UNIFIED, MntFlags::MNT_DETACH).context(UNIFIED)?;
    }
    let dir = paths::scratch("bench-oci")?;
    let floor = floor::container(&paths::scratch("floor")?)?;
    let mut programs = vec![("ours", program())];
    for name in HANDLERS {
        programs.push((name, reference::runtime(name)?));
    }
    bundle(&dir)?;
    let mut rows = Vec::new();
    let mut figures = vec![(floor::CONTAINER, floor)];
    for (work, change) in KINDS {
        let mut configuration = configuration();
        change(&mut configuration)?;
        fs::write(dir.join("config.json"), configuration.to_string())?;
        let lives = measure(&dir, &programs)?;
        let [ours, theirs @ ..] = lives.as_slice() else { continue };
        let crun = &theirs[0];
        let all = theirs.iter().map(|life| Some(life.total.median)).collect();
        // 0.75 of crun; and of what either takes beyond the kernel's own part, a half.
        let part = (0.75 * crun.total.median).min(floor.median + 0.5 * (crun.total.median - floor.median));
        let mut row = Row::against("O1", work, ours.total.median, all, 1.0);
        row.bar = part.max(floor.median);
        rows.push(row);
        for (index, verb) in ["ours: create", "ours: start", "ours: delete"].into_iter().enumerate() {
            figures.push((verb, ours.verbs[index]));
        }
        for (index, verb) in ["crun: create", "crun: start", "crun: delete"].into_iter().enumerate() {
            figures.push((verb, crun.verbs[index]));
        }
    }
    let memory = memory(&dir, &programs)?;
    let bar = memory[1].unwrap_or(0.0);
    rows.push(Row {
        id: "O1",
        work: "peak memory of `run`",
        unit: "MiB",
        ours: memory[0].unwrap_or(f64::INFINITY),
        theirs: memory[1..].to_vec(),
        bar,
    });
    fs::remove_dir_all(&dir)?;
    match json {
        true => println!("{:#}", table::json(&rows, &HANDLERS, &figures)),
        false => print!("{}{}", table::rows(&rows, &HANDLERS), table::figures(&figures)),
    }
    Ok(())
}

fn bundle(dir: &Path) -> Result<()> {
    let rootfs = dir.join("rootfs");
    for folder in ["bin", "dev", "proc", "sys"] {
        fs::create_dir_all(rootfs.join(folder))?;
    }
    fs::copy("/bin/busybox", rootfs.join("bin/true"))?;
    Ok(())
}

/// What a container engine asks for.
fn configuration() -> Value {
    let capabilities: Vec<String> = capabilities::names(capabilities::DEFAULT).collect();
    let namespaces = ["pid", "network", "ipc", "uts", "mount"].map(|kind| json!({ "type": kind }));
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": { "uid": 0, "gid": 0 },
            "args": ["/bin/true"],
            "env": ["PATH=/bin"],
            "cwd": "/",
            "capabilities": { "bounding": capabilities, "effective": capabilities, "permitted": capabilities },
            "noNewPrivileges": true,
        },
        "root": { "path": "rootfs" },
        "hostname": "bench",
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"] },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
              "options": ["nosuid", "strictatime", "mode=755", "size=65536k"] },
            { "destination": "/dev/pts", "type": "devpts", "source": "devpts",
              "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"] },
            { "destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
              "options": ["nosuid", "noexec", "nodev"] },
            { "destination": "/sys", "type": "sysfs", "source": "sysfs",
              "options": ["nosuid", "noexec", "nodev", "ro"] },
        ],
        "linux": {
            "cgroupsPath": "/bench-oci",
            "resources": { "devices": [{ "allow": false, "access": "rwm" }], "pids": { "limit": 100 } },
            "namespaces": namespaces,
            "maskedPaths": ["/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    })
}

fn with_filter(configuration: &mut Value) -> Result<()> {
    let profile = seccomp::runtime_default(Arch::NATIVE, capabilities::DEFAULT);
    configuration["linux"]["seccomp"] = serde_json::to_value(profile)?;
    Ok(())
}

fn with_user_namespace(configuration: &mut Value) -> Result<()> {
    let map = json!([{ "containerID": 0, "hostID": 0, "size": 65_536 }]);
    let linux = &mut configuration["linux"];
    linux["uidMappings"] = map.clone();
    linux["gidMappings"] = map;
    let namespaces = linux["namespaces"].as_array_mut().context("namespaces")?;
    namespaces.push(json!({ "type": "user" }));
    Ok(())
}

#[derive(Debug, Default)]
struct Life {
    total: Figure,
    verbs: [Figure; 3],
}

/// All runtimes in turn, so that what else the machine does falls on all of them.
fn measure(dir: &Path, programs: &[(&str, PathBuf)]) -> Result<Vec<Life>> {
    let mut samples: Vec<Vec<[Duration; 3]>> = programs.iter().map(|_| Vec::new()).collect();
    for round in 0..=ROUNDS {
        for ((name, program), samples) in programs.iter().zip(&mut samples) {
            if *name == "runc" && round > ROUNDS_OF_RUNC {
                continue;
            }
            let life = live(dir, name, program, round).with_context(|| format!("{name}, round {round}"))?;
            // The first warms caches.
            if round > 0 {
                samples.push(life);
            }
        }
    }
    let life = |samples: &Vec<[Duration; 3]>| Life {
        total: Figure::of(&samples.iter().map(|verbs| verbs.iter().sum()).collect::<Vec<_>>()),
        verbs: [0, 1, 2].map(|verb| Figure::of(&samples.iter().map(|verbs| verbs[verb]).collect::<Vec<_>>())),
    };
    Ok(samples.iter().map(life).collect())
}

fn live(dir: &Path, name: &str, program: &Path, round: usize) -> Result<[Duration; 3]> {
    let root = dir.join(format!("root-{name}"));
    let (id, pid_file) = (format!("bench-{name}-{round}"), dir.join("pid"));
    let call = |arguments: &[&str]| -> Result<Duration> {
        let mut command = Command::new(program);
        command.arg("--root").arg(&root).args(arguments).arg(&id);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let start = Instant::now();
        let status = command.status()?;
        let took = start.elapsed();
        ensure!(status.success(), "{arguments:?}: {status}");
        Ok(took)
    };
    let (bundle, pid_path) = (dir.to_string_lossy(), pid_file.to_string_lossy());
    let create = call(&["create", "--bundle", &bundle, "--pid-file", &pid_path])?;
    let pid = fs::read_to_string(&pid_file)?.trim().parse()?;
    let process = PidFd::open(pid).context("the container's process")?;
    let start = call(&["start"])?;
    ensure!(process.has_ended(PATIENCE)?, "`true` has not ended");
    let delete = call(&["delete"])?;
    Ok([create, start, delete])
}

/// MiB, by busybox' time, which is small itself: what a program was before its execve counts, too.
fn memory(dir: &Path, programs: &[(&str, PathBuf)]) -> Result<Vec<Option<f64>>> {
    fs::write(dir.join("config.json"), configuration().to_string())?;
    let mut peaks = Vec::new();
    for (name, program) in programs {
        let mut time = Command::new("/bin/busybox");
        time.args(["time", "-v"]).arg(program).arg("--root").arg(dir.join(format!("root-{name}")));
        time.args(["run", "--bundle"]).arg(dir).arg("bench-memory");
        let output = time.stdin(Stdio::null()).output()?;
        let text = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{name}: {}", command::tail(&text));
        let line = text.lines().find_map(|line| line.trim().strip_prefix("Maximum resident set size (kbytes): "));
        // It takes the kernel's KiB for pages of 4.
        peaks.push(line.and_then(|number| number.trim().parse::<f64>().ok()).map(|number| number / 4.0 / 1024.0));
    }
    Ok(peaks)
}
