//! A CRI client that measures: the same calls for Berth and for the reference.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use berth_cri_proto::v1::image_service_client::ImageServiceClient;
use berth_cri_proto::v1::runtime_service_client::RuntimeServiceClient;
use berth_cri_proto::v1::{self as cri};
use tonic::transport::{Channel, Endpoint};

/// Pods of the benchmarks are put below this cgroup.
pub(super) const CGROUP: &str = "/berth-bench";
/// The first host port that a sandbox maps; each takes the next.
const FIRST_PORT: i32 = 20_000;
/// Enough for 50 sandboxes at once on a slow machine.
const TIMEOUT: Duration = Duration::from_secs(120);

/// A runtime behind a socket.
#[derive(Debug, Clone)]
pub(super) struct Client {
    runtime: RuntimeServiceClient<Channel>,
    images: ImageServiceClient<Channel>,
    image: String,
    logs: String,
}

/// A sandbox and what it was made from, which CreateContainer wants again.
#[derive(Debug, Clone)]
pub(super) struct Sandbox {
    pub(super) id: String,
    config: cri::PodSandboxConfig,
}

impl Client {
    pub(super) async fn connect(socket: &Path, image: &str, logs: &Path) -> Result<Self> {
        let endpoint = Endpoint::from_shared(format!("unix:{}", socket.display()))?.timeout(TIMEOUT);
        let channel = endpoint.connect().await.with_context(|| format!("cannot reach {}", socket.display()))?;
        Ok(Self {
            runtime: RuntimeServiceClient::new(channel.clone()),
            images: ImageServiceClient::new(channel),
            image: image.to_owned(),
            logs: logs.display().to_string(),
        })
    }

    pub(super) async fn pull(&mut self) -> Result<()> {
        let request = cri::PullImageRequest { image: Some(self.image_spec()), ..Default::default() };
        self.images.pull_image(request).await.context("PullImage")?;
        Ok(())
    }

    /// RunPodSandbox with DNS, a host port and the default shared memory.
    pub(super) async fn run_sandbox(&mut self, number: usize) -> Result<(Sandbox, Duration)> {
        let name = format!("bench-{number}");
        let uid = format!("{:08x}-0000-4000-8000-{:012x}", std::process::id(), number);
        let config = cri::PodSandboxConfig {
            metadata: Some(cri::PodSandboxMetadata {
                name: name.clone(),
                uid: uid.clone(),
                namespace: "bench".into(),
                attempt: 0,
            }),
            hostname: name,
            log_directory: format!("{}/{uid}", self.logs),
            dns_config: Some(cri::DnsConfig {
                servers: vec!["10.96.0.10".into()],
                searches: vec!["default.svc.cluster.local".into(), "svc.cluster.local".into()],
                options: vec!["ndots:5".into()],
            }),
            port_mappings: vec![cri::PortMapping {
                protocol: cri::Protocol::Tcp.into(),
                container_port: 80,
                host_port: FIRST_PORT + i32::try_from(number)?,
                host_ip: String::new(),
            }],
            linux: Some(cri::LinuxPodSandboxConfig {
                cgroup_parent: format!("{CGROUP}/pod{uid}"),
                security_context: Some(cri::LinuxSandboxSecurityContext {
                    namespace_options: Some(cri::NamespaceOption {
                        pid: cri::NamespaceMode::Container.into(),
                        ..Default::default()
                    }),
                    seccomp: Some(runtime_default()),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        };
        std::fs::create_dir_all(&config.log_directory)?;
        let request = cri::RunPodSandboxRequest { config: Some(config.clone()), ..Default::default() };
        let start = Instant::now();
        let id = self.runtime.run_pod_sandbox(request).await.context("RunPodSandbox")?.into_inner().pod_sandbox_id;
        Ok((Sandbox { id, config }, start.elapsed()))
    }

    /// CreateContainer and StartContainer of one that runs a shell's `script`.
    pub(super) async fn start_container(&mut self, sandbox: &Sandbox, script: &str) -> Result<(String, Duration)> {
        let start = Instant::now();
        let id = self.create_container(sandbox, 0, &["sh", "-c", script]).await?;
        let request = cri::StartContainerRequest { container_id: id.clone() };
        self.runtime.start_container(request).await.context("StartContainer")?;
        Ok((id, start.elapsed()))
    }

    pub(super) async fn create_container(
        &mut self,
        sandbox: &Sandbox,
        attempt: u32,
        command: &[&str],
    ) -> Result<String> {
        let config = cri::ContainerConfig {
            metadata: Some(cri::ContainerMetadata { name: "main".into(), attempt }),
            image: Some(self.image_spec()),
            command: command.iter().map(|&word| word.into()).collect(),
            log_path: format!("main_{attempt}.log"),
            linux: Some(cri::LinuxContainerConfig {
                resources: Some(cri::LinuxContainerResources {
                    cpu_shares: 102,
                    memory_limit_in_bytes: 256 << 20,
                    oom_score_adj: 1000,
                    ..Default::default()
                }),
                security_context: Some(cri::LinuxContainerSecurityContext {
                    namespace_options: Some(cri::NamespaceOption {
                        pid: cri::NamespaceMode::Container.into(),
                        ..Default::default()
                    }),
                    seccomp: Some(runtime_default()),
                    ..Default::default()
                }),
            }),
            ..Default::default()
        };
        let request = cri::CreateContainerRequest {
            pod_sandbox_id: sandbox.id.clone(),
            config: Some(config),
            sandbox_config: Some(sandbox.config.clone()),
        };
        Ok(self.runtime.create_container(request).await.context("CreateContainer")?.into_inner().container_id)
    }

    pub(super) async fn exec_true(&mut self, container: &str) -> Result<Duration> {
        let request = cri::ExecSyncRequest { container_id: container.into(), cmd: vec!["true".into()], timeout: 10 };
        let start = Instant::now();
        let answer = self.runtime.exec_sync(request).await.context("ExecSync")?.into_inner();
        anyhow::ensure!(answer.exit_code == 0, "true ended with {}", answer.exit_code);
        Ok(start.elapsed())
    }

    /// Waits until a container has ended by itself.
    pub(super) async fn await_exit(&mut self, container: &str) -> Result<()> {
        let limit = Instant::now() + TIMEOUT;
        loop {
            let request = cri::ContainerStatusRequest { container_id: container.into(), verbose: false };
            let status = self.runtime.container_status(request).await.context("ContainerStatus")?.into_inner().status;
            if status.context("no status")?.state() == cri::ContainerState::ContainerExited {
                return Ok(());
            }
            anyhow::ensure!(Instant::now() < limit, "container {container} does not end");
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
    }

    pub(super) async fn stop_container(&mut self, container: &str) -> Result<Duration> {
        let start = Instant::now();
        let request = cri::StopContainerRequest { container_id: container.into(), timeout: 10 };
        self.runtime.stop_container(request).await.context("StopContainer")?;
        Ok(start.elapsed())
    }

    pub(super) async fn remove_container(&mut self, container: &str) -> Result<()> {
        let request = cri::RemoveContainerRequest { container_id: container.into() };
        self.runtime.remove_container(request).await.context("RemoveContainer")?;
        Ok(())
    }

    pub(super) async fn remove_sandbox(&mut self, sandbox: &Sandbox) -> Result<Duration> {
        let start = Instant::now();
        let request = cri::StopPodSandboxRequest { pod_sandbox_id: sandbox.id.clone() };
        self.runtime.stop_pod_sandbox(request).await.context("StopPodSandbox")?;
        let request = cri::RemovePodSandboxRequest { pod_sandbox_id: sandbox.id.clone() };
        self.runtime.remove_pod_sandbox(request).await.context("RemovePodSandbox")?;
        Ok(start.elapsed())
    }

    fn image_spec(&self) -> cri::ImageSpec {
        cri::ImageSpec { image: self.image.clone(), ..Default::default() }
    }
}

fn runtime_default() -> cri::SecurityProfile {
    cri::SecurityProfile {
        profile_type: cri::security_profile::ProfileType::RuntimeDefault.into(),
        localhost_ref: String::new(),
    }
}
