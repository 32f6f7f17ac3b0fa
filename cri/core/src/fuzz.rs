//! Fuzz tests of what is compiled: see `cri/fuzz` for how bytes become documents.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use berth_fuzz::Documents;
use berth_plan::{codec, container as plan};
use oci_spec::runtime as oci;
use serde_json::{Value, json};

use crate::compile::lower::{self, Outside};
use crate::host::{Arch, CgroupLayout, Hierarchy, HostFacts, UnifiedOptions};
use crate::{ConfigError, capabilities, mountinfo, seccomp, users};

/// How long each test looks for mutants in an ordinary run; `cargo xtask fuzz` asks for more.
pub(crate) const TIME: Duration = Duration::from_secs(2);

pub(crate) fn corpus(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name)
}

fn facts(arch: Arch, cgroups: CgroupLayout, recursive_read_only: bool) -> HostFacts {
    HostFacts {
        arch,
        cgroups,
        bounding: capabilities::ALL,
        can_lower_oom: recursive_read_only,
        oom_score_adj: 0,
        apparmor: recursive_read_only,
        selinux: false,
        recursive_read_only,
        hostname: "node-1".into(),
        filters: seccomp::Filters::default(),
    }
}

fn machines() -> [HostFacts; 2] {
    let hierarchy =
        Hierarchy { folder: "cpu,cpuacct".into(), controllers: vec!["cpu".into(), "cpuacct".into()], name: None };
    let unified = UnifiedOptions { nsdelegate: true, memory_recursiveprot: false };
    [
        facts(Arch::X86_64, CgroupLayout::V2 { unified }, true),
        facts(Arch::Aarch64, CgroupLayout::Hybrid { hierarchies: vec![hierarchy], unified }, false),
    ]
}

fn outside() -> Outside {
    Outside {
        id: "c".into(),
        pid_from: None,
        rootfs: plan::Rootfs::Folder { path: "/rootfs".into() },
        log_path: String::new(),
        stdin: plan::Stdin::None,
        filter: None,
    }
}

/// A refusal is one line that names a field, the reason and the remedy.
pub(crate) fn assert_clear(error: &ConfigError) {
    let ConfigError { field, reason, remedy } = error;
    assert!(!field.is_empty() && !reason.is_empty() && !remedy.is_empty(), "{error:?}");
    assert!(!error.to_string().contains(|c: char| c.is_control()), "{error:?}");
}

/// What a configuration compiles to on each machine. A plan that is too large is refused where it is sent.
fn compiled(spec: &oci::Spec) -> Vec<plan::Container> {
    let mut plans = Vec::new();
    for facts in machines() {
        match lower::container(&facts, spec, outside()) {
            Err(error) => assert_clear(&error),
            Ok(plan) => {
                if let Ok(frame) = codec::encode(&plan) {
                    assert_eq!(codec::decode::<plan::Container>(&frame).as_ref(), Ok(&plan));
                }
                plans.push(plan);
            }
        }
    }
    plans
}

#[test]
fn specs() {
    let documents = Documents::json(&corpus("spec"));
    let accepted = AtomicU32::new(0);
    bolero::check!().with_test_time(TIME).with_max_len(256).for_each(|script: &[u8]| {
        let Ok(spec) = serde_json::from_value(documents.mutant(script)) else { return };
        accepted.fetch_add(u32::from(!compiled(&spec).is_empty()), Ordering::Relaxed);
    });
    assert!(accepted.into_inner() > 0, "no mutant is a configuration");
}

#[test]
fn mount_options() {
    let documents = Documents::json(&corpus("mounts"));
    bolero::check!().with_test_time(TIME).with_max_len(64).for_each(|script: &[u8]| {
        let mounts = documents.mutant(script);
        let spec =
            json!({"ociVersion": "1.2.0", "process": {"cwd": "/", "user": {"uid": 0, "gid": 0}}, "mounts": mounts});
        let Ok(spec) = serde_json::from_value::<oci::Spec>(spec) else { return };
        for plan in compiled(&spec) {
            assert_eq!(plan.mounts.len(), spec.mounts().as_ref().map_or(0, Vec::len));
            for (lowered, asked) in plan.mounts.iter().zip(spec.mounts().iter().flatten()) {
                no_option_is_lost(lowered, asked);
            }
        }
    });
}

/// What of linux/mount.h may be set by mount_setattr(2) here.
const ATTRIBUTES: u64 = 0x20_00ff;

fn no_option_is_lost(lowered: &plan::Mount, asked: &oci::Mount) {
    assert_eq!((lowered.attr_set | lowered.attr_clear) & !ATTRIBUTES, 0, "{lowered:?}");
    assert_eq!(
        lowered.propagation.count_ones() - u32::from(lowered.propagation & 1 << 14 != 0),
        u32::from(lowered.propagation != 0)
    );
    if let plan::MountSource::Bind { path, .. } = &lowered.source {
        assert!(path.starts_with('/'), "{lowered:?}");
    }
    // Whoever asked for a read-only mount last gets one.
    let last = asked.options().iter().flatten().rfind(|word| matches!(word.as_str(), "ro" | "rw" | "rro"));
    if let Some(word) = last {
        assert_eq!(lowered.attr_set & 1 != 0, word != "rw", "{asked:?}");
    }
    for word in asked.options().iter().flatten().filter(|word| matches!(word.as_str(), "nosuid" | "nodev" | "noexec")) {
        let opposite = &word[2..];
        let bit = match word.as_str() {
            "nosuid" => 2,
            "nodev" => 4,
            _ => 8,
        };
        let taken_back = asked.options().iter().flatten().any(|other| other == opposite);
        assert!(taken_back || lowered.attr_set & bit != 0, "{word} of {asked:?}");
    }
}

#[test]
fn tables() {
    let documents = Documents::text(&corpus("tables"));
    bolero::check!().with_test_time(TIME).with_max_len(64).for_each(|script: &[u8]| {
        let text = documents.mutant(script);
        for entry in users::passwd(&text) {
            assert!(entry.uid <= users::MAX_ID && entry.gid <= users::MAX_ID && !entry.name.is_empty(), "{entry:?}");
        }
        for group in users::groups(&text) {
            assert!(group.gid <= users::MAX_ID && group.members().all(|member| !member.is_empty()), "{group:?}");
        }
        if let Ok(wanted) = users::UserString::parse(text.lines().next().unwrap_or_default())
            && let Ok(identity) = users::resolve(&wanted, true, &[], &text, &text)
        {
            assert!(identity.groups.contains(&identity.gid) && identity.groups.is_sorted(), "{identity:?}");
        }
        let _ = mountinfo::propagation(&text, "/var/lib/kubelet/pods/x");
    });
}

/// The values that a JSON document has at `field`, however deep.
pub(crate) fn numbers(value: &Value, field: &str, found: &mut Vec<u64>) {
    match value {
        Value::Array(list) => list.iter().for_each(|inner| numbers(inner, field, found)),
        Value::Object(map) => {
            found.extend(map.get(field).and_then(Value::as_u64));
            map.values().for_each(|inner| numbers(inner, field, found));
        }
        _ => {}
    }
}
