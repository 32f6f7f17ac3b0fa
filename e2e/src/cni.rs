//! Starting CNI plugins as a runtime does.

use std::fs;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context, Result};
use berth_sys::netns::NetNs;
use serde_json::{Value, json};

use crate::paths;

/// What a call is about: a container and its network namespace's path.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Container<'a> {
    pub(crate) id: &'a str,
    pub(crate) netns: &'a str,
}

/// How a plugin has ended, and its stdout.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: ExitStatus,
    pub(crate) text: String,
}

impl Answer {
    /// Null when it is no JSON: DEL and CHECK say nothing.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or(Value::Null)
    }
}

/// Calls the plugin of `bin` that `config` names, for the container's `eth0`.
///
/// # Errors
/// It can't be started or does not take its configuration.
pub(crate) fn call(bin: &Path, verb: &str, container: Container<'_>, config: &Value) -> Result<Answer> {
    let program = bin.join(config["type"].as_str().context("a type")?);
    let mut child = Command::new(&program)
        .env("CNI_COMMAND", verb)
        .env("CNI_CONTAINERID", container.id)
        .env("CNI_NETNS", container.netns)
        .env("CNI_IFNAME", "eth0")
        .env("CNI_PATH", bin)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("{} {verb}", program.display()))?;
    child.stdin.take().context("stdin")?.write_all(config.to_string().as_bytes())?;
    let output = child.wait_with_output()?;
    Ok(Answer { status: output.status, text: String::from_utf8_lossy(&output.stdout).into_owned() })
}

/// The path by which a plugin that this process starts finds a namespace.
pub(crate) fn path_of(namespace: &NetNs) -> String {
    format!("/proc/{}/fd/{}", std::process::id(), namespace.as_fd().as_raw_fd())
}

/// Makes a folder in `dir` with our program under these plugins' names.
///
/// # Errors
/// The file system refuses.
pub(crate) fn ours(dir: &Path, plugins: &[&str]) -> Result<PathBuf> {
    let bin = dir.join("bin");
    fs::create_dir_all(&bin)?;
    for plugin in plugins {
        symlink(paths::berth("berth-cni"), bin.join(plugin))?;
    }
    Ok(bin)
}

/// A network for pods, as a file of the configuration folder has it: the same plugins for every runtime.
pub(crate) fn network(bridge: &str, subnet: &str) -> String {
    json!({
        "cniVersion": "1.0.0",
        "name": bridge,
        "plugins": [
            {"type": "bridge", "bridge": bridge, "isGateway": true, "ipMasq": true, "hairpinMode": true,
             "ipam": {"type": "host-local", "ranges": [[{"subnet": subnet}]], "routes": [{"dst": "0.0.0.0/0"}]}},
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ],
    })
    .to_string()
}
