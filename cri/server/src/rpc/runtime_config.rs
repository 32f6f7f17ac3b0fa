//! RuntimeConfig: the cgroup driver, which the kubelet then uses too.

use std::sync::Arc;

use berth_cri_core::host::CgroupDriver as Driver;
use berth_cri_proto::v1::{CgroupDriver, LinuxRuntimeConfiguration, RuntimeConfigRequest, RuntimeConfigResponse};
use tonic::Status;

use crate::runtime::Runtime;

#[expect(clippy::unused_async, reason = "all calls have one form")]
pub(crate) async fn call(runtime: &Arc<Runtime>, _: RuntimeConfigRequest) -> Result<RuntimeConfigResponse, Status> {
    let driver = match runtime.config.cgroup_driver {
        Driver::Cgroupfs => CgroupDriver::Cgroupfs,
        Driver::Systemd => CgroupDriver::Systemd,
    };
    let linux = LinuxRuntimeConfiguration { cgroup_driver: driver.into() };
    Ok(RuntimeConfigResponse { linux: Some(linux) })
}
