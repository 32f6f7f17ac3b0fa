//! Which devices the processes of a cgroup may open.

use crate::cgroup::Cgroup;
use crate::error::CgroupError;
use crate::files::write;

/// What a container may do with device nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Devices {
    /// Everything (privileged).
    All,
    /// runc's defaults (make any node, use the harmless ones and terminals) and these.
    Listed(Vec<DeviceRule>),
}

/// One kind of device that is allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceRule {
    /// A block device; else a character device.
    pub block: bool,
    pub major: u32,
    /// `None` is every minor number.
    pub minor: Option<u32>,
    /// Of `r`, `w` and `m` (mknod).
    pub access: String,
}

/// (major, minor) of null, zero, full, random, urandom, tty, console, ptmx: read, write, mknod.
const HARMLESS: [(u32, Option<u32>); 9] = [
    (1, Some(3)),
    (1, Some(5)),
    (1, Some(7)),
    (1, Some(8)),
    (1, Some(9)),
    (5, Some(0)),
    (5, Some(1)),
    (5, Some(2)),
    // Every /dev/pts/N.
    (136, None),
];

impl Cgroup {
    /// Sets the device rules: `false` where this machine has no devices controller of v1, so that nothing limits the use
    /// of nodes but the capability to make them.
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
        for any in ["c *:* m", "b *:* m"] {
            write(&folder, "devices.allow", any)?;
        }
        for (major, minor) in HARMLESS {
            let rule = DeviceRule { block: false, major, minor, access: "rwm".to_owned() };
            write(&folder, "devices.allow", &rule.line())?;
        }
        for rule in rules {
            write(&folder, "devices.allow", &rule.line())?;
        }
        Ok(true)
    }
}

impl DeviceRule {
    fn line(&self) -> String {
        let kind = if self.block { 'b' } else { 'c' };
        let minor = self.minor.map_or_else(|| "*".to_owned(), |minor| minor.to_string());
        format!("{kind} {}:{minor} {}", self.major, self.access)
    }
}
