use super::*;

const GPU: &str = r#"{
  "cdiVersion": "0.6.0", "kind": "vendor.com/gpu", "annotations": {"any": "thing"},
  "containerEdits": {"env": ["GPUS=all"], "mounts": [
    {"hostPath": "/usr/lib/gpu.so", "containerPath": "/lib/gpu.so", "options": ["ro", "nosuid", "bind"]}]},
  "devices": [
    {"name": "0", "containerEdits": {"deviceNodes": [
      {"path": "/dev/gpu0", "hostPath": "/dev/real0", "permissions": "rw", "type": "c", "major": 195, "minor": 0,
       "fileMode": 438, "uid": 7}], "additionalGids": [0, 44]}},
    {"name": "1", "containerEdits": {"deviceNodes": [{"path": "/dev/gpu1"}], "env": ["SECOND=a=b"]}}]}"#;

fn file(path: &str, folder: usize, text: &str) -> SpecFile {
    SpecFile { path: path.into(), folder, text: Ok(text.into()) }
}

fn config(names: &[&str]) -> cri::ContainerConfig {
    let cdi_devices = names.iter().map(|name| cri::CdiDevice { name: (*name).into() }).collect();
    cri::ContainerConfig { cdi_devices, ..Default::default() }
}

fn found(files: &[SpecFile]) -> Found {
    Found { folders: vec!["/etc/cdi".into(), "/var/run/cdi".into()], files: files.to_vec() }
}

fn refused(names: &[&str], files: &[SpecFile]) -> String {
    apply(&config(names), &found(files)).expect_err("refused").to_string()
}

#[test]
fn devices_become_what_they_stand_for() {
    let names = ["vendor.com/gpu=0", "vendor.com/gpu=1", "vendor.com/gpu=0"];
    let applied = apply(&config(&names), &found(&[file("/etc/cdi/gpu.json", 0, GPU)])).expect("accepted");
    let got = &applied.config;
    assert!(got.cdi_devices.is_empty());
    let devices: Vec<_> =
        got.devices.iter().map(|d| (d.container_path.as_str(), d.host_path.as_str(), d.permissions.as_str())).collect();
    assert_eq!(devices, [("/dev/gpu0", "/dev/real0", "rw"), ("/dev/gpu1", "/dev/gpu1", "rwm")]);
    let envs: Vec<_> = got.envs.iter().map(|e| (e.key.as_str(), e.value.as_slice())).collect();
    assert_eq!(envs, [("GPUS", &b"all"[..]), ("SECOND", b"a=b")], "what is for all devices comes once");
    assert_eq!(got.mounts.len(), 1);
    assert!(got.mounts[0].readonly && got.mounts[0].mount_options == ["nosuid"]);
    assert_eq!(applied.sources, ["/usr/lib/gpu.so"]);
    let gpu = NodeSpec {
        kind: Some(DeviceKind::Character),
        major: Some(195),
        minor: Some(0),
        mode: Some(0o666),
        uid: Some(7),
        gid: None,
    };
    assert_eq!(applied.nodes["/dev/gpu0"], gpu);
    assert_eq!(applied.nodes["/dev/gpu1"], NodeSpec::default());
    let security = got.linux.as_ref().and_then(|linux| linux.security_context.as_ref()).expect("set");
    assert_eq!(security.supplemental_groups, [44]);
    assert_eq!(apply(&config(&[]), &found(&[])).expect("nothing asked").config, config(&[]));
}

#[test]
fn yaml_serves_too_and_the_later_folder_counts() {
    let yaml = |env: &str| {
        format!("cdiVersion: \"1.0.0\"\nkind: v/c\ndevices:\n- name: a\n  containerEdits:\n    env:\n    - {env}\n")
    };
    let files = [file("/etc/cdi/a.yaml", 0, &yaml("WHO=etc")), file("/var/run/cdi/a.yaml", 1, &yaml("WHO=run"))];
    let applied = apply(&config(&["v/c=a"]), &found(&files)).expect("accepted");
    assert_eq!(applied.config.envs[0].value, b"run");
    let twice = [file("/etc/cdi/a.yaml", 0, &yaml("A=1")), file("/etc/cdi/b.yaml", 0, &yaml("A=2"))];
    let error = refused(&["v/c=a"], &twice);
    assert!(error.contains("/etc/cdi/a.yaml and /etc/cdi/b.yaml both describe"), "{error}");
}

#[test]
fn what_can_not_be_done_is_refused_by_name() {
    let with = |edits: &str| {
        let text = format!(
            r#"{{"cdiVersion": "1.1.0", "kind": "v/c", "devices": [{{"name": "a", "containerEdits": {edits}}}]}}"#
        );
        refused(&["v/c=a"], &[file("/etc/cdi/a.json", 0, &text)])
    };
    for (edits, named) in [
        (r#"{"hooks": [{"hookName": "createContainer", "path": "/x"}]}"#, "containerEdits.hooks"),
        (r#"{"netDevices": [{}]}"#, "containerEdits.netDevices"),
        (r#"{"intelRdt": {}}"#, "containerEdits.intelRdt"),
        (r#"{"env": ["A"]}"#, "containerEdits.env"),
        (r#"{"mounts": [{"hostPath": "/a", "containerPath": "/a", "type": "tmpfs"}]}"#, "containerEdits.mounts.type"),
        (r#"{"deviceNodes": [{"path": "/dev/a", "type": "p"}]}"#, "containerEdits.deviceNodes.type"),
        (r#"{"surprise": 1}"#, "surprise"),
    ] {
        let error = with(edits);
        assert!(error.contains(named), "{error}");
    }
    let unknown = refused(&["v/c=a"], &[]);
    assert!(
        unknown.contains("describes no device \"v/c=a\"") && unknown.contains("/etc/cdi and /var/run/cdi"),
        "{unknown}"
    );
    for name in ["", "a", "v/c", "v/c=", "c=a", "=a"] {
        assert!(refused(&[name], &[]).starts_with("CDI_devices[0].name: "), "{name}");
    }
    let many = vec!["v/c=a"; MAX_DEVICES + 1];
    assert!(refused(&many, &[]).starts_with("CDI_devices: "));
}

#[test]
fn bad_specifications_cost_their_own_devices_only() {
    let version =
        |version: &str| format!(r#"{{"cdiVersion": "{version}", "kind": "v/c", "devices": [{{"name": "a"}}]}}"#);
    for good in ["0.3.0", "0.8.0", "1.0.0", "1.1.0"] {
        apply(&config(&["v/c=a"]), &found(&[file("/etc/cdi/a.json", 0, &version(good))])).expect(good);
    }
    for bad in ["0.2.0", "0.9.0", "1.2.0", "2.0.0", "1", "x"] {
        assert!(refused(&["v/c=a"], &[file("/etc/cdi/a.json", 0, &version(bad))]).contains("cdiVersion"), "{bad}");
    }
    let unread = SpecFile { path: "/etc/cdi/b.json".into(), folder: 0, text: Err("too large".into()) };
    let files = [unread, file("/etc/cdi/c.yaml", 0, "a: [b"), file("/etc/cdi/d.json", 0, "{"), file("/e.json", 0, GPU)];
    apply(&config(&["vendor.com/gpu=0"]), &found(&files)).expect("the good one is there");
    let error = refused(&["v/c=a"], &files);
    assert!(error.contains("/etc/cdi/b.json: too large") && error.contains("/etc/cdi/d.json"), "{error}");
    // References that would multiply without end.
    let bomb = format!(
        "a: &a [x,x,x,x,x,x,x,x,x]\n{}",
        (0..9)
            .map(|n| {
                let (from, to) = (char::from(b'a' + n), char::from(b'b' + n));
                format!("{to}: &{to} [*{from},*{from},*{from},*{from},*{from},*{from},*{from},*{from},*{from}]\n")
            })
            .collect::<String>()
    );
    assert!(refused(&["v/c=a"], &[file("/etc/cdi/bomb.yaml", 0, &bomb)]).contains("bomb.yaml"));
}
