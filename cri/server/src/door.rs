//! The generated server traits: each call goes to its own module under `rpc/`, or is refused by name.
//!
//! A call that only reads runs in the caller's task. One that changes something gets a task of its own, which the caller
//! awaits: when the caller goes away, the work is finished all the same, and a panic ends that call only.

use berth_cri_proto::v1 as cri;
use berth_cri_proto::v1::image_service_server::ImageService;
use berth_cri_proto::v1::runtime_service_server::RuntimeService;
use futures_util::stream::BoxStream;
use tonic::{Request, Response, Status};

use crate::{Service, rpc};

type Stream<T> = BoxStream<'static, Result<T, Status>>;

macro_rules! door {
    ($service:ident {
        reads { $($read:ident($read_request:ident) -> $read_response:ident;)* }
        changes { $($change:ident($change_request:ident) -> $change_response:ident;)* }
        streams { $($stream:ident($stream_request:ident) -> $stream_type:ident of $stream_item:ident;)* }
        refused { $($refused:ident($refused_request:ident) -> $refused_response:ident;)* }
    }) => {
        #[tonic::async_trait]
        impl $service for Service {
            $(async fn $read(&self, request: Request<cri::$read_request>) -> Result<Response<cri::$read_response>, Status> {
                rpc::$read::call(&self.runtime, request.into_inner()).await.map(Response::new)
            })*

            $(async fn $change(&self, request: Request<cri::$change_request>) -> Result<Response<cri::$change_response>, Status> {
                let runtime = self.runtime.clone();
                let work = async move { rpc::$change::call(&runtime, request.into_inner()).await };
                self.runtime.tasks.run(stringify!($change), work).await.map(Response::new)
            })*

            $(type $stream_type = Stream<cri::$stream_item>;

            async fn $stream(&self, request: Request<cri::$stream_request>) -> Result<Response<Self::$stream_type>, Status> {
                rpc::$stream::call(&self.runtime, request.into_inner()).map(Response::new)
            })*

            $(async fn $refused(&self, _: Request<cri::$refused_request>) -> Result<Response<cri::$refused_response>, Status> {
                Err(Status::unimplemented(concat!(stringify!($refused), " is not implemented")))
            })*
        }
    };
}

door!(RuntimeService {
    reads {
        version(VersionRequest) -> VersionResponse;
        status(StatusRequest) -> StatusResponse;
        runtime_config(RuntimeConfigRequest) -> RuntimeConfigResponse;
        update_runtime_config(UpdateRuntimeConfigRequest) -> UpdateRuntimeConfigResponse;
        pod_sandbox_status(PodSandboxStatusRequest) -> PodSandboxStatusResponse;
        list_pod_sandbox(ListPodSandboxRequest) -> ListPodSandboxResponse;
        container_status(ContainerStatusRequest) -> ContainerStatusResponse;
        list_containers(ListContainersRequest) -> ListContainersResponse;
        container_stats(ContainerStatsRequest) -> ContainerStatsResponse;
        list_container_stats(ListContainerStatsRequest) -> ListContainerStatsResponse;
        exec(ExecRequest) -> ExecResponse;
        attach(AttachRequest) -> AttachResponse;
        port_forward(PortForwardRequest) -> PortForwardResponse;
        pod_sandbox_stats(PodSandboxStatsRequest) -> PodSandboxStatsResponse;
        list_pod_sandbox_stats(ListPodSandboxStatsRequest) -> ListPodSandboxStatsResponse;
        list_metric_descriptors(ListMetricDescriptorsRequest) -> ListMetricDescriptorsResponse;
        list_pod_sandbox_metrics(ListPodSandboxMetricsRequest) -> ListPodSandboxMetricsResponse;
    }
    changes {
        run_pod_sandbox(RunPodSandboxRequest) -> RunPodSandboxResponse;
        stop_pod_sandbox(StopPodSandboxRequest) -> StopPodSandboxResponse;
        remove_pod_sandbox(RemovePodSandboxRequest) -> RemovePodSandboxResponse;
        create_container(CreateContainerRequest) -> CreateContainerResponse;
        start_container(StartContainerRequest) -> StartContainerResponse;
        stop_container(StopContainerRequest) -> StopContainerResponse;
        remove_container(RemoveContainerRequest) -> RemoveContainerResponse;
        reopen_container_log(ReopenContainerLogRequest) -> ReopenContainerLogResponse;
        update_container_resources(UpdateContainerResourcesRequest) -> UpdateContainerResourcesResponse;
        update_pod_sandbox_resources(UpdatePodSandboxResourcesRequest) -> UpdatePodSandboxResourcesResponse;
        exec_sync(ExecSyncRequest) -> ExecSyncResponse;
        checkpoint_container(CheckpointContainerRequest) -> CheckpointContainerResponse;
    }
    streams {
        get_container_events(GetEventsRequest) -> GetContainerEventsStream of ContainerEventResponse;
        stream_pod_sandboxes(StreamPodSandboxesRequest) -> StreamPodSandboxesStream of StreamPodSandboxesResponse;
        stream_containers(StreamContainersRequest) -> StreamContainersStream of StreamContainersResponse;
        stream_container_stats(StreamContainerStatsRequest) -> StreamContainerStatsStream of StreamContainerStatsResponse;
        stream_pod_sandbox_stats(StreamPodSandboxStatsRequest) -> StreamPodSandboxStatsStream of StreamPodSandboxStatsResponse;
        stream_pod_sandbox_metrics(StreamPodSandboxMetricsRequest) -> StreamPodSandboxMetricsStream of StreamPodSandboxMetricsResponse;
    }
    refused {
        checkpoint_pod(CheckpointPodRequest) -> CheckpointPodResponse;
        restore_pod(RestorePodRequest) -> RestorePodResponse;
    }
});

door!(ImageService {
    reads {
        list_images(ListImagesRequest) -> ListImagesResponse;
        image_status(ImageStatusRequest) -> ImageStatusResponse;
        image_fs_info(ImageFsInfoRequest) -> ImageFsInfoResponse;
    }
    changes {
        pull_image(PullImageRequest) -> PullImageResponse;
        remove_image(RemoveImageRequest) -> RemoveImageResponse;
    }
    streams {
        stream_images(StreamImagesRequest) -> StreamImagesStream of StreamImagesResponse;
    }
    refused {}
});
