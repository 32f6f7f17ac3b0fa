//! What a container is doing: its record against the process that it names.

use berth_cgroup::{Cgroup, Host};
use berth_sys::pidfd::PidFd;
use serde_json::{Value, json};

use crate::fault::{During, Fault, Outcome};
use crate::procfs::Stat;
use crate::store::{Folder, Phase, Record, START};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    Creating,
    Created,
    Running,
    Paused,
    Stopped,
}

impl Status {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        }
    }

    pub(crate) fn of(folder: &Folder, record: &Record) -> Self {
        match (record.phase, is_alive(record)) {
            (Phase::Creating, true) => Self::Creating,
            // Its maker is gone, or not there yet.
            (Phase::Creating, false) if record.pid == 0 => Self::Creating,
            (_, false) => Self::Stopped,
            (Phase::Created, true) if is_paused(record) => Self::Paused,
            (Phase::Created, true) if folder.path().join(START).exists() => Self::Created,
            (Phase::Created, true) => Self::Running,
        }
    }
}

fn is_alive(record: &Record) -> bool {
    let same = |stat: &Stat| stat.started == record.process_started && !stat.has_ended();
    record.pid > 0 && Stat::read(record.pid).as_ref().is_some_and(same)
}

fn is_paused(record: &Record) -> bool {
    cgroup(record).is_ok_and(|cgroup| cgroup.is_freezing())
}

pub(crate) fn cgroup(record: &Record) -> Outcome<Cgroup> {
    Ok(Host::detect()?.open(&record.cgroup)?)
}

/// The container's first process, and no other that got its number; `None` when it has ended.
pub(crate) fn process(record: &Record) -> Outcome<Option<PidFd>> {
    if record.pid <= 0 {
        return Ok(None);
    }
    let Ok(opened) = PidFd::open(record.pid) else { return Ok(None) };
    // What is still alive now was so when it was opened.
    Ok(is_alive(record).then_some(opened))
}

/// As callers read it (runtime.md, "State", with what runc adds).
pub(crate) fn describe(record: &Record, status: Status) -> Value {
    let pid = if status == Status::Stopped { 0 } else { record.pid };
    let mut value = json!({
        "ociVersion": record.oci_version,
        "id": record.id,
        "pid": pid,
        "status": status.name(),
        "bundle": record.bundle,
        "rootfs": record.rootfs,
        "created": record.created,
        "owner": owner(record.owner),
    });
    if !record.annotations.is_empty() {
        value["annotations"] = json!(record.annotations);
    }
    value
}

/// A user's name, as far as the host has one.
fn owner(uid: u32) -> String {
    let text = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let named = |line: &str| {
        let mut fields = line.split(':');
        let (name, number) = (fields.next()?, fields.nth(1)?);
        (number.parse() == Ok(uid)).then(|| name.to_owned())
    };
    text.lines().find_map(named).unwrap_or_default()
}

/// The state that hooks get on standard input, in two halves around the process's number.
pub(crate) fn for_hooks(record: &Record, status: &str) -> Outcome<berth_plan::bundle::State> {
    const NUMBER: i32 = 1_999_999_999;
    let mut value = json!({
        "ociVersion": record.oci_version,
        "id": record.id,
        "status": status,
        "pid": NUMBER,
        "bundle": record.bundle,
    });
    if !record.annotations.is_empty() {
        value["annotations"] = json!(record.annotations);
    }
    let text = value.to_string();
    let mark = format!("\"pid\":{NUMBER}");
    let at = text.find(&mark).ok_or_else(|| Fault::new("the state for hooks has no pid"))? + "\"pid\":".len();
    let (before, rest) = text.split_at(at);
    let after = rest.get(NUMBER.to_string().len()..).unwrap_or_default();
    Ok(berth_plan::bundle::State { before: before.to_owned(), after: after.to_owned() })
}

/// Waits for a process's end, for up to some milliseconds.
pub(crate) fn wait(process: &PidFd, milliseconds: i32) -> Outcome<bool> {
    process.has_ended(milliseconds).during(|| "wait for the container's process".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hooks_get_a_state_with_their_own_number() {
        let mut record = Record::new("c", "1.2.0", "/b");
        record.annotations.insert("\"pid\":1999999999".to_owned(), "x".to_owned());
        let state = for_hooks(&record, "creating").expect("a state").of(77);
        let value: Value = serde_json::from_str(&state).expect("JSON");
        assert_eq!((value["pid"].as_i64(), value["status"].as_str()), (Some(77), Some("creating")));
        assert_eq!(value["annotations"]["\"pid\":1999999999"], "x");
    }

    #[test]
    fn a_recycled_number_is_not_the_process() {
        let mut record = Record::new("c", "1.2.0", "/b");
        record.pid = i32::try_from(std::process::id()).expect("a number");
        record.process_started = Stat::read(record.pid).expect("own").started;
        assert!(process(&record).expect("looked up").is_some());
        record.process_started += 1;
        assert!(process(&record).expect("looked up").is_none());
    }
}
