//! The plugin's side of an exec'd call: from the environment and standard input to an exit code and standard output.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::conf::is_name;
use crate::runtime::is_interface_name;
use crate::{CniError, CniResult, Command, Plugin, Plugins, Request, Version, code};

/// A delegate of an exec'd plugin gets as much time as its own caller is likely to grant.
const DELEGATE_TIMEOUT: Duration = Duration::from_secs(90);

/// What the process says and ends with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    pub stdout: String,
    pub stderr: String,
    pub exit: u8,
}

/// The `CNI_*` variables.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    pub command: Option<String>,
    pub container_id: String,
    pub netns: String,
    pub ifname: String,
    pub args: String,
    pub path: String,
    /// `CNI_NETNS_OVERRIDE`: the caller knows that the pod's namespace is its own.
    pub netns_override: bool,
}

impl Environment {
    /// Reads the variables through `get`.
    pub fn read(get: impl Fn(&str) -> Option<String>) -> Self {
        let text = |name: &str| get(name).unwrap_or_default();
        Self {
            command: get("CNI_COMMAND").filter(|command| !command.is_empty()),
            container_id: text("CNI_CONTAINERID"),
            netns: text("CNI_NETNS"),
            ifname: text("CNI_IFNAME"),
            args: text("CNI_ARGS"),
            path: text("CNI_PATH"),
            netns_override: matches!(text("CNI_NETNS_OVERRIDE").to_ascii_lowercase().as_str(), "1" | "true"),
        }
    }
}

/// Serves one call with `plugin`. `about` is told when there is no command; `builtin` are the delegates in-process.
pub fn serve(
    about: &str,
    plugin: Plugin,
    builtin: fn(&str) -> Option<Plugin>,
    environment: &Environment,
    stdin: &[u8],
) -> Reply {
    let Some(command) = &environment.command else {
        return Reply { stdout: String::new(), stderr: format!("{about}\n"), exit: 0 };
    };
    let mut version = Version::CURRENT;
    match answer(command, plugin, builtin, environment, stdin, &mut version) {
        Ok(stdout) => Reply { stdout, stderr: String::new(), exit: 0 },
        Err(error) => {
            let mut value = json!({ "cniVersion": version.to_string(), "code": error.code, "msg": error.msg });
            if !error.details.is_empty() {
                value["details"] = error.details.into();
            }
            Reply { stdout: format!("{value:#}\n"), stderr: String::new(), exit: 1 }
        }
    }
}

fn answer(
    command: &str,
    plugin: Plugin,
    builtin: fn(&str) -> Option<Plugin>,
    environment: &Environment,
    stdin: &[u8],
    version: &mut Version,
) -> Result<String, CniError> {
    let command = Command::from_name(command)
        .ok_or_else(|| CniError::new(code::INVALID_ENVIRONMENT, format!("unknown CNI_COMMAND: {command}")))?;
    required(command, environment)?;
    if command == Command::Version {
        return Ok(format!("{:#}\n", versions(stdin)));
    }
    let mut config: Map<String, Value> =
        serde_json::from_slice(stdin).map_err(|error| CniError::decode("network configuration", error))?;
    *version = check_version(command, &config)?;
    let network = config.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
    if network.is_empty() {
        return Err(CniError::config("missing network name"));
    }
    if !is_name(&network) {
        return Err(CniError::config(format!("invalid characters in network name \"{network}\"")));
    }
    let prev_result = config.remove("prevResult").filter(|value| !value.is_null());
    let prev_result = prev_result
        .map(|mut value| {
            // A previous result without a version has that of the configuration.
            if value.get("cniVersion").is_none() {
                value["cniVersion"] = version.to_string().into();
            }
            CniResult::from_value(&value).map_err(|error| CniError::decode("prevResult", error))
        })
        .transpose()?;
    let netns = (!environment.netns.is_empty()).then(|| PathBuf::from(&environment.netns));
    if let (Command::Add | Command::Check | Command::Del, Some(netns), false) =
        (command, &netns, environment.netns_override)
    {
        refuse_own_namespace(netns)?;
    }
    let request = Request {
        command,
        container_id: environment.container_id.clone(),
        netns,
        ifname: environment.ifname.clone(),
        args: environment.args.clone(),
        cni_version: *version,
        network,
        config,
        prev_result,
        plugins: Plugins {
            builtin,
            bin_dirs: std::env::split_paths(&environment.path).collect(),
            running_dir: None,
            timeout: DELEGATE_TIMEOUT,
        },
    };
    match plugin(&request)? {
        Some(result) if command == Command::Add => {
            let value = result.to_value(*version).map_err(|error| CniError::decode("result", error))?;
            Ok(format!("{value:#}\n"))
        }
        _ => Ok(String::new()),
    }
}

/// What each verb needs in the environment (SPEC 1.1, section 2).
fn required(command: Command, environment: &Environment) -> Result<(), CniError> {
    let attachment = matches!(command, Command::Add | Command::Del | Command::Check);
    let mut missing = Vec::new();
    if attachment && environment.container_id.is_empty() {
        missing.push("CNI_CONTAINERID");
    }
    if matches!(command, Command::Add | Command::Check) && environment.netns.is_empty() {
        missing.push("CNI_NETNS");
    }
    if attachment && environment.ifname.is_empty() {
        missing.push("CNI_IFNAME");
    }
    if command != Command::Version && environment.path.is_empty() {
        missing.push("CNI_PATH");
    }
    let refused = |msg: String| Err(CniError::new(code::INVALID_ENVIRONMENT, msg));
    if !missing.is_empty() {
        return refused(format!("required env variables [{}] missing", missing.join(",")));
    }
    if attachment && !is_name(&environment.container_id) {
        return refused(format!("invalid characters in containerID \"{}\"", environment.container_id));
    }
    if attachment && !is_interface_name(&environment.ifname) {
        return refused(format!("invalid interface name \"{}\"", environment.ifname));
    }
    Ok(())
}

fn check_version(command: Command, config: &Map<String, Value>) -> Result<Version, CniError> {
    let text = config.get("cniVersion").and_then(Value::as_str).unwrap_or_default();
    let incompatible =
        |details: String| CniError::new(code::INCOMPATIBLE_VERSION, "incompatible CNI versions").with_details(details);
    let version: Version = text.parse().map_err(|error| CniError::decode("cniVersion", error))?;
    if !version.is_supported() {
        let ours = Version::SUPPORTED.map(|version| version.to_string()).join(", ");
        return Err(incompatible(format!("config is \"{text}\", plugin supports [{ours}]")));
    }
    let exists = match command {
        Command::Check => version.has_check(),
        Command::Gc | Command::Status => version.has_gc_and_status(),
        Command::Add | Command::Del | Command::Version => true,
    };
    if exists {
        Ok(version)
    } else {
        Err(incompatible(format!("config version \"{version}\" does not know the command {}", command.as_str())))
    }
}

/// In the version that was asked in, if we speak it.
fn versions(stdin: &[u8]) -> Value {
    let asked = serde_json::from_slice::<Value>(stdin).ok();
    let asked = asked.as_ref().and_then(|value| value.get("cniVersion")?.as_str()?.parse::<Version>().ok());
    let version = asked.filter(|version| version.is_supported()).unwrap_or(Version::CURRENT);
    json!({
        "cniVersion": version.to_string(),
        "supportedVersions": Version::SUPPORTED.map(|version| version.to_string()),
    })
}

/// A plugin that is told its own namespace would rearrange the host.
fn refuse_own_namespace(netns: &Path) -> Result<(), CniError> {
    let id = |path: &Path| fs::metadata(path).map(|metadata| (metadata.dev(), metadata.ino())).ok();
    match (id(netns), id(Path::new("/proc/self/ns/net"))) {
        (Some(pod), Some(own)) if pod == own => {
            Err(CniError::new(code::INVALID_NETNS, "plugin's netns and netns from CNI_NETNS should not be the same"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
