use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;

use super::*;
use crate::{CniError, Interface, Plugin, code, wait_for_orphans};

/// Adds an interface named after its configuration's `tag`; fails where the configuration says so.
fn tagging(request: &Request) -> Result<Option<CniResult>, CniError> {
    if request.config.get("fails") == Some(&request.command.as_str().into()) {
        return Err(CniError::new(code::TRY_AGAIN, "told to fail"));
    }
    if let Some(log) = request.config.get("log").and_then(Value::as_str) {
        let previous = request.prev_result.as_ref().map_or(0, |result| result.interfaces.len());
        let runtime = request.config.get("runtimeConfig").map(Value::to_string).unwrap_or_default();
        let valid = request.valid_attachments()?.map(|valid| valid.len().to_string()).unwrap_or_default();
        let line = format!("{} {} {previous}{runtime}{valid}\n", request.command.as_str(), request.config["tag"]);
        let so_far = fs::read_to_string(log).unwrap_or_default();
        fs::write(log, so_far + &line).map_err(|error| CniError::io("log", error))?;
    }
    if request.command != Command::Add {
        return Ok(None);
    }
    let mut result = request.prev_result.clone().unwrap_or_default();
    let name = request.config["tag"].as_str().unwrap_or_default().to_owned();
    result.interfaces.push(Interface { name, ..Interface::default() });
    Ok(Some(result))
}

fn runtime(dir: &Path) -> Runtime {
    let plugins = Plugins {
        builtin: |kind| (kind == "tagging").then_some(tagging as Plugin),
        bin_dirs: vec![dir.join("bin")],
        running_dir: Some(dir.join("running")),
        timeout: Duration::from_millis(500),
    };
    Runtime::new(plugins, &dir.join("cache"))
}

fn attachment() -> Attachment {
    Attachment {
        container_id: "c1".to_owned(),
        netns: Some("/run/netns/c1".into()),
        ifname: "eth0".to_owned(),
        args: vec![("IgnoreUnknown".to_owned(), "1".to_owned())],
        capabilities: serde_json::from_value(json!({"portMappings": [1], "other": 2})).expect("a map"),
    }
}

fn list(plugins: &Value) -> NetworkList {
    let text = json!({"cniVersion": "1.1.0", "name": "n", "plugins": plugins}).to_string();
    NetworkList::parse(text.as_bytes()).expect("valid")
}

fn two(dir: &Path) -> (NetworkList, PathBuf) {
    let log = dir.join("log");
    let plugins = json!([
        {"type": "tagging", "tag": "a", "log": log},
        {"type": "tagging", "tag": "b", "log": log, "capabilities": {"portMappings": true, "other": false}},
    ]);
    (list(&plugins), log)
}

#[test]
fn plugins_are_called_in_order_and_undone_in_reverse() {
    let dir = tempfile::tempdir().expect("a folder");
    let runtime = runtime(dir.path());
    let (list, log) = two(dir.path());
    let result = runtime.add(&list, &attachment()).expect("add");
    assert_eq!(result.interfaces.len(), 2);
    runtime.check(&list, &attachment()).expect("check");
    assert_eq!(runtime.attachments()[0].result.as_ref(), Some(&result));
    let error = runtime.add(&list, &attachment()).expect_err("twice");
    assert!(error.to_string().contains("attached already"), "{error}");
    runtime.del(&list, &attachment()).expect("del");
    runtime.del(&list, &attachment()).expect("del again");
    assert!(runtime.attachments().is_empty());
    let runtime_config = r#"{"portMappings":[1]}"#;
    let expected = format!(
        "ADD \"a\" 0\nADD \"b\" 1{runtime_config}\nCHECK \"a\" 2\nCHECK \"b\" 2{runtime_config}\n\
         DEL \"b\" 2{runtime_config}\nDEL \"a\" 2\nDEL \"b\" 0{runtime_config}\nDEL \"a\" 0\n"
    );
    assert_eq!(fs::read_to_string(log).expect("log"), expected);
}

#[test]
fn the_cache_is_in_the_form_of_libcni() {
    let dir = tempfile::tempdir().expect("a folder");
    let runtime = runtime(dir.path());
    let (list, _) = two(dir.path());
    runtime.add(&list, &attachment()).expect("add");
    let path = dir.path().join("cache/results/n-c1-eth0");
    assert_eq!(fs::metadata(&path).expect("entry").permissions().mode() & 0o777, 0o600);
    let mut entry: Value = serde_json::from_slice(&fs::read(&path).expect("entry")).expect("JSON");
    assert!(entry["config"].take().is_string());
    assert_eq!(
        entry,
        json!({
            "kind": "cniCacheV1", "containerId": "c1", "config": null, "ifName": "eth0", "networkName": "n",
            "netns": "/run/netns/c1", "cniArgs": [["IgnoreUnknown", "1"]],
            "capabilityArgs": {"portMappings": [1], "other": 2},
            "result": {"cniVersion": "1.1.0", "interfaces": [{"name": "a"}, {"name": "b"}]},
        })
    );
}

#[test]
fn a_failed_add_is_undone_and_a_del_goes_on_past_errors() {
    let dir = tempfile::tempdir().expect("a folder");
    let runtime = runtime(dir.path());
    let log = dir.path().join("log");
    let failing = |command: &str| {
        list(&json!([
            {"type": "tagging", "tag": "a", "log": log},
            {"type": "tagging", "tag": "b", "log": log, "fails": command},
            {"type": "tagging", "tag": "c", "log": log, "fails": command},
        ]))
    };
    let error = runtime.add(&failing("ADD"), &attachment()).expect_err("told to fail");
    assert_eq!(error.code(), code::TRY_AGAIN);
    assert_eq!(error.to_string(), "network n, plugin tagging, ADD: told to fail [CNI code 11]");
    assert_eq!(fs::read_to_string(&log).expect("log"), "ADD \"a\" 0\nDEL \"c\" 0\nDEL \"b\" 0\nDEL \"a\" 0\n");
    assert!(runtime.attachments().is_empty());

    runtime.add(&failing("DEL"), &attachment()).expect("add");
    let error = runtime.del(&failing("DEL"), &attachment()).expect_err("told to fail");
    assert!(matches!(&error, RuntimeError::Several(errors) if errors.len() == 2), "{error}");
    assert!(fs::read_to_string(&log).expect("log").ends_with("DEL \"a\" 3\n"));
    assert_eq!(runtime.attachments().len(), 1, "what was not undone stays known");
}

#[test]
fn an_add_that_never_ended_is_undone_before_the_next() {
    let dir = tempfile::tempdir().expect("a folder");
    let runtime = runtime(dir.path());
    let (list, log) = two(dir.path());
    runtime.cache.write(&list, &attachment(), None).expect("as before a crash");
    runtime.add(&list, &attachment()).expect("add");
    let calls = fs::read_to_string(log).expect("log");
    let verbs: Vec<_> = calls.lines().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(verbs, ["DEL", "DEL", "ADD", "ADD"]);
}

#[test]
fn gc_deletes_what_is_known_and_tells_plugins_what_is_valid() {
    let dir = tempfile::tempdir().expect("a folder");
    let runtime = runtime(dir.path());
    let (list, log) = two(dir.path());
    runtime.add(&list, &attachment()).expect("add");
    runtime.add(&list, &Attachment { container_id: "c2".to_owned(), ..attachment() }).expect("add");
    let valid = [ValidAttachment { container_id: "c2".to_owned(), ifname: "eth0".to_owned() }];
    runtime.gc(&list, &valid).expect("gc");
    let left = runtime.attachments();
    assert_eq!((left.len(), &*left[0].attachment.container_id), (1, "c2"));
    assert!(fs::read_to_string(&log).expect("log").ends_with("GC \"a\" 01\nGC \"b\" 01\n"));
    runtime.del_container("c2").expect("del");
    assert!(runtime.attachments().is_empty());
    runtime.status(&list).expect("status");
}

#[test]
fn what_can_not_be_named_is_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let runtime = runtime(dir.path());
    let (list, _) = two(dir.path());
    for wrong in [
        Attachment { container_id: "../c".to_owned(), ..attachment() },
        Attachment { ifname: "sixteen-bytes-xx".to_owned(), ..attachment() },
        Attachment { args: vec![("A".to_owned(), "b;C=d".to_owned())], ..attachment() },
    ] {
        let error = runtime.add(&list, &wrong).expect_err("refused");
        assert_eq!(error.code(), code::INVALID_ENVIRONMENT, "{error}");
    }
}

fn install(dir: &Path, name: &str, script: &str) {
    let path = dir.join("bin").join(name);
    fs::create_dir_all(dir.join("bin")).expect("folder");
    fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("script");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("executable");
}

#[test]
fn unknown_types_are_executed_by_the_protocol() {
    let dir = tempfile::tempdir().expect("a folder");
    let runtime = runtime(dir.path());
    let script = format!(
        "cat > {0}/stdin.$CNI_COMMAND\necho \"$CNI_CONTAINERID $CNI_NETNS $CNI_IFNAME $CNI_ARGS $CNI_PATH\" > {0}/env\n\
         [ $CNI_COMMAND = ADD ] && echo '{{\"interfaces\": [{{\"name\": \"x\"}}]}}' || true",
        dir.path().display()
    );
    install(dir.path(), "foreign", &script);
    let list = list(&json!([{"type": "tagging", "tag": "a"}, {"type": "foreign", "key": 1}]));
    let result = runtime.add(&list, &attachment()).expect("add");
    assert_eq!(result.interfaces[0].name, "x");
    let environment = fs::read_to_string(dir.path().join("env")).expect("environment");
    let expected = format!("c1 /run/netns/c1 eth0 IgnoreUnknown=1 {}/bin\n", dir.path().display());
    assert_eq!(environment, expected);
    let stdin: Value = serde_json::from_slice(&fs::read(dir.path().join("stdin.ADD")).expect("stdin")).expect("JSON");
    assert_eq!(
        stdin,
        json!({"type": "foreign", "key": 1, "cniVersion": "1.1.0", "name": "n",
            "prevResult": {"cniVersion": "1.1.0", "interfaces": [{"name": "a"}]}})
    );
    runtime.del(&list, &attachment()).expect("del");
    assert_eq!(fs::read_dir(dir.path().join("running")).expect("folder").count(), 0);
}

#[test]
fn errors_of_foreign_plugins_are_told_in_their_words() {
    let dir = tempfile::tempdir().expect("a folder");
    let runtime = runtime(dir.path());
    let add = |kind: &str| runtime.add(&list(&json!([{"type": kind}])), &attachment()).expect_err("fails");
    install(dir.path(), "coded", "[ $CNI_COMMAND = DEL ] && exit 0; echo '{\"code\": 123, \"msg\": \"no\"}'; exit 1");
    assert_eq!(add("coded").code(), 123);
    install(dir.path(), "mute", "[ $CNI_COMMAND = DEL ] && exit 0; echo broken >&2; exit 3");
    assert!(add("mute").to_string().contains("broken"));
    install(dir.path(), "garbled", "echo nonsense");
    assert_eq!(add("garbled").code(), code::DECODE);
    assert!(add("absent").to_string().contains("there is no plugin \"absent\""));
}

#[test]
fn a_plugin_that_hangs_is_killed_with_its_children() {
    let dir = tempfile::tempdir().expect("a folder");
    let runtime = runtime(dir.path());
    let script =
        format!("[ $CNI_COMMAND = DEL ] && exit 0; sleep 1000 & echo $! > {}/child; wait", dir.path().display());
    install(dir.path(), "hangs", &script);
    let error = runtime.add(&list(&json!([{"type": "hangs"}])), &attachment()).expect_err("killed");
    assert_eq!(error.code(), code::TRY_AGAIN, "{error}");
    let child = fs::read_to_string(dir.path().join("child")).expect("pid");
    let deadline = Instant::now() + Duration::from_secs(20);
    let alive = || {
        let stat = fs::read_to_string(format!("/proc/{}/stat", child.trim())).unwrap_or_default();
        !stat.is_empty() && !stat.contains(") Z")
    };
    while alive() {
        assert!(Instant::now() < deadline, "the plugin's child was not killed");
        std::thread::yield_now();
    }
}

#[test]
fn recovery_waits_for_a_plugin_that_outlived_its_caller() {
    let dir = tempfile::tempdir().expect("a folder");
    let running = dir.path().join("running");
    wait_for_orphans(&running, Duration::ZERO).expect("nothing was ever run");
    fs::create_dir(&running).expect("folder");
    let orphan = fs::File::create(running.join("1-0")).expect("file");
    rustix::fs::flock(&orphan, rustix::fs::FlockOperation::LockShared).expect("lock");
    let error = wait_for_orphans(&running, Duration::from_millis(20)).expect_err("still running");
    assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
    drop(orphan);
    wait_for_orphans(&running, Duration::from_secs(20)).expect("it ended");
    assert_eq!(fs::read_dir(&running).expect("folder").count(), 0);
}
