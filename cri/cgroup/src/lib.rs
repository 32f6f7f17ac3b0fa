//! cgroups v1, hybrid and v2, by their files (the `cgroupfs` driver).
//!
//! [`Host`] is what the machine has mounted; [`Cgroup`] is one path in every hierarchy at once (`/kubepods/podX/ID`).
//! Whatever is asked for in [`Resources`] is written as runc 1.3 and later write it; what a kernel lacks is an error that
//! names the file, except where the ecosystem tolerates it (swap accounting, huge pages).
//!
//! Everything here blocks: file writes that take microseconds, and [`Cgroup::remove`], which may wait for processes that
//! are being killed. Sources: cgroups(7), the kernel's admin-guide/cgroup-v1 and cgroup-v2.

mod cgroup;
mod core;
mod devices;
mod error;
mod files;
mod host;
mod kill;
mod limits;
mod settings;
mod usage;
mod v1;
mod v2;

pub use berth_plan::resources::{Resources, Setting};
pub use cgroup::{Cgroup, Entrances, Handles};
pub use devices::{DeviceRule, Devices};
pub use error::CgroupError;
pub use host::{Hierarchy, Host, Layout, UnifiedOptions};
pub use limits::{swap_max, weight};
pub use usage::{Cpu, DeviceIo, Faults, HugePages, Memory, Pressure, Stall, Tasks, Window};
