//! systemd's manager: units are started, changed and stopped.

use std::path::Path;

use berth_cgroup::{Host, Layout};
use berth_cri_core::systemd::Property;

use crate::bus::Bus;
use crate::error::SystemdError;
use crate::wire::Body;

/// What sd_booted(3) looks at.
const BOOTED: &str = "/run/systemd/system";

const SCOPE: &str = "org.freedesktop.systemd1.Scope";

/// A connection to this machine's systemd. Everything blocks, for some milliseconds where systemd has nothing else to do.
#[derive(Debug)]
pub struct Systemd {
    bus: Bus,
    version: Option<u32>,
}

/// Whether systemd runs this machine (sd_booted(3)).
pub fn is_booted() -> bool {
    Path::new(BOOTED).symlink_metadata().is_ok_and(|data| data.is_dir())
}

/// Whether the driver can work here.
///
/// # Errors
/// No systemd, or not cgroup v2 alone: beside v1 hierarchies systemd would give every scope all devices again at each
/// reload.
pub fn check(host: &Host) -> Result<(), SystemdError> {
    if !is_booted() {
        return Err(SystemdError::NotBooted);
    }
    if host.layout() != Layout::V2 {
        return Err(SystemdError::NotUnified);
    }
    Ok(())
}

impl Systemd {
    /// Connects.
    ///
    /// # Errors
    /// No systemd, or nobody answers.
    pub fn connect() -> Result<Self, SystemdError> {
        if !is_booted() {
            return Err(SystemdError::NotBooted);
        }
        Ok(Self { bus: Bus::connect()?, version: None })
    }

    #[cfg(test)]
    pub(crate) fn over(bus: Bus, version: Option<u32>) -> Self {
        Self { bus, version }
    }

    /// 252 of `252.38-1~deb12u1`, or of `v252`; 0 where it can't be read, so that nothing new is asked for.
    ///
    /// # Errors
    /// What systemd refuses.
    pub fn version(&mut self) -> Result<u32, SystemdError> {
        if let Some(version) = self.version {
            return Ok(version);
        }
        let version = number(&self.bus.manager_text("Version")?);
        self.version = Some(version);
        Ok(version)
    }

    pub(crate) fn start(&mut self, unit: &str, properties: &[Property]) -> Result<(), SystemdError> {
        let body = Body::new("ssa(sv)a(sa(sv))").text(unit).text("replace").properties(properties).no_units();
        berth_effect::run("systemd-unit-start", || {
            let result = self.job("StartTransientUnit", &body)?;
            if result == "done" {
                return Ok(());
            }
            // What has failed would keep its name.
            let _ = self.reset(unit);
            Err(SystemdError::Job { act: "start", unit: unit.to_owned(), result })
        })
    }

    /// Stops a unit and has systemd forget it. One that it does not know is fine.
    ///
    /// # Errors
    /// What systemd refuses, and a job that does not end well.
    pub fn stop(&mut self, unit: &str) -> Result<(), SystemdError> {
        let body = Body::new("ss").text(unit).text("replace");
        berth_effect::run("systemd-unit-stop", || match self.job("StopUnit", &body) {
            Err(error) if error.is_no_unit() => Ok(()),
            Err(error) => Err(error),
            // It has gone by itself meanwhile.
            Ok(result) if matches!(result.as_str(), "done" | "canceled") => Ok(()),
            Ok(result) => Err(SystemdError::Job { act: "stop", unit: unit.to_owned(), result }),
        })?;
        self.reset(unit)
    }

    /// Until the machine's restart, which no unit of ours survives. The files are written when this returns.
    pub(crate) fn set(&mut self, unit: &str, properties: &[Property]) -> Result<(), SystemdError> {
        let body = Body::new("sba(sv)").text(unit).bool(true).properties(properties);
        berth_effect::run("systemd-unit-set", || self.bus.manage("SetUnitProperties", &body).map(drop))?;
        // systemd writes before it looks at the next message, so whatever is asked now is answered afterwards. Without this
        // it would write its own roundings over what is written after this call.
        self.bus.manager_text("Version").map(drop)
    }

    /// The cgroup of a scope, empty where it has none (any more).
    pub(crate) fn cgroup_of(&mut self, unit: &str) -> Result<String, SystemdError> {
        let answer = match self.bus.manage("GetUnit", &Body::new("s").text(unit)) {
            Err(error) if error.is_no_unit() => return Ok(String::new()),
            other => other?,
        };
        let object = answer.arguments().text()?.to_owned();
        match self.bus.text_of(&object, SCOPE, "ControlGroup") {
            // It went between the two questions.
            Err(SystemdError::Refused { .. }) => Ok(String::new()),
            other => other,
        }
    }

    fn reset(&mut self, unit: &str) -> Result<(), SystemdError> {
        match self.bus.manage("ResetFailedUnit", &Body::new("s").text(unit)) {
            Err(error) if error.is_no_unit() => Ok(()),
            other => other.map(drop),
        }
    }

    fn job(&mut self, call: &'static str, body: &Body) -> Result<String, SystemdError> {
        let answer = self.bus.manage(call, body)?;
        let job = answer.arguments().text()?.to_owned();
        self.bus.await_job(&job)
    }
}

fn number(version: &str) -> u32 {
    let digits = version.trim_start_matches('v');
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    digits[..end].parse().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_numbers() {
        let versions = ["252.38-1~deb12u1", "v245.4-1.fc32", "256~rc1", "257", "", "x"];
        assert_eq!(versions.map(number), [252, 245, 256, 257, 0, 0]);
    }
}
