//! What containers of a pod share, users of a pod's own, and images as volumes.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;

use berth_cri_proto::v1 as cri;
use berth_cri_proto::v1::image_service_server::ImageService;
use berth_cri_proto::v1::runtime_service_server::RuntimeService;
use berth_image::import::Layout;
use oci_spec::image::Config as ImageConfig;
use tonic::{Code, Request};

use crate::bench::{Bench, Client, pod, script};

pub(crate) fn options(pid: cri::NamespaceMode, users: Option<&cri::UserNamespace>) -> cri::NamespaceOption {
    cri::NamespaceOption { pid: pid.into(), userns_options: users.cloned(), ..Default::default() }
}

pub(crate) fn with_options(mut config: cri::PodSandboxConfig, options: cri::NamespaceOption) -> cri::PodSandboxConfig {
    let security = config.linux.get_or_insert_default().security_context.get_or_insert_default();
    security.namespace_options = Some(options);
    config
}

pub(crate) fn inside(mut config: cri::ContainerConfig, options: cri::NamespaceOption) -> cri::ContainerConfig {
    let security = config.linux.get_or_insert_default().security_context.get_or_insert_default();
    security.namespace_options = Some(options);
    config
}

pub(crate) async fn output(client: &Client, container: &str, script: &str) -> String {
    let out = client.exec(container, &["/bin/sh", "-c", script], 20).await.expect("ran");
    format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
}

/// Whether pods can have users of their own here: a tmpfs, which volumes of secrets are, takes other ids since Linux 6.3.
pub(crate) fn kernel_has_users() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("a release");
    let mut numbers = release.split(['.', '-']).map(|part| part.parse::<u32>().unwrap_or(0));
    (numbers.next(), numbers.next()) >= (Some(6), Some(3))
}

/// A kernel that can't is no reason for a pod that shares what it asked not to share.
pub(crate) async fn refuses_users(client: &Client, config: cri::PodSandboxConfig) {
    let error = client.run(config).await.expect_err("this kernel can't");
    assert_eq!(error.code(), Code::FailedPrecondition, "{error}");
    assert!(error.message().contains("show a tmpfs with other ids"), "{error}");
}

pub(crate) async fn a_pod_has_users_of_its_own(bench: Bench) {
    let client = bench.open().await;
    let status = client.service.status(Request::new(cri::StatusRequest { verbose: true })).await.expect("a status");
    let status = status.into_inner();
    let features = status.runtime_handlers[0].features.as_ref().expect("features");
    assert_eq!(features.user_namespaces, kernel_has_users());
    assert!(status.info["config"].contains("\"stateDir\""), "{:?}", status.info);
    let map = cri::IdMapping { container_id: 0, host_id: 200_000, length: 65_536 };
    let users = cri::UserNamespace { mode: cri::NamespaceMode::Pod.into(), uids: vec![map], gids: vec![map] };
    if !kernel_has_users() {
        refuses_users(&client, with_options(pod("users"), options(cri::NamespaceMode::Pod, Some(&users)))).await;
        return bench.assert_clean();
    }
    for (name, pid) in [("users-alone", cri::NamespaceMode::Container), ("users-shared", cri::NamespaceMode::Pod)] {
        let options = options(pid, Some(&users));
        let mut config = with_options(pod(name), options.clone());
        let sysctls = [("net.ipv4.ip_default_ttl", "77"), ("kernel.shm_rmid_forced", "1")];
        config.linux.get_or_insert_default().sysctls =
            sysctls.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect::<HashMap<_, _>>();
        let sandbox = client.run(config).await.expect("a sandbox");
        let status = client.pod_status(&sandbox).await.expect("a status");
        let shown = status.linux.and_then(|linux| linux.namespaces).and_then(|namespaces| namespaces.options);
        assert_eq!(shown, Some(options.clone()));
        let ip = status.network.expect("a network").ip;
        assert!(ip.starts_with("10.211.0."), "{ip}");
        let config = inside(script("c", "touch /mine /dev/shm/mine; exec sleep 1000"), options);
        let container = client.create(&sandbox, config).await.expect("created");
        client.start(&container).await.expect("started");
        let text = output(
            &client,
            &container,
            "tr -s ' ' < /proc/self/uid_map; cat /proc/1/comm; id -u; stat -c %u / /mine /etc/hosts /dev/shm/mine; \
             cat /proc/sys/net/ipv4/ip_default_ttl /proc/sys/kernel/shm_rmid_forced; ls -d /sys/class/net/eth0; \
             grep -c memory /proc/self/cgroup; ls /sys/fs/cgroup | wc -l | grep -v '^0$' > /dev/null && echo cgroups",
        )
        .await;
        let first = if pid == cri::NamespaceMode::Pod { "berth-init" } else { "sleep" };
        let start = format!(" 0 200000 65536\n{first}\n0\n0\n0\n0\n0\n77\n1\n/sys/class/net/eth0\n");
        assert!(text.starts_with(&start) && text.ends_with("cgroups\n"), "{text}");
        let owner = bench.path("root/containers").join(&container).join("upper/mine");
        assert_eq!(std::fs::metadata(owner).expect("a file").uid(), 200_000);

        client.stop(&container, 0).await.expect("stopped");
        client.remove_pod(&sandbox).await.expect("removed");
        bench.assert_clean();
    }
    // What no pod can have is refused before anything is made.
    let two = cri::UserNamespace { uids: vec![map, map], ..users };
    let error = client.run(with_options(pod("two"), options(cri::NamespaceMode::Pod, Some(&two)))).await;
    assert_eq!(error.expect_err("two mappings").code(), Code::InvalidArgument);
    bench.assert_clean();
}

pub(crate) async fn containers_share_processes(bench: Bench) {
    let client = bench.open().await;
    let shared = options(cri::NamespaceMode::Pod, None);
    let sandbox = client.run(with_options(pod("shared"), shared.clone())).await.expect("a sandbox");
    let config = |name: &str, text: &str| inside(script(name, text), shared.clone());
    let main = client.create(&sandbox, config("main", "sleep 1111 & exec sleep 1000")).await.expect("created");
    client.start(&main).await.expect("started");
    let other = client.create(&sandbox, config("other", "exec sleep 2000")).await.expect("created");
    client.start(&other).await.expect("started");
    let text = output(&client, &other, "cat /proc/1/comm; cat /proc/[0-9]*/cmdline | tr '\\0' ' '").await;
    assert!(text.starts_with("berth-init\n") && text.contains("sleep 1000") && text.contains("sleep 2000"), "{text}");
    // A debugger joins one of them, whose processes are these too.
    let target = cri::NamespaceOption { target_id: main.clone(), ..options(cri::NamespaceMode::Target, None) };
    let config = inside(script("debug", "exec sleep 3000"), target.clone());
    let debug = client.create(&sandbox, config.clone()).await.expect("created");
    client.start(&debug).await.expect("started");
    let text = output(&client, &debug, "cat /proc/[0-9]*/cmdline | tr '\\0' ' '").await;
    assert!(text.contains("sleep 1000"), "{text}");
    // What a container leaves behind ends with it, though it was not process 1.
    client.stop(&main, 0).await.expect("stopped");
    let text = output(&client, &other, "cat /proc/[0-9]*/cmdline | tr '\\0' ' '").await;
    assert!(text.contains("sleep 2000") && !text.contains("sleep 1111"), "{text}");
    let config = cri::ContainerConfig {
        metadata: Some(cri::ContainerMetadata { name: "late".to_owned(), attempt: 0 }),
        ..inside(script("late", "true"), target)
    };
    let error = client.create(&sandbox, config).await.expect_err("its target has ended");
    assert_eq!(error.code(), Code::InvalidArgument, "{error}");
    client.remove_pod(&sandbox).await.expect("removed");
    bench.assert_clean();
}

pub(crate) async fn images_are_volumes(bench: Bench) {
    images_as_volumes(&bench, "").await;
}

/// With any handler.
pub(crate) async fn images_as_volumes(bench: &Bench, handler: &str) {
    const DATA: &str = "berth.test/data:1";
    let client = bench.open().await;
    let layout = Layout::single_binary("data", b"#!/bin/sh\necho ran\n", &ImageConfig::default()).expect("an image");
    client.service.images().import_layout(DATA, layout, false).await.expect("imported");
    let id = client.service.images().find(DATA).expect("it is there").id;
    let sandbox = client.run_with(handler, pod("volumes")).await.expect("a sandbox");
    let mount = |image: &str, sub_path: &str| cri::Mount {
        container_path: "/data".to_owned(),
        readonly: true,
        image: Some(cri::ImageSpec { image: image.to_owned(), ..Default::default() }),
        image_sub_path: sub_path.to_owned(),
        ..Default::default()
    };
    let with = |name: &str, mount: cri::Mount| {
        let mut config = script(name, "exec sleep 1000");
        config.mounts.push(mount);
        config
    };
    for (name, image, sub_path, file) in
        [("by-name", DATA, "", "/data/data"), ("by-id", id.as_str(), "", "/data/data"), ("part", DATA, "data", "/data")]
    {
        let container = client.create(&sandbox, with(name, mount(image, sub_path))).await.expect("created");
        let status = client.status(&container).await.expect("a status");
        let shown = status.mounts.iter().find(|mount| mount.container_path == "/data").expect("the mount");
        assert_eq!(shown.image.as_ref().expect("its image").image_ref, id);
        let again = client.create(&sandbox, with(name, mount(image, sub_path))).await;
        assert_eq!(again.expect("the same request gets the same container"), container);
        client.start(&container).await.expect("started");
        let text =
            output(&client, &container, &format!("{file}; touch {file} 2>&1 | grep -o 'Read-only file system'")).await;
        assert_eq!(text, "ran\nRead-only file system\n", "{name}");
        client.stop(&container, 0).await.expect("stopped");
    }
    for (name, change) in
        [("missing", mount(DATA, "no/such")), ("writable", cri::Mount { readonly: false, ..mount(DATA, "") })]
    {
        let error = client.create(&sandbox, with(name, change)).await.expect_err("refused");
        assert_eq!(error.code(), Code::InvalidArgument, "{name}: {error}");
    }
    let error = client.create(&sandbox, with("unknown", mount("no/such:image", ""))).await.expect_err("no image");
    assert_eq!(error.code(), Code::NotFound);

    // An image goes when it is told to; its files stay for who uses them.
    let container = client.create(&sandbox, with("keeps", mount(DATA, ""))).await.expect("created");
    let spec = cri::ImageSpec { image: DATA.to_owned(), ..Default::default() };
    let removal = cri::RemoveImageRequest { image: Some(spec) };
    client.service.remove_image(Request::new(removal)).await.expect("removed");
    client.start(&container).await.expect("started");
    assert_eq!(output(&client, &container, "/data/data").await, "ran\n");
    let layers = || std::fs::read_dir(bench.path("root/layers")).expect("layers").count();
    let before = layers();
    client.remove_pod(&sandbox).await.expect("removed");
    assert_eq!(layers(), before - 1, "with the last user the files go");
    bench.assert_clean();
}
