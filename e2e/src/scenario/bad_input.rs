//! Bad input gets one clear line, and whatever is good goes on.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Result, ensure};

use super::Stage;
use crate::kube;
use crate::node::Shape;
use crate::paths;
use crate::standalone::Home;

const NODE: &str = "node-1";
/// Somebody without any rights.
const NOBODY: u32 = 65_534;
/// Nobody listens there.
const DEAD: &str = "127.0.0.1:5999";

/// Plays all of it; call it in a house.
///
/// # Errors
/// What was not said, or not in one line.
pub fn play() -> Result<()> {
    let dir = paths::scratch("bad-input")?;
    manifests(&dir)?;
    println!("bad-input: malformed and duplicate manifests are named by file and field; other pods run");
    command_lines(&dir)?;
    println!("bad-input: wrong files and options are named in one line");
    doctor()?;
    println!("bad-input: berth doctor says what is missing and what it costs");
    images()?;
    fs::remove_dir_all(dir)?;
    Ok(())
}

/// Five bad files beside a good one, and a second program on the same state.
fn manifests(dir: &Path) -> Result<()> {
    let home = Home::new(&dir.join("home"))?;
    let put = |name: &str, text: &str| fs::write(home.manifests().join(name), text);
    put("good.yaml", &hello("good"))?;
    put("broken.yaml", "apiVersion: v1\nkind: Pod\nmetadata: {name: broken\n")?;
    put("unknown.yaml", &hello("unknown").replace("    image:", "    imagee: x\n    image:"))?;
    put("kind.yaml", "apiVersion: v1\nkind: Potato\nmetadata: {name: kind}\n")?;
    put("twice-a.yaml", &hello("twice"))?;
    put("twice-b.yaml", &hello("twice"))?;
    put("type.yaml", &hello("type").replace("spec:", "spec:\n  terminationGracePeriodSeconds: soon"))?;
    let mut run = home.start(&[])?;
    run.await_ready()?;
    let words = run.words()?;
    for (file, wanted) in [
        ("broken.yaml", "line"),
        ("unknown.yaml", "imagee"),
        ("kind.yaml", "Potato"),
        ("twice-b.yaml", "twice"),
        ("type.yaml", "terminationGracePeriodSeconds"),
    ] {
        let lines: Vec<&str> = words.lines().filter(|line| line.contains(file)).collect();
        ensure!(lines.len() == 1, "{file} is named in {} lines:\n{words}", lines.len());
        ensure!(lines[0].contains(wanted), "{wanted:?} is not in the line about {file}: {}", lines[0]);
    }
    no_trace(&words)?;
    let second = home.start(&[]);
    let mut second = second?;
    let status = second.await_end()?;
    let said = second.words()?;
    ensure!(!status.success(), "a second program on the same state was not refused");
    ensure!(said.contains(&run.pid().to_string()), "it does not name the first one's pid {}: {said}", run.pid());
    one_line(&said)?;
    run.stop()
}

fn hello(name: &str) -> String {
    format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  containers:
  - name: main
    image: berth.local/hello:latest
    imagePullPolicy: Never
"
    )
}

fn command_lines(dir: &Path) -> Result<()> {
    let bad = dir.join("bad.yaml");
    fs::write(&bad, "kind: KubeletConfiguration\napiVersion: kubelet.config.k8s.io/v1beta1\nmaxPods: many\n")?;
    let bad = bad.display().to_string();
    let cases: [(&[&str], &str); 4] = [
        (&["standalone", "/nowhere"], "/nowhere"),
        (&["agent", "--node-ip", "10.0.0.1", "--kubeconfig", "/nowhere"], "/nowhere"),
        (&["agent", "--node-ip", "10.0.0.1", "--kubeconfig", &bad, "--config", &bad], "maxPods"),
        (&["cri", "--listen", "tcp://0.0.0.0:1"], "tcp://0.0.0.0:1"),
    ];
    for (arguments, wanted) in cases {
        let said = refused(Command::new(paths::berth("berth")).args(arguments))?;
        ensure!(said.contains(wanted), "{arguments:?}: {wanted:?} is not in {said:?}");
        one_line(&said)?;
    }
    Ok(())
}

fn refused(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output()?;
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(!output.status.success(), "{command:?} is not refused: {said}");
    Ok(said)
}

fn one_line(said: &str) -> Result<()> {
    ensure!(said.trim().lines().count() == 1, "more than one line: {said}");
    no_trace(said)
}

fn no_trace(said: &str) -> Result<()> {
    for word in ["panicked", "RUST_BACKTRACE", "stack backtrace"] {
        ensure!(!said.contains(word), "{word:?} in {said}");
    }
    Ok(())
}

/// As root everything needed is there; without rights the same program says what is missing.
fn doctor() -> Result<()> {
    // Somebody without rights can't read the target folder of root's checkout.
    let program = Path::new("/run/berth-doctor");
    fs::copy(paths::berth("berth"), program)?;
    let said = refused(Command::new(program).arg("doctor").uid(NOBODY).gid(NOBODY))?;
    for wanted in ["root", "CAP_SYS_ADMIN"] {
        ensure!(said.contains(wanted), "doctor does not name {wanted}: {said}");
    }
    no_trace(&said)?;
    let said = refused(Command::new(program).args(["standalone", "/"]).uid(NOBODY).gid(NOBODY))?;
    one_line(&said)?;
    let good = Command::new(program).arg("doctor").output()?;
    ensure!(good.status.success(), "doctor finds root lacking: {}", String::from_utf8_lossy(&good.stdout));
    fs::remove_file(program)?;
    Ok(())
}

/// An image that is not there, a registry that is not there, a field that is not implemented.
fn images() -> Result<()> {
    let stage = Stage::set("bad-input-cluster", "127.0.0.1:5000")?;
    let kube = stage.kube();
    let node = stage.node(NODE, Shape::One)?;
    for (name, image, words) in [
        ("unknown", stage.registry().name("no/such:1"), ["manifest", "unknown"].as_slice()),
        ("dead", format!("{DEAD}/no/such:1"), ["refused"].as_slice()),
    ] {
        kube.apply(&pod(name, &image, ""))?;
        // Both reasons come in turn; the message that names the registry's words comes with the first.
        let message = kube.await_pod(name, "waits in ErrImagePull", |pod| waiting(pod, "ErrImagePull"))?;
        for word in words {
            ensure!(message.to_lowercase().contains(word), "{word:?} is not in {message:?}");
        }
        kube.await_pod(name, "waits in ImagePullBackOff", |pod| waiting(pod, "ImagePullBackOff"))?;
    }
    stage.say("an unknown image and a dead registry are told in the registry's words, with back-off");
    let field = "  volumes: [{name: v, nfs: {server: 127.0.0.1, path: /}}]\n";
    kube.apply(&pod("field", &stage.registry().name(crate::registry::BUSYBOX), field))?;
    let message = kube.await_pod("field", "names the field", |pod| waiting(pod, "CreateContainerConfigError"))?;
    ensure!(message.contains("spec.volumes[0].nfs"), "the field's path is not in {message:?}");
    stage.say("a field that is not implemented keeps the pod Pending and is named");
    kube.delete(&["pod/unknown", "pod/dead", "pod/field"])?;
    node.stop()?;
    stage.clear()
}

fn pod(name: &str, image: &str, more: &str) -> String {
    format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  containers:
  - name: main
    image: {image}
{more}"
    )
}

fn waiting(pod: &serde_json::Value, reason: &str) -> Option<String> {
    let waiting = &kube::container(pod)["state"]["waiting"];
    (waiting["reason"] == reason).then(|| waiting["message"].as_str().unwrap_or_default().to_owned())
}
