//! Options in front of the command.

use std::path::PathBuf;

use crate::arguments::{self, Known, Until, flag, value};
use crate::fault::{During, Fault, Outcome};
use crate::log::{Format, Log};

/// Where records are when nobody says otherwise.
const ROOT: &str = "/run/berth-oci";

const KNOWN: [Known; 11] = [
    value("root", ""),
    value("log", ""),
    value("log-format", ""),
    flag("debug", ""),
    flag("systemd-cgroup", ""),
    value("rootless", ""),
    value("cgroup-manager", ""),
    value("criu", ""),
    flag("version", "v"),
    flag("help", "h"),
    flag("verbose", ""),
];

#[derive(Debug)]
pub(crate) struct Global {
    pub(crate) root: PathBuf,
    pub(crate) log: Log,
    /// Whether containers' cgroups are systemd's to make.
    pub(crate) systemd: bool,
    pub(crate) version: bool,
    pub(crate) help: bool,
    /// The command with its own.
    pub(crate) rest: Vec<String>,
}

pub(crate) fn parse(arguments: &[String]) -> Outcome<Global> {
    let given = arguments::parse(arguments, &KNOWN, Until::First)?;
    let format = match given.value("log-format") {
        None | Some("text" | "") => Format::Text,
        Some("json") => Format::Json,
        Some(other) => return Err(Fault::new(format!("invalid log-format: {other:?}"))),
    };
    let log = Log::open(given.value("log").filter(|path| !path.is_empty()), format, given.flag("debug"))?;
    let driver = given.value("cgroup-manager");
    if !matches!(driver, None | Some("cgroupfs" | "systemd")) {
        return Err(Fault::new(format!("--cgroup-manager: {driver:?} is unknown; use cgroupfs or systemd")));
    }
    let systemd = given.flag("systemd-cgroup") || driver == Some("systemd");
    if !matches!(given.value("rootless"), None | Some("" | "auto" | "true" | "false")) {
        return Err(Fault::new("--rootless: use true, false or auto"));
    }
    let root = PathBuf::from(given.value("root").filter(|root| !root.is_empty()).unwrap_or(ROOT));
    let root = std::path::absolute(&root).during(|| format!("--root {}", root.display()))?;
    Ok(Global { root, log, systemd, version: given.flag("version"), help: given.flag("help"), rest: given.rest })
}
