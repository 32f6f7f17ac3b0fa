//! RuntimeConfig: the cgroup driver, which the kubelet then uses too.

use std::sync::Arc;

use berth_cri_proto::v1::{CgroupDriver, LinuxRuntimeConfiguration, RuntimeConfigRequest, RuntimeConfigResponse};
use tonic::Status;

use crate::runtime::Runtime;

#[expect(clippy::unused_async, reason = "all calls have one form")]
pub(crate) async fn call(_: &Arc<Runtime>, _: RuntimeConfigRequest) -> Result<RuntimeConfigResponse, Status> {
    let linux = LinuxRuntimeConfiguration { cgroup_driver: CgroupDriver::Cgroupfs.into() };
    Ok(RuntimeConfigResponse { linux: Some(linux) })
}
