//! `ptp` on the real kernel, under kindnet's own configuration and others. Needs root.

mod stage;

use std::fs;
use std::process::Command;

use berth_cni::{Attachment, NetworkList, ValidAttachment, code};
use berth_net::{Address, Link, Mac, NewRoute, NewVeth, Route, sysctl};
use berth_sys::netns::NetNs;
use serde_json::{Value, json};
use stage::{Pod, Stage, ask, on_host, outside, picture, rules, serve};

/// What kindnetd writes to /etc/cni/net.d/10-kindnet.conflist, but for the folder.
fn kindnet(stage: &Stage, subnets: &[&str]) -> NetworkList {
    let ranges: Vec<_> = subnets.iter().map(|subnet| format!(r#"[{{ "subnet": "{subnet}" }}]"#)).collect();
    let all = |subnet: &&str| if subnet.contains(':') { r#"{ "dst": "::/0" }"# } else { r#"{ "dst": "0.0.0.0/0" }"# };
    let routes: Vec<_> = subnets.iter().map(all).collect();
    let text = format!(
        r#"{{
  "cniVersion": "0.3.1",
  "name": "kindnet",
  "plugins": [
    {{
      "type": "ptp",
      "ipMasq": false,
      "ipam": {{
        "type": "host-local",
        "dataDir": "{}",
        "routes": [ {} ],
        "ranges": [ {} ]
      }},
      "mtu": 1450
    }},
    {{ "type": "portmap", "capabilities": {{ "portMappings": true }} }}
  ]
}}"#,
        stage.data_dir().display(),
        routes.join(", "),
        ranges.join(", "),
    );
    NetworkList::parse(text.as_bytes()).expect("valid")
}

/// With one option of `ptp` changed, in CNI 1.1.
fn changed(stage: &Stage, option: &str, value: Value) -> NetworkList {
    let list = kindnet(stage, &["10.244.1.0/24"]);
    let mut text: Value = serde_json::from_slice(&list.bytes).expect("JSON");
    text["cniVersion"] = "1.1.0".into();
    text["plugins"][0][option] = value;
    NetworkList::parse(text.to_string().as_bytes()).expect("valid")
}

fn forwarding() {
    for setting in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
        sysctl::write(setting, "1").expect("setting");
    }
}

fn ip(arguments: &[&str]) -> Vec<String> {
    let output = Command::new("ip").args(arguments).output().expect("ip(8)");
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).expect("text");
    let mut lines: Vec<_> = text.lines().map(|line| line.trim().to_owned()).collect();
    lines.sort();
    lines
}

#[test]
fn a_kindnet_pod_looks_as_the_reference_plugin_makes_it() {
    on_host(|stage| {
        let pod = Pod::new("a");
        let result = stage.runtime().add(&kindnet(stage, &["10.244.1.0/24"]), &pod.attachment).expect("add");
        let host = result.interfaces[0].name.clone();
        assert_eq!((result.interfaces.len(), result.interfaces[1].name.as_str()), (2, "eth0"));
        assert_eq!(result.interfaces[0].sandbox, "");
        assert_eq!(result.interfaces[1].sandbox, pod.attachment.netns.as_ref().expect("path").display().to_string());
        assert_eq!((result.ips[0].interface, result.ips[0].address.to_string()), (Some(1), "10.244.1.2/24".to_owned()));
        assert_eq!(ip(&["route"]), [format!("10.244.1.2 dev {host} scope host")]);
        let routes = [
            "10.244.1.0/24 via 10.244.1.1 dev eth0 src 10.244.1.2",
            "10.244.1.1 dev eth0 scope link src 10.244.1.2",
            "default via 10.244.1.1 dev eth0",
        ];
        assert_eq!(pod.run(|| ip(&["route"])), routes);
        let addresses = ip(&["-o", "-4", "addr", "show", "dev", &host]);
        assert!(addresses[0].contains("inet 10.244.1.1/32 scope global"), "{addresses:?}");
        let link = Route::open().expect("socket").link(&host).expect("get").expect("there");
        assert_eq!((link.mtu, link.carries, link.master), (1450, true, None));
        assert_eq!(sysctl::read("net/ipv4/ip_forward").expect("read"), "1");
        assert_eq!(sysctl::read(&sysctl::of_link("ipv6", &host, "accept_ra")).expect("read"), "0");
    });
}

#[test]
fn pods_of_a_dual_stack_kindnet_reach_each_other_and_the_host_and_nothing_stays() {
    on_host(|stage| {
        forwarding();
        let before = picture();
        let (runtime, network) = (stage.runtime(), kindnet(stage, &["10.244.1.0/24", "fd00:10:244:1::/64"]));
        let (a, b) = (Pod::new("a"), Pod::new("b"));
        for pod in [&a, &b] {
            runtime.add(&network, &pod.attachment).expect("add");
        }
        let routes = b.run(|| ip(&["-6", "route", "show", "proto", "boot"]));
        let expected = [
            "default via fd00:10:244:1::1 dev eth0 metric 1024 pref medium",
            "fd00:10:244:1::/64 via fd00:10:244:1::1 dev eth0 src fd00:10:244:1::3 metric 1024 pref medium",
            "fd00:10:244:1::1 dev eth0 src fd00:10:244:1::3 metric 1024 pref medium",
        ];
        assert_eq!(routes, expected);
        b.run(|| serve("[::]:80", "b"));
        serve("[::]:81", "host");
        for (from, to, seen) in [
            (Some(&a), "10.244.1.3:80", "b ::ffff:10.244.1.2"),
            (Some(&a), "[fd00:10:244:1::3]:80", "b fd00:10:244:1::2"),
            (None, "10.244.1.3:80", "b ::ffff:10.244.1.1"),
            (None, "[fd00:10:244:1::3]:80", "b fd00:10:244:1::1"),
            (Some(&a), "10.244.1.1:81", "host ::ffff:10.244.1.2"),
            (Some(&b), "[fd00:10:244:1::1]:81", "host fd00:10:244:1::3"),
        ] {
            let answer = match from {
                Some(pod) => pod.run(|| ask(to)),
                None => ask(to),
            };
            assert_eq!(answer.unwrap_or_else(|error| panic!("{to}: {error}")), seen);
        }
        for pod in [&a, &b, &a] {
            runtime.del(&network, &pod.attachment).expect("del");
        }
        assert!(a.run(|| Route::open().expect("socket").link("eth0").expect("get")).is_none());
        assert_eq!(picture(), before);
    });
}

#[test]
fn masquerading_is_as_asked() {
    on_host(|stage| {
        let beyond = outside();
        beyond.run(|| serve("0.0.0.0:80", "outside")).expect("enter");
        let runtime = stage.runtime();
        let network = changed(stage, "ipMasq", json!(true));
        let pod = Pod::new("a");
        runtime.add(&network, &pod.attachment).expect("add");
        assert_eq!(pod.run(|| ask("192.0.2.2:80")).expect("pod to outside"), "outside 192.0.2.1");
        runtime.check(&network, &pod.attachment).expect("check");
        runtime.status(&network).expect("status");
        runtime.del(&network, &pod.attachment).expect("del");
        assert_eq!(rules(), "");

        let network = changed(stage, "ipMasq", json!(false));
        runtime.add(&network, &pod.attachment).expect("add");
        assert_eq!(rules(), "");
        let seen = beyond.run(|| {
            let mut route = Route::open().expect("socket");
            let index = route.link("eth0").expect("get").expect("there").index;
            let pods = "10.244.1.0/24".parse().expect("net");
            route.change(&[NewRoute::new(pods, "192.0.2.1".parse().ok(), index).add()]).expect("route");
        });
        seen.expect("enter");
        assert_eq!(pod.run(|| ask("192.0.2.2:80")).expect("by its own address"), "outside 10.244.1.3");
    });
}

#[test]
fn host_ports_lead_to_the_pod_from_everywhere_and_their_links_are_forgotten() {
    on_host(|stage| {
        forwarding();
        let beyond = outside();
        let before = picture();
        let (runtime, network) = (stage.runtime(), kindnet(stage, &["10.244.1.0/24", "fd00:10:244:1::/64"]));
        let port = |port: u16| json!([{"hostPort": port, "containerPort": 80, "protocol": "tcp"}]);
        let (a, b, c) =
            (Pod::with_ports("a", &port(8080)), Pod::with_ports("b", &port(8081)), Pod::with_ports("c", &port(8082)));
        let links: Vec<_> = [&a, &b]
            .map(|pod| runtime.add(&network, &pod.attachment).expect("add").interfaces[0].name.clone())
            .to_vec();
        a.run(|| serve("[::]:80", "a"));
        assert!(ask("127.0.0.1:8080").expect("localhost").starts_with("a "));
        assert!(ask("192.0.2.1:8080").expect("own address").starts_with("a "));
        assert!(ask("[fd00:10:244:1::1]:8080").expect("own IPv6 address").starts_with("a "));
        let seen = beyond.run(|| ask("192.0.2.1:8080")).expect("enter").expect("from outside");
        assert_eq!(seen, "a ::ffff:192.0.2.2", "the client's address is kept");
        for _ in 0..3 {
            assert!(b.run(|| ask("192.0.2.1:8080")).expect("from another pod").starts_with("a "));
            assert!(a.run(|| ask("192.0.2.1:8080")).expect("from the pod itself").starts_with("a "));
        }
        let of = |link: &str| sysctl::read(&sysctl::of_link("ipv4", link, "route_localnet"));
        assert_eq!((of(&links[0]).expect("read"), of(&links[1]).expect("read")), ("1".to_owned(), "1".to_owned()));

        // One goes in order, and the other by a plugin that knows nothing of host ports.
        runtime.del(&network, &a.attachment).expect("del a");
        let left = rules();
        assert!(!left.contains(&links[0]) && left.contains(&links[1]), "{left}");
        Route::open().expect("socket").change(&[Link::delete(&links[1])]).expect("delete");
        let last = runtime.add(&network, &c.attachment).expect("add c").interfaces[0].name.clone();
        runtime.del(&network, &b.attachment).expect("del b");
        let left = rules();
        assert!(!left.contains(&links[1]) && left.contains(&last), "{left}");
        runtime.del(&network, &c.attachment).expect("del c");
        assert_eq!(picture(), before);
    });
}

#[test]
fn check_finds_what_changed_since() {
    on_host(|stage| {
        let (runtime, network) = (stage.runtime(), changed(stage, "mtu", json!(0)));
        type Damage = fn(&Pod, &str);
        let damages: [(Damage, &str); 5] = [
            (
                |pod, _| {
                    pod.run(|| ip(&["route", "del", "default"]));
                },
                "lacks the route to 0.0.0.0/0",
            ),
            (
                |pod, _| {
                    pod.run(|| ip(&["addr", "add", "10.9.9.9/32", "dev", "eth0"]));
                    pod.run(|| ip(&["addr", "flush", "dev", "eth0", "to", "10.244.1.0/24"]));
                },
                "lacks the address 10.244.1.",
            ),
            (
                |pod, _| {
                    pod.run(|| ip(&["link", "set", "eth0", "address", "02:00:00:00:00:01"]));
                },
                "has the hardware address 02:00:00:00:00:01",
            ),
            (
                |_, host| {
                    ip(&["route", "flush", "dev", host]);
                },
                "lacks the route to 10.244.1.",
            ),
            (
                |_, host| {
                    ip(&["link", "set", host, "down"]);
                },
                "is missing or down",
            ),
        ];
        for (index, (damage, expected)) in damages.into_iter().enumerate() {
            let pod = Pod::new(&format!("p{index}"));
            let result = runtime.add(&network, &pod.attachment).expect("add");
            runtime.check(&network, &pod.attachment).expect("untouched");
            damage(&pod, &result.interfaces[0].name);
            let error = runtime.check(&network, &pod.attachment).expect_err(expected);
            assert!(error.to_string().contains(expected), "{error}");
            runtime.del(&network, &pod.attachment).expect("del");
        }
    });
}

#[test]
fn gc_removes_pairs_rules_and_addresses_of_dead_attachments() {
    on_host(|stage| {
        let (runtime, network) = (stage.runtime(), changed(stage, "ipMasq", json!(true)));
        let pods = ["dead", "alive"].map(|id| Pod::with_ports(id, &json!([])));
        let links =
            pods.each_ref().map(|pod| runtime.add(&network, &pod.attachment).expect("add").interfaces[0].name.clone());
        fs::remove_dir_all(stage.dir.path().join("cni")).expect("lose the results");
        let valid = ValidAttachment { container_id: "alive".to_owned(), ifname: "eth0".to_owned() };
        runtime.gc(&network, &[valid]).expect("gc");
        let there = |name: &String| Route::open().expect("socket").link(name).expect("get").is_some();
        assert_eq!(links.each_ref().map(there), [false, true]);
        assert_eq!(
            fs::read_dir(stage.data_dir().join("kindnet")).expect("folder").count(),
            3,
            "one address, hint, lock"
        );
        assert!(rules().contains("kindnet alive eth0") && !rules().contains("kindnet dead eth0"));
    });
}

#[test]
fn a_route_that_leads_elsewhere_is_replaced() {
    on_host(|stage| {
        let (runtime, network) = (stage.runtime(), kindnet(stage, &["10.244.1.0/24", "fd00:10:244:1::/64"]));
        let elsewhere = NetNs::fresh().expect("namespace");
        let mut route = Route::open().expect("socket");
        let pair = NewVeth {
            name: "stale",
            mac: Mac::random(),
            master: None,
            peer_name: "eth0",
            peer_mac: Mac::random(),
            peer_namespace: std::os::fd::AsFd::as_fd(&elsewhere),
            mtu: None,
        };
        route.change(&[Link::create_veth(&pair)]).expect("veth");
        let stale = route.link("stale").expect("get").expect("there").index;
        let left_behind = [
            Address::add(stale, "10.244.1.1/32".parse().expect("net")),
            NewRoute { scope: Some(254), ..NewRoute::new("10.244.1.2/32".parse().expect("net"), None, stale) }.add(),
        ];
        route.change(&left_behind).expect("what a lost attachment looks like");
        let pod = Pod::new("a");
        runtime.add(&network, &pod.attachment).expect("add");
        pod.run(|| serve("[::]:80", "a"));
        assert_eq!(ask("10.244.1.2:80").expect("the new one"), "a ::ffff:10.244.1.1");
    });
}

#[test]
fn an_add_that_fails_leaves_nothing() {
    on_host(|stage| {
        forwarding();
        let before = picture();
        let runtime = stage.runtime();
        let pod = Pod::new("a");
        let ipam = |change: Value| {
            let mut ipam = json!({"type": "host-local", "dataDir": stage.data_dir(), "subnet": "10.244.1.0/24"});
            for (key, value) in change.as_object().expect("an object") {
                ipam[key] = value.clone();
            }
            changed(stage, "ipam", ipam)
        };
        let unreachable = ipam(json!({"routes": [{"dst": "10.1.0.0/16", "gw": "172.16.0.1"}]}));
        let no_ipam = changed(stage, "ipam", json!({}));
        let iptables = changed(stage, "ipMasqBackend", json!("iptables"));
        for (network, expected, refused_with) in [
            (&unreachable, "route add 10.1.0.0/16 via 172.16.0.1", code::IO),
            (&no_ipam, "\"ipam.type\" is missing", code::INVALID_CONFIG),
            (&iptables, "\"ipMasqBackend\"", code::UNSUPPORTED_FIELD),
        ] {
            let error = runtime.add(network, &pod.attachment).expect_err(expected);
            assert!(error.to_string().contains(expected) && error.code() == refused_with, "{error}");
            assert_eq!(picture(), before);
            let reserved = fs::read_dir(stage.data_dir().join("kindnet")).into_iter().flatten().flatten();
            let reserved: Vec<_> = reserved.map(|entry| entry.file_name()).filter(|name| name != "lock").collect();
            assert!(reserved.iter().all(|name| name.to_string_lossy().starts_with("last_")), "{reserved:?}");
        }
        let nowhere = Attachment { netns: Some("/nonexistent/netns".into()), ..pod.attachment.clone() };
        let error = runtime.add(&kindnet(stage, &["10.244.1.0/24"]), &nowhere).expect_err("no namespace");
        assert_eq!(error.code(), code::INVALID_NETNS);
        assert_eq!(picture(), before);
    });
}
