//! What the runtime says, as the core sees it.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use berth_agent_core::{Moment, SeenContainer, SeenSandbox, State, names};
use berth_cri_proto::v1 as cri;
use tonic::Status;

use crate::Cri;

/// Most bytes of a termination message.
const MESSAGE_LIMIT: u64 = 4096;
/// Most bytes of a log's end that stand in for one.
const LOG_TAIL: u64 = 2048;

/// Everything of one pod: sandboxes and containers, newest first each.
pub(crate) async fn pod(
    runtime: &Cri,
    uid: &str,
    logs: &Path,
) -> Result<(Vec<SeenSandbox>, Vec<SeenContainer>), Status> {
    let selector: HashMap<String, String> = [(names::POD_UID.to_owned(), uid.to_owned())].into();
    let filter = cri::PodSandboxFilter { label_selector: selector.clone(), ..Default::default() };
    let listed = runtime.list_pod_sandbox(cri::ListPodSandboxRequest { filter: Some(filter) }).await?.items;
    let mut sandboxes = Vec::with_capacity(listed.len());
    for item in listed {
        sandboxes.extend(sandbox(runtime, &item.id).await?);
    }
    let filter = cri::ContainerFilter { label_selector: selector, ..Default::default() };
    let listed = runtime.list_containers(cri::ListContainersRequest { filter: Some(filter) }).await?.containers;
    let mut containers = Vec::with_capacity(listed.len());
    for item in listed {
        containers.extend(container(runtime, &item.id, Some(&item.pod_sandbox_id), logs).await?);
    }
    sort(&mut sandboxes, &mut containers);
    Ok((sandboxes, containers))
}

/// Ids and states, to tell whether a listing shows anything new.
pub(crate) fn signature(sandboxes: &[SeenSandbox], containers: &[SeenContainer]) -> Vec<(String, i32)> {
    let state = |container: &SeenContainer| match container.state {
        State::Created => cri::ContainerState::ContainerCreated,
        State::Running { .. } => cri::ContainerState::ContainerRunning,
        State::Exited { .. } => cri::ContainerState::ContainerExited,
        State::Unknown => cri::ContainerState::ContainerUnknown,
    };
    let mut out: Vec<(String, i32)> = containers.iter().map(|c| (c.id.clone(), state(c).into())).collect();
    out.extend(sandboxes.iter().map(|sandbox| {
        let ready = cri::PodSandboxState::SandboxReady;
        let state = if sandbox.ready { ready } else { cri::PodSandboxState::SandboxNotready };
        (sandbox.id.clone(), state.into())
    }));
    out.sort_unstable();
    out
}

/// Newest first.
pub(crate) fn sort(sandboxes: &mut [SeenSandbox], containers: &mut [SeenContainer]) {
    sandboxes.sort_by_key(|sandbox| std::cmp::Reverse((sandbox.attempt, sandbox.created)));
    containers.sort_by_key(|container| std::cmp::Reverse((container.attempt, container.created)));
}

/// One sandbox; `None` when it is gone.
pub(crate) async fn sandbox(runtime: &Cri, id: &str) -> Result<Option<SeenSandbox>, Status> {
    let request = cri::PodSandboxStatusRequest { pod_sandbox_id: id.to_owned(), verbose: false };
    let Some(status) = found(runtime.pod_sandbox_status(request).await)?.and_then(|response| response.status) else {
        return Ok(None);
    };
    let ready = status.state() == cri::PodSandboxState::SandboxReady;
    let mut ips = Vec::new();
    if let Some(network) = status.network {
        ips.extend(Some(network.ip).filter(|ip| !ip.is_empty()));
        ips.extend(network.additional_ips.into_iter().map(|ip| ip.ip));
    }
    let options = status.linux.and_then(|linux| linux.namespaces).and_then(|namespaces| namespaces.options);
    Ok(Some(SeenSandbox {
        id: status.id,
        attempt: status.metadata.map_or(0, |metadata| metadata.attempt),
        ready,
        created: Moment(status.created_at),
        ips,
        host_network: options.is_some_and(|options| options.network() == cri::NamespaceMode::Node),
    }))
}

/// One container; `None` when it is gone. `sandbox`: where it lies, when that is known already.
pub(crate) async fn container(
    runtime: &Cri,
    id: &str,
    sandbox: Option<&str>,
    logs: &Path,
) -> Result<Option<SeenContainer>, Status> {
    let request = cri::ContainerStatusRequest { container_id: id.to_owned(), verbose: false };
    let Some(status) = found(runtime.container_status(request).await)?.and_then(|response| response.status) else {
        return Ok(None);
    };
    let sandbox = match sandbox {
        Some(sandbox) => sandbox.to_owned(),
        // CRI's container status does not name the sandbox.
        None => {
            let filter = cri::ContainerFilter { id: id.to_owned(), ..Default::default() };
            let listed = runtime.list_containers(cri::ListContainersRequest { filter: Some(filter) }).await?;
            match listed.containers.into_iter().find(|container| container.id == id) {
                Some(container) => container.pod_sandbox_id,
                None => return Ok(None),
            }
        }
    };
    Ok(Some(convert(status, sandbox, logs)))
}

fn found<T>(answer: Result<T, Status>) -> Result<Option<T>, Status> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(status) if status.code() == tonic::Code::NotFound => Ok(None),
        Err(status) => Err(status),
    }
}

fn convert(status: cri::ContainerStatus, sandbox: String, logs: &Path) -> SeenContainer {
    let annotation = |name: &str| status.annotations.get(name).map(String::as_str).unwrap_or_default();
    let metadata = status.metadata.clone().unwrap_or_default();
    let state = match status.state() {
        cri::ContainerState::ContainerCreated => State::Created,
        cri::ContainerState::ContainerRunning => State::Running { started: Moment(status.started_at) },
        cri::ContainerState::ContainerExited => State::Exited {
            started: Moment(status.started_at),
            finished: Moment(status.finished_at),
            code: status.exit_code,
            reason: status.reason.clone(),
            message: message(&status, logs),
        },
        cri::ContainerState::ContainerUnknown => State::Unknown,
    };
    let image = status.image.as_ref();
    let user = status.user.as_ref().and_then(|user| user.linux.as_ref());
    SeenContainer {
        name: status.labels.get(names::CONTAINER_NAME).cloned().unwrap_or(metadata.name),
        sandbox,
        attempt: annotation(names::RESTART_COUNT).parse().unwrap_or(metadata.attempt),
        created: Moment(status.created_at),
        backoff: annotation(names::BACKOFF).parse().unwrap_or(0),
        image: image.map(|image| image.user_specified_image.clone()).unwrap_or_default(),
        image_ref: status.image_ref.clone(),
        user: user.map(|user| (user.uid, user.gid, user.supplemental_groups.clone())),
        log_path: status.log_path.clone(),
        state,
        id: status.id,
    }
}

/// The runtime's message, and what the container left as its own.
fn message(status: &cri::ContainerStatus, logs: &Path) -> String {
    let annotation = |name: &str| status.annotations.get(name).map(String::as_str).unwrap_or_default();
    let path = annotation(names::TERMINATION_MESSAGE_PATH);
    let file = status.mounts.iter().find(|mount| !path.is_empty() && mount.container_path == path);
    let mut own = file.map(|mount| head(Path::new(&mount.host_path))).unwrap_or_default();
    let fallback = annotation(names::TERMINATION_MESSAGE_POLICY) == "FallbackToLogsOnError";
    if own.is_empty() && fallback && status.exit_code != 0 {
        let log = PathBuf::from(&status.log_path);
        own = log_tail(&if log.is_absolute() { log } else { logs.join(log) });
    }
    match (status.message.is_empty(), own.is_empty()) {
        (false, false) => format!("{}: {own}", status.message),
        (true, _) => own,
        (false, true) => status.message.clone(),
    }
}

fn head(path: &Path) -> String {
    let mut bytes = Vec::new();
    if let Ok(file) = File::open(path) {
        let _ = file.take(MESSAGE_LIMIT).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The end of a CRI log, without the lines' time and stream.
fn log_tail(path: &Path) -> String {
    let Ok(mut file) = File::open(path) else { return String::new() };
    let length = file.metadata().map_or(0, |metadata| metadata.len());
    // Each line carries about 40 bytes of time, stream and tag.
    let from = length.saturating_sub(2 * LOG_TAIL);
    let mut bytes = Vec::new();
    if file.seek(SeekFrom::Start(from)).is_err() || file.take(2 * LOG_TAIL).read_to_end(&mut bytes).is_err() {
        return String::new();
    }
    let text = String::from_utf8_lossy(&bytes);
    let lines = text.lines().skip(usize::from(from > 0));
    let mut out = String::new();
    for line in lines {
        let mut parts = line.splitn(4, ' ');
        let (_time, _stream, tag, rest) = (parts.next(), parts.next(), parts.next(), parts.next());
        out.push_str(rest.unwrap_or_default());
        if tag == Some("F") {
            out.push('\n');
        }
    }
    let limit = usize::try_from(LOG_TAIL).unwrap_or(usize::MAX);
    let mut start = out.len().saturating_sub(limit);
    while !out.is_char_boundary(start) {
        start += 1;
    }
    out.split_off(start)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("berth-pods-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        folder
    }

    #[test]
    fn a_log_stands_in_for_a_missing_message() {
        let folder = folder("message");
        let log = folder.join("0.log");
        std::fs::write(&log, "t stdout F one\nt stderr P tw\nt stderr F o\n").expect("a log");
        let mut status =
            cri::ContainerStatus { exit_code: 1, log_path: log.to_string_lossy().into(), ..Default::default() };
        assert_eq!(message(&status, &folder), "");
        status.annotations.insert(names::TERMINATION_MESSAGE_POLICY.into(), "FallbackToLogsOnError".into());
        assert_eq!(message(&status, &folder), "one\ntwo\n");
        let own = folder.join("own");
        std::fs::write(&own, "x".repeat(5000)).expect("a message");
        status.annotations.insert(names::TERMINATION_MESSAGE_PATH.into(), "/dev/termination-log".into());
        status.mounts.push(cri::Mount {
            container_path: "/dev/termination-log".into(),
            host_path: own.to_string_lossy().into(),
            ..Default::default()
        });
        assert_eq!(message(&status, &folder).len(), 4096);
        std::fs::remove_dir_all(&folder).expect("clean up");
    }
}
