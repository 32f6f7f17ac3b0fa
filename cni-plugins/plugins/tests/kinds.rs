//! Links of kinds that other plugins and administrators make. Needs root.
//!
//! Which of them there can be is the kernel's affair: one that lacks a kind says so, and the tests take the others. The
//! guest of `cargo xtask vm suites` has them all.

mod stage;

use std::process::Command;

use berth_cni::{Attachment, ValidAttachment};
use berth_cni_plugins::withdraw;
use berth_net::{Link, Route, sysctl};
use serde_json::json;
use stage::{Pod, on_host, picture};

/// Kinds, and what `ip link add` is told of them besides the name.
const KINDS: [(&str, &str); 6] = [
    ("dummy", "type dummy"),
    ("vrf", "type vrf table 70"),
    ("vlan", "link base type vlan id 7"),
    ("macvlan", "link base type macvlan mode bridge"),
    ("ipvlan", "link base-peer type ipvlan mode l2"),
    ("bridge", "type bridge"),
];

fn ip(line: &str) -> Result<(), String> {
    let output = Command::new("ip").args(line.split(' ')).output().expect("ip(8)");
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

/// Makes a link of every kind, named after it; those that the kernel knows.
fn make_all(prefix: &str) -> Vec<&'static str> {
    ip("link add base type veth peer name base-peer").expect("a pair");
    let made = |(kind, arguments): &(&'static str, &str)| {
        let (before, after) = arguments.split_at(arguments.find("type ").expect("a type"));
        match ip(&format!("link add {before}name {prefix}-{kind} {after}")) {
            Ok(()) => Some(*kind),
            Err(text) if text.contains("Unknown device type") => {
                println!("this kernel has no {kind}");
                None
            }
            Err(text) => panic!("{kind}: {text}"),
        }
    };
    KINDS.iter().filter_map(made).collect()
}

#[test]
fn links_are_told_apart_and_deleted() {
    on_host(|_| {
        let kinds = make_all("of");
        let mut route = Route::open().expect("socket");
        let all = route.links(None).expect("listed");
        assert_eq!(all.len(), kinds.len() + 3, "besides lo and the pair: {all:?}");
        for kind in &kinds {
            let name = format!("of-{kind}");
            let link = route.link(&name).expect("get").expect("there");
            assert_eq!((link.kind.as_deref(), link.name.as_str(), link.up), (Some(*kind), name.as_str(), false));
            assert!(all.contains(&link), "{link:?} in {all:?}");
        }
        // A port's master is of either kind; each has its own ports.
        for kind in ["vrf", "bridge"].iter().filter(|kind| kinds.contains(kind)) {
            ip(&format!("link add p-{kind} type veth peer name q-{kind}")).expect("a pair");
            ip(&format!("link set p-{kind} master of-{kind}")).expect("a master");
            let master = route.link(&format!("of-{kind}")).expect("get").expect("there").index;
            let ports = route.links(Some(master)).expect("listed");
            let names: Vec<_> = ports.iter().map(|port| (port.name.as_str(), port.kind.as_deref())).collect();
            assert_eq!(names, [(format!("p-{kind}").as_str(), Some("veth"))]);
        }
        // Those on top of another link go with it.
        let on_base = |kind: &str| KINDS.iter().any(|(of, line)| *of == kind && line.contains("link base"));
        let first = kinds.iter().find(|kind| on_base(kind));
        for kind in kinds.iter().filter(|kind| !on_base(kind)).chain(first) {
            route.change(&[Link::delete(&format!("of-{kind}"))]).expect("deleted");
        }
        route.change(&[Link::delete("base")]).expect("deleted");
        let left = route.links(None).expect("listed");
        let left: Vec<_> = left.iter().map(|link| link.name.as_str()).filter(|name| name.starts_with("of-")).collect();
        assert_eq!(left, Vec::<&str>::new());
    });
}

#[test]
fn no_plugin_takes_another_kind_for_its_own() {
    on_host(|stage| {
        let kinds = make_all("of");
        // Inside the pod, too, where other plugins have made more interfaces.
        let pod = Pod::new("a");
        pod.run(|| make_all("in"));
        // ptp makes the host forward and leaves it so.
        for setting in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
            sysctl::write(setting, "1").expect("setting");
        }
        let runtime = stage.runtime();
        for kind in kinds.iter().filter(|kind| **kind != "bridge") {
            let network = stage.network_with(&json!({"bridge": format!("of-{kind}")}));
            let refused = runtime.add(&network, &pod.attachment).expect_err("no bridge");
            assert!(refused.to_string().contains("already exists but is not a bridge"), "{kind}: {refused}");
            assert_eq!(stage.reserved(), Vec::<String>::new(), "{kind}");
            assert!(!withdraw(&network).expect("asked"), "{kind} is not ours to delete");
        }
        let (before, before_inside) = (picture(), pod.run(picture));
        let ptp = stage.network_with(&json!({"type": "ptp", "bridge": null, "isDefaultGateway": null}));
        for network in [stage.network(), ptp] {
            runtime.add(&network, &pod.attachment).expect("added");
            runtime.check(&network, &pod.attachment).expect("as it should be");
            // A garbage collection that knows this attachment leaves all of it, and one that does not takes that alone.
            let known = ValidAttachment { container_id: "a".to_owned(), ifname: "eth0".to_owned() };
            runtime.gc(&network, &[known]).expect("collected");
            runtime.check(&network, &pod.attachment).expect("as it was");
            runtime.del(&network, &pod.attachment).expect("deleted");
            runtime.gc(&network, &[]).expect("collected");
            withdraw(&network).expect("withdrawn");
        }
        assert_eq!((picture(), pod.run(picture)), (before, before_inside));
        // The interface that is asked for is there already.
        for kind in kinds {
            let attachment = Attachment { ifname: format!("in-{kind}"), ..pod.attachment.clone() };
            let refused = runtime.add(&stage.network(), &attachment).expect_err("taken");
            assert!(refused.to_string().contains("already exists"), "{kind}: {refused}");
            let there = pod.run(|| Route::open().expect("socket").link(&attachment.ifname).expect("get"));
            assert!(there.is_some_and(|link| link.kind.as_deref() == Some(kind)), "{kind} was not ours to delete");
        }
    });
}
