//! Exec, attach, logs, port-forward and cp, by `kubectl`.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::Stage;
use crate::kube::{self, Kube};
use crate::{command, daemon, http, wait};

/// For what a person does not wait for.
const SOON: Duration = Duration::from_secs(30);
/// More than any pipe or socket holds.
const LARGE: usize = 3 << 20;

/// `kubectl exec`: what a command prints, reads and ends with, and a terminal.
pub(super) fn exec(kube: &Kube, pod: &str) -> Result<()> {
    let said = kube.run(&["exec", pod, "--", "echo", "hello"])?;
    ensure!(said == "hello\n", "echo hello prints {said:?}");
    let counted = command::output_with_input(
        kube.command().args(["exec", "-i", pod, "--", "sh", "-c", "wc -c; echo and more >&2"]),
        &"x".repeat(LARGE),
    )?;
    ensure!(counted.trim() == LARGE.to_string(), "wc -c of {LARGE} bytes prints {counted:?}");
    let printed = kube.run(&["exec", pod, "--", "head", "-c", &LARGE.to_string(), "/dev/zero"])?;
    ensure!(printed.len() == LARGE, "{} bytes of {LARGE} arrive", printed.len());
    let status = kube.command().args(["exec", pod, "--", "sh", "-c", "exit 42"]).output()?.status;
    ensure!(status.code() == Some(42), "exit 42 ends kubectl with {status}");
    // `script` gives kubectl the terminal that it wants to see, whose size arrives a moment after the start.
    let line =
        format!("{} exec -it {pod} -- sh -c 'tty; until stty size | grep 33; do sleep 0.1; done'", kube.command_line());
    let said = command::output(Command::new("script").args([
        "-q",
        "-e",
        "-c",
        &format!("stty rows 33 cols 77; {line}"),
        "/dev/null",
    ]))?;
    ensure!(said.contains("/dev/pts/") && said.contains("33 77"), "in a terminal, tty and stty size print {said:?}");
    Ok(())
}

/// `kubectl attach`: a line goes in, and its echo comes out.
pub(super) fn attach(stage: &Stage, kube: &Kube, pod: &str) -> Result<()> {
    let mut client = Client::start(kube.command().args(["attach", "-i", pod]), &stage.dir().join("attach.out"))?;
    client.input.write_all(b"knock\n")?;
    client.await_output("heard knock\n")
}

/// `kubectl logs -f` shows what was said and what is said until the container's end, and ends then.
pub(super) fn logs(stage: &Stage, kube: &Kube, pod: &str) -> Result<()> {
    let mut client = Client::start(kube.command().args(["logs", "-f", pod]), &stage.dir().join("logs.out"))?;
    client.await_output("heard knock\n")?;
    command::output_with_input(kube.command().args(["attach", "-i", pod]), "bye\n")?;
    client.await_output("heard bye\n")?;
    let ended = daemon::wait_child(&mut client.child, SOON)?;
    ensure!(ended.is_some_and(|status| status.success()), "kubectl logs -f has not ended well: {ended:?}");
    Ok(())
}

/// `kubectl port-forward`: several connections, one after the other.
pub(super) fn port_forward(stage: &Stage, kube: &Kube) -> Result<()> {
    let pods = kube.list("pods", "app=web")?;
    let pod = kube::name(pods.first().context("no web server")?);
    let mut command = kube.command();
    command.args(["port-forward", &format!("pod/{pod}"), "18081:80"]);
    let log = stage.dir().join("port-forward.log");
    let mut forwarder = daemon::Daemon::start("kubectl port-forward", &mut command, &log)?;
    wait::until_true("the forwarded port answers", SOON, || {
        forwarder.check()?;
        let answer = http::request("127.0.0.1:18081", "GET", "/", &[], b"")?;
        Ok(String::from_utf8_lossy(&answer.body).trim() == pod)
    })?;
    for _ in 0..20 {
        let answer = http::request("127.0.0.1:18081", "GET", "/", &[], b"")?;
        ensure!(answer.status == 200, "a forwarded connection is answered with {}", answer.status);
    }
    // kubectl does not end by itself, and says so by its status.
    forwarder.kill()
}

/// `kubectl cp` into a pod and out of it.
pub(super) fn copy(stage: &Stage, kube: &Kube) -> Result<()> {
    let pods = kube.list("pods", "app=web")?;
    let pod = kube::name(pods.first().context("no web server")?);
    let (there, back) = (stage.dir().join("there"), stage.dir().join("back"));
    let bytes: Vec<u8> = (0..LARGE).map(|at| u8::try_from(at % 251).unwrap_or_default()).collect();
    fs::write(&there, &bytes)?;
    let name = |path: &Path| path.display().to_string();
    kube.run(&["cp", &name(&there), &format!("{pod}:/tmp/copied")])?;
    kube.run(&["cp", &format!("{pod}:/tmp/copied"), &name(&back)])?;
    ensure!(fs::read(&back)? == bytes, "the file comes back with other bytes");
    Ok(())
}

/// A `kubectl` that runs while it is talked to.
struct Client {
    child: Child,
    input: std::process::ChildStdin,
    output: PathBuf,
}

impl Client {
    fn start(command: &mut Command, output: &Path) -> Result<Self> {
        let file = File::create(output)?;
        let mut child =
            command.process_group(0).stdin(Stdio::piped()).stdout(file.try_clone()?).stderr(file).spawn()?;
        let input = child.stdin.take().context("no pipe")?;
        Ok(Self { child, input, output: output.to_owned() })
    }

    fn await_output(&self, expected: &str) -> Result<()> {
        wait::until_true(&format!("{expected:?} is printed"), SOON, || {
            let said = fs::read_to_string(&self.output)?;
            ensure!(said.contains(expected), "it has printed {said:?}");
            Ok(true)
        })
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
