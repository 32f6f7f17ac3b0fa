//! What attackers write into images and pods. Each test names the flaw of another runtime that it guards against
//! (research: CVE attack checklist); where the executor must act too, only the plan's part is here.

use super::*;

/// CVE-2022-29162, CVE-2022-27650, CVE-2022-24769: inheritable capabilities, in the container and in its execs.
#[test]
fn inheritable_capabilities_are_empty() {
    let ask = |add: &str| {
        case(|case| {
            case.security().capabilities =
                Some(cri::Capability { add_capabilities: vec![add.into()], ..Default::default() });
        })
        .plan()
    };
    for plan in [Case::new().plan(), ask("ALL"), ask("SYS_ADMIN")] {
        let exec = exec(&plan, "e", &["true".into()], false).expect("accepted");
        for sets in [plan.process.capabilities, exec.process.capabilities] {
            assert_eq!((sets.inheritable, sets.ambient), (0, 0));
        }
    }
}

/// CVE-2023-25809: a writable cgroup tree.
#[test]
fn cgroups_are_read_only_and_in_a_namespace() {
    let plan = Case::new().plan();
    assert!(plan.namespaces.cgroup);
    let mount = plan.mounts.iter().find(|mount| mount.destination == "/sys/fs/cgroup").expect("mounted");
    assert_eq!(mount.attr_set & 1, 1);
}

/// CVE-2024-21626: a working folder behind a leaked descriptor of the runtime.
#[test]
fn a_working_folder_in_proc_is_refused() {
    for path in
        ["/proc/self/fd/7", "/proc/1/fd/7", "//proc/./self/fd/8/../../..", "/proc/thread-self/fd/3", "/proc/self"]
    {
        assert_eq!(case(|case| case.image.working_dir = path.into()).refused(), "image.config.WorkingDir", "{path}");
        assert_eq!(case(|case| case.config.working_dir = path.into()).refused(), "working_dir", "{path}");
    }
    for path in ["/proc", "/proc/sys", "/srv/proc/self", "/procession"] {
        assert_eq!(case(|case| case.config.working_dir = path.into()).plan().process.cwd, path);
    }
    assert_eq!(case(|case| case.image.working_dir = "app".into()).refused(), "image.config.WorkingDir");
}

/// CVE-2022-23648: an image's volume that leads out of the root, copied by the runtime. None is copied or mounted.
#[test]
fn volumes_of_an_image_reach_nothing() {
    let plain = Case::new().plan();
    let hostile = case(|case| case.image.volumes = vec!["/../../etc".into(), "/proc".into(), "relative".into()]).plan();
    assert_eq!(hostile, plain);
}

/// CVE-2023-25173: root's group kept beside the groups of the user.
#[test]
fn groups_are_set_exactly() {
    let plan = case(|case| case.image.user = "app".into()).plan();
    assert_eq!(plan.process.groups, [50, 1001]);
}

/// CVE-2024-40635, CVE-2026-46680: numbers that wrap to root, or that turn into names.
#[test]
fn users_out_of_range_are_refused() {
    for user in ["4294967296", "2147483648:2147483648", "0:4294967296", "-1", "18446744073709551616"] {
        let case = case(|case| {
            case.image.user = user.into();
            case.image.passwd.push_str(&format!("{user}:x:0:0::/:/bin/sh\n"));
        });
        assert_eq!(case.refused(), "image.config.User", "{user}");
    }
}

/// A /etc/passwd of another kind than text lines (a gigabyte of it is cut off by whoever reads it).
#[test]
fn a_strange_passwd_only_lacks_users() {
    for passwd in ["\0\0\0", &":".repeat(100_000), &"a".repeat(1_000_000), "root:x:0", "\u{feff}app:x:1:1"] {
        let case = case(|case| {
            case.image.passwd = passwd.into();
            case.image.user = "app".into();
        });
        assert_eq!(case.refused(), "image.config.User");
    }
}

/// CVE-2022-0811: a parameter smuggled in the value of another.
#[test]
fn a_parameter_carries_no_other() {
    let case = case(|case| {
        case.sandbox
            .linux
            .get_or_insert_default()
            .sysctls
            .insert("kernel.shm_rmid_forced".into(), "1+kernel.core_pattern=|/tmp/x".into());
    });
    assert_eq!(case.refused(), "linux.sysctls[\"kernel.shm_rmid_forced\"]");
}

/// CVE-2022-4318: a line break in HOME that became a line of /etc/passwd. It is a variable and nothing else.
#[test]
fn a_line_break_in_home_stays_in_the_environment() {
    let home = "/x\nevil:x:0:0::/:/bin/sh";
    let config = case(|case| {
        case.config.envs = vec![cri::KeyValue { key: "HOME".into(), value: home.into() }];
    });
    let (plan, plain) = (config.plan(), Case::new().plan());
    assert!(plan.process.env.contains(&format!("HOME={home}")));
    assert_eq!(plan::Container { process: plain.process.clone(), ..plan }, plain);
}

/// CVE-2024-3154: annotations that an OCI runtime or systemd acts on.
#[test]
fn annotations_and_labels_reach_nothing() {
    let hostile = [
        ("org.systemd.property.ExecStartPre", "'/bin/x'"),
        ("run.oci.handler", "krun"),
        ("io.kubernetes.cri.sandbox-id", "other"),
    ];
    let mut case = case(|case| {
        for (key, value) in hostile {
            case.config.annotations.insert(key.into(), value.into());
            case.sandbox.annotations.insert(key.into(), value.into());
            case.image.labels.insert(key.into(), value.into());
        }
    });
    let (spec, plan) = case.compile().expect("accepted");
    let annotations = spec.annotations().clone().expect("set");
    assert!(annotations.keys().all(|key| key.starts_with("io.kubernetes.cri.")), "{annotations:?}");
    assert_eq!(annotations["io.kubernetes.cri.sandbox-id"], "sandbox-1");
    assert_eq!(plan, Case::new().plan());
    // Where they would have a unit to reach.
    case.driver = CgroupDriver::Systemd;
    case.sandbox.linux.get_or_insert_default().cgroup_parent = "kubepods-podx.slice".into();
    let (spec, _) = case.compile().expect("accepted");
    let annotations = spec.annotations().clone().expect("set");
    assert_eq!(crate::systemd::properties(&annotations), Ok(Vec::new()));
    let path = spec.linux().as_ref().and_then(|linux| linux.cgroups_path().clone()).expect("set");
    assert_eq!(path.to_str(), Some(&*format!("kubepods-podx.slice:cri-berth:{ID}")));
}

/// GHSA-7ww5 (RAPL) and its kin: what the kernel shows of the machine.
#[test]
fn what_the_kernel_tells_of_the_machine_is_masked() {
    let plan = Case::new().plan();
    for path in ["/sys/devices/virtual/powercap", "/sys/firmware", "/proc/interrupts", "/proc/keys", "/proc/timer_list"]
    {
        assert!(plan.masked_paths.iter().any(|masked| masked == path), "{path}");
    }
}

/// CVE-2026-41579, CVE-2026-47766, CVE-2025-54867: links and nodes land below the root whatever the image has there. The
/// plan's paths are absolute and plain, so the executor can resolve them in the root.
#[test]
fn every_path_in_a_plan_is_plain() {
    let plan = case(|case| _ = case.mount("/h", "/a/../../../proc/../x")).plan();
    let paths = plan
        .mounts
        .iter()
        .map(|mount| &mount.destination)
        .chain(plan.devices.iter().map(|device| &device.path))
        .chain(plan.links.iter().map(|(path, _)| path))
        .chain(&plan.masked_paths)
        .chain(&plan.readonly_paths);
    for path in paths {
        assert!(
            path.starts_with('/') && !path.split('/').skip(1).any(|part| matches!(part, "" | "." | "..")),
            "{path}"
        );
    }
}
