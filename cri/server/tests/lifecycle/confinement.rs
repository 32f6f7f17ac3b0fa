//! Confinement by the kernel's security module, where it has one: `cargo xtask vm suites` has AppArmor.

use std::fs;

use berth_cri_proto::v1 as cri;
use cri::security_profile::ProfileType;

use crate::bench::{Bench, pod, script};
use crate::cases::cases;

cases![apparmor_confines_where_it_is_on];

/// Tells its profile, then whether it can mount, which its capabilities and the lack of seccomp allow.
const TELL: &str = "echo profile $(tr -d '\\0' </proc/self/attr/current 2>/dev/null); \
    mount -t tmpfs none /mnt 2>/dev/null && echo mounts || echo mounts not; exec sleep 1000";

fn container(name: &str, apparmor: Option<ProfileType>) -> cri::ContainerConfig {
    let mut config = script(name, TELL);
    let profile = |kind: ProfileType| cri::SecurityProfile { profile_type: kind.into(), localhost_ref: String::new() };
    config.linux.get_or_insert_default().security_context = Some(cri::LinuxContainerSecurityContext {
        apparmor: apparmor.map(profile),
        seccomp: Some(profile(ProfileType::Unconfined)),
        capabilities: Some(cri::Capability { add_capabilities: vec!["SYS_ADMIN".into()], ..Default::default() }),
        ..Default::default()
    });
    // A place to mount on: the image has no folder but its root.
    config.mounts.push(cri::Mount {
        container_path: "/mnt".into(),
        host_path: std::env::temp_dir().to_string_lossy().into_owned(),
        readonly: true,
        ..Default::default()
    });
    config
}

async fn apparmor_confines_where_it_is_on(bench: Bench) {
    let on = fs::read_to_string("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.starts_with('Y'));
    let client = bench.open().await;
    let sandbox = client.run(pod("web")).await.expect("a sandbox");
    let confined = "profile berth-default (enforce)";
    let default = client.create(&sandbox, container("default", Some(ProfileType::RuntimeDefault))).await;
    match (default, on) {
        (Ok(default), true) => {
            client.start(&default).await.expect("started");
            client.said("default", "mounts not").await;
            assert!(client.log("default").contains(confined), "{}", client.log("default"));
            let answer = client.exec(&default, &["/bin/cat", "/proc/self/attr/current"], 5).await.expect("an exec");
            let stdout = String::from_utf8_lossy(&answer.stdout);
            assert!(stdout.starts_with("berth-default (enforce)"), "a command is confined, too: {stdout:?}");
        }
        (Err(error), false) => assert!(error.message().contains("linux.security_context.apparmor"), "{error}"),
        (outcome, on) => panic!("AppArmor is on: {on}, and there is {outcome:?}"),
    }
    for (name, profile) in [("unset", None), ("free", Some(ProfileType::Unconfined))] {
        let id = client.create(&sandbox, container(name, profile)).await.expect("created");
        client.start(&id).await.expect("started");
        client.said(name, "mounts").await;
        let is_confined = on && name == "unset";
        let log = client.log(name);
        assert_eq!((log.contains(confined), log.contains("mounts not")), (is_confined, is_confined), "{name}: {log}");
    }
    client.remove_pod(&sandbox).await.expect("removed");
    drop(client);
    bench.assert_clean();
}
