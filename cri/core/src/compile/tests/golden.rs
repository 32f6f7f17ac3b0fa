//! Whole OCI configurations, and what of them reaches the plan.

use super::*;

/// Compares with a golden file. `BERTH_BLESS=1` writes it anew; read the difference before it is committed.
fn check(name: &str, case: &Case) -> plan::Container {
    let (spec, plan) = case.compile().expect("accepted");
    let mut value = serde_json::to_value(&spec).expect("JSON");
    // The filter has tests of its own, and its text would hide the rest.
    if let Some(seccomp) = value.pointer_mut("/linux/seccomp") {
        *seccomp = serde_json::json!("…");
    }
    // Sets have no order; files have.
    for set in ["bounding", "effective", "permitted", "inheritable", "ambient"] {
        if let Some(serde_json::Value::Array(names)) = value.pointer_mut(&format!("/process/capabilities/{set}")) {
            names.sort_by_key(|name| name.as_str().map(str::to_owned));
        }
    }
    sort_keys(&mut value);
    let text = format!("{}\n", serde_json::to_string_pretty(&value).expect("JSON"));
    let file = format!("{}/src/compile/golden/{name}.json", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("BERTH_BLESS").is_some() {
        std::fs::write(&file, &text).expect("written");
    }
    let golden = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(text == golden, "{name} differs from {file}; it is now:\n{text}");
    plan
}

fn sort_keys(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::Object(map) => {
            let mut entries: Vec<_> = std::mem::take(map).into_iter().collect();
            entries.sort_by(|a, b| a.0.cmp(&b.0));
            for (key, mut value) in entries {
                sort_keys(&mut value);
                map.insert(key, value);
            }
        }
        serde_json::Value::Array(list) => list.iter_mut().for_each(sort_keys),
        _ => {}
    }
}

#[test]
fn a_plain_container() {
    let plan = check("plain", &Case::new());
    assert_eq!(plan.id, ID);
    assert_eq!(
        plan.namespaces,
        plan::NewNamespaces { mount: true, pid: true, cgroup: true, ..plan::NewNamespaces::default() }
    );
    assert_eq!(
        plan.rootfs,
        plan::Rootfs::Overlay {
            lower: vec!["/layers/2".into(), "/layers/1".into()],
            upper: "/c/upper".into(),
            work: "/c/work".into(),
        }
    );
    assert_eq!(plan.root_propagation, 1 << 19 | 1 << 14);
    assert_eq!(plan.process.args, ["/entry", "--serve"]);
    assert_eq!(plan.process.env, ["PATH=/bin", "HOSTNAME=web-0", "FROM=image", "HOME=/root"]);
    assert_eq!(plan.process.cwd, "/");
    assert_eq!(plan.process.capabilities.bounding, capabilities::DEFAULT);
    assert!(plan.process.seccomp.is_empty());
    assert_eq!(plan.devices.len(), 6);
    assert_eq!(plan.links.len(), 6);
    let nosuid_noexec_nodev = 2 | 4 | 8;
    let proc = &plan.mounts[0];
    assert_eq!((proc.destination.as_str(), proc.attr_set), ("/proc", nosuid_noexec_nodev));
    assert_eq!(
        proc.source,
        plan::MountSource::Filesystem { kind: "proc".into(), options: vec![("source".into(), "proc".into())] }
    );
    let dev = &plan.mounts[1];
    // strictatime is a value of the atime field.
    assert_eq!((dev.destination.as_str(), dev.attr_set), ("/dev", 2 | 0x20));
    assert_eq!(
        dev.source,
        plan::MountSource::Filesystem {
            kind: "tmpfs".into(),
            options: [("source", "tmpfs"), ("mode", "755"), ("size", "65536k")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .to_vec()
        }
    );
    let cgroup = plan.mounts.iter().find(|mount| mount.destination == "/sys/fs/cgroup").expect("mounted");
    assert_eq!(cgroup.attr_set, nosuid_noexec_nodev | 1);
}

#[test]
fn a_container_with_much_to_say() {
    let mut case = Case::new();
    case.config.command = vec!["/bin/app".into()];
    case.config.args = vec!["-v".into()];
    case.config.working_dir = "/srv".into();
    case.config.tty = true;
    case.config.stdin = true;
    case.config.stdin_once = true;
    case.config.envs = vec![
        cri::KeyValue { key: "FROM".into(), value: b"pod".to_vec() },
        cri::KeyValue { key: "MULTI".into(), value: b"a\nb=c".to_vec() },
    ];
    case.config.linux.as_mut().expect("set").resources = Some(cri::LinuxContainerResources {
        cpu_period: 100_000,
        cpu_quota: 50_000,
        cpu_shares: 512,
        memory_limit_in_bytes: 64 << 20,
        oom_score_adj: 950,
        ..Default::default()
    });
    let security = case.security();
    security.run_as_user = Some(cri::Int64Value { value: 1000 });
    security.supplemental_groups = vec![2000];
    security.readonly_rootfs = true;
    security.no_new_privs = true;
    security.seccomp = Some(cri::SecurityProfile::default());
    security.capabilities = Some(cri::Capability {
        add_capabilities: vec!["NET_BIND_SERVICE".into()],
        drop_capabilities: vec!["ALL".into()],
        ..Default::default()
    });
    security.masked_paths = vec!["/proc/kcore".into()];
    security.readonly_paths = vec!["/proc/sys".into()];
    case.mount("/var/lib/kubelet/pods/u/etc-hosts", "/etc/hosts");
    case.mount("/data", "/mnt/data").readonly = true;
    let plan = check("busy", &case);
    assert!(plan.readonly_rootfs);
    assert!(plan.process.terminal && plan.process.no_new_privileges);
    assert_eq!(plan.stdin, plan::Stdin::Once);
    assert_eq!((plan.process.uid, plan.process.gid), (1000, 1001));
    assert_eq!(plan.process.groups, [50, 1001, 2000]);
    assert_eq!(plan.process.oom_score_adj, Some(950));
    assert_eq!(
        plan.process.capabilities,
        plan::Capabilities {
            bounding: 1 << 10,
            effective: 1 << 10,
            permitted: 1 << 10,
            ..plan::Capabilities::default()
        }
    );
    assert!(!plan.process.seccomp.is_empty());
}

#[test]
fn a_privileged_container_in_the_nodes_namespaces() {
    let mut case = Case::new();
    case.facts.bounding = capabilities::ALL & !(1 << 24);
    let sandbox = case.sandbox_security();
    sandbox.privileged = true;
    sandbox.namespace_options = Some(cri::NamespaceOption {
        network: cri::NamespaceMode::Node.into(),
        pid: cri::NamespaceMode::Node.into(),
        ipc: cri::NamespaceMode::Node.into(),
        ..Default::default()
    });
    case.paths.host.all_devices = vec![crate::view::HostDevice {
        path: "/dev/kvm".into(),
        kind: plan::DeviceKind::Character,
        major: 10,
        minor: 232,
        mode: 0o660,
        uid: 0,
        gid: 104,
    }];
    let security = case.security();
    security.privileged = true;
    security.seccomp = Some(cri::SecurityProfile::default());
    security.masked_paths = vec!["/proc/kcore".into()];
    security.readonly_paths = vec!["/proc/sys".into()];
    security.namespace_options = Some(cri::NamespaceOption {
        network: cri::NamespaceMode::Node.into(),
        pid: cri::NamespaceMode::Node.into(),
        ipc: cri::NamespaceMode::Node.into(),
        ..Default::default()
    });
    let plan = check("privileged", &case);
    assert_eq!(plan.namespaces, plan::NewNamespaces { mount: true, ..plan::NewNamespaces::default() });
    assert!(plan.masked_paths.is_empty() && plan.readonly_paths.is_empty() && plan.process.seccomp.is_empty());
    assert_eq!(plan.process.capabilities.bounding, case.facts.bounding);
    assert_eq!(plan.process.capabilities.inheritable, 0);
    assert!(plan.devices.iter().any(|device| device.path == "/dev/kvm"));
    assert!(plan.process.env.contains(&"HOSTNAME=node-1".to_owned()));
    for destination in ["/sys", "/sys/fs/cgroup", "/proc"] {
        let mount = plan.mounts.iter().find(|mount| mount.destination == destination).expect("mounted");
        assert_eq!(mount.attr_set & 1, 0, "{destination} is writable");
    }
    let shm = plan.mounts.iter().find(|mount| mount.destination == "/dev/shm").expect("mounted");
    assert_eq!(shm.source, plan::MountSource::Bind { path: "/dev/shm".into(), recursive: true });
}
