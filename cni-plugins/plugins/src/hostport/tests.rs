use berth_net::nft::Listed;

use super::*;

fn port(address: Option<&str>, protocol: u8, port: u16) -> HostPort {
    HostPort { address: address.map(|address| address.parse().expect("address")), protocol, port, pod_port: 80 }
}

fn held(port: &HostPort, comment: &str) -> Held {
    let listed = Listed { key: key(port), value: None, chain: None, comment: Some(comment.to_owned()) };
    Held { set: set_of(port), listed }
}

#[test]
fn keys_and_values_are_padded_as_the_kernel_wants_them() {
    assert_eq!(key(&port(None, 6, 8080)), [6, 0, 0, 0, 0x1f, 0x90, 0, 0]);
    assert_eq!(key(&port(Some("192.0.2.1"), 17, 53)), [192, 0, 2, 1, 17, 0, 0, 0, 0, 53, 0, 0]);
    assert_eq!(value("10.0.0.2".parse().expect("address"), &port(None, 6, 1)), [10, 0, 0, 2, 0, 80, 0, 0]);
    assert_eq!(link_name(&link_key("br-pods")), "br-pods");
}

#[test]
fn a_port_conflicts_as_it_would_for_listeners() {
    let identity = Identity::new("pods", "c1", "eth0");
    let conflicts = |there: HostPort, wanted: HostPort, holder: &str| {
        conflict(&[held(&there, holder)], &identity, &[wanted]).is_some()
    };
    let (all, one, other) = (port(None, 6, 80), port(Some("192.0.2.1"), 6, 80), port(Some("192.0.2.2"), 6, 80));
    for (there, wanted, expected) in [
        (&all, &all, true),
        (&all, &one, true),
        (&one, &all, true),
        (&one, &one, true),
        (&one, &other, false),
        (&all, &port(None, 17, 80), false),
        (&all, &port(None, 6, 81), false),
    ] {
        assert_eq!(conflicts(there.clone(), wanted.clone(), "pods c2 eth0"), expected, "{there:?} {wanted:?}");
        assert!(!conflicts(there.clone(), wanted.clone(), "pods c1 eth0"), "one's own ports are replaced");
    }
}
