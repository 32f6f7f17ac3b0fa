//! A plugin dies at each of its effects in turn; a DEL then leaves nothing, as if it had never been called. Needs root.

mod stage;

use std::io::Write;
use std::process::{Command, Stdio};

use berth_cni::NetworkList;
use berth_cni_plugins::withdraw;
use berth_net::sysctl;
use serde_json::{Value, json};
use stage::{Pod, Stage, on_host, picture};

/// Runs a plugin, which dies at the given crash point (0: at none); whether it lived.
fn run(pod: &Pod, verb: &str, config: &Value, crash_at: u64) -> bool {
    let netns = pod.attachment.netns.as_ref().expect("path");
    let mut child = Command::new(env!("CARGO_BIN_EXE_berth-cni"))
        .arg(config["type"].as_str().expect("type"))
        .env_clear()
        .env("CNI_COMMAND", verb)
        .env("CNI_CONTAINERID", &pod.attachment.container_id)
        .env("CNI_NETNS", netns)
        .env("CNI_IFNAME", "eth0")
        .env("CNI_PATH", "/nonexistent")
        .env("BERTH_CRASH_AT", crash_at.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("spawn");
    child.stdin.take().expect("stdin").write_all(config.to_string().as_bytes()).expect("write");
    child.wait().expect("wait").success()
}

fn bridged(stage: &Stage) -> NetworkList {
    stage.network()
}

fn routed(stage: &Stage) -> NetworkList {
    // There is no bridge that would keep what forwarding was before.
    sysctl::write("net/ipv4/ip_forward", "1").expect("setting");
    stage.network_with(&json!({"type": "ptp"}))
}

fn configs(network: &NetworkList) -> [Value; 2] {
    let mut configs = network.plugins.iter().map(|plugin| {
        let mut config = Value::Object(plugin.raw.clone());
        config["cniVersion"] = "1.1.0".into();
        config["name"] = "pods".into();
        config
    });
    let (first, mut portmap) = (configs.next().expect("bridge or ptp"), configs.next().expect("portmap"));
    portmap["runtimeConfig"] = json!({"portMappings": [{"hostPort": 8080, "containerPort": 80}]});
    portmap["prevResult"] = json!({
        "interfaces": [{"name": "br-pods"}, {"name": "eth0", "sandbox": "x"}],
        "ips": [{"address": "10.88.0.2/24", "interface": 1}],
    });
    [first, portmap]
}

/// Brings everything up and down, with the plugin of the given number dying in the given verb at each point in turn.
fn visit_every_point(network: fn(&Stage) -> NetworkList, victim: usize, dying: &str) -> u64 {
    on_host(|stage| {
        let network = network(stage);
        let before = picture();
        let configs = configs(&network);
        for point in 1.. {
            let pod = Pod::new("c1");
            let crash = |index: usize, verb: &str| if (index, verb) == (victim, dying) { point } else { 0 };
            let mut lived = true;
            for (index, config) in configs.iter().enumerate() {
                lived = lived && run(&pod, "ADD", config, crash(index, "ADD"));
            }
            for (index, config) in configs.iter().enumerate().rev() {
                lived &= run(&pod, "DEL", config, crash(index, "DEL"));
            }
            for config in configs.iter().rev() {
                assert!(run(&pod, "DEL", config, 0), "point {point}");
            }
            assert!(withdraw(&network).expect("withdraw"), "point {point}");
            assert_eq!(picture(), before, "point {point}");
            assert!(!stage.data_dir().exists(), "point {point}");
            if lived {
                return point - 1;
            }
        }
        0
    })
}

#[test]
fn bridge_dies_anywhere_in_add() {
    let points = visit_every_point(bridged, 0, "ADD");
    assert!(points >= 14, "bridge, address, reservation, forwarding, pair, pod and rules: {points}");
}

#[test]
fn bridge_dies_anywhere_in_del() {
    let points = visit_every_point(bridged, 0, "DEL");
    assert!(points >= 6, "rules, link and address: {points}");
}

#[test]
fn ptp_dies_anywhere() {
    let points = visit_every_point(routed, 0, "ADD");
    assert!(points >= 10, "reservation, pair, pod, host and rules: {points}");
    let points = visit_every_point(routed, 0, "DEL");
    assert!(points >= 6, "rules, link and address: {points}");
}

#[test]
fn portmap_dies_anywhere() {
    assert!(visit_every_point(bridged, 1, "ADD") >= 4, "rules and setting");
    assert!(visit_every_point(bridged, 1, "DEL") >= 6, "setting and rules of both families");
}
