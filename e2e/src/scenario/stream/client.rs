//! The Go client's processes.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// The client's exit code when there is no remote one.
pub(super) const FAILED: i32 = 125;

/// A client that takes longer hangs.
const LIMIT: Duration = Duration::from_secs(120);

/// The program.
pub(super) struct Client(PathBuf);

/// How a client ended.
#[derive(Debug)]
pub(super) struct End {
    pub(super) code: i32,
    pub(super) stdout: String,
    pub(super) stderr: String,
}

/// A running port-forward.
pub(super) struct Forward(Child);

impl Client {
    pub(super) fn new(program: &Path) -> Client {
        Client(program.to_owned())
    }

    /// Starts it with its stdin open.
    pub(super) fn start(&self, arguments: &[&str], url: &str) -> Result<Child> {
        let mut command = Command::new(&self.0);
        command.args(arguments).args(["--url", url]).kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().with_context(|| self.0.display().to_string())
    }

    /// Runs it to its end with `input`.
    pub(super) async fn run(&self, arguments: &[&str], url: &str, input: &[u8]) -> Result<End> {
        let mut child = self.start(arguments, url)?;
        let mut stdin = child.stdin.take().context("its input")?;
        let input = input.to_vec();
        let feeding = tokio::spawn(async move {
            // A remote program may end before it has read everything.
            let _closed = stdin.write_all(&input).await;
        });
        let output = timeout(LIMIT, child.wait_with_output()).await.context("the client hangs")??;
        feeding.await?;
        Ok(End {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Starts a port-forward and answers with the local port.
    pub(super) async fn forward(&self, transport: &str, url: &str, port: u16) -> Result<(Forward, u16)> {
        let mut child = self.start(&["forward", "--transport", transport, "--port", &port.to_string()], url)?;
        let mut lines = BufReader::new(child.stdout.as_mut().context("its output")?);
        let mut line = String::new();
        timeout(LIMIT, lines.read_line(&mut line)).await.context("the client hangs")??;
        let port = line.trim().parse().with_context(|| format!("no port: {line:?}"))?;
        Ok((Forward(child), port))
    }
}

impl Forward {
    /// Ends it as a user does.
    pub(super) async fn end(&mut self) -> Result<()> {
        drop(self.0.stdin.take());
        let status = timeout(LIMIT, self.0.wait()).await.context("the client hangs")??;
        ensure!(status.success(), "port-forward ended with {status}");
        Ok(())
    }

    /// Waits until it ends by itself, as it does after an error; answers with what it said.
    pub(super) async fn lost(mut self) -> Result<String> {
        let mut said = String::new();
        let mut stderr = self.0.stderr.take().context("its errors")?;
        timeout(LIMIT, stderr.read_to_string(&mut said)).await.context("the client hangs")??;
        Ok(said)
    }
}
