//! Units of the guest's systemd.

use anyhow::{Result, ensure};

use crate::vm::{Machine, PATIENCE};
use crate::wait;

/// Some services, by their names.
#[derive(Clone, Copy, Debug)]
pub(super) struct Units(pub(super) &'static str);

impl Units {
    /// Does something by `systemctl`, and waits until all run as other processes than before.
    pub(super) fn restart(self, machine: &mut Machine, act: &str) -> Result<()> {
        let before = self.main_pids(machine)?;
        machine.run(&format!("systemctl {act} {}", self.0))?;
        wait::until_true("the units run again", PATIENCE, || {
            let now = self.main_pids(machine)?;
            let active = machine.run(&format!("systemctl is-active {} || true", self.0))?;
            let fresh = now.iter().zip(&before).all(|(now, before)| now != before && now != "0");
            Ok(fresh && active.split_whitespace().all(|state| state == "active"))
        })
    }

    /// Each one's process is alone in its cgroup: systemd would take a shim there for a process of the unit.
    pub(super) fn hold_no_shim(self, machine: &mut Machine) -> Result<()> {
        let pids = self.main_pids(machine)?;
        for (unit, pid) in self.0.split(' ').zip(pids) {
            let inside = machine.run(&format!("cat /sys/fs/cgroup/system.slice/{unit}.service/cgroup.procs"))?;
            ensure!(inside.trim() == pid, "{unit} is process {pid}, and its cgroup holds {inside:?}");
        }
        Ok(())
    }

    fn main_pids(self, machine: &mut Machine) -> Result<Vec<String>> {
        let pids = machine.run(&format!("systemctl show --property=MainPID --value {}", self.0))?;
        Ok(pids.split_whitespace().map(str::to_owned).collect())
    }
}
