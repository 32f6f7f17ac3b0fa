use super::*;

fn process(name: &str, program: &str) -> Process {
    Process { pid: 7, name: name.into(), program: program.into() }
}

fn plenty() -> Room {
    Room { free: 50 << 30, all: 100 << 30 }
}

fn good() -> Node {
    let disk = |folder: &str| Disk { folder: folder.into(), bytes: plenty(), inodes: Room { free: 1000, all: 1001 } };
    Node {
        name: "worker-1.example.com".into(),
        listeners: Vec::new(),
        others: Vec::new(),
        swap: Vec::new(),
        forwards: true,
        bridge_netfilter: Some(true),
        name_servers: vec!["192.0.2.53".into()],
        address: "192.0.2.1".parse().ok(),
        disks: FOLDERS.map(disk).to_vec(),
    }
}

/// The findings that are not good: what, verdict, detail.
fn found_wrong(damage: impl Fn(&mut Node)) -> Vec<(&'static str, Verdict, String)> {
    let mut node = good();
    damage(&mut node);
    let wrong = judge(&node).into_iter().filter(|finding| finding.verdict != Verdict::Good);
    wrong
        .map(|finding| {
            assert!(!finding.cost.is_empty() && !finding.remedy.is_empty(), "{finding:?}");
            (finding.what, finding.verdict, finding.detail)
        })
        .collect()
}

#[test]
fn a_machine_that_is_ready_has_no_remedies() {
    assert_eq!(found_wrong(|_| ()), []);
}

#[test]
fn each_obstacle_is_named_once() {
    type Damage = fn(&mut Node);
    let cases: [(Damage, &str, Verdict); 11] = [
        (|n| n.name = "under_score".into(), "node name", Verdict::Missing),
        (|n| n.name = "localhost".into(), "node name", Verdict::Less),
        (|n| n.address = None, "node address", Verdict::Less),
        (|n| n.others.push(process("kubelet", "kubelet")), "other kubelets", Verdict::Missing),
        (|n| n.others.push(process("containerd", "containerd")), "other runtimes", Verdict::Less),
        (|n| n.swap.push("/dev/sda2".into()), "swap", Verdict::Less),
        (|n| n.forwards = false, "forwarding", Verdict::Less),
        (|n| n.bridge_netfilter = None, "bridge netfilter", Verdict::Less),
        (|n| n.bridge_netfilter = Some(false), "bridge netfilter", Verdict::Less),
        (|n| n.name_servers.clear(), "name servers", Verdict::Less),
        (|n| n.name_servers = vec!["127.0.0.53".into()], "name servers", Verdict::Less),
    ];
    for (damage, what, verdict) in cases {
        let wrong = found_wrong(damage);
        let wrong: Vec<_> = wrong.iter().map(|(what, verdict, _)| (*what, *verdict)).collect();
        assert_eq!(wrong, [(what, verdict)]);
    }
}

#[test]
fn a_port_is_free_or_its_holder_is_named() {
    let held = |port, holder: Option<Process>| {
        found_wrong(move |node| node.listeners = vec![Listener { port, holder: holder.clone() }])
    };
    let missing = held(10250, Some(process("kubelet", "kubelet")));
    assert_eq!(missing, [("port 10250", Verdict::Missing, "held by kubelet (pid 7)".to_owned())]);
    assert_eq!(held(10248, None), [("port 10248", Verdict::Less, "held by somebody".to_owned())]);
    assert_eq!(held(10250, Some(process("kubelet", "berth"))), [], "Berth in the kubelet's place");
    assert_eq!(held(10250, Some(process("berth", ""))), []);
    assert_eq!(held(443, Some(process("nginx", "nginx"))), []);
}

#[test]
fn node_names_are_dns_subdomains() {
    for name in ["a", "worker-1", "0.example.com", &"a".repeat(63)] {
        assert_eq!(fault_of_name(name), None, "{name}");
    }
    for (name, part) in [
        ("", "1 to 253"),
        ("Upper", "'U'"),
        ("under_score", "'_'"),
        ("-a", "begin and end"),
        ("a..b", "begin and end"),
        ("a-.b", "begin and end"),
        (&"a".repeat(64), "more than 63"),
        (&"a.".repeat(127), "1 to 253"),
    ] {
        let fault = fault_of_name(name).expect(name);
        assert!(fault.contains(part), "{name}: {fault}");
    }
}

#[test]
fn room_is_judged_by_bytes_and_by_inodes() {
    let verdict = |bytes: Room, inodes: Room| {
        found_wrong(move |node| {
            node.disks.truncate(1);
            (node.disks[0].bytes, node.disks[0].inodes) = (bytes, inodes);
        })
        .first()
        .map(|(_, verdict, _)| *verdict)
    };
    let some = Room { free: 50, all: 100 };
    assert_eq!(verdict(plenty(), some), None);
    assert_eq!(verdict(plenty(), Room::default()), None, "btrfs has no number of inodes");
    assert_eq!(verdict(Room { free: 14 << 30, all: 100 << 30 }, some), Some(Verdict::Less));
    assert_eq!(verdict(plenty(), Room { free: 4, all: 100 }), Some(Verdict::Less));
    assert_eq!(verdict(Room { free: 100 << 20, all: 200 << 20 }, some), Some(Verdict::Missing));
    assert_eq!(verdict(plenty(), Room { free: 0, all: 100 }), Some(Verdict::Missing));
}

#[test]
fn this_machine_is_read() {
    let node = Node::read(Some("n1"));
    assert_eq!(node.name, "n1");
    assert_eq!(node.disks.len(), 2);
    assert!(node.disks.iter().all(|disk| disk.bytes.all > 0));
}
