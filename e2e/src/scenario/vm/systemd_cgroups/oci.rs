//! `berth-oci --systemd-cgroup`: a container's life, and deaths of the runtime at every step.

use std::path::Path;

use anyhow::{Result, ensure};
use serde_json::json;

use crate::paths;
use crate::scenario::Stage;
use crate::vm::{Initramfs, Machine};

const OCI: &str = "berth-oci --systemd-cgroup";
const UNIT: &str = "berth-c1.scope";
const CGROUP: &str = "/sys/fs/cgroup/system.slice/berth-c1.scope";

/// Visits every crash point of `create` and of `delete --force`. Whatever a dead one leaves, `delete --force` clears away,
/// and the name is free at once.
const DEATHS: &str = r#"#!/bin/sh
quiet() { "$@" </dev/null >/tmp/out 2>&1; }
create() { quiet berth-oci --systemd-cgroup create --bundle /root/bundle "$1"; }
none_left() {
  [ "$(systemctl show --property=LoadState --value berth-c1.scope)" = not-found ] || { echo "$1: the unit is left"; exit 1; }
  [ ! -e /sys/fs/cgroup/system.slice/berth-c1.scope ] || { echo "$1: the cgroup is left"; exit 1; }
  [ -z "$(ls /run/berth-oci)" ] || { echo "$1: a record is left"; exit 1; }
}
created=1
while export BERTH_CRASH_AT=$created; ! create k; do
  [ $? = 1 ] && { echo "create $created: $(cat /tmp/out)"; exit 1; }
  grep -q BERTH_CRASH_AT /tmp/out || { echo "create $created: $(cat /tmp/out)"; exit 1; }
  unset BERTH_CRASH_AT
  quiet berth-oci delete --force k || { echo "delete after create $created: $(cat /tmp/out)"; exit 1; }
  none_left "create $created"
  created=$((created + 1))
done
deleted=1
while export BERTH_CRASH_AT=$deleted; ! quiet berth-oci delete --force k; do
  grep -q BERTH_CRASH_AT /tmp/out || { echo "delete $deleted: $(cat /tmp/out)"; exit 1; }
  unset BERTH_CRASH_AT
  quiet berth-oci delete --force k || { echo "delete after delete $deleted: $(cat /tmp/out)"; exit 1; }
  none_left "delete $deleted"
  create k || { echo "create after delete $deleted: $(cat /tmp/out)"; exit 1; }
  deleted=$((deleted + 1))
done
unset BERTH_CRASH_AT
none_left end
echo "$((created - 1)) $((deleted - 1))"
"#;

pub(super) fn put(image: &mut Initramfs) -> Result<()> {
    image.program(&paths::berth("berth-oci"), "usr/bin/berth-oci")?;
    image.program(Path::new("/bin/busybox"), "root/bundle/rootfs/bin/busybox")?;
    for name in ["sleep", "true"] {
        image.link(&format!("root/bundle/rootfs/bin/{name}"), "busybox");
    }
    image.put("root/bundle/config.json", 0o644, configuration().to_string().as_bytes());
    image.put("root/deaths", 0o755, DEATHS.as_bytes());
    Ok(())
}

fn configuration() -> serde_json::Value {
    json!({
        "ociVersion": "1.2.0",
        "process": { "user": {"uid": 0, "gid": 0}, "args": ["/bin/sleep", "10000"], "env": ["PATH=/bin"], "cwd": "/" },
        "root": { "path": "rootfs" },
        "annotations": { "org.systemd.property.CollectMode": "'inactive-or-failed'" },
        "mounts": [{ "destination": "/proc", "type": "proc", "source": "proc" }],
        "linux": {
            "cgroupsPath": ":berth:c1",
            "namespaces": [{"type": "pid"}, {"type": "mount"}, {"type": "cgroup"}, {"type": "ipc"}, {"type": "uts"}],
            "resources": {
                "memory": { "limit": 64 << 20, "swap": 64 << 20 },
                "cpu": { "shares": 512, "quota": 33_333, "period": 100_000, "cpus": "0" },
                // Of which the process that holds the scope while it is made must not take one away.
                "pids": { "limit": 1 },
                "unified": { "memory.high": "62914560", "memory.oom.group": "1" },
            },
        },
    })
}

pub(super) fn tell(stage: &Stage, machine: &mut Machine) -> Result<()> {
    machine.run(&format!("{OCI} create --bundle /root/bundle c1 </dev/null >/dev/null"))?;
    let shown = [
        "Slice=system.slice",
        "ControlGroup=/system.slice/berth-c1.scope",
        "Delegate=yes",
        "ActiveState=active",
        "DefaultDependencies=no",
        "CollectMode=inactive-or-failed",
        "Transient=yes",
    ];
    show(machine, &shown)?;
    let limits = [
        "MemoryMax=67108864",
        "MemorySwapMax=0",
        "TasksMax=1",
        "CPUWeight=59",
        "CPUQuotaPerSecUSec=340ms",
        "AllowedCPUs=0",
    ];
    show(machine, &limits)?;
    let files = [
        ("memory.max", "67108864"),
        ("memory.swap.max", "0"),
        ("memory.high", "62914560"),
        ("memory.oom.group", "1"),
        ("pids.max", "1"),
        ("pids.current", "1"),
        ("cpu.weight", "59"),
        // Exact, where systemd knows percents alone.
        ("cpu.max", "33333 100000"),
        ("cpuset.cpus", "0"),
    ];
    read(machine, &files)?;
    stage.say("berth-oci create: a scope in its slice, with its limits, in systemd's mind and in the files");

    machine.run("berth-oci start c1 && berth-oci state c1 | grep -q running && systemctl daemon-reload")?;
    // systemd writes all that it knows of; what it has no word for (memory.oom.group of a scope, before 253), it resets.
    read(machine, &[("memory.max", "67108864"), ("memory.high", "62914560"), ("pids.max", "1"), ("cpuset.cpus", "0")])?;
    let inside = machine.run(&format!("cat /proc/$(cat {CGROUP}/cgroup.procs)/comm"))?;
    ensure!(inside.trim() == "sleep", "in the scope is {inside:?}");
    stage.say("start: it runs, and systemctl daemon-reload keeps the limits");

    let update = "--memory 100663296 --memory-swap 134217728 --pids-limit 7 --cpu-quota 12345 --cpu-period 50000";
    machine.run(&format!("berth-oci update {update} c1"))?;
    show(machine, &["MemoryMax=100663296", "MemorySwapMax=33554432", "TasksMax=7", "CPUQuotaPerSecUSec=250ms"])?;
    read(machine, &[("memory.max", "100663296"), ("pids.max", "7"), ("cpu.max", "12345 50000"), ("cpu.weight", "59")])?;
    machine.run("berth-oci exec c1 /bin/true && berth-oci pause c1 && berth-oci resume c1")?;
    stage.say("update: both know the new limits; exec and pause work in the scope");

    machine.run("berth-oci kill c1 KILL; until berth-oci state c1 | grep -q stopped; do sleep 0.2; done")?;
    machine.run("berth-oci delete c1")?;
    nothing_left(machine)?;
    stage.say("delete: no unit, no cgroup, no record is left");

    let counts = machine.run("/root/deaths")?;
    stage.say(&format!(
        "killed at every point of create and delete (points: {}): nothing is left either",
        counts.trim()
    ));

    machine.run(
        "systemd-run --quiet --unit=berth-c1.scope --scope --slice=other.slice sleep 1000 >/dev/null 2>&1 & sleep 3",
    )?;
    let refused = machine.run(&format!("! {OCI} create --bundle /root/bundle c1 </dev/null 2>&1"))?;
    ensure!(refused.contains("berth-c1.scope") && refused.contains("/other.slice/berth-c1.scope"), "said {refused:?}");
    show(machine, &["ActiveState=active", "Slice=other.slice"])?;
    machine.run("systemctl stop berth-c1.scope other.slice")?;
    nothing_left(machine)?;
    let features = machine.run("berth-oci features")?;
    ensure!(features.contains("\"systemd\": true"), "features: {features}");
    stage.say("somebody else's unit of that name is left alone, and the name is refused");
    Ok(())
}

/// What systemd says of the unit.
fn show(machine: &mut Machine, expected: &[&str]) -> Result<()> {
    let said = machine.run(&format!("systemctl show {UNIT}"))?;
    for line in expected {
        let name = line.split('=').next().unwrap_or_default();
        let found = said.lines().find(|said| said.starts_with(&format!("{name}=")));
        ensure!(found == Some(line), "systemd says {found:?}, not {line}");
    }
    Ok(())
}

fn read(machine: &mut Machine, expected: &[(&str, &str)]) -> Result<()> {
    for (file, text) in expected {
        let found = machine.run(&format!("cat {CGROUP}/{file}"))?;
        ensure!(found.trim() == *text, "{file} holds {found:?}, not {text}");
    }
    Ok(())
}

fn nothing_left(machine: &mut Machine) -> Result<()> {
    let state = machine.run(&format!("systemctl show --property=LoadState --value {UNIT}"))?;
    let left = machine.run(&format!("ls -d {CGROUP} /run/berth-oci/* 2>/dev/null; true"))?;
    ensure!(state.trim() == "not-found" && left.trim().is_empty(), "left: {state}{left}");
    Ok(())
}
