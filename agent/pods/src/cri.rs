//! The runtime, by whichever of its two doors.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use berth_cri_proto::v1::image_service_client::ImageServiceClient;
use berth_cri_proto::v1::image_service_server::ImageService;
use berth_cri_proto::v1::runtime_service_client::RuntimeServiceClient;
use berth_cri_proto::v1::runtime_service_server::RuntimeService;
use berth_cri_proto::v1::{self as cri};
use berth_probes::{Exec, ExecError, Ran};
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Request, Status};

/// The largest message that a runtime may send (the kubelet's own limit).
const MESSAGE_LIMIT: usize = 16 << 20;

/// A container runtime: the one inside this process, or one behind a socket. Cheap to clone.
#[derive(Clone)]
pub enum Cri {
    /// This process' own service, called without a socket.
    Local(Arc<dyn Calls>),
    /// Any CRI v1 runtime behind a unix socket.
    Remote(Box<Remote>),
}

impl fmt::Debug for Cri {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Local(_) => "Cri::Local",
            Self::Remote(_) => "Cri::Remote",
        })
    }
}

impl Cri {
    /// The door to a service in this process.
    pub fn local<S: RuntimeService + ImageService>(service: Arc<S>) -> Self {
        Self::Local(Arc::new(Local(service)))
    }

    /// The door to a runtime behind the unix socket at `socket`. Dials on first use, and again whenever it has to.
    ///
    /// # Errors
    /// A path that can't be an endpoint.
    pub fn remote(socket: &Path) -> Result<Self, tonic::transport::Error> {
        let path = socket.to_path_buf();
        // The URI is never resolved: the connector below ignores it.
        let channel =
            Endpoint::try_from("http://localhost")?.connect_with_connector_lazy(tower::service_fn(move |_: Uri| {
                let path = path.clone();
                async move { UnixStream::connect(path).await.map(TokioIo::new) }
            }));
        Ok(Self::Remote(Box::new(Remote {
            runtime: RuntimeServiceClient::new(channel.clone()).max_decoding_message_size(MESSAGE_LIMIT),
            image: ImageServiceClient::new(channel).max_decoding_message_size(MESSAGE_LIMIT),
        })))
    }

    /// Whether each call crosses a socket.
    pub fn is_remote(&self) -> bool {
        matches!(self, Self::Remote(_))
    }
}

impl std::ops::Deref for Cri {
    type Target = dyn Calls;

    fn deref(&self) -> &Self::Target {
        match self {
            Self::Local(calls) => calls.as_ref(),
            Self::Remote(remote) => remote.as_ref(),
        }
    }
}

/// A runtime's service in this process.
struct Local<S>(Arc<S>);

/// Clients of a runtime behind a socket.
#[derive(Debug, Clone)]
pub struct Remote {
    runtime: RuntimeServiceClient<Channel>,
    image: ImageServiceClient<Channel>,
}

macro_rules! calls {
    ($( $(#[$meta:meta])* $service:ident $client:ident $name:ident($request:ident) -> $response:ident; )*) => {
        /// The CRI calls that the agent makes.
        #[async_trait]
        pub trait Calls: Send + Sync {
            $( $(#[$meta])* async fn $name(&self, request: cri::$request) -> Result<cri::$response, Status>; )*

            /// Container events from now on; ends when the runtime goes away.
            async fn events(&self) -> Result<BoxStream<'static, Result<cri::ContainerEventResponse, Status>>, Status>;
        }

        #[async_trait]
        impl<S: RuntimeService + ImageService> Calls for Local<S> {
            $( async fn $name(&self, request: cri::$request) -> Result<cri::$response, Status> {
                Ok($service::$name(self.0.as_ref(), Request::new(request)).await?.into_inner())
            } )*

            async fn events(&self) -> Result<BoxStream<'static, Result<cri::ContainerEventResponse, Status>>, Status> {
                let request = Request::new(cri::GetEventsRequest {});
                Ok(RuntimeService::get_container_events(self.0.as_ref(), request).await?.into_inner().boxed())
            }
        }

        #[async_trait]
        impl Calls for Remote {
            $( async fn $name(&self, request: cri::$request) -> Result<cri::$response, Status> {
                Ok(self.$client.clone().$name(request).await?.into_inner())
            } )*

            async fn events(&self) -> Result<BoxStream<'static, Result<cri::ContainerEventResponse, Status>>, Status> {
                let stream = self.runtime.clone().get_container_events(cri::GetEventsRequest {}).await?;
                Ok(stream.into_inner().boxed())
            }
        }
    };
}

calls! {
    /// The runtime's name and version.
    RuntimeService runtime version(VersionRequest) -> VersionResponse;
    /// Whether the runtime and its network are ready.
    RuntimeService runtime status(StatusRequest) -> StatusResponse;
    /// How the runtime is set up: which cgroup driver it works with.
    RuntimeService runtime runtime_config(RuntimeConfigRequest) -> RuntimeConfigResponse;
    /// Makes a sandbox with its network.
    RuntimeService runtime run_pod_sandbox(RunPodSandboxRequest) -> RunPodSandboxResponse;
    /// Stops whatever runs in a sandbox and takes its network down.
    RuntimeService runtime stop_pod_sandbox(StopPodSandboxRequest) -> StopPodSandboxResponse;
    /// Removes a sandbox and its containers.
    RuntimeService runtime remove_pod_sandbox(RemovePodSandboxRequest) -> RemovePodSandboxResponse;
    /// One sandbox.
    RuntimeService runtime pod_sandbox_status(PodSandboxStatusRequest) -> PodSandboxStatusResponse;
    /// All sandboxes that match.
    RuntimeService runtime list_pod_sandbox(ListPodSandboxRequest) -> ListPodSandboxResponse;
    /// Makes a container in a sandbox.
    RuntimeService runtime create_container(CreateContainerRequest) -> CreateContainerResponse;
    /// Starts a created container.
    RuntimeService runtime start_container(StartContainerRequest) -> StartContainerResponse;
    /// Stops a running container: its stop signal, and after the timeout SIGKILL.
    RuntimeService runtime stop_container(StopContainerRequest) -> StopContainerResponse;
    /// Removes a container.
    RuntimeService runtime remove_container(RemoveContainerRequest) -> RemoveContainerResponse;
    /// All containers that match.
    RuntimeService runtime list_containers(ListContainersRequest) -> ListContainersResponse;
    /// One container.
    RuntimeService runtime container_status(ContainerStatusRequest) -> ContainerStatusResponse;
    /// Runs a command in a container.
    RuntimeService runtime exec_sync(ExecSyncRequest) -> ExecSyncResponse;
    /// Whether an image is there.
    ImageService image image_status(ImageStatusRequest) -> ImageStatusResponse;
    /// Fetches an image.
    ImageService image pull_image(PullImageRequest) -> PullImageResponse;
}

/// How long a runtime may take to tell that a command has run out of its time.
const EXEC_PATIENCE: Duration = Duration::from_secs(120);

#[async_trait]
impl Exec for Cri {
    async fn exec(&self, id: &str, command: &[String], timeout: Option<Duration>) -> Result<Ran, ExecError> {
        let seconds = timeout.map_or(0, |limit| limit.as_secs().max(1));
        let late = || ExecError::TimedOut(format!("{:?} timed out after {seconds}s", command.join(" ")));
        let request = cri::ExecSyncRequest {
            container_id: id.to_owned(),
            cmd: command.to_vec(),
            timeout: i64::try_from(seconds).unwrap_or(i64::MAX),
        };
        let call = self.exec_sync(request);
        let answer = match timeout {
            Some(limit) => tokio::time::timeout(limit + EXEC_PATIENCE, call).await.map_err(|_| late())?,
            None => call.await,
        };
        match answer {
            Ok(ran) => Ok(Ran { code: ran.exit_code, stdout: ran.stdout, stderr: ran.stderr }),
            Err(status) if status.code() == Code::DeadlineExceeded => Err(late()),
            Err(status) => Err(ExecError::Failed(status.message().to_owned())),
        }
    }
}
