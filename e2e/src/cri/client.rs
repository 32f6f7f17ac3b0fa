//! A CRI client that measures: the same calls for Berth and for another runtime.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use berth_cri_proto::v1::image_service_client::ImageServiceClient;
use berth_cri_proto::v1::runtime_service_client::RuntimeServiceClient;
use berth_cri_proto::v1::{self as cri};
use prost::Message;
use tonic::Request;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};

use super::config;
use super::undecoded::Undecoded;

/// Enough for 50 sandboxes at once on a slow machine.
const TIMEOUT: Duration = Duration::from_secs(120);

/// A runtime behind a socket.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    runtime: RuntimeServiceClient<Channel>,
    images: ImageServiceClient<Channel>,
    raw: Grpc<Channel>,
    image: String,
    logs: String,
    /// Which of the runtime's handlers; empty is its default.
    handler: String,
}

/// A sandbox and what it was made from, which CreateContainer wants again.
#[derive(Debug, Clone)]
pub(crate) struct Sandbox {
    pub(crate) id: String,
    config: cri::PodSandboxConfig,
}

impl Client {
    pub(crate) async fn connect(socket: &Path, image: &str, logs: &Path) -> Result<Self> {
        let endpoint = Endpoint::from_shared(format!("unix:{}", socket.display()))?.timeout(TIMEOUT);
        let channel = endpoint.connect().await.with_context(|| format!("cannot reach {}", socket.display()))?;
        Ok(Self {
            runtime: RuntimeServiceClient::new(channel.clone()),
            images: ImageServiceClient::new(channel.clone()),
            // What 500 containers come to is more than tonic takes by default of others.
            raw: Grpc::new(channel).max_decoding_message_size(16 << 20),
            image: image.to_owned(),
            logs: logs.display().to_string(),
            handler: String::new(),
        })
    }

    /// The same with sandboxes of another handler.
    pub(crate) fn with_handler(self, handler: &str) -> Self {
        Self { handler: handler.to_owned(), ..self }
    }

    pub(crate) async fn pull(&mut self) -> Result<()> {
        let request = cri::PullImageRequest { image: Some(config::image_spec(&self.image)), ..Default::default() };
        self.images.pull_image(request).await.context("PullImage")?;
        Ok(())
    }

    /// RunPodSandbox with DNS, a host port and the default shared memory.
    pub(crate) async fn run_sandbox(&mut self, number: usize) -> Result<(Sandbox, Duration)> {
        let config = config::sandbox(number, 0, &self.logs)?;
        std::fs::create_dir_all(&config.log_directory)?;
        let request = cri::RunPodSandboxRequest { config: Some(config.clone()), runtime_handler: self.handler.clone() };
        let start = Instant::now();
        let id = self.runtime.run_pod_sandbox(request).await.context("RunPodSandbox")?.into_inner().pod_sandbox_id;
        Ok((Sandbox { id, config }, start.elapsed()))
    }

    /// CreateContainer and StartContainer of one that runs a shell's `script`.
    pub(crate) async fn start_container(&mut self, sandbox: &Sandbox, script: &str) -> Result<(String, Duration)> {
        let start = Instant::now();
        let id = self.create_container(sandbox, 0, &["sh", "-c", script]).await?;
        self.start(&id).await?;
        Ok((id, start.elapsed()))
    }

    pub(crate) async fn start(&mut self, container: &str) -> Result<()> {
        let request = cri::StartContainerRequest { container_id: container.to_owned() };
        self.runtime.start_container(request).await.context("StartContainer")?;
        Ok(())
    }

    pub(crate) async fn create_container(
        &mut self,
        sandbox: &Sandbox,
        attempt: u32,
        command: &[&str],
    ) -> Result<String> {
        let config = config::container(&sandbox.config, &self.image, attempt, command);
        let request = cri::CreateContainerRequest {
            pod_sandbox_id: sandbox.id.clone(),
            config: Some(config),
            sandbox_config: Some(sandbox.config.clone()),
        };
        Ok(self.runtime.create_container(request).await.context("CreateContainer")?.into_inner().container_id)
    }

    /// CreateContainer and StartContainer of one that reads what is typed, in a terminal or not.
    pub(crate) async fn start_listener(&mut self, sandbox: &Sandbox, tty: bool, script: &str) -> Result<String> {
        let mut config = config::container(&sandbox.config, &self.image, 0, &["sh", "-c", script]);
        (config.stdin, config.tty) = (true, tty);
        let request = cri::CreateContainerRequest {
            pod_sandbox_id: sandbox.id.clone(),
            config: Some(config),
            sandbox_config: Some(sandbox.config.clone()),
        };
        let id = self.runtime.create_container(request).await.context("CreateContainer")?.into_inner().container_id;
        self.start(&id).await?;
        Ok(id)
    }

    /// ExecSync of a shell's `script`: what it printed, and its exit code.
    pub(crate) async fn exec(&mut self, container: &str, script: &str) -> Result<(String, i32)> {
        let cmd = ["sh", "-c", script].map(str::to_owned).to_vec();
        let request = cri::ExecSyncRequest { container_id: container.to_owned(), cmd, timeout: 10 };
        let answer = self.runtime.exec_sync(request).await.context("ExecSync")?.into_inner();
        Ok((String::from_utf8_lossy(&answer.stdout).into_owned(), answer.exit_code))
    }

    /// UpdateContainerResources to so many bytes of memory.
    pub(crate) async fn limit_memory(&mut self, container: &str, bytes: i64) -> Result<()> {
        let request = cri::UpdateContainerResourcesRequest {
            container_id: container.to_owned(),
            linux: Some(cri::LinuxContainerResources { memory_limit_in_bytes: bytes, ..Default::default() }),
            ..Default::default()
        };
        self.runtime.update_container_resources(request).await.context("UpdateContainerResources")?;
        Ok(())
    }

    /// ContainerStats: the bytes of memory that a container uses.
    pub(crate) async fn memory_of(&mut self, container: &str) -> Result<u64> {
        let request = cri::ContainerStatsRequest { container_id: container.to_owned() };
        let stats = self.runtime.container_stats(request).await.context("ContainerStats")?.into_inner().stats;
        let memory = stats.and_then(|stats| stats.memory).and_then(|memory| memory.working_set_bytes);
        Ok(memory.context("no figure of the memory")?.value)
    }

    /// A container's state and exit code.
    pub(crate) async fn state_of(&mut self, container: &str) -> Result<(cri::ContainerState, i32)> {
        let request = cri::ContainerStatusRequest { container_id: container.to_owned(), verbose: false };
        let status = self.runtime.container_status(request).await.context("ContainerStatus")?.into_inner().status;
        let status = status.context("no status")?;
        Ok((status.state(), status.exit_code))
    }

    /// Exec in a terminal: where its streams are.
    pub(crate) async fn exec_url(&mut self, container: &str, command: &[&str]) -> Result<String> {
        let request = cri::ExecRequest {
            container_id: container.to_owned(),
            cmd: command.iter().map(|&word| word.into()).collect(),
            tty: true,
            stdin: true,
            stdout: true,
            stderr: false,
        };
        Ok(self.runtime.exec(request).await.context("Exec")?.into_inner().url)
    }

    /// Attach: where the container's streams are.
    pub(crate) async fn attach_url(&mut self, container: &str, tty: bool) -> Result<String> {
        let request =
            cri::AttachRequest { container_id: container.to_owned(), stdin: true, tty, stdout: true, stderr: !tty };
        Ok(self.runtime.attach(request).await.context("Attach")?.into_inner().url)
    }

    pub(crate) async fn exec_true(&mut self, container: &str) -> Result<Duration> {
        let request = cri::ExecSyncRequest { container_id: container.into(), cmd: vec!["true".into()], timeout: 10 };
        let start = Instant::now();
        let answer = self.runtime.exec_sync(request).await.context("ExecSync")?.into_inner();
        anyhow::ensure!(answer.exit_code == 0, "true ended with {}", answer.exit_code);
        Ok(start.elapsed())
    }

    /// ListContainers; how many there are, and how long the answer's last byte took. It is decoded afterwards, for a
    /// development build of this client takes longer to do so than the runtimes take to answer.
    pub(crate) async fn list_containers(&mut self) -> Result<(usize, Duration)> {
        let path = PathAndQuery::from_static("/runtime.v1.RuntimeService/ListContainers");
        let start = Instant::now();
        self.raw.ready().await?;
        let request = Request::new(cri::ListContainersRequest::default().encode_to_vec());
        let answer = self.raw.unary(request, path, Undecoded).await.context("ListContainers")?.into_inner();
        let took = start.elapsed();
        Ok((cri::ListContainersResponse::decode(answer)?.containers.len(), took))
    }

    /// Waits until a container has ended by itself.
    pub(crate) async fn await_exit(&mut self, container: &str) -> Result<()> {
        let limit = Instant::now() + TIMEOUT;
        while self.state_of(container).await?.0 != cri::ContainerState::ContainerExited {
            anyhow::ensure!(Instant::now() < limit, "container {container} does not end");
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
        Ok(())
    }

    pub(crate) async fn stop_container(&mut self, container: &str) -> Result<Duration> {
        let start = Instant::now();
        let request = cri::StopContainerRequest { container_id: container.into(), timeout: 10 };
        self.runtime.stop_container(request).await.context("StopContainer")?;
        Ok(start.elapsed())
    }

    pub(crate) async fn remove_container(&mut self, container: &str) -> Result<()> {
        let request = cri::RemoveContainerRequest { container_id: container.into() };
        self.runtime.remove_container(request).await.context("RemoveContainer")?;
        Ok(())
    }

    pub(crate) async fn remove_sandbox(&mut self, sandbox: &Sandbox) -> Result<Duration> {
        let start = Instant::now();
        let request = cri::StopPodSandboxRequest { pod_sandbox_id: sandbox.id.clone() };
        self.runtime.stop_pod_sandbox(request).await.context("StopPodSandbox")?;
        let request = cri::RemovePodSandboxRequest { pod_sandbox_id: sandbox.id.clone() };
        self.runtime.remove_pod_sandbox(request).await.context("RemovePodSandbox")?;
        Ok(start.elapsed())
    }
}
