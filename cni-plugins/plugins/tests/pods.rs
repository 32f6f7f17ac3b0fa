//! The plugins on the real kernel: what pods can reach, what they look like, and that nothing stays. Needs root.

mod stage;

use std::fs;
use std::net::UdpSocket;
use std::process::Command;
use std::time::Duration;

use berth_cni::{Attachment, NetworkList, RuntimeError, ValidAttachment, code};
use berth_cni_plugins::withdraw;
use berth_net::{Link, Route, sysctl};
use serde_json::json;
use stage::{Pod, ask, on_host, outside, picture, rules, serve};

fn valid(id: &str) -> ValidAttachment {
    ValidAttachment { container_id: id.to_owned(), ifname: "eth0".to_owned() }
}

fn ip_of(result: &berth_cni::CniResult) -> String {
    result.pod_ips().next().expect("an address").address.addr().to_string()
}

#[test]
fn pods_reach_each_other_the_host_and_the_outside() {
    on_host(|stage| {
        let beyond = outside();
        let before = picture();
        let (runtime, network) = (stage.runtime(), stage.network());
        let (a, b) = (Pod::new("a"), Pod::new("b"));
        let result_a = runtime.add(&network, &a.attachment).expect("add a");
        let result_b = runtime.add(&network, &b.attachment).expect("add b");
        assert_eq!((ip_of(&result_a), ip_of(&result_b)), ("10.88.0.2".to_owned(), "10.88.0.3".to_owned()));
        b.run(|| serve("0.0.0.0:80", "b"));
        let outer = beyond.run(|| serve("0.0.0.0:80", "outside")).expect("enter");
        assert_eq!(outer.port(), 80);
        serve("0.0.0.0:81", "host");
        assert_eq!(a.run(|| ask("10.88.0.3:80")).expect("pod to pod"), "b 10.88.0.2");
        assert_eq!(ask("10.88.0.3:80").expect("host to pod"), "b 10.88.0.1");
        assert_eq!(a.run(|| ask("10.88.0.1:81")).expect("pod to host"), "host 10.88.0.2");
        assert_eq!(a.run(|| ask("192.0.2.2:80")).expect("pod to outside"), "outside 192.0.2.1");
        runtime.check(&network, &a.attachment).expect("check");
        runtime.status(&network).expect("status");
        for pod in [&a, &b] {
            runtime.del(&network, &pod.attachment).expect("del");
        }
        assert_eq!((rules(), stage.reserved()), (String::new(), vec![]));
        assert!(a.run(|| Route::open().expect("socket").link("eth0").expect("get")).is_none());
        assert!(withdraw(&network).expect("withdraw"));
        assert_eq!(picture(), before);
        assert!(!stage.data_dir().exists());
    });
}

#[test]
fn nft_lists_the_rules_as_they_are_documented() {
    let shown = on_host(|stage| {
        let ports = json!([
            {"hostPort": 8080, "containerPort": 80},
            {"hostPort": 53, "containerPort": 5353, "protocol": "udp", "hostIP": "192.0.2.1"},
        ]);
        let pod = Pod::with_ports("c1", &ports);
        stage.runtime().add(&stage.network(), &pod.attachment).expect("add");
        rules()
    });
    let expected = "table inet berth_masquerade {
map pods4 {
type ipv4_addr : verdict
elements = { 10.88.0.2 comment \"pods c1 eth0\" : jump net-10.88.0.0/24 }
}

map pods6 {
type ipv6_addr : verdict
}

chain postrouting {
type nat hook postrouting priority srcnat; policy accept;
ip saddr vmap @pods4
ip6 saddr vmap @pods6
}

chain net-10.88.0.0/24 {
ip daddr 10.88.0.0/24 return
ip daddr 224.0.0.0/4 return
masquerade
}
}
table ip berth_hostport {
map ports {
type inet_proto . inet_service : ipv4_addr . inet_service
elements = { tcp . 8080 comment \"pods c1 eth0\" : 10.88.0.2 . 80 }
}

map address_ports {
type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service
elements = { 192.0.2.1 . udp . 53 comment \"pods c1 eth0\" : 10.88.0.2 . 5353 }
}

map pods {
type ipv4_addr : verdict
elements = { 10.88.0.2 comment \"pods c1 eth0\" : jump net-10.88.0.0/24 }
}

set localnet {
type ifname
elements = { \"br-pods\" }
}

chain prerouting {
type nat hook prerouting priority dstnat; policy accept;
fib daddr type local jump to_pods
}

chain output {
type nat hook output priority -100; policy accept;
fib daddr type local jump to_pods
}

chain postrouting {
type nat hook postrouting priority srcnat; policy accept;
meta mark & 0x00002000 == 0x00000000 return
ip saddr 127.0.0.0/8 masquerade
ip daddr vmap @pods
}

chain input {
type filter hook input priority filter; policy accept;
iifname @localnet ip daddr 127.0.0.0/8 ct state ! established,related drop
}

chain to_pods {
meta mark set meta mark | 0x00002000 dnat ip to ip daddr . meta l4proto . th dport map @address_ports
meta mark set meta mark | 0x00002000 dnat ip to meta l4proto . th dport map @ports
}

chain net-10.88.0.0/24 {
ip saddr 10.88.0.0/24 masquerade
}
}
";
    assert_eq!(shown, expected, "{shown}");
}

#[test]
fn a_result_tells_the_bridge_the_pair_and_the_routes() {
    on_host(|stage| {
        let pod = Pod::new("a");
        let network = stage.network_with(&json!({"mtu": 1400, "dns": {"nameservers": ["10.96.0.10"]}}));
        let result = stage.runtime().add(&network, &pod.attachment).expect("add");
        let names: Vec<_> = result.interfaces.iter().map(|interface| interface.name.as_str()).collect();
        assert_eq!((names[0], &names[1][..4], names[2]), ("br-pods", "veth", "eth0"));
        assert_eq!(result.interfaces[2].sandbox, pod.attachment.netns.as_ref().expect("path").display().to_string());
        assert_eq!((result.interfaces[2].mtu, result.ips[0].interface), (Some(1400), Some(2)));
        assert_eq!(result.routes[0].dst.to_string(), "0.0.0.0/0");
        assert_eq!(result.dns.nameservers, ["10.96.0.10"]);
        let (link, routes) = pod.run(|| {
            let mut route = Route::open().expect("socket");
            let link = route.link("eth0").expect("get").expect("there");
            let routes = route.routes(link.index).expect("list");
            (link, routes)
        });
        assert_eq!((link.mac.expect("MAC").to_string(), link.mtu), (result.interfaces[2].mac.clone(), 1400));
        assert!(routes.contains(&("0.0.0.0/0".parse().expect("net"), "10.88.0.1".parse().ok())), "{routes:?}");
        let host = Route::open().expect("socket").link(&result.interfaces[1].name).expect("get").expect("there");
        assert_eq!(host.mac.expect("MAC").to_string(), result.interfaces[1].mac);
        assert!(host.carries, "frames pass as soon as ADD returns");
    });
}

#[test]
fn both_families_are_set_up() {
    on_host(|stage| {
        let ranges = json!([[{"subnet": "10.88.0.0/24"}], [{"subnet": "fd88::/64"}]]);
        let ipam = json!({"type": "host-local", "dataDir": stage.data_dir(), "ranges": ranges});
        let network = stage.network_with(&json!({"ipam": ipam}));
        let runtime = stage.runtime();
        let ports = json!([{"hostPort": 8080, "containerPort": 80}]);
        let (a, b) = (Pod::with_ports("a", &ports), Pod::new("b"));
        let result = runtime.add(&network, &a.attachment).expect("add a");
        assert_eq!(result.ips[1].address.to_string(), "fd88::2/64");
        runtime.add(&network, &b.attachment).expect("add b");
        a.run(|| serve("[::]:80", "a"));
        assert_eq!(b.run(|| ask("[fd88::2]:80")).expect("pod to pod"), "a fd88::3");
        assert_eq!(ask("[fd88::2]:80").expect("host to pod"), "a fd88::1");
        assert_eq!(b.run(|| ask("[fd88::1]:8080")).expect("host port"), "a fd88::1");
        assert_eq!(sysctl::read("net/ipv6/conf/all/forwarding").expect("read"), "1");
        runtime.del(&network, &a.attachment).expect("del");
        runtime.del(&network, &b.attachment).expect("del");
        assert_eq!(rules(), "");
        assert!(withdraw(&network).expect("withdraw"));
        assert_eq!(sysctl::read("net/ipv6/conf/all/forwarding").expect("read"), "0");
    });
}

/// With and without netfilter on bridged frames (br_netfilter), which takes another way through the kernel.
#[test]
fn host_ports_are_reached_from_everywhere() {
    host_ports_work("1");
}

#[test]
fn host_ports_are_reached_from_everywhere_without_bridge_netfilter() {
    host_ports_work("0");
}

fn host_ports_work(bridge_netfilter: &str) {
    on_host(|stage| {
        sysctl::write("net/bridge/bridge-nf-call-iptables", bridge_netfilter).expect("setting");
        let beyond = outside();
        // A pod that reaches itself through the host's address needs its bridge port to send frames back.
        let (runtime, network) = (stage.runtime(), stage.network_with(&json!({"hairpinMode": true})));
        let ports = json!([
            {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"},
            {"hostPort": 8081, "containerPort": 80, "protocol": "tcp", "hostIP": "192.0.2.1"},
            {"hostPort": 8082, "containerPort": 80, "protocol": "TCP", "hostIP": "127.0.0.1"},
        ]);
        let (a, b) = (Pod::with_ports("a", &ports), Pod::new("b"));
        runtime.add(&network, &a.attachment).expect("add a");
        runtime.add(&network, &b.attachment).expect("add b");
        runtime.check(&network, &a.attachment).expect("check");
        a.run(|| serve("0.0.0.0:80", "a"));
        assert_eq!(ask("127.0.0.1:8080").expect("localhost"), "a 10.88.0.1");
        assert!(ask("192.0.2.1:8080").expect("own address").starts_with("a "));
        assert!(ask("10.88.0.1:8080").expect("gateway").starts_with("a "));
        let seen = beyond.run(|| ask("192.0.2.1:8080")).expect("enter").expect("from outside");
        assert_eq!(seen, "a 192.0.2.2", "the client's address is kept");
        // More than once: an ICMP redirect after the first would send the others past the host.
        for _ in 0..3 {
            assert_eq!(b.run(|| ask("192.0.2.1:8080")).expect("from another pod"), "a 10.88.0.1");
            assert_eq!(a.run(|| ask("192.0.2.1:8080")).expect("from the pod itself"), "a 10.88.0.1");
        }
        let seen = beyond.run(|| ask("192.0.2.1:8081")).expect("enter").expect("by its address");
        assert_eq!(seen, "a 192.0.2.2");
        assert!(ask("10.88.0.1:8081").is_err(), "not by another address");
        assert_eq!(ask("127.0.0.1:8082").expect("only by localhost"), "a 10.88.0.1");
        assert!(beyond.run(|| ask("192.0.2.1:8082")).expect("enter").is_err());
        runtime.del(&network, &a.attachment).expect("del a");
        assert!(ask("127.0.0.1:8080").is_err());
        runtime.del(&network, &b.attachment).expect("del b");
        assert_eq!(rules(), "");
        let setting = sysctl::of_link("ipv4", "br-pods", "route_localnet");
        assert_eq!(sysctl::read(&setting).expect("read"), "0", "taken back with the last port");
    });
}

#[test]
fn a_udp_client_that_goes_on_sending_reaches_whoever_holds_the_port() {
    on_host(|stage| {
        let beyond = outside();
        let (runtime, network) = (stage.runtime(), stage.network());
        let ports = json!([{"hostPort": 5353, "containerPort": 53, "protocol": "udp"}]);
        let client = beyond.run(|| UdpSocket::bind("192.0.2.2:4000").expect("bind")).expect("enter");
        client.set_read_timeout(Some(Duration::from_secs(5))).expect("timeout");
        client.send_to(b"?", "192.0.2.1:5353").expect("send");
        for id in ["a", "b"] {
            let pod = Pod::with_ports(id, &ports);
            runtime.add(&network, &pod.attachment).expect("add");
            let server = pod.run(|| UdpSocket::bind("0.0.0.0:53").expect("bind"));
            server.set_read_timeout(Some(Duration::from_secs(5))).expect("timeout");
            client.send_to(id.as_bytes(), "192.0.2.1:5353").expect("send");
            let mut buffer = [0; 16];
            let (length, from) = server.recv_from(&mut buffer).expect("the datagram arrives");
            assert_eq!((&buffer[..length], from.to_string()), (id.as_bytes(), "192.0.2.2:4000".to_owned()));
            server.send_to(b"!", from).expect("answer");
            let (_, from) = client.recv_from(&mut buffer).expect("the answer arrives");
            assert_eq!(from.to_string(), "192.0.2.1:5353");
            runtime.del(&network, &pod.attachment).expect("del");
        }
    });
}

#[test]
fn traffic_that_is_not_for_the_host_keeps_its_port() {
    on_host(|stage| {
        let beyond = outside();
        let (runtime, network) = (stage.runtime(), stage.network());
        let ports = json!([{"hostPort": 80, "containerPort": 80}]);
        let (a, b) = (Pod::with_ports("a", &ports), Pod::new("b"));
        runtime.add(&network, &a.attachment).expect("add a");
        runtime.add(&network, &b.attachment).expect("add b");
        a.run(|| serve("0.0.0.0:80", "a"));
        beyond.run(|| serve("0.0.0.0:80", "outside")).expect("enter");
        // GHSA-jv3w-x3r3-g6rm: a host port must not swallow connections to the same port elsewhere.
        assert_eq!(b.run(|| ask("192.0.2.2:80")).expect("through the host"), "outside 192.0.2.1");
        assert_eq!(b.run(|| ask("10.88.0.1:80")).expect("to the host"), "a 10.88.0.1");
    });
}

#[test]
fn pods_do_not_reach_what_listens_on_the_hosts_loopback() {
    on_host(|stage| {
        let (runtime, network) = (stage.runtime(), stage.network());
        let ports = json!([{"hostPort": 8080, "containerPort": 80}]);
        let pod = Pod::with_ports("a", &ports);
        runtime.add(&network, &pod.attachment).expect("add");
        let setting = sysctl::of_link("ipv4", "br-pods", "route_localnet");
        assert_eq!(sysctl::read(&setting).expect("read"), "1");
        serve("127.0.0.1:9000", "secret");
        pod.run(|| {
            // What a pod with CAP_NET_ADMIN can do: it makes 127.0.0.1 an address beyond its gateway.
            sysctl::write("net/ipv4/conf/all/route_localnet", "1").expect("setting");
            let mut route = Route::open().expect("socket");
            let index = route.link("eth0").expect("get").expect("there").index;
            let target = "127.0.0.1/32".parse().expect("net");
            let way = berth_net::NewRoute::new(target, "10.88.0.1".parse().ok(), index);
            route.change(&[way.add()]).expect("route");
        });
        assert!(pod.run(|| ask("127.0.0.1:9000")).is_err());
        let flush = ["flush", "chain", "ip", "berth_hostport", "input"];
        assert!(Command::new("nft").args(flush).status().expect("nft(8)").success());
        assert_eq!(pod.run(|| ask("127.0.0.1:9000")).expect("that was the guard"), "secret 10.88.0.2");
    });
}

#[test]
fn a_port_that_another_pod_holds_is_refused_and_the_add_undone() {
    on_host(|stage| {
        let (runtime, network) = (stage.runtime(), stage.network());
        let port = |address: &str| json!([{"hostPort": 8080, "containerPort": 80, "hostIP": address}]);
        let holder = Pod::with_ports("a", &port(""));
        runtime.add(&network, &holder.attachment).expect("add a");
        holder.run(|| serve("0.0.0.0:80", "a"));
        let before = picture();
        for (id, address) in [("b", ""), ("c", "10.88.0.1")] {
            let late = Pod::with_ports(id, &port(address));
            let error = runtime.add(&network, &late.attachment).expect_err("the port is taken");
            let told = error.to_string();
            assert!(told.contains("host port 8080/tcp is already held by \"pods a eth0\""), "{told}");
            assert_eq!(stage.reserved(), ["10.88.0.2"]);
        }
        assert_eq!(picture(), before);
        assert_eq!(ask("127.0.0.1:8080").expect("still the first"), "a 10.88.0.1");
        let udp = json!([{"hostPort": 8080, "containerPort": 80, "protocol": "udp"}]);
        let other = Pod::with_ports("d", &udp);
        runtime.add(&network, &other.attachment).expect("another protocol is another port");
        runtime.del(&network, &holder.attachment).expect("del a");
        let next = Pod::with_ports("e", &port(""));
        runtime.add(&network, &next.attachment).expect("free again");
    });
}

#[test]
fn del_needs_neither_namespace_nor_result_and_can_be_repeated() {
    on_host(|stage| {
        let (runtime, network) = (stage.runtime(), stage.network());
        let ports = json!([{"hostPort": 8080, "containerPort": 80}]);
        let names = |pod: Pod| (pod.attachment.clone(), drop(pod));
        let gone = Pod::with_ports("gone", &ports);
        runtime.add(&network, &gone.attachment).expect("add");
        let (attachment, ()) = names(gone);
        let without = Attachment { netns: None, ..attachment.clone() };
        // The namespace went with its last handle; the path is dangling, or missing altogether.
        for attachment in [&attachment, &attachment, &without] {
            runtime.del(&network, attachment).expect("del");
        }
        assert_eq!((rules(), stage.reserved()), (String::new(), vec![]));

        let lost = Pod::with_ports("lost", &ports);
        runtime.add(&network, &lost.attachment).expect("add");
        fs::remove_dir_all(stage.dir.path().join("cni")).expect("lose the results");
        runtime
            .del(&network, &Attachment { capabilities: Default::default(), ..lost.attachment.clone() })
            .expect("del");
        assert_eq!((rules(), stage.reserved()), (String::new(), vec![]));
        assert!(withdraw(&network).expect("withdraw"), "no port is left on the bridge");
    });
}

#[test]
fn gc_finds_what_every_record_of_was_lost() {
    on_host(|stage| {
        let (runtime, network) = (stage.runtime(), stage.network());
        let other = NetworkList::parse(
            String::from_utf8(network.bytes.clone()).expect("text").replace("\"pods\"", "\"other\"").as_bytes(),
        )
        .expect("valid");
        let port = |port: u16| json!([{"hostPort": port, "containerPort": 80}]);
        let pods: Vec<_> = (1..=4u16).map(|n| Pod::with_ports(&format!("p{n}"), &port(8000 + n))).collect();
        for pod in &pods[..3] {
            runtime.add(&network, &pod.attachment).expect("add");
        }
        let elsewhere = json!({"ipam": {"type": "host-local", "dataDir": stage.data_dir(), "subnet": "10.89.0.0/24"},
            "bridge": "br-other"});
        let mut text: serde_json::Value = serde_json::from_slice(&other.bytes).expect("JSON");
        for (key, value) in elsewhere.as_object().expect("an object") {
            text["plugins"][0][key] = value.clone();
        }
        let other = NetworkList::parse(text.to_string().as_bytes()).expect("valid");
        runtime.add(&other, &pods[3].attachment).expect("add on another network");
        fs::remove_dir_all(stage.dir.path().join("cni")).expect("lose the results");
        fs::write(stage.data_dir().join("pods/10.88.0.99"), "").expect("what a crash leaves");
        runtime.gc(&network, &[valid("p2")]).expect("gc");
        assert_eq!(stage.reserved(), ["10.88.0.3"]);
        let left = rules();
        for (gone, stays) in [("pods p1 eth0", "pods p2 eth0"), ("pods p3 eth0", "other p4 eth0")] {
            assert!(!left.contains(gone) && left.contains(stays), "{left}");
        }
        let bridge = Route::open().expect("socket").link("br-pods").expect("get").expect("there");
        assert_eq!(Route::open().expect("socket").links(Some(bridge.index)).expect("list").len(), 1);
        pods[1].run(|| serve("0.0.0.0:80", "p2"));
        assert_eq!(ask("127.0.0.1:8002").expect("a valid one is untouched"), "p2 10.88.0.1");
        runtime.gc(&network, &[]).expect("gc");
        runtime.gc(&other, &[]).expect("gc");
        assert_eq!(rules(), "");
    });
}

#[test]
fn an_exhausted_range_is_told_and_leaves_nothing() {
    on_host(|stage| {
        let ipam = json!({"type": "host-local", "dataDir": stage.data_dir(), "subnet": "10.88.0.0/30"});
        let network = stage.network_with(&json!({"ipam": ipam}));
        let runtime = stage.runtime();
        let (a, b) = (Pod::new("a"), Pod::new("b"));
        runtime.add(&network, &a.attachment).expect("the only address");
        let before = picture();
        let error = runtime.add(&network, &b.attachment).expect_err("exhausted");
        let text = "no IP addresses available in range set: 10.88.0.1-10.88.0.2";
        assert!(error.to_string().contains(text), "{error}");
        assert_eq!(picture(), before);
        runtime.del(&network, &a.attachment).expect("del");
        runtime.add(&network, &b.attachment).expect("free again");
    });
}

#[test]
fn an_add_that_fails_half_way_leaves_nothing() {
    on_host(|stage| {
        let (runtime, network) = (stage.runtime(), stage.network());
        let first = Pod::new("first");
        runtime.add(&network, &first.attachment).expect("the bridge and the tables are there");
        let before = picture();
        // The name is taken in the pod: the pair can't be made after the address was allocated.
        let pod = Pod::new("a");
        pod.run(|| {
            let mut route = Route::open().expect("socket");
            route.change(&[Link::create_bridge("eth0", berth_net::Mac::random(), None)]).expect("link");
        });
        let error = runtime.add(&network, &pod.attachment).expect_err("the name is taken");
        assert!(error.to_string().contains("container veth name (eth0) already exists"), "{error}");
        assert!(pod.run(|| Route::open().expect("socket").link("eth0").expect("get")).is_some(), "not ours to delete");
        // A gateway that the pod can't reach: the routes fail after the pair is there.
        let ipam = json!({"type": "host-local", "dataDir": stage.data_dir(), "subnet": "10.88.0.0/24",
            "routes": [{"dst": "10.1.0.0/16", "gw": "172.16.0.1"}]});
        let bad = stage.network_with(&json!({"ipam": ipam}));
        let pod = Pod::new("b");
        let error = runtime.add(&bad, &pod.attachment).expect_err("no way to the gateway");
        assert!(error.to_string().contains("route add 10.1.0.0/16 via 172.16.0.1"), "{error}");
        assert!(pod.run(|| Route::open().expect("socket").link("eth0").expect("get")).is_none());
        assert_eq!(picture(), before);
        assert_eq!(stage.reserved(), ["10.88.0.2"]);
        let nowhere = Attachment { netns: Some("/nonexistent/netns".into()), ..pod.attachment.clone() };
        let error = runtime.add(&network, &nowhere).expect_err("no namespace");
        assert_eq!(error.code(), code::INVALID_NETNS);
    });
}

#[test]
fn what_a_crash_left_is_replaced() {
    on_host(|stage| {
        let (runtime, network) = (stage.runtime(), stage.network());
        let pod = Pod::new("a");
        let result = runtime.add(&network, &pod.attachment).expect("add");
        // As if the pod's end were gone but the host's end were left under the same name.
        let veth = result.interfaces[1].name.clone();
        pod.run(|| Route::open().expect("socket").change(&[Link::delete("eth0")])).expect("delete");
        let elsewhere = berth_sys::netns::NetNs::fresh().expect("namespace");
        let stale = berth_net::NewVeth {
            name: &veth,
            mac: berth_net::Mac::random(),
            master: None,
            peer_name: "stale",
            peer_mac: berth_net::Mac::random(),
            peer_namespace: std::os::fd::AsFd::as_fd(&elsewhere),
            mtu: None,
        };
        Route::open().expect("socket").change(&[Link::create_veth(&stale)]).expect("veth");
        fs::remove_dir_all(stage.dir.path().join("cni")).expect("lose the results");
        fs::remove_dir_all(stage.data_dir()).expect("lose the addresses");
        runtime.add(&network, &pod.attachment).expect("add again");
        runtime.check(&network, &pod.attachment).expect("check");
    });
}

#[test]
fn options_that_are_not_there_are_refused_by_name() {
    on_host(|stage| {
        let runtime = stage.runtime();
        let pod = Pod::new("a");
        for (field, value) in [("vlan", json!(7)), ("macspoofchk", json!(true)), ("ipMasqBackend", json!("iptables"))] {
            let network = stage.network_with(&json!({field: value}));
            let error = runtime.add(&network, &pod.attachment).expect_err("refused");
            assert_eq!(error.code(), code::UNSUPPORTED_FIELD, "{error}");
            assert!(error.to_string().contains(&format!("\"{field}\"")), "{error}");
        }
        let both = stage.network_with(&json!({"hairpinMode": true, "promiscMode": true}));
        assert_eq!(runtime.add(&both, &pod.attachment).expect_err("refused").code(), code::INVALID_CONFIG);
        let harmless = stage.network_with(&json!({"vlan": 0, "macspoofchk": false, "vlanTrunk": null}));
        runtime.add(&harmless, &pod.attachment).expect("what is off is not asked for");
    });
}

#[test]
fn a_bridge_with_another_address_is_refused_unless_forced() {
    on_host(|stage| {
        let (runtime, network) = (stage.runtime(), stage.network());
        let mut route = Route::open().expect("socket");
        route.change(&[Link::create_bridge("br-pods", berth_net::Mac::random(), None)]).expect("bridge");
        let index = route.link("br-pods").expect("get").expect("there").index;
        let other = "10.99.0.1/24".parse().expect("net");
        route.change(&[berth_net::Address::add(index, other)]).expect("address");
        let pod = Pod::new("a");
        let error = runtime.add(&network, &pod.attachment).expect_err("refused");
        assert!(error.to_string().contains("already has an IP address different from 10.88.0.1/24"), "{error}");
        let forced = stage.network_with(&json!({"forceAddress": true, "hairpinMode": true}));
        runtime.add(&forced, &pod.attachment).expect("forced");
        assert!(!route.addresses(index).expect("list").contains(&other));
        runtime.del(&forced, &pod.attachment).expect("del");
        assert!(!withdraw(&forced).expect("withdraw"), "somebody else's bridge stays");
    });
}

#[test]
fn many_attachments_at_once_do_not_disturb_each_other() {
    on_host(|stage| {
        let before = picture();
        let (runtime, network) = (stage.runtime(), stage.network());
        let pods: Vec<_> = (0..20u16)
            .map(|n| Pod::with_ports(&format!("p{n}"), &json!([{"hostPort": 9000 + n, "containerPort": 80}])))
            .collect();
        let all = |work: &(dyn Fn(&Pod) -> Result<(), RuntimeError> + Sync)| {
            std::thread::scope(|scope| {
                let threads: Vec<_> = pods.iter().map(|pod| scope.spawn(move || work(pod))).collect();
                for thread in threads {
                    thread.join().expect("no panic").expect("done");
                }
            });
        };
        all(&|pod| runtime.add(&network, &pod.attachment).map(|_| ()));
        assert_eq!(stage.reserved().len(), 20);
        pods[7].run(|| serve("0.0.0.0:80", "p7"));
        assert_eq!(ask("127.0.0.1:9007").expect("one of them"), "p7 10.88.0.1");
        all(&|pod| runtime.del(&network, &pod.attachment));
        assert!(withdraw(&network).expect("withdraw"));
        assert_eq!(picture(), before);
    });
}

#[test]
fn loopback_comes_up() {
    on_host(|stage| {
        let text = json!({"cniVersion": "1.1.0", "name": "lo", "plugins": [{"type": "loopback"}]}).to_string();
        let network = NetworkList::parse(text.as_bytes()).expect("valid");
        let pod = Pod::new("a");
        let attachment = Attachment { ifname: "lo".to_owned(), ..pod.attachment.clone() };
        let runtime = stage.runtime();
        let result = runtime.add(&network, &attachment).expect("add");
        assert_eq!(result.ips[0].address.to_string(), "127.0.0.1/8");
        pod.run(|| serve("127.0.0.1:80", "self"));
        assert_eq!(pod.run(|| ask("127.0.0.1:80")).expect("itself"), "self 127.0.0.1");
        runtime.check(&network, &attachment).expect("check");
        runtime.del(&network, &attachment).expect("del");
        drop(pod);
        runtime.del(&network, &attachment).expect("del without a namespace");
    });
}
