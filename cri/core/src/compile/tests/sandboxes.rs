//! Rules of sandboxes.

use super::*;

fn with(change: impl FnOnce(&mut Case)) -> Result<SandboxPlan, ConfigError> {
    sandbox(&case(change).sandbox, CgroupDriver::Cgroupfs)
}

fn refused(change: impl FnOnce(&mut Case)) -> String {
    with(change).expect_err("refused").field
}

#[test]
fn a_pod_has_its_own_network_ipc_and_name() {
    let plan = with(|_| {}).expect("accepted");
    assert_eq!(
        (plan.network, plan.ipc, plan.pid, plan.new_uts),
        (NamespaceScope::Pod, NamespaceScope::Pod, NamespaceScope::Container, true)
    );
    assert_eq!(plan.hostname, "web-0");
    assert_eq!(plan.cgroup_parent, "/kubepods/besteffort/poduid-1");
    assert_eq!(plan.resolv_conf, None);
    // containerd's defaults of a network namespace.
    assert_eq!(
        plan.sysctls,
        [("net.ipv4.ip_unprivileged_port_start", "0"), ("net.ipv4.ping_group_range", "0 2147483647")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
    );
}

#[test]
fn a_pod_in_the_nodes_network_has_the_nodes_name_and_no_network_parameters() {
    let plan = with(|case| {
        case.sandbox_namespaces().network = cri::NamespaceMode::Node.into();
        case.sandbox.hostname = String::new();
        case.sandbox.port_mappings = vec![cri::PortMapping { container_port: 80, host_port: 80, ..Default::default() }];
    })
    .expect("accepted");
    assert_eq!((plan.network, plan.new_uts, plan.hostname.as_str()), (NamespaceScope::Node, false, ""));
    assert!(plan.sysctls.is_empty() && plan.port_mappings.is_empty());
}

#[test]
fn namespaces_that_do_not_exist_are_refused_by_name() {
    const OPTIONS: &str = "linux.security_context.namespace_options";
    let mode = |change: fn(&mut cri::NamespaceOption)| refused(|case| change(case.sandbox_namespaces()));
    assert_eq!(mode(|n| n.pid = cri::NamespaceMode::Target.into()), format!("{OPTIONS}.pid"));
    assert_eq!(mode(|n| n.network = cri::NamespaceMode::Container.into()), format!("{OPTIONS}.network"));
    assert_eq!(mode(|n| n.ipc = cri::NamespaceMode::Target.into()), format!("{OPTIONS}.ipc"));
    assert!(
        with(|case| {
            case.sandbox_namespaces().userns_options =
                Some(cri::UserNamespace { mode: cri::NamespaceMode::Node.into(), ..Default::default() });
        })
        .is_ok()
    );
}

#[test]
fn names_of_hosts_are_checked() {
    assert_eq!(with(|case| case.sandbox.hostname = String::new()).expect("the node's name").hostname, "");
    for bad in ["a b", "a\n", "a/b", &"x".repeat(65)] {
        assert_eq!(refused(|case| case.sandbox.hostname = bad.into()), "hostname", "{bad:?}");
    }
    for good in [String::new(), "x".repeat(64)] {
        assert!(with(|case| case.sandbox.hostname = good.clone()).is_ok(), "{good:?}");
    }
}

#[test]
fn resolv_conf_has_one_directive_a_line() {
    let dns = |servers: &[&str], searches: &[&str], options: &[&str]| {
        let list = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        let config = cri::DnsConfig { servers: list(servers), searches: list(searches), options: list(options) };
        with(|case| case.sandbox.dns_config = Some(config))
    };
    assert_eq!(
        dns(&["10.96.0.10", "fd00::1"], &["default.svc.cluster.local", "svc"], &["ndots:5", "edns0"])
            .expect("accepted")
            .resolv_conf
            .as_deref(),
        Some(
            "search default.svc.cluster.local svc\nnameserver 10.96.0.10\nnameserver fd00::1\noptions ndots:5 edns0\n"
        )
    );
    assert_eq!(dns(&[], &[], &[]).expect("accepted").resolv_conf.as_deref(), Some(""));
    let field = |result: Result<SandboxPlan, ConfigError>| result.expect_err("refused").field;
    assert_eq!(field(dns(&["1.1.1.1\nnameserver 6.6.6.6"], &[], &[])), "dns_config.servers");
    assert_eq!(field(dns(&[], &["a b"], &[])), "dns_config.searches");
    assert_eq!(field(dns(&[], &[], &[""])), "dns_config.options");
    assert_eq!(field(dns(&["1.1.1.1"; 65], &[], &[])), "dns_config.servers");
}

#[test]
fn parameters_of_the_kernel_stay_in_the_pods_namespaces() {
    let sysctl = |name: &str, value: &str, node: bool| {
        with(|case| {
            if node {
                case.sandbox_namespaces().network = cri::NamespaceMode::Node.into();
                case.sandbox_namespaces().ipc = cri::NamespaceMode::Node.into();
            }
            case.sandbox.linux.get_or_insert_default().sysctls.insert(name.into(), value.into());
        })
        .map(|plan| plan.sysctls)
    };
    for (name, stored) in [
        ("net.core.somaxconn", "net.core.somaxconn"),
        ("net/ipv4/conf/eth0.1/rp_filter", "net.ipv4.conf.eth0/1.rp_filter"),
        ("net.ipv4.conf.eth0/1.rp_filter", "net.ipv4.conf.eth0/1.rp_filter"),
        ("kernel.shm_rmid_forced", "kernel.shm_rmid_forced"),
        ("fs.mqueue.msg_max", "fs.mqueue.msg_max"),
        ("kernel.sem", "kernel.sem"),
        // The pod's word replaces the default.
        ("net/ipv4/ip_unprivileged_port_start", "net.ipv4.ip_unprivileged_port_start"),
    ] {
        let sysctls = sysctl(name, "100", false).expect("accepted");
        assert!(sysctls.contains(&(stored.to_owned(), "100".to_owned())), "{name}: {sysctls:?}");
        assert!(sysctl(name, "100", true).is_err(), "{name} would change the node");
    }
    for name in [
        "kernel.core_pattern",
        "vm.swappiness",
        "net",
        "",
        "net..core",
        "net.../x.y",
        "net/../kernel/core_pattern",
        "net. x",
        "net.a\n",
    ] {
        assert_eq!(sysctl(name, "1", false).expect_err("refused").field, format!("linux.sysctls[{name:?}]"), "{name}");
    }
    for value in ["a+kernel.core_pattern=|/x", "1=2", "1\n2", "1\r", "1\0"] {
        assert!(sysctl("net.core.somaxconn", value, false).is_err(), "{value:?}");
    }
    assert!(sysctl("net.ipv4.tcp_rmem", "4096 131072 6291456", false).is_ok());
}

#[test]
fn cgroup_parents_are_plain_absolute_paths() {
    let parent = |text: &str| {
        with(|case| case.sandbox.linux.get_or_insert_default().cgroup_parent = text.into())
            .map(|plan| plan.cgroup_parent)
            .map_err(|error| error.field)
    };
    for (text, expected) in [("", ""), ("/", ""), ("/a//b/", "/a/b"), ("/kubepods", "/kubepods")] {
        assert_eq!(parent(text), Ok(expected.to_owned()), "{text}");
    }
    for text in ["kubepods", "/a/../b", "/./a", "/a\n", "kubepods-besteffort.slice"] {
        assert_eq!(parent(text), Err("linux.cgroup_parent".to_owned()), "{text:?}");
    }
}

#[test]
fn with_systemd_the_parent_is_a_slice() {
    let parent = |text: &str| {
        let case = case(|case| case.sandbox.linux.get_or_insert_default().cgroup_parent = text.into());
        sandbox(&case.sandbox, CgroupDriver::Systemd)
            .map(|plan| (plan.cgroup_parent, plan.slice))
            .map_err(|error| error.field)
    };
    let (path, name) = ("/kubepods.slice/kubepods-podx_y.slice", "kubepods-podx_y.slice");
    for (text, expected) in
        [("", ("", "")), (name, (path, name)), (path, (path, name)), (&format!("{path}/"), (path, name))]
    {
        assert_eq!(parent(text), Ok((expected.0.to_owned(), expected.1.to_owned())), "{text}");
    }
    for text in
        ["/kubepods/podx", "/a.slice/kubepods-podx.slice", "/", "-.slice", "a-.slice", "a.slice\0", "../a.slice"]
    {
        assert_eq!(parent(text), Err("linux.cgroup_parent".to_owned()), "{text:?}");
    }
    let plan =
        SandboxPlan { slice: name.to_owned(), cgroup_parent: path.to_owned(), ..with(|_| {}).expect("accepted") };
    let scope = plan.scope(ID).expect("a name").expect("systemd's");
    assert_eq!(scope.path(), format!("{path}/cri-berth-{ID}.scope"));
    assert_eq!(with(|_| {}).expect("accepted").scope(ID), Ok(None));
}

#[test]
fn ports_are_checked() {
    let port = |container: i32, host: i32, ip: &str| {
        let mapping = cri::PortMapping { container_port: container, host_port: host, host_ip: ip.into(), protocol: 1 };
        with(|case| case.sandbox.port_mappings = vec![mapping])
            .map(|plan| plan.port_mappings)
            .map_err(|error| error.field)
    };
    let expected =
        PortMapping { protocol: PortProtocol::Udp, container_port: 53, host_port: 8053, host_ip: "127.0.0.1".into() };
    assert_eq!(port(53, 8053, "127.0.0.1"), Ok(vec![expected]));
    // 0 means that the port is not to be reached through the host.
    assert_eq!(port(53, 0, ""), Ok(vec![]));
    assert_eq!(port(0, 80, ""), Err("port_mappings[0].container_port".into()));
    assert_eq!(port(53, 65536, ""), Err("port_mappings[0].host_port".into()));
    assert_eq!(port(-1, 80, ""), Err("port_mappings[0].container_port".into()));
    assert_eq!(port(53, 53, "localhost"), Err("port_mappings[0].host_ip".into()));
}

#[test]
fn the_rest_of_a_sandbox_is_checked() {
    assert_eq!(refused(|case| case.sandbox.metadata = None), "metadata");
    assert_eq!(refused(|case| case.sandbox.metadata.as_mut().expect("set").name = String::new()), "metadata.name");
    for bad in ["relative", "/a/../../etc", "/a\0"] {
        assert_eq!(refused(|case| case.sandbox.log_directory = bad.into()), "log_directory");
    }
    assert_eq!(
        refused(|case| case.sandbox_security().run_as_group = Some(cri::Int64Value { value: 1 })),
        "linux.security_context.run_as_group"
    );
}

#[test]
fn a_plan_survives_its_record() {
    let plan = with(|case| {
        case.sandbox.port_mappings = vec![cri::PortMapping { container_port: 1, host_port: 2, ..Default::default() }];
    })
    .expect("accepted");
    let text = serde_json::to_string(&plan).expect("JSON");
    assert_eq!(serde_json::from_str::<SandboxPlan>(&text).expect("a plan"), plan);
}
