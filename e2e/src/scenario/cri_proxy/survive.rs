//! The work of a call goes on when its caller is cut off: each call that changes something, once.

use std::pin::Pin;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use berth_cri_proto::v1 as cri;
use tonic::Status;

use super::calls::Caller;
use super::fate::{Fate, Fates};
use super::plan::{Seen, State};
use crate::cri::config;

/// How long the server has a request before the connection is cut, attempt by attempt: one that was not yet begun then
/// is no different from one that never came.
const BEGUN: [u64; 4] = [5, 20, 80, 300];
/// How long the work that goes on may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// In the image's file system.
const MARK: &str = "/tmp/mark";

type Call<'a> = Pin<Box<dyn Future<Output = Result<(), Status>> + 'a>>;

/// Who cuts and who looks.
struct Story<'a> {
    /// By the proxy.
    cut: Caller,
    /// Past it.
    eyes: Caller,
    fates: &'a Fates,
    uid: String,
}

/// Tells it with the pod of this number; `cut` goes through the proxy that `fates` belong to, `eyes` past it.
pub(super) async fn tell(
    cut: Caller,
    eyes: Caller,
    fates: &Fates,
    image: &str,
    logs: &str,
    number: usize,
) -> Result<()> {
    let mut story = Story { cut, eyes, fates, uid: config::uid(number) };
    let pod = config::sandbox(number, 0, logs)?;
    std::fs::create_dir_all(&pod.log_directory)?;

    let run = cri::RunPodSandboxRequest { config: Some(pod.clone()), ..Default::default() };
    let seen = story
        .cut("RunPodSandbox", |caller| call(caller.run_pod_sandbox(run.clone())), |seen| seen.sandboxes.len() == 1)
        .await?;
    let sandbox = seen.sandboxes[0].id.clone();
    let again = story.eyes.run_pod_sandbox(run).await.context("RunPodSandbox again")?.pod_sandbox_id;
    ensure!(again == sandbox, "RunPodSandbox again made {again} beside {sandbox}");

    let create = cri::CreateContainerRequest {
        pod_sandbox_id: sandbox.clone(),
        config: Some(config::container(&pod, image, 0, &["sh", "-c", config::UNTIL_TERM])),
        sandbox_config: Some(pod),
    };
    let seen = story
        .cut(
            "CreateContainer",
            |caller| call(caller.create_container(create.clone())),
            |seen| seen.containers.len() == 1,
        )
        .await?;
    let container = seen.containers[0].id.clone();
    let again = Box::pin(story.eyes.create_container(create)).await.context("CreateContainer again")?.container_id;
    ensure!(again == container, "CreateContainer again made {again} beside {container}");

    let start = cri::StartContainerRequest { container_id: container.clone() };
    let is = |state| move |seen: &Seen| seen.containers.iter().all(|container| container.state == state);
    story.cut("StartContainer", |caller| call(caller.start_container(start.clone())), is(State::Running)).await?;

    exec(&mut story, &container).await?;

    let stop = cri::StopContainerRequest { container_id: container.clone(), timeout: 30 };
    story.cut("StopContainer", |caller| call(caller.stop_container(stop.clone())), is(State::Exited)).await?;
    let remove = cri::RemoveContainerRequest { container_id: container };
    story
        .cut(
            "RemoveContainer",
            |caller| call(caller.remove_container(remove.clone())),
            |seen| seen.containers.is_empty(),
        )
        .await?;
    let stop = cri::StopPodSandboxRequest { pod_sandbox_id: sandbox.clone() };
    story
        .cut(
            "StopPodSandbox",
            |caller| call(caller.stop_pod_sandbox(stop.clone())),
            |seen| seen.sandboxes.iter().all(|sandbox| !sandbox.ready),
        )
        .await?;
    let remove = cri::RemovePodSandboxRequest { pod_sandbox_id: sandbox };
    story
        .cut(
            "RemovePodSandbox",
            |caller| call(caller.remove_pod_sandbox(remove.clone())),
            |seen| seen.sandboxes.is_empty(),
        )
        .await?;
    Ok(())
}

/// A command that runs on; what it did is seen by another one.
async fn exec(story: &mut Story<'_>, container: &str) -> Result<()> {
    let command = |script: &str| cri::ExecSyncRequest {
        container_id: container.to_owned(),
        cmd: vec!["sh".into(), "-c".into(), script.into()],
        timeout: 10,
    };
    story.fates.force(Fate::CutAfter(Duration::from_millis(BEGUN[3])));
    let answer = story.cut.exec_sync(command(&format!("sleep 1; touch {MARK}"))).await;
    ensure!(answer.is_err(), "ExecSync was not cut");
    let look = command(&format!("for i in $(seq 100); do test -e {MARK} && exit 0; sleep 0.1; done; exit 1"));
    let answer = story.eyes.exec_sync(look).await.context("ExecSync")?;
    ensure!(answer.exit_code == 0, "a command ended with its caller");
    Ok(())
}

/// Without its answer.
fn call<'a, T>(call: impl Future<Output = Result<T, Status>> + 'a) -> Call<'a> {
    Box::pin(async move { call.await.map(drop) })
}

impl Story<'_> {
    /// Makes a call whose connection is cut once the server has its request, and waits for what it was to bring about.
    async fn cut(
        &mut self,
        what: &str,
        ask: impl Fn(&mut Caller) -> Call<'_>,
        done: impl Fn(&Seen) -> bool,
    ) -> Result<Seen> {
        for milliseconds in BEGUN {
            self.fates.force(Fate::CutAfter(Duration::from_millis(milliseconds)));
            let answer = ask(&mut self.cut).await;
            ensure!(answer.is_err(), "{what} was not cut");
            let seen = async {
                loop {
                    let seen = self.eyes.look(Some(&self.uid)).await?;
                    if done(&seen) {
                        return Ok::<_, Status>(seen);
                    }
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            };
            if let Ok(seen) = tokio::time::timeout(PATIENCE, seen).await {
                return Ok(seen?);
            }
        }
        bail!("{what} does not go on without its caller")
    }
}
