//! The multi-call binary by the CNI protocol: environment, standard input and output, exit codes. Needs root.

mod stage;

use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use stage::{Pod, ask, on_host, rules, serve};

const BINARY: &str = env!("CARGO_BIN_EXE_berth-cni");

/// Calls a plugin as a runtime does: exit code, and what it wrote to standard output.
fn call(program: &Path, environment: &[(&str, &str)], stdin: &Value) -> (i32, Value) {
    let mut child = Command::new(program)
        .env_clear()
        .envs(environment.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("spawn");
    child.stdin.take().expect("stdin").write_all(stdin.to_string().as_bytes()).expect("write");
    let output = child.wait_with_output().expect("output");
    let text = String::from_utf8(output.stdout).expect("text");
    let value = if text.is_empty() { Value::Null } else { serde_json::from_str(&text).expect("JSON") };
    (output.status.code().expect("exit code"), value)
}

#[test]
fn it_is_the_plugin_that_it_is_called_by() {
    let dir = tempfile::tempdir().expect("a folder");
    for name in berth_cni_plugins::TYPES {
        let link = dir.path().join(name);
        symlink(BINARY, &link).expect("link");
        let (exit, value) = call(&link, &[("CNI_COMMAND", "VERSION")], &json!({"cniVersion": "1.0.0"}));
        assert_eq!((exit, &value["cniVersion"]), (0, &json!("1.0.0")));
        assert_eq!(value["supportedVersions"].as_array().expect("a list").len(), 7);
        let about = Command::new(BINARY).arg(name).env_clear().output().expect("run");
        assert!(about.status.success());
        assert!(String::from_utf8_lossy(&about.stderr).contains(&format!("CNI {name} plugin")), "{about:?}");
    }
    let usage = Command::new(BINARY).env_clear().output().expect("run");
    assert_eq!(usage.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&usage.stderr).contains("bridge|host-local|loopback|portmap|ptp"), "{usage:?}");
}

#[test]
fn a_chain_is_attached_checked_and_detached() {
    on_host(|stage| {
        let bin = stage.dir.path().join("bin");
        std::fs::create_dir(&bin).expect("folder");
        for name in berth_cni_plugins::TYPES {
            symlink(BINARY, bin.join(name)).expect("link");
        }
        let pod = Pod::new("c1");
        let netns = pod.attachment.netns.as_ref().expect("path").display().to_string();
        let environment = |command: &'static str| {
            [
                ("CNI_COMMAND", command),
                ("CNI_CONTAINERID", "c1"),
                ("CNI_NETNS", &*netns),
                ("CNI_IFNAME", "eth0"),
                ("CNI_PATH", bin.to_str().expect("text")),
            ]
            .map(|(name, value)| (name, value.to_owned()))
        };
        let run = |command: &'static str, plugin: &str, stdin: &Value| {
            let environment = environment(command);
            let borrowed: Vec<_> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
            call(&bin.join(plugin), &borrowed, stdin)
        };
        let mut bridge = json!({"cniVersion": "1.0.0", "name": "pods", "type": "bridge", "bridge": "br-pods",
            "isDefaultGateway": true, "ipMasq": true,
            "ipam": {"type": "host-local", "dataDir": stage.data_dir(), "subnet": "10.88.0.0/24"}});
        let mut portmap = json!({"cniVersion": "1.0.0", "name": "pods", "type": "portmap",
            "runtimeConfig": {"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}});
        let (exit, result) = run("ADD", "bridge", &bridge);
        assert_eq!((exit, &result["ips"][0]["address"]), (0, &json!("10.88.0.2/24")), "{result}");
        portmap["prevResult"] = result.clone();
        let (exit, result) = run("ADD", "portmap", &portmap);
        assert_eq!((exit, &result), (0, &portmap["prevResult"]), "a chained plugin passes the result on");
        pod.run(|| serve("0.0.0.0:80", "c1"));
        assert_eq!(ask("127.0.0.1:8080").expect("host port"), "c1 10.88.0.1");
        bridge["prevResult"] = result.clone();
        for (plugin, stdin) in [("portmap", &portmap), ("bridge", &bridge)] {
            assert_eq!(run("CHECK", plugin, stdin), (0, Value::Null));
        }
        let (exit, error) = run("ADD", "bridge", &bridge);
        assert_eq!((exit, &error["code"]), (1, &json!(999)), "{error}");
        assert!(error["msg"].as_str().expect("text").contains("duplicate allocation"), "{error}");
        assert_eq!(ask("127.0.0.1:8080").expect("the first is not disturbed"), "c1 10.88.0.1");
        for _ in 0..2 {
            for (plugin, stdin) in [("portmap", &portmap), ("bridge", &bridge)] {
                assert_eq!(run("DEL", plugin, stdin), (0, Value::Null));
            }
        }
        assert_eq!((rules(), stage.reserved()), (String::new(), vec![]));
        bridge["cniVersion"] = "1.1.0".into();
        bridge["cni.dev/valid-attachments"] = json!([]);
        assert_eq!(run("GC", "bridge", &bridge).0, 0);
        assert_eq!(run("STATUS", "bridge", &bridge).0, 0);
        bridge["ipam"]["subnet"] = "10.88.0.0/32".into();
        let (exit, error) = run("STATUS", "bridge", &bridge);
        assert_eq!((exit, &error["code"]), (1, &json!(7)), "{error}");
    });
}
