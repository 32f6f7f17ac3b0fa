//! Which devices the processes of a cgroup may open.

use std::fs::File;
use std::os::fd::AsFd;

use berth_sys::bpf;

use crate::cgroup::Cgroup;
use crate::error::CgroupError;
use crate::files::write;

/// What a container may do with device nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Devices {
    /// Everything (privileged).
    All,
    /// These, and no other.
    Listed(Vec<DeviceRule>),
}

/// One kind of device that is allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceRule {
    /// A block device; else a character device.
    pub block: bool,
    /// `None` is every number, here and below.
    pub major: Option<u32>,
    pub minor: Option<u32>,
    /// Of `r`, `w` and `m` (mknod).
    pub access: String,
}

impl Cgroup {
    /// Sets the device rules: `false` where this machine has no devices controller of v1, so that only a program
    /// ([`Cgroup::filter_devices`]) can.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn limit_devices(&self, devices: &Devices) -> Result<bool, CgroupError> {
        let Some(folder) = self.controller("devices") else { return Ok(false) };
        let Devices::Listed(rules) = devices else {
            write(&folder, "devices.allow", "a")?;
            return Ok(true);
        };
        write(&folder, "devices.deny", "a")?;
        for rule in rules {
            write(&folder, "devices.allow", &rule.line())?;
        }
        Ok(true)
    }
}

impl Cgroup {
    /// Sets device rules in the form of the v1 controller, (file, line) each: `false` where this machine has none.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn write_device_rules(&self, lines: &[(&'static str, String)]) -> Result<bool, CgroupError> {
        let Some(folder) = self.controller("devices") else { return Ok(false) };
        for (file, line) in lines {
            write(&folder, file, line)?;
        }
        Ok(true)
    }

    /// Lets a program decide what the cgroup's processes may do with devices (cgroup v2; see
    /// [`berth_sys::bpf::load_device_filter`]): `false` where this machine has no v2 tree. It goes with the cgroup.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn filter_devices(&self, program: &[u8]) -> Result<bool, CgroupError> {
        let Some(unified) = &self.host.inner.unified else { return Ok(false) };
        let path = self.below(&unified.path);
        let folder = File::open(&path).map_err(CgroupError::io("open", &path))?;
        let program = bpf::load_device_filter(program).map_err(CgroupError::io("load the device program of", &path))?;
        berth_effect::run("cgroup-device-program", || {
            bpf::attach_device_filter(folder.as_fd(), program.as_fd())
                .map_err(CgroupError::io("attach the device program to", &path))
        })?;
        Ok(true)
    }
}

impl DeviceRule {
    fn line(&self) -> String {
        let kind = if self.block { 'b' } else { 'c' };
        let number = |number: Option<u32>| number.map_or_else(|| "*".to_owned(), |number| number.to_string());
        format!("{kind} {}:{} {}", number(self.major), number(self.minor), self.access)
    }
}
