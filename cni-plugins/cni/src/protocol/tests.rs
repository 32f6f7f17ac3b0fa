use super::*;
use crate::{Interface, IpConfig};

fn plugin(request: &Request) -> Result<Option<CniResult>, CniError> {
    match request.command {
        Command::Add => {
            let mut result = request.prev_result.clone().unwrap_or_default();
            let sandbox = request.netns()?.display().to_string();
            result.interfaces.push(Interface { name: request.ifname.clone(), sandbox, ..Interface::default() });
            let address = "10.0.0.2/24".parse().map_err(|error| CniError::decode("address", error))?;
            result.ips.push(IpConfig { address, gateway: None, interface: Some(0) });
            Ok(Some(result))
        }
        Command::Del => Err(CniError::new(code::TRY_AGAIN, "later").with_details("busy")),
        _ => Ok(None),
    }
}

fn environment(command: &str) -> Environment {
    Environment {
        command: Some(command.to_owned()),
        container_id: "c1".to_owned(),
        netns: "/proc/nonexistent/ns/net".to_owned(),
        ifname: "eth0".to_owned(),
        args: "IgnoreUnknown=1;K8S_POD_NAME=a".to_owned(),
        path: "/opt/cni/bin".to_owned(),
        netns_override: false,
    }
}

fn call(environment: &Environment, stdin: &str) -> (u8, Value) {
    let reply = serve("about", plugin, |_| None, environment, stdin.as_bytes());
    (reply.exit, serde_json::from_str(&reply.stdout).unwrap_or_default())
}

const CONF: &str = r#"{"cniVersion": "1.1.0", "name": "n", "type": "test"}"#;

#[test]
fn without_a_command_it_tells_what_it_is() {
    let reply = serve("a test plugin", plugin, |_| None, &Environment::default(), b"");
    assert_eq!(reply, Reply { stdout: String::new(), stderr: "a test plugin\n".to_owned(), exit: 0 });
}

#[test]
fn an_add_answers_in_the_version_it_was_asked_in() {
    let (exit, value) = call(&environment("ADD"), CONF);
    assert_eq!((exit, &value["cniVersion"]), (0, &json!("1.1.0")));
    assert_eq!(value["ips"], json!([{"address": "10.0.0.2/24", "interface": 0}]));
    let (exit, value) = call(&environment("ADD"), r#"{"cniVersion": "0.2.0", "name": "n"}"#);
    assert_eq!((exit, &value["ip4"]["ip"]), (0, &json!("10.0.0.2/24")));
    let previous = r#"{"cniVersion": "0.4.0", "name": "n", "prevResult":
        {"interfaces": [{"name": "before"}], "ips": [{"version": "4", "address": "10.9.9.9/8"}]}}"#;
    let (_, value) = call(&environment("ADD"), previous);
    assert_eq!(value["interfaces"][0]["name"], "before");
    assert_eq!(value["ips"][1]["version"], "4");
}

#[test]
fn an_error_is_told_on_standard_output() {
    let (exit, value) = call(&environment("DEL"), CONF);
    assert_eq!(exit, 1);
    assert_eq!(value, json!({"cniVersion": "1.1.0", "code": 11, "msg": "later", "details": "busy"}));
}

#[test]
fn what_is_missing_or_malformed_is_named() {
    let refused = |environment: &Environment, stdin: &str| {
        let (exit, value) = call(environment, stdin);
        assert_eq!(exit, 1, "{value}");
        (value["code"].as_u64().unwrap_or_default(), format!("{} {}", value["msg"], value["details"]))
    };
    let (code, msg) =
        refused(&Environment { container_id: String::new(), netns: String::new(), ..environment("ADD") }, CONF);
    assert_eq!((code, msg.contains("[CNI_CONTAINERID,CNI_NETNS]")), (4, true), "{msg}");
    let (code, msg) = refused(&Environment { container_id: "../x".to_owned(), ..environment("ADD") }, CONF);
    assert_eq!((code, msg.contains("containerID")), (4, true));
    let (code, _) = refused(&Environment { ifname: "a/b".to_owned(), ..environment("ADD") }, CONF);
    assert_eq!(code, 4);
    let (code, msg) = refused(&environment("FROB"), CONF);
    assert_eq!((code, msg.contains("FROB")), (4, true));
    assert_eq!(refused(&environment("ADD"), "{").0, 6);
    assert_eq!(refused(&environment("ADD"), r#"{"cniVersion": "1.0.0"}"#).0, 7);
    let (code, msg) = refused(&environment("ADD"), r#"{"cniVersion": "9.0.0", "name": "n"}"#);
    assert_eq!((code, msg.contains("9.0.0") && msg.contains("1.1.0")), (1, true), "{msg}");
    assert_eq!(refused(&environment("CHECK"), r#"{"cniVersion": "0.3.1", "name": "n"}"#).0, 1);
    assert_eq!(refused(&environment("GC"), r#"{"cniVersion": "1.0.0", "name": "n"}"#).0, 1);
    let own = Environment { netns: "/proc/self/ns/net".to_owned(), ..environment("ADD") };
    assert_eq!(refused(&own, CONF).0, 8);
    let (exit, _) = call(&Environment { netns_override: true, ..own }, CONF);
    assert_eq!(exit, 0);
}

#[test]
fn a_del_needs_no_namespace_and_gc_no_attachment() {
    let (_, value) = call(&Environment { netns: String::new(), ..environment("DEL") }, CONF);
    assert_eq!(value["code"], 11, "the plugin itself was reached");
    let bare = |command: &str| Environment {
        command: Some(command.to_owned()),
        path: "/opt/cni/bin".to_owned(),
        ..Environment::default()
    };
    assert_eq!(call(&bare("GC"), CONF).0, 0);
    assert_eq!(call(&bare("STATUS"), CONF).0, 0);
}

#[test]
fn versions_are_told_in_the_version_asked_in() {
    let (exit, value) = call(&environment("VERSION"), r#"{"cniVersion": "0.4.0"}"#);
    assert_eq!(exit, 0);
    assert_eq!(value["cniVersion"], "0.4.0");
    assert_eq!(value["supportedVersions"], json!(["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]));
}
