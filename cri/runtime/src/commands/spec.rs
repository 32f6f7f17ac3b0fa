//! `spec`: an example of a configuration, as runc writes it.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use serde_json::{Value, json};

use super::features::SPECIFICATION;
use crate::arguments::{self, Until, flag, value};
use crate::fault::{During, Fault, Outcome};
use crate::global::Global;

pub(super) fn run(_: &Global, own: &[String]) -> Outcome<u8> {
    let given = arguments::parse(own, &[value("bundle", "b"), flag("rootless", "")], Until::End)?;
    let path = Path::new(given.value("bundle").unwrap_or(".")).join("config.json");
    let text = serde_json::to_string_pretty(&example(given.flag("rootless")));
    let text = text.map_err(|error| Fault::new(error.to_string()))?;
    let mut file = match File::options().write(true).create_new(true).open(&path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return Err(Fault::new(format!("file {} exists. Remove it first", path.display())));
        }
        other => other.during(|| format!("write {}", path.display()))?,
    };
    file.write_all(text.as_bytes()).during(|| format!("write {}", path.display()))?;
    Ok(0)
}

fn example(rootless: bool) -> Value {
    let capabilities = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"];
    let mut value = json!({
        "ociVersion": SPECIFICATION,
        "process": {
            "terminal": true,
            "user": { "uid": 0, "gid": 0 },
            "args": ["sh"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": { "bounding": capabilities, "effective": capabilities, "permitted": capabilities },
            "rlimits": [{ "type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024 }],
            "noNewPrivileges": true,
        },
        "root": { "path": "rootfs", "readonly": true },
        "hostname": "berth",
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc" },
            {
                "destination": "/dev",
                "type": "tmpfs",
                "source": "tmpfs",
                "options": ["nosuid", "strictatime", "mode=755", "size=65536k"],
            },
            {
                "destination": "/dev/pts",
                "type": "devpts",
                "source": "devpts",
                "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
            },
            {
                "destination": "/dev/shm",
                "type": "tmpfs",
                "source": "shm",
                "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"],
            },
            {
                "destination": "/dev/mqueue",
                "type": "mqueue",
                "source": "mqueue",
                "options": ["nosuid", "noexec", "nodev"],
            },
            {
                "destination": "/sys",
                "type": "sysfs",
                "source": "sysfs",
                "options": ["nosuid", "noexec", "nodev", "ro"],
            },
            {
                "destination": "/sys/fs/cgroup",
                "type": "cgroup",
                "source": "cgroup",
                "options": ["nosuid", "noexec", "nodev", "relatime", "ro"],
            },
        ],
        "linux": {
            "resources": { "devices": [{ "allow": false, "access": "rwm" }] },
            "namespaces": [
                { "type": "pid" },
                { "type": "network" },
                { "type": "ipc" },
                { "type": "uts" },
                { "type": "mount" },
                { "type": "cgroup" },
            ],
            "maskedPaths": [
                "/proc/acpi",
                "/proc/asound",
                "/proc/kcore",
                "/proc/keys",
                "/proc/latency_stats",
                "/proc/timer_list",
                "/proc/timer_stats",
                "/proc/sched_debug",
                "/sys/firmware",
                "/proc/scsi",
                "/sys/devices/virtual/powercap",
            ],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    });
    if rootless {
        let map = json!([{ "containerID": 0, "hostID": berth_sys::process::effective_user(), "size": 1 }]);
        value["linux"]["uidMappings"] = map.clone();
        value["linux"]["gidMappings"] = map;
        if let Some(spaces) = value["linux"]["namespaces"].as_array_mut() {
            spaces.push(json!({ "type": "user" }));
        }
        if let Some(linux) = value["linux"].as_object_mut() {
            linux.remove("resources");
        }
    }
    value
}
