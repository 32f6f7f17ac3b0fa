//! Links, addresses and routes on the real kernel, in namespaces of the test's own. Needs root.

use std::os::fd::AsFd;
use std::process::Command;

use berth_net::{Address, Link, Mac, NewRoute, NewVeth, Route};
use berth_sys::netns::NetNs;

fn in_fresh<T: Send>(test: impl FnOnce() -> T + Send) -> T {
    NetNs::fresh().expect("root").run(test).expect("a thread in the namespace")
}

#[test]
fn a_pair_is_made_across_namespaces_in_one_message() {
    in_fresh(|| {
        let mut host = Route::open().expect("socket");
        let pod = NetNs::fresh().expect("namespace");
        host.change(&[Link::create_bridge("br0", Mac::random(), Some(1400))]).expect("bridge");
        let bridge = host.link("br0").expect("get").expect("there");
        assert_eq!((bridge.kind.as_deref(), bridge.mtu, bridge.up), (Some("bridge"), 1400, false));
        let (mac, peer_mac) = (Mac::random(), Mac::random());
        let veth = NewVeth {
            name: "veth0",
            mac,
            master: Some(bridge.index),
            peer_name: "eth0",
            peer_mac,
            peer_namespace: pod.as_fd(),
            mtu: Some(1400),
        };
        let changes = [Link::create_veth(&veth), Link::set_alias("veth0", "whose"), Link::set_hairpin("veth0", true)];
        host.change(&changes).expect("veth");
        let here = host.link("veth0").expect("get").expect("there");
        assert_eq!((here.mac, here.master, here.up), (Some(mac), Some(bridge.index), true));
        assert_eq!((here.alias.as_deref(), here.kind.as_deref()), (Some("whose"), Some("veth")));
        assert_eq!(host.links(Some(bridge.index)).expect("list"), [here]);
        let shown = Command::new("bridge").args(["-d", "link", "show", "dev", "veth0"]).output().expect("bridge(8)");
        assert!(String::from_utf8_lossy(&shown.stdout).contains("hairpin on"), "{shown:?}");
        assert!(host.link("eth0").expect("get").is_none(), "the peer never was in this namespace");

        let mut inside = pod.run(Route::open).expect("enter").expect("socket");
        let eth0 = inside.link("eth0").expect("get").expect("there");
        assert_eq!((eth0.mac, eth0.mtu, eth0.up), (Some(peer_mac), 1400, false));
        let address = "10.7.0.2/24".parse().expect("address");
        let default = NewRoute {
            mtu: Some(1300),
            priority: Some(7),
            ..NewRoute::new("0.0.0.0/0".parse().expect("net"), "10.7.0.1".parse().ok(), eth0.index)
        };
        let address6 = "fd00::2/64".parse().expect("address");
        let changes = [
            Link::set_up(eth0.index, true),
            Address::add(eth0.index, address),
            Address::add(eth0.index, address6),
            default.add(),
        ];
        inside.change(&changes).expect("configure");
        let addresses = inside.addresses(eth0.index).expect("list");
        assert!(addresses.contains(&address) && addresses.contains(&address6), "{addresses:?}");
        let routes = inside.routes(eth0.index).expect("list");
        assert!(routes.contains(&("0.0.0.0/0".parse().expect("net"), "10.7.0.1".parse().ok())), "{routes:?}");
        assert!(routes.contains(&("10.7.0.0/24".parse().expect("net"), None)), "{routes:?}");

        host.change(&[Link::delete("veth0")]).expect("delete");
        assert!(inside.link("eth0").expect("get").is_none(), "the peer went with it");
        let error = host.change(&[Link::delete("veth0")]).expect_err("twice");
        assert!(error.is_not_found(), "{error}");
    });
}

#[test]
fn errors_say_what_was_asked_and_what_the_kernel_says() {
    in_fresh(|| {
        let mut host = Route::open().expect("socket");
        host.change(&[Link::create_bridge("br0", Mac::random(), None)]).expect("bridge");
        let error = host.change(&[Link::create_bridge("br0", Mac::random(), None)]).expect_err("twice");
        assert!(error.is_existing(), "{error}");
        let index = host.link("br0").expect("get").expect("there").index;
        let route = NewRoute::new("10.9.0.0/16".parse().expect("net"), "10.8.0.1".parse().ok(), index);
        let error = host.change(&[Link::set_up(index, true), route.add()]).expect_err("no way to the gateway");
        assert!(error.to_string().starts_with("route add 10.9.0.0/16 via 10.8.0.1 dev"), "{error}");
        assert!(error.to_string().contains("Nexthop has invalid gateway"), "{error}");
        assert!(host.link("br0").expect("get").expect("there").up, "the change before it was carried out");
    });
}
