//! What the running agent says of itself, for `berth status`: `/run/berth/agent.json`.
//!
//! Written anew at every change (rename, no flush: a reboot ends the agent, too). It stays behind an agent that was
//! killed; [`AgentState::pid`] then is nobody's, or another program's.

use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use berth_effect::record;
use berth_kube::certificates::Report;
use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// More than this is no state of ours.
const LONGEST: u64 = 1 << 20;

/// The agent's own view. Unknown fields are passed over, missing ones are empty: agent and reader may differ in version.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct AgentState {
    /// The Kubernetes version that is followed, with Berth's own.
    pub(crate) version: String,
    /// Process id of the agent.
    pub(crate) pid: u32,
    /// The node's name.
    pub(crate) node: String,
    /// The API server's address, as the kubeconfig has it.
    pub(crate) server: Option<String>,
    /// The kubeconfig in use.
    pub(crate) kubeconfig: PathBuf,
    /// The runtime, `NAME://VERSION`.
    pub(crate) runtime: String,
    /// Whether the API server knows the node.
    pub(crate) registered: bool,
    /// What keeps the node from being Ready: the runtime's or the network's words; `None` when it is.
    pub(crate) unready: Option<String>,
    /// By which the agent is known to the API server; absent with a token.
    pub(crate) client_certificate: Option<CertificateState>,
    /// What the agent's own API shows when the cluster issues it (`serverTLSBootstrap`).
    pub(crate) serving_certificate: Option<CertificateState>,
}

/// A certificate.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct CertificateState {
    /// Until when it is good (RFC 3339); `None` when there is none.
    pub(crate) not_after: Option<String>,
    /// When it is to be renewed.
    pub(crate) renewal: Option<String>,
    /// What keeps it from being got or renewed, and what to do.
    pub(crate) problem: Option<String>,
}

impl AgentState {
    /// What the agent waits for, or what somebody must do: one line each, nothing when all is well.
    pub(crate) fn waits_for(&self) -> Vec<String> {
        let certificate = |name: &str, state: &Option<CertificateState>| {
            state.as_ref()?.problem.as_ref().map(|problem| format!("{name}: {problem}"))
        };
        let mut lines: Vec<String> = Vec::new();
        lines.extend(certificate("client certificate", &self.client_certificate));
        lines.extend(certificate("serving certificate", &self.serving_certificate));
        if !self.registered && lines.is_empty() {
            lines.push("the API server to register the node".to_owned());
        }
        lines.extend(self.unready.clone());
        lines
    }
}

impl From<&Report> for CertificateState {
    fn from(report: &Report) -> Self {
        Self {
            not_after: report.not_after.map(time),
            renewal: report.renewal.map(time),
            problem: report.problem.clone(),
        }
    }
}

fn time(time: SystemTime) -> String {
    let time = Timestamp::try_from(time).unwrap_or(Timestamp::UNIX_EPOCH);
    Timestamp::from_second(time.as_second()).unwrap_or(time).to_string()
}

/// Where it lies below the runtime's state folder.
pub(crate) fn path(state: &Path) -> PathBuf {
    state.join("agent.json")
}

/// Writes it; the folder is made if need be.
///
/// # Errors
/// What the file system answers.
pub(crate) fn write(state: &Path, agent: &AgentState) -> io::Result<()> {
    if !state.is_dir() {
        berth_effect::run("state-folder-make", || std::fs::create_dir_all(state))?;
    }
    let mut bytes = serde_json::to_vec_pretty(agent)?;
    bytes.push(b'\n');
    record::write_volatile(&path(state), &bytes)
}

/// Reads it; `None` when no agent has run since the last boot, or the last one ended in order.
///
/// # Errors
/// What the file system answers, and a file that is no state.
pub(crate) fn read(state: &Path) -> io::Result<Option<AgentState>> {
    let Some(bytes) = record::read(&path(state), LONGEST)? else { return Ok(None) };
    Ok(Some(serde_json::from_slice(&bytes)?))
}

/// The agent ends.
///
/// # Errors
/// What the file system answers.
pub(crate) fn remove(state: &Path) -> io::Result<()> {
    record::remove(&path(state))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn what_is_written_is_read_also_by_other_versions() {
        let dir = std::env::temp_dir().join(format!("berth-state-{}", std::process::id()));
        assert_eq!(read(&dir).expect("nothing"), None);
        let report = Report {
            usable: true,
            not_after: Some(UNIX_EPOCH + Duration::from_millis(1_795_500_000_500)),
            ..Report::default()
        };
        let state = AgentState {
            pid: 7,
            node: "worker-1".to_owned(),
            client_certificate: Some(CertificateState::from(&report)),
            ..AgentState::default()
        };
        write(&dir, &state).expect("writes");
        let read_again = read(&dir).expect("reads").expect("a state");
        assert_eq!(read_again, state);
        let end = read_again.client_certificate.and_then(|certificate| certificate.not_after);
        assert_eq!(end.as_deref(), Some("2026-11-24T06:00:00Z"));
        std::fs::write(path(&dir), r#"{"pid": 7, "later": {"a": 1}}"#).expect("writes");
        assert_eq!(read(&dir).expect("reads").map(|state| state.pid), Some(7));
        std::fs::write(path(&dir), "{").expect("writes");
        read(&dir).expect_err("half a state");
        remove(&dir).expect("removes");
        assert_eq!(read(&dir).expect("nothing"), None);
        std::fs::remove_dir(&dir).expect("empty");
    }

    #[test]
    fn what_it_waits_for_begins_with_certificates() {
        let mut state = AgentState { unready: Some("no network".to_owned()), ..AgentState::default() };
        assert_eq!(state.waits_for(), ["the API server to register the node", "no network"]);
        state.client_certificate =
            Some(CertificateState { problem: Some("it ended".to_owned()), ..CertificateState::default() });
        assert_eq!(state.waits_for(), ["client certificate: it ended", "no network"]);
    }
}
