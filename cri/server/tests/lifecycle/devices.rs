//! Devices by their CDI names, and how mounts of the host are seen inside.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use berth_cri_proto::v1 as cri;
use berth_cri_proto::v1::runtime_service_server::RuntimeService;
use serde_json::json;
use tonic::{Code, Request};

use crate::bench::{Bench, pod, script};
use crate::cases::cases;
use crate::pods::{inside, kernel_has_users, options, output, refuses_users, with_options};

cases![
    devices_have_names,
    mounts_spread_as_asked,
    read_only_goes_as_deep_as_asked,
    huge_pages_may_be_limited,
    a_restart_adopts_a_pod_with_its_users,
    a_failed_trial_means_no_user_namespaces,
];

fn with_devices(mut config: cri::ContainerConfig, names: &[&str]) -> cri::ContainerConfig {
    config.cdi_devices = names.iter().map(|name| cri::CdiDevice { name: (*name).to_owned() }).collect();
    config
}

async fn devices_have_names(bench: Bench) {
    let client = bench.open().await;
    let sandbox = client.run(pod("devices")).await.expect("a sandbox");
    let config = |name: &str, devices: &[&str]| with_devices(script(name, "exec sleep 1000"), devices);
    let error = client.create(&sandbox, config("early", &["berth.test/null=a"])).await.expect_err("nothing there");
    let folders = [bench.path("cdi"), bench.path("run-cdi")].map(|folder| folder.to_string_lossy().into_owned());
    assert_eq!(error.code(), Code::InvalidArgument);
    for part in ["CDI_devices[0].name", "berth.test/null=a", &folders[0], &folders[1]] {
        assert!(error.message().contains(part), "{error}");
    }

    let (data, missing) = (bench.path("data"), bench.path("missing"));
    fs::create_dir(&data).expect("a folder");
    fs::write(data.join("file"), "shown\n").expect("a file");
    fs::create_dir(bench.path("cdi")).expect("a folder");
    let spec = json!({"cdiVersion": "0.8.0", "kind": "berth.test/null",
    "containerEdits": {"env": ["CDI_SAYS=hello"]},
    "devices": [
        {"name": "a", "containerEdits": {
            "deviceNodes": [{"path": "/dev/berth-null", "hostPath": "/dev/null", "type": "c", "major": 1, "minor": 3,
                "permissions": "r", "fileMode": 416, "uid": 7}],
            "mounts": [{"hostPath": data, "containerPath": "/cdi", "options": ["ro", "nodev", "bind"]}],
            "additionalGids": [4242]}},
        {"name": "other", "containerEdits": {"deviceNodes": [
            {"path": "/dev/other", "hostPath": "/dev/null", "type": "c", "major": 1, "minor": 5}]}},
        {"name": "missing", "containerEdits": {"mounts": [{"hostPath": missing, "containerPath": "/cdi"}]}},
        {"name": "hooked", "containerEdits": {"hooks": [{"hookName": "createContainer", "path": "/bin/true"}]}}]});
    fs::write(bench.path("cdi/null.json"), spec.to_string()).expect("a specification");
    let one = || config("one", &["berth.test/null=a"]);
    let container = client.create(&sandbox, one()).await.expect("created");
    assert_eq!(client.create(&sandbox, one()).await.expect("the same again"), container);
    client.start(&container).await.expect("started");
    let text = output(
        &client,
        &container,
        "stat -c '%t:%T %a %u' /dev/berth-null; echo $CDI_SAYS; cat /cdi/file; id -G; \
         touch /cdi/new 2>&1 | grep -o 'Read-only file system'; cat /dev/berth-null && echo read",
    )
    .await;
    assert_eq!(text, "1:3 640 7\nhello\nshown\n0 4242\nRead-only file system\nread\n");
    // The same device by its usual name has the rights that every container has.
    assert_eq!(output(&client, &container, "echo > /dev/null && echo written").await, "written\n");

    for (device, part) in [
        ("berth.test/null=other", "another device than its CDI specification says"),
        ("berth.test/null=missing", "does not exist on the node"),
        ("berth.test/null=hooked", "containerEdits.hooks"),
        ("berth.test/null=b", "describes no device"),
    ] {
        let error = client.create(&sandbox, config("bad", &[device])).await.expect_err("refused");
        assert!(error.code() == Code::InvalidArgument && error.message().contains(part), "{error}");
    }
    assert!(!missing.exists(), "what a specification names is not made");
    // A broken neighbour costs nothing; a later folder counts, and a second description in it is one too many.
    fs::write(bench.path("cdi/broken.yaml"), "a: [").expect("a specification");
    fs::create_dir(bench.path("run-cdi")).expect("a folder");
    let yaml = "cdiVersion: \"0.6.0\"\nkind: berth.test/null\ndevices:\n- name: a\n  containerEdits:\n    env: [CDI_SAYS=later]\n";
    fs::write(bench.path("run-cdi/a.yaml"), yaml).expect("a specification");
    let later = client.create(&sandbox, config("later", &["berth.test/null=a"])).await.expect("created");
    client.start(&later).await.expect("started");
    assert_eq!(output(&client, &later, "echo $CDI_SAYS; ls /dev/berth-null 2>/dev/null").await, "later\n");
    fs::write(bench.path("run-cdi/b.yaml"), yaml).expect("a specification");
    let error = client.create(&sandbox, config("twice", &["berth.test/null=a"])).await.expect_err("two of them");
    assert!(error.message().contains("a.yaml and ") && error.message().contains("b.yaml both describe"), "{error}");
    client.remove_pod(&sandbox).await.expect("removed");
    bench.assert_clean();
}

/// A tmpfs that goes when the test ends, however it ends.
struct Mounted(PathBuf);

impl Mounted {
    fn on(path: PathBuf) -> Self {
        fs::create_dir_all(&path).expect("a folder");
        assert!(Command::new("mount").args(["-t", "tmpfs", "tmpfs"]).arg(&path).status().expect("mount").success());
        Self(path)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").args(["-l", "-R"]).arg(&self.0).status();
    }
}

fn bind(host: &Path, container: &str) -> cri::Mount {
    cri::Mount {
        host_path: host.to_string_lossy().into_owned(),
        container_path: container.to_owned(),
        ..cri::Mount::default()
    }
}

async fn mounts_spread_as_asked(bench: Bench) {
    let client = bench.open().await;
    let outer = Mounted::on(bench.path("outer"));
    for name in ["late", "inner"] {
        fs::create_dir(outer.0.join(name)).expect("a folder");
    }
    let slave = cri::Mount {
        propagation: cri::MountPropagation::PropagationHostToContainer.into(),
        ..bind(&outer.0, "/slave")
    };
    let mut sandbox_config = pod("spread");
    let linux = sandbox_config.linux.get_or_insert_default();
    linux.security_context.get_or_insert_default().privileged = true;
    let sandbox = client.run(sandbox_config).await.expect("a sandbox");
    let config = || {
        let mut config = script("sees", "exec sleep 1000");
        config.mounts.extend([slave.clone(), bind(&outer.0, "/private")]);
        config.linux.get_or_insert_default().security_context.get_or_insert_default().privileged = true;
        config
    };
    let error = client.create(&sandbox, config()).await.expect_err("the mount is private");
    assert!(error.message().contains("propagation") && error.message().contains("make-rshared"), "{error}");

    assert!(Command::new("mount").arg("--make-rshared").arg(&outer.0).status().expect("mount").success());
    let container = client.create(&sandbox, config()).await.expect("created");
    client.start(&container).await.expect("started");
    let late = Mounted::on(outer.0.join("late"));
    fs::write(late.0.join("file"), "").expect("a file");
    assert_eq!(output(&client, &container, "ls /slave/late; ls /private/late").await, "file\n");
    // What the container mounts is seen by nobody else.
    let mounted = "mount -t tmpfs tmpfs /slave/inner && touch /slave/inner/own && ls /slave/inner /private/inner";
    assert_eq!(output(&client, &container, mounted).await, "/private/inner:\n\n/slave/inner:\nown\n");
    assert!(!outer.0.join("inner/own").exists());
    // It goes when the host takes it away.
    drop(late);
    assert_eq!(output(&client, &container, "ls /slave/late").await, "");
    client.remove_pod(&sandbox).await.expect("removed");
    assert!(outer.0.join("late").is_dir() && outer.0.join("inner").is_dir(), "the host's own mount stays");
    drop(outer);
    bench.assert_clean();
}

async fn read_only_goes_as_deep_as_asked(bench: Bench) {
    let client = bench.open().await;
    let outer = Mounted::on(bench.path("outer"));
    let nested = Mounted::on(outer.0.join("nested"));
    let sandbox = client.run(pod("deep")).await.expect("a sandbox");
    let mut config = script("writes", "exec sleep 1000");
    let flat = cri::Mount { readonly: true, ..bind(&outer.0, "/flat") };
    let deep = cri::Mount { recursive_read_only: true, readonly: true, ..bind(&outer.0, "/deep") };
    config.mounts.extend([flat, deep, bind(&outer.0, "/writable")]);
    let container = client.create(&sandbox, config).await.expect("created");
    client.start(&container).await.expect("started");
    let text = output(
        &client,
        &container,
        "for path in /flat /flat/nested /deep /deep/nested /writable /writable/nested; do \
         (: > $path/$$) 2>/dev/null && echo $path; done",
    )
    .await;
    assert_eq!(text, "/flat/nested\n/writable\n/writable/nested\n");
    client.remove_pod(&sandbox).await.expect("removed");
    // The host's own mounts are as they were.
    fs::write(nested.0.join("after"), "").expect("writable");
    fs::write(outer.0.join("after"), "").expect("writable");
    drop((nested, outer));
    bench.assert_clean();
}

async fn huge_pages_may_be_limited(bench: Bench) {
    let client = bench.open().await;
    let sandbox = client.run(pod("huge")).await.expect("a sandbox");
    let with = |name: &str, size: &str| {
        let mut config = script(name, "exec sleep 1000");
        let limit = cri::HugepageLimit { page_size: size.to_owned(), limit: 4 << 20 };
        let limits = cri::LinuxContainerResources { hugepage_limits: vec![limit], ..Default::default() };
        config.linux.get_or_insert_default().resources = Some(limits);
        config
    };
    let container = client.create(&sandbox, with("c", "2MB")).await.expect("created");
    client.start(&container).await.expect("started");
    let seen = client.inspect(&container).await;
    let spec = &seen["runtimeSpec"]["linux"]["resources"]["hugepageLimits"];
    assert_eq!(*spec, json!([{"pageSize": "2MB", "limit": 4 << 20}]), "{seen}");
    // Where the machine counts huge pages at all, the kernel has it.
    let files = "/sys/fs/cgroup/hugetlb/hugetlb.2MB.limit_in_bytes /sys/fs/cgroup/hugetlb.2MB.max";
    let text = output(&client, &container, &format!("cat {files} 2>/dev/null")).await;
    assert!(text.is_empty() || text == "4194304\n", "{text}");
    let error = client.create(&sandbox, with("bad", "../2MB")).await.expect_err("no size");
    assert!(error.message().contains("hugepage_limits"), "{error}");
    client.remove_pod(&sandbox).await.expect("removed");
    bench.assert_clean();
}

fn own_users() -> cri::NamespaceOption {
    let map = cri::IdMapping { container_id: 0, host_id: 300_000, length: 65_536 };
    let users = cri::UserNamespace { mode: cri::NamespaceMode::Pod.into(), uids: vec![map], gids: vec![map] };
    options(cri::NamespaceMode::Pod, Some(&users))
}

async fn a_restart_adopts_a_pod_with_its_users(bench: Bench) {
    let client = bench.open().await;
    if !kernel_has_users() {
        refuses_users(&client, with_options(pod("users"), own_users())).await;
        return bench.assert_clean();
    }
    let sandbox = client.run(with_options(pod("users"), own_users())).await.expect("a sandbox");
    let config = |name: &str| inside(script(name, "exec sleep 1000"), own_users());
    let runs = client.create(&sandbox, config("runs")).await.expect("created");
    let waits = client.create(&sandbox, config("waits")).await.expect("created");
    client.start(&runs).await.expect("started");
    client.service.close().await;
    drop(client);

    let client = bench.open().await;
    assert_eq!(client.status(&runs).await.expect("status").state(), cri::ContainerState::ContainerRunning);
    client.start(&waits).await.expect("what was created before is started");
    let late = client.create(&sandbox, config("late")).await.expect("created");
    client.start(&late).await.expect("started");
    let look = "tr -s ' ' < /proc/self/uid_map; id -u; cat /proc/1/comm; cat /proc/[0-9]*/cmdline | tr '\\0' '\\n' | grep -cx '1000\\|exec sleep 1000'";
    for container in [&runs, &waits, &late] {
        assert_eq!(output(&client, container, look).await, " 0 300000 65536\n0\nberth-init\n3\n");
    }
    client.remove_pod(&sandbox).await.expect("removed");
    bench.assert_clean();
}

async fn a_failed_trial_means_no_user_namespaces(bench: Bench) {
    let client = bench.open().await;
    // The trial is made when it is first asked for, by the installed shim.
    let shims = || fs::read_dir(bench.path("state/bin")).into_iter().chain(fs::read_dir(bench.path("root/bin")));
    let shim = shims().flatten().flatten().map(|entry| entry.path()).next().expect("an installed shim");
    let aside = bench.path("shim");
    fs::rename(&shim, &aside).expect("moved");
    fs::write(&shim, "#!/bin/sh\necho no such kernel >&2\nexit 1\n").expect("a program");
    assert!(Command::new("chmod").arg("755").arg(&shim).status().expect("chmod").success());
    let asked = || client.service.status(Request::new(cri::StatusRequest::default()));
    let has = |status: cri::StatusResponse| status.runtime_handlers[0].features.expect("features").user_namespaces;
    assert!(!has(asked().await.expect("a status").into_inner()));
    let error = client.run(with_options(pod("users"), own_users())).await.expect_err("refused");
    assert!(error.code() == Code::FailedPrecondition && error.message().contains("no such kernel"), "{error}");
    fs::rename(&aside, &shim).expect("moved back");
    // What a node can't do it still can't; other pods live.
    assert!(!has(asked().await.expect("a status").into_inner()));
    let sandbox = client.run(pod("plain")).await.expect("a sandbox");
    client.remove_pod(&sandbox).await.expect("removed");
    bench.assert_clean();
}
