//! What `berth status` shows: one screen of 80 columns, or JSON.

use std::fmt::Write as _;

use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::jiff::Timestamp;
use serde::Serialize;

use crate::{Phase, clock};

const WIDTH: usize = 80;
/// Where the second column begins.
const INDENT: usize = 14;
/// Pods on one screen.
const PODS: usize = 10;

/// Everything that is shown.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// The cluster that this machine has joined; `None` when it has not.
    pub joined: Option<Joined>,
    /// The agent on this machine.
    pub agent: Agent,
    /// What keeps the API server from answering; `None` when it does (or is not known).
    pub api_server_problem: Option<String>,
    /// Certificates, the client's first.
    pub certificates: Vec<Certificate>,
    /// The node's conditions as the API server has them; empty when it was not reached.
    pub conditions: Vec<Condition>,
    /// Whether new pods are kept away.
    pub cordoned: bool,
    /// The node's pods.
    pub pods: Vec<PodLine>,
    /// Whether the pods are what the machine knows, as the API server was not reached.
    pub pods_are_local: bool,
    /// What the agent waits for, or what somebody must do.
    pub waits_for: Vec<String>,
}

/// What was joined.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Joined {
    /// The cluster's name; empty when kubeadm joined it.
    pub cluster: String,
    /// Its address.
    pub server: String,
    /// This node's name.
    pub node: String,
    /// How far it has come.
    pub phase: Phase,
}

/// The agent's process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Agent {
    /// `None` when it does not run.
    pub pid: Option<u32>,
    /// Kubernetes' version and Berth's own.
    pub version: String,
    /// The systemd unit that runs it.
    pub unit: Option<String>,
    /// `NAME://VERSION`.
    pub runtime: String,
    /// How to start it, when it does not run.
    pub start: Option<String>,
}

/// A certificate.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Certificate {
    /// `client` or `serving`.
    pub name: String,
    /// Until when it is good (RFC 3339).
    pub ends: Option<String>,
    /// When it will be renewed (RFC 3339).
    pub renewal: Option<String>,
    /// What is wrong, and what an operator must do.
    pub problem: Option<String>,
}

/// A node's condition.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// `Ready`, …
    pub r#type: String,
    /// `True`, `False`, `Unknown`.
    pub status: String,
    /// In the agent's words.
    pub message: String,
}

impl Condition {
    /// Whether it is as it should be: Ready is true, everything else is pressure.
    fn is_good(&self) -> bool {
        self.status == if self.r#type == "Ready" { "True" } else { "False" }
    }
}

/// A pod.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PodLine {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// As kubectl has it: the phase, or why a container waits.
    pub state: String,
    /// `1/2`; empty when not known.
    pub ready: String,
    /// Of all its containers.
    pub restarts: i32,
}

/// A node's conditions.
pub fn conditions(node: &Node) -> Vec<Condition> {
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let mut conditions: Vec<_> = conditions
        .map(|condition| Condition {
            r#type: condition.type_.clone(),
            status: condition.status.clone(),
            message: condition.message.clone().unwrap_or_default(),
        })
        .collect();
    conditions.sort_by_key(|condition| condition.r#type != "Ready");
    conditions
}

/// A pod's line.
pub fn pod(pod: &Pod) -> PodLine {
    let status = pod.status.clone().unwrap_or_default();
    let containers = status.container_statuses.unwrap_or_default();
    let waiting = containers.iter().find_map(|c| c.state.as_ref()?.waiting.as_ref()?.reason.clone());
    let phase = status.phase.unwrap_or_else(|| "Pending".to_owned());
    let state =
        if pod.metadata.deletion_timestamp.is_some() { "Terminating".to_owned() } else { waiting.unwrap_or(phase) };
    PodLine {
        namespace: pod.metadata.namespace.clone().unwrap_or_default(),
        name: pod.metadata.name.clone().unwrap_or_default(),
        state,
        ready: format!("{}/{}", containers.iter().filter(|c| c.ready).count(), containers.len()),
        restarts: containers.iter().map(|c| c.restart_count).sum(),
    }
}

/// The screen. `now` is for how long certificates last.
pub fn render(status: &Status, now: Timestamp) -> String {
    let mut out = String::new();
    let Some(joined) = &status.joined else {
        line(&mut out, "node", "not joined: `berth join HOST:6443 --token …` makes this machine a node");
        agent(&mut out, &status.agent);
        return out;
    };
    let cluster = if joined.cluster.is_empty() { String::new() } else { format!("cluster {:?} ", joined.cluster) };
    let phase = match joined.phase {
        Phase::Joined => "",
        Phase::Leaving => " (leaving: run `berth leave` again)",
        Phase::Joining | Phase::Starting => " (joining has not finished: run `berth join` again)",
    };
    let cordoned = if status.cordoned { ", takes no new pods (cordoned)" } else { "" };
    line(&mut out, "node", &format!("{}{cordoned}", joined.node));
    line(&mut out, "joined to", &format!("{cluster}at {}{phase}", joined.server));
    agent(&mut out, &status.agent);
    match &status.api_server_problem {
        None => line(&mut out, "API server", "answers"),
        Some(problem) => line(&mut out, "API server", &format!("does not answer: {problem}")),
    }
    for certificate in &status.certificates {
        line(&mut out, &format!("{} cert", certificate.name), &validity(certificate, now));
    }
    for condition in status.conditions.iter().filter(|condition| condition.r#type == "Ready" || !condition.is_good()) {
        let message = if condition.is_good() { String::new() } else { format!(": {}", condition.message) };
        line(&mut out, &condition.r#type, &format!("{}{message}", condition.status));
    }
    pods(&mut out, status);
    if !status.waits_for.is_empty() {
        out.push_str("waits for\n");
        for waits in &status.waits_for {
            for (number, part) in wrap(waits, WIDTH - 4).iter().enumerate() {
                let _ = writeln!(out, "{}{part}", if number == 0 { "  - " } else { "    " });
            }
        }
    }
    out
}

fn agent(out: &mut String, agent: &Agent) {
    let how = agent.unit.as_ref().map_or(String::new(), |unit| format!(", unit {unit}"));
    match agent.pid {
        Some(pid) => {
            line(out, "agent", &format!("running, pid {pid}{how}, {}", agent.version));
            line(out, "runtime", &agent.runtime);
        }
        None => {
            let start = agent.start.as_ref().map_or(String::new(), |start| format!(": start it with `{start}`"));
            line(out, "agent", &format!("not running{start}"));
        }
    }
}

fn validity(certificate: &Certificate, now: Timestamp) -> String {
    let Some(text) = &certificate.ends else {
        return certificate.problem.clone().unwrap_or_else(|| "none yet".to_owned());
    };
    let left = text.parse::<Timestamp>().map(|ends| ends.as_second() - now.as_second());
    let mut said = match left {
        Ok(left) if left < 0 => {
            format!("EXPIRED {} ago ({text})", clock::show(std::time::Duration::from_secs(left.unsigned_abs())))
        }
        Ok(left) => format!("good until {text} ({})", clock::show(std::time::Duration::from_secs(left.unsigned_abs()))),
        Err(_) => format!("good until {text}"),
    };
    if let Some(renewal) = certificate.renewal.as_ref().filter(|_| certificate.problem.is_none()) {
        let _ = write!(said, ", renewed {renewal}");
    }
    if let Some(problem) = &certificate.problem {
        let _ = write!(said, ": {problem}");
    }
    said
}

fn pods(out: &mut String, status: &Status) {
    let number = status.pods.len();
    let local = if status.pods_are_local { ", as this machine knows them" } else { "" };
    line(out, "pods", &format!("{number}{local}"));
    // What needs a look comes first when not all fit.
    let mut shown: Vec<&PodLine> = status.pods.iter().collect();
    if number > PODS {
        shown.sort_by_key(|pod| pod.state == "Running" || pod.state == "Succeeded");
    }
    for pod in shown.iter().take(PODS) {
        let name = shorten(&format!("{}/{}", pod.namespace, pod.name), 42);
        let restarts = if pod.restarts > 0 { format!("restarts {}", pod.restarts) } else { String::new() };
        let text = format!("  {name:<42} {:>5} {:<16} {restarts}", pod.ready, shorten(&pod.state, 16));
        let _ = writeln!(out, "{}", shorten(text.trim_end(), WIDTH));
    }
    if number > PODS {
        let _ = writeln!(out, "  and {} more", number - PODS);
    }
}

/// A label and a text, which goes on below itself.
fn line(out: &mut String, label: &str, text: &str) {
    for (number, part) in wrap(text, WIDTH - INDENT).iter().enumerate() {
        let label = if number == 0 { label } else { "" };
        let _ = writeln!(out, "{}", format!("{label:<width$}{part}", width = INDENT).trim_end());
    }
}

/// Lines of at most `width` columns, one at least; a word that is longer than that is cut.
pub fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        let mut word: Vec<char> = word.chars().collect();
        if let Some(line) = lines.last_mut()
            && line.chars().count() + 1 + word.len() <= width
        {
            line.push(' ');
            line.extend(word);
            continue;
        }
        // A word that is wider than the column (a path, a URL) is cut.
        while word.len() > width {
            let rest = word.split_off(width);
            lines.push(word.into_iter().collect());
            word = rest;
        }
        lines.push(word.into_iter().collect());
    }
    if lines.is_empty() {
        lines.push(String::new());
    }
    lines
}

fn shorten(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-11-24T09:00:00Z".parse().expect("a time")
    }

    fn whole() -> Status {
        Status {
            joined: Some(Joined {
                cluster: "kubernetes".into(),
                server: "https://10.0.0.1:6443".into(),
                node: "worker-1".into(),
                phase: Phase::Joined,
            }),
            agent: Agent {
                pid: Some(7),
                version: "v1.37.2+berth.0.1.0".into(),
                unit: Some("berth-agent.service".into()),
                runtime: "berth://0.1.0".into(),
                start: None,
            },
            certificates: vec![Certificate {
                name: "client".into(),
                ends: Some("2027-11-24T09:00:00Z".into()),
                renewal: Some("2027-08-24T09:00:00Z".into()),
                problem: None,
            }],
            conditions: vec![Condition { r#type: "Ready".into(), status: "True".into(), message: "fine".into() }],
            pods: vec![PodLine {
                namespace: "kube-system".into(),
                name: "kindnet-x7x2p".into(),
                state: "Running".into(),
                ready: "1/1".into(),
                restarts: 2,
            }],
            ..Status::default()
        }
    }

    #[test]
    fn a_node_in_good_health_is_a_short_screen() {
        assert_eq!(
            render(&whole(), now()),
            "node          worker-1\n\
             joined to     cluster \"kubernetes\" at https://10.0.0.1:6443\n\
             agent         running, pid 7, unit berth-agent.service, v1.37.2+berth.0.1.0\n\
             runtime       berth://0.1.0\n\
             API server    answers\n\
             client cert   good until 2027-11-24T09:00:00Z (365 days), renewed\n              2027-08-24T09:00:00Z\n\
             Ready         True\n\
             pods          1\n  \
             kube-system/kindnet-x7x2p                    1/1 Running          restarts 2\n"
        );
    }

    #[test]
    fn what_is_wrong_is_said_with_what_to_do() {
        let mut status = whole();
        status.api_server_problem = Some("connection refused".into());
        status.certificates[0].ends = Some("2026-11-23T09:00:00Z".into());
        status.certificates[0].problem = Some("use \"kubeadm token create\"".into());
        status.conditions[0] = Condition { r#type: "Ready".into(), status: "False".into(), message: "no CNI".into() };
        status.waits_for = vec!["a CNI configuration".into()];
        status.pods_are_local = true;
        status.agent = Agent { start: Some("systemctl start berth-agent".into()), ..Agent::default() };
        let screen = render(&status, now());
        for says in [
            "does not answer: connection refused",
            "EXPIRED 24 hours ago",
            "use \"kubeadm token",
            "Ready         False: no CNI",
            "  - a CNI configuration",
            "as this machine knows them",
            "not running: start it with `systemctl start berth-agent`",
        ] {
            assert!(screen.contains(says), "{says}\n{screen}");
        }
    }

    #[test]
    fn whatever_it_shows_fits_the_screen() {
        let mut status = whole();
        let long = "x".repeat(300);
        status.joined.as_mut().expect("joined").server.clone_from(&long);
        status.api_server_problem = Some(format!("{long} {}", "words ".repeat(100)));
        status.waits_for = vec!["ünïcödé ".repeat(40), long.clone()];
        status.pods = vec![PodLine { name: long.clone(), state: long, restarts: i32::MAX, ..PodLine::default() }; 40];
        status.pods[39].state = "Failed".into();
        let screen = render(&status, now());
        assert!(screen.lines().all(|line| line.chars().count() <= WIDTH), "{screen}");
        assert!(screen.contains("and 30 more"));
    }

    #[test]
    fn a_machine_that_has_not_joined_is_told_how() {
        assert!(render(&Status::default(), now()).contains("not joined: `berth join HOST:6443"));
    }

    #[test]
    fn pods_are_shown_as_kubectl_does() {
        let value = serde_json::json!({
            "metadata": {"namespace": "a", "name": "b"},
            "status": {"phase": "Running", "containerStatuses": [
                {"name": "c", "ready": true, "restartCount": 1, "image": "", "imageID": ""},
                {"name": "d", "ready": false, "restartCount": 2, "image": "", "imageID": "",
                 "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]}
        });
        let line = pod(&serde_json::from_value(value).expect("a pod"));
        assert_eq!((line.state.as_str(), line.ready.as_str(), line.restarts), ("CrashLoopBackOff", "1/2", 3));
    }
}
