//! Tables of rules. What the kernel makes of them is tested by the lifecycle suite of `cri/runtime`.

use berth_plan::bundle::{IdMap, NamespaceKind, UserNamespace};
use berth_plan::container::MountSource;
use berth_plan::resources::Setting;
use serde_json::{Value, json};

use super::*;
use crate::device_filter;
use crate::host::{Hierarchy, UnifiedOptions};

fn spec() -> Value {
    json!({
        "ociVersion": "1.2.0",
        "process": { "user": { "uid": 0, "gid": 0 }, "args": ["sh"], "cwd": "/" },
        "root": { "path": "rootfs" },
        "linux": { "namespaces": [{ "type": "mount" }, { "type": "uts" }, { "type": "network" }] },
    })
}

fn v1() -> CgroupLayout {
    let one = |name: &str| Hierarchy { folder: name.into(), controllers: vec![name.into()], name: None };
    CgroupLayout::V1 { hierarchies: vec![one("cpu"), one("memory")] }
}

fn v2() -> CgroupLayout {
    CgroupLayout::V2 { unified: UnifiedOptions::default() }
}

fn compiled_on(layout: &CgroupLayout, change: impl FnOnce(&mut Value)) -> Result<Compiled, ConfigError> {
    let mut value = spec();
    change(&mut value);
    let spec = serde_json::from_value(value).expect("a configuration");
    let paths = ["/sys/fs/cgroup/cpu/c".to_owned(), "/sys/fs/cgroup/memory/c".to_owned()];
    let outside = Outside {
        id: "c",
        bundle: "/bundle",
        arch: Arch::X86_64,
        cgroups: layout,
        cgroup_paths: &paths,
        no_pivot: false,
        inherits_keyring: false,
        kept_descriptors: 0,
        state: plan::State::default(),
        start_state: plan::State::default(),
    };
    compile(&spec, &outside)
}

fn compiled(change: impl FnOnce(&mut Value)) -> Compiled {
    compiled_on(&v1(), change).unwrap_or_else(|error| panic!("refused: {error}"))
}

fn refused(change: impl FnOnce(&mut Value)) -> ConfigError {
    match compiled_on(&v1(), change) {
        Ok(compiled) => panic!("accepted: {compiled:?}"),
        Err(error) => error,
    }
}

fn mount(options: &[&str]) -> plan::BundleMount {
    let mount = json!({ "destination": "/d", "type": "bind", "source": "/s", "options": options });
    compiled(|spec| spec["mounts"] = json!([mount])).bundle.mounts.remove(0)
}

// linux/mount.h
const RDONLY: u64 = 1;
const NOSUID: u64 = 2;
const NODEV: u64 = 4;
const ATIME: u64 = 0x70;
const NOATIME: u64 = 0x10;

#[test]
fn words_of_options_are_attributes_of_one_mount_or_of_all() {
    let cases: [(&[&str], [u64; 4]); 10] = [
        (&["bind"], [0, 0, 0, 0]),
        (&["rbind", "ro"], [RDONLY, 0, 0, 0]),
        // A read-only source stays so.
        (&["bind", "rw"], [0, 0, 0, 0]),
        (&["bind", "suid", "nodev"], [NODEV, NOSUID, 0, 0]),
        (&["bind", "nosuid", "suid"], [0, NOSUID, 0, 0]),
        (&["bind", "suid", "nosuid"], [NOSUID, 0, 0, 0]),
        (&["bind", "noatime"], [NOATIME, ATIME, 0, 0]),
        (&["rbind", "rro"], [0, 0, RDONLY, 0]),
        (&["rbind", "rrw", "rnosuid", "rdev"], [0, 0, NOSUID, RDONLY | NODEV]),
        (&["rbind", "ro", "rnoatime"], [RDONLY, 0, NOATIME, ATIME]),
    ];
    for (options, expected) in cases {
        let made = mount(options);
        let is = [made.mount.attr_set, made.mount.attr_clear, made.recursive_set, made.recursive_clear];
        assert_eq!(is, expected, "{options:?}");
    }
    assert_eq!(mount(&["rbind"]).mount.source, MountSource::Bind { path: "/s".into(), recursive: true });
    // Every word that `features` shows means something.
    for word in options_with_meaning() {
        let made = compiled(|spec| {
            let mount = json!({ "destination": "/d", "type": "bind", "source": "/s", "options": ["bind", word] });
            spec["mounts"] = json!([mount]);
        });
        assert_eq!(made.remarks, Vec::<String>::new(), "{word}");
    }
    let remarks = compiled(|spec| {
        spec["mounts"] = json!([{ "destination": "/d", "type": "bind", "source": "/s", "options": ["size=1"] }]);
    });
    assert_eq!(remarks.remarks, ["mounts[0].options: \"size=1\" means nothing to a bind mount"]);
}

/// But for those that need more than a word, or a file system of their own.
fn options_with_meaning() -> Vec<String> {
    let alone = ["idmap", "ridmap", "tmpcopyup", "sync", "dirsync", "lazytime", "mand", "iversion", "silent"];
    mount_options().into_iter().filter(|word| !alone.contains(&word.as_str())).collect()
}

#[test]
fn what_is_no_word_is_the_file_systems() {
    let tmpfs = json!({ "destination": "d", "type": "tmpfs", "source": "t", "options": ["ro", "size=1k", "noswap", "defaults"] });
    let made = compiled(|spec| spec["mounts"] = json!([tmpfs])).bundle.mounts.remove(0);
    let option = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let options = vec![option("source", "t"), option("size", "1k"), option("noswap", "")];
    assert_eq!(made.mount.source, MountSource::Filesystem { kind: "tmpfs".into(), options });
    assert_eq!((made.mount.destination.as_str(), made.mount.attr_set), ("/d", RDONLY));
}

#[test]
fn a_cgroup_without_a_namespace_is_bound() {
    let cgroup = json!({ "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup" });
    let bound = compiled(|spec| spec["mounts"] = json!([cgroup])).bundle.mounts.remove(0);
    assert_eq!(bound.cgroups, ["/sys/fs/cgroup/cpu/c", "/sys/fs/cgroup/memory/c"]);
    let own = compiled(|spec| {
        spec["mounts"] = json!([cgroup]);
        spec["linux"]["namespaces"].as_array_mut().expect("a list").push(json!({ "type": "cgroup" }));
    });
    assert!(own.bundle.mounts[0].cgroups.is_empty() && own.bundle.container.namespaces.cgroup);
}

#[test]
fn namespaces_are_new_or_entered() {
    let made = compiled(|spec| {
        spec["linux"]["namespaces"] = json!([
            { "type": "mount" },
            { "type": "network", "path": "/run/netns/x" },
            { "type": "user" },
            { "type": "time" },
        ]);
        spec["linux"]["uidMappings"] = json!([{ "containerID": 1, "hostID": 2, "size": 3 }]);
        spec["linux"]["gidMappings"] = json!([{ "containerID": 4, "hostID": 5, "size": 6 }]);
        spec["linux"]["timeOffsets"] = json!({ "monotonic": { "secs": -1, "nanosecs": 9 }, "boottime": { "secs": 7 } });
    });
    let plan::Bundle { user, joins, time_offsets, container, .. } = made.bundle;
    assert!(container.namespaces.mount && !container.namespaces.net && !container.namespaces.pid);
    assert_eq!(joins, [plan::Join { kind: NamespaceKind::Net, path: "/run/netns/x".into() }]);
    assert_eq!(time_offsets.as_deref(), Some("boottime 7 0\nmonotonic -1 9\n"));
    let UserNamespace::New(maps) = user else { panic!("{user:?}") };
    assert_eq!(maps.users, [IdMap { inside: 1, outside: 2, length: 3 }]);
    assert_eq!((maps.users(), maps.groups()), ("1 2 3\n".to_owned(), "4 5 6\n".to_owned()));
    let joined = compiled(|spec| {
        spec["linux"]["namespaces"] = json!([{ "type": "mount" }, { "type": "user", "path": "/proc/1/ns/user" }]);
    });
    assert_eq!(joined.bundle.user, UserNamespace::Joined("/proc/1/ns/user".into()));
    let field = refused(|spec| spec["linux"]["namespaces"] = json!([{ "type": "mount" }, { "type": "user" }])).field;
    assert_eq!(field, "linux.uidMappings");
    let mount = json!([{ "type": "mount", "path": "/proc/1/ns/mnt" }, { "type": "pid" }]);
    assert_eq!(refused(|spec| spec["linux"]["namespaces"] = mount).field, "linux.namespaces[0].path");
}

fn settings(layout: &CgroupLayout, resources: Value) -> Result<Vec<(String, String)>, String> {
    let compiled = compiled_on(layout, |spec| spec["linux"]["resources"] = resources);
    let first = |setting: &Setting| setting.files[0].clone();
    compiled.map(|one| one.limits.settings.iter().map(first).collect()).map_err(|error| error.field)
}

#[test]
fn limits_are_files_of_the_version() {
    let pair = |file: &str, value: &str| Ok(vec![(file.to_owned(), value.to_owned())]);
    let cases = [
        (
            json!({ "memory": { "reservation": 4096 } }),
            pair("memory.soft_limit_in_bytes", "4096"),
            pair("memory.low", "4096"),
        ),
        (json!({ "cpu": { "idle": 1 } }), pair("cpu.idle", "1"), pair("cpu.idle", "1")),
        (json!({ "cpu": { "burst": 7 } }), pair("cpu.cfs_burst_us", "7"), pair("cpu.max.burst", "7")),
        (
            json!({ "memory": { "swappiness": 7 } }),
            pair("memory.swappiness", "7"),
            Err("linux.resources.memory.swappiness".into()),
        ),
        (
            json!({ "cpu": { "realtimePeriod": 7 } }),
            pair("cpu.rt_period_us", "7"),
            Err("linux.resources.cpu.realtimePeriod".into()),
        ),
        (
            json!({ "network": { "classID": 7 } }),
            pair("net_cls.classid", "7"),
            Err("linux.resources.network.classID".into()),
        ),
        (json!({ "blockIO": { "weight": 500 } }), pair("blkio.bfq.weight", "500"), pair("io.bfq.weight", "500")),
        (
            json!({ "blockIO": { "throttleReadBpsDevice": [{ "major": 8, "minor": 1, "rate": 9 }] } }),
            pair("blkio.throttle.read_bps_device", "8:1 9"),
            pair("io.max", "8:1 rbps=9"),
        ),
        (
            json!({ "rdma": { "mlx": { "hcaHandles": 3 } } }),
            pair("rdma.max", "mlx hca_handle=3"),
            pair("rdma.max", "mlx hca_handle=3"),
        ),
    ];
    for (resources, on_v1, on_v2) in cases {
        assert_eq!(settings(&v1(), resources.clone()), on_v1, "{resources} on v1");
        assert_eq!(settings(&v2(), resources.clone()), on_v2, "{resources} on v2");
    }
    let unified = json!({ "unified": { "memory.high": "1G" } });
    assert_eq!(settings(&v1(), unified.clone()), Err("linux.resources.unified[\"memory.high\"]".into()));
    assert_eq!(settings(&v2(), unified), Ok(Vec::new()));
    for file in ["cgroup.procs", "../x", "memory", ".hidden.file"] {
        settings(&v2(), json!({ "unified": { file: "1" } })).expect_err(file);
    }
    // 0 says nothing.
    let none =
        compiled(|spec| spec["linux"]["resources"] = json!({ "pids": { "limit": 0 }, "memory": { "limit": 0 } }));
    assert_eq!((none.limits.resources.pids_limit, none.limits.resources.memory_limit), (None, None));
}

#[test]
fn devices_are_denied_but_for_those_of_every_container() {
    let made = compiled(|spec| {
        let rules =
            json!([{ "allow": false, "access": "rwm" }, { "allow": true, "type": "b", "major": 8, "access": "r" }]);
        spec["linux"]["resources"] = json!({ "devices": rules });
    });
    let lines = device_filter::lines(&made.limits.devices);
    let text: Vec<String> = lines.iter().map(|(file, line)| format!("{file} {line}")).collect();
    assert_eq!(text[..4], ["devices.deny a", "devices.deny a", "devices.allow b 8:* r", "devices.allow c *:* m"]);
    assert!(text.contains(&"devices.allow c 1:3 rwm".to_owned()));
    // Without a word about devices it is the same.
    assert_eq!(device_filter::lines(&compiled(|_| {}).limits.devices)[0].1, "a");
}

#[test]
fn names_and_parameters_need_a_namespace() {
    let made = compiled(|spec| {
        spec["hostname"] = "h".into();
        spec["linux"]["sysctl"] = json!({ "net.core.somaxconn": "7" });
    });
    assert_eq!(made.bundle.container.hostname.as_deref(), Some("h"));
    assert_eq!(made.bundle.container.sysctls, [("net.core.somaxconn".to_owned(), "7".to_owned())]);
    let only_mounts = |spec: &mut Value| spec["linux"]["namespaces"] = json!([{ "type": "mount" }]);
    let refusal = refused(|spec| {
        only_mounts(spec);
        spec["domainname"] = "d".into();
    });
    assert_eq!(refusal.field, "domainname");
    for name in ["net.core.somaxconn", "kernel.sem", "kernel.hostname", "kernel.panic", "net..x", "net/../kernel/panic"]
    {
        let refusal = refused(|spec| {
            only_mounts(spec);
            spec["linux"]["sysctl"] = json!({ name: "1" });
        });
        assert_eq!(refusal.field, format!("linux.sysctl[{name:?}]"));
    }
}

#[test]
fn filters_may_have_a_listener() {
    let profile = |names: Value| {
        json!({
            "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/l", "flags": ["SECCOMP_FILTER_FLAG_LOG"],
            "syscalls": [{ "names": names, "action": "SCMP_ACT_NOTIFY" }],
        })
    };
    let made = compiled(|spec| spec["linux"]["seccomp"] = profile(json!(["mkdir"])));
    assert!(made.bundle.more.seccomp_listener && made.bundle.more.seccomp_flags == 2);
    assert_eq!(made.listener.map(|listener| listener.path).as_deref(), Some("/l"));
    let refusal = refused(|spec| spec["linux"]["seccomp"] = profile(json!(["sendmsg"])));
    assert_eq!(refusal.field, "linux.seccomp.syscalls[0].names");
    let refusal = refused(|spec| {
        spec["linux"]["seccomp"] = profile(json!(["mkdir"]));
        spec["linux"]["seccomp"].as_object_mut().expect("an object").remove("listenerPath");
    });
    assert_eq!(refusal.field, "linux.seccomp.listenerPath");
}

#[test]
fn an_exec_is_a_process_of_its_own() {
    let spec: oci::Spec = serde_json::from_value(spec()).expect("a configuration");
    let joining = Joining { spec: &spec, arch: Arch::X86_64, kept_descriptors: 2 };
    let process = |value: Value| serde_json::from_value::<oci::Process>(value).expect("a process");
    let wanted =
        json!({ "user": { "uid": 7, "gid": 8 }, "args": ["x"], "cwd": "/", "execCPUAffinity": { "final": "0-1,3" } });
    let (plan, _) = exec(&process(wanted), &joining).expect("it can be done");
    assert_eq!((plan.process.uid, plan.process.gid, plan.user, plan.time), (7, 8, false, false));
    assert_eq!((plan.more.processors, plan.more.kept_descriptors), (vec![0, 1, 3], 2));
    let bad =
        json!({ "user": { "uid": 7, "gid": 8 }, "args": ["x"], "cwd": "/", "execCPUAffinity": { "final": "3-0" } });
    assert_eq!(exec(&process(bad), &joining).expect_err("no list").field, "process.execCPUAffinity.final");
}
