//! Rules of containers: process, user, security.

use super::*;

fn set<const N: usize>(words: [&str; N]) -> Vec<String> {
    words.map(str::to_owned).to_vec()
}

#[test]
fn arguments_come_from_image_and_configuration() {
    // entrypoint, cmd, command, args, result
    type Row<'a> = (&'a [&'a str], &'a [&'a str], &'a [&'a str], &'a [&'a str], &'a [&'a str]);
    let rows: [Row<'_>; 9] = [
        (&["e"], &["c"], &[], &[], &["e", "c"]),
        (&["e"], &["c"], &[], &["a"], &["e", "a"]),
        (&["e"], &["c"], &["x"], &[], &["x"]),
        (&["e"], &["c"], &["x"], &["a"], &["x", "a"]),
        (&[], &["c"], &[], &[], &["c"]),
        (&["e"], &[], &[], &[], &["e"]),
        (&[""], &["c"], &[], &[], &["c"]),
        (&[], &[], &[], &["a"], &["a"]),
        (&["e", "f"], &[], &[], &["a", "b"], &["e", "f", "a", "b"]),
    ];
    let list = |words: &[&str]| -> Vec<String> { words.iter().map(|word| (*word).to_owned()).collect() };
    for (entrypoint, cmd, command, args, expected) in rows {
        let plan = case(|case| {
            case.image.entrypoint = list(entrypoint);
            case.image.cmd = list(cmd);
            case.config.command = list(command);
            case.config.args = list(args);
        })
        .plan();
        assert_eq!(plan.process.args, expected, "{entrypoint:?} {cmd:?} {command:?} {args:?}");
    }
    let nothing = case(|case| {
        case.image.entrypoint = set([""]);
        case.image.cmd = vec![];
    });
    assert_eq!(nothing.refused(), "command");
    assert_eq!(case(|case| case.config.command = set([""])).refused(), "command");
    assert_eq!(case(|case| case.config.args = set(["a\0b"])).refused(), "command");
}

#[test]
fn the_environment_is_merged_in_order() {
    let plan = case(|case| {
        case.image.env = set(["A=image", "B=image", "HOSTNAME=image", "BROKEN", "=x", "HOME=/image"]);
        case.config.envs = [("B", "pod"), ("C", "1"), ("C", "2"), ("EMPTY", "")]
            .map(|(key, value)| cri::KeyValue { key: key.into(), value: value.into() })
            .to_vec();
    })
    .plan();
    assert_eq!(
        plan.process.env,
        [
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOSTNAME=image",
            "A=image",
            "B=pod",
            "HOME=/image",
            "C=2",
            "EMPTY=",
        ]
    );
    // An image's word without a value takes a default away.
    let plan = case(|case| case.image.env = set(["HOSTNAME"])).plan();
    assert!(!plan.process.env.iter().any(|entry| entry.starts_with("HOSTNAME")), "{:?}", plan.process.env);
    let plan = case(|case| case.config.tty = true).plan();
    assert!(plan.process.env.contains(&"TERM=xterm".to_owned()));
}

#[test]
fn variables_that_exec_cannot_pass_are_refused() {
    let env = |key: &str, value: &[u8]| {
        let variable = cri::KeyValue { key: key.into(), value: value.to_vec() };
        case(|case| case.config.envs = vec![variable]).refused()
    };
    assert_eq!(env("", b"1"), "envs[0].key");
    assert_eq!(env("A=B", b"1"), "envs[0].key");
    assert_eq!(env("A\0", b"1"), "envs[0]");
    assert_eq!(env("A", b"\0"), "envs[0].value");
    assert_eq!(env("A", b"\xff\xfe"), "envs[0].value");
    assert_eq!(case(|case| case.image.env = set(["A=\0"])).refused(), "image.config.Env");
}

#[test]
fn the_user_is_chosen_in_order() {
    let user = |name: &str, uid: Option<i64>, gid: Option<i64>, image: &str| {
        let case = case(|case| {
            case.image.user = image.into();
            let security = case.security();
            security.run_as_username = name.into();
            security.run_as_user = uid.map(|value| cri::Int64Value { value });
            security.run_as_group = gid.map(|value| cri::Int64Value { value });
        });
        case.compile().map(|(_, plan)| (plan.process.uid, plan.process.gid, plan.process.groups)).map_err(|e| e.field)
    };
    for (name, uid, gid, image, expected) in [
        ("", None, None, "", (0, 0, vec![0])),
        ("", None, None, "app", (1000, 1001, vec![50, 1001])),
        ("", None, None, "7:8", (7, 8, vec![8])),
        ("app", None, None, "7", (1000, 1001, vec![50, 1001])),
        ("", Some(7), None, "app", (7, 0, vec![0])),
        ("", Some(1000), None, "", (1000, 1001, vec![50, 1001])),
        ("", Some(1000), Some(9), "", (1000, 9, vec![9, 50])),
        ("app", None, Some(9), "", (1000, 9, vec![9, 50])),
        ("", Some(0), None, "app", (0, 0, vec![0])),
    ] {
        assert_eq!(user(name, uid, gid, image), Ok(expected), "{name} {uid:?} {gid:?} {image}");
    }
    const SECURITY: &str = "linux.security_context";
    assert_eq!(user("", None, Some(9), "app"), Err(format!("{SECURITY}.run_as_group")));
    assert_eq!(user("", Some(-1), None, ""), Err(format!("{SECURITY}.run_as_user")));
    assert_eq!(user("", Some(1 << 32), None, ""), Err(format!("{SECURITY}.run_as_user")));
    assert_eq!(user("", Some(1), Some(1 << 31), ""), Err(format!("{SECURITY}.run_as_group")));
    assert_eq!(user("nobody", None, None, ""), Err(format!("{SECURITY}.run_as_username")));
    assert_eq!(user("", None, None, "nobody"), Err("image.config.User".into()));
}

#[test]
fn supplementary_groups_merge_or_are_strict() {
    let groups = |policy: cri::SupplementalGroupsPolicy, given: &[i64]| {
        case(|case| {
            let security = case.security();
            security.run_as_username = "app".into();
            security.supplemental_groups = given.to_vec();
            security.supplemental_groups_policy = policy.into();
        })
    };
    assert_eq!(groups(cri::SupplementalGroupsPolicy::Merge, &[7, 7]).plan().process.groups, [7, 50, 1001]);
    assert_eq!(groups(cri::SupplementalGroupsPolicy::Strict, &[7]).plan().process.groups, [7, 1001]);
    let field = groups(cri::SupplementalGroupsPolicy::Strict, &[-7]).refused();
    assert_eq!(field, "linux.security_context.supplemental_groups");
}

#[test]
fn seccomp_profiles_are_chosen() {
    use cri::security_profile::ProfileType as Type;
    let profile =
        |kind: Type, path: &str| Some(cri::SecurityProfile { profile_type: kind.into(), localhost_ref: path.into() });
    const TEXT: &str =
        r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["chmod"],"action":"SCMP_ACT_ERRNO"}]}"#;
    let filter = |change: fn(&mut cri::LinuxContainerSecurityContext), text: Option<&str>, new| {
        let case = case(|case| {
            case.security().seccomp = new;
            change(case.security());
            case.paths.host.seccomp_profile = text.map(str::to_owned);
        });
        let path = seccomp_profile_path(&case.config);
        case.compile().map(|(_, plan)| (plan.process.seccomp.len(), path)).map_err(|error| error.field)
    };
    let none = |_: &mut cri::LinuxContainerSecurityContext| {};
    assert_eq!(filter(none, None, None), Ok((0, Ok(None))));
    assert_eq!(filter(none, None, profile(Type::Unconfined, "")), Ok((0, Ok(None))));
    let (length, _) = filter(none, None, profile(Type::RuntimeDefault, "")).expect("accepted");
    assert!(length > 800);
    let (length, path) = filter(none, Some(TEXT), profile(Type::Localhost, "/p/a.json")).expect("accepted");
    assert!(length > 0);
    assert_eq!(path, Ok(Some("/p/a.json".into())));
    #[allow(deprecated, reason = "the old field is served")]
    let old = |security: &mut cri::LinuxContainerSecurityContext| {
        security.seccomp_profile_path = "localhost//p/a.json".into();
    };
    let (_, path) = filter(old, Some(TEXT), None).expect("accepted");
    assert_eq!(path, Ok(Some("/p/a.json".into())));

    const FIELD: &str = "linux.security_context.seccomp.localhost_ref";
    assert_eq!(filter(none, None, profile(Type::Localhost, "/p/a.json")), Err(FIELD.into()));
    assert_eq!(filter(none, Some("{"), profile(Type::Localhost, "/p/a.json")), Err(FIELD.into()));
    assert_eq!(filter(none, None, profile(Type::RuntimeDefault, "/p/a.json")), Err(FIELD.into()));
    let relative = case(|case| case.security().seccomp = profile(Type::Localhost, "a.json"));
    assert_eq!(seccomp_profile_path(&relative.config).map_err(|error| error.field), Err(FIELD.into()));
    #[allow(deprecated, reason = "the old field is served")]
    let bad = case(|case| case.security().seccomp_profile_path = "a.json".into());
    assert_eq!(bad.refused(), "linux.security_context.seccomp_profile_path");
}

#[test]
fn apparmor_profiles_are_applied_or_refused() {
    use cri::security_profile::ProfileType as Type;
    const FIELD: &str = "linux.security_context.apparmor";
    let apparmor = |kind: Type, name: &str, privileged: bool, host: bool| {
        let case = case(|case| {
            case.facts.apparmor = host;
            case.paths.host.apparmor_profiles = set(["berth-default", "own"]);
            case.sandbox_security().privileged = privileged;
            case.security().privileged = privileged;
            case.security().apparmor =
                Some(cri::SecurityProfile { profile_type: kind.into(), localhost_ref: name.into() });
        });
        case.compile().map(|(_, plan)| plan.process.apparmor).map_err(|error| error.to_string())
    };
    let word = |text: &str| Ok(text.to_owned());
    for host in [false, true] {
        assert_eq!(apparmor(Type::Unconfined, "", false, host), word(""));
        for kind in [Type::RuntimeDefault, Type::Localhost] {
            let Err(error) = apparmor(kind, "missing", false, host) else {
                assert!(host && kind == Type::RuntimeDefault);
                continue;
            };
            assert!(error.starts_with(&format!("{FIELD}:")), "{error}");
            assert_eq!(error.contains("this host has no AppArmor"), !host, "{error}");
        }
    }
    assert_eq!(apparmor(Type::RuntimeDefault, "", false, true), word("berth-default"));
    assert_eq!(apparmor(Type::Localhost, "own", false, true), word("own"));
    assert_eq!(apparmor(Type::Localhost, "localhost/own", false, true), word("own"));
    assert!(apparmor(Type::Localhost, "", false, true).is_err());
    assert_eq!(apparmor(Type::RuntimeDefault, "", true, true), word(""));
    assert_eq!(apparmor(Type::Localhost, "own", true, true), word(""));
    let unset = |privileged: bool, host: bool, loaded: &[&str]| {
        let case = case(|case| {
            case.facts.apparmor = host;
            case.paths.host.apparmor_profiles = loaded.iter().map(|name| (*name).to_owned()).collect();
            case.sandbox_security().privileged = privileged;
            case.security().privileged = privileged;
        });
        case.plan().process.apparmor
    };
    assert_eq!(unset(false, true, &["berth-default"]), "berth-default");
    for (privileged, host, loaded) in
        [(true, true, &["berth-default"][..]), (false, false, &["berth-default"]), (false, true, &["own"])]
    {
        assert_eq!(unset(privileged, host, loaded), "", "{privileged} {host} {loaded:?}");
    }
    #[allow(deprecated, reason = "the old field is served")]
    let old = |name: &str, new: Option<&str>| {
        case(|case| {
            case.facts.apparmor = true;
            case.paths.host.apparmor_profiles = set(["own", "new"]);
            case.security().apparmor_profile = name.into();
            case.security().apparmor =
                new.map(|new| cri::SecurityProfile { profile_type: Type::Localhost.into(), localhost_ref: new.into() });
        })
    };
    assert_eq!(old("localhost/own", None).plan().process.apparmor, "own");
    assert_eq!(old("localhost/own", Some("new")).plan().process.apparmor, "new");
    assert_eq!(old("localhost/missing", Some("new")).plan().process.apparmor, "new");
    assert_eq!(old("localhost/missing", None).refused(), "linux.security_context.apparmor_profile");
}

#[test]
fn selinux_is_never_ignored() {
    let selinux = |host: bool| {
        case(|case| {
            case.facts.selinux = host;
            case.security().selinux_options = Some(cri::SeLinuxOption { level: "s0:c1".into(), ..Default::default() });
        })
    };
    assert!(selinux(false).compile().is_ok());
    assert_eq!(selinux(true).refused(), "linux.security_context.selinux_options");
}

#[test]
fn privileged_needs_a_sandbox_for_it() {
    assert_eq!(case(|case| case.security().privileged = true).refused(), "linux.security_context.privileged");
}

#[test]
fn namespaces_follow_the_sandbox() {
    let plan = case(|case| {
        case.security().namespace_options.get_or_insert_default().pid = cri::NamespaceMode::Node.into();
    })
    .plan();
    assert!(!plan.namespaces.pid);
    // Saying nothing gets a PID namespace of one's own.
    assert!(case(|case| case.security().namespace_options = None).plan().namespaces.pid);
}

#[test]
fn paths_are_masked_unless_told_otherwise() {
    let plan = Case::new().plan();
    for path in ["/sys/devices/virtual/powercap", "/sys/firmware", "/proc/kcore", "/proc/interrupts"] {
        assert!(plan.masked_paths.iter().any(|masked| masked == path), "{path}");
    }
    assert!(plan.readonly_paths.iter().any(|path| path == "/proc/sys"));
    let plan = case(|case| case.security().masked_paths = set(["/bin/ls"])).plan();
    assert_eq!(plan.masked_paths, ["/bin/ls"]);
    assert!(!plan.readonly_paths.is_empty());
    assert_eq!(
        case(|case| case.security().masked_paths = set(["bin"])).refused(),
        "linux.security_context.masked_paths"
    );
}

#[test]
fn oom_scores_are_clamped_where_the_host_forbids() {
    let adj = |wanted: i64, can_lower: bool| {
        case(|case| {
            case.facts.can_lower_oom = can_lower;
            case.facts.oom_score_adj = 100;
            case.config.linux.get_or_insert_default().resources =
                Some(cri::LinuxContainerResources { oom_score_adj: wanted, ..Default::default() });
        })
    };
    assert_eq!(adj(-997, true).plan().process.oom_score_adj, Some(-997));
    assert_eq!(adj(-997, false).plan().process.oom_score_adj, Some(100));
    assert_eq!(adj(1000, false).plan().process.oom_score_adj, Some(1000));
    assert_eq!(adj(1001, true).refused(), "linux.resources.oom_score_adj");
    assert_eq!(Case::new().plan().process.oom_score_adj, None);
}

#[test]
fn logs_lie_below_the_sandboxes_folder() {
    let plan = sandbox(&sandbox_config(), CgroupDriver::Cgroupfs).expect("accepted");
    let log = |path: &str| {
        let config = cri::ContainerConfig { log_path: path.into(), ..Default::default() };
        log_path(&plan, &config).map_err(|error| error.field)
    };
    assert_eq!(log("app/0.log"), Ok("/var/log/pods/default_web_uid-1/app/0.log".into()));
    assert_eq!(log(""), Ok(String::new()));
    for bad in ["../../etc/cron.d/x", "/etc/x", "a//b", "./a", "a/../b", "a\0"] {
        assert_eq!(log(bad), Err("log_path".into()), "{bad:?}");
    }
    let nowhere = SandboxPlan { log_directory: String::new(), ..plan.clone() };
    let config = cri::ContainerConfig { log_path: "app/0.log".into(), ..Default::default() };
    assert_eq!(log_path(&nowhere, &config), Ok(String::new()));
}

#[test]
fn an_exec_is_the_containers_process_with_another_command() {
    let container = case(|case| {
        case.security().run_as_username = "app".into();
        case.security().seccomp = Some(cri::SecurityProfile::default());
        case.config.working_dir = "/srv".into();
    })
    .plan();
    let exec = exec(&container, "e1", &set(["sh", "-c", "id"]), true).expect("accepted");
    assert_eq!((exec.id.as_str(), exec.container.as_str()), ("e1", ID));
    assert_eq!(exec.process.args, ["sh", "-c", "id"]);
    assert!(exec.process.terminal && exec.process.env.contains(&"TERM=xterm".to_owned()));
    let same = plan::Process {
        args: container.process.args.clone(),
        env: container.process.env.clone(),
        terminal: false,
        ..exec.process
    };
    assert_eq!(same, container.process);
    for bad in [vec![], set([""]), set(["a\0"])] {
        assert_eq!(super::exec(&container, "e", &bad, false).expect_err("refused").field, "cmd");
    }
}

#[test]
fn devices_come_with_their_rules() {
    let device = |path: &str, minor: u32| crate::view::HostDevice {
        path: path.into(),
        kind: plan::DeviceKind::Block,
        major: 8,
        minor,
        mode: 0o100660,
        uid: 0,
        gid: 6,
    };
    let ask = |host: &str, inside: &str, permissions: &str| cri::Device {
        host_path: host.into(),
        container_path: inside.into(),
        permissions: permissions.into(),
    };
    let mut case = Case::new();
    case.config.devices = vec![ask("/dev/sda", "/dev/xvda", "rw"), ask("/dev/disks", "/dev/d/", "r")];
    case.paths.host.devices.insert("/dev/sda".into(), vec![device("/dev/sda", 0)]);
    case.paths.host.devices.insert("/dev/disks".into(), vec![device("/dev/disks/a", 1), device("/dev/disks/b/c", 2)]);
    let (spec, plan) = case.compile().expect("accepted");
    let paths: Vec<_> = plan.devices[6..].iter().map(|device| (device.path.as_str(), device.mode)).collect();
    assert_eq!(paths, [("/dev/xvda", 0o660), ("/dev/d/a", 0o660), ("/dev/d/b/c", 0o660)]);
    let linux = spec.linux().as_ref().expect("set");
    let rules: Vec<_> =
        linux.resources().as_ref().expect("set").devices().iter().flatten().map(ToString::to_string).collect();
    assert_eq!(rules[0], "a *:* rwm");
    assert_eq!(rules[1..3], ["c *:* m", "b *:* m"]);
    assert_eq!(rules[rules.len() - 3..], ["b 8:0 rw", "b 8:1 r", "b 8:2 r"]);
    assert_eq!(host_devices(&case.config).collect::<Vec<_>>(), ["/dev/sda", "/dev/disks"]);

    for (change, field) in [
        (ask("/dev/none", "/dev/x", "rw"), "devices[0].host_path"),
        (ask("/dev/sda", "/dev/x", "rwx"), "devices[0].permissions"),
        (ask("/dev/sda", "/dev/x", ""), "devices[0].permissions"),
        (ask("/dev/sda", "x", "r"), "devices[0].container_path"),
        (ask("/dev/sda", "/dev/../../x", "r"), "devices[0].container_path"),
    ] {
        case.config.devices = vec![change];
        assert_eq!(case.refused(), field);
    }
}

#[test]
fn what_is_not_implemented_is_refused_by_name() {
    let cdi = case(|case| case.config.cdi_devices = vec![cri::CdiDevice { name: "v/gpu=1".into() }]);
    assert_eq!(cdi.refused(), "CDI_devices");
}
