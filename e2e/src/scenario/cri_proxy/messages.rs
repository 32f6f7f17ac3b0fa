//! Messages as large as a kubelet takes them, and larger.

use anyhow::{Context, Result, ensure};
use berth_cri_proto::v1 as cri;
use tonic::Code;

use super::calls::Caller;
use super::proxy::MESSAGE;
use crate::cri::config;

/// A pod's annotations: no API server allows so many, but another client may.
const ANNOTATION: usize = 5 << 20;

/// Tells it with the pod of this number.
pub(super) async fn tell(mut caller: Caller, image: &str, logs: &str, number: usize) -> Result<()> {
    let mut pod = config::sandbox(number, 0, logs)?;
    std::fs::create_dir_all(&pod.log_directory)?;
    pod.annotations.insert("large".to_owned(), "x".repeat(ANNOTATION));
    let run = cri::RunPodSandboxRequest { config: Some(pod.clone()), ..Default::default() };
    let sandbox = caller.run_pod_sandbox(run).await.context("a large pod")?.pod_sandbox_id;
    let request = cri::PodSandboxStatusRequest { pod_sandbox_id: sandbox.clone(), verbose: false };
    let status = caller.pod_sandbox_status(request).await.context("a large status")?.status.context("no status")?;
    ensure!(status.annotations == pod.annotations, "annotations came back changed");

    pod.annotations.clear();
    let create = cri::CreateContainerRequest {
        pod_sandbox_id: sandbox.clone(),
        config: Some(config::container(&pod, image, 0, &["sh", "-c", config::UNTIL_TERM])),
        sandbox_config: Some(pod.clone()),
    };
    let container = Box::pin(caller.create_container(create)).await.context("CreateContainer")?.container_id;
    let start = cri::StartContainerRequest { container_id: container.clone() };
    caller.start_container(start).await.context("StartContainer")?;
    // More than fits, on both streams.
    let print = format!("head -c {} /dev/zero; head -c {MESSAGE} /dev/zero >&2", 2 * MESSAGE);
    let exec =
        cri::ExecSyncRequest { container_id: container, cmd: vec!["sh".into(), "-c".into(), print], timeout: 50 };
    let answer = caller.exec_sync(exec).await.context("a command that prints 48 MiB")?;
    let (stdout, stderr) = (answer.stdout.len(), answer.stderr.len());
    ensure!(answer.exit_code == 0, "a command that prints much ended with {}", answer.exit_code);
    ensure!(stdout > MESSAGE / 4 && stderr > MESSAGE / 4, "only {stdout} and {stderr} bytes of much output came");

    let mut huge = config::sandbox(number + 1, 0, logs)?;
    huge.annotations.insert("huge".to_owned(), "x".repeat(MESSAGE));
    let run = cri::RunPodSandboxRequest { config: Some(huge), ..Default::default() };
    let refused = caller.run_pod_sandbox(run).await.err().context("a request of more than 16 MiB was taken")?;
    ensure!(matches!(refused.code(), Code::OutOfRange | Code::ResourceExhausted), "it is refused by {refused}");

    let remove = cri::RemovePodSandboxRequest { pod_sandbox_id: sandbox };
    caller.remove_pod_sandbox(remove).await.context("RemovePodSandbox")?;
    let seen = caller.look(None).await.context("the lists")?;
    ensure!(seen.sandboxes.is_empty() && seen.containers.is_empty(), "left: {seen:?}");
    Ok(())
}
