use std::fs;
use std::path::Path;
use std::time::Duration;

use berth_cni::{CniError, CniResult, Command, Plugins, Request, Version, code};
use serde_json::{Value, json};

use super::call;

fn request(dir: &Path, command: Command, id: &str, ipam: Value) -> Request {
    let mut ipam = ipam;
    ipam["dataDir"] = dir.display().to_string().into();
    let config = json!({"cniVersion": "1.1.0", "name": "net", "ipam": ipam});
    Request {
        command,
        container_id: id.to_owned(),
        netns: None,
        ifname: "eth0".to_owned(),
        args: String::new(),
        cni_version: Version::V1_1_0,
        network: "net".to_owned(),
        config: config.as_object().expect("an object").clone(),
        prev_result: None,
        plugins: Plugins {
            builtin: |_| None,
            bin_dirs: Vec::new(),
            running_dir: None,
            timeout: Duration::from_secs(1),
        },
    }
}

fn subnet() -> Value {
    json!({"subnet": "10.1.0.0/29", "routes": [{"dst": "0.0.0.0/0"}]})
}

fn add(dir: &Path, id: &str) -> Result<CniResult, CniError> {
    call(&request(dir, Command::Add, id, subnet())).map(Option::unwrap_or_default)
}

fn first(result: &CniResult) -> String {
    result.ips[0].address.to_string()
}

#[test]
fn the_files_are_those_of_the_reference_plugin() {
    let dir = tempfile::tempdir().expect("a folder");
    let result = add(dir.path(), "c1").expect("add");
    assert_eq!(first(&result), "10.1.0.2/29");
    assert_eq!(result.ips[0].gateway, "10.1.0.1".parse().ok());
    assert_eq!(result.routes[0].dst.to_string(), "0.0.0.0/0");
    let net = dir.path().join("net");
    assert_eq!(fs::read(net.join("10.1.0.2")).expect("reservation"), b"c1\r\neth0");
    assert_eq!(fs::read(net.join("last_reserved_ip.0")).expect("hint"), b"10.1.0.2");
    assert!(net.join("lock").exists());
}

#[test]
fn addresses_go_round_and_duplicates_are_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let del = |id: &str| call(&request(dir.path(), Command::Del, id, subnet())).expect("del");
    add(dir.path(), "c1").expect("add");
    let error = add(dir.path(), "c1").expect_err("twice");
    assert!(error.msg.contains("10.1.0.2 has been allocated to c1, duplicate allocation is not allowed"), "{error}");
    del("c1");
    assert_eq!(first(&add(dir.path(), "c2").expect("add")), "10.1.0.3/29", "not the one that was just released");
    for id in ["c3", "c4", "c5", "c6"] {
        add(dir.path(), id).expect("add");
    }
    let error = add(dir.path(), "c7").expect_err("exhausted");
    assert_eq!(error.msg, "no IP addresses available in range set: 10.1.0.1-10.1.0.6");
    del("c4");
    del("c4");
    assert_eq!(first(&add(dir.path(), "c7").expect("add")), "10.1.0.5/29");
}

#[test]
fn what_older_plugins_and_crashes_wrote_is_understood() {
    let dir = tempfile::tempdir().expect("a folder");
    let net = dir.path().join("net");
    fs::create_dir(&net).expect("folder");
    fs::write(net.join("10.1.0.2"), "old\n").expect("without an interface");
    fs::write(net.join("10.1.0.3"), "").expect("torn");
    fs::write(net.join("10.1.0.4"), "other\r\neth1").expect("another");
    assert_eq!(first(&add(dir.path(), "c1").expect("add")), "10.1.0.3/29", "a torn one is free");
    call(&request(dir.path(), Command::Check, "old", subnet())).expect("known");
    call(&request(dir.path(), Command::Del, "old", subnet())).expect("del");
    assert!(!net.join("10.1.0.2").exists());
    call(&request(dir.path(), Command::Del, "other", subnet())).expect("of another interface");
    assert!(net.join("10.1.0.4").exists());
}

#[test]
fn gc_keeps_what_is_valid_and_only_with_a_list() {
    let dir = tempfile::tempdir().expect("a folder");
    for id in ["c1", "c2"] {
        add(dir.path(), id).expect("add");
    }
    let mut gc = request(dir.path(), Command::Gc, "", subnet());
    call(&gc).expect("without a list nothing is released");
    assert!(dir.path().join("net/10.1.0.2").exists());
    let valid = json!([{"containerID": "c2", "ifname": "eth0"}]);
    gc.config.insert("cni.dev/attachments".to_owned(), valid);
    call(&gc).expect("gc");
    assert!(!dir.path().join("net/10.1.0.2").exists());
    assert!(dir.path().join("net/10.1.0.3").exists());
}

#[test]
fn requested_addresses_and_several_sets() {
    let dir = tempfile::tempdir().expect("a folder");
    let ranges = json!({"ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00::/64"}]]});
    let with = |id: &str, args: &str| {
        let mut request = request(dir.path(), Command::Add, id, ranges.clone());
        args.clone_into(&mut request.args);
        call(&request).map(Option::unwrap_or_default)
    };
    let result = with("c1", "IgnoreUnknown=1;IP=10.1.0.77").expect("add");
    let addresses: Vec<_> = result.ips.iter().map(|ip| ip.address.to_string()).collect();
    assert_eq!(addresses, ["10.1.0.77/24", "fd00::2/64"]);
    let error = with("c2", "IP=10.1.0.77").expect_err("taken");
    assert!(error.msg.contains("requested IP address 10.1.0.77 is not available"), "{error}");
    let error = with("c2", "IP=10.1.0.1").expect_err("gateway");
    assert_eq!(error.msg, "requested ip 10.1.0.1 is subnet's gateway");
    let error = with("c2", "IP=10.2.0.1").expect_err("elsewhere");
    assert_eq!(error.msg, "failed to allocate all requested IPs: 10.2.0.1");
    let left: Vec<_> = fs::read_dir(dir.path().join("net")).expect("folder").collect();
    assert_eq!(left.len(), 5, "the refused ones left nothing: {left:?}");
}

#[test]
fn a_del_works_with_a_configuration_that_was_broken_since() {
    let dir = tempfile::tempdir().expect("a folder");
    add(dir.path(), "c1").expect("add");
    let broken = json!({"subnet": "10.1.0.0/31"});
    let error = call(&request(dir.path(), Command::Add, "c2", broken.clone())).expect_err("too small");
    assert_eq!(error.code, code::INVALID_CONFIG);
    assert_eq!(call(&request(dir.path(), Command::Status, "", broken.clone())).expect_err("told").code, error.code);
    call(&request(dir.path(), Command::Del, "c1", broken)).expect("del");
    assert!(!dir.path().join("net/10.1.0.2").exists());
}

#[test]
fn resolv_conf_becomes_dns() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("resolv.conf");
    fs::write(&path, "# x\nnameserver 10.0.0.1\nnameserver fd00::1\nsearch a b\noptions ndots:5\n").expect("write");
    let mut ipam = subnet();
    ipam["resolvConf"] = path.display().to_string().into();
    let result = call(&request(dir.path(), Command::Add, "c1", ipam)).expect("add").unwrap_or_default();
    assert_eq!(result.dns.nameservers, ["10.0.0.1", "fd00::1"]);
    assert_eq!((result.dns.search.len(), &*result.dns.options[0]), (2, "ndots:5"));
}
