//! What breaks between the runtime and its shims, plugins and clients, and is mended.

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use berth_cri::Handler;
use berth_cri_proto::v1 as cri;
use berth_cri_proto::v1::runtime_service_server::RuntimeService;
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags};
use tonic::{Code, Request};

use crate::bench::{Bench, Client, hello, pod, script};
use crate::cases::cases;

cases![
    an_end_while_others_are_adopted_is_heard,
    a_broken_connection_is_made_again,
    a_shim_that_hangs_does_not_keep_its_pod,
    a_start_that_is_given_up_is_over,
    what_could_not_be_taken_down_is_tried_again,
    a_command_ends_with_its_caller,
    a_restart_of_the_machine_is_written_down_once,
    containers_have_the_limit_that_the_program_had,
];

const PATIENCE: Duration = Duration::from_secs(60);

fn kill(signal: &str, pid: i32) {
    let sent = Command::new("kill").args([signal, &pid.to_string()]).status().expect("kill");
    assert!(sent.success(), "kill {signal} {pid}");
}

fn shim(bench: &Bench, sandbox: &str) -> i32 {
    let path = bench.path("state/sandboxes").join(sandbox).join("shim.pid");
    fs::read_to_string(path).expect("shim.pid").trim().parse().expect("a number")
}

fn open_files(pid: i32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).expect("descriptors").count()
}

async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let wait = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("{what}"));
}

/// A container that waits for the file `go` in the folder that is returned.
fn waiting(bench: &Bench, name: &str, then: &str) -> (cri::ContainerConfig, PathBuf) {
    let folder = bench.path(&format!("flags-{name}"));
    fs::create_dir_all(&folder).expect("a folder");
    let mut config = script(name, &format!("while [ ! -e /flags/go ]; do sleep 0.02; done; {then}"));
    let host_path = folder.to_string_lossy().into_owned();
    config.mounts.push(cri::Mount { host_path, container_path: "/flags".to_owned(), ..cri::Mount::default() });
    (config, folder.join("go"))
}

async fn pods(client: &Client) -> Vec<cri::PodSandbox> {
    let list = client.service.list_pod_sandbox(Request::new(cri::ListPodSandboxRequest::default())).await;
    list.expect("a list").into_inner().items
}

/// The next life of the service meets a container that ends after its shim has said that it runs, and before all others
/// have answered.
async fn an_end_while_others_are_adopted_is_heard(bench: Bench) {
    let client = bench.open().await;
    let slow = client.run(pod("slow")).await.expect("a sandbox");
    let quick = client.run(pod("quick")).await.expect("a sandbox");
    let (config, go) = waiting(&bench, "ends", "exit 5");
    let container = client.create(&quick, config).await.expect("created");
    client.start(&container).await.expect("started");
    client.service.close().await;
    drop(client);
    let (slow_shim, quick_shim) = (shim(&bench, &slow), shim(&bench, &quick));
    tokio::time::sleep(Duration::from_millis(200)).await;
    let before = open_files(quick_shim);
    kill("-STOP", slow_shim);
    let release = async {
        until("the shim is not connected to", || open_files(quick_shim) > before).await;
        // It has answered by then.
        tokio::time::sleep(Duration::from_millis(300)).await;
        fs::write(go, "").expect("a flag");
        let exit = bench.path("state/sandboxes").join(&quick).join("exits").join(&container);
        until("the container does not end", || exit.exists()).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        kill("-CONT", slow_shim);
    };
    let (client, ()) = tokio::join!(bench.open(), release);
    let status = client.exited(&container).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (5, "Error"));
    client.remove_pod(&slow).await.expect("removed");
    client.remove_pod(&quick).await.expect("removed");
    bench.assert_clean();
}

/// Ends our connections to a shim, as a lack of memory or descriptors does.
fn break_connections(shim: i32) -> usize {
    let myself = rustix::process::getpid();
    let myself = rustix::process::pidfd_open(myself, PidfdFlags::empty()).expect("a pidfd");
    let mut broken = 0;
    for entry in fs::read_dir("/proc/self/fd").expect("descriptors").flatten() {
        let Some(number) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        if number == myself.as_raw_fd() {
            continue;
        }
        let Ok(socket): Result<OwnedFd, _> = rustix::process::pidfd_getfd(&myself, number, PidfdGetfdFlags::empty())
        else {
            continue;
        };
        let peer = rustix::net::sockopt::socket_peercred(&socket).map(|credentials| credentials.pid);
        if peer.is_ok_and(|pid| Some(pid) == Pid::from_raw(shim)) {
            rustix::net::shutdown(&socket, rustix::net::Shutdown::Both).expect("shut down");
            broken += 1;
        }
    }
    broken
}

async fn a_broken_connection_is_made_again(bench: Bench) {
    let client = bench.open().await;
    let sandbox = client.run(pod("cut")).await.expect("a sandbox");
    let stays = client.create(&sandbox, script("stays", "sleep 1000")).await.expect("created");
    client.start(&stays).await.expect("started");
    let (config, go) = waiting(&bench, "ends", "exit 7");
    let ends = client.create(&sandbox, config).await.expect("created");
    client.start(&ends).await.expect("started");
    // Its end comes over the next connection.
    let through = client.exec(&stays, &["/bin/sh", "-c", "sleep 4; exit 3"], 60);
    let cut = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let shim = shim(&bench, &sandbox);
        // The container ends, and nobody hears of it: its shim says so into a connection that is no more.
        kill("-STOP", shim);
        assert_eq!(break_connections(shim), 1);
        fs::write(go, "").expect("a flag");
        tokio::time::sleep(Duration::from_millis(300)).await;
        kill("-CONT", shim);
        client.exited(&ends).await
    };
    let (command, status) = tokio::join!(through, cut);
    assert_eq!((status.exit_code, status.reason.as_str()), (7, "Error"));
    assert_eq!(command.expect("it was heard of").exit_code, 3);
    let status = client.pod_status(&sandbox).await.expect("a status");
    assert_eq!(status.state(), cri::PodSandboxState::SandboxReady);
    assert_eq!(client.status(&stays).await.expect("status").state(), cri::ContainerState::ContainerRunning);
    assert_eq!(client.exec(&stays, &["/bin/true"], 5).await.expect("ran").exit_code, 0);
    client.remove_pod(&sandbox).await.expect("removed");
    bench.assert_clean();
}

async fn a_shim_that_hangs_does_not_keep_its_pod(bench: Bench) {
    let client = bench.open().await;
    let sandbox = client.run(pod("hung")).await.expect("a sandbox");
    let mut containers = Vec::new();
    for name in ["one", "two"] {
        let container = client.create(&sandbox, script(name, "sleep 1000")).await.expect("created");
        client.start(&container).await.expect("started");
        containers.push(container);
    }
    kill("-STOP", shim(&bench, &sandbox));
    client.stop_pod(&sandbox).await.expect("stopped");
    for container in &containers {
        let status = client.status(container).await.expect("a status");
        assert_eq!((status.state(), status.exit_code), (cri::ContainerState::ContainerExited, 137));
    }
    client.remove_pod(&sandbox).await.expect("removed");
    bench.assert_clean();
}

/// A runtime that takes its time goes on when the connection over which its start was asked for breaks: nobody would know
/// of the container that it makes.
async fn a_start_that_is_given_up_is_over(mut bench: Bench) {
    let program = bench.path("slow-runc");
    let begun = bench.path("begun");
    let words = format!(
        "#!/bin/sh\ncase \" $* \" in *\" create \"*) : > {}; sleep 3;; esac\nexec /usr/sbin/runc \"$@\"\n",
        begun.display()
    );
    fs::write(&program, words).expect("a program");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("executable");
    bench.config.handlers.others.insert("slow".to_owned(), Handler { path: program, args: Vec::new() });
    let client = bench.open().await;
    let sandbox = client.run_with("slow", pod("given-up")).await.expect("a sandbox");
    let container = client.create(&sandbox, script("c", "exec sleep 4243")).await.expect("created");
    let cut = async {
        until("the runtime is not called", || begun.exists()).await;
        assert_eq!(break_connections(shim(&bench, &sandbox)), 1);
    };
    let (started, ()) = tokio::join!(client.start(&container), cut);
    started.expect_err("nobody knows what became of it");
    let status = client.status(&container).await.expect("a status");
    assert_eq!(status.state(), cri::ContainerState::ContainerExited, "{status:?}");
    // As long as the runtime would have taken.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let running = Command::new("pgrep").args(["-fx", "sleep 4243"]).output().expect("pgrep");
    assert_eq!(String::from_utf8_lossy(&running.stdout), "", "a container runs of which nobody knows");
    client.remove_pod(&sandbox).await.expect("removed");
    bench.assert_clean();
}

/// A plugin that works unless the file `down` is there.
fn write_moody_plugin(bench: &Bench) -> PathBuf {
    let down = bench.path("down");
    let folder = &bench.config.cni_bin_dirs[0];
    fs::create_dir_all(folder).expect("a folder");
    let words = format!(
        "#!/bin/sh\ncat > /dev/null\ncase $CNI_COMMAND in\n\
         ADD) echo '{{\"cniVersion\":\"1.1.0\",\"ips\":[{{\"address\":\"10.211.0.9/24\"}}]}}';;\n\
         VERSION) echo '{{\"cniVersion\":\"1.1.0\",\"supportedVersions\":[\"1.0.0\",\"1.1.0\"]}}';;\n\
         DEL) if [ -e {} ]; then echo '{{\"cniVersion\":\"1.1.0\",\"code\":11,\"msg\":\"the daemon is down\"}}'; exit 1; fi;;\n\
         esac\n",
        down.display()
    );
    let plugin = folder.join("moody");
    fs::write(&plugin, words).expect("a plugin");
    fs::set_permissions(&plugin, fs::Permissions::from_mode(0o755)).expect("executable");
    bench.write_network(&serde_json::json!({"type": "moody"}));
    down
}

async fn what_could_not_be_taken_down_is_tried_again(bench: Bench) {
    let down = write_moody_plugin(&bench);
    let client = bench.open().await;
    let known = client.run(pod("known")).await.expect("a sandbox");
    let unknown = client.run(pod("unknown")).await.expect("a sandbox");
    client.service.close().await;
    drop(client);
    // As a crash while they were being removed leaves them: one with its record, the other's can't be read.
    let record = |sandbox: &str| bench.path("state/sandboxes").join(sandbox).join("sandbox.json");
    let text = fs::read_to_string(record(&known)).expect("a record");
    let mut value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    value["phase"] = serde_json::json!({"phase": "removing"});
    fs::write(record(&known), value.to_string()).expect("a record");
    fs::write(record(&unknown), "{").expect("a record");
    fs::write(&down, "").expect("a flag");

    let client = bench.open().await;
    let listed: Vec<_> = pods(&client).await.into_iter().map(|pod| (pod.id.clone(), pod.state())).collect();
    assert_eq!(listed, [(known.clone(), cri::PodSandboxState::SandboxNotready)]);
    let error = client.remove_pod(&known).await.expect_err("the plugin still fails");
    assert!(error.message().contains("the daemon is down"), "{error}");
    fs::remove_file(&down).expect("up again");
    client.stop_pod(&known).await.expect("stopped");
    client.remove_pod(&known).await.expect("removed");
    // Nobody can ask for the other one.
    let left = bench.path("state/netns").join(&unknown);
    until("it is not tried again", || !left.exists()).await;
    until("it is not tried again", || !bench.path("state/sandboxes").join(&unknown).exists()).await;
    until("the shim's cgroup stays", || bench.cgroups().is_empty()).await;
    bench.assert_clean();
}

async fn a_command_ends_with_its_caller(bench: Bench) {
    let client = bench.open().await;
    let sandbox = client.run(pod("hasty")).await.expect("a sandbox");
    let container = client.create(&sandbox, script("runs", "sleep 1000")).await.expect("created");
    client.start(&container).await.expect("started");
    let runs = async || {
        let look = ["/bin/sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' ' | grep -q 'sleep 77[7]'"];
        client.exec(&container, &look, 10).await.expect("ran").exit_code == 0
    };
    {
        let command = client.exec(&container, &["/bin/sleep", "777"], 0);
        tokio::pin!(command);
        let begun = async { while !runs().await {} };
        tokio::select! {
            ended = &mut command => panic!("{ended:?}"),
            () = begun => {}
        }
    }
    let gone = async { while runs().await {} };
    tokio::time::timeout(PATIENCE, gone).await.expect("the command ends with its caller");
    client.remove_pod(&sandbox).await.expect("removed");
    bench.assert_clean();
}

/// What another boot has left is judged by the boot's name in the records.
async fn a_restart_of_the_machine_is_written_down_once(bench: Bench) {
    let client = bench.open().await;
    let sandbox = client.run(pod("rebooted")).await.expect("a sandbox");
    let ran = client.create(&sandbox, script("ran", "sleep 1000")).await.expect("created");
    client.start(&ran).await.expect("started");
    let waited = client.create(&sandbox, hello("waited")).await.expect("created");
    let before = client.status(&ran).await.expect("a status");
    client.service.close().await;
    drop(client);
    for pid in bench.shims() {
        kill("-9", pid);
    }
    let host = berth_cgroup::Host::detect().expect("cgroups");
    let cgroups = host.open(&bench.config.cgroup_parent).expect("a path");
    cgroups.kill().and_then(|()| cgroups.remove()).expect("they end");
    let records = [&ran, &waited].map(|id| bench.path("root/containers").join(id));
    let records = records.iter().flat_map(|folder| [folder.join("container.json"), folder.join("start.json")]);
    for path in records.chain([bench.path("state/sandboxes").join(&sandbox).join("sandbox.json")]) {
        let Ok(text) = fs::read_to_string(&path) else { continue };
        let mut value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        value["boot_id"] = "another".into();
        fs::write(&path, value.to_string()).expect("a record");
    }

    let client = bench.open().await;
    let first = client.status(&ran).await.expect("a status");
    assert_eq!((first.state(), first.exit_code), (cri::ContainerState::ContainerExited, 137));
    assert!((first.started_at - before.started_at).abs() < 1_000_000_000, "{first:?} {before:?}");
    let never = client.status(&waited).await.expect("a status");
    assert_eq!((never.state(), never.started_at), (cri::ContainerState::ContainerExited, 0));
    client.service.close().await;
    drop(client);
    let client = bench.open().await;
    assert_eq!(client.status(&ran).await.expect("a status"), first, "another life says the same");
    for container in [&ran, &waited] {
        client.remove(container).await.expect("removed");
    }
    assert_eq!(client.status(&ran).await.expect_err("removed").code(), Code::NotFound);
    bench.assert_clean();
}

async fn containers_have_the_limit_that_the_program_had(bench: Bench) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let before = getrlimit(Resource::Nofile);
    let soft = before.maximum.map_or(4096, |hard| hard / 2);
    setrlimit(Resource::Nofile, Rlimit { current: Some(soft), ..before }).expect("lower");
    berth_cri::raise_descriptor_limit().expect("raised");
    assert_eq!(getrlimit(Resource::Nofile).current, before.maximum, "the program itself has all that it may");
    let client = bench.open().await;
    let sandbox = client.run(pod("limited")).await.expect("a sandbox");
    let container = client.create(&sandbox, script("c", "ulimit -n; exec sleep 1000")).await.expect("created");
    client.start(&container).await.expect("started");
    client.said("c", &format!(" {soft}\n")).await;
    client.remove_pod(&sandbox).await.expect("removed");
    bench.assert_clean();
}
