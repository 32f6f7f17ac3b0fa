//! Rules of mounts.

use super::*;
use crate::host::Hierarchy;

const RDONLY: u64 = 1;
const PRIVATE: u64 = 1 << 18 | 1 << 14;
const SLAVE: u64 = 1 << 19 | 1 << 14;
const SHARED: u64 = 1 << 20 | 1 << 14;

fn destinations(plan: &plan::Container) -> Vec<&str> {
    plan.mounts.iter().map(|mount| mount.destination.as_str()).collect()
}

fn at<'a>(plan: &'a plan::Container, destination: &str) -> &'a plan::Mount {
    plan.mounts.iter().find(|mount| mount.destination == destination).expect("mounted")
}

#[test]
fn defaults_come_first_and_parents_before_children() {
    let case = case(|case| {
        case.mount("/h/deep", "/a/b/c");
        case.mount("/h/top", "/a");
        case.mount("/h/mid", "/a/b");
    });
    assert_eq!(
        destinations(&case.plan()),
        [
            "/proc",
            "/dev",
            "/dev/pts",
            "/dev/mqueue",
            "/sys",
            "/sys/fs/cgroup",
            "/a",
            "/a/b",
            "/etc/hostname",
            "/etc/hosts",
            "/etc/resolv.conf",
            "/dev/shm",
            "/a/b/c",
        ]
    );
    assert_eq!(host_paths(&case.config).collect::<Vec<_>>(), ["/h/deep", "/h/top", "/h/mid"]);
}

#[test]
fn a_mount_of_the_kubelet_replaces_ours() {
    let plan = case(|case| {
        case.mount("/k/hosts", "/etc//hosts");
        case.mount("/k/shm", "/dev/shm");
        case.mount("/k/sys", "/sys/fs/cgroup/");
    })
    .plan();
    assert_eq!(at(&plan, "/etc/hosts").source, plan::MountSource::Bind { path: "/k/hosts".into(), recursive: true });
    assert_eq!(at(&plan, "/dev/shm").source, plan::MountSource::Bind { path: "/k/shm".into(), recursive: true });
    for path in ["/etc/hosts", "/dev/shm", "/sys/fs/cgroup"] {
        assert_eq!(destinations(&plan).iter().filter(|destination| **destination == path).count(), 1, "{path}");
    }
}

#[test]
fn with_a_dev_of_its_own_a_container_gets_nothing_below_it() {
    let plan = case(|case| {
        case.mount("/dev", "/dev");
        case.paths.shm = String::new();
    })
    .plan();
    assert!(!destinations(&plan).iter().any(|path| path.starts_with("/dev/")), "{:?}", destinations(&plan));
    assert!(plan.devices.is_empty() && plan.links.is_empty());
}

#[test]
fn files_that_the_sandbox_lacks_are_not_mounted() {
    let plan = case(|case| case.paths.hosts = String::new()).plan();
    assert!(!destinations(&plan).contains(&"/etc/hosts"));
    let plan = case(|case| case.paths.shm = String::new()).plan();
    assert!(matches!(at(&plan, "/dev/shm").source, plan::MountSource::Filesystem { .. }));
}

#[test]
fn a_read_only_root_has_read_only_files_of_the_sandbox() {
    let plan = case(|case| case.security().readonly_rootfs = true).plan();
    for path in ["/etc/hostname", "/etc/hosts", "/etc/resolv.conf"] {
        assert_eq!(at(&plan, path).attr_set, RDONLY, "{path}");
    }
    assert_eq!(at(&plan, "/dev/shm").attr_set, 0);
}

#[test]
fn propagation_is_what_the_mount_asks_and_the_host_allows() {
    use cri::MountPropagation as P;
    let mount = |wanted: P, host: Propagation| {
        case(|case| {
            case.mount("/h", "/m").propagation = wanted.into();
            case.paths.host.mounts.get_mut("/h").expect("set").propagation = host;
        })
    };
    for (wanted, host, expected) in [
        (P::PropagationPrivate, Propagation::Private, (PRIVATE, SLAVE)),
        (P::PropagationPrivate, Propagation::Shared, (PRIVATE, SLAVE)),
        (P::PropagationHostToContainer, Propagation::Shared, (SLAVE, SLAVE)),
        (P::PropagationHostToContainer, Propagation::Slave, (SLAVE, SLAVE)),
        (P::PropagationBidirectional, Propagation::Shared, (SHARED, SHARED)),
    ] {
        let plan = mount(wanted, host).plan();
        assert_eq!((at(&plan, "/m").propagation, plan.root_propagation), expected, "{wanted:?} {host:?}");
    }
    for (wanted, host) in [
        (P::PropagationHostToContainer, Propagation::Private),
        (P::PropagationBidirectional, Propagation::Private),
        (P::PropagationBidirectional, Propagation::Slave),
    ] {
        assert_eq!(mount(wanted, host).refused(), "mounts[0].propagation", "{wanted:?} {host:?}");
    }
    // One shared mount is enough, wherever it stands in the list.
    let both = case(|case| {
        case.mount("/s", "/s").propagation = P::PropagationBidirectional.into();
        case.mount("/r", "/r").propagation = P::PropagationHostToContainer.into();
        for path in case.paths.host.mounts.values_mut() {
            path.propagation = Propagation::Shared;
        }
    });
    assert_eq!(both.plan().root_propagation, SHARED);
}

#[test]
fn read_only_comes_plain_or_recursive() {
    let mount = |readonly: bool, recursive: bool, propagation: cri::MountPropagation| {
        case(|case| {
            let mount = case.mount("/h", "/m");
            mount.readonly = readonly;
            mount.recursive_read_only = recursive;
            mount.propagation = propagation.into();
            case.paths.host.mounts.get_mut("/h").expect("set").propagation = Propagation::Shared;
        })
    };
    use cri::MountPropagation as P;
    for (readonly, recursive, expected) in
        [(false, false, (0, false)), (true, false, (RDONLY, false)), (true, true, (RDONLY, true))]
    {
        let plan = mount(readonly, recursive, P::PropagationPrivate).plan();
        let mount = at(&plan, "/m");
        assert_eq!((mount.attr_set, mount.recursive_attr), expected);
        assert_eq!(mount.attr_clear, 0, "a read-only source stays read-only");
    }
    const FIELD: &str = "mounts[0].recursive_read_only";
    assert_eq!(mount(false, true, P::PropagationPrivate).refused(), FIELD);
    assert_eq!(mount(true, true, P::PropagationHostToContainer).refused(), FIELD);
    assert_eq!(mount(true, true, P::PropagationBidirectional).refused(), FIELD);
    let mut old = mount(true, true, P::PropagationPrivate);
    old.facts.recursive_read_only = false;
    assert!(old.compile().expect_err("refused").reason.contains("5.12"));
}

#[test]
fn further_options_are_those_of_a_bind_mount() {
    let options = |words: &[&str]| {
        case(|case| case.mount("/h", "/m").mount_options = words.iter().map(|word| (*word).to_owned()).collect())
    };
    let plan = options(&["noexec", "nodev", "nosuid", "noatime"]).plan();
    assert_eq!((at(&plan, "/m").attr_set, at(&plan, "/m").attr_clear), (2 | 4 | 8 | 0x10, 0x70));
    for bad in ["suid", "size=1g", "rshared", "bind", "rw", "idmap", ""] {
        assert_eq!(options(&[bad]).refused(), "mounts[0].mount_options", "{bad}");
    }
}

#[test]
fn places_and_sources_are_checked() {
    let missing = case(|case| {
        case.mount("/h", "/m");
        case.paths.host.mounts.clear();
    });
    let error = missing.compile().expect_err("refused");
    assert_eq!(error.field, "mounts[0].host_path");
    assert!(error.reason.contains("does not exist"), "{error}");
    // A link on the host is followed, and the container sees the end of it.
    let plan = case(|case| {
        case.mount("/link", "/m");
        case.paths.host.mounts.get_mut("/link").expect("set").resolved = "/target".into();
    })
    .plan();
    assert_eq!(at(&plan, "/m").source, plan::MountSource::Bind { path: "/target".into(), recursive: true });
    for bad in ["", "m", "/", "/..", "/a/..", "/a\0"] {
        assert_eq!(case(|case| _ = case.mount("/h", bad)).refused(), "mounts[0].container_path", "{bad:?}");
    }
    let plan = case(|case| _ = case.mount("/h", "/a/../../etc/./x")).plan();
    assert!(destinations(&plan).contains(&"/etc/x"));
}

#[test]
fn cgroups_are_mounted_as_the_host_has_them() {
    let hierarchies = || {
        vec![
            Hierarchy { folder: "cpu,cpuacct".into(), controllers: vec!["cpu".into(), "cpuacct".into()], name: None },
            Hierarchy { folder: "memory".into(), controllers: vec!["memory".into()], name: None },
            Hierarchy { folder: "systemd".into(), controllers: vec![], name: Some("systemd".into()) },
        ]
    };
    let source = |layout: CgroupLayout| {
        let plan = case(|case| case.facts.cgroups = layout).plan();
        assert!(plan.namespaces.cgroup);
        let mount = at(&plan, "/sys/fs/cgroup");
        assert_eq!(mount.attr_set & RDONLY, RDONLY);
        match &mount.source {
            plan::MountSource::Cgroup { hierarchies, links } => (hierarchies.clone(), links.clone()),
            other => panic!("{other:?}"),
        }
    };
    let flags = |words: &[(&str, &str)]| -> Vec<(String, String)> {
        words.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    };
    let v1 = vec![
        ("cpu,cpuacct".to_owned(), "cgroup".to_owned(), flags(&[("cpu", ""), ("cpuacct", "")])),
        ("memory".to_owned(), "cgroup".to_owned(), flags(&[("memory", "")])),
        ("systemd".to_owned(), "cgroup".to_owned(), flags(&[("none", ""), ("name", "systemd")])),
    ];
    let links = flags(&[("cpu", "cpu,cpuacct"), ("cpuacct", "cpu,cpuacct")]);
    assert_eq!(source(CgroupLayout::V1 { hierarchies: hierarchies() }), (v1.clone(), links.clone()));
    let unified = UnifiedOptions { nsdelegate: true, memory_recursiveprot: false };
    let mut hybrid = v1;
    hybrid.push(("unified".to_owned(), "cgroup2".to_owned(), flags(&[("nsdelegate", "")])));
    assert_eq!(source(CgroupLayout::Hybrid { hierarchies: hierarchies(), unified }), (hybrid, links));
    let v2 = vec![(String::new(), "cgroup2".to_owned(), flags(&[("nsdelegate", "")]))];
    assert_eq!(source(CgroupLayout::V2 { unified }), (v2, vec![]));
}
