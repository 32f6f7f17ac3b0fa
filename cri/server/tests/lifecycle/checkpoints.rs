//! Checkpoints with a real criu, the first one in PATH.
//!
//! Which criu can dump anything at all on a kernel is known to criu alone (Debian 12's cannot on kernels from 6.13 on, whose
//! vDSO it does not understand). So `criu check` is asked, and what it answers is what a checkpoint must come to.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

use berth_cri_proto::v1 as cri;
use berth_cri_proto::v1::runtime_service_server::RuntimeService;
use tonic::{Code, Request, Status};

use crate::bench::{Bench, Client, hello, pod, script};
use crate::cases::cases;
use crate::pods::{inside, kernel_has_users, options, refuses_users, with_options};

cases![
    a_missing_criu_is_named,
    a_checkpoint_has_what_tools_read,
    containers_of_every_kind_are_checkpointed,
    a_criu_that_fails_changes_nothing,
    a_criu_that_hangs_is_ended,
];

const CRIU: &str = "criu";

/// Whether criu works on this kernel.
fn works() -> bool {
    let output = Command::new(CRIU).arg("check").output().expect("criu is installed");
    output.status.success()
}

async fn checkpoint(client: &Client, container: &str, location: &Path, timeout: i64) -> Result<(), Status> {
    let location = location.to_str().expect("text").to_owned();
    let request = cri::CheckpointContainerRequest { container_id: container.to_owned(), location, timeout };
    client.service.checkpoint_container(Request::new(request)).await.map(drop)
}

/// The runtime with a criu.
async fn with(bench: &mut Bench, criu: &Path) -> Client {
    // criu finds out what the kernel can with sockets of its own.
    Command::new("ip").args(["link", "set", "lo", "up"]).status().expect("ip");
    bench.config.criu = criu.to_owned();
    bench.open().await
}

/// A container that counts in its log.
async fn counting(client: &Client, sandbox: &str, begin: &str) -> String {
    let text = format!("{begin}; n=0; while :; do echo count $n; n=$((n+1)); sleep 0.02; done");
    let container = client.create(sandbox, script("c", &text)).await.expect("created");
    client.start(&container).await.expect("started");
    client.said("c", "count 3").await;
    container
}

/// It goes on where it was, and nothing of a checkpoint is left.
async fn assert_untouched(bench: &Bench, client: &Client, container: &str, archives: &Path, left: &[&str]) {
    let counted = client.log("c").matches("count").count();
    client.said("c", &format!("count {}", counted + 3)).await;
    assert_eq!(client.status(container).await.expect("status").state(), cri::ContainerState::ContainerRunning);
    assert_eq!(client.exec(container, &["/bin/true"], 10).await.expect("ran").exit_code, 0);
    let list = |folder: &Path| {
        let entries = std::fs::read_dir(folder).expect("a folder").flatten();
        let mut names: Vec<_> = entries.map(|entry| entry.file_name().into_string().expect("text")).collect();
        names.sort();
        names
    };
    assert_eq!(list(archives), left);
    let own = list(&bench.path("root/containers").join(container));
    assert!(!own.iter().any(|name| name.starts_with(".tmp-")), "{own:?}");
}

fn archives(bench: &Bench) -> PathBuf {
    let folder = bench.path("archives");
    std::fs::create_dir(&folder).expect("a folder");
    folder
}

async fn a_missing_criu_is_named(mut bench: Bench) {
    let client = with(&mut bench, Path::new("/no/such/criu")).await;
    let archives = archives(&bench);
    let nobody = checkpoint(&client, &"0".repeat(64), &archives.join("a.tar"), 0).await;
    assert_eq!(nobody.expect_err("nobody").code(), Code::NotFound);
    let sandbox = client.run(pod("criuless")).await.expect("a sandbox");
    let container = client.create(&sandbox, hello("waits")).await.expect("created");
    let error = checkpoint(&client, &container, &archives.join("a.tar"), 0).await.expect_err("not running");
    assert_eq!(error.code(), Code::FailedPrecondition, "{error}");
    let container = counting(&client, &sandbox, "true").await;
    let error = checkpoint(&client, &container, &archives.join("a.tar"), 0).await.expect_err("no criu");
    assert_eq!(error.code(), Code::Unimplemented, "{error}");
    assert!(error.message().contains("/no/such/criu") && error.message().contains("install criu"), "{error}");
    for (location, timeout) in [("", 0), ("relative.tar", 0), ("/", 0), ("/tmp/../x.tar", 0), ("/tmp/x.tar", -1)] {
        let error = checkpoint(&client, &container, Path::new(location), timeout).await.expect_err("refused");
        assert_eq!(error.code(), Code::InvalidArgument, "{location:?}: {error}");
    }
    assert_untouched(&bench, &client, &container, &archives, &[]).await;
    client.remove_pod(&sandbox).await.expect("removed");
    bench.assert_clean();
}

/// The files of an archive, those of criu's images by their names alone.
fn read(archive: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut archive = tar::Archive::new(std::fs::File::open(archive).expect("an archive"));
    let mut files = BTreeMap::new();
    for entry in archive.entries().expect("entries") {
        let mut entry = entry.expect("an entry");
        let name = entry.path().expect("a name").to_str().expect("text").to_owned();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).expect("its data");
        files.insert(name, bytes);
    }
    files
}

async fn a_checkpoint_has_what_tools_read(mut bench: Bench) {
    let client = with(&mut bench, Path::new(CRIU)).await;
    let folder = archives(&bench);
    let archive = folder.join("a.tar");
    let sandbox = client.run(pod("dumped")).await.expect("a sandbox");
    let container = counting(&client, &sandbox, "mkdir /made; echo kept >/made/file; ln -s file /made/link").await;
    let outcome = checkpoint(&client, &container, &archive, 60).await;
    if !works() {
        let error = outcome.expect_err("criu can't");
        println!("criu does not work on this kernel, and a checkpoint says so: {error}");
        assert_eq!(error.code(), Code::Unknown, "{error}");
        assert!(error.message().contains("criu") && error.message().contains("it runs as before"), "{error}");
        assert_untouched(&bench, &client, &container, &folder, &[]).await;
        client.remove_pod(&sandbox).await.expect("removed");
        return bench.assert_clean();
    }
    outcome.expect("checkpointed");
    assert_untouched(&bench, &client, &container, &folder, &["a.tar"]).await;
    let again = checkpoint(&client, &container, &archive, 60).await.expect_err("it is there");
    assert_eq!(again.code(), Code::AlreadyExists, "{again}");

    let files = read(&archive);
    let json = |name: &str| serde_json::from_slice::<serde_json::Value>(&files[name]).expect(name);
    let config = json("config.dump");
    assert_eq!((config["id"].as_str(), config["name"].as_str()), (Some(&*container), Some("c")));
    let pid = client.inspect(&container).await["pid"].clone();
    assert_eq!(json("status")["Pid"], pid);
    assert_eq!(json("spec.dump")["annotations"]["io.kubernetes.cri.sandbox-name"], "dumped");
    assert_eq!(json("status.dump")["id"].as_str(), Some(&*container));
    for name in ["checkpoint/inventory.img", "checkpoint/pstree.img", "checkpoint/core-1.img", "stats-dump"] {
        assert!(files.get(name).is_some_and(|bytes| !bytes.is_empty()), "{name}: {:?}", files.keys());
    }
    assert!(String::from_utf8_lossy(&files["dump.log"]).contains("Dumping finished successfully"));
    assert!(String::from_utf8_lossy(&files["container.log"]).contains("count 3"));
    let changes = folder.join("changes.tar");
    std::fs::write(&changes, &files["rootfs-diff.tar"]).expect("written");
    let changed = read(&changes);
    assert_eq!(changed["made/file"], b"kept\n");
    assert!(changed.contains_key("made/link"), "{:?}", changed.keys());
    client.remove_pod(&sandbox).await.expect("removed");
    bench.assert_clean();
}

/// Terminals, connections, shared processes, users of a pod's own, another runtime.
async fn containers_of_every_kind_are_checkpointed(mut bench: Bench) {
    let client = with(&mut bench, Path::new(CRIU)).await;
    let folder = archives(&bench);
    let map = cri::IdMapping { container_id: 0, host_id: 200_000, length: 65_536 };
    let users = cri::UserNamespace { mode: cri::NamespaceMode::Pod.into(), uids: vec![map], gids: vec![map] };
    let own = options(cri::NamespaceMode::Container, None);
    for (name, handler, tty, options) in [
        ("terminal", "", true, own.clone()),
        ("shared", "", false, options(cri::NamespaceMode::Pod, None)),
        ("users", "", false, options(cri::NamespaceMode::Container, Some(&users))),
        ("runc", "runc", false, own.clone()),
    ] {
        let asked = with_options(pod(name), options.clone());
        if name == "users" && !kernel_has_users() {
            refuses_users(&client, asked).await;
            continue;
        }
        let sandbox = client.run_with(handler, asked).await.expect("a sandbox");
        let mut config = inside(
            script("c", "nc -l 127.0.0.1 7 & n=0; while :; do echo count $n; n=$((n+1)); sleep 0.02; done"),
            options,
        );
        config.tty = tty;
        let container = client.create(&sandbox, config).await.expect("created");
        client.start(&container).await.expect("started");
        client.said("c", "count 3").await;
        let archive = folder.join(format!("{name}.tar"));
        let outcome = checkpoint(&client, &container, &archive, 60).await;
        assert_eq!(outcome.is_ok(), works(), "{name}: {outcome:?}");
        assert_eq!(archive.exists(), works(), "{name}");
        let counted = client.log("c").matches("count").count();
        client.said("c", &format!("count {}", counted + 3)).await;
        std::fs::remove_file(client.logs.join("c.log")).expect("removed");
        client.remove_pod(&sandbox).await.expect("removed");
    }
    bench.assert_clean();
}

/// A deleted file of more than a mebibyte is what criu won't take (`--ghost-limit`): it finds out when all processes are
/// stopped already. One that does not work here fails earlier.
async fn a_criu_that_fails_changes_nothing(mut bench: Bench) {
    let client = with(&mut bench, Path::new(CRIU)).await;
    let archives = archives(&bench);
    let sandbox = client.run(pod("undumped")).await.expect("a sandbox");
    let begin = "exec 5>/big; head -c 3000000 /dev/zero >&5; rm /big";
    let container = counting(&client, &sandbox, begin).await;
    let error = checkpoint(&client, &container, &archives.join("a.tar"), 0).await.expect_err("it fails");
    assert_eq!(error.code(), Code::Unknown, "{error}");
    assert!(error.message().contains("criu"), "{error}");
    assert_eq!(error.message().contains("ghost"), works(), "criu's own words: {error}");
    assert_untouched(&bench, &client, &container, &archives, &[]).await;
    let lost = checkpoint(&client, &container, Path::new("/no/such/folder/a.tar"), 0).await.expect_err("no folder");
    assert!(lost.message().contains("/no/such/folder"), "{lost}");
    client.remove_pod(&sandbox).await.expect("removed");
    bench.assert_clean();
}

/// A criu that says which it is, locks the network as that one does, and then does not come to an end.
async fn a_criu_that_hangs_is_ended(mut bench: Bench) {
    const HANGS: &str = "#!/bin/sh
[ \"$1\" = --version ] && exec echo Version: 3.17.1
nsenter -t \"$3\" -n nft add table inet \"CRIU-$3\"
exec sleep 1001
";
    let hangs = bench.path("criu");
    std::fs::write(&hangs, HANGS).expect("a script");
    Command::new("chmod").arg("+x").arg(&hangs).status().expect("chmod");
    let client = with(&mut bench, &hangs).await;
    let archives = archives(&bench);
    let sandbox = client.run(pod("hanging")).await.expect("a sandbox");
    let container = counting(&client, &sandbox, "true").await;
    let error = checkpoint(&client, &container, &archives.join("a.tar"), 1).await.expect_err("it hangs");
    assert_eq!(error.code(), Code::DeadlineExceeded, "{error}");
    let pid = client.inspect(&container).await["pid"].to_string();
    let tables = Command::new("nsenter").args(["-t", &pid, "-n", "nft", "list", "tables"]).output().expect("nft");
    assert!(tables.status.success() && !String::from_utf8_lossy(&tables.stdout).contains("CRIU"), "{tables:?}");
    assert_untouched(&bench, &client, &container, &archives, &[]).await;
    let lines =
        std::fs::read_dir("/proc").expect("proc").flatten().map(|entry| std::fs::read(entry.path().join("cmdline")));
    assert!(!lines.flatten().any(|line| line == b"sleep\x001001\0"), "it is ended");

    // What a runtime that died meanwhile has left is removed by the next.
    let left = bench.path("root/containers").join(&container).join(".tmp-checkpoint");
    std::fs::create_dir_all(left.join("checkpoint")).expect("a folder");
    client.service.close().await;
    drop(client);
    let client = bench.open().await;
    assert_untouched(&bench, &client, &container, &archives, &[]).await;
    client.remove_pod(&sandbox).await.expect("removed");
    bench.assert_clean();
}
