//! `berth status`: what the machine knows, and what the API server says when it answers.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use berth_join::status::{Agent, Certificate, Joined, PodLine, Status, conditions, pod, render};
use berth_join::{JoinError, Journal, Paths, Phase, Session, clock, process};

use crate::cli::{self, Output};
use crate::join;
use crate::state::{self, AgentState, CertificateState};

/// An API server that is slower than this is not there, as far as one screen goes.
const PATIENCE: Duration = Duration::from_secs(5);
/// Where the agent says how it is.
pub(crate) const STATE: &str = "/run/berth";
const LOGS: &str = "/var/log/pods";

pub(crate) async fn run(options: &cli::Status) -> Result<()> {
    let paths = Paths::default();
    let status = look(&paths, Path::new(STATE)).await?;
    match options.output {
        Output::Text => print!("{}", render(&status, clock::now())),
        Output::Json => println!("{}", serde_json::to_string_pretty(&status).context("status")?),
    }
    Ok(())
}

async fn look(paths: &Paths, state_dir: &Path) -> Result<Status> {
    let journal = Journal::load(paths)?;
    let state = state::read(state_dir).ok().flatten();
    let alive = state.filter(|state| process::is_berth(state.pid));
    let mut status = Status { agent: agent(paths, journal.as_ref(), alive.as_ref()), ..Status::default() };
    if journal.is_none() && !paths.kubeconfig().exists() {
        return Ok(status);
    }
    let session = Session::open(&paths.kubeconfig());
    let joined = joined(journal.as_ref(), alive.as_ref(), session.as_ref().ok());
    match session {
        Ok(session) => {
            ask(&mut status, &session, &joined.node).await;
            status.certificates = certificates(alive.as_ref(), &session);
        }
        Err(error) => status.api_server_problem = Some(format!("not asked: {error}")),
    }
    if status.api_server_problem.is_some() {
        status.pods = local_pods(&paths.kubelet().join("pods"), Path::new(LOGS));
        status.pods_are_local = true;
    }
    status.waits_for = alive.as_ref().map(AgentState::waits_for).unwrap_or_default();
    status.joined = Some(joined);
    Ok(status)
}

fn joined(journal: Option<&Journal>, alive: Option<&AgentState>, session: Option<&Session>) -> Joined {
    match journal {
        Some(journal) => Joined {
            cluster: journal.cluster.clone(),
            server: journal.server.clone(),
            node: journal.node.clone(),
            phase: journal.phase,
        },
        // By kubeadm: the kubeconfig and the agent know.
        None => Joined {
            cluster: String::new(),
            server: session.map(|session| session.server().to_owned()).unwrap_or_default(),
            node: alive.map_or_else(crate::host::name, |state| state.node.clone()),
            phase: Phase::Joined,
        },
    }
}

fn agent(paths: &Paths, journal: Option<&Journal>, alive: Option<&AgentState>) -> Agent {
    let unit = journal.and_then(|journal| journal.unit.as_ref()).map(|unit| unit.name.clone());
    let start = match (&unit, journal) {
        (Some(unit), _) => Some(format!("systemctl start {unit}")),
        (None, Some(_)) => join::arguments(paths).ok().map(|arguments| format!("berth agent {}", arguments.join(" "))),
        (None, None) => None,
    };
    match alive {
        Some(state) => Agent {
            pid: Some(state.pid),
            version: state.version.clone(),
            unit,
            runtime: state.runtime.clone(),
            start: None,
        },
        None => Agent { unit, start, ..Agent::default() },
    }
}

/// Node and pods, as the API server has them; or why not.
async fn ask(status: &mut Status, session: &Session, node: &str) {
    let asked = async { tokio::try_join!(session.node(node), session.pods(node)) };
    match tokio::time::timeout(PATIENCE, asked).await {
        Ok(Ok((None, _))) => {}
        Ok(Ok((Some(object), pods))) => {
            status.conditions = conditions(&object);
            status.cordoned = object.spec.and_then(|spec| spec.unschedulable).unwrap_or(false);
            status.pods = pods.iter().map(pod).collect();
        }
        Ok(Err(JoinError::Answer { status: 401, .. })) => {
            status.api_server_problem = Some("it does not accept this node's certificate".to_owned());
        }
        Ok(Err(JoinError::Unreachable { reason, .. })) => status.api_server_problem = Some(reason),
        Ok(Err(error)) => status.api_server_problem = Some(error.to_string()),
        Err(_) => status.api_server_problem = Some(format!("no answer within {} s", PATIENCE.as_secs())),
    }
}

fn certificates(alive: Option<&AgentState>, session: &Session) -> Vec<Certificate> {
    let one = |name: &str, state: &CertificateState| Certificate {
        name: name.to_owned(),
        ends: state.not_after.clone(),
        renewal: state.renewal.clone(),
        problem: state.problem.clone(),
    };
    let mut certificates = Vec::new();
    match (alive.and_then(|state| state.client_certificate.as_ref()), session.ends()) {
        (Some(state), _) => certificates.push(one("client", state)),
        (None, Some(ends)) => {
            let expired = ends < clock::now();
            certificates.push(Certificate {
                name: "client".to_owned(),
                ends: Some(ends.to_string()),
                renewal: None,
                problem: expired.then(|| {
                    "the cluster no longer knows this node by it: get a token (\"kubeadm token create \
                     --print-join-command\" on the control-plane node), then `berth leave` and `berth join` here"
                        .to_owned()
                }),
            });
        }
        (None, None) => {}
    }
    certificates.extend(alive.and_then(|state| state.serving_certificate.as_ref()).map(|state| one("serving", state)));
    certificates
}

/// Pods that have a folder here, by the names of their logs (`NAMESPACE_NAME_UID`).
fn local_pods(folders: &Path, logs: &Path) -> Vec<PodLine> {
    let names = |folder: &Path| -> BTreeSet<String> {
        let Ok(entries) = fs::read_dir(folder) else { return BTreeSet::new() };
        entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect()
    };
    let here = names(folders);
    let known = names(logs).into_iter().filter_map(|log| {
        let mut parts = log.splitn(3, '_').map(str::to_owned);
        let (namespace, name, uid) = (parts.next()?, parts.next()?, parts.next()?);
        here.contains(&uid).then(|| PodLine { namespace, name, state: "here".to_owned(), ..PodLine::default() })
    });
    known.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_on_this_machine_are_found_by_their_logs() {
        let root = std::env::temp_dir().join(format!("berth-status-{}", std::process::id()));
        for folder in ["pods/uid-1", "logs/default_web_uid-1", "logs/default_gone_uid-2", "logs/odd"] {
            fs::create_dir_all(root.join(folder)).expect("folder");
        }
        let pods = local_pods(&root.join("pods"), &root.join("logs"));
        assert_eq!(pods.iter().map(|pod| pod.name.as_str()).collect::<Vec<_>>(), ["web"]);
        fs::remove_dir_all(&root).expect("cleaned");
    }
}
