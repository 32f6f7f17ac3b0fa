use serde_json::json;

use super::*;

fn full() -> Value {
    json!({
        "cniVersion": "1.1.0",
        "interfaces": [
            {"name": "cni0", "mac": "02:00:00:00:00:01", "mtu": 1500},
            {"name": "eth0", "mac": "02:00:00:00:00:02", "mtu": 1500, "sandbox": "/run/netns/a"},
        ],
        "ips": [
            {"address": "10.1.2.3/24", "gateway": "10.1.2.1", "interface": 1},
            {"address": "10.1.2.4/24", "interface": 0},
            {"address": "fd00::3/64", "gateway": "fd00::1", "interface": 1},
        ],
        "routes": [{"dst": "0.0.0.0/0", "gw": "10.1.2.1", "mtu": 1400, "priority": 10}, {"dst": "::/0"}],
        "dns": {"nameservers": ["10.96.0.10"]},
    })
}

#[test]
fn the_newest_form_survives_a_round_trip() {
    let result = CniResult::from_value(&full()).expect("read");
    assert_eq!(result.to_value(Version::V1_1_0).expect("write"), full());
    let pod: Vec<_> = result.pod_ips().map(|ip| ip.address.to_string()).collect();
    assert_eq!(pod, ["10.1.2.3/24", "fd00::3/64"]);
}

#[test]
fn each_older_form_keeps_what_it_has_words_for() {
    let result = CniResult::from_value(&full()).expect("read");
    let v1_0 = result.to_value(Version::V1_0_0).expect("1.0.0");
    assert_eq!(v1_0["interfaces"][1], json!({"name": "eth0", "mac": "02:00:00:00:00:02", "sandbox": "/run/netns/a"}));
    assert_eq!(v1_0["routes"][0], json!({"dst": "0.0.0.0/0", "gw": "10.1.2.1"}));
    assert_eq!(v1_0["ips"][0].get("version"), None);

    for version in [Version::V0_3_0, Version::V0_3_1, Version::V0_4_0] {
        let old = result.to_value(version).expect("0.3 and 0.4");
        assert_eq!(old["cniVersion"], version.to_string());
        assert_eq!(old["ips"][0]["version"], "4");
        assert_eq!(old["ips"][2]["version"], "6");
        let again = CniResult::from_value(&old).expect("read back");
        assert_eq!(again.ips, result.ips);
    }

    for version in [Version::V0_1_0, Version::V0_2_0] {
        let old = result.to_value(version).expect("0.1 and 0.2");
        assert_eq!(
            old,
            json!({
                "cniVersion": version.to_string(),
                "ip4": {"ip": "10.1.2.3/24", "gateway": "10.1.2.1", "routes": [{"dst": "0.0.0.0/0", "gw": "10.1.2.1"}]},
                "ip6": {"ip": "fd00::3/64", "gateway": "fd00::1", "routes": [{"dst": "::/0"}]},
                "dns": {"nameservers": ["10.96.0.10"]},
            })
        );
        let again = CniResult::from_value(&old).expect("read back");
        assert_eq!(again.ips.len(), 2);
        assert_eq!(again.routes.len(), 2);
    }
}

#[test]
fn an_empty_dns_is_written_before_1_0_only() {
    let result = CniResult::default();
    assert_eq!(result.to_value(Version::V1_1_0).expect("write"), json!({"cniVersion": "1.1.0"}));
    assert_eq!(result.to_value(Version::V0_4_0).expect("write"), json!({"cniVersion": "0.4.0", "dns": {}}));
    assert!(matches!(result.to_value(Version::V0_2_0), Err(ResultError::NoAddress(Version::V0_2_0))));
}

#[test]
fn a_result_of_an_unknown_version_or_form_is_refused() {
    assert!(matches!(
        CniResult::from_value(&json!({"cniVersion": "2.0.0"})),
        Err(ResultError::Unsupported(Version(2, 0, 0)))
    ));
    assert!(matches!(
        CniResult::from_value(&json!({"cniVersion": "1.0.0", "ips": [{"address": "10.1.2.3"}]})),
        Err(ResultError::Shape { .. })
    ));
    assert!(CniResult::from_value(&json!({"cniVersion": "one"})).is_err());
}
